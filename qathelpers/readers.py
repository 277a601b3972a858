"""Read CIFAR-10 from the formats in which copies of it lie around.

Each reader returns `Arrays`: train_images and test_images, uint8 (n, 3, 32, 32), train_labels and test_labels, int64
(n,). Whether the content is the right one is for `data.verify` to say.
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

from .errors import CourseError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SPLITS = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}

Arrays = dict[str, np.ndarray]


def read_folder(folder: Path) -> Arrays:
    """Read `folder`, or the folder in it that holds a copy: `cifar-10-batches-py`, or class folders of PNG files.

    Raises CourseError when there is no copy in it or a file of it is damaged.
    """
    try:
        for place in (folder, folder / "cifar-10-batches-py", folder / "cifar10"):
            if (place / "data_batch_1").is_file():
                return read_batches(lambda name, place=place: (place / name).read_bytes(), str(place))
            if (place / "train" / CLASSES[0]).is_dir():
                files = ((path.relative_to(place), path.read_bytes()) for path in sorted(place.glob("*/*/*.png")))
                return read_pngs(files, str(place))
    except OSError as error:  # a file that may not be read, or a folder in the place of one
        raise CourseError(
            f"{folder} could not be read ({error}): replace the copy, or give it back its rights."
        ) from error
    raise CourseError(
        f"{folder} holds no CIFAR-10: set QAT_DATA_DIR to a folder with cifar-10-batches-py (from the official "
        "archive) or with train/ and test/ folders of one folder of PNG files a class."
    )


def read_batches(read: Callable[[str], bytes], source: str) -> Arrays:
    """Read the official pickle files; `read` returns the content of one, given its name.

    Raises CourseError naming `source` when a file is missing or damaged.
    """
    arrays = {}
    for split, names in SPLITS.items():
        batches = [_unpickle(read, name, source) for name in names]
        arrays[f"{split}_images"] = np.concatenate([images for images, _ in batches])
        arrays[f"{split}_labels"] = np.concatenate([labels for _, labels in batches])
    return arrays


def read_official_archive(files: list[Path]) -> Arrays:
    """Read `cifar-10-python.tar.gz`."""
    with tarfile.open(files[0]) as archive:
        content = {PurePosixPath(m.name).name: archive.extractfile(m).read() for m in archive if m.isfile()}
    return read_batches(content.__getitem__, files[0].name)


def read_png_archive(files: list[Path]) -> Arrays:
    """Read a tar archive of `<split>/<class>/<name>.png`."""
    with tarfile.open(files[0]) as archive:
        pngs = ((PurePosixPath(m.name), archive.extractfile(m).read()) for m in archive if m.name.endswith(".png"))
        return read_pngs(pngs, files[0].name)


def read_pngs(files: Iterable[tuple[PurePosixPath, bytes]], source: str) -> Arrays:
    """Read pairs of a path `.../<split>/<class>/<name>.png` and its content.

    Raises CourseError naming `source` and the file when one is damaged or has another size.
    """
    images, labels = {split: [] for split in SPLITS}, {split: [] for split in SPLITS}
    for path, content in files:
        split, kind = path.parts[-3:-1]
        if split in images and kind in CLASSES:
            images[split].append(_decode(content, f"{source}: {path}"))
            labels[split].append(CLASSES.index(kind))
    return _arrays(images, labels)


def read_parquets(files: list[Path]) -> Arrays:
    """Read the files of the training and of the test split, with the columns `img` (encoded images) and `label`."""
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
        # Of what Pillow reads, PNG alone: for some other formats it would start a program (PostScript's).
        pixels = np.asarray(Image.open(io.BytesIO(content), formats=["PNG"]).convert("RGB"))
    except Exception as error:  # a damaged image raises nearly anything
        raise CourseError(f"{source} is not a readable image: replace the copy with a complete one.") from error
    if pixels.shape != (32, 32, 3):
        raise CourseError(f"{source} has {pixels.shape[1]} x {pixels.shape[0]} pixels, not 32 x 32: not CIFAR-10.")
    return pixels


class _Array:
    """Stands in for NumPy's array: takes shape and bytes of 8-bit numbers, and nothing else.

    NumPy's own would believe what a pickle says of a type's flags, and take bytes for addresses.
    """

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: tuple) -> None:
        _version, shape, kind, in_columns, content = state
        if not isinstance(kind, _Type) or kind.name != "u1" or in_columns:
            raise pickle.UnpicklingError("its arrays are not of 8-bit numbers in rows")
        self.numbers = np.frombuffer(content, np.uint8).reshape(shape)


class _Type:
    """Stands in for NumPy's types: takes the name, and nothing else."""

    def __init__(self, name: str | bytes, *_: object) -> None:
        self.name = name.decode() if isinstance(name, bytes) else name

    def __setstate__(self, state: tuple) -> None:
        pass


class _ArraysOnly(pickle.Unpickler):
    """Admit what the official files hold (arrays, lists, numbers, byte strings), nothing that could run code."""

    STAND_INS: ClassVar = {
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,  # since NumPy 2
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Type,
    }

    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in self.STAND_INS:
            raise pickle.UnpicklingError(f"it wants {module}.{name}")
        return self.STAND_INS[module, name]


def _unpickle(read: Callable[[str], bytes], name: str, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images (n, 3, 32, 32) and labels (n,) of one official file."""
    try:
        batch = _ArraysOnly(io.BytesIO(read(name)), encoding="bytes").load()
        images = batch[b"data"].numbers.reshape(-1, 3, 32, 32)
        labels = np.array(batch[b"labels"], np.int64)
    except Exception as error:  # a damaged pickle raises nearly anything
        raise CourseError(
            f"{name} of {source} is missing or damaged ({type(error).__name__}: {error}): replace the copy."
        ) from error
    if labels.shape != (len(images),):
        raise CourseError(f"{name} of {source} is damaged: {len(images)} images, {labels.size} labels.")
    if not np.isin(labels, range(len(CLASSES))).all():
        raise CourseError(f"{name} of {source} is damaged: not all of its labels are from 0 to 9.")
    return images, labels
