"""The fixed first layer of `ConvNet`: a discrete cosine transform (DCT) of small patches."""

import torch
import torch.nn.functional as F
from torch import nn

# One-dimensional basis functions by patch size, from the lowest frequency to the highest.
WAVES = {2: ((1, 1), (1, -1)), 4: ((1, 1, 1, 1), (2, 1, -1, -2), (1, -1, -1, 1), (1, -2, 2, -1))}
COLOURS = ((1, 1, 1), (1, 0, -1), (-1, 2, -1))  # brightness, red minus blue, twice green minus red and blue
# Highest frequency (row + column) that is kept, for each of COLOURS. Patches of 2 x 2 keep everything. Photographs
# contain much less high-frequency colour than high-frequency brightness, so patches of 4 x 4 drop it.
HIGHEST = {2: (2, 2, 2), 4: (3, 1, 1)}


def dct_filters(size: int) -> torch.Tensor:
    """Return orthogonal filters (n, 3, size, size) of small integers, -4 to 4.

    Patches of `size` 2 get 12 filters, which keep all information; patches of 4 get the 16 lowest frequencies.

    Reference:
        H. Malvar et al., Low-Complexity Transform and Quantization in H.264/AVC (2003). H.264's integer transform is a
        cosine transform, like that of JPEG, but needs only additions and shifts.
    """
    filters = [
        torch.einsum("c,h,w->chw", *(torch.tensor(factor, dtype=torch.float32) for factor in (colour, tall, wide)))
        for colour, highest in zip(COLOURS, HIGHEST[size], strict=True)
        for row, tall in enumerate(WAVES[size])
        for column, wide in enumerate(WAVES[size])
        if row + column <= highest
    ]
    return torch.stack(filters)


class DCTStem(nn.Module):
    """Correlate each patch of an image with fixed filters; return every response and its negative.

    Both signs are needed because a ReLU or a sign follows. Nothing is learned here and nothing is quantized: two or
    three weight values are too coarse for a layer with only three input channels, and quantizing such a layer costs
    low-bit nets 1.5 points of accuracy.

    Args:
        size: Height and width of a patch in pixels, 2 or 4.
        stride: Distance between patches in pixels.
        repeats: How often all responses are repeated, so that each can be compared with several thresholds
            (`Scheme.stem`).

    Reference:
        K. Jordan, airbench94 (arXiv 2404.00498), whose first layer is also fixed, with filters computed from the data.
    """

    def __init__(self, size: int = 4, stride: int = 2, repeats: int = 1) -> None:
        super().__init__()
        self.stride, self.padding, self.repeats = stride, size // 2 - 1, repeats
        self.register_buffer("filters", dct_filters(size), persistent=False)  # constant, so no checkpoint stores it
        self.channels = 2 * repeats * len(self.filters)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return responses (n, channels, h', w') for images (n, 3, h, w), in the memory format of the images."""
        responses = F.conv2d(images, self.filters, stride=self.stride, padding=self.padding)
        return torch.cat([responses, -responses] * self.repeats, 1)
