"""Look inside a net: integer levels, share of zeros, latent and quantized weights."""

from dataclasses import dataclass

import pandas as pd
import torch
from brevitas.core.scaling.standalone import ParameterFromRuntimeStatsScaling
from brevitas.core.stats.stats_wrapper import _RuntimeStats
from brevitas.core.zero_point import ParameterFromRuntimeZeroPoint
from brevitas.nn.mixin import QuantWeightMixin
from torch import nn
from torch.nn.parameter import is_lazy

from ..common.errors import CourseError, check_type
from ..common.tensors import check_values

MAX_LISTED = 8  # levels of a layer; more are summarized as a range
INTEGER_TOLERANCE = 1e-6  # of a level; float32 divides with a relative error of about 1e-7
MANTISSA_BITS = 16  # of a level that is not an integer
COLUMNS = ("weights", "levels", "zeros", "quantized weights")
COLLECTORS = (ParameterFromRuntimeStatsScaling, ParameterFromRuntimeZeroPoint, _RuntimeStats)
COLLECTED = ".collected."  # in the names of running statistics in a training's state


@dataclass(frozen=True)
class LayerReport:
    """The quantized weights of one layer.

    Args:
        name: The layer's name in the net.
        count: Number of weights.
        levels: The levels of the weights in units of the scale, from the largest down. They are integers, unless the
            quantizer has a floating-point format or a fractional zero point. Empty if weights are NaN or infinite.
        shares: Share of the weights (0 to 1) at each of these levels.
        scales: The scale, or one scale per channel; a weight is scale times level.
    """

    name: str
    count: int
    levels: tuple[float, ...]
    shares: tuple[float, ...]
    scales: tuple[float, ...]

    @property
    def integers(self) -> tuple[int, ...]:
        """The levels, if they are integers; else empty."""
        return tuple(map(int, self.levels)) if all(float(level).is_integer() for level in self.levels) else ()

    @property
    def zeros(self) -> float:
        """The share of weights that are zero, from 0 to 1."""
        return sum((share for level, share in zip(self.levels, self.shares, strict=True) if level == 0), 0.0)

    @property
    def is_dead(self) -> bool:
        """Whether no information passes through the layer: all weights are zero, or some are NaN or infinite."""
        return self.levels in ((), (0,))

    def __str__(self) -> str:
        """Return the levels as values if the layer has one scale and few levels, else as a range of integers."""
        if not self.levels:
            return "NaN or infinite"
        if len(self.levels) > MAX_LISTED or len(self.scales) > 1:
            kind = "integers" if self.integers else "fractions"
            return f"{kind} from {min(self.levels):.6g} to {max(self.levels):.6g}, {len(self.scales)} scales"
        return ", ".join(f"{level * self.scales[0]:+.4g}" if level else "0" for level in self.levels)


def check_net(net: object, name: str = "net", needs_values: bool = True) -> None:
    """Check that the argument `name` is a net whose parameters all have a shape.

    Raises:
        CourseError: If it is something else, if it has lazy layers that have not seen an image yet, or if its values
            are needed, and it is on the device meta, which stores none.
    """
    check_type(name, net, nn.Module, "a torch.nn.Module")
    tensors = (*net.named_parameters(), *net.named_buffers())
    lazy = [key for key, tensor in tensors if is_lazy(tensor)]
    if lazy:
        raise CourseError(
            f"{lazy[0]} of the net has no shape yet, because its layer is lazy: pass images through the net once, such "
            "as net(torch.zeros(2, 3, 32, 32)), or replace the layer with one that is not lazy."
        )
    for key, tensor in tensors if needs_values else ():
        check_values(f"{key} of {name}", tensor)


def check_layer(layer: object) -> None:
    """Check that `layer` is a layer whose weights are quantized.

    Raises:
        CourseError: If it is not.
    """
    if not isinstance(layer, QuantWeightMixin) or not layer.weight_quant.is_quant_enabled:
        raise CourseError(
            f"layer is a {type(layer).__name__} without quantized weights: pass one of weights.quantized_layers(net)."
        )


def _check_has_weight(layer: object) -> None:
    if not isinstance(getattr(layer, "weight", None), torch.Tensor):
        raise CourseError(
            f"layer is a {type(layer).__name__}, which has no weights: pass a convolution or linear layer."
        )


def quantized_layers(net: nn.Module) -> dict[str, nn.Module]:
    """Return the layers of `net` whose weights are quantized, by name, in the order of definition."""
    check_type("net", net, nn.Module, "a torch.nn.Module")
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


