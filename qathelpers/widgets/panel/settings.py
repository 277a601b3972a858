"""What the reader chooses for one run, and how typed numbers are read."""

import re
from dataclasses import dataclass

from ...common.errors import CourseError
from ...nets import Scheme


@dataclass(frozen=True)
class Settings:
    """The settings of one run of the panel; `share` is the share of the images, from 0.01 to 1."""

    scheme: Scheme
    arch: str
    epochs: int
    batch_size: int
    share: float
    seed: int


def whole_number(name: str, text: str, lowest: int, highest: int) -> int:
    """Return the whole number that was typed into the field `name`.

    Raises:
        CourseError: If the text is anything else, such as "2.7", "1e3" or nothing, or if the number is out of range.
    """
    limits = f"type a whole number from {lowest} to {highest:,}, in digits only."
    typed = text.strip()
    if not typed:
        raise CourseError(f"The field {name} is empty: {limits}")
    if not re.fullmatch(r"-?[0-9]{1,12}", typed) or not lowest <= int(typed) <= highest:
        raise CourseError(f"{name} is {typed[:40]}: {limits}")
    return int(typed)


def duration(seconds: float) -> str:
    """Return a duration in the unit that suits it, such as "15 s" or "3 min"."""
    if seconds < 90:
        return f"{max(1, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
