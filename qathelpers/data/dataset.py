"""A data set in memory, and the splits that the course takes from it."""

from dataclasses import dataclass, replace
from numbers import Integral

import torch

from ..common.errors import check_whole


@dataclass(frozen=True)
class Dataset:
    """A data set in memory, with a training and a test split.

    Args:
        train_images: Uint8 (n, 3, 32, 32), RGB from 0 to 255.
        train_labels: Int64 (n,), indices into `classes`.
        test_images: Like `train_images`.
        test_labels: Like `train_labels`.
        classes: The names of the classes.
        name: "cifar10" or "shapes".
    """

    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor
    classes: tuple[str, ...]
    name: str

    def take(self, train: int | None = None, test: int | None = None) -> "Dataset":
        """Return the first `train` training images and the first `test` test images (None: all of them).

        Raises:
            ValueError: If a count is negative or not a whole number.
        """
        for argument, count in {"train": train, "test": test}.items():
            if count is not None:
                check_whole(argument, count, 0)
        return replace(
            self,
            train_images=self.train_images[:train],
            train_labels=self.train_labels[:train],
            test_images=self.test_images[:test],
            test_labels=self.test_labels[:test],
        )

    def validation_split(self, size: int = 5000) -> "Dataset":
        """Return the training set split in two: its last `size` images take the place of the test images.

        Use it to choose anything (a scheme, a learning rate), so that the test images stay unseen until the end.

        Raises:
            ValueError: If `size` leaves no training image, or is not a whole number of at least 1.
        """
        if not isinstance(size, Integral) or not 0 < size < len(self.train_labels):
            raise ValueError(f"cannot set aside {size!r} of {len(self.train_labels)} training images for validation")
        return replace(
            self,
            train_images=self.train_images[:-size],
            train_labels=self.train_labels[:-size],
            test_images=self.train_images[-size:],
            test_labels=self.train_labels[-size:],
        )

    def __str__(self) -> str:
        """Return the name and the number of images in one line."""
        title = "CIFAR-10" if self.name == "cifar10" else "shapes, drawn from a seed (this is NOT CIFAR-10)"
        return f"{title}: {len(self.train_labels):,} training and {len(self.test_labels):,} test images"
