"""Make a `Dataset` of a reader's own pictures or tensors."""

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from ..common.errors import MAX_SEED, CourseError, check_whole
from ..common.files import as_path
from ..common.progress import progress
from ..common.tensors import check_values
from .batches import CHANNELS
from .dataset import NAME, Dataset
from .pictures import OTHER_EXTENSIONS, check_channels, is_picture_name, is_stray, read_picture

RESERVED = ("auto", "cifar10", "shapes")  # results on a reader's own images never meet the course's results
LAYOUT = "put the pictures of each class into a folder of their own, <folder>/<class>/"


def from_folder(
    path: str | Path,
    size: int = 32,
    test_share: float = 0.2,
    seed: int = 0,
    name: str | None = None,
    channels: int = 3,
) -> Dataset:
    """Read a folder of pictures with one subfolder per class.

    The pictures are in <path>/<class>/, or already split in <path>/train/<class>/ and <path>/test/<class>/. Classes
    are numbered in the order of their names. Pictures are cropped to the largest centred square and resized; see
    `read_picture`. They are known by their extensions, in upper or lower case; hidden files and files that a file
    manager left behind (.DS_Store, ._1.png, Thumbs.db, ...) are ignored, as are files that are not pictures.

    Args:
        path: The folder.
        size: Height and width of the images in pixels, from 8 to 512.
        test_share: The share of each class that becomes test images, between 0 and 1, but at least one picture; not
            used if the pictures are already split.
        seed: Determines the split and the order of the images. The split of a class depends on nothing but this seed
            and the file names in the class.
        name: The name of the data set; by default that of the folder.
        channels: 3 for RGB images, 1 for grey ones; pictures are converted if needed.

    Returns:
        The data set; its images are in random order.

    Raises:
        CourseError: If there is no such folder, if it does not have at least two classes with at least two pictures
            each, or if one of the pictures cannot be read.
        ValueError: If `size`, `test_share`, `seed` or `channels` is out of range.
    """
    check_whole("size", size, 8, 512)
    check_channels(channels)
    check_whole("seed", seed, 0, MAX_SEED)
    if isinstance(test_share, bool) or not isinstance(test_share, int | float) or not 0 < test_share < 1:
        raise ValueError(f"test_share must be a number between 0 and 1; got {test_share!r}")
    path = as_path("path", path).expanduser()
    name = _check_name(re.sub(r"[^\w .+-]", "-", path.resolve().name).strip(" .+-")[:80] if name is None else name)
    try:
        splits = _find_pictures(path, test_share, seed)
    except OSError as error:
        raise CourseError(f"{error.filename or path} cannot be read ({error.strerror}): check permissions.") from error
    classes = tuple(splits["train"])
    bar = progress(title=f"reading {name}", total=sum(len(p) for s in splits.values() for p in s.values()))
    tensors = {}
    with bar:
        for number, (split, pictures) in enumerate(splits.items()):
            images, labels = [], []
            for label, kind in enumerate(classes):
                for file in pictures[kind]:
                    images.append(_read(file, size, channels))
                    labels.append(label)
                    bar.update()
            # In random order, `take` and `validation_split` get images of all classes.
            order = np.random.default_rng([seed, number]).permutation(len(labels))
            tensors[f"{split}_images"] = torch.stack([images[index] for index in order])
            tensors[f"{split}_labels"] = torch.tensor(labels)[order]
    return Dataset(**tensors, classes=classes, name=name)


def from_tensors(
    train_images: torch.Tensor | np.ndarray,
    train_labels: torch.Tensor | np.ndarray | Sequence[int],
    test_images: torch.Tensor | np.ndarray,
    test_labels: torch.Tensor | np.ndarray | Sequence[int],
    classes: Sequence[str] | None = None,
    name: str = "own",
) -> Dataset:
    """Check images and labels and return them as a data set.

    Grey images keep their single channel, so they need nets with `channels=1`. To use them with a net for RGB images,
    repeat the channel first: `images.expand(-1, 3, -1, -1)`. The order of the images is kept: if they are sorted by
    class, shuffle them first.

    Args:
        train_images: Uint8, RGB (n, 3, h, h), or grey (n, 1, h, h) or (n, h, h), pixels from 0 to 255.
        train_labels: Whole numbers (n,), indices into `classes`.
        test_images: Like `train_images`, with the same size and number of channels.
        test_labels: Like `train_labels`.
        classes: The name of each class; by default the labels "0", "1", ...
        name: The name of the data set, which is also the name of the folder of its results.

    Raises:
        CourseError: If images or labels have the wrong type or shape, a label is out of range, or a name is not valid.
    """
    name = _check_name(name)
    images = {"train": _as_images(train_images, "train_images"), "test": _as_images(test_images, "test_images")}
    labels = {"train": _as_labels(train_labels, "train_labels"), "test": _as_labels(test_labels, "test_labels")}
    dataset = Dataset(
        images["train"],
        labels["train"],
        images["test"],
        labels["test"],
        _as_classes(classes, labels["train"], labels["test"]),
        name,
    )
    dataset.check()
    return dataset


