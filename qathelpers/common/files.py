"""Write files so that no reader ever finds an incomplete one, and say what is wrong with a file that cannot be read."""

import contextlib
import errno
import glob
import os
import stat
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from . import settings
from .errors import NO_MEMORY, CourseError, check_type, is_out_of_memory

# What to do first about a path that could not be written, by the numbers of the errors.
ADVICE = {
    (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)): "free some disk space, or ",
    (errno.ENAMETOOLONG,): "choose a shorter name, or ",
    (errno.EEXIST, errno.ENOTDIR): "a part of the path is a file, so choose another path, or ",
    (errno.EISDIR,): "it is a folder, so choose another name, or ",
}
ABANDONED = 3600.0  # seconds since its last change after which a temporary file counts as abandoned
START = 512  # bytes of a file that tell its format

# Formats of other programs, by the first bytes of a file.
SIGNATURES = {
    b"\x93NUMPY": "a NumPy array (.npy)",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file, as Keras and MATLAB write",
    b"GGUF": "a GGUF file",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"%PDF": "a PDF document",
    b"\x1f\x8b": "a gzip archive, which has to be unpacked first",
    b"BZh": "a bzip2 archive, which has to be unpacked first",
    b"\xfd7zXZ\x00": "an xz archive, which has to be unpacked first",
    b"\x28\xb5\x2f\xfd": "a zstd archive, which has to be unpacked first",
    b"7z\xbc\xaf": "a 7z archive, which has to be unpacked first",
    b"Rar!": "a RAR archive, which has to be unpacked first",
}
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
PYTORCH = "a PyTorch file (torch.save or pickle)"
SAFETENSORS = "a .safetensors file"


class Unreadable(CourseError):
    """A file exists but cannot be read now, so it must not be replaced."""


class NotWritten(CourseError):
    """A file cannot be written, for example because the disk is full."""


def as_path(name: str, value: object) -> Path:
    """Return the value of the argument `name`, a string or a path, as a `Path`.

    Raises:
        CourseError: If it is neither, or no file can have this name; the message names the argument.
    """
    check_type(name, value, (str, os.PathLike), "a path, such as 'folder/name'")
    path = os.fspath(value)
    if not isinstance(path, str) or "\0" in path:
        raise CourseError(f"{name} is {path!r}: pass a path, such as 'folder/name', without null characters.")
    return Path(path)


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
        remove_leftovers(path, ABANDONED)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        write(Path(temporary))
        with contextlib.suppress(OSError):  # some mounted drives do not support permissions
            os.chmod(temporary, 0o644)  # mkstemp's 0600 would keep other users of a shared folder out
        os.replace(temporary, path)
    except OSError as error:
        raise not_written(path, error) from error
    finally:
        if temporary:
            with contextlib.suppress(OSError):  # this error must not hide why the file was not written
                os.unlink(temporary)


def remove_leftovers(path: Path, older_than: float = 0.0) -> None:
    """Remove the temporary files of processes that were killed while they wrote `path`.

    Args:
        path: The file. If another process may be writing it, pass `older_than`.
        older_than: Keep temporary files that were changed within this number of seconds.
    """
    for temporary in path.parent.glob(f".{glob.escape(path.name)}.????????"):  # mkstemp adds 8 characters
        with contextlib.suppress(OSError):
            if not older_than or time.time() - temporary.stat().st_mtime > older_than:
                temporary.unlink()


def check_writable(folder: Path) -> None:
    """Check that files can be written to `folder`, before any work could be lost; a missing folder is not created.

    Raises:
        CourseError: If no files can be written there.
    """
    try:
        tempfile.TemporaryFile(dir=existing(folder)).close()
    except OSError as error:
        raise not_written(folder, error) from error


def existing(folder: Path) -> Path:
    """Return `folder`, or the closest folder above it that exists."""
    return next((place for place in (folder, *folder.parents) if os.path.exists(place)), Path(os.curdir))


def set_aside(path: Path) -> Path | None:
    """Rename a damaged file, so that another one can take its place; return its new path, or None if that failed."""
    aside = path.with_name(f"{path.name}.damaged")
    try:
        os.replace(path, aside)
    except OSError:
        return None
    return aside


def check_replaceable(path: Path) -> None:
    """Check that `path`, in a folder that can be written, can be replaced by another file.

    Raises:
        CourseError: If `path` is a folder, or the file of another user in a folder with the sticky bit, such as /tmp.
    """
    try:
        file, folder = path.lstat(), path.parent.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise not_written(path, error) from error
    if stat.S_ISDIR(file.st_mode):
        raise CourseError(f"{path} is a folder, but a file of this name has to be written: move the folder away.")
    user = os.geteuid() if hasattr(os, "geteuid") else None  # Windows has neither user numbers nor the sticky bit
    if user and folder.st_mode & stat.S_ISVTX and user not in (file.st_uid, folder.st_uid):
        raise not_written(path, PermissionError(errno.EPERM, os.strerror(errno.EPERM)))


