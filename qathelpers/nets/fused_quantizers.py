"""The quantizers of the course, computed in fewer operations while a net trains or is evaluated.

Brevitas assembles a quantizer from small modules. The forward pass of one ternary layer takes about 50 operations, most
of them on single numbers such as the bit width, and the backward pass takes 30 more. Inside `fused`, the same
quantizers compute the same values and gradients in about 15 operations. Nothing else changes: they remain Brevitas'
modules, with the same state, and are exported as before. Quantizers that are assembled from other modules than those of
the course are computed by Brevitas.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import brevitas.config
import brevitas.nn as qnn
import torch
from brevitas.core.quant import BinaryQuant, RescalingIntQuant
from brevitas.proxy.runtime_quant import FusedActivationQuantProxy
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from . import quantizers as q

Quantized = tuple[Tensor, Tensor, Tensor, Tensor]  # values, scale, zero point and bit width
STATISTICS = "parameter_list_stats"  # the part of a weight quantizer that computes a mean or a maximum, of any kind


@contextmanager
def fused(net: nn.Module) -> Iterator[None]:
    """Compute the quantizers of `net` in fewer operations within this context; values and gradients stay the same."""
    changed = [(part, type(part), kind) for part in net.modules() if (kind := _fused_class(part))]
    for part, _, kind in changed:
        part.__class__ = kind
        part.read_numbers()
    try:
        yield
    finally:
        for part, original, _ in changed:
            part.__class__ = original


class _RoundedWeights(torch.autograd.Function):
    """Round weights to integers times a scale; the gradient passes as if nothing was rounded or clamped."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, weights: Tensor, magnitude: Tensor, smallest: float, steps: float, low: float, high: float
    ) -> tuple[Tensor, Tensor]:
        scale = magnitude.clamp(min=smallest) / steps
        ratio = weights / scale
        levels = ratio.round().clamp_(low, high)
        ctx.steps, ctx.shape = steps, magnitude.shape
        ctx.save_for_backward(levels - ratio)
        ctx.set_materialize_grads(False)
        return levels * scale, scale

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor | None, grad_scale: Tensor | None) -> tuple[Tensor | None, ...]:
        (error,) = ctx.saved_tensors
        total = _sum([None if grad is None else (grad * error).sum_to_size(ctx.shape), grad_scale])
        return grad, total / ctx.steps, None, None, None, None


class _SignedWeights(torch.autograd.Function):
    """Replace weights by their signs times a scale; the gradient is that of the weights times the scale."""

    @staticmethod
    def forward(ctx: FunctionCtx, weights: Tensor, magnitude: Tensor, smallest: float) -> tuple[Tensor, Tensor]:
        scale = magnitude.clamp(min=smallest)
        values = torch.copysign(scale, weights + 0.0)  # adding 0 makes +0 of -0, whose sign counts as positive
        ctx.save_for_backward(values, scale)
        ctx.set_materialize_grads(False)
        return values, scale

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor | None, grad_scale: Tensor | None) -> tuple[Tensor | None, ...]:
        values, scale = ctx.saved_tensors
        if grad is None:
            return None, grad_scale, None
        return grad * scale, _sum([(grad * values).sum_to_size(scale.shape) / scale, grad_scale]), None


