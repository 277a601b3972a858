"""Every exercise is solved, and answered wrongly in typical ways, where a reader would do it: in the notebook."""

import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools import notebooks

FOLDER = Path(__file__).parent.parent / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))


def printed(cell):
    return "".join(output.get("text", "") for output in cell.outputs)


def an_exercise():
    source = "x = None\n\ncheck.number('x', x, 2, hint='one more than 1')"
    metadata = {"exercise": {"solution": "x = 2", "wrong": [["x = 3", "too large"], ["x = 'a'", "a number"]]}}
    return new_code_cell(source, metadata=metadata)


def an_exercise_without_a_check():
    return new_markdown_cell("Break it.", metadata={"exercise": {"solution": "print('broken')"}})


def small_notebook():
    opening = [new_markdown_cell("# 09 Small\n\nGoals"), new_code_cell("from qathelpers.exercises import check")]
    return new_notebook(cells=[*opening, an_exercise(), an_exercise_without_a_check()])


def test_one_source_becomes_the_exercise_and_its_solution(tmp_path):
    path = tmp_path / "09_small.ipynb"
    nbformat.write(small_notebook(), path)
    written = notebooks.refresh(path)
    course, solved = (nbformat.read(file, as_version=4) for file in written)
    assert [cell.source for cell in course.cells] == [cell.source for cell in small_notebook().cells]
    assert printed(course.cells[2]) == "x: not answered yet. Hint: one more than 1\n"
    assert course.cells[2].metadata["exercise"]["solution"] == "x = 2"
    assert solved.cells[0].source.startswith("# 09 Small: solutions\n")
    assert solved.cells[2].source.startswith("x = 2\n\ncheck.number(")
    assert [printed(cell) for cell in solved.cells[2:] if cell.cell_type == "code"] == ["x: solved.\n", "broken\n"]
    assert all("exercise" not in cell.metadata for cell in solved.cells)
    for notebook in (course, solved):
        counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
        assert counts == list(range(1, len(counts) + 1))


def test_refreshing_twice_changes_nothing(tmp_path):
    path = tmp_path / "09_small.ipynb"
    nbformat.write(small_notebook(), path)
    first = [file.read_text() for file in notebooks.refresh(path)]
    assert [file.read_text() for file in notebooks.refresh(path)] == first


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_solutions_are_the_exercises_of_today(path):
    course = nbformat.read(path, as_version=4)
    solved = nbformat.read(path.parent / "solutions" / path.name, as_version=4)
    _, expected = notebooks.split(notebooks.answered(course))
    assert [cell.source for cell in solved.cells] == [cell.source for cell in expected.cells]
    assert not [o for c in solved.cells if c.cell_type == "code" for o in c.outputs if o.output_type == "error"]
    checked = [c for c in solved.cells if c.cell_type == "code" and re.search(r"\bcheck\.\w+\(\s*\"", c.source)]
    assert len(checked) >= 2 and all(printed(cell).strip().endswith("solved.") for cell in checked)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_right_answers_are_solved_and_wrong_ones_get_their_hint(path, short_course):
    notebook = notebooks.answered(nbformat.read(path, as_version=4), wrong=True)
    notebooks.execute(notebook, FOLDER)
    cells = iter(notebook.cells)
    for cell in cells:
        task = notebooks.exercise(cell)
        if not task or cell.cell_type == "markdown":
            continue
        assert len(task["wrong"]) >= 2, cell.source
        verdicts = printed(cell).splitlines()
        assert verdicts and all("not answered yet. Hint: " in line for line in verdicts), verdicts
        verdicts = printed(next(cells)).splitlines()
        assert verdicts and all(line.endswith(": solved.") for line in verdicts), verdicts
        for code, hint in task["wrong"]:
            assert hint in printed(next(cells)), code
