"""The exercises of notebook 05, bits and accuracy."""

import torch

from .exercise import exercise
from .verdicts import Verdict, function, number, prediction, sequence

KERNEL = 9  # weights per channel of a 3 x 3 convolution


@exercise(
    blank="guess = None",
    hint="The running statistics describe the float net. Is the damage in these statistics, or in the weights?",
    solution='guess = measured["mean", "1.58"].float().mean().item()',
    explanation="""
    Nearly all of the damage came from the statistics. The rounded weights still contain most of what the net had
    learned: with suitable means and variances, the signal passes from layer to layer again.
    """,
    wrong=[("guess = 0.15", "Nothing was trained"), ("guess = torch.zeros(2)", "A number is expected here.")],
)
def q1(guess, measured):
    """*Predict, then run.* With three levels and the rule "mean", the accuracy of the rounded net is at chance level.

    We now let its BatchNorms measure their means and variances again, on 2,560 training images. No weight changes. What
    accuracy (0 to 1) do you expect?
    """
    after = measured["mean", "1.58"].float().mean().item()
    lesson = "Nothing was trained: the weights were good, and the statistics did not fit them."
    return prediction("guess", guess, after, lesson=lesson)


@exercise(
    blank="gradients = None",
    hint="Divide each input by $s$ first. Which of the three is beyond the largest level?",
    solution="gradients = [1 - 0.75, 1 - 1.25, 3]",
    explanation="""
    The first value was rounded up, so a larger step would move its level farther away; the second was rounded down, so
    a larger step would move its level closer. The third value is clipped. Its gradient equals the largest integer, so a
    few clipped values outweigh many rounded ones.
    """,
    wrong=[
        ("gradients = [1, 1, 3]", "a larger step also changes which level is the nearest"),
        ("gradients = [0.25, -0.25, 0]", "A clipped input"),
        ("gradients = [-0.25, 0.25, 3]", "The sign is wrong"),
        ("gradients = [0.25, -0.25, -1]", "beyond the clip"),
    ],
)
def q2(gradients):
    r"""*On paper.* A 2-bit quantizer ($n = 3$) has the learned step size $s = 0.5$.

    What is $\partial Q / \partial s$ for the inputs 0.375, 0.625 and 2.0? Give a list of three numbers.
    """
    return sequence(
        "gradients",
        gradients,
        [0.25, -0.25, 3],
        mistakes=[
            ([1, 1, 3], "In the straight-through estimate, a larger step also changes which level is the nearest."),
            ([0.25, -0.25, 0], "A clipped input gets no gradient itself, but the step size still gets one from it."),
            ([-0.25, 0.25, 3], "The sign is wrong: the gradient is the integer minus $x / s$."),
            ([0.25, -0.25, -1], "The last input is beyond the clipping limit: its gradient is the integer 3."),
        ],
    )


@exercise(
    blank="""
    possible = None
    seen = None
    """,
    hint="How many products does one sum have? If one product changes from -1 to +1, by how much does the sum change?",
    solution="""
    possible = 9 * 64 + 1
    seen = seen_sums
    """,
    explanation="""
    The sum of 576 products of -1 and +1 lies between -576 and 576 and changes in steps of 2. Most of these sums are so
    improbable that no image produces them: a sum of 576 random signs has a standard deviation of only 24.
    """,
    wrong=[
        ("possible, seen = 2 * 9 * 64 + 1, 100", "steps of 2"),
        ("possible, seen = 9 * 64, 100", "Count both ends"),
        ("possible, seen = 65, 100", "all nine positions of the kernel"),
    ],
)
def q3(possible, seen, seen_sums):
    """*On paper.* All weights and inputs of a 3 x 3 convolution with 64 input channels are -1 or +1.

    How many different values are `possible` for one of its sums? Then predict: how many will be `seen` in the outputs
    of the trained layer for 500 test images?
    """
    products = KERNEL * 64
    return [
        number(
            "possible",
            possible,
            products + 1,
            tolerance=1e-4,
            mistakes=[
                (2 * products + 1, "Between -576 and 576 the sum changes in steps of 2."),
                (products, "Count both ends: from -576 to 576 in steps of 2."),
                (64 + 1, "The sum runs over all nine positions of the kernel, too."),
                (2, "That is the number of values of one product, not of the sum."),
            ],
        ),
        prediction("seen", seen, seen_sums, lesson="Large sums need most products to agree, which is improbable."),
    ]


def _lead(first: torch.Tensor, second: torch.Tensor) -> tuple[float, float]:
    difference = second.float() - first.float()
    return difference.mean().item(), difference.std().item() / len(difference) ** 0.5


def _lead_of_strangers(first: torch.Tensor, second: torch.Tensor) -> tuple[float, float]:
    p, q = first.float().mean().item(), second.float().mean().item()
    return q - p, ((p * (1 - p) + q * (1 - q)) / len(first)) ** 0.5


def _lead_of_one_image(first: torch.Tensor, second: torch.Tensor) -> tuple[float, float]:
    difference = second.float() - first.float()
    return difference.mean().item(), difference.std().item()


