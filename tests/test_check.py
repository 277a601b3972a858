import re

import pytest
import torch

from qathelpers.exercises import check

HINT = "look again"


def verdict(capsys):
    """Return what the one line that a check prints says: "solved", "unanswered" or "wrong", the problem, the hint."""
    (line,) = capsys.readouterr().out.splitlines()
    name, said = line.split(": ", 1)
    assert name == "x"
    if said == "solved.":
        return "solved", "", ""
    problem, hint = said.split(" Hint: ")
    return ("unanswered" if problem == "not answered yet." else "wrong"), problem, hint


@pytest.mark.parametrize(
    ("answer", "state", "problem"),
    [
        (0.4, "solved", ""),
        (0.4005, "solved", ""),
        (torch.tensor(0.4), "solved", ""),
        ("0.4", "solved", ""),
        (None, "unanswered", ""),
        (0.5, "wrong", "0.5 is too large"),
        (0.3, "wrong", "0.3 is too small"),
        (float("nan"), "wrong", "NaN"),
        ("many", "wrong", "a number"),
        (torch.zeros(2), "wrong", "a number"),
    ],
)
def test_numbers(capsys, answer, state, problem):
    check.number("x", answer, 0.4, hint=HINT)
    found, said, hint = verdict(capsys)
    assert found == state and problem in said
    assert hint == ("" if state == "solved" else HINT)


@pytest.mark.parametrize(
    ("answer", "state", "problem"),
    [
        ([-1, 0, 1], "solved", ""),
        (torch.tensor([-1, 0, 1]), "solved", ""),
        (None, "unanswered", ""),
        ([1, 0, -1], "wrong", "order"),
        ([0, 1], "wrong", "[0, 1]"),
        (3, "wrong", "a list of numbers"),
        (["a", "b", "c"], "wrong", "a list of numbers"),
    ],
)
def test_sequences(capsys, answer, state, problem):
    check.sequence("x", answer, [-1, 0, 1], hint=HINT)
    found, said, hint = verdict(capsys)
    assert found == state and problem in said
    assert hint == ("" if state == "solved" else HINT)
    assert ("order" in said) == (problem == "order")


@pytest.mark.parametrize(
    ("answer", "state", "problem"),
    [
        (" Cat", "solved", ""),
        (None, "unanswered", ""),
        ("dog", "wrong", "'dog'"),
        (3, "wrong", "a word"),
    ],
)
def test_texts(capsys, answer, state, problem):
    check.text("x", answer, "cat", hint=HINT)
    found, said, hint = verdict(capsys)
    assert found == state and problem in said
    assert hint == ("" if state == "solved" else HINT)


def _raises(x):
    raise KeyError("nothing")


FORGOTTEN = "You forgot the sign."


@pytest.mark.parametrize(
    ("answer", "state", "problem", "told"),
    [
        (torch.sign, "solved", "", ""),
        (lambda x: [-1.0, 1.0], "solved", "", ""),
        (None, "unanswered", "", HINT),
        (lambda x: None, "unanswered", "", HINT),
        (lambda x: x, "wrong", r"tensor\(\[-2., +3.\]\) .* tensor\(\[-1., +1.\]\)", FORGOTTEN),
        (lambda x: x.abs(), "wrong", r"tensor\(\[2., 3.\]\)", HINT),
        (lambda x: x.sign()[:1], "wrong", r"tensor\(\[-1.\]\)", HINT),
        (lambda x: "word", "wrong", "word", HINT),
        (_raises, "wrong", "KeyError.*nothing", HINT),
        (3, "wrong", "a function", HINT),
    ],
)
def test_functions(capsys, answer, state, problem, told):
    inputs = [(torch.tensor([-2.0, 3.0]),)]
    check.function("x", answer, torch.sign, inputs, hint=HINT, mistakes=[(lambda x: x, FORGOTTEN)])
    found, said, hint = verdict(capsys)
    assert found == state and re.search(problem, said) and hint == told


@pytest.mark.parametrize(
    ("kind", "answer", "expected", "mistakes", "told"),
    [
        (check.number, 3, 0.4, [(3.2, "no"), (3, "Those are bits.")], "Those are bits."),
        (check.sequence, [0, 1], [1], [((0, 1), "Without the zero.")], "Without the zero."),
        (check.text, "dog", "cat", [("Dog", "It barks.")], "It barks."),
    ],
)
def test_a_known_mistake_gets_its_own_hint(capsys, kind, answer, expected, mistakes, told):
    kind("x", answer, expected, hint=HINT, mistakes=mistakes)
    state, _, hint = verdict(capsys)
    assert (state, hint) == ("wrong", told)
