"""Mini-batches out of tensors in memory, on the device, augmented a batch at a time.

CIFAR-10 is small enough (0.8 GB normalised and padded) to stay in memory, so there is nothing for worker processes to
do: a batch is one indexing operation.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from . import parallel
from .errors import MAX_SEED, check_whole

# Per-channel mean and standard deviation of CIFAR-10's training images, as fractions from 0 to 1.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
# How alike CIFAR-10's neighbouring pixels are, and the colours of one pixel: correlations, measured on training images.
PIXEL_CORRELATION = 0.925
COLOUR_CORRELATION = 0.9
FIRST_SIDE = 16  # pixels
WHITENED_AT_ONCE = 5000  # images: what is needed besides the result stays small


def standardize(images: torch.Tensor) -> torch.Tensor:
    """Return uint8 images (n, 3, h, w) as float32 with mean 0 and standard deviation 1 a channel on CIFAR-10."""
    mean, std = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) * 255 for values in (MEAN, STD))
    return (images.float() - mean) / std


def whitening_filter(size: int = 3, eps: float = 0.1) -> torch.Tensor:
    """Return the filter (3, 3, size, size) that makes neighbouring pixels and colours of an image uncorrelated.

    Two pixels of a photograph correlate as 0.925 to the power of their distance, two colours of a pixel by 0.9. The
    inverse square root of that covariance whitens a patch (ZCA); its rows for the patch's centre are the filter. `eps`
    keeps noise, which has little variance, from being amplified without limit.
    Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009), with measured covariances.
    """
    steps = torch.arange(size, dtype=torch.float64)
    places = torch.cartesian_prod(steps, steps)
    colours = torch.full((3, 3), COLOUR_CORRELATION, dtype=torch.float64).fill_diagonal_(1)
    covariance = torch.kron(colours, PIXEL_CORRELATION ** torch.cdist(places, places))
    variances, directions = torch.linalg.eigh(covariance)
    whitening = (directions * (variances + eps).rsqrt()) @ directions.T
    return whitening.view(3, size**2, 3, size, size)[:, size**2 // 2].float()


def normalize(images: torch.Tensor) -> torch.Tensor:
    """Return uint8 images (n, 3, h, w) as float32, standardised and whitened, channels last.

    Without whitening most of an image is one number, its brightness, and a filter of signs can hardly be blind to it:
    for binary nets it is worth two points after two epochs. Done once for a data set, it costs no training time.
    """
    kernel = whitening_filter().to(images.device)
    parts = [
        F.conv2d(F.pad(standardize(part), [1] * 4, mode="reflect"), kernel) for part in images.split(WHITENED_AT_ONCE)
    ]
    return torch.cat(parts).to(memory_format=torch.channels_last)


def shrink(images: torch.Tensor, growth: float) -> torch.Tensor:
    """Return images (n, c, side, side) at a smaller side: 16 pixels for a `growth` of 0, their own from 1 on.

    In between a multiple of 4, so that nets can halve it twice. Bilinear, without the wider filter that would average
    over all pixels passed by: for half the side that is the mean of 2 x 2 pixels anyway, and it takes half the time.
    """
    full = images.shape[-1]
    side = FIRST_SIDE + 4 * round((full - FIRST_SIDE) * min(growth, 1) / 4)
    if side == full:
        return images
    return F.interpolate(images, size=(side, side), mode="bilinear")


class Batches:
    """A split of the data as mini-batches; `for images, labels in batches.epoch(0)` goes through it once.

    Images are float32 (batch, 3, 32, 32), normalised, channels last; labels are int64 (batch,). With `shuffle`
    their order changes from epoch to epoch. With `augment` each image is shifted by up to `max_shift` pixels (border
    reflected), flipped in every other epoch, half of the images in the even ones (none is seen the same way round
    twice in a row), and loses a square of `cutout` pixels a side somewhere. An epoch follows from `seed` and its number
    alone, which is why a resumed training repeats it.
    Sources: K. Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU (arXiv 2404.00498), of the alternating flips;
    T. DeVries and G. Taylor, Improved Regularization of Convolutional Neural Networks with Cutout (arXiv 1708.04552).
    """

    def __init__(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        batch_size: int = 256,
        *,
        shuffle: bool = False,
        augment: bool = False,
        max_shift: int = 2,
        cutout: int = 0,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        """Normalise uint8 `images` (n, 3, 32, 32) with int64 `labels` (n,) and keep them on `device`.

        Raises ValueError when there are no images, or not as many labels, or the batch size is below 1, or something is
        of another type: floats from 0 to 1 would be taken for images that are nearly black.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or labels.dtype != torch.int64:
            raise ValueError(
                "need images of uint8 (n, 3, h, w) and labels of int64 (n,); got images of "
                f"{images.dtype} {tuple(images.shape)} and labels of {labels.dtype} {tuple(labels.shape)}"
            )
        check_whole("batch size", batch_size, 1)
        check_whole("max_shift", max_shift, 0, 8)
        check_whole("cutout", cutout, 0, images.shape[-1])
        check_whole("seed", seed, 0, MAX_SEED)
        if not len(images) or labels.shape != (len(images),):
            raise ValueError(
                f"need as many labels as images and at least 1 of each; got {len(images)} images, "
                f"{labels.numel()} labels"
            )
        self.labels = labels.to(device)
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.augment, self.max_shift, self.cutout = augment, max_shift, cutout
        self.side = side = images.shape[-1]
        normalized = normalize(images.to(device))
        if augment:
            padded = F.pad(normalized, [max_shift] * 4, mode="reflect").permute(0, 2, 3, 1).contiguous()
            # (n, 2 s + 1, 2 s + 1, 3, h, w): every image under every shift, a view without a copy
            self.windows = padded.unfold(1, side, 1).unfold(2, side, 1)
            self.flipped = torch.rand(len(labels), generator=self._generator(-1)).lt(0.5).to(device)
        else:
            self.images = normalized

    def __len__(self) -> int:
        """Return the number of batches in an epoch; the last one may be smaller."""
        return -(-len(self.labels) // self.batch_size)

    def epoch(self, number: int, growth: float = 1) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the batches of epoch `number`, counted from 0, their images shrunk as `shrink` does.

        Of several processes (`parallel`) each gets its share of every batch.
        """
        generator, count, device = self._generator(number), len(self.labels), self.labels.device
        order = (torch.randperm(count, generator=generator) if self.shuffle else torch.arange(count)).to(device)
        shifts = torch.randint(2 * self.max_shift + 1, (2, count), generator=generator).to(device)
        corners = torch.randint(self.side - self.cutout + 1, (2, count), generator=generator).to(device)
        for batch in zip(*(t.split(self.batch_size) for t in (order, *shifts, *corners)), strict=True):
            part, rows, columns, tops, lefts = map(parallel.share, batch)
            images = self._augmented(part, rows, columns, number) if self.augment else self.images[part]
            if self.augment and self.cutout:
                images = self._cut(images, tops, lefts)
            yield shrink(images, growth).contiguous(memory_format=torch.channels_last), self.labels[part]

    def _augmented(self, part: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, number: int) -> torch.Tensor:
        images = self.windows[part, rows, columns]
        flip = self.flipped[part] ^ bool(number % 2)
        images[flip] = images[flip].flip(-1)
        return images

    def _cut(self, images: torch.Tensor, tops: torch.Tensor, lefts: torch.Tensor) -> torch.Tensor:
        pixels = torch.arange(self.side, device=images.device)
        rows, columns = (
            (pixels >= first[:, None]) & (pixels < first[:, None] + self.cutout) for first in (tops, lefts)
        )
        return images.masked_fill_((rows[:, :, None] & columns[:, None])[:, None], 0)  # 0 is the mean of all images

    def _generator(self, epoch: int) -> torch.Generator:
        # On the CPU, so that a seed gives the same batches on every device. Seeds stay apart by far more epochs
        # than anybody trains.
        return torch.Generator().manual_seed(self.seed * 1_000_003 + epoch + 1)
