"""A stand-in for CIFAR-10 when there is neither a copy nor a network: images of ten shapes, drawn from a seed.

The label of an image is the shape of its largest object. The object lies near the middle, with a random position,
angle, size, aspect ratio and colour. Behind it are a textured background and smaller pieces of other shapes. A stroke
crosses it, and noise covers the whole image.

Shapes are drawn from the signed distance (negative inside) of each pixel, many images at once. The computation per
pixel uses only arithmetic, square roots and comparisons, which IEEE 754 rounds identically on every machine. A seed
therefore gives the same images everywhere.
"""

from collections.abc import Callable

import numpy as np
import torch

# The difficulty of the task. Colours are fractions from 0 (black) to 1 (white).
CONTRAST = (0.2, 0.6)  # distance between the colours of object and background; lower is harder
CLUTTER = 3  # pieces of other shapes behind the object; more is harder
TEXTURE = 0.15  # variation in brightness of background and object; more is harder
NOISE = 0.15  # largest random change of a pixel; more is harder

SIZE = 32  # pixels
CHUNK = 100  # images drawn at once; their arrays fit into the processor's cache


def _circle(x, y, t):
    return np.hypot(x, y) - 0.85


def _drop(x, y, t):
    """Return the distance to a drop: a disc of radius 0.6, and the wedge between its two tangents from the tip."""
    distance = 1.2 + 0.3 * t  # from the circle's centre to the tip
    sine = 0.6 / distance  # the sine of half the angle at the tip
    y = y + 0.4
    wedge = np.abs(x) * np.sqrt(1 - sine**2) + (y - distance) * sine
    return np.minimum(np.hypot(x, y) - 0.6, np.maximum(wedge, 0.6 * sine - y))


def _ring(x, y, t):
    width = 0.12 + 0.12 * t
    return np.abs(np.hypot(x, y) - 0.95 + width) - width


def _crescent(x, y, t):
    return np.maximum(np.hypot(x, y) - 1, 0.75 - np.hypot(x - 0.4 - 0.15 * t, y))


def _square(x, y, t):
    return np.maximum(np.abs(x), np.abs(y)) - 0.75


def _triangle(x, y, t):
    return np.maximum(np.abs(x) * 0.75**0.5 + y / 2, -y) - 0.5


def _cross(x, y, t):
    x, y, width = np.abs(x), np.abs(y), 0.2 + 0.15 * t
    return np.maximum(np.maximum(x, y) - 0.95, np.minimum(x, y) - width)


def _star(x, y, t):
    """Return the distance to a pentagram, whose points are on the inner side of at least four of its five lines."""
    angles = 2 * np.pi * np.arange(5) / 5
    lines = np.stack([x * np.float32(np.cos(a)) + y * np.float32(np.sin(a)) for a in angles])
    return np.partition(lines, 3, axis=0)[3] - 0.4


def _heart(x, y, t):
    """Return the distance to a heart: a square that stands on a corner, with a half-disc on each upper side."""
    x, y = np.abs(x), y + 0.2
    return np.minimum((x + np.abs(y) - 0.8) * 0.5**0.5, np.hypot(x - 0.4, y - 0.4) - 0.8 * 0.5**0.5)


def _arrow(x, y, t):
    x, width = np.abs(x), 0.13 + 0.12 * t
    shaft = np.maximum(x - width, np.abs(y + 0.4) - 0.6)
    head = np.maximum((x + y - 1) * 0.5**0.5, 0.2 - y)
    return np.minimum(shaft, head)


_DISTANCES: dict[str, Callable] = {
    "circle": _circle,
    "drop": _drop,
    "ring": _ring,
    "crescent": _crescent,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "star": _star,
    "heart": _heart,
    "arrow": _arrow,
}
CLASSES: tuple[str, ...] = tuple(_DISTANCES)


