"""Compare a reader's answer with the expected answer and say what is wrong with the reader's answer.

No function here raises an exception because of an answer. All of them take:

- name: The name of the reader's variable; the verdict starts with it.
- answer: The reader's answer; None means that the exercise is not answered yet.
- expected: The correct answer.
- mistakes: Pairs of a common wrong answer and the sentence that explains it.
"""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

Mistakes = Sequence[tuple[object, str]]

# A symbol, a word and a colour (JupyterLab's, with a fallback for other programs): no verdict depends on colour alone.
STATES = {
    "solved": ("✓", "Solved", "var(--jp-success-color1, #2e7d32)"),
    "wrong": ("✗", "Not yet", "var(--jp-error-color1, #c62828)"),
    "open": ("○", "Not answered yet", "var(--jp-border-color0, #888888)"),
    "note": ("▸", "Compare", "var(--jp-brand-color1, #1565c0)"),
}


@dataclass(frozen=True)
class Verdict:
    """What an exercise says about one answer.

    Args:
        name: The name of the reader's variable.
        state: A key of `STATES`; "note" is for predictions, which are compared but not judged.
        text: One or two sentences, or an empty string.
    """

    name: str
    state: str
    text: str = ""

    def __str__(self) -> str:
        """Return the verdict as one line of text."""
        symbol, word, _ = STATES[self.state]
        return f"{symbol} {self.name}: {word}." + (f" {self.text}" if self.text else "")

    def html(self) -> str:
        """Return the verdict as HTML, with a coloured bar on the left."""
        symbol, word, colour = STATES[self.state]
        return (
            f'<div style="border-left: 5px solid {colour}; padding: 2px 10px; margin: 2px 0">'
            f"<b>{symbol} {word}</b> <code>{html.escape(self.name)}</code> {html.escape(self.text)}</div>"
        )


def number(
    name: str, answer: object, expected: float, *, mistakes: Mistakes = (), tolerance: float = 0.005, praise: str = ""
) -> Verdict:
    """Judge whether `answer` is the number `expected`, up to a relative error of `tolerance`.

    `praise` says what the solution shows. It is part of the verdict only if the answer is correct.
    """
    value = _as_number(name, answer)
    if isinstance(value, Verdict):
        return value
    if _near(value, expected, tolerance):
        return Verdict(name, "solved", praise)
    for wrong, sentence in mistakes:
        if _near(value, wrong, tolerance):
            return Verdict(name, "wrong", f"{value:g} is not correct. {sentence}")
    return Verdict(name, "wrong", f"{value:g} is too {'large' if value > expected else 'small'}.")


def sequence(
    name: str, answer: object, expected: Sequence[float], *, mistakes: Mistakes = (), praise: str = ""
) -> Verdict:
    """Judge whether `answer` holds exactly the numbers `expected`, in the same order."""
    if answer is None:
        return Verdict(name, "open")
    try:
        values = [float(value) for value in answer]
    except (TypeError, ValueError, RuntimeError):
        return Verdict(name, "wrong", "A list of numbers is expected here.")
    if values == [float(value) for value in expected]:
        return Verdict(name, "solved", praise)
    for wrong, sentence in mistakes:
        if values == [float(value) for value in wrong]:
            return Verdict(name, "wrong", f"{answer} is not correct. {sentence}")
    same = sorted(values) == sorted(map(float, expected))
    return Verdict(name, "wrong", "The values are right but the order is not." if same else f"{answer} is not correct.")


def word(name: str, answer: object, expected: str, *, mistakes: Mistakes = (), praise: str = "") -> Verdict:
    """Judge whether `answer` is the word `expected`; upper and lower case do not matter."""
    if answer is None:
        return Verdict(name, "open")
    if not isinstance(answer, str):
        return Verdict(name, "wrong", "A word in quotes is expected here.")
    given = answer.strip().lower()
    if given == expected.lower():
        return Verdict(name, "solved", praise)
    for wrong, sentence in mistakes:
        if given == str(wrong).lower():
            return Verdict(name, "wrong", f"{answer!r} is not correct. {sentence}")
    return Verdict(name, "wrong", f"{answer!r} is not correct.")


def function(
    name: str,
    answer: Callable[..., object] | None,
    expected: Callable[..., object],
    inputs: Sequence[tuple],
    *,
    mistakes: Mistakes = (),
    praise: str = "",
) -> Verdict:
    """Judge whether the function `answer` returns what `expected` returns for each of `inputs` (tuples of arguments).

    The wrong answers in `mistakes` are functions, too. If `answer` raises an exception, the verdict names that
    exception.
    """
    if answer is None:
        return Verdict(name, "open")
    if not callable(answer):
        return Verdict(name, "wrong", "A function is expected here.")
    try:
        results = [answer(*arguments) for arguments in inputs]
    except Exception as error:  # the reader's code may raise anything
        return Verdict(name, "wrong", f"The function raises {type(error).__name__}: {error}")
    if all(result is None for result in results):
        return Verdict(name, "open")
    if _same(results, expected, inputs):
        return Verdict(name, "solved", praise)
    sentence = next((words for wrong, words in mistakes if _same(results, wrong, inputs)), "")
    shown = ", ".join(str(argument) for argument in inputs[0])
    return Verdict(name, "wrong", f"For {shown}, the function returns {results[0]}. {sentence}".strip())


def prediction(name: str, answer: object, measured: float, *, lesson: str = "", close: float = 0.2) -> Verdict:
    """Compare a prediction with the measured value, without judging the prediction.

    Args:
        name: As above.
        answer: The predicted number.
        measured: The measured number.
        lesson: One or two sentences on what the comparison shows.
        close: The largest relative difference that is called close.
    """
    value = _as_number(name, answer)
    if isinstance(value, Verdict):
        return value
    near = "Close: you" if _near(value, measured, close) else "You"
    return Verdict(name, "note", f"{near} predicted {value:g}; the measured value is {measured:.3g}. {lesson}".strip())


def _as_number(name: str, answer: object) -> float | Verdict:
    """Return the answer as a number, or the verdict on an answer that is missing or not a number."""
    if answer is None:
        return Verdict(name, "open")
    try:
        value = float(answer)
    except (TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor with more than one element
        return Verdict(name, "wrong", "A number is expected here.")
    return Verdict(name, "wrong", "A number is expected here, not NaN.") if math.isnan(value) else value


def _near(value: float, expected: object, tolerance: float) -> bool:
    return math.isclose(value, float(expected), rel_tol=tolerance, abs_tol=1e-6)


def _same(results: list, function: Callable[..., object], inputs: Sequence[tuple]) -> bool:
    try:
        expected = [torch.as_tensor(function(*arguments)).float() for arguments in inputs]
        found = [torch.as_tensor(result).detach().float() for result in results]
    except (TypeError, ValueError, RuntimeError):
        return False
    return all(a.shape == b.shape and torch.allclose(a, b, atol=1e-5) for a, b in zip(found, expected, strict=True))
