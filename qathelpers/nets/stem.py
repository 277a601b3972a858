"""The fixed first layer of `ConvNet`: a discrete cosine transform (DCT) of small patches."""

import torch
import torch.nn.functional as F
from torch import nn

# One-dimensional basis functions by patch size, from the lowest frequency to the highest.
WAVES = {2: ((1, 1), (1, -1)), 4: ((1, 1, 1, 1), (2, 1, -1, -2), (1, -1, -1, 1), (1, -2, 2, -1))}
# For grey images, brightness alone; for RGB: brightness, red minus blue, twice green minus red and blue.
COLOURS = {1: ((1,),), 3: ((1, 1, 1), (1, 0, -1), (-1, 2, -1))}
# Highest frequency (row + column) that is kept, for each of COLOURS. Patches of 2 x 2 keep everything. Photographs
# contain much less high-frequency colour than high-frequency brightness, so patches of 4 x 4 drop it.
HIGHEST = {2: (2, 2, 2), 4: (3, 1, 1)}


def check_channels(channels: int) -> None:
    """Check that nets can be built for images with this number of channels.

    Raises:
        ValueError: If they cannot.
    """
    if isinstance(channels, bool) or channels not in tuple(COLOURS):
        raise ValueError(f"channels must be 1 (grey) or 3 (RGB); got {channels!r}")


def dct_filters(size: int, channels: int = 3) -> torch.Tensor:
    """Return orthogonal filters (n, channels, size, size) of small integers, -4 to 4.

    For RGB images, patches of `size` 2 get 12 filters, which keep all information; patches of 4 get the 16 lowest
    frequencies. For grey images, the filters of the brightness are left, 4 or 10.

    Raises:
        ValueError: If `channels` is neither 1 nor 3.

    Reference:
        H. Malvar et al., Low-Complexity Transform and Quantization in H.264/AVC (2003). H.264's integer transform is a
        cosine transform, like that of JPEG, but needs only additions and shifts.
    """
    check_channels(channels)
    filters = [
        torch.einsum("c,h,w->chw", *(torch.tensor(factor, dtype=torch.float32) for factor in (colour, tall, wide)))
        for colour, highest in zip(COLOURS[channels], HIGHEST[size], strict=False)
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
        inputs: Number of channels of the images, 3 (RGB) or 1 (grey).

    Reference:
        K. Jordan, airbench94 (arXiv 2404.00498), whose first layer is also fixed, with filters computed from the data.
    """

    def __init__(self, size: int = 4, stride: int = 2, repeats: int = 1, inputs: int = 3) -> None:
        super().__init__()
        self.stride, self.padding, self.repeats = stride, size // 2 - 1, repeats
        # The filters are constant, so no checkpoint stores them.
        self.register_buffer("filters", dct_filters(size, inputs), persistent=False)
        self.channels = 2 * repeats * len(self.filters)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return responses (n, channels, h', w') for images (n, inputs, h, w), in the images' memory format."""
        responses = F.conv2d(images, self.filters, stride=self.stride, padding=self.padding)
        return torch.cat([responses, -responses] * self.repeats, 1)