def make(
    train: int = 20000, test: int = 5000, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw `train` training images and `test` test images.

    Each block of ten images, counted from the first image, has one image of every class, so the classes are balanced.
    The images of a smaller data set are the first images of a larger one with the same seed.

    Returns:
        Training images, training labels, test images, test labels. Images are uint8 (n, 3, 32, 32), RGB from 0 to 255;
        labels are int64 (n,), indices into `CLASSES`.

    Raises:
        ValueError: If a number is negative.
    """
    return *_split(train, seed, 0), *_split(test, seed, 1)


def _split(count: int, seed: int, stream: int) -> tuple[torch.Tensor, torch.Tensor]:
    images = np.empty((count, 3, SIZE, SIZE), np.uint8)
    labels = np.empty(count, np.int64)
    for start in range(0, count, CHUNK):
        rng = np.random.default_rng([seed, stream, start])
        kinds = np.concatenate([rng.permutation(len(CLASSES)) for _ in range(CHUNK // len(CLASSES))])
        part = slice(start, min(start + CHUNK, count))
        images[part] = _draw(rng, kinds)[: count - start]
        labels[part] = kinds[: count - start]
    return torch.from_numpy(images), torch.from_numpy(labels)


def _draw(rng: np.random.Generator, kinds: np.ndarray) -> np.ndarray:
    """Draw one image per class in `kinds`, from the background to the foreground."""
    background = _uniform(rng, 0.2, 0.8, 3)
    image = background + TEXTURE * _texture(rng)
    for _ in range(CLUTTER):
        piece = _shape(rng, rng.permutation(kinds), size=(0.25, 0.5), reach=0.9)
        _paint(image, piece, background + _colour(rng))
    _paint(image, _shape(rng, kinds, size=(0.45, 0.7), reach=0.3), background + _colour(rng) + TEXTURE * _texture(rng))
    _paint(image, _stroke(rng), background + _colour(rng))
    image += NOISE * (2 * rng.random(image.shape, np.float32) - 1)
    return (255 * np.clip(image, 0, 1) + 0.5).astype(np.uint8)


def _uniform(rng: np.random.Generator, low: float, high: float, channels: int = 1) -> np.ndarray:
    """Return one random number per image and channel, with a shape that broadcasts over the pixels."""
    return rng.uniform(low, high, (CHUNK, channels, 1, 1)).astype(np.float32)


def _colour(rng: np.random.Generator) -> np.ndarray:
    """Return the difference between a colour and the background: a random direction, a length within `CONTRAST`."""
    direction = _uniform(rng, -1, 1, 3)
    return direction / np.sqrt((direction**2).sum(1, keepdims=True)) * _uniform(rng, *CONTRAST)


def _plane(rng: np.random.Generator, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates of all pixels relative to a random centre and angle; the image is 2 units wide."""
    axis = (np.arange(SIZE, dtype=np.float32) + 0.5) * 2 / SIZE - 1
    x = axis - _uniform(rng, -reach, reach)
    y = axis[:, None] - _uniform(rng, -reach, reach)
    angle = _uniform(rng, -np.pi, np.pi)
    return np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x


def _texture(rng: np.random.Generator) -> np.ndarray:
    """Return a pattern between -1 and 1: the product of two triangle waves in different directions."""
    waves = [np.abs((c * _uniform(rng, 0.3, 2.5)) % 2 - 1) * 2 - 1 for c in (_plane(rng, 1)[0], _plane(rng, 1)[0])]
    return waves[0] * waves[1]


def _shape(rng: np.random.Generator, kinds: np.ndarray, size: tuple[float, float], reach: float) -> np.ndarray:
    """Return the fraction of each pixel that is covered by a shape, one image per class in `kinds`."""
    x, y = _plane(rng, reach)
    size, aspect, t = _uniform(rng, *size), _uniform(rng, 0.8, 1.25), _uniform(rng, 0, 1)
    x, y = x / (size * aspect), y / size * aspect
    distance = np.empty_like(x)
    for kind, function in enumerate(_DISTANCES.values()):
        which = kinds == kind
        distance[which] = function(x[which], y[which], t[which])
    return np.clip(0.5 - distance * size * SIZE / 2, 0, 1)


def _stroke(rng: np.random.Generator) -> np.ndarray:
    """Return the fraction of each pixel that is covered by a thin straight line."""
    x, y = _plane(rng, 0.6)
    distance = np.maximum(np.abs(x) - _uniform(rng, 0.3, 1), np.abs(y) - _uniform(rng, 0.02, 0.08))
    return np.clip(0.5 - distance * SIZE / 2, 0, 1)


def _paint(image: np.ndarray, coverage: np.ndarray, colour: np.ndarray) -> None:
    image += coverage * (colour - image)
