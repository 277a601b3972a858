"""Measure this machine: two ways side by side in one process, alternating, medians."""

import statistics
import time
from collections.abc import Callable, Iterator

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from . import batches, hardware
from .data import Data

REPEATS = 3
MAX_SHIFT = 2  # pixels


class Pictures(Dataset):
    """Training images as torchvision.datasets.CIFAR10 serves them: a PIL image at a time, then `transform`."""

    def __init__(self, data: Data, transform: Callable) -> None:
        """Serve the training images of `data`."""
        self.images = data.train_images.permute(0, 2, 3, 1).numpy()
        self.labels = data.train_labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """Return one transformed image and its label."""
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def data(loaded: Data, batch_size: int = 256) -> float:
    """Time an epoch of `Batches` and of a DataLoader with the same augmentation, print both, return their ratio.

    The loader works as one over torchvision.datasets.CIFAR10 does, without worker processes.
    """
    start = time.perf_counter()
    ours = batches.Batches(
        loaded.train_images, loaded.train_labels, batch_size, shuffle=True, augment=True, max_shift=MAX_SHIFT
    )
    print(f"preparing Batches, once: {time.perf_counter() - start:.2f} s")
    transform = transforms.Compose(
        [
            transforms.RandomCrop(loaded.train_images.shape[-1], MAX_SHIFT, padding_mode="reflect"),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(batches.MEAN, batches.STD),
        ]
    )
    theirs = DataLoader(Pictures(loaded, transform), batch_size, shuffle=True)
    times = alternate({"Batches": lambda: ours.epoch(1), "DataLoader": lambda: iter(theirs)})
    middle = medians(times)
    print(f"{hardware.describe(torch.device('cpu'))}; {loaded}; an epoch in batches of {batch_size}:")
    for name, values in times.items():
        print(f"{name:10} median {middle[name]:.2f} s of {', '.join(f'{v:.2f}' for v in values)}")
    ratio = middle["DataLoader"] / middle["Batches"]
    print(f"Batches are {ratio:.0f} times as fast.")
    return ratio


def alternate(ways: dict[str, Callable[[], Iterator]], repeats: int = REPEATS) -> dict[str, list[float]]:
    """Go through what each way yields, in turns, and return the seconds each turn took."""
    times = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            for _ in way():
                pass
            times[name].append(time.perf_counter() - start)
    return times


def medians(times: dict[str, list[float]]) -> dict[str, float]:
    """Return the median of each way's seconds."""
    return {name: statistics.median(values) for name, values in times.items()}
