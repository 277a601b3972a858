"""Read CIFAR-10 from the file formats in which it is distributed.

Each reader returns `Arrays`, a dict of four arrays: train_images and test_images, uint8 (n, 3, 32, 32), as well as
train_labels and test_labels, int64 (n,). The readers check the format; `data.verify` checks the content.
"""

import io
import pickle
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
import pyarrow.parquet
from PIL import Image

from ..common.errors import CourseError
from .pictures import is_picture_name

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SPLITS = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}

Arrays = dict[str, np.ndarray]


def read_folder(folder: Path) -> Arrays:
    """Read a copy of CIFAR-10 from `folder` or from the folder cifar-10-batches-py or cifar10 inside it.

    A copy consists of the official pickle files, or of PNG files in folders train/<class>/ and test/<class>/. Hidden
    files and files that a file manager left behind are ignored.

    Raises:
        CourseError: If there is no copy, or if one of its files is damaged or cannot be read.
    """
    try:
        for place in (folder, folder / "cifar-10-batches-py", folder / "cifar10"):
            if (place / "data_batch_1").is_file():
                return read_batches(lambda name, place=place: (place / name).read_bytes(), str(place))
            if (place / "train" / CLASSES[0]).is_dir():
                paths = filter(is_picture_name, sorted(place.glob("*/*/*")))
                return read_pngs(((path.relative_to(place), path.read_bytes()) for path in paths), str(place))
    except OSError as error:  # no permission, or a folder where a file should be
        raise CourseError(
            f"{folder} could not be read ({error}): replace the copy, or make its files readable."
        ) from error
    raise CourseError(
        f"{folder} contains no copy of CIFAR-10: set QAT_DATA_DIR to a folder with cifar-10-batches-py (from the "
        "official archive), or with PNG files in train/<class>/ and test/<class>/."
    )


def read_batches(read: Callable[[str], bytes], source: str) -> Arrays:
    """Read the official pickle files.

    Args:
        read: Returns the content of a file, given its name.
        source: Where the files come from, for error messages.

    Raises:
        CourseError: If a file is missing or damaged.
    """
    arrays = {}
    for split, names in SPLITS.items():
        batches = [_unpickle(read, name, source) for name in names]
        arrays[f"{split}_images"] = np.concatenate([images for images, _ in batches])
        arrays[f"{split}_labels"] = np.concatenate([labels for _, labels in batches])
    return arrays


def read_official_archive(files: list[Path]) -> Arrays:
    """Read the official archive, cifar-10-python.tar.gz, the only one of `files`."""
    with tarfile.open(files[0]) as archive:
        content = {PurePosixPath(m.name).name: archive.extractfile(m).read() for m in archive if m.isfile()}
    return read_batches(content.__getitem__, files[0].name)


def read_png_archive(files: list[Path]) -> Arrays:
    """Read a tar archive of <split>/<class>/<name>.png, the only one of `files`."""
    with tarfile.open(files[0]) as archive:
        members = ((PurePosixPath(member.name), member) for member in archive if member.isfile())
        pngs = ((path, archive.extractfile(member).read()) for path, member in members if is_picture_name(path))
        return read_pngs(pngs, files[0].name)


def read_pngs(files: Iterable[tuple[PurePosixPath, bytes]], source: str) -> Arrays:
    """Read PNG files; ignore those whose folders are not named after a split and a class.

    Args:
        files: Pairs of a path .../<split>/<class>/<name>.png and the content of that file.
        source: Where the files come from, for error messages.

    Raises:
        CourseError: If an image is damaged or does not have 32 x 32 pixels.
    """
    images, labels = {split: [] for split in SPLITS}, {split: [] for split in SPLITS}
    for path, content in files:
        split, kind = path.parts[-3:-1]
        if split in images and kind in CLASSES:
            images[split].append(_decode(content, f"{source}: {path}"))
            labels[split].append(CLASSES.index(kind))
    return _arrays(images, labels)


