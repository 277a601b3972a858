"""Build the course's website from the pages, the notebooks' stored outputs and the docstrings, without a network.

Run it as `python -m tools.site`, or as `make site`; it needs the extra "site". `docs/conf.py` has Sphinx's settings.
"""

import base64
import copy
import html
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import nbformat
from nbformat import NotebookNode

from qathelpers.common.errors import CourseError

from . import badges, commands
from .commands import CHECKOUT

PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CODE_OF_CONDUCT.md", "data/README.md")
FILES = ("LICENSE", "LICENSE-CC-BY-4.0", "CITATION.cff", "constraints.txt")  # offered for download
ROOMS = ("common", "data", "nets", "training", "results", "analysis", "exercises", "deploy", "widgets")
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
FENCED = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)
DOCS = (
    "install",
    "colab",
    "terminal",
    "questions",
    "results",
    "results/gpu",
    "results/ablations",
    "results/deployment",
    "scaling",
)


def build(root: Path, target: Path) -> Path:
    """Build the site of the checkout `root` into the folder `target`.

    Returns:
        The first page.

    Raises:
        CourseError: If Sphinx is missing, or if it reports an error or a warning.
    """
    source, pages = target / "source", target / "html"
    shutil.rmtree(target, ignore_errors=True)
    collect(root, source)
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet"]
    ended = subprocess.run([*command, "-c", str(root / "docs"), "-b", "html", str(source), str(pages)])
    if ended.returncode:
        raise CourseError(
            "Sphinx could not build the site (see above). If it is missing, run "
            '`python -m pip install -e ".[site]"` in the folder of the course.'
        )
    return pages / "index.html"


def collect(root: Path, source: Path) -> None:
    """Write the pages for Sphinx into the folder `source`, in the same folders as in the checkout."""
    rewrite = _link_writer(root, badges.address(root))
    for path in [*(root / page for page in PAGES), *root.glob("docs/**/*.md"), root / "notebooks" / "INSTRUCTORS.md"]:
        name = path.relative_to(root).as_posix()
        text = rewrite(path.read_text(encoding="utf-8"), path.parent)
        _write(
            source / ("index.md" if name == "README.md" else name),
            text + (_contents(root) if name == "README.md" else ""),
        )
    for path in sorted((root / "notebooks").rglob("[0-9]*.ipynb")):
        notebook = with_alternative_texts(nbformat.read(path, as_version=4))
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = rewrite(cell.source, path.parent)
        _write(source / path.relative_to(root), nbformat.writes(notebook))
    for path in [*(root / file for file in FILES), *root.glob("docs/**/*.svg"), *root.glob("docs/**/*.csv")]:
        (source / path.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, source / path.relative_to(root))
    for room in ROOMS:
        _write(source / "api" / f"{room}.rst", api(root, room))


def with_alternative_texts(notebook: NotebookNode) -> NotebookNode:
    """Return a copy of `notebook` whose pictures are HTML, because Sphinx drops their alternative texts otherwise."""
    result = copy.deepcopy(notebook)
    for output in (output for cell in result.cells for output in cell.get("outputs", [])):
        png = output.get("data", {}).pop("image/png", None)
        if png is None:
            continue
        alt = html.escape(output.metadata.get("image/png", {}).get("alt", ""), quote=True)
        encoded = base64.b64encode(base64.b64decode(png)).decode()  # without line breaks
        output.data["text/html"] = f'<img class="figure" alt="{alt}" src="data:image/png;base64,{encoded}">'
    return result


def api(root: Path, room: str) -> str:
    """Return the page of a room of the package: its docstring and those of its modules."""
    folder = root / "qathelpers" / room
    names = [f"qathelpers.{room}"]
    for path in sorted(folder.rglob("*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        if not name.endswith("__init__"):
            names.append(name)
    parts = [f"qathelpers.{room}", "=" * len(f"qathelpers.{room}"), ""]
    for number, name in enumerate(names):
        if number:
            title = name.removeprefix(f"qathelpers.{room}.")
            parts += ["", title, "-" * len(title), ""]
        parts.append(f".. automodule:: {name}" + ("\n   :members:" if number else ""))
    return "\n".join(parts) + "\n"


def _link_writer(root: Path, address: str) -> Callable[[str, Path], str]:
    """Return a function that makes the links of a page in `folder` lead to a page of the site.

    A link to code leads to the page of its room. A link to another file leads to the repository or, without an address,
    is replaced by its text.
    """

    def target(match: re.Match, folder: Path) -> str:
        picture, text, link = match.groups()
        name, _, anchor = link.partition("#")
        if picture or not name or re.match(r"[a-z]+:", name):
            return match[0]
        path = (folder / name).resolve().relative_to(root.resolve())
        if path == Path("README.md"):
            new = "index.md"
        elif path.parts[0] == "qathelpers":
            new = f"api/{path.parts[1]}.rst" if len(path.parts) > 1 and path.parts[1] in ROOMS else "api/common.rst"
        elif path.parts[:2] == ("notebooks", "solutions") and len(path.parts) == 2:
            new = "notebooks/solutions/00_start_here.ipynb"
        elif path.suffix in (".md", ".ipynb", ".csv") or path.as_posix() in FILES:
            return match[0]
        elif not address:
            return text
        else:
            return f"[{text}]({address}/tree/main/{path.as_posix()})"
        return (
            f"[{text}]({_relative(new, folder.resolve().relative_to(root.resolve()))}{'#' + anchor if anchor else ''})"
        )

    def rewrite(markdown: str, folder: Path) -> str:
        parts = FENCED.split(markdown)  # every second part is a code block
        parts[::2] = [LINK.sub(lambda match: target(match, folder), part) for part in parts[::2]]
        return "".join(parts)

    return rewrite


def _relative(target: str, folder: Path) -> str:
    return Path(os.path.relpath(target, folder)).as_posix()


def _contents(root: Path) -> str:
    """Return the tables of contents that the sidebar shows."""
    chapters = sorted(path.stem for path in (root / "notebooks").glob("[0-9]*.ipynb"))
    parts = {
        "Notebooks": [f"notebooks/{name}" for name in chapters],
        "Pages": [*(f"docs/{name}" for name in DOCS), "notebooks/INSTRUCTORS", "CONTRIBUTING", "CHANGELOG"],
        "Solutions": [f"notebooks/solutions/{name}" for name in chapters],
        "Package": [f"api/{room}" for room in ROOMS],
        "More": ["data/README", "CODE_OF_CONDUCT"],
    }
    tables = (
        "\n".join(["```{toctree}", ":hidden:", f":caption: {title}", "", *names, "```"])
        for title, names in parts.items()
    )
    return "\n" + "\n\n".join(tables) + "\n"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@click.command(cls=commands.Command)
def main() -> None:
    """Build the course's website into build/site/html."""
    print("saved", build(CHECKOUT, CHECKOUT / "build" / "site"))


if __name__ == "__main__":
    main()