def _check_name(name: str) -> str:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise CourseError(
            f"{name!r} cannot be the name of a data set: pass a name of up to 80 letters, digits, spaces or . + - _"
        )
    if name.lower() in RESERVED:
        raise CourseError(
            f"The name {name!r} is taken by a data set of the course: pass another name, such as name='my-{name}'."
        )
    return name


def _find_pictures(path: Path, test_share: float, seed: int) -> dict[str, dict[str, list[Path]]]:
    """Return the paths of the training and test pictures of each class."""
    if not path.is_dir():
        what = "is a file: unpack it if it is an archive, and pass a folder" if path.exists() else "does not exist"
        raise CourseError(f"{path} {what}; expected a folder with one subfolder of pictures per class.")
    folders = {folder.name: folder for folder in _visible(path) if folder.is_dir()}
    if {"train", "test"} <= set(folders) and any(_subfolders(folders[split]) for split in ("train", "test")):
        others = sorted(set(folders) - {"train", "test"})
        if others:
            raise CourseError(
                f"{path} has the folder {others[0]} beside train and test, which would be left out: move it elsewhere, "
                "or move its pictures into train or test."
            )
        _check_no_pictures(path, "train or test")
        splits = {split: _class_folders(folders[split]) for split in ("train", "test")}
        for kind in sorted(set(splits["train"]) ^ set(splits["test"])):
            there, missing = ("train", "test") if kind in splits["train"] else ("test", "train")
            raise CourseError(f"{path} has the class {kind} in {there}, but not in {missing}: add its pictures there.")
        return splits
    splits = {"train": {}, "test": {}}
    for kind, pictures in _class_folders(path).items():
        if len(pictures) < 2:
            raise CourseError(
                f"The class {kind} in {path} has only one picture, but training and test need one each: add pictures, "
                "or remove the class."
            )
        count = min(max(round(test_share * len(pictures)), 1), len(pictures) - 1)
        # The generator depends on the name of the class, so that other classes can be added without a new split.
        order = np.random.default_rng([seed, *kind.encode(errors="surrogateescape")]).permutation(len(pictures))
        splits["test"][kind] = [pictures[index] for index in sorted(order[:count])]
        splits["train"][kind] = [pictures[index] for index in sorted(order[count:])]
    return splits


def _class_folders(path: Path) -> dict[str, list[Path]]:
    """Return the pictures of each class, sorted by name."""
    folders = _subfolders(path)
    if folders:
        _check_no_pictures(path, "the folder of its class")
    if not folders:
        raise CourseError(f"{path} has no class folders: {LAYOUT}.")
    if len(folders) < 2:
        inside = f" (or pass {folders[0]}, if the classes are in it)" if _subfolders(folders[0]) else ""
        raise CourseError(
            f"{path} has only one class, {folders[0].name}, and a classifier needs at least two: {LAYOUT}{inside}."
        )
    classes = {}
    for folder in folders:
        deeper = _subfolders(folder)
        if deeper:
            raise CourseError(
                f"The class folder {folder} contains the folder {deeper[0].name}, which would be left out: move its "
                "pictures up. If the pictures are already split, name the folders train/<class>/ and test/<class>/."
            )
        classes[folder.name] = _pictures(folder)
        if not classes[folder.name]:
            raise CourseError(
                f"The class folder {folder} contains no pictures (.png, .jpg, .gif, .webp, .bmp, .tif): add some, or "
                "remove the folder."
            )
    return classes


def _pictures(folder: Path) -> list[Path]:
    """Return the pictures in a folder, also those in formats that cannot be read, so that reading names them."""
    return [file for file in _visible(folder) if is_picture_name(file) or file.suffix.lower() in OTHER_EXTENSIONS]


def _check_no_pictures(folder: Path, target: str) -> None:
    """Check that no picture lies beside the class folders, where it would be left out without a word."""
    if pictures := [file for file in _pictures(folder) if not file.is_dir()]:
        count = f" and {len(pictures) - 1} more" if len(pictures) > 1 else ""
        raise CourseError(
            f"{folder} has the picture {pictures[0].name}{count} outside the class folders, which would be left out: "
            f"move it into {target}, or elsewhere."
        )


def _visible(folder: Path) -> list[Path]:
    return sorted((file for file in folder.iterdir() if not is_stray(file.name)), key=lambda file: file.name)


def _subfolders(folder: Path) -> list[Path]:
    return [inside for inside in _visible(folder) if inside.is_dir()] if folder.is_dir() else []


def _read(file: Path, size: int, channels: int) -> torch.Tensor:
    try:
        return read_picture(file, size, channels=channels)
    except CourseError as error:
        raise CourseError(f"{str(error).removesuffix('.')}, or remove it from the folder.") from error


