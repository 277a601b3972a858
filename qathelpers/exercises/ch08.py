"""The exercises of notebook 08, your own net."""

import math
from bisect import bisect

from .exercise import exercise
from .verdicts import number, prediction


@exercise(
    blank="difference = None",
    hint="Which of the two nets learns more in three epochs: the one with few precise weights or the one with many "
    "coarse ones?",
    solution="""
    best = {run.config["arch"]: run["test_acc"][-1] for run in (float_run, ternary_run)}
    difference = 100 * (best["wider"] - best["narrow"])
    """,
    explanation="At the same size, many coarse weights are far better than few precise ones. At the same *width*, it "
    "is the other way round: the float net wins. So compare nets with the same number of bytes, not with the same "
    "width.",
    wrong=[("difference = 'many'", "number"), ("difference = -5", "predicted -5")],
)
def q1(difference, float_run, ternary_run):
    """*Predict, then run.* The two nets need the same number of bytes. By how many percentage points is the ternary net
    better in validation? Write a negative number if you think that it is worse.
    """
    measured = 100 * float(ternary_run["test_acc"][-1] - float_run["test_acc"][-1])
    return prediction(
        "difference",
        difference,
        measured,
        lesson="A fair comparison is one at the same number of bytes, not at the same width.",
    )


@exercise(
    blank="width = None",
    hint="How many binary weights take as many bits as one float? And how does the number of weights of a layer grow "
    "with its width, if it has as many inputs as outputs?",
    solution="width = 100 * 32**0.5",
    explanation="There is room for 32 times as many weights. The number of weights grows with the square of the width, "
    "so the width grows by the square root of 32, about 5.7. The number of MACs grows by a factor of 32: bytes are not "
    "the only budget.",
    wrong=[("width = 100 * 32", "1,024 times as many weights"), ("width = 400", "Count bits, not bytes")],
)
def q2(width):
    """*On paper.* A float layer has 100 input and 100 output channels, with 3 x 3 weights per pair. A binary layer
    takes the same number of bytes and also has as many inputs as outputs. How wide can it be?
    """
    mistakes = [
        (3200, "That layer would have 1,024 times as many weights."),
        (400, "Count bits, not bytes: a float has 32, a binary weight 1."),
    ]
    return number("width", width, 100 * 32**0.5, tolerance=0.01, mistakes=mistakes)


@exercise(
    blank="w = None",
    hint="`size(name, widths)` from above gives the kB of a net. Try several widths in a loop.",
    solution="""
    widths = range(20, 45)
    w = max(x for x in widths if size("BinaryNN", (x, 2 * x, 3 * x)) <= BUDGET)
    """,
    explanation="For the ternary net, `w` is smaller by a factor of about the square root of 1.6, because a ternary "
    "weight takes 1.6 bits. A search over all three widths would find even better nets. Such a search is an "
    "optimization problem with one constraint.",
    wrong=[
        ("w = min(x for x in range(20, 45) if size('BinaryNN', (x, 2 * x, 3 * x)) > 40)", "does not fit"),
        ("w = max(x for x in range(20, 45) if size('TernaryNN', (x, 2 * x, 3 * x)) <= 40)", "ternary net"),
    ],
)
def q3(w, size):
    """*Write it.* Find the largest `w` for which a binary `ConvNet` of widths `(w, 2 * w, 3 * w)` fits into the
    budget.
    """

    def largest(name):  # bisection, because each size builds a net
        return 9 + bisect(range(10, 60), 40, key=lambda x: size(name, (x, 2 * x, 3 * x)))

    fitting = largest("BinaryNN")
    mistakes = [
        (fitting + 1, "That is the first width that does not fit."),
        (largest("TernaryNN"), "That is the answer for the ternary net."),
    ]
    return number("w", w, fitting, tolerance=0, mistakes=mistakes)


@exercise(
    blank="images = None",
    hint="Solve the formula of the standard error for n.",
    solution="images = 0.75 * (1 - 0.75) / 0.0025**2",
    explanation="If two standard errors are half a point, one standard error is 0.0025. This takes 30,000 images, but "
    "a tenth of the training set has only 5,000. On so few images, a difference of less than a point between two nets "
    "cannot be told from chance, unless you test both nets on the same images and count the images on which they "
    "differ, as in notebook 06.",
    wrong=[
        ("images = 0.75 * (1 - 0.75) / 0.005**2", "one standard error"),
        ("images = (0.75 * (1 - 0.75)) ** 0.5 / 0.0025", "square"),
    ],
)
def q4(images):
    """*On paper.* A net has an accuracy of about 0.75. How many validation images do you need so that *two* standard
    errors are half a percentage point?
    """
    p = 0.75
    mistakes = [
        (p * (1 - p) / 0.005**2, "Then one standard error is half a point, but two of them should be."),
        (math.sqrt(p * (1 - p)) / 0.0025, "The error falls with the square root of n: square both sides."),
        (p * (1 - p) / 0.25**2, "Half a point is 0.005, not 0.5."),
    ]
    return number("images", images, p * (1 - p) / 0.0025**2, tolerance=0.01, mistakes=mistakes)


@exercise(
    hint="A net that is right with probability 0.75 is a biased coin: `torch.rand(5000) < 0.75` is one evaluation.",
    solution="""
    torch.manual_seed(0)
    validation = (torch.rand(30, 5000) < 0.75).float().mean(1)
    test = (torch.rand(30, 10000) < 0.75).float().mean(1)
    winner = validation.argmax()
    print(f"winner: {validation[winner]:.4f} in validation, {test[winner]:.4f} in the test")
    """,
    explanation="All thirty nets are equally good, and yet the winner seems to be a point better than the others. In "
    "the test, its lead is gone. The more nets you try, the more the best validation accuracy overstates how good the "
    "chosen net is, because this net was partly just lucky with the validation images. The test accuracy does not have "
    "this problem, as long as the test images are used only once.",
)
def q5():
    """*Break it.* What happens if you judge the chosen net by its validation accuracy? Simulate thirty nets, each of
    which is right with probability 0.75 on each of 5,000 validation images. Choose the best of them, and test this
    winner on 10,000 new images. What happens to its lead?
    """