class _RoundedActivations(torch.autograd.Function):
    """Apply a ReLU and round to the integers from 0 to `high` times a scale; what is beyond gets no gradient."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, magnitude: Tensor, steps: float, high: float) -> tuple[Tensor, Tensor]:
        scale = magnitude / steps
        ratio = x / scale
        levels = ratio.round().clamp_(0, high)
        ctx.steps, ctx.high = steps, high
        ctx.save_for_backward(ratio, levels)
        ctx.set_materialize_grads(False)
        return levels * scale, scale

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor | None, grad_scale: Tensor | None) -> tuple[Tensor | None, ...]:
        ratio, levels = ctx.saved_tensors
        if grad is None:
            return None, grad_scale / ctx.steps, None, None
        # A ratio of high + 0.5 is rounded to high + 1, which is even, and is beyond the range.
        inside = torch.ops.aten.hardtanh_backward(grad, ratio, 0, ctx.high + 0.5)
        total = (grad * levels).addcmul_(inside, ratio, value=-1).sum(dtype=torch.float32)
        return inside, _sum([total, grad_scale]) / ctx.steps, None, None


class _Signs(torch.autograd.Function):
    """Replace activations by -1 and +1; the gradient passes between -1 and 1."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        # Ten times as fast as comparing with 0. Adding 0 makes +0 of -0, whose sign counts as positive.
        return torch.copysign(x.new_ones(()), x + 0.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> Tensor:
        return torch.ops.aten.hardtanh_backward(grad, *ctx.saved_tensors, -1, 1)


def _sum(gradients: list[Tensor | None]) -> Tensor:
    return sum(gradient for gradient in gradients if gradient is not None)


class FusedIntWeights(RescalingIntQuant):
    """The quantizer of TernaryWeight, Int2Weight, Int4Weight and Int8Weight in few operations."""

    def read_numbers(self) -> None:
        """Read the settings that are the same for all weights, once, because a GPU would have to wait for each."""
        self.numbers = _smallest_scale(self), *_integers(self)

    def forward(self, x: Tensor) -> Quantized:
        """Return the quantized weights, their scale, their zero point and their bit width."""
        values, scale = _RoundedWeights.apply(x, self.scaling_impl.parameter_list_stats(x), *self.numbers)
        return values, scale, self.zero_point_impl.zero_point(), self.msb_clamp_bit_width_impl()


class FusedBinaryWeights(BinaryQuant):
    """The quantizer of BinaryWeight in few operations."""

    def read_numbers(self) -> None:
        """Read the settings that are the same for all weights."""
        self.numbers = (_smallest_scale(self),)

    def forward(self, x: Tensor) -> Quantized:
        """Return the quantized weights, their scale, their zero point and their bit width."""
        magnitude = torch.atleast_1d(self.scaling_impl.parameter_list_stats(x))  # the shape of Brevitas' own scale
        values, scale = _SignedWeights.apply(x, magnitude, *self.numbers)
        return values, scale, self.zero_point(), self.bit_width()


class FusedIntActivations(FusedActivationQuantProxy):
    """A ReLU and the quantizer of Int2Activation, Int4Activation and Int8Activation in few operations."""

    def read_numbers(self) -> None:
        """Read the settings that are the same for all activations."""
        steps, _, high = _integers(self.tensor_quant)
        self.numbers = steps, high

    def forward(self, x: Tensor) -> Quantized:
        """Return the quantized activations, their scale, their zero point and their bit width."""
        quantizer = self.tensor_quant
        magnitude = quantizer.scaling_impl.restrict_clamp_scaling(quantizer.scaling_impl.value)
        values, scale = _RoundedActivations.apply(x, magnitude, *self.numbers)
        return values, scale, quantizer.zero_point_impl.zero_point(), quantizer.msb_clamp_bit_width_impl()


class FusedSigns(FusedActivationQuantProxy):
    """The quantizer of BinaryActivation in few operations."""

    def read_numbers(self) -> None:
        """Do nothing: two levels of magnitude 1 leave nothing to be read."""

    def forward(self, x: Tensor) -> Quantized:
        """Return the quantized activations, their scale, their zero point and their bit width."""
        quantizer = self.tensor_quant
        scale = quantizer.scaling_impl.value().to(x.dtype).view(1)  # type and shape of Brevitas' own
        return _Signs.apply(x), scale, quantizer.zero_point(), quantizer.bit_width()


def _smallest_scale(quantizer: nn.Module) -> float:
    scaling = quantizer.scaling_impl.stats_scaling_impl
    return max(scaling.clamp_scaling.min_val, scaling.restrict_clamp_scaling.clamp_ste.min_val)


def _integers(quantizer: RescalingIntQuant) -> tuple[float, float, float]:
    """Return what a scale is multiplied with to get its range, and the lowest and the highest integer."""
    bits = quantizer.msb_clamp_bit_width_impl().cpu()
    integers = quantizer.int_quant
    return tuple(map(float, (quantizer.int_scaling_impl(bits), integers.min_int(bits), integers.max_int(bits))))


def _fused_class(part: nn.Module) -> type | None:
    """Return the class that computes the same as `part`; None if there is none, or if `part` has hooks."""
    if type(part) not in (RescalingIntQuant, BinaryQuant, FusedActivationQuantProxy) or brevitas.config.JIT_ENABLED:
        return None
    kind = _fused_classes().get(_structure(part))
    is_watched = any(m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m) for m in part.modules())
    return kind if kind and not is_watched and _has_the_settings(part, kind) else None


def _structure(part: nn.Module) -> tuple[tuple[str, type], ...]:
    """Return the names and types of the modules of which Brevitas assembled `part`, except for its statistics."""
    return tuple((name, type(module)) for name, module in part.named_modules() if STATISTICS not in name)


def _has_the_settings(part: nn.Module, kind: type) -> bool:
    """Return whether the settings of the modules of `part` are among those that `kind` can compute with."""
    if kind is FusedSigns:
        return part.tensor_quant.scaling_impl.value().item() == 1
    if kind is FusedIntActivations:
        integers = part.tensor_quant.int_quant
        has_one_scale = part.tensor_quant.scaling_impl.value.ndim == 0  # not one per channel
        return has_one_scale and not (part.tensor_quant.observer_only or integers.signed or integers.narrow_range)
    return kind is FusedBinaryWeights or not part.observer_only


@functools.cache
def _fused_classes() -> dict[tuple, type]:
    """Return the class for each structure of a quantizer of the course.

    Another release of Brevitas may compute something else. A class that does not agree with it is left out.
    """
    with torch.random.fork_rng(devices=[]), torch.autocast("cpu", enabled=False), torch.enable_grad():
        weights = {q.TernaryWeight: FusedIntWeights, q.Int4Weight: FusedIntWeights, q.BinaryWeight: FusedBinaryWeights}
        parts = [
            (qnn.QuantLinear(9, 5, bias=False, weight_quant=quantizer).weight_quant.tensor_quant, kind)
            for quantizer, kind in weights.items()
        ]
        activations = qnn.QuantReLU(act_quant=q.Int4Activation), qnn.QuantIdentity(act_quant=q.BinaryActivation)
        proxies = (layer.act_quant.fused_activation_quant_proxy for layer in activations)
        parts += zip(proxies, (FusedIntActivations, FusedSigns), strict=True)
        return {_structure(part): kind for part, kind in parts if _agree(part, kind)}


def _agree(part: nn.Module, kind: type) -> bool:
    """Return whether `part` gives the same values and gradients as an instance of `kind`."""
    original, results = type(part), []
    for each in (original, kind):
        part.__class__ = each
        x = torch.linspace(-1.5, 6, 45).view(5, 9).requires_grad_()
        try:
            if each is kind:
                part.read_numbers()
            values, scale, *rest = part(x)
            gradients = torch.autograd.grad((values * torch.linspace(0, 1, 9)).sum(), [x, *_learned(part)])
        except (AttributeError, TypeError, ValueError, RuntimeError):  # another release of Brevitas
            return False
        finally:
            part.__class__ = original
        results.append([values, scale, *rest, *gradients])
    pairs = list(zip(*results, strict=True))
    return all(one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, atol=1e-6) for one, other in pairs)


def _learned(part: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in part.parameters() if parameter.requires_grad]
