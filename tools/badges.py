"""Copy the repository's address and the version to the places from which readers open the course.

These are the setup cell of every notebook, which installs the package on Colab, and the badges that open a notebook on
Colab. Run it as `python -m tools.badges`, or as `make badges`.
"""

import re
import shutil
import subprocess
from pathlib import Path

import click
import nbformat
from nbformat import NotebookNode

from qathelpers.common.errors import CourseError
from qathelpers.common.files import write_atomically

from . import commands

IMAGE = "https://colab.research.google.com/assets/colab-badge.svg"
COLAB = "https://colab.research.google.com/github"  # Colab opens notebooks from GitHub only
BADGE = r"\[!\[Open in Colab\]\([^)\s]*\)\]\([^)\s]*\)"
WEB = r"https://[\w./~:-]+"

# A checkout of an older version may import a newer wheel without an error and then compute something else. Therefore
# the cell takes the wheel and the tag of its own version only.
TITLE = "# Setup, the same in every notebook"
SETUP = (
    TITLE
    + """
import os
import sys
from glob import glob

ADDRESS = "<address>"  # of the course's repository; `make badges` writes this cell
WHEEL = "qathelpers-<version>-py3-none-any.whl"  # of the course; `make wheel` makes it
DRIVE = "/content/drive/MyDrive"
try:
    import qathelpers
except ImportError as error:
    places = (".", DRIVE, f"{DRIVE}/*", "/kaggle/input/**")
    found = [f for place in places for f in glob(f"{place}/{WHEEL}", recursive=True)]
    cloud = "google.colab" in sys.modules or "KAGGLE_KERNEL_RUN_TYPE" in os.environ
    if not found and not (ADDRESS and cloud):
        raise SystemExit(
            "The course is not installed here: open it with `make lab` or `qat lab`, "
            f"or put {WHEEL} beside this notebook and run this cell again."
        ) from error
    source = found[0] if found else f"git+{ADDRESS}@v<version>"
    %pip install --quiet "{source}"
    import qathelpers
qathelpers.setup()"""
)


def project(root: Path) -> dict:
    """Return the table [project] of the pyproject.toml of `root`.

    Raises:
        CourseError: If this Python cannot read TOML files.
    """
    try:
        import tomllib  # not at the top: Python 3.10 does not have it
    except ImportError as error:
        raise CourseError(
            "`make badges` needs Python 3.11 or newer: run `make clean`, then `make badges PYTHON=python3.12`."
        ) from error
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def address(root: Path) -> str:
    """Return the repository's address: from pyproject.toml, else from the remote of the checkout `root`, else "".

    Raises:
        CourseError: If the address in pyproject.toml is not a URL, or if this Python cannot read TOML files.
    """
    url = _trimmed(project(root).get("urls", {}).get("Repository", ""))
    if url and not re.fullmatch(WEB, url):
        raise CourseError(
            f"The repository's address in pyproject.toml, {url!r}, is not a URL: write it as Repository = "
            '"https://github.com/OWNER/REPO".'
        )
    return url or remote(root)


def remote(root: Path) -> str:
    """Return the https address of the remote "origin" of the checkout `root`, without user and password; "" if none."""
    if shutil.which("git") is None or not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "config", "--get", "remote.origin.url"]
    url = _trimmed(subprocess.run(command, capture_output=True, text=True).stdout)
    url = re.sub(r"^(?:ssh://)?git@([\w.-]+)[:/]", r"https://\1/", url)
    url = re.sub(r"^https://[^/@]*@", "https://", url)
    return url if re.fullmatch(WEB, url) else ""


def _trimmed(url: str) -> str:
    return url.strip().rstrip("/").removesuffix(".git")


def badge(address: str, version: str, path: str) -> str:
    """Return the Markdown of a badge that opens a version of a notebook on Colab; "" for another host than GitHub."""
    github = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+)", address)
    return f"[![Open in Colab]({IMAGE})]({COLAB}/{github[1]}/blob/v{version}/{path})" if github else ""


def update(root: Path) -> list[Path]:
    """Write the address and the version into the notebooks, their solutions and the README of `root`.

    Returns:
        The files that changed.

    Raises:
        CourseError: In the cases that `address` names, and if a notebook does not begin with the setup cell.
    """
    url, version = address(root), project(root)["version"]
    old = {root / "README.md": (root / "README.md").read_text(encoding="utf-8")}
    texts = {path: _add_badges(text, url, version) for path, text in old.items()}
    for path in sorted((root / "notebooks").rglob("[0-9]*.ipynb")):
        old[path] = path.read_text(encoding="utf-8")
        notebook = nbformat.reads(old[path], as_version=4)
        _fill_in(notebook, url, version, path.relative_to(root).as_posix())
        texts[path] = nbformat.writes(notebook) + "\n"
    changed = [path for path, text in texts.items() if old[path] != text]
    for path in changed:
        write_atomically(path, lambda temporary, path=path: temporary.write_text(texts[path], encoding="utf-8"))
    return changed


def _add_badges(text: str, url: str, version: str) -> str:
    """Return the README's text with a badge after each link to a notebook in the first column of a table."""

    def row(match: re.Match) -> str:
        return f"{match[1]} {badge(url, version, match[2])}".rstrip()

    return re.sub(rf"^(\| \[\w+\]\((notebooks/\w+\.ipynb)\))(?: {BADGE})?", row, text, flags=re.MULTILINE)


def _fill_in(notebook: NotebookNode, url: str, version: str, path: str) -> None:
    """Put the badge below the title, and the address and the version into the setup cell."""
    opening = notebook.cells[0]
    title, rest = re.sub(rf"{BADGE}\n\n", "", opening.source).split("\n\n", 1)
    opening.source = "\n\n".join(part for part in (title, badge(url, version, path), rest) if part)
    setup = next(cell for cell in notebook.cells if cell.cell_type == "code")
    if not setup.source.startswith(TITLE):
        raise CourseError(
            f"The first code cell of {path} is not the setup cell: insert a cell with the line {TITLE!r}."
        )
    setup.source = SETUP.replace("<address>", url).replace("<version>", version)


@click.command(cls=commands.Command)
@click.option("--root", type=click.Path(path_type=Path), default=commands.CHECKOUT, help="Default: this checkout.")
def main(root: Path) -> None:
    """Copy the repository's address and the version into the notebooks and the README."""
    changed = update(root)
    print("saved", *(path.relative_to(root) for path in changed)) if changed else print("everything is up to date")


if __name__ == "__main__":
    main()
