"""Look inside a net: integer levels, share of zeros, latent against quantized weights."""

from dataclasses import dataclass

import torch
from brevitas.nn.mixin import QuantWeightMixin
from torch import nn

MAX_PRINTED = 8  # levels of a layer; more are summarised


@dataclass(frozen=True)
class LayerReport:
    """One quantized layer's weights: the integers they stand for, the share of each, and the scale(s).

    `integers` and `shares` go from the largest integer down; both are empty when the weights are not numbers.
    """

    name: str
    count: int
    integers: tuple[int, ...]
    shares: tuple[float, ...]
    scales: tuple[float, ...]

    @property
    def zeros(self) -> float:
        """The share of weights that are zero, from 0 to 1."""
        return sum(share for integer, share in zip(self.integers, self.shares, strict=True) if integer == 0)

    @property
    def is_dead(self) -> bool:
        """Whether the layer passes nothing on: all its weights are zero, or they are not numbers."""
        return self.integers in ((), (0,))

    def __str__(self) -> str:
        """Return the levels in a line, as values where the layer has one scale, as integers where it has many."""
        if not self.integers:
            return "not numbers"
        if len(self.integers) > MAX_PRINTED or len(self.scales) > 1:
            return f"integers from {min(self.integers)} to {max(self.integers)}, {len(self.scales)} scales"
        return ", ".join(f"{integer * self.scales[0]:+.4g}" if integer else "0" for integer in self.integers)


def quantized_layers(net: nn.Module) -> dict[str, nn.Module]:
    """Return the layers of `net` whose weights are quantized, by name, in the order of their definition."""
    return {
        name: module
        for name, module in net.named_modules()
        if isinstance(module, QuantWeightMixin) and module.weight_quant.is_quant_enabled
    }


def first_layer(net: nn.Module) -> nn.Module:
    """Return the first convolution or linear layer of `net`, quantized or not; raises ValueError without any."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            return module
    raise ValueError("the net has no convolution and no linear layer")


def latent(layer: nn.Module) -> torch.Tensor:
    """Return a copy of the float weights that the optimizer updates, on the CPU.

    A copy, because some quantizers of Brevitas change the layer's weights in place when they are asked for them.
    """
    return layer.weight.detach().float().cpu().clone()


@torch.no_grad()
def quantized(layer: nn.Module) -> torch.Tensor:
    """Return the weights that the layer computes with, in its weights' shape, on the CPU."""
    weight = layer.quant_weight() if isinstance(layer, QuantWeightMixin) else layer.weight
    return getattr(weight, "value", weight).detach().float().cpu() + 0.0  # a new tensor, with 0 instead of -0


@torch.no_grad()
def scale(layer: nn.Module) -> torch.Tensor:
    """Return the scale(s) s of a quantized layer, on the CPU: a weight is s times an integer."""
    return layer.quant_weight().scale.detach().float().cpu().clone()


def integers(layer: nn.Module) -> torch.Tensor:
    """Return the integers that a quantized layer's weights stand for, int64, in its weights' shape.

    Raises ValueError when the weights are not numbers.
    """
    values = quantized(layer)
    if not values.isfinite().all():
        raise ValueError("the layer's quantized weights are not numbers, so they stand for no integers")
    return torch.round(values / scale(layer)).long()


def describe(name: str, layer: nn.Module) -> LayerReport:
    """Return what one quantized layer's weights look like."""
    count, scales = layer.weight.numel(), tuple(scale(layer).flatten().tolist())
    try:
        levels, counts = integers(layer).unique(return_counts=True)
    except ValueError:
        return LayerReport(name, count, (), (), scales)
    return LayerReport(name, count, tuple(levels.tolist()[::-1]), tuple((counts / count).tolist()[::-1]), scales)


def report(net: nn.Module) -> str:
    """Return the levels of the first layer and, for each quantized layer, its levels and share of zeros, as text.

    A dead layer gets a warning; a net without quantized weights gets a sentence that says so.
    """
    layers = [describe(name, layer) for name, layer in quantized_layers(net).items()]
    title = getattr(net, "name", type(net).__name__)
    if not layers:
        return f"{title} has no quantized weights: its layers compute with 32-bit floats."
    lines = [f"{title}, first layer ({layers[0].name}): {layers[0]}", ""]
    width = max(len(layer.name) for layer in layers)
    lines.append(f"{'layer':{width}}  weights  levels  zeros  quantized weights")
    lines += [
        f"{layer.name:{width}}  {layer.count:7,}  {len(layer.integers):6}  {layer.zeros:5.0%}  {layer}"
        for layer in layers
    ]
    return "\n".join(lines + _warnings(layers))


def warnings(net: nn.Module) -> list[str]:
    """Return a sentence for each layer of `net` that is dead."""
    return _warnings([describe(name, layer) for name, layer in quantized_layers(net).items()])


def _warnings(layers: list[LayerReport]) -> list[str]:
    return [
        f"Warning: {layer.name} is dead: its weights are {'all 0' if layer.integers else 'not numbers'}, so neither "
        "signals nor gradients pass; train with a smaller learning rate or another quantizer."
        for layer in layers
        if layer.is_dead
    ]
