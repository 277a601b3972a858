"""Every Brevitas quantizer of the course, a few lines each, with its reason and its source.

A quantizer is a class of settings that Brevitas assembles into a module; a layer takes it as `weight_quant` or
`act_quant`. All weight quantizers here take their scale from the weights themselves at every step, so that they fit
any layer width and any initialization and leave the latent weights alone.
"""

import torch.nn.functional as F
from brevitas.quant import (
    Int8WeightPerChannelFloat,
    Int8WeightPerTensorFloat,
    SignedBinaryActPerTensorConst,
    Uint8ActPerTensorFloatMaxInit,
)
from brevitas.quant.solver import WeightQuantSolver
from torch import Tensor, nn


class BinaryWeight(WeightQuantSolver):
    """Weights of two levels, -s and +s: their signs, times their mean magnitude s.

    Brevitas' own `SignedBinaryWeightPerTensorConst` fixes s at 0.1 and clamps the layer's latent weights to +-0.1
    in place whenever it looks at them; this one follows the weights and only reads them.
    Source: Rastegari et al., XNOR-Net (arXiv 1603.05279), with one scale a layer: a BatchNorm after the layer
    rescales each channel anyway.
    """

    quant_type = "binary"
    bit_width = 1
    signed = True
    narrow_range = True
    scaling_impl_type = "stats"
    scaling_stats_op = "ave"
    scaling_per_output_type = "tensor"
    restrict_scaling_type = "fp"
    scaling_min_val = 1e-10  # a layer of zeros has scale 1e-10, not 0, and does not become NaN


class TernaryWeight(Int8WeightPerTensorFloat):
    """Weights of three levels, -s, 0 and +s, where s is their mean magnitude; what is below s/2 becomes 0.

    Two bits in narrow range are the integers -1, 0 and 1. Brevitas' own `SignedTernaryWeightPerTensorConst` fixes the
    threshold at 0.05, which is more than any weight of an ordinarily initialized wide layer: all become 0, for good.
    Source: Li et al., Ternary Weight Networks (arXiv 1605.04711), where the threshold is 0.7 of the mean magnitude;
    rounding puts it at 0.5.
    """

    bit_width = 2
    scaling_stats_op = "ave"


class Int2Weight(TernaryWeight):
    """Weights of 2 bits in narrow range: the levels of `TernaryWeight` under the name that W2A2 nets use."""


class Int4Weight(Int8WeightPerChannelFloat):
    """Weights of 4 bits, integers from -7 to 7, one scale a channel, set by the channel's largest magnitude."""

    bit_width = 4


class Int8Weight(Int8WeightPerChannelFloat):
    """Weights of 8 bits, integers from -127 to 127, one scale a channel, set by the channel's largest magnitude."""


class ClampToOne(nn.Module):
    """Cut off below -1 and above 1. Brevitas' own module is for bounds that may be learned, and slower for it."""

    def __init__(self) -> None:
        """Take nothing, and say so: Brevitas looks at what a part of a quantizer needs."""
        super().__init__()

    def forward(self, x: Tensor, min_val: Tensor, max_val: Tensor) -> Tensor:
        """Return `x` between -1 and 1, which are the bounds of `BinaryActivation`."""
        return F.hardtanh(x)  # clamp's backward goes over the numbers four times, this one's once


class BinaryActivation(SignedBinaryActPerTensorConst):
    """Activations of two levels, -1 and +1; the gradient passes where the input lies between -1 and 1.

    Source: Hubara et al., Binarized Neural Networks (arXiv 1602.02830).
    """

    tensor_clamp_impl = ClampToOne


class Int2Activation(Uint8ActPerTensorFloatMaxInit):
    """Activations of 2 bits, the integers 0 to 3, with a learned scale that starts at a range of 0 to 2.

    Behind a BatchNorm 2 is two standard deviations. Brevitas' default would watch the activations for 300 training
    steps before it sets a scale, which is longer than a short run.
    Source of the learned scale: Esser et al., Learned Step Size Quantization (arXiv 1902.08153).
    """

    bit_width = 2
    max_val = 2.0


class Int4Activation(Uint8ActPerTensorFloatMaxInit):
    """Activations of 4 bits, the integers 0 to 15, with a learned scale that starts at a range of 0 to 4."""

    bit_width = 4
    max_val = 4.0


class Int8Activation(Uint8ActPerTensorFloatMaxInit):
    """Activations of 8 bits, the integers 0 to 255, with a learned scale that starts at a range of 0 to 6."""

    max_val = 6.0
