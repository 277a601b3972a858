"""The exercises of notebook 04, the ternary net."""

import torch

from .exercise import exercise
from .verdicts import Verdict, function, number, prediction, sequence


@exercise(
    blank="""
        layer_scale = None
        threshold = None
        integers = None
    """,
    hint="The scale is the mean of the magnitudes. Divide by it, round to the nearest integer, and clip to the range "
    "from -1 to 1. Where does the rounding change from 0 to 1?",
    solution="""
        four = torch.tensor([0.9, -0.1, 0.3, -0.5])
        layer_scale = four.abs().mean()
        threshold = layer_scale / 2
        integers = (four / layer_scale).round().clamp(-1, 1)
    """,
    explanation="The magnitudes have the mean 0.45, so the threshold is 0.225. Divided by the scale, the weights are "
    "2, -0.22, 0.67 and -1.11. Rounding gives 2, 0, 1 and -1, and the 2 is clipped to 1.",
    wrong=[
        ("layer_scale = 0.15\nthreshold = 0.075\nintegers = [1, -1, 1, -1]", "up to half the scale, weights become 0."),
        ("layer_scale = 0.45\nthreshold = 0.45\nintegers = [2, 0, 1, -1]", "which is then clipped to 1."),
        ("layer_scale = 0.9\nthreshold = 0.45\nintegers = [1, 0, 0, -1]", "too large for three levels."),
    ],
)
def q1(layer_scale, threshold, integers):
    """*On paper.* Take the weights 0.9, -0.1, 0.3 and -0.5. What is their scale? Below which magnitude does a weight
    become 0? What are the four integers?
    """
    scales = [
        (0.15, "That is the mean of the weights; take the mean of their magnitudes."),
        (0.9, "That is the largest magnitude, which is too large for three levels."),
    ]
    thresholds = [
        (0.45, "That is a level. A threshold lies halfway between two levels."),
        (0, "That is the threshold of a binary net. Here, 0 is a level."),
    ]
    mistakes = [
        ((2, 0, 1, -1), "0.9 / 0.45 rounds to 2, which is then clipped to 1."),
        ((1, -1, 1, -1), "These are signs; up to half the scale, weights become 0."),
        ((1, 0, 0, -1), "0.3 is above the threshold, so it does not become 0."),
    ]
    return [
        number("layer_scale", layer_scale, 0.45, mistakes=scales),
        number("threshold", threshold, 0.225, mistakes=thresholds),
        sequence("integers", integers, [1, 0, 1, -1], mistakes=mistakes),
    ]


@exercise(
    blank="percent_crossed = None",
    hint="A weight on the way from one sign to the other has to pass two thresholds. How far do weights move in one "
    "epoch, compared with the distance between the thresholds?",
    solution="""
        old, now = levels(snapshots[-2]), levels(snapshots[-1])
        percent_crossed = 100 * (old * now == -1).float().mean()
    """,
    explanation="The product of both levels is -1 only if a weight went from one sign to the other. Most weights that "
    "move stop at 0: to change its sign within one epoch, a weight has to cross the whole distance between the two "
    "thresholds.",
    wrong=[
        ("percent_crossed = 'few'", "A number is expected here."),
        ("percent_crossed = 100", "Most weights that move stop at 0"),
    ],
)
def q2(percent_crossed, snapshots):
    """*Predict, then run.* In the last epoch, what percentage of this layer's weights went from one sign to the
    other, from $-s$ to $+s$ or back?
    """
    if percent_crossed is None:
        return Verdict("percent_crossed", "open")
    old, now = ((w / w.abs().mean()).round().clamp(-1, 1) for w in snapshots[-2:])
    measured = 100 * (old * now == -1).float().mean().item()
    lesson = "Most weights that move stop at 0, between the two thresholds."
    return prediction("percent_crossed", percent_crossed, measured, lesson=lesson)


