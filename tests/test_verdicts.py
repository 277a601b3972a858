import pytest
import torch

from qathelpers.exercises import verdicts


@pytest.mark.parametrize(
    ("answer", "state", "named"),
    [
        (0.4, "solved", ""),
        (0.4005, "solved", ""),
        (torch.tensor(0.4), "solved", ""),
        ("0.4", "solved", ""),
        (None, "open", ""),
        (0.5, "wrong", "large"),
        (0.3, "wrong", "small"),
        (40, "wrong", "a share"),
        (float("nan"), "wrong", "NaN"),
        ("many", "wrong", "number"),
        (torch.zeros(2), "wrong", "number"),
    ],
)
def test_numbers(answer, state, named):
    verdict = verdicts.number("x", answer, 0.4, mistakes=[(40, "Give a share.".lower())])
    assert verdict.state == state and named in verdict.text


@pytest.mark.parametrize(
    ("answer", "state", "named"),
    [
        ([-1, 0, 1], "solved", ""),
        (torch.tensor([-1, 0, 1]), "solved", ""),
        (None, "open", ""),
        ([1, 0, -1], "wrong", "order"),
        ([0, 1], "wrong", "[0, 1]"),
        ([-2, 0, 1], "wrong", "clip"),
        (3, "wrong", "list"),
        (["a", "b", "c"], "wrong", "list"),
    ],
)
def test_sequences(answer, state, named):
    verdict = verdicts.sequence("x", answer, [-1, 0, 1], mistakes=[((-2, 0, 1), "Nothing is clipped: clip.")])
    assert verdict.state == state and named in verdict.text


@pytest.mark.parametrize(
    ("answer", "state", "named"),
    [
        (" Cat", "solved", ""),
        (None, "open", ""),
        ("dog", "wrong", "barks"),
        ("cow", "wrong", "cow"),
        (3, "wrong", "word"),
    ],
)
def test_words(answer, state, named):
    verdict = verdicts.word("x", answer, "cat", mistakes=[("dog", "It barks.")])
    assert verdict.state == state and named in verdict.text


def _raises(x):
    raise ZeroDivisionError("boom")


@pytest.mark.parametrize(
    ("answer", "state", "named"),
    [
        (lambda x: 2 * x, "solved", ""),
        (lambda x: torch.tensor(2.0 * x), "solved", ""),
        (lambda x: None, "open", ""),
        (None, "open", ""),
        (lambda x: x, "wrong", "twice"),
        (lambda x: 3 * x, "wrong", "3"),
        (lambda x: "many", "wrong", "many"),
        (lambda x: [x, x], "wrong", "[1, 1]"),
        (_raises, "wrong", "ZeroDivisionError"),
        (7, "wrong", "function"),
    ],
)
def test_functions(answer, state, named):
    verdict = verdicts.function("f", answer, lambda x: 2 * x, [(1,), (3,)], mistakes=[(lambda x: x, "Take it twice.")])
    assert verdict.state == state and named in verdict.text


def test_a_verdict_on_a_function_does_not_tell_the_expected_value():
    verdict = verdicts.function("f", lambda x: 0, lambda x: 12345, [(1,)])
    assert verdict.state == "wrong" and "12345" not in str(verdict)


@pytest.mark.parametrize(("answer", "state"), [(0.5, "note"), (None, "open"), ("x", "wrong"), (0.31, "note")])
def test_predictions_are_compared_and_not_judged(answer, state):
    verdict = verdicts.prediction("share", answer, 0.3, lesson="Few.")
    assert verdict.state == state
    assert ("0.3" in verdict.text) == (state == "note")


def test_right_and_wrong_differ_in_symbol_word_and_colour():
    shown = [verdicts.Verdict("x", state, "a < b") for state in verdicts.STATES]
    for parts in zip(*verdicts.STATES.values(), strict=True):
        assert len(set(parts)) == len(verdicts.STATES)
    for verdict in shown:
        symbol, word, colour = verdicts.STATES[verdict.state]
        assert symbol in str(verdict) and word in str(verdict)
        assert symbol in verdict.html() and word in verdict.html() and colour in verdict.html()
        assert "a &lt; b" in verdict.html()
