"""Write files so that a reader never meets half of one."""

import contextlib
import glob
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from . import settings
from .errors import CourseError


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it into place.

    A reader, or a process killed at any moment, finds the old content or the new one, never a part.
    Raises CourseError when the folder cannot be written or the disk is full; what stood at `path` is kept.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        write(Path(temporary))
        with contextlib.suppress(OSError):  # not every mounted drive has permissions to change
            os.chmod(temporary, 0o644)  # mkstemp's 0600 would hide the file from others who share the folder
        os.replace(temporary, path)
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        if temporary:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


def remove_leftovers(path: Path) -> None:
    """Remove what processes that were killed while they wrote `path` left; for whoever alone may write it."""
    for temporary in path.parent.glob(f".{glob.escape(path.name)}.????????"):  # mkstemp's names
        with contextlib.suppress(OSError):
            temporary.unlink()


def check_writable(folder: Path) -> None:
    """Make `folder` if need be; raises CourseError when files cannot be written there, before any work is lost."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise _not_written(folder, error) from error


def _not_written(path: Path, error: OSError) -> CourseError:
    variable = "QAT_CACHE_DIR" if path.is_relative_to(settings.cache_dir()) else "QAT_RESULTS_DIR"
    return CourseError(
        f"{path} could not be written ({error.strerror or error}): free some space, or set {variable} to a folder that "
        "you may write to."
    )
