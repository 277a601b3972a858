"""Read CIFAR-10 from the file formats in which it is distributed.

Each reader returns `Arrays`, a dict of four arrays: train_images and test_images, uint8 (n, 3, 32, 32), as well as
train_labels and test_labels, int64 (n,). The readers check the format; `data.verify` checks the content.
"""

import gzip
import io
import pickle
import pickletools
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
import pyarrow.parquet
from PIL import Image

from ..common.errors import CourseError, raise_if_of_the_machine
from . import parquet
from .pictures import is_picture_name

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SPLITS = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}

# Limits that no copy of CIFAR-10 reaches. A hostile or damaged file could otherwise fill the memory, because a few
# megabytes can unpack to gigabytes.
MAX_BYTES = 64_000_000  # of one file; an official batch file has 31 MB
MAX_UNPACKED = 500_000_000  # bytes of a whole archive or table; all 60,000 PNG files in a tar archive have 200 MB
MAX_IMAGES = 60_000
MAX_IMAGE_BYTES = 100_000  # of one encoded image; a PNG file of 32 x 32 pixels has 3,000 bytes
MAX_MEMO = 1_000_000  # objects that a pickle refers to by number; an official batch file has 20,000
ROWS_AT_ONCE = 10  # of a table; each of them can refer to the same value, which can be as large as a page
FOOTER_LIMITS = {"thrift_string_size_limit": 1_000_000, "thrift_container_size_limit": 100_000}

Arrays = dict[str, np.ndarray]


def read_folder(folder: Path) -> Arrays:
    """Read a copy of CIFAR-10 from `folder` or from the folder cifar-10-batches-py or cifar10 inside it.

    A copy consists of the official pickle files, or of PNG files in folders train/<class>/ and test/<class>/. Hidden
    files and files that a file manager left behind are ignored.

    Raises:
        CourseError: If there is no copy, or if one of its files is damaged or cannot be read.
    """
    place = find_copy(folder)
    try:
        if (place / "data_batch_1").is_file():
            return read_batches(lambda name: _read_file(place / name), str(place))
        paths = filter(is_picture_name, sorted(place.glob("*/*/*")))
        return read_pngs(((path.relative_to(place), _read_file(path)) for path in paths), str(place))
    except OSError as error:  # no permission, or a folder where a file should be
        raise CourseError(
            f"{folder} could not be read ({error}): replace the copy, or make its files readable."
        ) from error


def find_copy(folder: Path) -> Path:
    """Return where in `folder` a copy of CIFAR-10 is; its content is not read.

    Raises:
        CourseError: If there is no copy, or if the folder cannot be read.
    """
    try:
        for place in (folder, folder / "cifar-10-batches-py", folder / "cifar10"):
            if (place / "data_batch_1").is_file() or (place / "train" / CLASSES[0]).is_dir():
                return place
    except OSError as error:
        raise CourseError(f"{folder} could not be read ({error}): make it readable.") from error
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
    names = {name for split in SPLITS.values() for name in split}
    content = {path.name: data for path, data in _unpacked(files[0]) if path.name in names}
    return read_batches(content.__getitem__, files[0].name)


def read_png_archive(files: list[Path]) -> Arrays:
    """Read a tar archive of <split>/<class>/<name>.png, the only one of `files`."""
    pngs = ((path, content) for path, content in _unpacked(files[0]) if is_picture_name(path))
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
        split, kind = path.parts[-3:-1] if len(path.parts) > 2 else ("", "")
        if split in images and kind in CLASSES:
            if len(images[split]) == MAX_IMAGES:
                raise CourseError(f"{source} has more images than CIFAR-10: replace the copy.")
            images[split].append(_decode(content, f"{source}: {path}"))
            labels[split].append(CLASSES.index(kind))
    return _arrays(images, labels)


def read_parquets(files: list[Path]) -> Arrays:
    """Read two Parquet files (training, then test images) with the columns `img` (encoded images) and `label`."""
    images, labels = {split: [] for split in SPLITS}, {split: [] for split in SPLITS}
    for split, file in zip(SPLITS, files, strict=True):
        for content, label in _rows(file):
            images[split].append(_decode(content, file.name))
            labels[split].append(label)
    return _arrays(images, labels)


def _rows(file: Path) -> Iterator[tuple[bytes, int]]:
    """Yield the encoded image and the label of each row of a Parquet file, after a check of all sizes in it.

    Raises:
        CourseError: If it is no Parquet file with images and labels, or is larger than any of CIFAR-10.
    """
    try:
        yield from _checked_rows(file)
    except (OSError, KeyError, ValueError, pyarrow.ArrowException) as error:
        raise_if_of_the_machine(error)
        reason = (str(error).splitlines() or [""])[0]
        raise CourseError(f"{file.name} is not a table of images and labels ({reason}): replace it.") from error


