"""Compare the time of an epoch of `Batches` with that of a DataLoader, which augments one image at a time."""

import time
from collections.abc import Callable

import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms

from qathelpers.common import hardware
from qathelpers.common.timing import alternate, medians
from qathelpers.data import Dataset
from qathelpers.data.batches import MEAN, STD, Batches

TRANSLATE = 2  # pixels


class TrainingImages(torch.utils.data.Dataset):
    """The training images of a data set, served as torchvision.datasets.CIFAR10 serves them.

    Each item is one PIL image, passed through `transform`, and its label.
    """

    def __init__(self, dataset: Dataset, transform: Callable) -> None:
        """Serve the training images of `dataset`."""
        self.images = dataset.train_images.permute(0, 2, 3, 1).numpy()
        self.labels = dataset.train_labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """Return one transformed image and its label."""
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def loader(dataset: Dataset, batch_size: int = 256) -> float:
    """Time an epoch of `Batches` and an epoch of a DataLoader with the same augmentation, and print both.

    The DataLoader has no worker processes.

    Returns:
        How many times as fast as the DataLoader `Batches` is.
    """
    start = time.perf_counter()
    batches = Batches(
        dataset.train_images, dataset.train_labels, batch_size, shuffle=True, augment=True, translate=TRANSLATE
    )
    print(f"preparing Batches, once: {time.perf_counter() - start:.2f} s")
    transform = transforms.Compose(
        [
            transforms.RandomCrop(dataset.train_images.shape[-1], TRANSLATE, padding_mode="reflect"),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    data_loader = DataLoader(TrainingImages(dataset, transform), batch_size, shuffle=True)
    times = alternate({"Batches": lambda: batches.epoch(1), "DataLoader": lambda: iter(data_loader)})
    median = medians(times)
    print(f"{hardware.describe(torch.device('cpu'))}; {dataset}; seconds per epoch in batches of {batch_size}:")
    for name, seconds in times.items():
        print(f"{name:10} median {median[name]:.2f} s of {', '.join(f'{value:.2f}' for value in seconds)}")
    ratio = median["DataLoader"] / median["Batches"]
    print(f"Batches is {ratio:.0f} times as fast.")
    return ratio
