"""The exception for problems that the user can solve, errors of the system as sentences, and a check of numbers."""

from numbers import Integral

MAX_SEED = 2**32 - 1  # the largest seed that both NumPy and PyTorch accept


class CourseError(Exception):
    """A problem that the user can solve: the message says what is wrong and what to do about it."""


def sentence(error: BaseException) -> str | None:
    """Return what went wrong and what to do about it, for errors that are no mistake in the code; None for others.

    All commands of `qat` use this function, so they say the same.
    """
    if isinstance(error, CourseError):
        return str(error)
    if isinstance(error, MemoryError) or "allocate" in str(error) or type(error).__name__ == "OutOfMemoryError":
        return "There is not enough memory: close other programs, or use fewer images, a narrower net or fewer workers."
    if isinstance(error, UnicodeEncodeError):
        return (
            f"The output cannot show {error.object[error.start : error.end]!r} in the encoding {error.encoding}: set "
            "PYTHONUTF8=1."
        )
    if isinstance(error, OSError):
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        place = " and ".join(names) or "A file, a device or a connection"
        return f"{place} cannot be used ({error.strerror or error}): check it, and try again."
    return None


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
