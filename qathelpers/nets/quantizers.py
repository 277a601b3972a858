"""The Brevitas quantizers of the course: a few lines each, with the reasons for their settings and a reference.

A quantizer is a class of settings from which Brevitas assembles a module. A layer takes this class as `weight_quant` or
`act_quant`. All weight quantizers here compute their scale from the weights at every step. They therefore suit any
layer width and any initialization, and they never modify the latent weights.
"""

import brevitas.nn as qnn
import torch
import torch.nn.functional as F
from _dependencies.exceptions import DependencyError
from brevitas.nn.mixin import QuantWeightMixin
from brevitas.proxy.parameter_quant import WeightQuantProxyProtocol
from brevitas.proxy.quant_proxy import QuantProxyFromInjector
from brevitas.proxy.runtime_quant import ActQuantProxyProtocol
from brevitas.quant import (
    Int8WeightPerChannelFloat,
    Int8WeightPerTensorFloat,
    SignedBinaryActPerTensorConst,
    Uint8ActPerTensorFloatMaxInit,
)
from brevitas.quant.solver import WeightQuantSolver
from torch import Tensor, nn

from ..common.errors import raise_if_of_the_machine

FLOAT_BITS = 32


def is_binary(quantizer: nn.Module) -> bool:
    """Return whether a layer's `weight_quant` or `act_quant` has two levels, whichever quantizer it comes from."""
    return bits_of(quantizer) == 1


def bits_of(quantizer: nn.Module) -> int | None:
    """Return the bit width of a layer's `weight_quant` or `act_quant`; None if it is switched off or not an integer."""
    if not quantizer.is_quant_enabled or not hasattr(quantizer, "bit_width"):  # floating-point formats have none
        return None
    return int(quantizer.bit_width())


def bits_per_value(quantizer: nn.Module) -> int | None:
    """Return the bits of the integers or floats that a layer's quantizer returns; None if it is switched off."""
    if not quantizer.is_quant_enabled:
        return None
    if (bits := bits_of(quantizer)) is not None:
        return bits
    widths = [getattr(quantizer, f"{part}_bit_width", lambda: None)() for part in ("exponent", "mantissa")]
    return FLOAT_BITS if None in widths else 1 + sum(int(width) for width in widths)  # one bit is the sign


def is_weight_quantizer(quantizer: object) -> bool:
    """Return whether a class is a Brevitas quantizer for weights."""
    return _has_proxy(quantizer, WeightQuantProxyProtocol)


def is_activation_quantizer(quantizer: object) -> bool:
    """Return whether a class is a Brevitas quantizer for activations."""
    return _has_proxy(quantizer, ActQuantProxyProtocol)


def _has_proxy(quantizer: object, protocol: type) -> bool:
    """Return whether Brevitas would make a module of the kind `protocol` from a quantizer."""
    if not isinstance(quantizer, type):
        return False
    try:
        return protocol in quantizer.proxy_class.__mro__
    except (AttributeError, DependencyError):  # not a quantizer, or one without a proxy_class
        return False


def problem_with(quantizer: type) -> str:
    """Return why Brevitas cannot quantize small tensors with a weight or activation quantizer, or an empty string.

    An activation quantizer has to accept what convolutions return as well as what linear layers return, because a
    scheme uses one quantizer for all activations of a net.
    """
    try:
        with torch.random.fork_rng(devices=[]):  # the layers must not use up random numbers of the reader
            if is_weight_quantizer(quantizer):
                qnn.QuantConv2d(3, 4, 3, bias=False, weight_quant=quantizer).quant_weight()
            else:
                activation = qnn.QuantIdentity(act_quant=quantizer)
                for shape in ((2, 4, 3, 3), (2, 4)):
                    activation(torch.randn(shape))
    except Exception as error:  # an incomplete quantizer can raise almost anything
        raise_if_of_the_machine(error)
        return f"{type(error).__name__}: {error}"
    return ""


