"""Progress bars, which look the same everywhere in the course."""

import sys
from collections.abc import Iterable

from tqdm.auto import tqdm

DELAY = 1  # seconds; shorter work needs no bar


def progress(
    iterable: Iterable | None = None, *, title: str, total: int | None = None, unit: str = "it", shown: bool = True
) -> tqdm:
    """Return a progress bar that disappears when it is done; it shows in terminals and notebooks, but not in log files.

    Args:
        iterable: What to loop over; None for a bar that the caller moves with `update`.
        title: The text in front of the bar.
        total: The number of units; needed only if `iterable` has no length.
        unit: The unit that is counted; "B" (bytes) is shown as kB, MB and so on.
        shown: False for a bar that stays hidden.
    """
    return tqdm(
        iterable,
        title,
        total,
        leave=False,
        file=sys.stdout,
        disable=None if shown else True,
        unit=unit,
        unit_scale=unit == "B",
        delay=DELAY,
    )
