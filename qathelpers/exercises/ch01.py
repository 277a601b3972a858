"""The exercises of notebook 01, the float baseline."""

import copy
import math

import torch
from torch import nn

from .exercise import exercise
from .verdicts import Verdict, number, prediction, word


@exercise(
    blank="confident = None",
    hint="The loss of a wrong answer is minus the logarithm of the probability of the correct class. A small net that "
    "has memorized its training images gives its answers probabilities close to 1, even when the answers are wrong.",
    solution="""
    is_wrong = lenet_logits.argmax(1) != dataset.test_labels
    largest = lenet_logits.softmax(1).max(1).values
    confident = (largest[is_wrong] > 0.9).float().mean().item()
    """,
    explanation="A wrong answer with low confidence adds little to the loss, and a wrong answer with high confidence "
    "adds a lot. The test loss can therefore rise while the test accuracy hardly changes.",
    wrong=[("confident = 30", "a share"), ("confident = 'many'", "number")],
)
def q1(confident, lenet_logits, dataset):
    """*Predict, then run.* Consider the test images that the recorded float LeNet classifies incorrectly. For what
    share of them does the net give its wrong answer a probability of more than 0.9? Write down your guess as a number
    from 0 to 1.
    """
    is_wrong = lenet_logits.argmax(1) != dataset.test_labels
    measured = (lenet_logits.softmax(1).max(1).values[is_wrong] > 0.9).float().mean().item()
    if isinstance(confident, int | float) and confident > 1:
        return Verdict("confident", "wrong", "Give a share from 0 to 1, not a percentage.")
    return prediction("confident", confident, measured, lesson="Confident wrong answers make the test loss rise.")


@exercise(
    blank="""
    accuracy = None
    loss = None
    """,
    hint="All ten classes have the same number of test images. The cross-entropy of one image is minus the natural "
    "logarithm of the probability that the net gives to the correct class.",
    solution="""
    import math

    accuracy = 1 / 10
    loss = -math.log(1 / 10)
    """,
    explanation="Every training run starts near these two values. If the loss of the first steps is far above 2.3, the "
    "net is worse than one that guesses, and something is wrong with the initialization or the labels.",
    wrong=[
        ("accuracy = 10\nloss = 1.0", "a share from 0 to 1"),
        ("import math\naccuracy = 0.1\nloss = math.log(0.1)", "minus"),
        ("import math\naccuracy = 0.1\nloss = -math.log2(0.1)", "base 2"),
    ],
)
def q2(accuracy, loss):
    """*On paper.* What is the test accuracy of a net that always answers "cat"? What is the cross-entropy of a net that
    gives every class the same probability?
    """
    return [
        number("accuracy", accuracy, 0.1, mistakes=[(10, "Give a share from 0 to 1, not a percentage.")]),
        number(
            "loss",
            loss,
            -math.log(0.1),
            mistakes=[
                (1.0, "PyTorch uses the natural logarithm, not the logarithm to base 10."),
                (math.log(0.1), "The logarithm of a probability is negative; the loss is minus this logarithm."),
                (-math.log2(0.1), "PyTorch uses the natural logarithm, not the logarithm to base 2."),
            ],
        ),
    ]


