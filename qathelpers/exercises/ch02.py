"""The exercises of notebook 02, what a quantizer does."""

import torch

from .exercise import exercise
from .verdicts import Verdict, function, number, sequence


def _highest(bits):
    return 2 ** (bits - 1) - 1


def _symmetric(x, scale, bits):
    return (x / scale).round().clamp(-_highest(bits), _highest(bits)) * scale


@exercise(
    blank="factor = None",
    hint="One more bit halves the scale. The rounding error of a number is at most half a scale. What happens to the "
    "square of the error?",
    solution="factor = 2**2",
    explanation="One more bit doubles the number of levels, so it halves the scale and the typical rounding error. The "
    "*squared* error falls to a quarter. Engineers know this rule as 6 dB per bit.",
    wrong=[("factor = 2", "squared"), ("factor = 0.25", "other way round"), ("factor = 8", "too large")],
)
def q1(factor):
    """*Predict, then run.* The scale is set by the largest magnitude, so nothing is clipped. By about what factor does
    one more bit reduce the mean *squared* error? Think of the step from 7 bits to 8 bits. Then run the next cell, which
    shows the error for several bit widths.
    """
    mistakes = [
        (2, "That is the factor for the error itself; the question is about the squared error."),
        (0.25, "It is the other way round: more bits give a smaller error."),
    ]
    return number("factor", factor, 4, mistakes=mistakes, praise="Engineers call this rule 6 dB per bit.")


@exercise(
    blank="integers = None",
    hint="Divide by 0.5, round, then clip to the range of the integers. Which integers are available with 2 bits?",
    solution="integers = (torch.tensor([-0.9, -0.2, 0.3, 0.6]) / 0.5).round().clamp(-1, 1)",
    explanation="Divided by the scale, the numbers are -1.8, -0.4, 0.6 and 1.2. Rounding gives -2, 0, 1 and 1, and the "
    "first integer is clipped to -1, because the narrow range does not contain -2.",
    wrong=[
        ("integers = [-2, 0, 1, 1]", "-1 is the lowest integer"),
        ("integers = [-1, 0, 0, 1]", "rounded, not truncated"),
        ("integers = [-0.5, 0, 0.5, 0.5]", "levels"),
    ],
)
def q2(integers):
    """*On paper.* With a scale of 0.5 and 2 bits in narrow range, which integers do -0.9, -0.2, 0.3 and 0.6 become?"""
    mistakes = [
        ((-2, 0, 1, 1), "With 2 bits in narrow range, -1 is the lowest integer, so -2 has to be clipped."),
        ((-1, 0, 0, 1), "0.3 / 0.5 is 0.6, which is rounded, not truncated."),
        ((-0.5, 0, 0.5, 0.5), "These are the levels; divide them by the scale."),
    ]
    return sequence("integers", integers, [-1, 0, 1, 1], mistakes=mistakes)


@exercise(
    blank="def fake_quantize(x, scale, bits):\n    return None",
    hint="Clip before you round, and use `StraightThrough` for the rounding only: the gradient that PyTorch computes "
    "for `clamp` is already the one you want.",
    solution="""
    def fake_quantize(x, scale, bits):
        highest = 2 ** (bits - 1) - 1
        return StraightThrough.apply((x / scale).clamp(-highest, highest)) * scale
    """,
    explanation="The division and the multiplication by the scale cancel in the gradient, so the gradient is 1 inside "
    "the range and 0 where the number is clipped. A quantizer for training needs nothing else. (It is called a *fake* "
    "quantizer because it returns floats, not integers.)",
    wrong=[
        (
            "def fake_quantize(x, scale, bits):\n    return StraightThrough.apply(x / scale) * scale",
            "Nothing is clipped",
        ),
        (
            "def fake_quantize(x, scale, bits):\n    highest = 2 ** (bits - 1) - 1\n"
            "    return StraightThrough.apply((x / scale).clamp(-highest, highest))",
            "Multiply by the scale",
        ),
        ("def fake_quantize(x, scale, bits):\n    return quantize(x, scale, bits)[0]", "the gradient is [0.0, 0.0"),
        ("def fake_quantize(x, scale, bits):\n    return x.rounded()", "AttributeError"),
    ],
)
def q3(fake_quantize):
    """*Write it.* Write a complete quantizer for training: clip as `quantize` does, round with `StraightThrough`, and
    return only the quantized values. The check compares first the values, then the gradient.
    """
    inputs = [(torch.tensor([-2.0, -0.2, 0.3, 0.9]), 0.25, 3), (torch.tensor([0.3]), 0.5, 2)]
    mistakes = [
        (lambda x, scale, bits: _symmetric(x, scale, bits) / scale, "Multiply by the scale at the end."),
        (lambda x, scale, bits: (x / scale).round() * scale, "Nothing is clipped."),
    ]
    values = function("fake_quantize", fake_quantize, _symmetric, inputs, mistakes=mistakes)
    return [values, _gradient(fake_quantize)] if values.state == "solved" else values


def _gradient(fake_quantize) -> Verdict:
    x = torch.tensor([-2.0, -0.2, 0.3, 0.9], requires_grad=True)
    try:
        y = fake_quantize(x, 0.25, 3)
    except Exception as error:  # the reader's code may raise anything
        return Verdict("gradient", "wrong", f"With requires_grad=True, it raises {type(error).__name__}: {error}")
    if not isinstance(y, torch.Tensor) or not y.requires_grad:
        return Verdict("gradient", "wrong", "There is no gradient: the result is not connected to x.")
    y.sum().backward()
    if x.grad.tolist() == [0, 1, 1, 0]:
        return Verdict("gradient", "solved", "The gradient is 1 inside the range and 0 where a number is clipped.")
    return Verdict(
        "gradient",
        "wrong",
        f"For one number below the range, two inside and one above, the gradient is {x.grad.tolist()}.",
    )


