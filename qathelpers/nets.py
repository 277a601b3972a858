"""The nets: an architecture, written once, and a scheme that says what is quantized how.

PytorchNN, TernaryNN and BinaryNN differ in nothing but the quantizers. That is the experiment.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import brevitas.nn as qnn
import torch
from torch import nn

from . import quantizers as q
from .errors import MAX_SEED, CourseError, check_whole
from .frequencies import Frequencies
from .recipe import Recipe

# Where activations are signs: what a pattern and its negative are compared with, in standard deviations. Small patches
# have fewer patterns and take more thresholds: what follows needs some 64 signs a place.
THRESHOLDS = {2: (0.15, 0.5, 1.1), 4: (0.3, 1.0)}
ENDS_SUFFIX = "-8bit-ends"  # a scheme's variant that keeps the first and the last layer's weights at 8 bits


@dataclass(frozen=True)
class Scheme:
    """What is quantized how: `bits` as the field writes it, and the quantizers (None: float)."""

    name: str
    bits: str
    weight: type | None = None
    activation: type | None = None
    ends: type | None = None  # of the weights of the first and the last layer
    recipe: dict[str, Any] = field(default_factory=dict)  # in what it is best trained otherwise than its architecture

    def __post_init__(self) -> None:
        """Raise CourseError naming what is no quantizer: Brevitas would complain in a place far from it."""
        for argument in ("weight", "activation", "ends"):
            quantizer = getattr(self, argument)
            if quantizer is not None and not isinstance(quantizer, type):
                raise CourseError(
                    f"{argument} of {self.name} is {quantizer!r}: give a quantizer's class, such as "
                    "quantizers.BinaryWeight, or None for floats."
                )

    def conv(self, inputs: int, outputs: int, kernel: int, end: bool = False, **options) -> nn.Module:
        """Return a convolution without bias whose weights are quantized; a BatchNorm is to follow."""
        quantizer = self.ends if end else self.weight
        if quantizer is None:
            return nn.Conv2d(inputs, outputs, kernel, bias=False, **options)
        return qnn.QuantConv2d(inputs, outputs, kernel, bias=False, weight_quant=quantizer, **options)

    def linear(self, inputs: int, outputs: int, end: bool = False) -> nn.Module:
        """Return a linear layer without bias whose weights are quantized; a BatchNorm is to follow."""
        quantizer = self.ends if end else self.weight
        if quantizer is None:
            return nn.Linear(inputs, outputs, bias=False)
        return qnn.QuantLinear(inputs, outputs, bias=False, weight_quant=quantizer)

    def stem(self, size: int, stride: int) -> nn.Sequential:
        """Return the fixed first step (`Frequencies`) with its BatchNorm; an activation is to follow.

        Of a number a sign keeps very little. Binary activations therefore compare each pattern with several thresholds.
        They are not learned: they would drift to 1, behind which the sign's straight-through gradient ends.
        Source: Y. Zhang et al., FracBNN (arXiv 2012.12206), for pixels.
        """
        if self.activation is not q.BinaryActivation:
            frequencies = Frequencies(size, stride)
            return nn.Sequential(frequencies, nn.BatchNorm2d(frequencies.channels))
        thresholds = THRESHOLDS[size]
        frequencies = Frequencies(size, stride, copies=len(thresholds))
        norm = nn.BatchNorm2d(frequencies.channels).requires_grad_(False)
        for biases, threshold in zip(norm.bias.chunk(len(thresholds)), thresholds, strict=True):
            biases -= threshold
        return nn.Sequential(frequencies, norm)

    def act(self) -> nn.Module:
        """Return the activation: ReLU, quantized where the scheme says so, or the sign for binary activations."""
        if self.activation is None:
            return nn.ReLU()
        if self.activation is q.BinaryActivation:
            return qnn.QuantIdentity(act_quant=self.activation)
        return qnn.QuantReLU(act_quant=self.activation)


def _schemes() -> dict[str, Scheme]:
    plain = [
        Scheme("PytorchNN", "W32A32"),
        Scheme("TernaryNN", "W1.58A32", q.TernaryWeight),
        Scheme("BinaryNN", "W1A32", q.BinaryWeight),
        Scheme(
            "XnorNN",
            "W1A1",
            q.BinaryWeight,
            q.BinaryActivation,
            recipe={"optimizer": "adam", "lr": 0.005, "batch_size": 128, "label_smoothing": 0.1, "max_shift": 1},
        ),
        Scheme("Int2NN", "W2A2", q.Int2Weight, q.Int2Activation),
        Scheme("Int4NN", "W4A4", q.Int4Weight, q.Int4Activation),
        Scheme("Int8NN", "W8A8", q.Int8Weight, q.Int8Activation),
    ]
    schemes = [replace(scheme, ends=scheme.weight) for scheme in plain]
    wide_ends = [
        replace(scheme, name=scheme.name + ENDS_SUFFIX, ends=q.Int8Weight)
        for scheme in plain
        if scheme.weight not in (None, q.Int8Weight)
    ]
    return {scheme.name: scheme for scheme in schemes + wide_ends}


SCHEMES = _schemes()


class LeNet(nn.Module):
    """The size of the original experiment: two convolutions, three linear layers, 62 k weights.

    Trained as the original was, on the images as they are: without augmentation the float net learns them by heart.
    """

    epochs = epochs_with_bf16 = 100
    recipe = Recipe(augment=False, label_smoothing=0.0)

    def __init__(self, scheme: Scheme) -> None:
        """Build the net with the quantizers of `scheme`."""
        super().__init__()
        self.features = nn.Sequential(
            scheme.conv(3, 6, 5, end=True),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(6),
            scheme.act(),
            scheme.conv(6, 16, 5),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(16),
            scheme.act(),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            scheme.linear(16 * 5 * 5, 120),
            nn.BatchNorm1d(120),
            scheme.act(),
            scheme.linear(120, 84),
            nn.BatchNorm1d(84),
            scheme.act(),
            scheme.linear(84, 10, end=True),
            nn.BatchNorm1d(10),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (n, 10) of normalised images (n, 3, 32, 32)."""
        return self.classifier(self.features(images))


