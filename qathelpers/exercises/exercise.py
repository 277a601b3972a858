"""An exercise: its question, the check of an answer, a hint and a solution.

Each chapter of the course has a module with its exercises, `ch00` to `ch09`. An exercise is a function with a
decorator: the docstring is the question, the parameters are the reader's answers and what the check needs to judge
them, and the body returns the verdict. An exercise without a body is not checked; its solution explains what is to be
seen.
"""

import inspect
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from IPython.display import Markdown, display

from ..common.errors import CourseError
from .verdicts import Verdict


@dataclass(frozen=True)
class Exercise:
    """An exercise of a notebook. A reader calls `check`, `hint` and `solution`.

    Args:
        name: Module and function, such as "ch02.q1".
        question: The task, in Markdown.
        parameters: The names of what `check` takes: the reader's answers first.
        blank: The code that the reader completes; empty if there is nothing to check.
        code: The code of the solution.
        explanation: What the solution shows and why, in Markdown.
        clue: The hint, in Markdown.
        wrong: Typical wrong answers: pairs of code and a part of the verdict that it gets.
        judge: Called with the answers; returns one verdict, or one per answer.
    """

    name: str
    question: str
    parameters: tuple[str, ...]
    blank: str
    code: str
    explanation: str
    clue: str
    wrong: Sequence[tuple[str, str]]
    judge: Callable[..., Verdict | Iterable[Verdict]] = field(repr=False)

    @property
    def number(self) -> str:
        """The number of the exercise in its notebook, such as "1"."""
        return self.name.rpartition("q")[2]

    @property
    def call(self) -> str:
        """The call that checks the answers, as it stands under the blank."""
        return f"{self.name}.check({', '.join(self.parameters)})"

    def check(self, *answers: object) -> None:
        """Say for each answer whether it is right; a wrong or a missing one changes nothing."""
        if not self.blank:
            raise CourseError(f"{self.name} has no check: compare what you saw with {self.name}.solution().")
        if len(answers) != len(self.parameters):
            raise CourseError(f"{self.name} takes {len(self.parameters)} arguments: call {self.call}.")
        result = self.judge(*answers)
        verdicts = [result] if isinstance(result, Verdict) else list(result)
        display(_Verdicts(verdicts, f"{self.name}.hint()"))

    def hint(self) -> None:
        """Show a hint that does not give the answer away."""
        display(_Text(self.clue or "There is no hint: run the experiment and look."))

    def solution(self) -> None:
        """Show the solution and what it teaches."""
        display(_Text(self.solution_text()))

    def solution_text(self) -> str:
        """Return the solution as Markdown: the explanation, then the code."""
        return "\n\n".join(part for part in (self.explanation, f"```python\n{self.code}\n```") if part)


def exercise(
    *, solution: str, blank: str = "", explanation: str = "", hint: str = "", wrong: Sequence[tuple[str, str]] = ()
) -> Callable[[Callable], Exercise]:
    """Turn a function into an `Exercise`; see the top of this module for what the function has to look like."""

    def decorate(judge: Callable) -> Exercise:
        return Exercise(
            name=f"{judge.__module__.rpartition('.')[2]}.{judge.__name__}",
            question=inspect.getdoc(judge),
            parameters=tuple(inspect.signature(judge).parameters),
            blank=_clean(blank),
            code=_clean(solution),
            explanation=_clean(explanation),
            clue=_clean(hint),
            wrong=wrong,
            judge=judge,
        )

    return decorate


def _clean(text: str) -> str:
    # Not inspect.cleandoc, which ignores the indentation of the first line and so breaks "def f():\n    return None".
    return textwrap.dedent(text).strip()


class _Verdicts:
    """Some verdicts, shown as HTML in a notebook and as text elsewhere."""

    def __init__(self, verdicts: Sequence[Verdict], help_call: str) -> None:
        unsolved = any(verdict.state in ("wrong", "open") for verdict in verdicts)
        self.verdicts, self.help = verdicts, f"Stuck? {help_call}" if unsolved else ""

    def __repr__(self) -> str:
        return "\n".join([*map(str, self.verdicts), *([self.help] if self.help else [])])

    def _repr_html_(self) -> str:
        lines = [verdict.html() for verdict in self.verdicts]
        call = self.help.removeprefix("Stuck? ")
        return "".join([*lines, *([f"<div>Stuck? <code>{call}</code></div>"] if call else [])])


class _Text(Markdown):
    """Markdown, shown as plain text outside a notebook."""

    def __repr__(self) -> str:
        return self.data
