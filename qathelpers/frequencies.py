"""The fixed first step of `ConvNet`: a patch of an image as a sum of patterns."""

import torch
import torch.nn.functional as F
from torch import nn

# Rows are patterns: the same everywhere, one slope, one hill, one wave.
WAVES = {2: ((1, 1), (1, -1)), 4: ((1, 1, 1, 1), (2, 1, -1, -2), (1, -1, -1, 1), (1, -2, 2, -1))}
COLOURS = ((1, 1, 1), (1, 0, -1), (-1, 2, -1))  # brightness, red against blue, green against both
# Of each colour, the fastest pattern that is kept, counted in both directions together. Of small patches it is all.
# Photographs hold much less of colours than of brightness that changes fast: of large patches those are left out.
FASTEST = {2: (2, 2, 2), 4: (3, 1, 1)}


def patterns(size: int) -> torch.Tensor:
    """Return filters (n, 3, size, size) of small integers, -4 to 4, each orthogonal to all others.

    A patch of `size` 2 has 12, which hold all that is in it, one of 4 the slowest 16.
    Source: the transform of H.264 (H. Malvar et al., Low-Complexity Transform and Quantization in H.264/AVC, 2003), a
    cosine transform, as in JPEG, that needs additions and shifts alone.
    """
    filters = [
        torch.einsum("c,h,w->chw", *(torch.tensor(factor, dtype=torch.float32) for factor in (colour, tall, wide)))
        for colour, fastest in zip(COLOURS, FASTEST[size], strict=True)
        for row, tall in enumerate(WAVES[size])
        for column, wide in enumerate(WAVES[size])
        if row + column <= fastest
    ]
    return torch.stack(filters)


class Frequencies(nn.Module):
    """Turn images (n, 3, h, w) into how much of each pattern there is, and minus that: (n, channels, h', w').

    Both signs, because what follows is a ReLU or a sign; with `copies` all of it so many times. Nothing is learned here
    and nothing quantized: two or three values a weight are too coarse for a layer that has only three channels to work
    with, and its levels would cost low bits 1.5 points of accuracy. A fixed first layer is that of airbench94
    (K. Jordan, arXiv 2404.00498), with filters from its data's statistics.
    """

    def __init__(self, size: int = 4, stride: int = 2, copies: int = 1) -> None:
        """Make the filters for patches of `size` pixels, 2 or 4, that lie `stride` apart; no checkpoint holds them."""
        super().__init__()
        self.stride, self.padding, self.copies = stride, size // 2 - 1, copies
        self.register_buffer("filters", patterns(size), persistent=False)
        self.channels = 2 * copies * len(self.filters)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the patches' patterns, channels last where the images are."""
        found = F.conv2d(images, self.filters, stride=self.stride, padding=self.padding)
        return torch.cat([found, -found] * self.copies, 1)