def late_parameters(net: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of `net` that are not in its state_dict yet, by name.

    Brevitas leaves out a scale or a zero point that is learned from statistics on until the first statistics are there.
    The file of a trained net therefore has tensors that a freshly built net lacks.
    """
    state = net.state_dict()
    parameters = net.named_parameters(remove_duplicate=False)  # a quantizer that two layers share is saved twice
    return {name: parameter for name, parameter in parameters if name not in state}


def training_state(net: nn.Module) -> dict[str, torch.Tensor]:
    """Return the state_dict of `net` with the running statistics of its quantizers, which Brevitas leaves out.

    Brevitas' quantizers of activations collect statistics in their first training steps (300 by default). The
    state_dict holds the scale that follows from them, and loading this scale ends the collection. A training that is
    resumed before needs the statistics and the number of steps so far instead.
    """
    state = net.state_dict() | late_parameters(net)
    for name, collector in _collectors(net):
        state[f"{name}{COLLECTED}counter"] = torch.tensor(collector.counter)
        state |= {f"{name}{COLLECTED}{key}": tensor.detach() for key, tensor in _own_tensors(collector)}
    return state


@torch.no_grad()
def load_training_state(net: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Load what `training_state` returned into `net`, which has to be on the CPU."""
    net.load_state_dict({key: tensor for key, tensor in state.items() if COLLECTED not in key}, strict=False)
    for name, collector in _collectors(net):
        collector.counter = int(state[f"{name}{COLLECTED}counter"])
        for key, tensor in _own_tensors(collector):
            tensor.copy_(state[f"{name}{COLLECTED}{key}"])


def _collectors(net: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the modules inside the quantizers of `net` that collect statistics of activations, by name."""
    return [(name, module) for name, module in net.named_modules() if isinstance(module, COLLECTORS)]


def _own_tensors(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]


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
    check_type("net", net, nn.Module, "a torch.nn.Module")
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            return module
    raise ValueError("the net has neither a convolution nor a linear layer")


def latent(layer: nn.Module) -> torch.Tensor:
    """Return a copy of the float weights that the optimizer updates, on the CPU.

    It is a copy because some of Brevitas' quantizers modify the layer's weights in place at every call.
    """
    _check_has_weight(layer)
    return layer.weight.detach().float().cpu().clone()


@torch.no_grad()
def quantized(layer: nn.Module) -> torch.Tensor:
    """Return the weights that the layer computes with, on the CPU, in the shape of `layer.weight`."""
    _check_has_weight(layer)
    weight = layer.quant_weight() if isinstance(layer, QuantWeightMixin) else layer.weight
    return getattr(weight, "value", weight).detach().float().cpu() + 0.0  # a new tensor, with 0 instead of -0


@torch.no_grad()
def scale(layer: nn.Module) -> torch.Tensor:
    """Return the scale or scales of a quantized layer, on the CPU; a quantized weight is scale times integer."""
    check_layer(layer)
    return layer.quant_weight().scale.detach().float().cpu().clone()


def integers(layer: nn.Module) -> torch.Tensor:
    """Return the integer levels of a quantized layer's weights, int64, in the shape of `layer.weight`.

    Raises:
        ValueError: If weights are NaN or infinite, or if they are not integers times a scale, because the quantizer has
            a floating-point format or a fractional zero point.
    """
    levels = _levels(layer)
    if not levels.isfinite().all():
        raise ValueError("the layer's quantized weights are NaN or infinite, so they have no integer levels")
    if (levels != levels.round()).any():
        raise ValueError("the layer's quantized weights are not integers times a scale")
    return levels.long()


@torch.no_grad()
def _levels(layer: nn.Module) -> torch.Tensor:
    """Return the weights in units of their scale, without the rounding errors of scaling and dividing."""
    check_layer(layer)
    weight = layer.quant_weight()
    levels = (weight.value + 0.0).float().cpu() / weight.scale.float().cpu()
    if ((levels - levels.round()).abs() <= INTEGER_TOLERANCE * levels.abs().clamp(min=1000)).all():
        return levels.round()
    mantissa, exponent = torch.frexp(levels)
    return torch.ldexp((mantissa * 2**MANTISSA_BITS).round() / 2**MANTISSA_BITS, exponent)


def describe(name: str, layer: nn.Module) -> LayerReport:
    """Return the levels, shares and scales of one quantized layer."""
    check_layer(layer)
    count, scales = layer.weight.numel(), tuple(scale(layer).flatten().tolist())
    every = _levels(layer)
    if not every.isfinite().all():
        return LayerReport(name, count, (), (), scales)
    every = every.long() if (every == every.round()).all() else every
    levels, counts = every.unique(return_counts=True)
    return LayerReport(name, count, tuple(levels.tolist()[::-1]), tuple((counts / count).tolist()[::-1]), scales)


def report(net: nn.Module) -> pd.DataFrame:
    """Return one row per quantized layer: number of weights, number of levels, share of zeros, and the levels.

    The table of a net without quantized weights is empty. `warnings` names layers that are dead.
    """
    check_net(net)
    layers = [describe(name, layer) for name, layer in quantized_layers(net).items()]
    rows = [(layer.count, len(layer.levels), round(layer.zeros, 3), str(layer)) for layer in layers]
    index = pd.Index([layer.name for layer in layers], name="layer")
    return pd.DataFrame(rows, index=index, columns=list(COLUMNS))


def warnings(net: nn.Module) -> list[str]:
    """Return one sentence for each dead layer of `net`."""
    return [
        f"Warning: {name} is dead: its weights are {'all 0' if layer.levels else 'NaN or infinite'}, so neither "
        "activations nor gradients pass; use a smaller learning rate or another quantizer."
        for name, layer in ((name, describe(name, layer)) for name, layer in quantized_layers(net).items())
        if layer.is_dead
    ]
