"""Binary layers computed with XNOR and popcount in NumPy: exact and easy to read, but slow."""

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from brevitas import nn as qnn
from brevitas.nn.mixin import QuantWeightMixin
from torch import nn

from ..common.errors import CourseError
from ..nets import weights
from ..nets.architectures import spec_of
from ..nets.quantizers import is_binary
from . import conversion

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


def convert(net: nn.Module, shape: tuple[int, ...] | None = None) -> nn.Module:
    """Return a copy of `net` whose binary layers compute by counting bits wherever their inputs are signs.

    The copy is in eval mode, in fp32 and on the CPU. It accepts images from any device and returns its logits on the
    CPU. It is hundreds of times slower than `net`; `openvino_export` runs binary layers fast.

    After the conversion, the logits of a random batch are compared with those of the net (`conversion.check`).

    Args:
        net: The net to convert.
        shape: The shape of one input image (channels, height, width); by default what the net was built for.

    Raises:
        CourseError: If the net has a binary layer that cannot be converted (the message names it), or if the logits
            of the copy differ from those of the net.
    """
    net, shape = conversion.on_cpu(net), shape or spec_of(net).image
    counting, layers = conversion.on_cpu(net), {}
    names = conversion.names(counting)
    for name, module in list(counting.named_modules(remove_duplicate=False)):  # a layer may be used several times
        if "forward" in vars(module):
            raise _refusal(names[module], "its forward was replaced")
        if not isinstance(module, QuantWeightMixin) or not is_binary(module.weight_quant):
            continue
        if module not in layers:
            if reason := _unsupported(module):
                raise _refusal(names[module], reason)
            layers[module] = CountingLayer(module)
        if not name:
            counting = layers[module]
        else:
            parent, _, child = name.rpartition(".")
            setattr(counting.get_submodule(parent), child, layers[module])
    conversion.check(net, counting, shape, "XNOR", may_flip=bool(layers))
    counting.register_forward_pre_hook(partial(_accept, tuple(shape)))
    return counting


def _unsupported(layer: nn.Module) -> str:
    """Return what `CountingLayer` does not support in `layer`, or "" if it supports everything."""
    known = next((kind for kind in (qnn.QuantConv2d, qnn.QuantLinear) if isinstance(layer, kind)), None)
    if known is None:
        return "binary layers of this class are not supported"
    if layer.return_quant_tensor:
        return "return_quant_tensor=True is not supported"
    reason = conversion.differs_from(layer, known) or conversion.unsupported(layer)
    if not reason and (
        (weights.integers(layer).abs() != 1).any() or weights.scale(layer).numel() not in (1, len(layer.weight))
    ):
        return "its weights are not signs times one scale per layer or per output channel"
    return reason


def _refusal(name: str, reason: str) -> CourseError:
    return CourseError(f"{name} cannot be computed by counting bits: {reason}. Run the net in PyTorch instead.")


def _accept(shape: tuple[int, ...], net: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Return the inputs of a converted net on the CPU, after a check of the number of their channels."""
    for tensor in inputs:
        if tensor.ndim == len(shape) + 1 and tensor.shape[1] != shape[0]:
            raise CourseError(
                f"The images have {tensor.shape[1]} channels, but the net was converted for {shape[0]}: pass images "
                f"of the shape (n, {', '.join(map(str, shape))}), or convert a net that was built for these images."
            )
    return tuple(tensor.cpu() for tensor in inputs)


class CountingLayer(nn.Module):
    """A binary convolution or linear layer that counts bits; inputs that are not signs go to the original layer.

    Args:
        layer: A Brevitas layer with binary weights.
    """

    def __init__(self, layer: QuantWeightMixin) -> None:
        super().__init__()
        self.layer, self.scale = layer, weights.scale(layer)
        self.bias = 0.0 if layer.bias is None else layer.bias.detach().float().cpu()
        kernels = np.packbits(weights.integers(layer).flatten(1).numpy() > 0, axis=1)
        self.kernels = np.split(kernels, getattr(layer, "groups", 1))

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output of the layer for signs (n, channels, h, w) or (..., features)."""
        signs = getattr(x, "value", x)
        is_linear = isinstance(self.layer, nn.Linear)
        if not (signs.abs() == 1).all() or not signs.numel() or (not is_linear and signs.ndim != 4):
            return self.layer(x)
        signs = signs.cpu()  # NumPy cannot read the memory of a GPU
        if is_linear:
            sums = self._sums(signs.flatten(0, -2) if signs.ndim > 1 else signs[None], self.kernels[0])
            return sums.view(*signs.shape[:-1], -1) * self.scale.flatten() + self.bias
        layer = self.layer
        (top, left), (bottom, right) = conversion.pads(layer, *signs.shape[2:])
        padded = F.pad(signs, (left, right, top, bottom))
        sizes = zip(padded.shape[2:], layer.kernel_size, layer.stride, layer.dilation, strict=True)
        height, width = ((size - dilation * (kernel - 1) - 1) // stride + 1 for size, kernel, stride, dilation in sizes)
        sums = []
        for group, kernels in zip(padded.chunk(layer.groups, 1), self.kernels, strict=True):
            patches = F.unfold(group, layer.kernel_size, layer.dilation, stride=layer.stride)  # (n, values, positions)
            sums.append(self._sums(patches.mT.flatten(0, 1), kernels))
        sums = torch.cat(sums, 1).view(len(signs), height * width, -1)
        sums = sums * self.scale.flatten() + self.bias
        return sums.mT.unflatten(2, (height, width))

    @staticmethod
    def _sums(patches: torch.Tensor, kernels: np.ndarray) -> torch.Tensor:
        """Return the dot products (n, outputs) of patches (n, values) of -1, 0 (padding) and +1 with the kernels."""
        chunks = np.array_split(patches.numpy(), max(1, len(patches) // 256))  # limits the memory that `dot` needs
        parts = [dot(np.packbits(chunk > 0, axis=1), kernels, np.packbits(chunk != 0, axis=1)) for chunk in chunks]
        return torch.from_numpy(np.concatenate(parts)).float()
