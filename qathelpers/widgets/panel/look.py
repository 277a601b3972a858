"""What the panel reads from a net after each epoch: it has to be quick, because the training waits for it."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ...nets import weights


@dataclass(frozen=True)
class Look:
    """A net after an epoch.

    Args:
        epoch: Number of finished epochs.
        layer: The name of the layer below.
        latent: The latent weights of the first quantized layer, or of the first layer of a float net, flat.
        quantized: The values these are quantized to, flat; None for a float net.
        zeros: Share of zeros among all quantized weights, 0 to 1; None for a float net.
        flipped: Share of the weights whose sign differs from the one before, 0 to 1; None if there is none before.
        dead: A sentence per dead layer.
    """

    epoch: int
    layer: str
    latent: np.ndarray
    quantized: np.ndarray | None
    zeros: float | None
    flipped: float | None
    dead: tuple[str, ...]


class Observer:
    """Looks at a net after each epoch and remembers the signs of its weights until the next look."""

    def __init__(self, net: nn.Module, signs: torch.Tensor | None = None):
        """Remember the signs with which the training starts, or goes on: `signs` of the observer before."""
        self._layers = weights.quantized_layers(net)
        self._float = {} if self._layers else _float_layers(net)
        self.signs = self._read_signs() if signs is None else signs

    def look(self, net: nn.Module, epoch: int) -> Look:
        """Look at the net after `epoch` epochs."""
        before, self.signs = self.signs, self._read_signs()
        flipped = (before != self.signs).float().mean().item() if epoch and len(before) else None
        values = {name: weights.quantized(layer) for name, layer in self._layers.items()}
        name, layer = next(iter((self._layers or self._float).items()), ("", None))
        latent = np.zeros(0) if layer is None else weights.latent(layer).flatten().numpy()
        return Look(
            epoch,
            name,
            latent,
            values[name].flatten().numpy() if values else None,
            _share_of_zeros(list(values.values())),
            flipped,
            tuple(weights.warnings(net)) if any(map(_is_dead, values.values())) else (),
        )

    @torch.no_grad()
    def _read_signs(self) -> torch.Tensor:
        layers = (self._layers or self._float).values()
        return torch.cat([(layer.weight >= 0).flatten().cpu() for layer in layers]) if layers else torch.zeros(0)


def _float_layers(net: nn.Module) -> dict[str, nn.Module]:
    return {name: layer for name, layer in net.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}


def _share_of_zeros(values: list[torch.Tensor]) -> float | None:
    count = sum(value.numel() for value in values)
    return sum(int((value == 0).sum()) for value in values) / count if count else None


def _is_dead(value: torch.Tensor) -> bool:
    return not value.any() or not value.isfinite().all()
