"""The exercises of notebook 07, small and fast."""

import copy
import io

import numpy as np
import torch
from torch import nn

from ..common.timing import alternate, medians
from .exercise import exercise
from .verdicts import Verdict, function, number, prediction, word

KERNEL = np.array([[1, 1, -1], [-1, 1, -1], [-1, 1, 1]])
CORNER = np.array([[0, 0, 0], [0, 1, 1], [0, 1, 1]], bool)
EDGE = np.array([[1, 1, 0], [1, 1, 0], [1, 1, 0]], bool)
FEWER = "far fewer bit operations do not make the whole net faster by the same factor"


@exercise(
    blank="""
        predicted_kB = None
        predicted_ratio = None
    """,
    hint="Which numbers does the optimizer change in each step? They are in the state dict, too.",
    solution="predicted_kB, predicted_ratio = 2050, 1.2",
    explanation="""
        The state dict contains the latent weights, which are floats of four bytes each. In the forward pass, the
        binary net does everything that the float net does, and it also has to quantize its weights.
    """,
    wrong=[
        ("predicted_kB, predicted_ratio = 63, 1.2", "latent weights are floats"),
        ("predicted_kB, predicted_ratio = 2050, 0.1", "has to quantize them first"),
    ],
)
def q1(predicted_kB, predicted_ratio, nets):
    """*Predict, then run.* PyTorch saves the state dict of `BinaryNN` to a file. How large is the file in kB?

    How long does the forward pass of `BinaryNN` take in PyTorch, as a multiple of the time that the float net takes?
    """
    file, images = io.BytesIO(), torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.save(nets["BinaryNN"].state_dict(), file)
    with torch.no_grad():
        ways = {name: lambda name=name: iter([nets[name](images)]) for name in ("PytorchNN", "BinaryNN")}
        seconds = medians(alternate(ways, 9))
    return [
        prediction(
            "predicted_kB", predicted_kB, len(file.getvalue()) / 1000, close=0.1,
            lesson="The latent weights are floats, and they are what PyTorch saves.",
        ),
        prediction(
            "predicted_ratio", predicted_ratio, seconds["BinaryNN"] / seconds["PytorchNN"], close=0.3,
            lesson="The binary net computes with float weights, too, but it has to quantize them first.",
        ),
    ]  # fmt: skip


@exercise(
    blank="together = None",
    hint="The number of combinations is a power of 3. How large may this power be at most?",
    solution="together = max(n for n in range(20) if 3**n <= 2**16)",
    explanation="""
        Ten: $3^{10} = 59\\,049$ combinations fit, and $3^{11}$ do not. Ten weights are no more than the 5 + 5 that fit
        into two separate bytes. Units larger than a byte would only make unpacking slower.
    """,
    wrong=[("together = 8", "base 3 packs more tightly"), ("together = 11", "3 ** 11 is 177,147: too many")],
)
def q2(together):
    """*On paper.* Two bytes together have 65,536 combinations. How many ternary weights fit into these two bytes?"""
    return number(
        "together",
        together,
        10,
        mistakes=[
            (8, "That is two bits per weight; base 3 packs more tightly."),
            (11, "3 ** 11 is 177,147: too many combinations for two bytes."),
        ],
        praise="That is 5 + 5: larger units than a byte gain nothing here.",
    )


