"""Mini-batches from tensors in the memory of the device, augmented a whole batch at a time.

CIFAR-10 is small enough to stay in memory (0.8 GB normalized and padded). A batch is then a single indexing operation,
and no worker processes are needed.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from ..common import distributed, hardware
from ..common.errors import MAX_SEED, CourseError, check_whole

# Mean and standard deviation per channel of the training images of CIFAR-10, with pixels from 0 to 1.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
GREY_MEAN, GREY_STD = (0.4809,), (0.2392,)  # of the same images in grey
STATISTICS = {1: (GREY_MEAN, GREY_STD), 3: (MEAN, STD)}  # by number of channels
CHANNELS = tuple(STATISTICS)
# Correlations measured on the training images of CIFAR-10: between neighbouring pixels, and between two colour channels
# of one pixel.
PIXEL_CORRELATION = 0.925
COLOUR_CORRELATION = 0.9
FIRST_SIDE = 16  # pixels, at the start of progressive resizing
WHITENED_AT_ONCE = 5000  # images; keeps the memory for intermediate results small


def standardize(images: torch.Tensor) -> torch.Tensor:
    """Return uint8 images as float32; on CIFAR-10, in colour or in grey, each channel gets mean 0 and deviation 1.

    The mean and the standard deviation are fixed, for every data set. A net therefore gets the same input for the same
    picture wherever it is used, and no statistics have to be saved with the net. In the course's nets, a BatchNorm
    follows the first layer. It adapts to data with another mean and standard deviation.

    Args:
        images: RGB images (n, 3, h, w) or grey images (n, 1, h, w).

    Raises:
        CourseError: If the images have another shape.
    """
    _check_channels(images)
    statistics = STATISTICS[images.shape[1]]
    mean, std = (
        torch.tensor(values, dtype=torch.float32, device=images.device).view(1, -1, 1, 1) * 255 for values in statistics
    )
    return (images.float() - mean) / std


def whitening_filter(size: int = 3, eps: float = 0.1, channels: int = 3) -> torch.Tensor:
    """Return a filter that removes the correlation between neighbouring pixels and colours (ZCA).

    The covariance of a patch follows a simple model: two pixels at distance d have the correlation 0.925 ** d, and two
    colours of one pixel have the correlation 0.9. Grey images follow the same model with a single colour. The inverse
    square root of this covariance matrix whitens a patch. Its rows for the centre of the patch form the filter.

    Args:
        size: Height and width of the filter in pixels.
        eps: Added to the variances, so that noise, which has little variance, is not amplified without limit.
        channels: 3 for RGB images, 1 for grey ones.

    Returns:
        The filter, float32 (channels, channels, size, size).

    Reference:
        A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009), which uses measured covariances.
    """
    steps = torch.arange(size, dtype=torch.float64)
    places = torch.cartesian_prod(steps, steps)
    colours = torch.full((channels, channels), COLOUR_CORRELATION, dtype=torch.float64).fill_diagonal_(1)
    covariance = torch.kron(colours, PIXEL_CORRELATION ** torch.cdist(places, places))
    variances, directions = torch.linalg.eigh(covariance)
    whitening = (directions * (variances + eps).rsqrt()) @ directions.T
    return whitening.view(channels, size**2, channels, size, size)[:, size**2 // 2].float()


def normalize(images: torch.Tensor) -> torch.Tensor:
    """Return uint8 images as float32, standardized and whitened, in the device's memory format for convolutions.

    Without whitening, brightness dominates the responses of most filters, because few filters with weights of +1 and -1
    cancel it. For binary nets, whitening gains two points of accuracy after two epochs. It is done once per data set
    and costs no training time.

    Args:
        images: RGB images (n, 3, h, w) or grey images (n, 1, h, w).

    Raises:
        CourseError: If the images have another shape.
    """
    _check_channels(images)
    kernel = whitening_filter(channels=images.shape[1]).to(images.device)
    padded = (F.pad(standardize(part), [1] * 4, mode="reflect") for part in images.split(WHITENED_AT_ONCE))
    with hardware.full_precision():
        parts = [F.conv2d(part, kernel) for part in padded]
    return torch.cat(parts).to(memory_format=hardware.memory_format(images.device))


def _check_channels(images: torch.Tensor) -> None:
    if images.ndim != 4 or images.shape[1] not in CHANNELS:
        raise CourseError(
            f"Images of the shape {tuple(images.shape)} cannot be normalized: pass RGB images (n, 3, h, w) or grey "
            "images (n, 1, h, w)."
        )


def progressive_side(progress: float, full: int) -> int:
    """Return the side length of the images, in pixels, at a given point of progressive resizing.

    Args:
        progress: 0 at the start of progressive resizing, 1 at its end; larger values mean that it is over.
        full: The side length of the full-size images.

    Returns:
        16 at the start and `full` at the end, in steps of 4, so that nets can halve the side twice. Images that are
        smaller than 16 pixels keep their size.
    """
    if progress >= 1 or full <= FIRST_SIDE:
        return full
    return min(FIRST_SIDE + 4 * round((full - FIRST_SIDE) * progress / 4), full)


def resize(images: torch.Tensor, side: int) -> torch.Tensor:
    """Return images (n, c, h, w) resized to (n, c, side, side).

    The interpolation is bilinear, without antialiasing, which would take twice the time. At half the side, each new
    pixel is the mean of 2 x 2 pixels.
    """
    if side == images.shape[-1]:
        return images
    return F.interpolate(images, size=(side, side), mode="bilinear")


class Batches:
    """The images of a split as mini-batches: `for images, labels in batches.epoch(0)` goes through all of them once.

    Each batch has images, float32 (batch, channels, h, w), normalized, in `memory_format`, and labels, int64
    (batch,). An epoch is determined by the seed and its number alone, so a resumed training sees the same
    batches.

    Args:
        images: Uint8, RGB (n, 3, h, w) or grey (n, 1, h, w); CIFAR-10 has 32 x 32 pixels.
        labels: Int64 (n,).
        batch_size: The number of images per batch; the last batch may be smaller.
        shuffle: Put the images in a new random order in each epoch.
        augment: Shift, flip and partly cover the images at random. Each image is flipped in every other epoch: a random
            half of the images in the even epochs, and the rest in the odd ones.
        translate: The largest shift in pixels, vertically and horizontally; the border is filled by reflection.
        cutout: The side, in pixels, of a square that is set to 0 at a random position in each image; 0 for none.
        seed: Determines the order and the augmentation of the images.
        device: Where the images are kept.
        memory_format: How the images of a batch are arranged in memory; by default as in `hardware.memory_format`.

    Raises:
        ValueError: If images or labels have the wrong type or shape, if there are none, if their counts differ, if
            images are not square, if a label is negative, or if an option is out of range. Float images are rejected,
            because values from 0 to 1 would be taken for almost black pixels.
        CourseError: If there is no such device.

    Reference:
        Alternating flips: K. Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU (arXiv 2404.00498).
        Cutout: T. DeVries and G. Taylor, Improved Regularization of Convolutional Neural Networks with Cutout
        (arXiv 1708.04552).
    """

    def __init__(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        batch_size: int = 256,
        *,
        shuffle: bool = False,
        augment: bool = False,
        translate: int = 2,
        cutout: int = 0,
        seed: int = 0,
        device: torch.device | str = "cpu",
        memory_format: torch.memory_format | None = None,
    ) -> None:
        """Normalize the images and keep them on `device`."""
        for argument, value in (("images", images), ("labels", labels)):
            if not isinstance(value, torch.Tensor):
                raise ValueError(f"{argument} is a {type(value).__name__}: pass a torch.Tensor")
        has_channels = images.ndim == 4 and images.shape[1] in CHANNELS
        if images.dtype != torch.uint8 or not has_channels or labels.dtype != torch.int64:
            raise ValueError(
                "expected images of torch.uint8 (n, 3, h, w) or (n, 1, h, w), and labels of torch.int64 (n,); got "
                f"images of {images.dtype} {tuple(images.shape)} and labels of {labels.dtype} {tuple(labels.shape)}"
            )
        if images.shape[2] != images.shape[3] or images.shape[3] < 2:
            raise ValueError(
                f"expected square images of at least 2 x 2 pixels; got {images.shape[2]} x {images.shape[3]}"
            )
        check_whole("batch_size", batch_size, 1)
        # The border is filled by reflection, which needs more pixels than it adds.
        check_whole("translate", translate, 0, min(8, images.shape[-1] - 1) if augment else 8)
        check_whole("cutout", cutout, 0, images.shape[-1])
        check_whole("seed", seed, 0, MAX_SEED)
        if not len(images) or labels.shape != (len(images),):
            raise ValueError(
                f"expected one label per image, and at least one image; got {len(images)} images and "
                f"{labels.numel()} labels"
            )
        if labels.min() < 0:
            raise ValueError(f"labels must not be negative; got {labels.min().item()}")
        device = hardware.find_device(device)
        self.labels = labels.to(device)
        self.memory_format = memory_format or hardware.memory_format(device)
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.augment, self.translate, self.cutout = augment, translate, cutout
        self.side = side = images.shape[-1]
        normalized = normalize(images.to(device))
        if augment:
            padded = F.pad(normalized, [translate] * 4, mode="reflect").permute(0, 2, 3, 1).contiguous()
            # Every image at every shift, (n, 2 translate + 1, 2 translate + 1, channels, h, w): a view, without a copy.
            self.windows = padded.unfold(1, side, 1).unfold(2, side, 1)
            self.flipped = torch.rand(len(labels), generator=self._generator(-1)).lt(0.5).to(device)
        else:
            self.images = normalized

    def __len__(self) -> int:
        """Return the number of batches per epoch."""
        return -(-len(self.labels) // self.batch_size)

    def epoch(self, number: int, side: int | None = None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the images and labels of each batch of an epoch.

        With several processes (`common.distributed`), each process gets its shard of every batch.

        Args:
            number: The number of the epoch, counted from 0.
            side: Resize the images to this height and width in pixels; None keeps their size.
        """
        generator, count, device = self._generator(number), len(self.labels), self.labels.device
        order = (torch.randperm(count, generator=generator) if self.shuffle else torch.arange(count)).to(device)
        shifts = torch.randint(2 * self.translate + 1, (2, count), generator=generator).to(device)
        corners = torch.randint(self.side - self.cutout + 1, (2, count), generator=generator).to(device)
        for batch in zip(*(t.split(self.batch_size) for t in (order, *shifts, *corners)), strict=True):
            part, rows, columns, tops, lefts = map(distributed.shard, batch)
            images = self._augmented(part, rows, columns, number) if self.augment else self.images[part]
            if self.augment and self.cutout:
                images = self._cut(images, tops, lefts)
            images = resize(images, side or self.side)
            yield images.contiguous(memory_format=self.memory_format), self.labels[part]

    def _augmented(self, part: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, number: int) -> torch.Tensor:
        images = self.windows[part, rows, columns].permute(0, 2, 3, 1)  # the order in memory, in which this is faster
        flip = self.flipped[part] ^ bool(number % 2)
        # Not with images[flip], because a GPU would have to tell how many images these are, and the step would wait.
        return torch.where(flip[:, None, None, None], images.flip(2), images).permute(0, 3, 1, 2)

    def _cut(self, images: torch.Tensor, tops: torch.Tensor, lefts: torch.Tensor) -> torch.Tensor:
        pixels = torch.arange(self.side, device=images.device)
        rows, columns = (
            (pixels >= first[:, None]) & (pixels < first[:, None] + self.cutout) for first in (tops, lefts)
        )
        return images.masked_fill_(
            (rows[:, :, None] & columns[:, None])[:, None], 0
        )  # 0 is the mean colour of all images

    def _generator(self, epoch: int) -> torch.Generator:
        # The generator is on the CPU, so that a seed gives the same batches on every device. With this factor, no two
        # seeds lead to the same generator state, as long as a training has fewer than a million epochs.
        return torch.Generator().manual_seed(self.seed * 1_000_003 + epoch + 1)
