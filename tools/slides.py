"""Make a page of slides from each notebook, with its stored outputs: `python -m tools.slides`, or `make slides`.

A section becomes a slide, and each code cell with its output becomes a slide below it. A tag of a cell changes this:
"slides:slide", "slides:subslide", "slides:fragment", "slides:notes" or "slides:skip".
"""

import copy
import re
from pathlib import Path

import click
import nbformat
from nbconvert import SlidesExporter
from nbformat import NotebookNode

from qathelpers.common.errors import CourseError

from . import commands, site
from .notebooks import TAGS_WITHOUT_OUTPUT

PREFIX = "slides:"
KINDS = ("slide", "subslide", "fragment", "notes", "skip")
IMPORTS = re.compile(r"(?:(?:from [^\n]+ )?import [^\n]+\n*)+")
LEFT_OUT = ("## Exercises", "## Further reading")  # sections that are read alone
PROSE = 500  # characters; longer text is for the speaker


def with_slides(notebook: NotebookNode) -> NotebookNode:
    """Return a copy of `notebook` whose cells say which kind of slide they are.

    Raises:
        CourseError: If a tag names an unknown kind of slide.
    """
    result = copy.deepcopy(notebook)
    left_out = False
    for number, cell in enumerate(result.cells):
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            left_out = cell.source.startswith(LEFT_OUT)
        rule = "skip" if left_out or number == 1 else _kind(cell)  # the cell with number 1 is the setup cell
        cell.metadata["slideshow"] = {"slide_type": _tagged(cell) or rule}
    return result


def _kind(cell: NotebookNode) -> str:
    if cell.cell_type == "code":
        nothing_to_show = TAGS_WITHOUT_OUTPUT & set(cell.metadata.get("tags", [])) or IMPORTS.fullmatch(cell.source)
        return "skip" if nothing_to_show or "exercise" in cell.metadata else "subslide"
    if cell.source.startswith(("# ", "## ")):
        return "slide"
    if cell.source.startswith("### "):
        return "subslide"
    return "notes" if len(cell.source) > PROSE else "-"  # "-" continues the slide before


def _tagged(cell: NotebookNode) -> str:
    kinds = [tag.removeprefix(PREFIX) for tag in cell.metadata.get("tags", []) if tag.startswith(PREFIX)]
    for kind in kinds:
        if kind not in KINDS:
            raise CourseError(
                f"A cell has the tag {PREFIX}{kind}: choose one of {', '.join(PREFIX + k for k in KINDS)}."
            )
    return kinds[0] if kinds else ""


def convert(path: Path, folder: Path, libraries: Path | None = None) -> Path:
    """Write the slides of the notebook at `path` into `folder`.

    Args:
        path: A notebook of the course.
        folder: The folder of the slides; it is created.
        libraries: The folder node_modules with reveal.js, requirejs, jquery and mathjax; without it, the page loads
            them from the network.

    Returns:
        The page that was written.
    """
    without_prompts = {"exclude_input_prompt": True, "exclude_output_prompt": True}
    exporter = SlidesExporter(reveal_scroll=True, reveal_number="c/t", **without_prompts)
    if libraries:
        there = libraries.resolve().as_uri()
        exporter.reveal_url_prefix = f"{there}/reveal.js"
        exporter.require_js_url = f"{there}/requirejs/require.js"
        exporter.jquery_url = f"{there}/jquery/dist/jquery.js"
        exporter.mathjax_url = f"{there}/mathjax/MathJax.js?config=TeX-AMS_CHTML-full"
    notebook = with_slides(site.with_alternative_texts(nbformat.read(path, as_version=4)))
    page, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": path.stem}})
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{path.stem}.slides.html"
    target.write_text(page, encoding="utf-8")
    return target


@click.command(cls=commands.Command)
@click.argument("paths", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--libraries",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder node_modules with reveal.js, requirejs, jquery and mathjax. Default: load them from the network.",
)
def main(paths: tuple[Path, ...], libraries: Path | None) -> None:
    """Write the slides of the notebooks at PATHS (default: all) into build/slides."""
    for path in paths or sorted((commands.CHECKOUT / "notebooks").glob("[0-9]*.ipynb")):
        print("saved", convert(path, commands.CHECKOUT / "build" / "slides", libraries))


if __name__ == "__main__":
    main()