@exercise(
    blank="""
        def dot(x, y, length):
            return None
    """,
    hint="Each place where the bits differ stands for a product of -1. `int.bit_count()` counts the ones of a number.",
    solution="""
        def dot(x, y, length):
            return length - 2 * (x ^ y).bit_count()
    """,
    explanation="If all signs were equal, the sum would be `length`. Each difference turns a +1 into a -1.",
    wrong=[
        (
            "def dot(x, y, length):\n    return (x ^ y).bit_count()",
            "That is the number of products that are -1.",
        ),
        (
            "def dot(x, y, length):\n    return length - (x ^ y).bit_count()",
            "A -1 in place of a +1 lowers the sum by 2.",
        ),
    ],
)
def q3(dot):
    """*Write it.* Write `dot(x, y, length)`: the dot product of two vectors of `length` signs.

    `x` and `y` are integers with one bit per sign, such as `0b100111010`.
    """
    return function(
        "dot",
        dot,
        lambda x, y, length: length - 2 * (x ^ y).bit_count(),
        [(0b100111010, 0b110010011, 9), (0b1111, 0b1110, 4), (0b0, 0b11, 2)],
        mistakes=[
            (lambda x, y, length: (x ^ y).bit_count(), "That is the number of products that are -1."),
            (lambda x, y, length: length - (x ^ y).bit_count(), "A -1 in place of a +1 lowers the sum by 2."),
        ],
    )


@exercise(
    blank="""
        def corrected(wrong, kernel, inside):
            return None
    """,
    hint="Outside the image, each term should be 0, but it is -1 times a weight of the kernel. What has to be added?",
    solution="""
        def corrected(wrong, kernel, inside):
            return wrong + kernel[~inside].sum()
    """,
    explanation="""
        Each place outside the image contributes $-w$ instead of 0, so the sum of these weights $w$ has to be added.
        This sum does not depend on the image. A program can therefore compute it in advance, once per kernel and kind
        of border. These are eight numbers per kernel, for four edges and four corners.
    """,
    wrong=[
        (
            "def corrected(wrong, kernel, inside):\n    return wrong - kernel[~inside].sum()",
            "The padding was counted as -1",
        ),
        (
            "def corrected(wrong, kernel, inside):\n    return wrong + (~inside).sum()",
            "only if all of these weights are +1",
        ),
    ],
)
def q4(corrected):
    """*Write it.* Write `corrected(wrong, kernel, inside)`, the second remedy without a mask: correct one output
    afterwards.

    `wrong` is the output if padding counts as -1, `kernel` is an array of signs, and `inside` is a Boolean array of the
    same shape that is `True` where the kernel lies inside the image.
    """
    inputs = [(1, KERNEL, CORNER), (-3, KERNEL, EDGE), (5, -KERNEL, EDGE), (9, KERNEL, np.ones((3, 3), bool))]
    return function(
        "corrected",
        corrected,
        lambda wrong, kernel, inside: int(wrong + kernel[~inside].sum()),
        inputs,
        mistakes=[
            (
                lambda wrong, kernel, inside: int(wrong - kernel[~inside].sum()),
                "The padding was counted as -1, so the output already contains minus the sum of these weights.",
            ),
            (
                lambda wrong, kernel, inside: int(wrong + (~inside).sum()),
                "This is right only if all of these weights are +1.",
            ),
        ],
    )


@exercise(
    blank="""
        theta = None
        sign_above = None
    """,
    hint="Put the numbers into the formula. Then compute the BatchNorm for an x that is larger than the threshold.",
    solution="theta, sign_above = 4 - 1 * 2 / -0.5, -1",
    explanation=r"""
        $\theta = 4 - \frac{1 \cdot 2}{-0.5} = 8$. At $x = 10$, BatchNorm gives
        $-0.5 \cdot \frac{10 - 4}{2} + 1 = -0.5$: above the threshold, the sign is -1, because $\gamma$ is negative.
    """,
    wrong=[
        ("theta, sign_above = 0, -1", "minus sign"),
        ("theta, sign_above = 8, 1", "A negative gamma reverses the comparison"),
    ],
)
def q5(theta, sign_above):
    r"""*On paper.* A channel has $\gamma = -0.5$, $\beta = 1$, $\mu = 4$ and $\sigma = 2$. What is $\theta$?

    Which sign, 1 or -1, does a sum $x$ above $\theta$ get?
    """
    return [
        number(
            "theta",
            theta,
            8,
            mistakes=[
                (0, "Mind the minus sign of gamma."),
                (5, "The formula divides by gamma; you have multiplied."),
                (2, "Divide by gamma, too."),
            ],
        ),
        number(
            "sign_above",
            sign_above,
            -1,
            mistakes=[(1, "A negative gamma reverses the comparison: try x = 10.")],
        ),
    ]


