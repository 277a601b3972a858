"""Every exercise is solved, and answered wrongly in typical ways, where a reader would do it: in the notebook."""

import ast
import copy
import importlib
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from qathelpers.common.errors import CourseError
from qathelpers.exercises import exercise as module
from qathelpers.exercises.exercise import Exercise, exercise
from qathelpers.exercises.verdicts import STATES, number
from tools import notebooks

FOLDER = Path(__file__).parent.parent / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))


def chapter(path):
    """Return the exercises of a notebook, by name."""
    contents = vars(importlib.import_module(f"qathelpers.exercises.ch{path.name[:2]}")).values()
    return {value.name: value for value in contents if isinstance(value, Exercise)}


def printed(cell):
    outputs = [output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    return "".join(outputs)


def states(cell):
    """Return the state of each verdict that a cell shows."""
    symbols = {symbol: state for state, (symbol, _, _) in STATES.items()}
    return [symbols[line[0]] for line in printed(cell).splitlines() if line[:1] in symbols]


@exercise(
    blank="x = None",
    hint="Count.",
    solution="x = n + 1",
    explanation="One more.",
    wrong=[("x = 3", "too large"), ("x = 'a'", "number")],
)
def q1(x, n):
    """What is one more than `n`?"""
    return number("x", x, n + 1)


@exercise(solution="print('broken')", explanation="It breaks.")
def q2():
    """Break it."""


@pytest.fixture(scope="module")
def refreshed(tmp_path_factory):
    """Return the texts of a notebook with the two exercises above and of its solutions, refreshed once and again."""
    path = tmp_path_factory.mktemp("course") / "09_small.ipynb"
    with pytest.MonkeyPatch.context() as patch:
        write_small(path)
        tasks = {"q1": q1, "q2": q2}
        patch.setattr(notebooks, "exercise", lambda cell: tasks.get(cell.metadata.get("exercise")))
        patch.setenv("PYTHONPATH", str(FOLDER.parent))
        return [[file.read_text(encoding="utf-8") for file in notebooks.refresh(path)] for _ in range(2)]


def write_small(path):
    setup = "from tests.test_exercises import q1, q2\nn = 1\nclass test_exercises:\n    q1, q2 = q1, q2"
    cells = [new_markdown_cell("# 09 Small\n\nGoals"), new_code_cell(setup)]
    cells += [new_markdown_cell("", metadata={"exercise": "q1"}), new_code_cell("", metadata={"exercise": "q1"})]
    cells += [new_markdown_cell("", metadata={"exercise": "q2"})]
    nbformat.write(new_notebook(cells=cells), path)


def test_question_blank_and_solution_come_from_one_place(refreshed):
    course, solved = (nbformat.reads(text, as_version=4) for text in refreshed[0])
    assert [cell.source for cell in course.cells[2:]] == [
        "**1.** What is one more than `n`?",
        "x = None\n\ntest_exercises.q1.check(x, n)",
        "**2.** Break it.\n\n<details><summary>Solution</summary>\n\nIt breaks.\n\n```python\nprint('broken')\n```"
        "\n\n</details>",
    ]
    assert states(course.cells[3]) == ["open"]
    assert solved.cells[0].source.startswith("# 09 Small: solutions\n")
    assert [cell.source for cell in solved.cells[2:]] == [
        "**1.** What is one more than `n`?\n\nOne more.",
        "x = n + 1\n\ntest_exercises.q1.check(x, n)",
        "**2.** Break it.\n\nIt breaks.",
        "print('broken')",
    ]
    assert states(solved.cells[3]) == ["solved"] and printed(solved.cells[5]) == "broken\n"
    assert all("exercise" not in cell.metadata for cell in solved.cells)
    for notebook in (course, solved):
        counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
        assert counts == list(range(1, len(counts) + 1))


def test_refreshing_twice_changes_nothing(refreshed):
    assert refreshed[0] == refreshed[1]


def test_an_exercise_that_does_not_exist_is_named():
    for name in ("ch00.q99", "ch77.q1"):
        with pytest.raises(CourseError, match=re.escape(name)):
            notebooks.exercise(new_code_cell("", metadata={"exercise": name}))


@pytest.fixture
def shown(monkeypatch):
    """Return the list of what `display` was called with."""
    calls = []
    monkeypatch.setattr(module, "display", calls.append)
    return calls


@pytest.mark.parametrize(("answer", "symbol"), [(2, "✓"), (5, "✗"), (None, "○")])
def test_help_is_offered_until_it_is_solved(shown, answer, symbol):
    q1.check(answer, 1)
    assert repr(shown[0]).startswith(symbol) and symbol in shown[0]._repr_html_()
    assert ("q1.hint()" in repr(shown[0])) == (symbol != "✓")
    assert ("q1.hint()" in shown[0]._repr_html_()) == (symbol != "✓")


def test_hint_and_solution_are_shown_on_demand(shown):
    q1.hint()
    q1.solution()
    q2.solution()
    assert [repr(text) for text in shown] == [
        "Count.",
        "One more.\n\n```python\nx = n + 1\n```",
        "It breaks.\n\n```python\nprint('broken')\n```",
    ]


def test_wrong_calls_of_check_say_how_to_call_it():
    with pytest.raises(CourseError, match=r"q1\.check\(x, n\)"):
        q1.check(2)
    with pytest.raises(CourseError, match=r"q2\.solution\(\)"):
        q2.check()


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_each_exercise_of_the_chapter_is_in_its_notebook(path):
    cells = [c for c in nbformat.read(path, as_version=4).cells if "exercise" in c.metadata]
    tasks = chapter(path)
    assert len(tasks) >= 3
    names = [cell.metadata["exercise"] for cell in cells]
    assert list(dict.fromkeys(names)) == [f"ch{path.name[:2]}.q{n}" for n in range(1, len(tasks) + 1)]
    for name, task in tasks.items():
        kinds = [cell.cell_type for cell in cells if cell.metadata["exercise"] == name]
        assert kinds == (["markdown", "code"] if task.blank else ["markdown"])
    for cell in cells:
        assert cell.source == notebooks.source(cell, notebooks.exercise(cell))


def is_empty(statement):
    """Return whether a statement of a blank says nothing: `name = None`, or a function that returns None."""
    if isinstance(statement, ast.FunctionDef):
        body = [part for part in statement.body if not isinstance(part, ast.Expr)]  # without the docstring
        return len(body) == 1 and isinstance(body[0], ast.Return) and ast.unparse(body[0]) == "return None"
    return isinstance(statement, ast.Assign) and ast.unparse(statement.value) == "None"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_no_exercise_gives_its_answer_away(path):
    for name, task in chapter(path).items():
        assert task.explanation, name
        if not task.blank:
            continue
        assert all(is_empty(statement) for statement in ast.parse(task.blank).body), name
        assert task.clue and len(task.wrong) >= 2, name
        lines = [line.strip() for line in task.code.splitlines()]
        given = task.blank + task.question
        assert not [line for line in lines if len(line) > 12 and line in given and line not in task.blank], name
        values = [line.partition(" = ")[2] for line in lines if " = " in line]
        assert not [value for value in values if len(value) > 4 and value in given + task.clue], name


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_solutions_are_the_exercises_of_today(path):
    course = nbformat.read(path, as_version=4)
    solved = nbformat.read(path.parent / "solutions" / path.name, as_version=4)
    _, expected = notebooks.split(notebooks.answered(course))
    assert [cell.source for cell in solved.cells] == [cell.source for cell in expected.cells]
    assert not [o for c in solved.cells if c.cell_type == "code" for o in c.outputs if o.output_type == "error"]
    checked = [c for c in solved.cells if c.cell_type == "code" and re.search(r"\bch\d\d\.q\d+\.check\(", c.source)]
    assert len(checked) >= 2
    for cell in checked:
        assert states(cell) and set(states(cell)) <= {"solved", "note"}, cell.source


def texts(cell):
    """Return the outputs of a cell without its pictures."""
    outputs = notebooks.clean(new_notebook(cells=[copy.deepcopy(cell)])).cells[0].outputs
    data = [{"text": o.text} if "text" in o else o.get("data", {}) for o in outputs]
    return [{kind: value for kind, value in each.items() if not kind.startswith("image/")} for each in data]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_runs_with_blanks_and_with_right_and_wrong_answers(path, short_course):
    """Run each notebook once, because that takes a quarter of a minute.

    After the answers of an exercise, its blank runs again, so that the cells below find what a reader leaves there who
    does not answer. Outputs that do not depend on the data or the length of a training are those that are saved.
    """
    saved = nbformat.read(path, as_version=4)
    notebook = notebooks.answered(saved, wrong=True)
    notebooks.execute(notebook, FOLDER)
    outputs = {cell.id: texts(cell) for cell in notebook.cells if cell.cell_type == "code"}
    for cell in saved.cells:
        if "nbval-check-output" in cell.metadata.get("tags", []):
            assert outputs[cell.id] == texts(cell), cell.source
    cells = iter(notebook.cells)
    for cell in cells:
        task = notebooks.exercise(cell)
        if not task or cell.cell_type == "markdown":
            continue
        assert set(states(cell)) == {"open"}, printed(cell)
        solved = next(cells)
        assert states(solved) and set(states(solved)) <= {"solved", "note"}, printed(solved)
        for code, words in task.wrong:
            verdict = next(cells)
            assert words in printed(verdict), (code, printed(verdict))
            assert {"wrong", "note"} & set(states(verdict)), code
        assert set(states(next(cells))) == {"open"}


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[pytest.mark.slow] if index else []) for index, path in enumerate(PATHS)],
    ids=[path.stem for path in PATHS],
)
def test_nbval_runs_the_notebook_as_a_reader_opens_it(path, short_course):
    options = [
        "--nbval-lax",
        "--nbval-current-env",
        "--nbval-cell-timeout=600",
        "-p",
        "no:xdist",
        "-p",
        "no:cacheprovider",
    ]
    command = [sys.executable, "-m", "pytest", "--quiet", *options, path]
    done = subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
