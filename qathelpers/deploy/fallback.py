"""Binary layers as XNOR and popcount in NumPy: exact, needs nothing, and slow. It is for understanding."""

import copy

import numpy as np
import torch
import torch.nn.functional as F
from brevitas.nn.mixin import QuantWeightMixin
from torch import nn

from .. import weights

COUNTS = np.array([number.bit_count() for number in range(256)], np.uint8)


def popcount(numbers: np.ndarray) -> np.ndarray:
    """Return how many bits of each of `numbers` (uint8) are 1."""
    return np.bitwise_count(numbers) if hasattr(np, "bitwise_count") else COUNTS[numbers]  # since NumPy 2.0


def dot(a: np.ndarray, b: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Return the products (n, m) of signs `a` (n, bytes) with signs `b` (m, bytes), 8 to a byte, 1 for +1, 0 for -1.

    Only those count whose bit is 1 in `there` (n, bytes): padding is neither +1 nor -1. Where two bits differ the
    product of their signs is -1: as many as there are, minus twice as many as differ.
    Source: Rastegari et al., XNOR-Net (arXiv 1603.05279).
    """
    differ = (a[:, None] ^ b[None]) & there[:, None]
    return popcount(there).sum(-1, dtype=np.int64)[:, None] - 2 * popcount(differ).sum(-1, dtype=np.int64)


def convert(net: nn.Module) -> nn.Module:
    """Return a copy of `net`, in eval mode, whose layers with one bit a weight count bits where they are given signs.

    It takes hundreds of times as long as the net: `deploy.openvino` is the fast way.
    """
    counting = copy.deepcopy(net).eval()
    for name, layer in weights.quantized_layers(counting).items():
        if int(layer.weight_quant.bit_width()) == 1:
            parent, _, child = name.rpartition(".")
            setattr(counting.get_submodule(parent), child, CountingLayer(layer))
    return counting


class CountingLayer(nn.Module):
    """A convolution or linear layer of signs; given anything else than signs it computes as `layer` does."""

    def __init__(self, layer: QuantWeightMixin) -> None:
        """Pack the signs of `layer`."""
        super().__init__()
        self.layer, self.scale = layer, weights.scale(layer)
        self.kernels = np.packbits(weights.integers(layer).flatten(1).numpy() > 0, axis=1)

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the layer makes of signs (n, channels, h, w) or (n, channels)."""
        x = getattr(x, "value", x)
        if not (x.abs() == 1).all():
            return self.layer(x)
        if isinstance(self.layer, nn.Linear):
            return self._sums(x) * self.scale.flatten()
        padding, stride = self.layer.padding[0], self.layer.stride[0]
        height, width = ((size + 2 * padding - kernel) // stride + 1 for size, kernel in self._sides(x))
        patches = F.unfold(x, self.layer.kernel_size, padding=padding, stride=stride)  # (n, values, places)
        sums = self._sums(patches.mT.flatten(0, 1))
        return sums.view(len(x), height * width, -1).mT.unflatten(2, (height, width)) * self.scale.view(1, -1, 1, 1)

    def _sides(self, x: torch.Tensor) -> zip:
        return zip(x.shape[2:], self.layer.kernel_size, strict=True)

    def _sums(self, patches: torch.Tensor) -> torch.Tensor:
        """Return the products (n, outputs) of patches (n, values) of -1, 0 (padding) and +1 with the kernels."""
        parts = [
            dot(np.packbits(part > 0, axis=1), self.kernels, np.packbits(part != 0, axis=1))
            for part in np.array_split(patches.numpy(), max(1, len(patches) // 256))  # so that memory stays small
        ]
        return torch.from_numpy(np.concatenate(parts)).float()
