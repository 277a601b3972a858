"""A data set in memory, and the splits that the course takes from it."""

import re
from dataclasses import dataclass, replace
from numbers import Integral

import torch

from ..common import settings
from ..common.errors import CourseError, check_type, check_whole
from ..common.tensors import check_values
from .batches import CHANNELS

# The name of a data set is also the name of the folder of its results.
NAME = re.compile(r"\w[\w .+-]{0,79}")
TITLES = {"cifar10": "CIFAR-10", "shapes": "shapes, drawn from a seed (this is NOT CIFAR-10)"}
MANY = 20  # images; so many are hardly sorted by class by chance


@dataclass(frozen=True)
class Dataset:
    """A data set in memory, with a training and a test split.

    Args:
        train_images: Uint8, RGB (n, 3, h, h) or grey (n, 1, h, h), from 0 to 255; CIFAR-10 has RGB images of 32 x 32
            pixels.
        train_labels: Int64 (n,), indices into `classes`.
        test_images: Like `train_images`.
        test_labels: Like `train_labels`.
        classes: The names of the classes.
        name: "cifar10", "shapes", or the name of the reader's own data, which is also the folder of its results.
        held_out: What the images in the test split are: "test", or "validation" after `validation_split`. Results are
            labelled with it.
    """

    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor
    classes: tuple[str, ...]
    name: str
    held_out: str = "test"

    def take(self, train: int | None = None, test: int | None = None) -> "Dataset":
        """Return the first `train` training images and the first `test` test images (None: all of them).

        Raises:
            ValueError: If a count is not a whole number or out of range, or if the images are sorted by class, so that
                the first ones would not be of all classes.
        """
        for argument, count, labels in (("train", train, self.train_labels), ("test", test, self.test_labels)):
            if count is not None:
                check_whole(argument, count, 0)
                if count > len(labels) and not settings.max_images():  # with this setting, there are fewer than usual
                    raise ValueError(f"{argument} is {count:,}, but {self.name} has only {len(labels):,} such images")
                if count < len(labels):
                    _check_order(labels, argument)
        return replace(
            self,
            train_images=self.train_images[:train],
            train_labels=self.train_labels[:train],
            test_images=self.test_images[:test],
            test_labels=self.test_labels[:test],
        )

    def validation_split(self, size: int = 5000) -> "Dataset":
        """Return the training set split in two: its last `size` images take the place of the test images.

        Use it to choose anything (a scheme, a learning rate), so that the test images stay unseen until the end. `fit`,
        tables and plots call the accuracy on these images "validation"; histories keep it in the columns `test_loss`
        and `test_acc`.

        Raises:
            ValueError: If `size` leaves no training image or is not a whole number of at least 1, or if the images are
                sorted by class, so that the last ones would not be of all classes.
        """
        if isinstance(size, bool) or not isinstance(size, Integral) or not 0 < size < len(self.train_labels):
            raise ValueError(f"cannot set aside {size!r} of {len(self.train_labels)} training images for validation")
        _check_order(self.train_labels, "train")
        return replace(
            self,
            train_images=self.train_images[:-size],
            train_labels=self.train_labels[:-size],
            test_images=self.train_images[-size:],
            test_labels=self.train_labels[-size:],
            held_out="validation",
        )

    def check(self, batch_size: int | None = None) -> None:
        """Check that a net with as many outputs as there are classes can be trained and evaluated on this data.

        `fit` calls this before the first step. It takes milliseconds.

        Args:
            batch_size: Check also that no batch of an epoch has only one image, because BatchNorm cannot be trained on
                one image; None for nets without BatchNorm.

        Raises:
            CourseError: If the name or the classes are not valid, a split is empty, images or labels have the wrong
                type or shape, a label is out of range, or the last batch would have one image.
        """
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise CourseError(
                f"{self.name!r} cannot be the name of a data set: use up to 80 letters, digits, spaces or . + - _"
            )
        self._check_classes()
        self._check_split("train", self.train_images, self.train_labels)
        self._check_split("test", self.test_images, self.test_labels)
        channels = self.train_images.shape[1], self.test_images.shape[1]
        if channels[0] != channels[1]:
            raise CourseError(
                f"The number of channels of {self.name} is {channels[0]} in the training images and {channels[1]} in "
                "the test images: convert one of them; images.expand(-1, 3, -1, -1) turns grey into RGB."
            )
        sides = self.train_images.shape[-1], self.test_images.shape[-1]
        if sides[0] != sides[1]:
            raise CourseError(
                f"The training images of {self.name} have {sides[0]} x {sides[0]} pixels and the test images "
                f"{sides[1]} x {sides[1]}: resize them to one size."
            )
        if batch_size is not None:
            self._check_last_batch(batch_size)

    def _check_classes(self) -> None:
        check_type(
            f"classes of {self.name}", self.classes, (tuple, list), "the names of the classes, a tuple of strings"
        )
        for kind in self.classes:
            if not isinstance(kind, str) or not kind.strip():
                raise CourseError(f"{self.name} has the class {kind!r}: give each class a name, a string.")
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise CourseError(
                f"{self.name} has {len(set(self.classes))} different class names for {len(self.classes)} classes: "
                "pass at least two names, all different."
            )

    def _check_split(self, split: str, images: torch.Tensor, labels: torch.Tensor) -> None:
        for title, value, kind in (("images", images, torch.uint8), ("labels", labels, torch.int64)):
            check_values(f"{split}_{title} of {self.name}", value)
            if not isinstance(value, torch.Tensor) or value.dtype != kind:
                found = value.dtype if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
                raise CourseError(
                    f"{split}_{title} of {self.name} must be a tensor of {kind}, but is {found}: make the data set "
                    "with data.from_tensors, which converts what it can."
                )
        if not labels.numel():
            way_out = "" if split == "train" else ", or use `validation_split`"
            raise CourseError(f"{self.name} has 0 images in its {split} split: add some{way_out}.")
        if images.ndim != 4 or images.shape[1] not in CHANNELS or labels.shape != images.shape[:1]:
            remedy = "make the data set with data.from_tensors"
            if labels.shape == (len(images), 1):
                remedy = f"pass one number per image, {split}_labels.flatten()"
            raise CourseError(
                f"{self.name} must have {split}_images (n, 3, h, h) or (n, 1, h, h) and {split}_labels (n,), but has "
                f"{tuple(images.shape)} and {tuple(labels.shape)}: {remedy}."
            )
        height, width = images.shape[2:]
        if height != width or height < 2:
            raise CourseError(
                f"The images in the {split} split of {self.name} have {height} x {width} pixels: crop or pad them to "
                "squares of at least 2 x 2 pixels."
            )
        lowest, highest = labels.min().item(), labels.max().item()
        if lowest < 0 or highest >= len(self.classes):
            wrong = lowest if lowest < 0 else highest
            count = (labels == wrong).sum().item()
            raise CourseError(
                f"{count:,} of the {split} labels of {self.name} are {wrong}, but the {len(self.classes)} classes are "
                f"numbered from 0 to {len(self.classes) - 1}: remove these images, or number the labels from 0."
            )

    def _check_last_batch(self, batch_size: int) -> None:
        check_whole("batch_size", batch_size, 1)
        count = len(self.train_labels)
        if batch_size > 1 and count % batch_size != 1:
            return
        if count == 1:
            raise CourseError(f"{self.name} has only one training image, and BatchNorm needs at least two: add images.")
        other = next(size for size in (*range(min(batch_size, count) - 1, 1, -1), count) if count % size != 1)
        raise CourseError(
            f"With batch_size={batch_size}, the last of the batches of {count:,} training images has only one image, "
            f"and BatchNorm needs at least two: choose another batch_size, such as {other}."
        )

    def __str__(self) -> str:
        """Return the name and the number of images in one line."""
        title = TITLES.get(self.name, self.name)
        return f"{title}: {len(self.train_labels):,} training and {len(self.test_labels):,} {self.held_out} images"


def _check_order(labels: torch.Tensor, split: str) -> None:
    if len(labels) >= MANY and labels[0] != labels[-1] and bool((labels[1:] >= labels[:-1]).all()):
        raise ValueError(
            f"the {split} images are sorted by class, so a part of them would miss classes: shuffle images and labels "
            "with order = torch.randperm(len(labels)) first"
        )
