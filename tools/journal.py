"""Replace several files together: after an error or a kill, all of them get back the content that they had before."""

import contextlib
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from qathelpers.common import locks
from qathelpers.common.errors import CourseError
from qathelpers.common.files import remove_leftovers, unreadable, write_atomically

# Folders in the journal: the content of files that existed, and empty entries for files that did not.
OLD, MISSING = "old/", "missing/"


@contextlib.contextmanager
def replaced_together(paths: Sequence[Path], journal: Path) -> Iterator[None]:
    """Let the body of the `with` statement replace `paths`: all of them, or, if it fails, none.

    While the body runs, the old content is kept in the file `journal`. If the process is killed, the journal stays, and
    `undo` restores what was there. Call `undo` first.

    Args:
        paths: The files, in the folder of the journal or in folders inside it. They need not exist.
        journal: The file for the old content.

    Raises:
        CourseError: If the journal cannot be written, or if another process is replacing files, or was killed while it
            did so.
    """
    with _locked(journal):
        if journal.exists():  # a new one would keep the files that the killed process left half-replaced
            raise CourseError(f"Replacing files was interrupted, and {journal} has their old content: try again.")
        for path in (*paths, journal):
            remove_leftovers(path)
        write_atomically(journal, lambda file: _keep(paths, journal.parent, file))
        try:
            yield
        except BaseException:
            _restore(journal)
            raise
        journal.unlink()


def undo(journal: Path) -> list[Path]:
    """Undo what a killed process had begun in `replaced_together`, and return the files that have their old content.

    Raises:
        CourseError: If the journal or one of its files cannot be read or written, or if the other process is still
            running.
    """
    if not journal.exists():
        return []
    with _locked(journal):
        return _restore(journal) if journal.exists() else []


@contextlib.contextmanager
def _locked(journal: Path) -> Iterator[None]:
    try:
        with locks.hold(journal.with_name(f"{journal.name}.lock")):
            yield
    except locks.Busy as holder:
        raise CourseError(
            f"{journal.parent} is being changed by {holder}: wait until it has finished, or stop it."
        ) from holder


def _keep(paths: Sequence[Path], folder: Path, file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for path in paths:
            name = path.relative_to(folder).as_posix()
            archive.writestr(*((OLD + name, path.read_bytes()) if path.exists() else (MISSING + name, b"")))


def _restore(journal: Path) -> list[Path]:
    """Give the files in the journal their old content, and remove the journal when all of them have it."""
    try:
        with zipfile.ZipFile(journal) as archive:
            contents = {name: archive.read(name) for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile) as error:
        raise unreadable(journal, error) from error
    paths = []
    for name, content in contents.items():
        path = journal.parent / name.removeprefix(OLD).removeprefix(MISSING)
        remove_leftovers(path)
        put_back(path, None if name.startswith(MISSING) else content)
        paths.append(path)
    journal.unlink()
    return paths


def put_back(path: Path, content: bytes | None) -> None:
    """Give a file its old content, unless it still has it; None if there was no file."""
    if content is None:
        path.unlink(missing_ok=True)
    elif not path.exists() or path.read_bytes() != content:
        write_atomically(path, lambda file: file.write_bytes(content))
