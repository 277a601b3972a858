"""Schemes: which quantizers a net uses for its weights and its activations.

PytorchNN, TernaryNN and BinaryNN share architecture, initialization and recipe. Only their quantizers differ: this
comparison is the experiment of the course.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import brevitas.nn as qnn
from torch import nn

from ..common.errors import CourseError, check_type
from . import quantizers as q
from .recipe import check_settings
from .stem import DCTStem

# For binary activations, every response of the stem is compared with several thresholds, in standard deviations. A
# small patch has fewer filters and therefore gets more thresholds: the next layer needs about 64 signs per position.
THRESHOLDS = {2: (0.15, 0.5, 1.1), 4: (0.3, 1.0)}
UNSET: Any = object()  # the default of an argument that has to be chosen
FIRST_LAST_SUFFIX = "-8bit-first-last"  # of the variants whose first and last layer keep 8-bit weights

# Nets with binary activations learn best with Adam, smaller batches, and less variation of the images.
XNOR_RECIPE = {"optimizer": "adam", "lr": 0.005, "batch_size": 128, "label_smoothing": 0.1, "translate": 1}


@dataclass(frozen=True)
class Scheme:
    """How a net is quantized.

    Args:
        name: The net's name in tables and file names, such as "TernaryNN".
        bits: Bits of weights and activations as papers write them, such as "W1A1".
        weight: Class of the weight quantizer, or None for float weights.
        activation: Class of the activation quantizer, or None for a float ReLU.
        first_last: Class of the weight quantizer of the first and the last layer, or None for float weights. It has to
            be given wherever `weight` is, because nets are often worse if these two layers have few bits.
        recipe: The settings that differ between the best recipe for this scheme and that of the architecture.

    Raises:
        CourseError: If one of the quantizers is not the class of a quantizer of its kind, or is incomplete, or if the
            recipe has a setting that does not exist.
    """

    name: str
    bits: str
    weight: type | None = None
    activation: type | None = None
    first_last: type | None = UNSET
    recipe: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the quantizers here: Brevitas would only complain later, far from the cause."""
        check_type("name of a scheme", self.name, str, "a string, such as 'MyNN'")
        check_type(f"bits of {self.name}", self.bits, str, "a string, such as 'W1A1'")
        check_settings(self.recipe, f"recipe of {self.name}")
        if self.first_last is UNSET and self.weight is None:
            object.__setattr__(self, "first_last", None)
        if self.first_last is UNSET:
            raise CourseError(
                f"first_last of {self.name} is missing: pass the weight quantizer of its first and last layer, or None "
                "for float weights there."
            )
        for argument in ("weight", "first_last"):
            _check_quantizer(self.name, argument, getattr(self, argument), q.is_weight_quantizer, "BinaryWeight")
        _check_quantizer(self.name, "activation", self.activation, q.is_activation_quantizer, "BinaryActivation")

    def conv(self, inputs: int, outputs: int, kernel: int, first_or_last: bool = False, **options) -> nn.Module:
        """Return a convolution without bias, quantized as the scheme says; a BatchNorm is expected to follow."""
        quantizer = self.first_last if first_or_last else self.weight
        if quantizer is None:
            return nn.Conv2d(inputs, outputs, kernel, bias=False, **options)
        return qnn.QuantConv2d(inputs, outputs, kernel, bias=False, weight_quant=quantizer, **options)

    def linear(self, inputs: int, outputs: int, first_or_last: bool = False) -> nn.Module:
        """Return a linear layer without bias, quantized as the scheme says; a BatchNorm is expected to follow."""
        quantizer = self.first_last if first_or_last else self.weight
        if quantizer is None:
            return nn.Linear(inputs, outputs, bias=False)
        return qnn.QuantLinear(inputs, outputs, bias=False, weight_quant=quantizer)

    def stem(self, size: int, stride: int, inputs: int = 3) -> nn.Sequential:
        """Return the fixed first layer (`DCTStem`) and its BatchNorm; an activation is expected to follow.

        A sign discards almost all information about a number. With binary activations, each response is therefore
        compared with several thresholds (`THRESHOLDS`). The thresholds are fixed: learned ones would drift towards 1,
        beyond which the straight-through gradient of the sign is zero.

        Args:
            size: Height and width of a patch in pixels, 2 or 4.
            stride: Distance between patches in pixels.
            inputs: Number of channels of the images, 3 (RGB) or 1 (grey).

        Reference:
            Y. Zhang et al., FracBNN (arXiv 2012.12206), where pixels are compared with several thresholds.
        """
        thresholds = THRESHOLDS[size] if self.has_binary_activations else (0.0,)
        stem = DCTStem(size, stride, repeats=len(thresholds), inputs=inputs)
        norm = nn.BatchNorm2d(stem.channels)
        if self.has_binary_activations:
            norm.requires_grad_(False)
            for biases, threshold in zip(norm.bias.chunk(len(thresholds)), thresholds, strict=True):
                biases -= threshold
        return nn.Sequential(stem, norm)

    def act(self) -> nn.Module:
        """Return the activation.

        Without a quantizer it is a float ReLU, with one a quantized ReLU. A signed quantizer of one or two bits is used
        alone: it is a nonlinearity itself, and after a ReLU its negative levels (for a sign, all but +1) could never be
        reached. Signed quantizers of more bits are nearly linear, so they do get a ReLU.
        """
        if self.activation is None:
            return nn.ReLU()
        identity = qnn.QuantIdentity(act_quant=self.activation)
        bits = q.bits_of(identity.act_quant)
        is_own_nonlinearity = identity.act_quant.is_signed and bits is not None and bits <= 2
        return identity if is_own_nonlinearity else qnn.QuantReLU(act_quant=self.activation)

    @property
    def has_binary_activations(self) -> bool:
        """Whether activations have one bit."""
        return self.activation is not None and q.is_binary(self.act().act_quant)


