"""ConvNet, a small residual net that trains fast on a CPU."""

from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral

import torch
from torch import nn

from ..common.errors import CourseError, check_type
from .schemes import Scheme
from .stem import WAVES


class Block(nn.Module):
    """Two 3 x 3 convolutions: the first one is followed by pooling, the second one has a skip connection.

    No activation is applied to the features that pass from block to block. With binary activations, the skip connection
    therefore carries the information that signs discard.

    Args:
        scheme: How weights and activations are quantized.
        inputs: Number of input channels.
        outputs: Number of output channels.
        pool: Factor by which height and width shrink.

    Reference:
        Z. Liu et al., Bi-Real Net (arXiv 1808.00278), for the skip connections.
    """

    def __init__(self, scheme: Scheme, inputs: int, outputs: int, pool: int) -> None:
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
        """Return features (n, outputs, h / pool, w / pool) for features (n, inputs, h, w)."""
        x = self.widen(x)
        return x + self.refine(x)


def head(scheme: Scheme, inputs: int, classes: int) -> nn.Sequential:
    """Return the end of a `ConvNet`: the largest value of each channel, and a linear layer."""
    return nn.Sequential(
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        scheme.act(),
        scheme.linear(inputs, classes, first_or_last=True),
        nn.BatchNorm1d(classes),
    )


def _with(scheme: Scheme, weight: type | None) -> Scheme:
    return scheme if weight is scheme.weight else replace(scheme, weight=weight)


class ConvNet(nn.Module):
    """A fixed stem, three residual blocks and a linear layer: by default 0.50 M weights and 14 M MACs per image.

    With the default stride of 2, no feature map is larger than 16 x 16. A BatchNorm follows every layer, including the
    last, where it gives the logits a suitable scale, whatever the scale of the quantized weights.

    Args:
        scheme: How weights and activations are quantized.
        widths: Number of channels of each block.
        block_weights: The weight quantizer of each block, None for floats; by default all have that of the scheme.
        patch: Size of the stem's patches in pixels, 2 or 4 (see `DCTStem`).
        stride: Stride of the stem in pixels.
        pools: Factor by which each block shrinks height and width.
        classes: Number of classes.
        channels: Number of channels of the images, 3 (RGB) or 1 (grey).

    Raises:
        CourseError: If `widths`, `patch`, `stride` or `pools` are not whole numbers of at least 1, if there is not one
            width and one pool per block, or if `patch` is neither 2 nor 4.
    """

    def __init__(
        self,
        scheme: Scheme,
        widths: Sequence[int] = (48, 96, 152),
        patch: int = 4,
        stride: int = 2,
        pools: Sequence[int] = (2, 2, 1),
        classes: int = 10,
        channels: int = 3,
        block_weights: Sequence[type | None] | None = None,
    ) -> None:
        super().__init__()
        for name, values in (("widths", widths), ("pools", pools), ("stride", (stride,))):
            _check_counts(name, values)
        if len(widths) != len(pools):
            raise CourseError(
                f"widths={tuple(widths)} and pools={tuple(pools)} differ in length: pass one of each per block."
            )
        if patch not in WAVES:
            raise CourseError(f"patch is {patch!r}: choose {' or '.join(map(str, WAVES))}, the sizes of the stem.")
        schemes = [scheme] * len(widths) if block_weights is None else [_with(scheme, w) for w in block_weights]
        if len(schemes) != len(widths):
            raise CourseError(f"block_weights has {len(schemes)} quantizers for {len(widths)} blocks: pass one each.")
        self.stem = scheme.stem(patch, stride, channels)
        inputs = (self.stem[0].channels, *widths[:-1])
        sizes = zip(schemes, inputs, widths, pools, strict=True)
        self.blocks = nn.Sequential(*(Block(*size) for size in sizes))
        self.head = head(scheme, widths[-1], classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (n, classes) for normalized images (n, channels, h, w)."""
        return self.head(self.blocks(self.stem(images)))


def _check_counts(name: str, values: object) -> None:
    check_type(name, values, Sequence, "a tuple of whole numbers, one per block, such as (8, 12, 16)")
    wrong = [value for value in values if isinstance(value, bool) or not isinstance(value, Integral) or value < 1]
    if wrong or not values:
        found = f"contains {wrong[0]!r}" if wrong else "is empty"
        raise CourseError(f"{name} {found}: pass whole numbers of at least 1, such as (8, 12, 16).")
