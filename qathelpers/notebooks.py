"""Execute the course's notebooks in place, and write their solutions out of the same source.

An exercise is a cell with metadata `{"exercise": {"solution": code, "wrong": [[code, hint], ...]}}`. Of a code cell the
first paragraph, up to the first empty line, is the stub that the reader fills in; the check below it stays. Behind a
markdown cell, which asks for something without a check, the solutions show the code and what it does.
"""

import copy
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert.preprocessors import ClearMetadataPreprocessor, CoalesceStreamsPreprocessor, TagRemovePreprocessor
from nbformat import NotebookNode

from .errors import CourseError

TIMEOUT = 1800  # seconds a cell
WITHOUT_OUTPUT = {"shows-photographs", "shows-a-widget"}  # tags: not ours to hand on; nothing without a kernel


def exercise(cell: NotebookNode) -> dict | None:
    """Return an exercise's solution and typical wrong answers, or None for any other cell."""
    return cell.metadata.get("exercise")


def filled(cell: NotebookNode, code: str) -> str:
    """Return the source of an exercise's code cell with `code` in the place of its stub."""
    _, check = cell.source.split("\n\n", 1)
    return f"{code}\n\n{check}"


def answers(cell: NotebookNode) -> list[str]:
    """Return the sources of an exercise's cell answered: rightly, then in each of the typical wrong ways."""
    task = exercise(cell)
    if cell.cell_type == "markdown":
        return [task["solution"]]
    return [filled(cell, code) for code in (task["solution"], *(code for code, _ in task["wrong"]))]


def answered(notebook: NotebookNode, wrong: bool = False) -> NotebookNode:
    """Return a copy of `notebook` with each exercise's solution in a cell behind it, and the `wrong` answers too."""
    result = copy.deepcopy(notebook)
    result.cells = []
    for cell in notebook.cells:
        result.cells.append(copy.deepcopy(cell))
        if exercise(cell):
            for number, source in enumerate(answers(cell) if wrong else answers(cell)[:1]):
                new = nbformat.v4.new_code_cell(source, id=f"{cell.id}-answer{number}", metadata={"answer": number})
                result.cells.append(new)
    return result


def execute(notebook: NotebookNode, folder: Path) -> None:
    """Run all cells of `notebook`, which lies in `folder`; raises nbclient's CellExecutionError at the first error."""
    NotebookClient(
        notebook, timeout=TIMEOUT, store_widget_state=False, resources={"metadata": {"path": str(folder)}}
    ).execute()


def split(notebook: NotebookNode) -> tuple[NotebookNode, NotebookNode]:
    """Return the course's notebook and the solved one out of one that was `answered` and executed."""
    course, solved = copy.deepcopy(notebook), copy.deepcopy(notebook)
    course.cells = [cell for cell in course.cells if "answer" not in cell.metadata]
    solved.cells = [cell for cell in solved.cells if not (cell.cell_type == "code" and exercise(cell))]
    opening = solved.cells[0].source.replace("\n", ": solutions\n", 1)
    solved.cells[0].source = opening.replace("/notebooks/", "/notebooks/solutions/")  # in the badge, if there is one
    for cell in solved.cells:
        cell.metadata.pop("exercise", None)
    return clean(course), clean(solved)


def clean(notebook: NotebookNode) -> NotebookNode:
    """Return `notebook` without photographs, widget state and times of execution, its cells numbered from 1."""
    for preprocessor in (
        ClearMetadataPreprocessor(clear_notebook_metadata=False, preserve_cell_metadata_mask={"tags", "exercise"}),
        CoalesceStreamsPreprocessor(),
        TagRemovePreprocessor(enabled=True, remove_all_outputs_tags=WITHOUT_OUTPUT),
    ):
        notebook, _ = preprocessor.preprocess(notebook, {})
    notebook.metadata.pop("widgets", None)
    number = 0
    for cell in notebook.cells:
        if cell.cell_type == "code":
            number += 1
            cell.execution_count = number
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = number
    return notebook


def refresh(path: Path) -> list[Path]:
    """Execute the notebook at `path` in place and write its solutions beside it; return what was written."""
    try:
        notebook = answered(nbformat.read(path, as_version=4))
    except (nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise CourseError(f"{path} is not a notebook: name files that end in .ipynb.") from error
    execute(notebook, path.parent)
    targets = [path, path.parent / "solutions" / path.name]
    targets[1].parent.mkdir(exist_ok=True)
    for result, target in zip(split(notebook), targets, strict=True):
        nbformat.write(result, target)
    return targets
