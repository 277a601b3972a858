"""Execute the course's notebooks in place, and write their exercises and solutions from `qathelpers.exercises`.

A cell with the metadata `{"exercise": "ch02.q1"}` belongs to this exercise: a markdown cell gets the question, a code
cell the blank and the call that checks it. An exercise without a check has a markdown cell only, which also gets the
folded solution.

Run it as `python -m tools.notebooks PATHS`, or as `make notebooks`.
"""

import ast
import copy
import importlib
from pathlib import Path

import click
import nbformat
from nbclient import NotebookClient
from nbconvert.preprocessors import ClearMetadataPreprocessor, CoalesceStreamsPreprocessor, TagRemovePreprocessor
from nbformat import NotebookNode

from qathelpers.common.errors import CourseError
from qathelpers.exercises.exercise import Exercise

from . import commands

TIMEOUT = 1800  # seconds per cell

# The output of cells with this tag is not saved: we may not distribute the photographs of CIFAR-10.
TAGS_WITHOUT_OUTPUT = {"shows-photographs"}
WIDGET = "application/vnd.jupyter.widget-view+json"  # the MIME type of a widget; progress bars are widgets, too
PREVIEW = "image/png"  # of a widget of the course (see qathelpers.widgets.preview)


def exercise(cell: NotebookNode) -> Exercise | None:
    """Return the exercise that a cell belongs to, or None for any other cell.

    Raises:
        CourseError: If there is no such exercise.
    """
    name = cell.metadata.get("exercise")
    if name is None:
        return None
    chapter, _, question = name.partition(".")
    try:
        return getattr(importlib.import_module(f"qathelpers.exercises.{chapter}"), question)
    except (ImportError, AttributeError) as error:
        raise CourseError(f"A cell has the exercise {name}, which is not in qathelpers/exercises: {error}.") from error


def source(cell: NotebookNode, task: Exercise) -> str:
    """Return the source of a cell that belongs to an exercise: the question, or the blank and its check."""
    if cell.cell_type == "code":
        return fill_in(task, task.blank)
    question = f"**{task.number}.** {task.question}"
    if task.blank:
        return question
    return f"{question}\n\n<details><summary>Solution</summary>\n\n{task.solution_text()}\n\n</details>"


def fill_in(task: Exercise, code: str) -> str:
    """Return the source of an exercise's code cell, with `code` in place of the blank, spaced as ruff formats it."""
    ends_with_block = isinstance(ast.parse(code).body[-1], ast.FunctionDef | ast.ClassDef)
    return code + ("\n\n\n" if ends_with_block else "\n\n") + task.call


def with_exercises(notebook: NotebookNode) -> NotebookNode:
    """Return a copy of `notebook` whose exercises are those of `qathelpers.exercises`."""
    result = copy.deepcopy(notebook)
    for cell in result.cells:
        if task := exercise(cell):
            cell.source = source(cell, task)
    return result


def answers(cell: NotebookNode) -> list[str]:
    """Return code for an exercise's cell: the solution, each typical wrong answer, and the blank again.

    The markdown cell of an exercise with a check has none, because its code cell has them.
    """
    task = exercise(cell)
    if cell.cell_type == "code":
        return [fill_in(task, code) for code in (task.code, *(code for code, _ in task.wrong), task.blank)]
    return [] if task.blank else [task.code]


def answered(notebook: NotebookNode, wrong: bool = False) -> NotebookNode:
    """Return a copy of `notebook` in which each exercise is followed by a cell with its solution.

    Args:
        notebook: A notebook of the course.
        wrong: Whether the solution is followed by cells with the typical wrong answers, and with the blank again.
    """
    result = with_exercises(notebook)
    cells, result.cells = result.cells, []
    for cell in cells:
        result.cells.append(cell)
        if exercise(cell):
            for number, code in enumerate(answers(cell) if wrong else answers(cell)[:1]):
                new = nbformat.v4.new_code_cell(code, id=f"{cell.id}-answer{number}", metadata={"answer": number})
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
        if task := exercise(cell):
            why = f"\n\n{task.explanation}" if task.explanation else ""
            cell.source = f"**{task.number}.** {task.question}{why}"
        if cell.cell_type == "markdown":  # the solutions are one folder further down
            cell.source = cell.source.replace("](../", "](../../")
        cell.metadata.pop("exercise", None)
    return clean(course), clean(solved)


def clean(notebook: NotebookNode) -> NotebookNode:
    """Return `notebook` without photographs, widgets and execution times; its code cells are numbered from 1."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            # This comes before the streams are merged; otherwise a progress bar would split the text around it in two.
            cell.outputs = [output for output in map(without_widget, cell.outputs) if output]
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


def without_widget(output: NotebookNode) -> NotebookNode | None:
    """Remove the live widget from an output, which keeps its preview; return None if there is no preview."""
    data = output.get("data", {})
    is_widget = data.pop(WIDGET, None) is not None
    return None if is_widget and PREVIEW not in data else output


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
