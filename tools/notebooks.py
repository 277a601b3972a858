"""Execute the course's notebooks in place, and write their solutions from the same source.

An exercise is a cell with the metadata `{"exercise": {"solution": code, "wrong": [[code, hint], ...]}}`. In a code
cell, the reader replaces the lines up to the first empty line (the blank); the check below the blank stays as it is. A
markdown cell poses a task without a check; its solution is code whose output answers the task.

Run it as `python -m tools.notebooks PATHS`, or as `make notebooks`.
"""

import copy
from pathlib import Path

import click
import nbformat
from nbclient import NotebookClient
from nbconvert.preprocessors import ClearMetadataPreprocessor, CoalesceStreamsPreprocessor, TagRemovePreprocessor
from nbformat import NotebookNode

from qathelpers.common.errors import CourseError

from . import commands

TIMEOUT = 1800  # seconds per cell

# The output of cells with these tags is not saved: we may not distribute the photographs of CIFAR-10, and a widget
# shows nothing without a running kernel.
TAGS_WITHOUT_OUTPUT = {"shows-photographs", "shows-a-widget"}
WIDGET = "application/vnd.jupyter.widget-view+json"  # the MIME type of a widget; progress bars are widgets, too


def exercise(cell: NotebookNode) -> dict | None:
    """Return the solution and the typical wrong answers of an exercise, or None for any other cell."""
    return cell.metadata.get("exercise")


def fill_in(cell: NotebookNode, code: str) -> str:
    """Return the source of an exercise's code cell, with `code` in place of the blank."""
    _, check = cell.source.split("\n\n", 1)
    return f"{code}\n\n{check}"


def answers(cell: NotebookNode) -> list[str]:
    """Return the source of an exercise's cell once per answer: first with the solution, then with each wrong answer."""
    task = exercise(cell)
    if cell.cell_type == "markdown":
        return [task["solution"]]
    return [fill_in(cell, code) for code in (task["solution"], *(code for code, _ in task["wrong"]))]


def answered(notebook: NotebookNode, wrong: bool = False) -> NotebookNode:
    """Return a copy of `notebook` in which each exercise is followed by a cell with its solution.

    Args:
        notebook: A notebook of the course.
        wrong: Whether the solution is followed by cells with the typical wrong answers.
    """
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
    """Run all cells of `notebook` in `folder`.

    Raises:
        nbclient.exceptions.CellExecutionError: At the first cell that raises an error.
    """
    NotebookClient(
        notebook, timeout=TIMEOUT, store_widget_state=False, resources={"metadata": {"path": str(folder)}}
    ).execute()


def split(notebook: NotebookNode) -> tuple[NotebookNode, NotebookNode]:
    """Split a notebook that was `answered` and executed into the course's notebook and its solutions."""
    course, solved = copy.deepcopy(notebook), copy.deepcopy(notebook)
    course.cells = [cell for cell in course.cells if "answer" not in cell.metadata]
    solved.cells = [cell for cell in solved.cells if not (cell.cell_type == "code" and exercise(cell))]
    opening = solved.cells[0].source.replace("\n", ": solutions\n", 1)
    solved.cells[0].source = opening.replace("/notebooks/", "/notebooks/solutions/")  # in the badge, if there is one
    for cell in solved.cells:
        cell.metadata.pop("exercise", None)
    return clean(course), clean(solved)


def clean(notebook: NotebookNode) -> NotebookNode:
    """Return `notebook` without photographs, widgets and execution times; its code cells are numbered from 1."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            # This comes before the streams are merged; otherwise a progress bar would split the text around it in two.
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
    for preprocessor in (
        ClearMetadataPreprocessor(clear_notebook_metadata=False, preserve_cell_metadata_mask={"tags", "exercise"}),
        CoalesceStreamsPreprocessor(),
        TagRemovePreprocessor(enabled=True, remove_all_outputs_tags=TAGS_WITHOUT_OUTPUT),
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
    """Execute the notebook at `path` in place and write its solutions into the folder solutions/ beside it.

    Returns:
        The two files that were written.

    Raises:
        CourseError: If the file is not a notebook.
    """
    try:
        notebook = answered(nbformat.read(path, as_version=4))
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, UnicodeDecodeError) as error:
        raise CourseError(f"{path} is not a notebook: pass files that end in .ipynb.") from error
    execute(notebook, path.parent)
    targets = [path, path.parent / "solutions" / path.name]
    targets[1].parent.mkdir(exist_ok=True)
    for result, target in zip(split(notebook), targets, strict=True):
        nbformat.write(result, target)
    return targets


@click.command(cls=commands.Command)
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(paths: tuple[Path, ...]) -> None:
    """Execute the notebooks at PATHS in place, and write their solutions into solutions/ beside them."""
    for path in paths:
        print("saved", *refresh(path))


if __name__ == "__main__":
    main()
