"""The exercises of notebook 06, the comparison of nets."""

import math

import torch

from ..results import recorded_history
from .exercise import exercise
from .verdicts import function, number, prediction

SMALL = [  # on eight images, which of them two nets classify correctly
    ([1, 1, 1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0, 1, 0]),
    ([0, 1, 0, 0, 1, 1, 0, 1], [1, 1, 1, 1, 1, 1, 0, 1]),
    ([1, 0, 1, 1, 1, 1, 0, 1], [1, 0, 1, 1, 1, 1, 0, 1]),
]


@exercise(
    blank="lead = None",
    hint="In the original experiment, the ternary net was one point behind on the test images. Which of the two nets "
    "overfits more?",
    solution='lead = 100 * (ours["test"]["TernaryNN"] - ours["test"]["PytorchNN"])',
    explanation="Nobody can know this number in advance. What matters is whether you expected the right sign.",
    wrong=[("lead = -20", "You predicted -20"), ("lead = 0", "You predicted 0")],
)
def q1(lead, ours):
    """*Predict, then run.* By how many percentage points is the ternary LeNet ahead of the float LeNet on the *test*
    images? (If you expect it to be behind, answer with a negative number.)
    """
    measured = 100 * (ours["test"]["TernaryNN"] - ours["test"]["PytorchNN"])
    lesson = "The training accuracy alone says nothing about new images: the float net memorized its training images."
    return prediction("lead", lead, measured, lesson=lesson)


@exercise(
    blank="disagreement = None",
    hint="Each of the two nets is wrong on about an eighth of the images. Are both nets wrong on the same images?",
    solution='disagreement = 100 * sum(discordant(correct["PytorchNN"], correct["seed 1"])) / n',
    explanation="The random initialization and the random order of the images are enough to change many predictions.",
    wrong=[("disagreement = 1", "You predicted 1"), ("disagreement = 25", "You predicted 25")],
)
def q2(disagreement, correct):
    """*Predict, then run.* Two float nets were trained with different seeds. On what percentage of the test images is
    exactly one of the two nets correct?
    """
    differ = correct["PytorchNN"] != correct["seed 1"]
    lesson = "Compare every other pair of nets with this pair, which shows how often two nets disagree by chance alone."
    return prediction("disagreement", disagreement, 100 * differ.float().mean().item(), lesson=lesson)


@exercise(
    blank="images = None",
    hint="Solve the formula for SE(p) for n. Is the accuracy p in this formula a percentage or a fraction?",
    solution="images = 0.9 * (1 - 0.9) / 0.001**2",
    explanation="The standard error is inversely proportional to the square root of the number of images. To make it "
    "ten times as small, you need a hundred times as many images.",
    wrong=[
        ("images = 0.9 * 0.1 / 0.001", "square root"),
        ("images = 0.9 * 0.1 / 0.1**2", "a tenth of a point is 0.001"),
        ("images = 10_000", "too small"),
    ],
)
def q3(images):
    """*On paper.* Your net has an accuracy of about 0.9. How many test images do you need for a standard error of 0.1
    percentage points?
    """
    return number(
        "images",
        images,
        90_000,
        mistakes=[
            (90, "The standard error is a square root: square it before you solve for n."),
            (9, "In the formula, accuracies and standard errors are fractions: a tenth of a point is 0.001."),
            (300, "You took the square root of the number of images."),
        ],
        praise="The test set of CIFAR-10 has only a ninth as many images. It cannot show a difference of a tenth of a "
        "point.",
    )


def _z(first: torch.Tensor, second: torch.Tensor) -> float:
    b, c = (first & ~second).sum().item(), (second & ~first).sum().item()
    return (b - c) / math.sqrt(b + c) if b + c else 0.0


def _per_image(first: torch.Tensor, second: torch.Tensor) -> float:
    return (first.float() - second.float()).mean().item()


def _of_all_images(first: torch.Tensor, second: torch.Tensor) -> float:
    return (first.sum() - second.sum()).item() / math.sqrt(len(first))


def _without_root(first: torch.Tensor, second: torch.Tensor) -> float:
    b, c = (first & ~second).sum().item(), (second & ~first).sum().item()
    return (b - c) / (b + c) if b + c else 0.0


@exercise(
    blank="""
    def z_score(first, second):
        return None
    """,
    hint="For Boolean tensors, `&` means 'and', and `~` means 'not'. Which images does the denominator count?",
    solution="""
    def z_score(first, second):
        b = (first & ~second).sum().item()
        c = (second & ~first).sum().item()
        return (b - c) / (b + c) ** 0.5 if b + c else 0.0
    """,
    explanation="Images on which both nets are correct, or both are wrong, do not appear in z. Only discordant images "
    "count.",
    wrong=[
        (
            """def z_score(first, second):
    return (first.sum() - second.sum()).item() / len(first) ** 0.5
""",
            "do not count",
        ),
        (
            """def z_score(first, second):
    return (first.float() - second.float()).mean().item()
""",
            "difference of the accuracies",
        ),
        (
            """def z_score(first, second):
    b, c = (second & ~first).sum().item(), (first & ~second).sum().item()
    return (b - c) / (b + c) ** 0.5 if b + c else 0.0
""",
            "sign",
        ),
    ],
)
def q4(z_score):
    """*Write it.* Write a function `z_score(first, second)` that returns z of McNemar's test, or 0 if there are no
    discordant images. Both arguments are Boolean tensors with one value per image, which is true if the net is correct.
    """
    inputs = [(torch.tensor(a).bool(), torch.tensor(b).bool()) for a, b in SMALL]
    return function(
        "z_score",
        z_score,
        _z,
        inputs,
        mistakes=[
            (_of_all_images, "Images on which both nets are correct, or both are wrong, do not count."),
            (_per_image, "That is the difference of the accuracies. Divide b - c by the standard deviation of b - c."),
            (_without_root, "The standard deviation of b - c is the square root of b + c."),
            (lambda first, second: _z(second, first), "The sign is wrong: z is positive if the first net is better."),
        ],
        praise="Use this function to compare two runs of your own before you call one of them better.",
    )


