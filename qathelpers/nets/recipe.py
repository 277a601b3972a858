"""Recipes: the settings with which a net is trained."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

from ..common.errors import CourseError, check_type

OPTIMIZERS = ("muon", "adam")
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: f"one of {', '.join(OPTIMIZERS)}"}
RANGES = {  # both ends included
    "batch_size": (1, 1_000_000),
    "lr": (0, 1e6),
    "bias_lr": (0, 1e6),
    "final_lr": (0, 1),
    "label_smoothing": (0, 1),
    "translate": (0, 8),
    "cutout": (0, 32),
    "progressive_resizing": (0, 1),
    "latent_clip": (0.01, 1e6),
}


@dataclass(frozen=True)
class Recipe:
    """How a net is trained.

    Learning rates decrease linearly: after the last step, they are `final_lr` times their initial values.

    Args:
        batch_size: Images per step.
        optimizer: "muon" trains weights with Muon and everything else with SGD; "adam" trains everything with Adam.
        lr: Learning rate of Muon (relative to the norm of the weights) or of Adam.
        bias_lr: Learning rate of SGD for biases, BatchNorms and learned scales (with "muon").
        final_lr: Learning rate after the last step, as a fraction of the initial one.
        label_smoothing: Share of the target probability that is spread over all classes.
        augment: Whether images are flipped, translated and partly covered.
        translate: Largest translation in pixels.
        cutout: Side of the square that covers a part of each image, in pixels; 0 for none.
        progressive_resizing: Share of the epochs over which images grow from 16 x 16 pixels to their full size, in
            training and evaluation. The smallest images take a quarter of the time, and what a net learns from them
            also helps on larger ones.
        latent_clip: Bound on latent weights (with "muon"), in multiples of their layer's root mean square.

    Raises:
        CourseError: If a setting has the wrong type or is out of range.

    Reference:
        J. Howard's DAWNBench entry (www.fast.ai/posts/2018-04-30-dawnbench-fastai.html), for progressive resizing.
    """

    batch_size: int = 256
    optimizer: str = "muon"
    lr: float = 0.12
    bias_lr: float = 0.05
    final_lr: float = 0.02
    label_smoothing: float = 0.2
    augment: bool = True
    translate: int = 1
    cutout: int = 0
    progressive_resizing: float = 0.0
    latent_clip: float = 2.0

    def __post_init__(self) -> None:
        """Check the type and range of every setting."""
        for name, kind in _kinds().items():
            _check(name, kind, getattr(self, name))


def changed(recipe: Recipe, changes: Iterable[str]) -> Recipe:
    """Return `recipe` with some settings changed.

    Args:
        recipe: The recipe to start from.
        changes: Changes as text, such as "lr=0.05".

    Raises:
        CourseError: If there is no such setting (the message lists them), or if a value has the wrong type or range.
    """
    kinds = _kinds()
    values = {}
    for change in changes:
        name, _, text = change.partition("=")
        _check_name(name)
        try:
            values[name] = {"true": True, "false": False}[text.lower()] if kinds[name] is bool else kinds[name](text)
        except (KeyError, ValueError) as error:
            raise CourseError(f"{name} takes {KINDS[kinds[name]]}, not {text!r}.") from error
    return replace(recipe, **values)


def check_settings(settings: object, owner: str) -> None:
    """Check that `settings` are settings of a recipe, by name; `owner` is what messages call the whole.

    Raises:
        CourseError: If they are not a dict, a setting is unknown (the message lists them), or a value has the wrong
            type or range.
    """
    check_type(owner, settings, dict, "a dict of the settings that differ, such as {'lr': 0.05}")
    for name, value in settings.items():
        _check_name(name)
        _check(name, _kinds()[name], value)


def _check_name(name: object) -> None:
    if name not in _kinds():
        raise CourseError(f"A recipe has no setting {name!r}: choose one of {', '.join(_kinds())}, as in lr=0.05.")


def _kinds() -> dict[str, type]:
    return {field.name: type(field.default) for field in fields(Recipe)}


def _check(name: str, kind: type, value: object) -> None:
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise CourseError(f"{name} takes {KINDS[kind]}, not {value!r}.")
    if kind is str and value not in OPTIMIZERS:
        raise CourseError(f"{name} takes {KINDS[kind]}, not {value!r}.")
    lowest, highest = RANGES.get(name, (-math.inf, math.inf))
    if kind in (int, float) and not lowest <= value <= highest:  # NaN is refused, too
        raise CourseError(f"{name} takes {KINDS[kind]} from {lowest:g} to {highest:g}, not {value!r}.")
