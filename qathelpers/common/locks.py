"""Locks between processes, which say who holds them."""

import contextlib
import errno
import getpass
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import CourseError
from .files import not_written, remove_leftovers, write_atomically

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # what network file systems without locks answer


class Busy(CourseError):
    """Another process or thread holds a lock; the message says which one."""


class Unavailable(CourseError):
    """A lock file cannot be made or opened."""


@contextlib.contextmanager
def hold(path: Path, wait: Callable[[str], object] | None = None) -> Iterator[None]:
    """Hold a lock while the body of the `with` statement runs.

    A file system without locks is accepted: no lock is held there. While the lock is held, a file beside it names the
    process that holds it.

    Args:
        path: The lock file; its folder is made if it is missing. It is empty, and stays when the lock is released.
        wait: Called with the name of the process that holds the lock, before waiting for it without limit; None to
            wait for nobody.

    Raises:
        Busy: If another process or thread holds the lock and `wait` is None.
        Unavailable: If the lock file cannot be made or opened.
    """
    lock = FileLock(path, mode=0o666)  # the other users of a shared folder have to be able to open it, too
    note = path.with_name(f"{path.name}.holder")
    held = _acquire(lock, path, note, wait)
    try:
        if held:
            remove_leftovers(note)
            with contextlib.suppress(CourseError):
                write_atomically(note, lambda file: file.write_text(_this_process(), encoding="utf-8"))
        yield
    finally:
        if held:
            with contextlib.suppress(OSError):
                note.unlink()
            lock.release()


def _acquire(lock: FileLock, path: Path, note: Path, wait: Callable[[str], object] | None) -> bool:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            holder = _holder(note)
            if wait is None:
                raise Busy(holder) from error
            wait(holder)
            lock.acquire()
    except NotImplementedError:  # a network file system without locks
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise Unavailable(str(not_written(path, error))) from error
        return False
    return True


def _this_process() -> str:
    try:
        user = f" of {getpass.getuser()}"
    except (OSError, KeyError, ImportError):  # a user number without a name
        user = ""
    return f"process {os.getpid()}{user} on {socket.gethostname()}"


def _holder(note: Path) -> str:
    """Return the name of the process that holds the lock, as it noted it."""
    with contextlib.suppress(OSError, UnicodeError):
        return note.read_text(encoding="utf-8").strip() or "another process"
    return "another process"