def _checked_rows(file: Path) -> Iterator[tuple[bytes, int]]:
    with open(file, "rb") as content:
        parquet.check_footer(content)
        with pyarrow.parquet.ParquetFile(file, memory_map=False, **FOOTER_LIMITS) as table:
            rows, size = table.metadata.num_rows, parquet.unpacked_size(content, table.metadata)
            if rows > MAX_IMAGES or size > MAX_UNPACKED:
                raise CourseError(
                    f"{file.name} has {rows:,} rows and {size:,} bytes, too many for CIFAR-10: replace the copy."
                )
            for batch in table.iter_batches(ROWS_AT_ONCE, columns=["img.bytes", "label"]):
                for row in batch.to_pylist():
                    image, label = row["img"], row["label"]
                    if not isinstance(image, dict) or not isinstance(image["bytes"], bytes) or type(label) is not int:
                        raise ValueError("a row without an image or without a label")
                    yield image["bytes"], label


def _unpacked(file: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yield the path and the content of each file in a tar archive, which may be compressed by gzip.

    Raises:
        CourseError: If it is not a complete archive, or if a file or the archive is larger than any of CIFAR-10.
    """
    try:
        with _decompressed(file) as stream, tarfile.open(fileobj=_Limited(stream, file.name), mode="r|") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                if member.size > MAX_BYTES:
                    raise CourseError(f"{member.name} in {file.name} has {member.size:,} bytes: replace the archive.")
                yield PurePosixPath(member.name), archive.extractfile(member).read()
    except (OSError, EOFError, ValueError, zlib.error, tarfile.TarError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise CourseError(f"{file.name} is not a complete tar archive ({reason}): replace it.") from error


def _decompressed(file: Path) -> io.BufferedIOBase:
    with open(file, "rb") as start:
        is_gzip = start.read(2) == b"\x1f\x8b"
    return gzip.open(file) if is_gzip else open(file, "rb")


class _Limited:
    """A stream that ends with an error after `MAX_UNPACKED` bytes; tar headers can claim any size, too."""

    def __init__(self, stream: io.BufferedIOBase, name: str) -> None:
        self.stream, self.name, self.left = stream, name, MAX_UNPACKED

    def read(self, size: int) -> bytes:
        content = self.stream.read(size)
        self.left -= len(content)
        if self.left < 0:
            raise CourseError(f"{self.name} unpacks to more than {MAX_UNPACKED:,} bytes: replace the archive.")
        return content


def _read_file(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is not a file")  # a pipe would be waited for without end
    with open(path, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise OSError(f"{path} has more than {MAX_BYTES:,} bytes")
    return content


def _arrays(images: dict[str, list[np.ndarray]], labels: dict[str, list[int]]) -> Arrays:
    arrays = {}
    for split in SPLITS:
        stack = np.stack(images[split]) if images[split] else np.zeros((0, 32, 32, 3), np.uint8)
        arrays[f"{split}_images"] = np.ascontiguousarray(stack.transpose(0, 3, 1, 2))
        arrays[f"{split}_labels"] = np.array(labels[split], np.int64)
    return arrays


def _decode(content: bytes, source: str) -> np.ndarray:
    try:
        if len(content) > MAX_IMAGE_BYTES:
            raise ValueError(f"{len(content):,} bytes")
        # PNG only: for some other formats, such as PostScript, Pillow starts an external program.
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            width, height = image.size  # known before any memory is taken for the pixels
            pixels = np.asarray(image.convert("RGB")) if (width, height) == (32, 32) else None
    except Exception as error:  # a damaged image can raise almost any exception
        raise_if_of_the_machine(error)
        if content.startswith(b"\xff\xd8\xff"):
            raise CourseError(
                f"{source} is a JPEG image, which changes the pixels of CIFAR-10: use a copy with PNG images."
            ) from error
        raise CourseError(
            f"{source} is not a readable PNG image: replace the copy of CIFAR-10 with a complete one."
        ) from error
    if pixels is None:
        raise CourseError(f"{source} has {width} x {height} pixels, not 32 x 32: replace the copy of CIFAR-10.")
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


def _check_opcodes(content: bytes) -> None:
    """Check the sizes and numbers in a pickle before Python takes as much memory as they ask for.

    Raises:
        ValueError: If a size is larger than the rest of the file, or a number is larger than any in CIFAR-10's files.
    """
    for opcode, argument, _ in pickletools.genops(content):
        if "PUT" in opcode.name and argument > MAX_MEMO:
            raise ValueError(f"an object with the number {argument:,}")


def _unpickle(read: Callable[[str], bytes], name: str, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (n, 3, 32, 32) and labels (n,) of one official file."""
    try:
        content = read(name)
        _check_opcodes(content)
        batch = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
        images = batch[b"data"].numbers.reshape(-1, 3, 32, 32)
        if not all(type(label) is int for label in batch[b"labels"]):  # lists in lists could grow without limit
            raise ValueError("labels that are not whole numbers")
        labels = np.array(batch[b"labels"], np.int64)
    except Exception as error:  # a damaged pickle can raise almost any exception
        if not isinstance(error, FileNotFoundError):
            raise_if_of_the_machine(error)
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
