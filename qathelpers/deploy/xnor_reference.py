"""Binary layers computed with XNOR and popcount in NumPy: exact and easy to read, but slow."""

import copy

import numpy as np
import torch
import torch.nn.functional as F
from brevitas.nn.mixin import QuantWeightMixin
from torch import nn

from ..nets import weights
from ..nets.quantizers import is_binary

COUNTS = np.array([number.bit_count() for number in range(256)], np.uint8)


def popcount(numbers: np.ndarray) -> np.ndarray:
    """Count the bits that are 1 in each of `numbers` (uint8); the result has the same shape."""
    return np.bitwise_count(numbers) if hasattr(np, "bitwise_count") else COUNTS[numbers]  # new in NumPy 2.0


def dot(a: np.ndarray, b: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return the dot product of each row of signs in `a` with each row of signs in `b`.

    The product of two signs is +1 where their bits agree and -1 where they differ. The dot product of `count` signs is
    therefore count - 2 x (number of bits that differ).

    Args:
        a: Packed signs, uint8 (n, bytes). Each byte holds 8 signs: bit 1 stands for +1, bit 0 for -1.
        b: Packed signs, uint8 (m, bytes).
        valid: Packed mask for `a`, uint8 (n, bytes). A bit that is 0 marks padding, which contributes nothing.

    Returns:
        Dot products, int64 (n, m).

    Reference:
        M. Rastegari et al., XNOR-Net (arXiv 1603.05279).
    """
    differ = (a[:, None] ^ b[None]) & valid[:, None]
    return popcount(valid).sum(-1, dtype=np.int64)[:, None] - 2 * popcount(differ).sum(-1, dtype=np.int64)


def convert(net: nn.Module) -> nn.Module:
    """Return a copy of `net` whose binary layers compute by counting bits wherever their inputs are signs.

    The copy is in eval mode and on the CPU. It accepts images from any device and returns its logits on the CPU. It is
    hundreds of times slower than `net`; `openvino_export` runs binary layers fast.
    """
    counting = copy.deepcopy(net).cpu().eval()
    counting.register_forward_pre_hook(_to_cpu)
    for name, layer in weights.quantized_layers(counting).items():
        if is_binary(layer.weight_quant):
            parent, _, child = name.rpartition(".")
            setattr(counting.get_submodule(parent), child, CountingLayer(layer))
    return counting


def _to_cpu(net: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(tensor.cpu() for tensor in inputs)


class CountingLayer(nn.Module):
    """A binary convolution or linear layer that counts bits; inputs that are not signs go to the original layer.

    Args:
        layer: A Brevitas layer with binary weights.
    """

    def __init__(self, layer: QuantWeightMixin) -> None:
        super().__init__()
        self.layer, self.scale = layer, weights.scale(layer)
        self.kernels = np.packbits(weights.integers(layer).flatten(1).numpy() > 0, axis=1)

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output of the layer for signs (n, channels, h, w) or (n, channels)."""
        x = getattr(x, "value", x)
        if not (x.abs() == 1).all():
            return self.layer(x)
        x = x.cpu()  # NumPy cannot read the memory of a GPU
        if isinstance(self.layer, nn.Linear):
            return self._sums(x) * self.scale.flatten()
        padding, stride = self.layer.padding[0], self.layer.stride[0]
        height, width = ((size + 2 * padding - kernel) // stride + 1 for size, kernel in self._sides(x))
        patches = F.unfold(x, self.layer.kernel_size, padding=padding, stride=stride)  # (n, values, positions)
        sums = self._sums(patches.mT.flatten(0, 1))
        return sums.view(len(x), height * width, -1).mT.unflatten(2, (height, width)) * self.scale.view(1, -1, 1, 1)

    def _sides(self, x: torch.Tensor) -> zip:
        return zip(x.shape[2:], self.layer.kernel_size, strict=True)

    def _sums(self, patches: torch.Tensor) -> torch.Tensor:
        """Return the dot products (n, outputs) of patches (n, values) of -1, 0 (padding) and +1 with the kernels."""
        chunks = np.array_split(patches.numpy(), max(1, len(patches) // 256))  # limits the memory that `dot` needs
        parts = [dot(np.packbits(chunk > 0, axis=1), self.kernels, np.packbits(chunk != 0, axis=1)) for chunk in chunks]
        return torch.from_numpy(np.concatenate(parts)).float()
