"""Copy the repository's address from pyproject.toml to the places from which readers open the course.

These are the setup cell of every notebook, which installs the package on Colab, and the badges that open a notebook on
Colab. Run it as `python -m tools.badges`, or as `make badges`.
"""

import re
from pathlib import Path

import click
import nbformat
from nbformat import NotebookNode

from qathelpers.common.errors import CourseError
from qathelpers.common.files import write_atomically

from . import commands

IMAGE = "https://colab.research.google.com/assets/colab-badge.svg"
COLAB = "https://colab.research.google.com/github"  # Colab opens notebooks from GitHub only
BRANCH = "main"
BADGE = r"\[!\[Open in Colab\]\([^)\s]*\)\]\([^)\s]*\)"


def address(root: Path) -> str:
    """Return the repository's address in the pyproject.toml of `root`, or an empty string if there is none.

    Raises:
        CourseError: If the address is not a URL, or if this Python cannot read TOML files.
    """
    try:
        import tomllib  # not at the top: Python 3.10 does not have it
    except ImportError as error:
        raise CourseError(
            "`make badges` needs Python 3.11 or newer: run `make clean`, then `make badges PYTHON=python3.12`."
        ) from error
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    url = project.get("urls", {}).get("Repository", "").rstrip("/").removesuffix(".git")
    if url and not re.fullmatch(r"https://[\w./~:@-]+", url):
        raise CourseError(
            f"The repository's address in pyproject.toml, {url!r}, is not a URL: write it as Repository = "
            '"https://github.com/OWNER/REPO".'
        )
    return url


def badge(address: str, path: str) -> str:
    """Return the Markdown of a badge that opens the notebook at `path` on Colab, or "" for another host than GitHub."""
    github = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+)", address)
    return f"[![Open in Colab]({IMAGE})]({COLAB}/{github[1]}/blob/{BRANCH}/{path})" if github else ""


def update(root: Path) -> list[Path]:
    """Write the address into the notebooks, their solutions and the README of `root`.

    Returns:
        The files that changed.

    Raises:
        CourseError: In the cases that `address` names, and if the setup cell of a notebook has no line for the address.
    """
    url = address(root)
    texts = {root / "README.md": _add_badges((root / "README.md").read_text(), url)}
    for path in sorted((root / "notebooks").rglob("[0-9]*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        _fill_in(notebook, url, path.relative_to(root).as_posix())
        texts[path] = nbformat.writes(notebook) + "\n"
    changed = [path for path, text in texts.items() if path.read_text() != text]
    for path in changed:
        write_atomically(path, lambda temporary, path=path: temporary.write_text(texts[path]))
    return changed


def _add_badges(text: str, url: str) -> str:
    """Return the README's text with a badge after each link to a notebook in the first column of a table."""

    def row(match: re.Match) -> str:
        return f"{match[1]} {badge(url, match[2])}".rstrip()

    return re.sub(rf"^(\| \[\w+\]\((notebooks/\w+\.ipynb)\))(?: {BADGE})?", row, text, flags=re.MULTILINE)


def _fill_in(notebook: NotebookNode, url: str, path: str) -> None:
    """Put the badge below the title, and the address into the setup cell."""
    opening = notebook.cells[0]
    title, rest = re.sub(rf"{BADGE}\n\n", "", opening.source).split("\n\n", 1)
    opening.source = "\n\n".join(part for part in (title, badge(url, path), rest) if part)
    setup = next(cell for cell in notebook.cells if cell.cell_type == "code")
    setup.source, count = re.subn(r'^ADDRESS = "[^"]*"', f'ADDRESS = "{url}"', setup.source, flags=re.MULTILINE)
    if count != 1:
        raise CourseError(
            f'The setup cell of {path} has no line ADDRESS = "": copy the setup cell of another notebook into it.'
        )


@click.command(cls=commands.Command)
@click.option("--root", type=click.Path(path_type=Path), default=commands.CHECKOUT, help="Default: this checkout.")
def main(root: Path) -> None:
    """Copy the repository's address from pyproject.toml into the notebooks and the README."""
    changed = update(root)
    print("saved", *(path.relative_to(root) for path in changed)) if changed else print("everything is up to date")


if __name__ == "__main__":
    main()
