"""How a net is trained."""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

from .errors import CourseError


@dataclass(frozen=True)
class Recipe:
    """How a net is trained.

    With the `optimizer` "muon", `lr` is Muon's, for weights, relative to their norm, and `vector_lr` SGD's, for biases,
    BatchNorms and learned scales; latent weights beyond `latent_clip` times the root mean square of their layer are cut
    back to it. With "adam", `lr` is Adam's, for all. Learning rates fall linearly, from the first step to `final` of
    their start after the last one. `augment` flips images and shifts them by up to `max_shift` pixels. Over a share
    `growing` of the epochs, from the first, images grow from 16 x 16 pixels to their full size, in training and test:
    small ones take a quarter of the time, and what they teach holds for large ones.
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
    growing: float = 0.0
    latent_clip: float = 2.0


def changed(recipe: Recipe, changes: Iterable[str]) -> Recipe:
    """Return `recipe` with `changes`, each like "lr=0.05", made.

    Raises CourseError listing the names when there is no such setting, or saying what kind of value one takes.
    """
    kinds = {field.name: type(field.default) for field in fields(Recipe)}
    values = {}
    for change in changes:
        name, _, text = change.partition("=")
        if name not in kinds:
            raise CourseError(f"A recipe has no {name!r}: set one of {', '.join(kinds)}, as in lr=0.05.")
        try:
            values[name] = {"true": True, "false": False}[text.lower()] if kinds[name] is bool else kinds[name](text)
        except (KeyError, ValueError) as error:
            kind = {bool: "true or false", int: "a whole number", float: "a number"}[kinds[name]]
            raise CourseError(f"{name} takes {kind}, not {text!r}.") from error
    return replace(recipe, **values)