@exercise(
    blank="predicted_speedup = None",
    hint="What does the net compute for each image besides its binary convolutions?",
    solution="predicted_speedup = 2",
    explanation="""
        The number of bit operations says little about the time. The stem, the comparisons with thresholds, the pooling
        and the additions of the skips take the same time in both nets.
    """,
    wrong=[("predicted_speedup = 38", FEWER), ("predicted_speedup = 16", FEWER)],
)
def q6(predicted_speedup, race):
    """*Predict, then run.* The race is over, but its times are not shown yet. The W1A1 net needs 38 times fewer bit
    operations than the 8-bit net. How many times faster than the 8-bit net is the W1A1 net in OpenVINO?
    """
    if race is None:
        state = "open" if predicted_speedup is None else "note"
        return Verdict("predicted_speedup", state, f"The race did not run here. Elsewhere, it shows that {FEWER}.")
    times = race["ms per image"]
    return prediction(
        "predicted_speedup",
        predicted_speedup,
        times["OpenVINO int8"] / times["OpenVINO W1A1"],
        lesson=f"The race shows that {FEWER}.",
        close=0.25,
    )


def colleagues_version(net: nn.Module) -> nn.Module:
    """Return a copy of a LeNet that computes something else in one layer: the net of exercise 7."""
    theirs = copy.deepcopy(net)
    with torch.no_grad():
        norm = theirs.get_submodule("features.6")
        norm.running_var.copy_(norm.running_var.sqrt())
    return theirs


@exercise(
    blank="broken_layer = None",
    hint="`compare_layers.compare` also takes a net in place of a file.",
    solution="""
        differences = compare_layers.compare(lenet, theirs, some_images)
        broken_layer = compare_layers.first_different(differences)
        print(differences)
        print(lenet.get_submodule(broken_layer).running_var[:3])
        print(theirs.get_submodule(broken_layer).running_var[:3])
    """,
    explanation="""
        All layers up to `features.5` agree exactly, so the mistake is in `features.6`, a BatchNorm. Its running
        variances are the square roots of ours: the colleague stored standard deviations instead of variances. Later
        layers differ because their inputs do.
    """,
    wrong=[
        ('broken_layer = "classifier.8"', "look for the first"),
        ('broken_layer = "features.7"', "its input is already wrong"),
    ],
)
def q7(broken_layer):
    """*Write it.* A colleague has rewritten the net and made a mistake in one layer. The result is `theirs`. Which
    layer is wrong?

    Use `lenet`, `some_images` and `compare_layers`, and answer with the layer's name.
    """
    return word(
        "broken_layer",
        broken_layer,
        "features.6",
        mistakes=[
            ("classifier.8", "Differences spread to all layers that follow: look for the first one that differs."),
            ("features.7", "This layer does differ, but its input is already wrong."),
            ("features.4", "This layer agrees with ours."),
        ],
        praise="Now compare the running variances of this layer in `theirs` and in `lenet`. What is the difference?",
    )


@exercise(
    solution="""
        damaged = packed.copy()
        damaged[0] ^= 0b00000100
        again = np.unpackbits(damaged, count=bits.size, bitorder="little")
        print((again != bits).sum(), "weight changed")
        print(f"by {2 * weights.scale(layer).item():.4f}")
    """,
    explanation="""
        One weight changes, by 2 s, because its sign flips. In base 3, one wrong bit can change all five weights of its
        byte. No error is raised, and the net still makes predictions. This is why the course's files contain a
        checksum.
    """,
)
def q8():
    """*Break it.* Change a single bit of `packed` and unpack it again. How many weights change, and by how much?"""
