"""The exception for problems that the user can solve, errors of the system as sentences, and a check of numbers."""

import contextlib
import errno
from collections.abc import Iterator
from numbers import Integral

# Parts of error messages, in lower case, that report too little memory. They come from PyTorch on MPS and on CPUs
# (Linux, Windows), C++, NVIDIA's libraries and ONNX Runtime. PyTorch on CUDA raises an exception class of its own.
OUT_OF_MEMORY = ("out of memory", "allocate memory", "not enough memory", "bad_alloc", "alloc_failed")
NO_MEMORY = "There is not enough memory: close other programs, or use fewer images, a narrower net or fewer workers."

# What to do about an error of the operating system, by its errno.
WAYS_OUT = {
    errno.ENOSPC: "free some disk space",
    getattr(errno, "EDQUOT", errno.ENOSPC): "free some disk space",
    errno.EMFILE: "close programs that have many files open, such as other notebooks",
    errno.ENFILE: "close programs that have many files open, such as other notebooks",
}

MAX_SEED = 2**32 - 1  # the largest seed that both NumPy and PyTorch accept


class CourseError(Exception):
    """A problem that the user can solve: the message says what is wrong and what to do about it."""


def sentence(error: BaseException) -> str | None:
    """Return what went wrong and what to do about it; None for errors that may be bugs in the code.

    The commands of `qat`, the notebooks and the widgets all use this function, so they say the same.
    """
    if isinstance(error, CourseError):
        return str(error)
    if is_out_of_memory(error):
        return NO_MEMORY
    if isinstance(error, UnicodeEncodeError):
        characters = ascii(error.object[error.start : error.end])
        if error.encoding.lower().replace("-", "") == "utf8":
            return f"{error.object!a} contains bytes that are not text, {characters}: rename the file or folder."
        return f"The output cannot show {characters} in the encoding {error.encoding}: set PYTHONUTF8=1."
    if isinstance(error, ValueError) and "closed file" in str(error):
        return "The output, or a file that is in use, was closed: open it again, for example restart the notebook."
    if isinstance(error, OSError):
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        place = " and ".join(names) or "A file, a device or a connection"
        way_out = WAYS_OUT.get(error.errno, "check it")
        return f"{place} cannot be used ({error.strerror or error}): {way_out}, and try again."
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` says that this machine or a device has too little free memory."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return not isinstance(error, CourseError) and any(sign in str(error).lower() for sign in OUT_OF_MEMORY)


def raise_if_of_the_machine(error: Exception) -> None:
    """Raise `error` again if memory, a disk or a permission caused it, so that the message names this cause.

    Code that catches every exception, because a damaged file or a net can raise anything, calls this first.
    """
    # Libraries raise an OSError without an errno if they cannot parse a file.
    if is_out_of_memory(error) or (isinstance(error, OSError) and error.errno is not None):
        raise error


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn errors of the system within this context into CourseErrors.

    Raises:
        CourseError: With the sentence for the error. Errors without such a sentence are raised unchanged.
    """
    try:
        yield
    except CourseError:
        raise
    except Exception as error:
        text = sentence(error)
        if text is None:
            raise
        raise CourseError(text) from error


def check_whole(name: str, value: object, lowest: int, highest: int | None = None) -> None:
    """Check that the value of the argument `name` is a whole number from `lowest` to `highest` (None: no upper limit).

    Raises:
        ValueError: If it is not; the message names the argument and its value.
    """
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_whole or value < lowest or (highest is not None and value > highest):
        limits = f"of at least {lowest}" if highest is None else f"from {lowest} to {highest:,}"
        raise ValueError(f"{name} must be a whole number {limits}; got {value!r}")


def check_type(name: str, value: object, kind: type | tuple[type, ...], wanted: str) -> None:
    """Check that the value of the argument `name` has one of the types `kind`; `wanted` says what to pass instead.

    Raises:
        CourseError: If it does not; the message names the argument and the type of its value.
    """
    if not isinstance(value, kind):
        found = "None" if value is None else f"a {type(value).__name__}"
        raise CourseError(f"{name} is {found}: pass {wanted}.")


def check_callable(name: str, value: object, wanted: str) -> None:
    """Check that the value of the argument `name` can be called; `wanted` says with what it is called.

    Raises:
        CourseError: If it cannot be called.
    """
    if not callable(value):
        raise CourseError(f"{name} is {value!r}: pass a function that takes {wanted}.")


def check_shape(name: str, value: object) -> None:
    """Check that the value of the argument `name` is the shape of one image, such as (3, 32, 32).

    Raises:
        CourseError: If it is not.
    """
    check_type(name, value, (tuple, list), "the shape of one image, such as (3, 32, 32)")
    if not all(isinstance(size, Integral) and size > 0 for size in value):
        raise CourseError(f"{name} is {value!r}: pass the shape of one image, such as (3, 32, 32).")