class Block(nn.Module):
    """Two convolutions of 3 x 3; a pooling after the first one, a skip around the second one.

    What goes from block to block is not yet activated: with binary activations the skip carries what signs cannot.
    Source of such skips: Liu et al., Bi-Real Net (arXiv 1808.00278).
    """

    def __init__(self, scheme: Scheme, inputs: int, outputs: int, pool: int) -> None:
        """Build a block that divides height and width by `pool`."""
        super().__init__()
        self.widen = nn.Sequential(
            scheme.act(),
            scheme.conv(inputs, outputs, 3, padding=1),
            nn.MaxPool2d(pool),
            nn.BatchNorm2d(outputs),
        )
        self.refine = nn.Sequential(
            scheme.act(),
            scheme.conv(outputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return features (n, outputs, h / pool, w / pool) of features (n, inputs, h, w)."""
        x = self.widen(x)
        return x + self.refine(x)


class ConvNet(nn.Module):
    """A residual net made to train fast on a CPU: 0.50 M weights, 14 million multiplications an image.

    Its stem is fixed (`Frequencies`) and moves in steps of two pixels, so that no convolution sees more than 16 x 16
    positions. A BatchNorm follows every layer, the last one too: it makes logits of the right size out of weights of
    any scale.
    """

    epochs, epochs_with_bf16 = 5, 10  # what three nets are trained for in ten minutes on two cores
    recipe = Recipe(growing=2 / 3)
    patch, stride = 4, 2  # pixels, of the stem
    widths = (48, 96, 152)  # channels of the three blocks
    pools = (2, 2, 1)

    def __init__(self, scheme: Scheme) -> None:
        """Build the net with the quantizers of `scheme`."""
        super().__init__()
        self.stem = scheme.stem(self.patch, self.stride)
        inputs = (self.stem[0].channels, *self.widths[:-1])
        sizes = zip(inputs, self.widths, self.pools, strict=True)
        self.blocks = nn.Sequential(*(Block(scheme, *size) for size in sizes))
        self.head = nn.Sequential(
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            scheme.act(),
            scheme.linear(self.widths[-1], 10, end=True),
            nn.BatchNorm1d(10),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (n, 10) of normalised images (n, 3, 32, 32)."""
        return self.head(self.blocks(self.stem(images)))


class SharpNet(ConvNet):
    """ConvNet with a stem that moves pixel by pixel: 0.77 M weights, 49 million multiplications an image.

    The stem's patches are small and lose nothing: to leave out fast patterns costs nearly a point here.
    The widths are nearly in the proportions of airbench94 (K. Jordan, arXiv 2404.00498): few channels where the picture
    is large.
    """

    epochs = epochs_with_bf16 = 14  # what one net is trained for in ten minutes on two cores that multiply bf16
    recipe = Recipe(growing=2 / 3, max_shift=2)
    patch, stride = 2, 1
    widths = (40, 160, 160)
    pools = (2, 2, 2)


ARCHITECTURES: dict[str, type[nn.Module]] = {"lenet": LeNet, "convnet": ConvNet, "sharpnet": SharpNet}


def build(name: str | Scheme, arch: str = "convnet", seed: int = 0) -> nn.Module:
    """Return a new net of scheme `name`, or of a `Scheme` of your own, and architecture `arch` (see `architecture`).

    It is initialized from `seed` and carries `name`, `arch`, `bits`, `seed` and the `recipe` it is best trained with.
    Schemes start from the same latent weights, except those with binary activations, whose first convolution is wider
    (`Scheme.stem`). Raises CourseError listing the names when there is no such scheme or architecture, ValueError for a
    seed that is no whole number from 0 up.
    """
    check_whole("seed", seed, 0, MAX_SEED)
    scheme = name if isinstance(name, Scheme) else _choose("net", name, SCHEMES)
    if scheme != SCHEMES.get(scheme.name, scheme):
        raise CourseError(f"{scheme.name} is a scheme of the course: give your own another name.")
    chosen = architecture(arch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = chosen(scheme)
    net.name, net.arch, net.bits, net.seed = scheme.name, arch, scheme.bits, seed
    net.recipe = replace(chosen.recipe, **scheme.recipe)
    return net


def architecture(arch: str) -> type[nn.Module]:
    """Return the class called `arch`; "convnet-x1.5" is convnet with 1.5 times as many channels, in steps of 8.

    Raises CourseError listing the names when there is no such architecture, or when it cannot be widened.
    """
    name, _, factor = str(arch).partition("-x")
    chosen = _choose("architecture", name, ARCHITECTURES)
    if name == arch:
        return chosen
    if not hasattr(chosen, "widths"):
        raise CourseError(f"{name} has one width only: leave out '-x{factor}', or widen convnet.")
    try:
        widths = tuple(max(8, 8 * round(width * float(factor) / 8)) for width in chosen.widths)
    except (ValueError, OverflowError) as error:
        raise CourseError(f"{arch} is no width: give a number behind the x, as in {name}-x1.5.") from error
    return type(chosen.__name__, (chosen,), {"widths": widths})


def _choose(kind: str, name: str, known: dict) -> Any:
    if not isinstance(name, str) or name not in known:
        raise CourseError(f"There is no {kind} {name!r}: choose one of {', '.join(known)}.")
    return known[name]
