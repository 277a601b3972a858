"""Write files so that no reader ever finds an incomplete one."""

import contextlib
import glob
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from . import settings
from .errors import CourseError


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file completely or not at all.

    `write` fills a temporary file in the same folder, which is then renamed. A reader of `path` finds either the old
    content or the new content, never a part of it, even if this process is killed while it is writing.

    Args:
        path: The file to write. Missing folders are created.
        write: Called with the path of the temporary file.

    Raises:
        CourseError: If the folder cannot be written or the disk is full; the old content is kept.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        write(Path(temporary))
        with contextlib.suppress(OSError):  # some mounted drives do not support permissions
            os.chmod(temporary, 0o644)  # mkstemp's 0600 would keep other users of a shared folder out
        os.replace(temporary, path)
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        if temporary:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files of processes that were killed while they wrote `path`.

    Call this only while no other process can be writing `path`.
    """
    for temporary in path.parent.glob(f".{glob.escape(path.name)}.????????"):  # mkstemp adds 8 characters
        with contextlib.suppress(OSError):
            temporary.unlink()


def check_writable(folder: Path) -> None:
    """Check that files can be written to `folder`, before any work could be lost; create the folder if it is missing.

    Raises:
        CourseError: If no files can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise _not_written(folder, error) from error


def _not_written(path: Path, error: OSError) -> CourseError:
    variable = "QAT_CACHE_DIR" if path.is_relative_to(settings.cache_dir()) else "QAT_RESULTS_DIR"
    return CourseError(
        f"{path} could not be written ({error.strerror or error}): free some disk space, or set {variable} to a folder "
        "with write permission."
    )