@exercise(
    blank="""
        percent_zeros = None
        fewest_channels = None
    """,
    hint="The weights are spread evenly between the two bounds. Which part of this range lies below 0.05? For the "
    "second question, solve bound < 0.05 for the number of channels.",
    solution="""
        percent_zeros = 100 * 0.05 * (9 * 16) ** 0.5
        fewest_channels = int(1 / (9 * 0.05**2)) + 1
    """,
    explanation="The share of zeros is the threshold divided by the bound, $0.05 \\sqrt{9n}$: 60 % for 16 channels. "
    "All weights are below the threshold if $1/\\sqrt{9n} < 0.05$. Squared, this is $9n > 400$, so $n > 44.4$: from 45 "
    "channels on, the layer has no weight left.",
    wrong=[
        ("percent_zeros = 0.6\nfewest_channels = 44", "at least one weight may be above"),
        ("percent_zeros = 100 * 0.05 * 4\nfewest_channels = 400", "the number of weights per output"),
        ("percent_zeros = 100 * 0.1 * 12\nfewest_channels = 12", "That uses the scale"),
    ],
)
def q3(percent_zeros, fewest_channels):
    r"""*On paper, before you run the next cell.* PyTorch initializes the weights of a 3 x 3 convolution with $n$ input
    channels uniformly between $-1/\sqrt{9n}$ and $+1/\sqrt{9n}$. The threshold is 0.05. What percentage of
    the weights is zero with 16 channels? What is the smallest number of channels with which all weights are zero,
    whatever the random numbers are?
    """
    shares = [
        (0.6, "Give a percentage, from 0 to 100."),
        (20, "Count all weights of an output: nine per input channel."),
        (120, "That uses the scale 0.1; the threshold is half of it."),
        (30, "The range reaches to both sides of 0, and so do the weights below the threshold."),
        (40, "That is the share that survives."),
    ]
    counts = [
        (400, "That is the number of weights per output; each input channel has nine."),
        (44, "With 44 channels, the bound is 0.0503: at least one weight may be above the threshold."),
        (11, "That uses the scale 0.1; the threshold is half of it."),
        (12, "That uses the scale 0.1; the threshold is half of it."),
    ]
    return [
        number("percent_zeros", percent_zeros, 60, mistakes=shares),
        number("fewest_channels", fewest_channels, 45, mistakes=counts, praise="9 x 45 = 405 weights per output."),
    ]


@exercise(
    blank="most_zeros = None",
    hint="Try a layer with one large weight and many small ones. Can the largest magnitude be smaller than the mean "
    "magnitude?",
    solution="""
        extreme = torch.zeros(400)
        extreme[0] = 1
        most_zeros = (extreme.abs() < extreme.abs().mean() / 2).sum()
    """,
    explanation="The largest magnitude is at least as large as the mean, so it is above half the mean: one weight "
    "always survives, unless all weights are exactly 0. With one large weight and 399 zeros, it is the only one. A "
    "scale that follows the weights can therefore make a layer very sparse, but it cannot kill the layer.",
    wrong=[
        ("most_zeros = 400", "at least the mean"),
        ("most_zeros = 200", "too small"),
        ("most_zeros = 100", "uniformly distributed"),
    ],
)
def q4(most_zeros):
    """*On paper.* A layer has 400 latent weights, not all of them 0. The scale is the mean magnitude, and the threshold
    is half of it. What is the largest number of weights that can become 0?
    """
    mistakes = [
        (400, "The largest magnitude is at least the mean magnitude. Where does this weight go?"),
        (100, "That is the number for uniformly distributed weights. Choose the weights freely."),
    ]
    return number("most_zeros", most_zeros, 399, mistakes=mistakes, tolerance=1e-4, praise="Sparse, but never dead.")


