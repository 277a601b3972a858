"""The one exception that says what a user did or has, in a sentence with the way out; and a check of numbers."""

from numbers import Integral

MAX_SEED = 2**32 - 1  # what all generators take


class CourseError(Exception):
    """Something the user can mend; its message is one sentence that names the problem and the way out."""


def check_whole(name: str, value: object, lowest: int, highest: int | None = None) -> None:
    """Raise ValueError naming the argument unless `value` is a whole number from `lowest` up (to `highest`)."""
    if not isinstance(value, Integral) or value < lowest or (highest is not None and value > highest):
        upto = "up" if highest is None else f"to {highest:,}"
        raise ValueError(f"{name} is {value!r}; it takes a whole number from {lowest} {upto}")
