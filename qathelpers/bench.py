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


class _Pictures(Dataset):
    """Training images as torchvision.datasets.CIFAR10 serves them: a PIL image at a time, then transforms."""

    def __init__(self, data: Data) -> None:
        self.images = data.train_images.permute(0, 2, 3, 1).numpy()
        self.labels = data.train_labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(data.train_images.shape[-1], MAX_SHIFT, padding_mode="reflect"),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(batches.MEAN, batches.STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
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
    theirs = DataLoader(_Pictures(loaded), batch_size, shuffle=True)
    times = alternate({"Batches": lambda: ours.epoch(1), "DataLoader": lambda: iter(theirs)})
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"{hardware.describe(torch.device('cpu'))}; {loaded}; an epoch in batches of {batch_size}:")
    for name, values in times.items():
        print(f"{name:10} median {medians[name]:.2f} s of {', '.join(f'{v:.2f}' for v in values)}")
    ratio = medians["DataLoader"] / medians["Batches"]
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
