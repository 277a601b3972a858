"""How a net is trained."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How a net is trained.

    `lr` is Muon's, for weights, relative to their norm; `vector_lr` is SGD's, for biases, BatchNorms, learned scales.
    Both fall linearly from the first step to `final` of their start after the last one. `augment` flips and shifts.
    """

    batch_size: int = 256
    lr: float = 0.12
    vector_lr: float = 0.05
    final: float = 0.02
    label_smoothing: float = 0.1
    augment: bool = True