def read_parquets(files: list[Path]) -> Arrays:
    """Read two Parquet files (training, then test images) with the columns `img` (encoded images) and `label`."""
    images, labels = {}, {}
    for split, file in zip(SPLITS, files, strict=True):
        table = pyarrow.parquet.read_table(file)
        images[split] = [_decode(row["bytes"], file.name) for row in table["img"].to_pylist()]
        labels[split] = table["label"].to_pylist()
    return _arrays(images, labels)


def _arrays(images: dict[str, list[np.ndarray]], labels: dict[str, list[int]]) -> Arrays:
    arrays = {}
    for split in SPLITS:
        stack = np.stack(images[split]) if images[split] else np.zeros((0, 32, 32, 3), np.uint8)
        arrays[f"{split}_images"] = np.ascontiguousarray(stack.transpose(0, 3, 1, 2))
        arrays[f"{split}_labels"] = np.array(labels[split], np.int64)
    return arrays


def _decode(content: bytes, source: str) -> np.ndarray:
    try:
        # PNG only: for some other formats, such as PostScript, Pillow starts an external program.
        pixels = np.asarray(Image.open(io.BytesIO(content), formats=["PNG"]).convert("RGB"))
    except Exception as error:  # a damaged image can raise almost any exception
        if content.startswith(b"\xff\xd8\xff"):
            raise CourseError(
                f"{source} is a JPEG image, which changes the pixels of CIFAR-10: use a copy with PNG images."
            ) from error
        raise CourseError(
            f"{source} is not a readable PNG image: replace the copy of CIFAR-10 with a complete one."
        ) from error
    if pixels.shape != (32, 32, 3):
        raise CourseError(
            f"{source} has {pixels.shape[1]} x {pixels.shape[0]} pixels, not 32 x 32: replace the copy of CIFAR-10."
        )
    return pixels


class _Array:
    """Takes the place of numpy.ndarray while unpickling; accepts only arrays of 8-bit numbers.

    numpy.ndarray trusts the flags of a dtype in the pickle. A crafted file could therefore make it use bytes of the
    file as memory addresses.
    """

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: tuple) -> None:
        _version, shape, kind, in_columns, content = state
        if not isinstance(kind, _Type) or kind.name != "u1" or in_columns:
            raise pickle.UnpicklingError("an array is not of 8-bit numbers in row-major order")
        self.numbers = np.frombuffer(content, np.uint8).reshape(shape)


class _Type:
    """Takes the place of numpy.dtype while unpickling; keeps only the name."""

    def __init__(self, name: str | bytes, *_: object) -> None:
        self.name = name.decode() if isinstance(name, bytes) else name

    def __setstate__(self, state: tuple) -> None:
        pass


class _ArraysOnly(pickle.Unpickler):
    """Unpickles what the official files contain: arrays, lists, numbers and byte strings.

    All other types are refused, so that no code in a file is ever run.
    """

    STAND_INS: ClassVar = {
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,  # since NumPy 2
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Type,
    }

    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in self.STAND_INS:
            raise pickle.UnpicklingError(f"the file asks for {module}.{name}, which is not allowed")
        return self.STAND_INS[module, name]


def _unpickle(read: Callable[[str], bytes], name: str, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (n, 3, 32, 32) and labels (n,) of one official file."""
    try:
        batch = _ArraysOnly(io.BytesIO(read(name)), encoding="bytes").load()
        images = batch[b"data"].numbers.reshape(-1, 3, 32, 32)
        labels = np.array(batch[b"labels"], np.int64)
    except Exception as error:  # a damaged pickle can raise almost any exception
        raise CourseError(
            f"{name} of {source} is missing or damaged ({type(error).__name__}: {error}): replace the copy of CIFAR-10."
        ) from error
    if labels.shape != (len(images),):
        raise CourseError(
            f"{name} of {source} is damaged ({len(images)} images, {labels.size} labels): replace the copy of CIFAR-10."
        )
    if not np.isin(labels, range(len(CLASSES))).all():
        raise CourseError(f"{name} of {source} is damaged (labels outside 0 to 9): replace the copy of CIFAR-10.")
    return images, labels
