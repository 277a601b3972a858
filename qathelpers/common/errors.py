"""The exception for problems that the user can solve, and a check of whole numbers."""

from numbers import Integral

MAX_SEED = 2**32 - 1  # the largest seed that both NumPy and PyTorch accept


class CourseError(Exception):
    """A problem that the user can solve: the message says what is wrong and what to do about it."""


def check_whole(name: str, value: object, lowest: int, highest: int | None = None) -> None:
    """Check that the value of the argument `name` is a whole number from `lowest` to `highest` (None: no upper limit).

    Raises:
        ValueError: If it is not; the message names the argument and its value.
    """
    if not isinstance(value, Integral) or value < lowest or (highest is not None and value > highest):
        limits = f"of at least {lowest}" if highest is None else f"from {lowest} to {highest:,}"
        raise ValueError(f"{name} must be a whole number {limits}; got {value!r}")