@exercise(
    blank="def ternary_weight_network(w):\n    return None",
    hint="First find the weights whose magnitude is above the threshold. The scale is the mean magnitude of these "
    "weights only, and each of them becomes its sign times this scale.",
    solution="""
    def ternary_weight_network(w):
        survives = w.abs() > 0.7 * w.abs().mean()
        scale = w.abs()[survives].mean()
        return scale * w.sign() * survives
    """,
    explanation="""
        Here, the threshold does not lie halfway between two levels: it is chosen first, and the scale follows. The
        mean of the survivors is the best scale for a given threshold, for the same reason as in 03. For weights with a
        normal distribution, the result is close to our quantizer at 1.5 times the mean magnitude: its threshold is
        0.75 times the mean magnitude.
    """,
    wrong=[
        (
            "def ternary_weight_network(w):\n    return w.abs().mean() * w.sign() * (w.abs() > 0.7 * w.abs().mean())",
            "mean magnitude of all weights",
        ),
        (
            "def ternary_weight_network(w):\n    scale = w.abs().mean()\n"
            "    return scale * (w / scale).round().clamp(-1, 1)",
            "quantizer of this notebook",
        ),
        (
            "def ternary_weight_network(w):\n    survives = w.abs() > 0.7 * w.abs().mean()\n"
            "    return w.sign() * survives",
            "Multiply by the scale",
        ),
    ],
)
def q5(ternary_weight_network):
    """*Write it.* The quantizer of *Ternary Weight Networks* (see below) has a threshold of 0.7 times the mean
    magnitude. Weights above the threshold, in magnitude, keep their sign. Their common scale is the mean magnitude of
    these weights. Return the quantized weights of a tensor `w`.
    """

    def expected(w):
        survives = w.abs() > 0.7 * w.abs().mean()
        return w.abs()[survives].mean() * w.sign() * survives

    mistakes = [
        (
            lambda w: w.abs().mean() * w.sign() * (w.abs() > 0.7 * w.abs().mean()),
            "That is the mean magnitude of all weights; take it over those above the threshold.",
        ),
        (
            lambda w: w.abs().mean() * (w / w.abs().mean()).round().clamp(-1, 1),
            "That is the quantizer of this notebook, with its threshold at half the scale.",
        ),
        (lambda w: w.sign() * (w.abs() > 0.7 * w.abs().mean()), "Multiply by the scale."),
    ]
    inputs = [(torch.tensor([1.0, -0.6, 0.5, -0.3, 0.1]),), (torch.tensor([[0.2, -0.9], [0.4, -0.7]]),)]
    return function("ternary_weight_network", ternary_weight_network, expected, inputs, mistakes=mistakes)


@exercise(
    solution="""
        from qathelpers import Recipe

        scheme = Scheme("ShippedNN", "W1.58A32", weight=Shipped, first_last=Shipped)
        few = dataset.take(2000, 1000)
        for recipe in (Recipe(optimizer="adam", lr=0.002), Recipe()):
            print(recipe.optimizer)
            history = fit(build(scheme, arch="lenet"), few, epochs=3, recipe=recipe)
    """,
    explanation="""
        With Adam, the test accuracy stays near 10 %, the level of guessing, and `fit` warns at the end that
        `classifier.1` is dead. This layer has 400 inputs, so its weights are below 1 / sqrt(400) = 0.05. It is followed
        by a BatchNorm, whose bias starts at 0, and a ReLU, so its own gradient is 0, too. Only the last bias can learn.

        Before its first step, Muon multiplies the weights of each layer so that their root mean square is
        1 / sqrt(inputs). This is sqrt(3) times the initial one, so some weights of `classifier.1` rise above 0.05, and
        the layer comes to life. With more than 1,200 inputs, even that would not be enough. A fixed threshold suits
        only one size of the weights, and Muon decides this size. `build` therefore chooses Adam for such a scheme.
    """,
)
def q6():
    """*Break it.* Build a LeNet with Brevitas' ternary quantizer in all layers:
    `build(Scheme("ShippedNN", "W1.58A32", weight=Shipped, first_last=Shipped), arch="lenet")`. Train it with `fit` on
    `dataset.take(2000, 1000)`, once with `recipe=Recipe(optimizer="adam", lr=0.002)` and once with the default
    `Recipe()`, which is Muon (`from qathelpers import Recipe`). What does `fit` print at the end, and why?
    """