def learned_parameters(net: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that belong to the quantizers of `net`, such as learned scales."""
    modules = list(net.modules())
    # A quantizer that computes its scale from the weights also holds the weights themselves.
    weights = {id(module.weight) for module in modules if isinstance(module, QuantWeightMixin)}
    quantizers = (module for module in modules if isinstance(module, QuantProxyFromInjector))
    parameters = {id(parameter): parameter for quantizer in quantizers for parameter in quantizer.parameters()}
    return [parameter for key, parameter in parameters.items() if key not in weights]


class BinaryWeight(WeightQuantSolver):
    """Two levels, -s and +s: the sign of each weight times the mean magnitude s of the layer's weights.

    Brevitas' own `SignedBinaryWeightPerTensorConst` fixes s at 0.1 and clamps the layer's latent weights to +-0.1 in
    place at every call. This quantizer computes s from the weights and never modifies them.

    Reference:
        M. Rastegari et al., XNOR-Net (arXiv 1603.05279), here with one scale per layer, because the BatchNorm after
        the layer rescales each channel anyway.
    """

    quant_type = "binary"
    bit_width = 1
    signed = True
    narrow_range = True
    scaling_impl_type = "stats"
    scaling_stats_op = "ave"
    scaling_per_output_type = "tensor"
    restrict_scaling_type = "fp"
    scaling_min_val = 1e-10  # for a layer of zeros, whose weights a scale of 0 would turn into NaN


class TernaryWeight(Int8WeightPerTensorFloat):
    """Three levels, -s, 0 and +s, where s is the mean magnitude; weights smaller than s/2 become 0.

    Two bits in narrow range give the integers -1, 0 and 1. Brevitas' own `SignedTernaryWeightPerTensorConst` fixes the
    threshold at 0.05. In a wide layer with the usual initialization, no weight is that large, so all weights become 0
    and stay 0.

    Reference:
        F. Li et al., Ternary Weight Networks (arXiv 1605.04711), where the threshold is 0.7 times the mean magnitude;
        here, rounding puts it at 0.5 times.
    """

    bit_width = 2
    scaling_stats_op = "ave"


class Int2Weight(TernaryWeight):
    """2-bit weights in narrow range: the levels of `TernaryWeight` under the name that W2A2 nets use."""


class Int4Weight(Int8WeightPerChannelFloat):
    """4-bit weights, integers from -7 to 7; one scale per channel, from the channel's largest magnitude."""

    bit_width = 4


class Int8Weight(Int8WeightPerChannelFloat):
    """8-bit weights, integers from -127 to 127; one scale per channel, from the channel's largest magnitude."""


class ClampToOne(nn.Module):
    """Clamp to the range from -1 to 1. Brevitas' own module supports learned bounds, which makes it slower."""

    def __init__(self) -> None:
        # This must be defined, without arguments: Brevitas reads its signature to find out which arguments to pass.
        super().__init__()

    def forward(self, x: Tensor, min_val: Tensor, max_val: Tensor) -> Tensor:
        """Return `x` clamped to -1 and 1, the bounds of `BinaryActivation`."""
        return F.hardtanh(x)  # its backward pass reads the tensor once, that of clamp four times


class BinaryActivation(SignedBinaryActPerTensorConst):
    """Two levels, -1 and +1; the gradient passes where the input lies between -1 and 1.

    Reference:
        I. Hubara et al., Binarized Neural Networks (arXiv 1602.02830).
    """

    tensor_clamp_impl = ClampToOne


class Int2Activation(Uint8ActPerTensorFloatMaxInit):
    """2-bit activations, the integers 0 to 3, with a learned scale; the initial range is 0 to 2.

    After a BatchNorm, 2 means two standard deviations. Brevitas' default would collect statistics for 300 training
    steps before it sets a scale, which is longer than a short run.

    Reference:
        S. Esser et al., Learned Step Size Quantization (arXiv 1902.08153), for the learned scale.
    """

    bit_width = 2
    max_val = 2.0


class Int4Activation(Uint8ActPerTensorFloatMaxInit):
    """4-bit activations, the integers 0 to 15, with a learned scale; the initial range is 0 to 4."""

    bit_width = 4
    max_val = 4.0


class Int8Activation(Uint8ActPerTensorFloatMaxInit):
    """8-bit activations, the integers 0 to 255, with a learned scale; the initial range is 0 to 6."""

    max_val = 6.0