@exercise(
    blank="""
    either = None
    two_floats = None
    """,
    hint="For Boolean tensors, `|` means 'or'.",
    solution="""
    either = (correct["PytorchNN"] | correct["BinaryNN"]).float().mean().item()
    two_floats = (correct["PytorchNN"] | correct["seed 1"]).float().mean().item()
    """,
    explanation="The second net adds the images on which it alone is correct. This is why an ensemble of nets can be "
    "more accurate than each of its nets.",
    wrong=[
        (
            """either = (correct["PytorchNN"] & correct["BinaryNN"]).float().mean().item()
two_floats = (correct["PytorchNN"] & correct["seed 1"]).float().mean().item()
""",
            "That counts only the images on which both nets are correct.",
        ),
        (
            """either = sum(correct[x].float().mean().item() for x in ("PytorchNN", "BinaryNN"))
two_floats = sum(correct[x].float().mean().item() for x in ("PytorchNN", "seed 1"))
""",
            "must not be counted twice.",
        ),
    ],
)
def q5(either, two_floats, correct):
    """*Write it.* Suppose that, for each image, you could always pick the net that is correct, if there is one. What
    accuracy would you reach with the float and the binary net (`either`), and with the two float nets (`two_floats`)?
    """
    first, binary, second = (correct[name] for name in ("PytorchNN", "BinaryNN", "seed 1"))
    better = (first | second).sum() > (first | binary).sum()
    lesson = "The second float net adds more images than the binary net does." if better else ""
    return [_union("either", either, first, binary), _union("two_floats", two_floats, first, second, lesson)]


def _union(name: str, answer: object, first: torch.Tensor, second: torch.Tensor, praise: str = ""):
    return number(
        name,
        answer,
        (first | second).float().mean().item(),
        tolerance=0.002,
        mistakes=[
            ((first & second).float().mean().item(), "That counts only the images on which both nets are correct."),
            (
                (first.float().mean() + second.float().mean()).item(),
                "Images on which both nets are correct must not be counted twice.",
            ),
        ],
        praise=praise,
    )


@exercise(
    blank="factor = None",
    hint="How many weights does a convolution from 64 to 64 channels have? And one from 32 to 32 channels?",
    solution="factor = (73 / 2009) ** 0.5",
    explanation="Almost all weights connect the channels of one layer with those of the next. The number of weights "
    "therefore grows with the square of the width.",
    wrong=[
        ("factor = 73 / 2009", "square of the width"),
        ("factor = (1 / 32) ** 0.5", "BatchNorms are not"),
        ("factor = (2009 / 73) ** 0.5", "the other way round"),
    ],
)
def q6(factor):
    """*On paper.* The packed binary `convnet` takes 73 kB, and the float `convnet` takes 2,009 kB. By which factor
    would you multiply the number of channels in the float net so that both nets take the same number of bytes?
    """
    binary, floats = (recorded_history(name).config["kB"] for name in ("BinaryNN", "PytorchNN"))
    return number(
        "factor",
        factor,
        math.sqrt(binary / floats),
        tolerance=0.02,
        mistakes=[
            (binary / floats, "The number of weights grows with the square of the width."),
            (math.sqrt(1 / 32), "That would be correct if all parameters were quantized, but BatchNorms are not."),
            (math.sqrt(floats / binary), "That is the other way round."),
        ],
        praise="Compare the binary net with a float net that has a fifth of the channels. Which of the two is better?",
    )


@exercise(
    solution="""
    for name in results.ORIGINAL:
        runs = [history["test_acc"] for history in lenet if history.name == name]
        last = sum(run[-1] for run in runs) / len(runs)
        best = sum(run.max() for run in runs) / len(runs)
        print(f"{name:10} last epoch {last:.4f}, best epoch {best:.4f}")
    """,
    explanation="""
    The order is reversed: the float net gains more than three points, because its test accuracy peaks near epoch 73 and
    then falls while the net memorizes its training images. The new accuracies are too high, because the epochs were
    chosen on the test images. But they show what our result depends on: if each training stopped at the epoch that is
    best on *validation* images, the float LeNet would probably be ahead. The ternary LeNet beats the float LeNet only
    if both are trained to the end.
    """,
)
def q7():
    """*Break it.* Judge each LeNet by its best epoch, `history["test_acc"].max()`. Which net is ahead now, and what is
    wrong with this way of judging nets?
    """
