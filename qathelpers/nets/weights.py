"""Look inside a net: integer levels, share of zeros, latent and quantized weights."""

from dataclasses import dataclass

import pandas as pd
import torch
from brevitas.nn.mixin import QuantWeightMixin
from torch import nn

MAX_LISTED = 8  # levels of a layer; more are summarized as a range
COLUMNS = ("weights", "levels", "zeros", "quantized weights")


@dataclass(frozen=True)
class LayerReport:
    """The quantized weights of one layer.

    Args:
        name: The layer's name in the net.
        count: Number of weights.
        integers: The integer levels of the weights, from the largest down; empty if weights are NaN or infinite.
        shares: Share of the weights (0 to 1) at each of these integers.
        scales: The scale, or one scale per channel; a weight is scale times integer.
    """

    name: str
    count: int
    integers: tuple[int, ...]
    shares: tuple[float, ...]
    scales: tuple[float, ...]

    @property
    def zeros(self) -> float:
        """The share of weights that are zero, from 0 to 1."""
        return sum((share for integer, share in zip(self.integers, self.shares, strict=True) if integer == 0), 0.0)

    @property
    def is_dead(self) -> bool:
        """Whether no information passes through the layer: all weights are zero, or some are NaN or infinite."""
        return self.integers in ((), (0,))

    def __str__(self) -> str:
        """Return the levels as values if the layer has one scale and few levels, else as a range of integers."""
        if not self.integers:
            return "NaN or infinite"
        if len(self.integers) > MAX_LISTED or len(self.scales) > 1:
            return f"integers from {min(self.integers)} to {max(self.integers)}, {len(self.scales)} scales"
        return ", ".join(f"{integer * self.scales[0]:+.4g}" if integer else "0" for integer in self.integers)


def quantized_layers(net: nn.Module) -> dict[str, nn.Module]:
    """Return the layers of `net` whose weights are quantized, by name, in the order of definition."""
    return {
        name: module
        for name, module in net.named_modules()
        if isinstance(module, QuantWeightMixin) and module.weight_quant.is_quant_enabled
    }


@torch.no_grad()
def initialize_scales(net: nn.Module) -> nn.Module:
    """Let the weight quantizers of `net` set up their learned scales, and return the net.

    Brevitas creates the parameter of a scale that is learned from statistics on in the first forward pass. Before that,
    it is missing in the net's state, so weights of a trained net could not be loaded.
    """
    for layer in quantized_layers(net).values():
        kept = layer.weight.clone()
        layer.quant_weight()
        layer.weight.copy_(kept)  # some quantizers clamp the weights in place
    return net


@torch.no_grad()
def scales_follow_weights(net: nn.Module) -> bool:
    """Return whether the scales of all quantized layers double when their weights do.

    They do if they are computed from the weights. Constant and learned scales stay as they are.
    """
    for layer in quantized_layers(net).values():
        kept = layer.weight.clone()
        one = layer.quant_weight()
        layer.weight.copy_(2 * kept)
        two = layer.quant_weight()
        layer.weight.copy_(kept)
        scales = [getattr(weight, "scale", None) for weight in (one, two)]
        if None in scales or not torch.allclose(2 * scales[0], scales[1], rtol=1e-3):
            return False
    return True


def first_layer(net: nn.Module) -> nn.Module:
    """Return the first convolution or linear layer of `net`, quantized or not.

    Raises:
        ValueError: If there is none.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            return module
    raise ValueError("the net has neither a convolution nor a linear layer")


def latent(layer: nn.Module) -> torch.Tensor:
    """Return a copy of the float weights that the optimizer updates, on the CPU.

    It is a copy because some of Brevitas' quantizers modify the layer's weights in place at every call.
    """
    return layer.weight.detach().float().cpu().clone()


@torch.no_grad()
def quantized(layer: nn.Module) -> torch.Tensor:
    """Return the weights that the layer computes with, on the CPU, in the shape of `layer.weight`."""
    weight = layer.quant_weight() if isinstance(layer, QuantWeightMixin) else layer.weight
    return getattr(weight, "value", weight).detach().float().cpu() + 0.0  # a new tensor, with 0 instead of -0


@torch.no_grad()
def scale(layer: nn.Module) -> torch.Tensor:
    """Return the scale or scales of a quantized layer, on the CPU; a quantized weight is scale times integer."""
    return layer.quant_weight().scale.detach().float().cpu().clone()


def integers(layer: nn.Module) -> torch.Tensor:
    """Return the integer levels of a quantized layer's weights, int64, in the shape of `layer.weight`.

    Raises:
        ValueError: If weights are NaN or infinite.
    """
    values = quantized(layer)
    if not values.isfinite().all():
        raise ValueError("the layer's quantized weights are NaN or infinite, so they have no integer levels")
    return torch.round(values / scale(layer)).long()


def describe(name: str, layer: nn.Module) -> LayerReport:
    """Return the levels, shares and scales of one quantized layer."""
    count, scales = layer.weight.numel(), tuple(scale(layer).flatten().tolist())
    try:
        levels, counts = integers(layer).unique(return_counts=True)
    except ValueError:
        return LayerReport(name, count, (), (), scales)
    return LayerReport(name, count, tuple(levels.tolist()[::-1]), tuple((counts / count).tolist()[::-1]), scales)


def report(net: nn.Module) -> pd.DataFrame:
    """Return one row per quantized layer: number of weights, number of levels, share of zeros, and the levels.

    The table of a net without quantized weights is empty. `warnings` names layers that are dead.
    """
    layers = [describe(name, layer) for name, layer in quantized_layers(net).items()]
    rows = [(layer.count, len(layer.integers), round(layer.zeros, 3), str(layer)) for layer in layers]
    index = pd.Index([layer.name for layer in layers], name="layer")
    return pd.DataFrame(rows, index=index, columns=list(COLUMNS))


def warnings(net: nn.Module) -> list[str]:
    """Return one sentence for each dead layer of `net`."""
    return [
        f"Warning: {name} is dead: its weights are {'all 0' if layer.integers else 'NaN or infinite'}, so neither "
        "activations nor gradients pass; use a smaller learning rate or another quantizer."
        for name, layer in ((name, describe(name, layer)) for name, layer in quantized_layers(net).items())
        if layer.is_dead
    ]
