"""How a net is trained."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

from .errors import CourseError

OPTIMIZERS = ("muon", "adam")
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: f"one of {', '.join(OPTIMIZERS)}"}
RANGES = {  # both ends included
    "batch_size": (1, math.inf),
    "lr": (0, 1e6),
    "vector_lr": (0, 1e6),
    "final": (0, 1),
    "label_smoothing": (0, 1),
    "max_shift": (0, 8),
    "cutout": (0, 32),
    "growing": (0, 1),
    "latent_clip": (0.01, math.inf),
}


@dataclass(frozen=True)
class Recipe:
    """How a net is trained.

    With the `optimizer` "muon", `lr` is Muon's, for weights, relative to their norm, and `vector_lr` SGD's, for biases,
    BatchNorms and learned scales; latent weights beyond `latent_clip` times the root mean square of their layer are cut
    back to it. With "adam", `lr` is Adam's, for all. Learning rates fall linearly, from the first step to `final` of
    their start after the last one. `augment` flips images, shifts them by up to `max_shift` pixels and covers a square
    of `cutout` pixels a side. Over a share `growing` of the epochs, from the first, images grow from 16 x 16 pixels to
    their full size, in training and test: small ones take a quarter of the time, and what they teach holds for large
    ones.
    Source of the growing images: J. Howard's DAWNBench entry (www.fast.ai/posts/2018-04-30-dawnbench-fastai.html).
    """

    batch_size: int = 256
    optimizer: str = "muon"
    lr: float = 0.12
    vector_lr: float = 0.05
    final: float = 0.02
    label_smoothing: float = 0.2
    augment: bool = True
    max_shift: int = 1
    cutout: int = 0
    growing: float = 0.0
    latent_clip: float = 2.0

    def __post_init__(self) -> None:
        """Raise CourseError naming a setting whose value is of another kind or out of its range."""
        for name, kind in _kinds().items():
            _check(name, kind, getattr(self, name))


def changed(recipe: Recipe, changes: Iterable[str]) -> Recipe:
    """Return `recipe` with `changes`, each like "lr=0.05", made.

    Raises CourseError listing the names when there is no such setting, or saying what kind of value one takes.
    """
    kinds = _kinds()
    values = {}
    for change in changes:
        name, _, text = change.partition("=")
        if name not in kinds:
            raise CourseError(f"A recipe has no {name!r}: set one of {', '.join(kinds)}, as in lr=0.05.")
        try:
            values[name] = {"true": True, "false": False}[text.lower()] if kinds[name] is bool else kinds[name](text)
        except (KeyError, ValueError) as error:
            raise CourseError(f"{name} takes {KINDS[kinds[name]]}, not {text!r}.") from error
    return replace(recipe, **values)


def _kinds() -> dict[str, type]:
    return {field.name: type(field.default) for field in fields(Recipe)}


def _check(name: str, kind: type, value: object) -> None:
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise CourseError(f"{name} takes {KINDS[kind]}, not {value!r}.")
    if kind is str and value not in OPTIMIZERS:
        raise CourseError(f"{name} takes {KINDS[kind]}, not {value!r}.")
    lowest, highest = RANGES.get(name, (-math.inf, math.inf))
    if kind in (int, float) and not lowest <= value <= highest:  # nor is NaN
        raise CourseError(f"{name} takes {KINDS[kind]} from {lowest:g} to {highest:g}, not {value!r}.")
