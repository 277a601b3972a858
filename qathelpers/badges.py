"""The repository's address, which stands in pyproject.toml alone, written to where readers open the course from it.

That is the setup cell of every notebook, from which Colab installs the package, and the badges that open Colab.
"""

import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from .errors import CourseError
from .files import write_atomically

IMAGE = "https://colab.research.google.com/assets/colab-badge.svg"
COLAB = "https://colab.research.google.com/github"  # Colab opens notebooks from GitHub alone
BRANCH = "main"
BADGE = r"\[!\[Open in Colab\]\([^)\s]*\)\]\([^)\s]*\)"


def address(root: Path) -> str:
    """Return the repository's address in the pyproject.toml of `root`, or an empty string where none is set.

    Raises CourseError when it is no address, or where Python cannot read that file.
    """
    try:
        import tomllib  # not at the top: Python 3.10 has none
    except ImportError as error:
        raise CourseError(
            "`make badges` needs Python 3.11 or newer: make clean, then make PYTHON=python3.12."
        ) from error
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    url = project.get("urls", {}).get("Repository", "").rstrip("/").removesuffix(".git")
    if url and not re.fullmatch(r"https://[\w./~:@-]+", url):
        raise CourseError(f'{url!r} in pyproject.toml is no address: Repository = "https://github.com/OWNER/REPO".')
    return url


def badge(address: str, path: str) -> str:
    """Return the Markdown of a badge that opens the notebook at `path` on Colab; empty unless GitHub has it."""
    github = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+)", address)
    return f"[![Open in Colab]({IMAGE})]({COLAB}/{github[1]}/blob/{BRANCH}/{path})" if github else ""


def update(root: Path) -> list[Path]:
    """Write the address into the notebooks, their solutions and the README of `root`; return the files that changed.

    Raises CourseError as `address` does, and when a notebook has no place for the address.
    """
    url = address(root)
    texts = {root / "README.md": _readme((root / "README.md").read_text(), url)}
    for path in sorted((root / "notebooks").rglob("[0-9]*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        _fill(notebook, url, path.relative_to(root).as_posix())
        texts[path] = nbformat.writes(notebook) + "\n"
    changed = [path for path, text in texts.items() if path.read_text() != text]
    for path in changed:
        write_atomically(path, lambda temporary, path=path: temporary.write_text(texts[path]))
    return changed


def _readme(text: str, url: str) -> str:
    """Return the README's text with a badge behind each notebook in a table's first column."""

    def row(match: re.Match) -> str:
        return f"{match[1]} {badge(url, match[2])}".rstrip()

    return re.sub(rf"^(\| \[\w+\]\((notebooks/\w+\.ipynb)\))(?: {BADGE})?", row, text, flags=re.MULTILINE)


def _fill(notebook: NotebookNode, url: str, path: str) -> None:
    """Put the badge under the title, and the address into the setup cell."""
    opening = notebook.cells[0]
    title, rest = re.sub(rf"{BADGE}\n\n", "", opening.source).split("\n\n", 1)
    opening.source = "\n\n".join(part for part in (title, badge(url, path), rest) if part)
    setup = next(cell for cell in notebook.cells if cell.cell_type == "code")
    setup.source, count = re.subn(r'^ADDRESS = "[^"]*"', f'ADDRESS = "{url}"', setup.source, flags=re.MULTILINE)
    if count != 1:
        raise CourseError(f'{path} has no line ADDRESS = "" in its setup cell: copy that of another notebook.')