@exercise(
    blank="def train_step(net, optimizer, images, labels):\n    return None",
    hint="You need five operations: logits, loss, gradients, step, reset. Return the loss as a Python number.",
    solution="""
    def train_step(net, optimizer, images, labels):
        loss = nn.functional.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()
    """,
    explanation="The gradients have to be reset once per step: before `backward` or after `optimizer.step()`, but not "
    "between the two. `loss.item()` returns a number without the computation graph, so PyTorch can free the graph of "
    "this step.",
    wrong=[
        (
            "def train_step(net, optimizer, images, labels):\n"
            "    loss = nn.functional.cross_entropy(net(images), labels)\n"
            "    loss.backward()\n    optimizer.step()\n    return loss.item()",
            "zero_grad",
        ),
        (
            "def train_step(net, optimizer, images, labels):\n"
            "    loss = nn.functional.cross_entropy(net(images), labels)\n"
            "    loss.backward()\n    optimizer.zero_grad()\n    optimizer.step()\n    return loss.item()",
            "did not change",
        ),
        (
            "def train_step(net, optimizer, images, labels):\n"
            "    loss = nn.functional.cross_entropy(net(images).softmax(1), labels)\n"
            "    loss.backward()\n    optimizer.step()\n    optimizer.zero_grad()\n    return loss.item()",
            "softmax",
        ),
    ],
)
def q3(train_step):
    """*Write it.* Write one step of the loop as a function. The function takes a net, its optimizer and one batch. It
    updates the weights, resets the gradients and returns the loss as a Python number. The check trains a small net for
    two steps with your function and compares the resulting weights with the correct ones.
    """
    torch.manual_seed(0)
    net, images, labels = nn.Linear(6, 3), torch.randn(8, 6), torch.randint(3, (8,))
    theirs, ours = copy.deepcopy(net), copy.deepcopy(net)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    try:
        losses = [train_step(theirs, optimizer, images, labels) for _ in range(2)]
    except Exception as error:  # the reader's code may raise anything
        return Verdict("train_step", "wrong", f"The function raises {type(error).__name__}: {error}")
    if losses[0] is None:
        return Verdict("train_step", "open")
    expected = _train(ours, images, labels, 2)
    if torch.equal(theirs.weight, net.weight):
        return Verdict("train_step", "wrong", "The weights did not change: reset the gradients after the step.")
    if not math.isclose(losses[0], expected[0], rel_tol=1e-4):
        return Verdict("train_step", "wrong", "The loss is wrong: cross_entropy expects logits, without a softmax.")
    if not torch.allclose(theirs.weight, ours.weight, atol=1e-6):
        return Verdict(
            "train_step", "wrong", "The weights are wrong after the second step: did you call optimizer.zero_grad()?"
        )
    return Verdict("train_step", "solved", f"The loss fell from {losses[0]:.3f} to {losses[1]:.3f}.")


def _train(net: nn.Module, images: torch.Tensor, labels: torch.Tensor, steps: int) -> list[float]:
    optimizer, losses = torch.optim.SGD(net.parameters(), lr=0.1), []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@exercise(
    blank="worst = None",
    hint="A column of the matrix holds all images for which the net predicted one class. Look at the columns, not at "
    "the rows.",
    solution="""
    precision = {}
    for number, name in enumerate(dataset.classes):
        chosen = dataset.test_labels[predictions == number]
        precision[name] = (chosen == number).float().mean().item()
    worst = min(precision, key=precision.get)
    """,
    explanation="Each row of the confusion matrix gives the *recall* of a class: the share of its images that the net "
    "finds. Each column, weighted by the number of images, gives the *precision* of a class: the share of predictions "
    "of this class that are right.",
    wrong=[
        (
            "rates = [(dataset.test_labels[predictions == i] == i).float().mean() for i in range(10)]"
            "\nworst = dataset.classes[torch.stack(rates).nan_to_num().argmax()]",
            "not correct",
        ),
        ("worst = 3", "A word"),
    ],
)
def q4(worst, predictions, dataset):
    """*Write it.* When the net predicts a class, how often is the prediction right? This share is the *precision* of
    the class. Compute the precision of each class, and give the name of the class with the lowest precision.
    """
    labels = dataset.test_labels
    rates = [(labels[predictions == i] == i).float().mean().item() for i in range(len(dataset.classes))]
    found = [(predictions[labels == i] == i).float().mean().item() for i in range(len(dataset.classes))]
    rates = [2.0 if rate != rate else rate for rate in rates]  # a class that is never predicted has no precision
    expected, recall = rates.index(min(rates)), found.index(min(found))
    mistakes = [
        (
            dataset.classes[recall],
            "That is the class whose images are found least often, which you read from the rows of the matrix.",
        )
    ]
    return word("worst", worst, dataset.classes[expected], mistakes=[] if recall == expected else mistakes)


@exercise(
    hint="Print the norm of `net[0].weight.grad` after each step.",
    solution="""
    torch.manual_seed(0)
    broken = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    optimizer = torch.optim.SGD(broken.parameters(), lr=0.05, momentum=0.9)
    for part in torch.randperm(len(images)).split(100)[:60]:
        loss = nn.functional.cross_entropy(broken(images[part]), labels[part])
        loss.backward()
        optimizer.step()  # no zero_grad: all earlier gradients are added to each new one
    print(f"loss {loss.item():.1f} after the last step")
    """,
    explanation="`backward` *adds* the new gradients to the stored ones. Without a reset, each step therefore uses the "
    "sum of all gradients so far. The steps grow without limit, and the old gradients, which were computed for earlier "
    "weights, outweigh the new ones. The loss rises far above 2.3, the loss of a net that guesses.",
)
def q5():
    """*Break it.* Delete `optimizer.zero_grad()` in the handwritten loop, and rerun the cells, starting with the one
    that builds the net. What happens to the accuracy, and why?
    """
