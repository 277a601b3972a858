"""Write files so that a reader never meets half of one."""

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

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
        os.chmod(temporary, 0o644)  # mkstemp's 0600 would hide the file from others who share the folder
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk in its own way
        reason = getattr(error, "strerror", None) or error
        raise CourseError(
            f"{path} could not be written ({reason}): free some space, or set QAT_RESULTS_DIR to a folder that you may "
            "write to."
        ) from error
    finally:
        if temporary:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