def check_readable(path: Path, wanted: str, if_missing: str) -> None:
    """Check that `path` is a file that can be read, and not a pointer of Git LFS.

    Args:
        path: The file.
        wanted: What the caller expects, such as "a checkpoint".
        if_missing: What to do if the file is missing, for the message.

    Raises:
        Unreadable: If the file exists but cannot be read, for example because of its permissions.
        CourseError: If the file is missing, a folder, empty, or a pointer of Git LFS.
    """
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise CourseError(f"{path} is a folder, not {wanted}: name a file in it.")
        if not stat.S_ISREG(mode):
            raise CourseError(f"{path} is a device or a pipe, not {wanted}: name a file.")
        with open(path, "rb") as file:
            start = file.read(START)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a null character in the name
        raise CourseError(f"{path} is missing: {if_missing}.") from error
    except OSError as error:
        raise unreadable(path, error) from error
    if start.startswith(LFS_POINTER):
        raise CourseError(
            f"{path} is a pointer of Git LFS, not {wanted} itself: run `git lfs pull` in its folder, which downloads "
            "the file."
        )
    if not start:
        raise CourseError(f"{path} is empty, so it is not {wanted}: replace it with a complete copy.")


def files_in(folder: Path, suffix: str) -> list[Path]:
    """Return the files in `folder` with this suffix, sorted; none if the folder is missing.

    Hidden files are left out: macOS leaves a file "._name" beside each file on drives of other systems.

    Raises:
        Unreadable: If the folder cannot be read. An empty list would look as if there were no files.
        CourseError: If `folder` is a file.
    """
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    except NotADirectoryError as error:
        raise CourseError(f"{folder} is not a folder: name the folder of the files, or move the file away.") from error
    except OSError as error:
        raise unreadable(folder, error) from error
    return [folder / name for name in names if name.endswith(suffix) and not name.startswith(".")]


def unreadable(path: Path, error: Exception) -> Unreadable:
    """Return the exception for a file that exists but cannot be read, as `error` says."""
    if is_out_of_memory(error):
        return Unreadable(f"{path} cannot be read now. {NO_MEMORY}")
    try:
        owner = f"; its owner is {path.owner()}"
    except (OSError, KeyError, NotImplementedError):  # the folder is closed, the user is unknown, or this is Windows
        owner = ""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if not isinstance(error, PermissionError):
        return Unreadable(f"{path} cannot be read now ({reason}): check its disk or network drive, and try again.")
    return Unreadable(
        f"{path} cannot be read ({reason}{owner}): ask for permission to read it, or set {_variable(path)} to a folder "
        "of your own."
    )


def format_of(path: Path) -> str:
    """Return in words which format of another program a file has, or an empty string if the format is unknown."""
    if not os.path.isfile(path):  # reading from a pipe could block forever
        return ""
    with open(path, "rb") as file:
        start = file.read(START)
    if start.startswith(b"PK\x03\x04"):
        return _archive(path)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 100_000_000:  # the length of the header
        return SAFETENSORS
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):  # the protocol of a pickle
        return PYTORCH
    if start[257:262] == b"ustar":
        return "a tar archive, which has to be unpacked first"
    for signature, title in SIGNATURES.items():
        if start.startswith(signature):
            return title
    return _text(start.removeprefix(b"\xef\xbb\xbf").lstrip().lower())


def _archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return "an incomplete zip archive or an incomplete PyTorch file (torch.save)"
    if any(name.endswith(("data.pkl", "constants.pkl")) for name in names):
        return PYTORCH
    if names and all(name.endswith(".npy") for name in names):
        return "an archive of NumPy arrays (.npz)"
    if "model.weights.h5" in names:
        return "a Keras file (.keras)"
    return "a zip archive, which has to be unpacked first"


def _text(start: bytes) -> str:
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page, which a failed download leaves behind"
    if start.startswith(b"<?xml"):
        return "an XML file"
    if start.startswith((b"{", b"[")):
        return "a JSON file (.json)"
    return ""


def not_written(path: Path, error: OSError) -> NotWritten:
    """Return the exception for a path that could not be written, as `error` says."""
    advice = f"set {_variable(path)} to a folder with write permission"
    if not _is_ours(path):
        advice = f"choose a folder with write permission, or {advice}, if the course chose this one"
    first = next((way_out for numbers, way_out in ADVICE.items() if error.errno in numbers), "")
    return NotWritten(f"{path} could not be written ({error.strerror or error}): {first}{advice}.")


def _variable(path: Path) -> str:
    """Return the name of the environment variable that says where files like `path` are."""
    return "QAT_CACHE_DIR" if path.is_relative_to(settings.cache_dir()) else "QAT_RESULTS_DIR"


def _is_ours(path: Path) -> bool:
    """Return whether `path` is in a folder that an environment variable chooses, rather than the caller."""
    return any(path.is_relative_to(folder) for folder in (settings.cache_dir(), settings.results_dir()))