def _as_images(images: torch.Tensor | np.ndarray, argument: str) -> torch.Tensor:
    """Return images as uint8, RGB (n, 3, h, w) or grey (n, 1, h, w)."""
    check_values(argument, images)
    if isinstance(images, np.ndarray) and images.dtype == np.uint8:
        images = torch.from_numpy(images.copy())  # a later change of the array must not change the data set
    if not isinstance(images, torch.Tensor | np.ndarray):
        raise CourseError(f"{argument} is a {type(images).__name__}: pass a uint8 tensor or NumPy array (n, 3, h, h).")
    shape = tuple(images.shape)
    if images.ndim not in (3, 4):
        raise CourseError(f"{argument} has the shape {shape}: pass RGB images (n, 3, h, h), or grey ones (n, 1, h, h).")
    if images.dtype != torch.uint8:
        floats = isinstance(images, torch.Tensor) and images.is_floating_point()
        floats = floats or (isinstance(images, np.ndarray) and np.issubdtype(images.dtype, np.floating))
        cast = ".to(torch.uint8)" if isinstance(images, torch.Tensor) else ".astype('uint8')"
        raise CourseError(
            f"{argument} has {images.dtype} pixels: pass uint8 pixels from 0 to 255{_scaling(images, floats, cast)}."
        )
    if images.numel() and images.max() == 1:
        raise CourseError(f"{argument} has no pixel above 1: pass pixels from 0 to 255, such as images * 255.")
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim == 4 and images.shape[1] in CHANNELS:
        return images.contiguous()
    if images.ndim == 4 and images.shape[1] == 4:
        raise CourseError(f"{argument} has 4 channels, {shape}: pass the colours without transparency, images[:, :3].")
    if images.ndim == 4 and images.shape[3] in (1, 3, 4):
        raise CourseError(
            f"{argument} has its channels last, {shape}: pass images (n, 3, h, h), "
            "torch.as_tensor(images).permute(0, 3, 1, 2)."
        )
    raise CourseError(f"{argument} has the shape {shape}: pass RGB images (n, 3, h, h), or grey ones (n, 1, h, h).")


def _scaling(images: torch.Tensor | np.ndarray, floats: bool, cast: str) -> str:
    """Return how to get pixels from 0 to 255, judging from the range of the pixels that there are."""
    is_real = images.dtype.kind in "iuf" if isinstance(images, np.ndarray) else not images.is_complex()
    if not is_real or not all(images.shape):
        return ""
    lowest, highest = float(images.min()), float(images.max())
    if floats and lowest >= 0 and highest <= 1:
        return f", (images * 255).round(){cast}"
    if floats and -1 <= lowest < 0 and highest <= 1:
        return f", ((images + 1) * 127.5).round(){cast}, if they range from -1 to 1"
    if lowest >= 0 and highest <= 255:
        return f", images{'.round()' if floats else ''}{cast}"
    if not math.isfinite(highest - lowest):
        return "; some of these are NaN or infinite"
    return f"; these range from {lowest:g} to {highest:g}, so undo what was done to them, such as a normalization"


def _as_labels(labels: torch.Tensor | np.ndarray | Sequence[int], argument: str) -> torch.Tensor:
    """Return labels as int64 (n,)."""
    check_values(argument, labels)
    if not isinstance(labels, torch.Tensor):
        try:
            labels = torch.from_numpy(np.array(labels))
        except (TypeError, ValueError) as error:
            raise CourseError(f"{argument} are not numbers: pass whole numbers (n,), indices of classes.") from error
    if labels.ndim != 1:
        way_out = ", labels.argmax(1) if they are one-hot" if labels.ndim == 2 else ""
        if labels.ndim == 2 and labels.shape[1] == 1:
            way_out = ", labels.flatten()"
        raise CourseError(f"{argument} has the shape {tuple(labels.shape)}: pass one number per image{way_out}.")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        is_whole = labels.is_floating_point() and torch.equal(labels, labels.round())
        way_out = f", {argument}.to(torch.int64)" if is_whole or labels.dtype == torch.bool else ""
        raise CourseError(f"{argument} are {labels.dtype}: pass whole numbers, indices of classes{way_out}.")
    return labels.to(torch.int64, copy=True)


def _as_classes(
    classes: Sequence[str] | None, train_labels: torch.Tensor, test_labels: torch.Tensor
) -> tuple[str, ...]:
    if classes is not None:
        if isinstance(classes, str) or not isinstance(classes, Iterable):
            raise CourseError(f"classes is {classes!r}: pass the names of all classes, such as ('cat', 'dog').")
        return tuple(classes)
    found = train_labels.unique().tolist()
    if not found:
        return ("0", "1")  # `Dataset.check` then says that there are no images
    if found != list(range(len(found))) and found[0] >= 0:
        missing = next(label for label, there in enumerate(found) if label != there)
        raise CourseError(
            f"No training image has the label {missing}, but the largest label is {found[-1]}: number the classes "
            "from 0 without gaps, or pass the names of all classes."
        )
    return tuple(str(label) for label in range(len(found)))