def _check_quantizer(name: str, argument: str, quantizer: object, is_right: Callable, example: str) -> None:
    if quantizer is None:
        return
    kind = "weight" if is_right is q.is_weight_quantizer else "activation"
    if not is_right(quantizer):
        raise CourseError(
            f"{argument} of {name} is {quantizer!r}: pass the class of a quantizer for {kind}s, such as "
            f"quantizers.{example}, or None for floats."
        )
    if problem := q.problem_with(quantizer):
        kinds = "weights" if kind == "weight" else "the outputs of convolutions and linear layers"
        raise CourseError(
            f"{argument} of {name} is {quantizer.__name__}, which cannot quantize {kinds} on its own ({problem}): "
            f"complete its settings, or pass another quantizer, such as quantizers.{example}."
        )


def _schemes() -> dict[str, Scheme]:
    plain = [
        ("PytorchNN", "W32A32", None, None, {}),
        ("TernaryNN", "W1.58A32", q.TernaryWeight, None, {}),
        ("BinaryNN", "W1A32", q.BinaryWeight, None, {}),
        ("XnorNN", "W1A1", q.BinaryWeight, q.BinaryActivation, XNOR_RECIPE),
        ("Int2NN", "W2A2", q.Int2Weight, q.Int2Activation, {}),
        ("Int4NN", "W4A4", q.Int4Weight, q.Int4Activation, {}),
        ("Int8NN", "W8A8", q.Int8Weight, q.Int8Activation, {}),
    ]
    schemes = [Scheme(name, bits, weight, act, weight, recipe) for name, bits, weight, act, recipe in plain]
    with_wide_ends = [
        replace(scheme, name=scheme.name + FIRST_LAST_SUFFIX, first_last=q.Int8Weight)
        for scheme in schemes
        if scheme.weight not in (None, q.Int8Weight)
    ]
    return {scheme.name: scheme for scheme in schemes + with_wide_ends}


SCHEMES = _schemes()
