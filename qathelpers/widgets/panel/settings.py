"""What the reader chooses for one run, and how typed numbers are read."""

import copy
import re
from dataclasses import dataclass

from torch import nn

from ...common.errors import CourseError
from ...data.dataset import Dataset
from ...nets import Scheme
from ...results.runs import build_for


@dataclass(frozen=True)
class Settings:
    """The settings of one run of the panel.

    Args:
        scheme: The scheme of the net.
        arch: The name of its architecture.
        epochs: Number of passes over the training images.
        batch_size: Images per step.
        share: Share of the images, from 0.01 to 1.
        seed: Seed of initialization and training.
        own: A net of the reader's own, of which a copy is trained; None for a net of `scheme` and `arch`.
    """

    scheme: Scheme
    arch: str
    epochs: int
    batch_size: int
    share: float
    seed: int
    own: nn.Module | None = None

    def build(self, dataset: Dataset) -> nn.Module:
        """Return a new net for `dataset`."""
        if self.own is not None:
            return copy.deepcopy(self.own)
        return build_for(dataset, self.scheme, self.arch, self.seed)


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
