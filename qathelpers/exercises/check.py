"""Check a reader's answers to the exercises of the notebooks, and print what is wrong with them.

Every check prints one line per exercise and never raises an exception because of an answer. All checks take:

- name: The name of the exercise; the line starts with it.
- answer: The reader's answer; None means that the exercise is not answered yet.
- expected: The correct answer.
- hint: A sentence that helps with an answer that is wrong or still missing.
- mistakes: Pairs of a common wrong answer and the sentence that is printed for it instead of `hint`.
"""

import math
from collections.abc import Callable, Sequence

import torch

Mistakes = Sequence[tuple[object, str]]


def number(
    name: str, answer: object, expected: float, *, hint: str, mistakes: Mistakes = (), tolerance: float = 0.005
) -> None:
    """Check that `answer` is the number `expected`, up to a relative error of `tolerance`."""
    try:
        value = float(answer)
    except (TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor with more than one element
        return _verdict(name, answer, "expected a number", hint)
    if math.isnan(value):
        return _verdict(name, answer, "expected a number, not NaN", hint)
    if _near(value, expected, tolerance):
        return _verdict(name, answer)
    for wrong, sentence in mistakes:
        if _near(value, wrong, tolerance):
            return _verdict(name, answer, f"{value:g} is not correct", sentence)
    _verdict(name, answer, f"{value:g} is too {'large' if value > expected else 'small'}", hint)


def sequence(name: str, answer: object, expected: Sequence[float], *, hint: str, mistakes: Mistakes = ()) -> None:
    """Check that `answer` holds exactly the numbers `expected`, in the same order."""
    try:
        values = [float(value) for value in answer]
    except (TypeError, ValueError):
        return _verdict(name, answer, "expected a list of numbers", hint)
    if values == [float(value) for value in expected]:
        return _verdict(name, answer)
    for wrong, sentence in mistakes:
        if values == [float(value) for value in wrong]:
            return _verdict(name, answer, f"{answer} is not correct", sentence)
    same = sorted(values) == sorted(map(float, expected))
    _verdict(name, answer, "right values, wrong order" if same else f"{answer} is not correct", hint)


def text(name: str, answer: object, expected: str, *, hint: str, mistakes: Mistakes = ()) -> None:
    """Check that `answer` is the word `expected`; upper and lower case do not matter."""
    if not isinstance(answer, str):
        return _verdict(name, answer, "expected a word in quotes", hint)
    word = answer.strip().lower()
    if word == expected.lower():
        return _verdict(name, answer)
    for wrong, sentence in mistakes:
        if word == wrong.lower():
            return _verdict(name, answer, f"{answer!r} is not correct", sentence)
    _verdict(name, answer, f"{answer!r} is not correct", hint)


def function(
    name: str,
    answer: Callable[..., object] | None,
    expected: Callable[..., torch.Tensor],
    inputs: Sequence[tuple],
    *,
    hint: str,
    mistakes: Mistakes = (),
) -> None:
    """Check that the function `answer` returns what `expected` returns for each of `inputs` (tuples of arguments).

    The wrong answers in `mistakes` are functions, too. If `answer` raises an exception, the exception is printed.
    """
    if answer is None or not callable(answer):
        return _verdict(name, answer, "expected a function", hint)
    try:
        results = [answer(*arguments) for arguments in inputs]
    except Exception as error:  # the reader's code may raise anything
        return _verdict(name, answer, f"it raises {type(error).__name__} ({error})", hint)
    if all(result is None for result in results):
        return _verdict(name, None, "", hint)
    if _same(results, expected, inputs):
        return _verdict(name, answer)
    sentence = next((words for wrong, words in mistakes if _same(results, wrong, inputs)), hint)
    _verdict(name, answer, f"it returns {results[0]} instead of {expected(*inputs[0])}", sentence)


def _near(value: float, expected: float, tolerance: float) -> bool:
    return math.isclose(value, expected, rel_tol=tolerance, abs_tol=1e-6)


def _same(results: list, function: Callable[..., torch.Tensor], inputs: Sequence[tuple]) -> bool:
    expected = [torch.as_tensor(function(*arguments)).float() for arguments in inputs]
    try:
        found = [torch.as_tensor(result).detach().float() for result in results]
    except (TypeError, ValueError, RuntimeError):
        return False
    return all(a.shape == b.shape and torch.allclose(a, b, atol=1e-5) for a, b in zip(found, expected, strict=True))


def _verdict(name: str, answer: object, problem: str = "", hint: str = "") -> None:
    if answer is None:
        print(f"{name}: not answered yet. Hint: {hint}")
    elif problem:
        print(f"{name}: not yet, {problem}. Hint: {hint}")
    else:
        print(f"{name}: solved.")