@exercise(
    blank="def affine(x, low, high, bits):\n    return None",
    hint="With `bits` bits there are 2 ** bits - 1 steps between `low` and `high`. The zero point is the integer that "
    "stands for 0.0. How many steps above `low` is 0.0, rounded to an integer?",
    solution="""
    def affine(x, low, high, bits):
        steps = 2**bits - 1
        scale = (high - low) / steps
        zero_point = round(-low / scale)
        integers = ((x / scale).round() + zero_point).clamp(0, steps)
        return (integers - zero_point) * scale
    """,
    explanation="Rounding the zero point shifts the range by a fraction of a step, so that 0.0 is a level. If the zero "
    "point were not rounded, the padding of a convolution and every value that a ReLU sets to 0 would get the same "
    "small error.",
    wrong=[
        (
            "def affine(x, low, high, bits):\n    scale = (high - low) / (2**bits - 1)\n"
            "    return ((x - low) / scale).round().clamp(0, 2**bits - 1) * scale + low",
            "0.0 is not a level",
        ),
        (
            "def affine(x, low, high, bits):\n    scale = (high - low) / 2**bits\n    zero = round(-low / scale)\n"
            "    return (((x / scale).round() + zero).clamp(0, 2**bits - 1) - zero) * scale",
            "steps",
        ),
    ],
)
def q4(affine):
    """*Write it.* Write an asymmetric quantizer with `bits` bits. Its integers are unsigned and start at 0, its range
    is from about `low` to about `high`, and its zero point is an integer, so that 0.0 is a level. Return the quantized
    values.
    """

    def expected(x, low, high, bits, steps=None, rounded=True):
        steps = steps or 2**bits - 1
        scale = (high - low) / steps
        zero = round(-low / scale) if rounded else -low / scale
        integers = ((x / scale).round() + zero) if rounded else (x / scale + zero).round()
        return (integers.clamp(0, 2**bits - 1) - zero) * scale

    x = torch.tensor([-0.7, -0.4, 0.0, 0.3, 1.7, 2.9])
    mistakes = [
        (lambda x, low, high, bits: expected(x, low, high, bits, rounded=False), "0.0 is not a level."),
        (
            lambda x, low, high, bits: expected(x, low, high, bits, 2**bits),
            "Count the steps between 0 and the largest integer.",
        ),
    ]
    return function("affine", affine, expected, [(x, -0.5, 2.5, 4), (x, -0.5, 2.5, 2)], mistakes=mistakes)


@exercise(
    blank="real_value = None",
    hint="The bias is added to a sum of products of integers. What is the unit of this sum?",
    solution="real_value = 300 * 0.02 * 0.005",
    explanation="The unit of the sum is the product of both scales, and an integer that is added to the sum must have "
    "the same unit. The unit is very small, which is why biases have 32 bits.",
    wrong=[
        ("real_value = 300 * 0.005", "scale of the input"),
        ("real_value = 300 * (0.02 + 0.005)", "product"),
        ("real_value = 300", "integer"),
    ],
)
def q5(real_value):
    """*On paper.* The input of a layer has the scale 0.02, and the weights of the layer have the scale 0.005. One of
    the layer's biases is quantized to the integer 300. Which real number does this integer stand for?
    """
    mistakes = [
        (300 * 0.005, "The scale of the input is missing: the unit of the sum is the product of both scales."),
        (300 * 0.02, "The scale of the weights is missing: the unit of the sum is the product of both scales."),
        (300 * 0.025, "The unit of each product of integers is the product of the scales, not their sum."),
        (300, "That is the integer itself; the real number is much smaller."),
    ]
    return number("real_value", real_value, 300 * 0.02 * 0.005, mistakes=mistakes)


@exercise(
    hint="Look at the lower part of the picture of the straight-through estimator: what is the gradient at 2.0?",
    solution="""
    weight = torch.tensor(2.0, requires_grad=True)
    for _ in range(12):
        quantized = StraightThrough.apply((weight / 0.25).clamp(-3, 3)) * 0.25
        loss = (quantized - 0.6) ** 2
        loss.backward()
        with torch.no_grad():
            weight -= 0.2 * weight.grad
        print(f"latent {weight.item():.3f}, gradient {weight.grad.item():.3f}", end="; ")
        weight.grad = None
    """,
    explanation="The weight never moves. At 2.0 it is beyond the clipping limit of 0.75, where the gradient of the "
    "clipped estimator is 0, although a different weight would have a smaller loss. A latent weight that drifts too "
    "far out is *frozen*. There are three remedies: do not clip the gradient of the estimator, clamp the latent "
    "weights to the range after each step, or let the scale grow with the weights, as the mean magnitude does. This "
    "course uses the first and the third, and also bounds latent weights, at twice their root mean square.",
)
def q6():
    """*Break it.* Train one weight as above, but start at 2.0 and clip as in the picture, with
    `StraightThrough.apply((w / 0.25).clamp(-3, 3))`. What happens to the weight, and which part of the picture explains
    this? How can training deal with latent weights that drift too far out?
    """