def _pair(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return for 2,000 images whether each of two nets is right; they disagree on about a tenth of the images."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(2, 2000, generator=generator)
    first = draws[0] < 0.87
    return first, first ^ (draws[1] < 0.1)


@exercise(
    blank="""
    def lead(first, second):
        return None
    """,
    hint="""
    Per image, `second` minus `first` is -1, 0 or 1. You need the mean of these numbers and the standard error of a
    mean, $\\sigma / \\sqrt{k}$, for $k$ images.
    """,
    solution="""
    def lead(first, second):
        difference = second.float() - first.float()
        return difference.mean().item(), difference.std().item() / len(difference) ** 0.5


    for bits in ("8", "4", "3"):
        gain, error = lead(right, measured["best MSE", bits])
        print(f"{bits} bits against float: {gain:+.4f} +- {error:.4f}")
    """,
    explanation="""
    Two versions of the same net are both right or both wrong on most images. These images contribute nothing to the
    difference or to its error. The paired error is therefore much smaller than the error for two separate test sets, so
    smaller differences can be distinguished from chance.
    """,
    wrong=[
        (
            "def lead(first, second):\n"
            "    p, q = first.float().mean(), second.float().mean()\n"
            "    return q - p, ((p * (1 - p) + q * (1 - q)) / len(first)) ** 0.5",
            "two separate test sets",
        ),
        (
            "def lead(first, second):\n"
            "    difference = second.float() - first.float()\n"
            "    return difference.mean(), difference.std()",
            "deviation of a single image",
        ),
        (
            "def lead(first, second):\n"
            "    difference = first.float() - second.float()\n"
            "    return difference.mean(), difference.std() / len(first) ** 0.5",
            "The sign of the difference",
        ),
    ],
)
def q4(lead):
    r"""*Write it.* Is a net really better, or is the difference due to chance? Both nets were tested on the *same*
    images.

    Write `lead(first, second)`. It takes one tensor per net, which says for each image whether the net was right. It
    returns two numbers: the accuracy of the second minus that of the first, and the standard error of this difference.
    Then compare `right` (float) with `measured["best MSE", "3"]`.
    """
    return function(
        "lead",
        _on_copies(lead),
        _lead,
        [_pair(seed) for seed in (0, 1)],
        mistakes=[
            (_lead_of_strangers, "That is the error for two separate test sets; here the images are the same."),
            (_lead_of_one_image, "That is the standard deviation of a single image, not of a mean."),
            (lambda first, second: _lead(second, first), "The sign of the difference is wrong: second minus first."),
        ],
    )


def _on_copies(answer: object) -> object:
    """Return `answer` such that it returns plain numbers, however the reader returns two of them."""
    if not callable(answer):
        return answer

    def called(first: torch.Tensor, second: torch.Tensor) -> object:
        result = answer(first.clone(), second.clone())
        return [float(value) for value in result] if isinstance(result, tuple | list | torch.Tensor) else result

    return called


@exercise(
    blank="""
    million_macs = None
    million_bops = None
    """,
    hint="Each output value at each of the 64 positions is a sum of products. How many products are in one sum?",
    solution="""
    million_macs = 9 * 48 * 96 * 8 * 8 / 1e6
    million_bops = million_macs * 4 * 2
    """,
    explanation="""
    Halving the bits of the activations saves as many BOPs as halving the bits of the weights. The size of the net in
    bytes depends on the weights alone.
    """,
    wrong=[
        ("million_macs = 48 * 96 * 8 * 8 / 1e6\nmillion_bops = million_macs * 4 * 2", "nine positions of the kernel"),
        ("million_macs = 9 * 48 * 96 / 1e6\nmillion_bops = million_macs * 4 * 2", "number of weights"),
        ("million_macs = 9 * 48 * 96 * 8 * 8 / 1e6\nmillion_bops = million_macs * (4 + 2)", "multiply"),
    ],
)
def q5(million_macs, million_bops):
    """*On paper.* A 3 x 3 convolution from 48 to 96 channels returns feature maps of 8 x 8. It runs at W4A2.

    How many million MACs and how many million BOPs does it take per image?
    """
    macs = KERNEL * 48 * 96 * 64 / 1e6
    return [
        number(
            "million_macs",
            million_macs,
            macs,
            mistakes=[
                (macs / KERNEL, "Each sum also runs over the nine positions of the kernel."),
                (macs / 64, "That is the number of weights: each one is used at 64 positions."),
            ],
        ),
        number(
            "million_bops",
            million_bops,
            macs * 8,
            mistakes=[
                (macs * 6, "The bit widths multiply: each bit of one factor is multiplied by each bit of the other."),
                (macs * 4, "The activations have two bits."),
                (macs * 2, "The weights have four bits."),
            ],
        ),
    ]


@exercise(
    solution="""
    net = build("XnorNN", "convnet-x0.5")
    for block in net.blocks:
        for part in (block.widen, block.refine):
            part[0] = nn.Sequential(nn.ReLU(), part[0])
    history = qathelpers.fit(net, dataset.take(train=2000, test=1000), epochs=2)
    """,
    explanation="""
    The accuracy stays at about 0.1 and the loss at 2.303, the logarithm of the number of classes. A ReLU returns no
    negative number, so every sign is +1, whatever the image. A convolution of constant inputs is constant, and so are
    the logits: the net gives the same answer for all images. No error is raised.
    """,
)
def q6() -> Verdict:
    """*Break it.* Build an `XnorNN` at half its width, put a ReLU before the sign of each convolution, and train it.

    Use 2,000 images and two epochs. Before you run it, predict: which numbers in this net still depend on the image?
    """
