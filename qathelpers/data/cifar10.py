"""Find CIFAR-10 (in the cache, in the user's own folder, or on the web), verify it and keep a copy."""

import hashlib
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse
from safetensors.torch import save

from ..common import locks, settings
from ..common.errors import CourseError
from ..common.files import Unreadable, check_readable, remove_leftovers, set_aside, unreadable, write_atomically
from . import download, readers, shapes
from .dataset import Dataset

NAMES = ("auto", "cifar10", "shapes")

# For each split, the SHA-256 digest of the sorted SHA-256 digests of its images. The digest of an image covers the
# label byte followed by 3,072 pixel bytes (height x width x RGB). All copies of CIFAR-10 have the same fingerprints,
# whatever their file format and the order of their images.
FINGERPRINTS = {
    "train": "d59acf989e068e709ce686cda292672c7b212c08d29d3d3e6d8c3aa99eba6a85",
    "test": "899683d46c3a8c66fd56e1af12202e69fe5a4517be10b0f68e04c78fe585c57c",
}


TENSORS = {f"{split}_{kind}" for split in FINGERPRINTS for kind in ("images", "labels")}


class Damaged(CourseError):
    """The content of the cache was read and is not CIFAR-10."""


def load(name: str | None = None) -> Dataset:
    """Return CIFAR-10, or drawn shapes as a stand-in if there is neither a copy nor a network; print which of the two.

    CIFAR-10 is read from the cache or, if it is not there, from the folder `QAT_DATA_DIR`. If this variable is not set,
    CIFAR-10 is downloaded. The content of every copy is verified.

    Args:
        name: "cifar10", "shapes", or "auto" (CIFAR-10 if possible, else shapes). The default is the environment
            variable `QAT_DATA`, or "auto" when it is not set.

    Raises:
        CourseError: If the name is unknown, if a copy is not CIFAR-10, or if the name is "cifar10" and no copy can be
            found.
    """
    name = name or settings.data_name()
    if name not in NAMES:
        raise CourseError(f"There is no data set {name!r}: choose one of {', '.join(NAMES)}.")
    dataset = _load_shapes() if name == "shapes" else _load_cifar10(or_shapes=name == "auto")
    dataset = dataset.take(settings.max_images(), settings.max_images())
    print(dataset)
    return dataset


def status() -> str:
    """Return one line that says where `load` will find CIFAR-10. A copy in the cache is verified, which takes seconds.

    Raises:
        CourseError: If the copy in the cache is damaged or cannot be read now, or if `QAT_DATA_DIR` is not a folder
            with a copy.
    """
    if os.path.exists(cache_file()):
        _read_cache()
        return f"CIFAR-10 is in the cache, {settings.short(cache_file())}"
    folder = settings.data_dir()
    if folder is None:
        return "CIFAR-10 will be downloaded when first used; if you have a copy, set QAT_DATA_DIR to its folder"
    if not folder.is_dir():
        raise CourseError(
            f"QAT_DATA_DIR is {folder}, which is not a folder: set it to a folder with a copy, or unset it."
        )
    readers.find_copy(folder)
    return f"CIFAR-10 will be read from QAT_DATA_DIR, {folder}"


def fingerprint(images: torch.Tensor, labels: torch.Tensor) -> str:
    """Return a SHA-256 checksum of a split, which does not depend on the order of the images.

    Args:
        images: Uint8 (n, 3, h, w).
        labels: Int64 (n,), each from 0 to 255.
    """
    pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
    digests = sorted(
        hashlib.sha256(bytes([label]) + image.tobytes()).digest()
        for label, image in zip(labels.tolist(), pixels, strict=True)
    )
    return hashlib.sha256(b"".join(digests)).hexdigest()


def verify(arrays: readers.Arrays, source: str) -> None:
    """Check that `arrays` hold all images and labels of CIFAR-10 and nothing else.

    Raises:
        CourseError: If they do not; the message names `source`.
    """
    for split, expected in FINGERPRINTS.items():
        images, labels = torch.from_numpy(arrays[f"{split}_images"]), torch.from_numpy(arrays[f"{split}_labels"])
        if not _have_the_right_types(images, labels) or fingerprint(images, labels) != expected:
            raise CourseError(
                f"{source} is not CIFAR-10: checksum mismatch of its {labels.numel():,} {split} images. Replace it "
                "with a complete copy, or remove it, and the course will download one."
            )


def cache_file() -> Path:
    """Return the path of the verified copy in the cache."""
    return settings.cache_dir() / "cifar10.safetensors"


def _have_the_right_types(images: torch.Tensor, labels: torch.Tensor) -> bool:
    return (
        (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
        and labels.ndim == 1
        and images.shape == (len(labels), 3, 32, 32)
        and bool(((labels >= 0) & (labels < len(readers.CLASSES))).all())
    )


def _load_shapes() -> Dataset:
    # Drawing takes time, so no more images are drawn than QAT_MAX_IMAGES allows. They are the first images of the full
    # data set.
    limit = settings.max_images()
    return Dataset(*shapes.make(min(20_000, limit or 20_000), min(5_000, limit or 5_000)), shapes.CLASSES, "shapes")


def _load_cifar10(or_shapes: bool) -> Dataset:
    arrays, find = None, _find_and_cache
    try:
        arrays = _read_cache()
    except Damaged:
        pass  # reported and replaced under the lock, where no other process can be replacing it
    except Unreadable as error:
        print(error)
        find = _find  # a copy that cannot be read now must not be replaced
    if arrays is None:
        try:
            arrays = find()
        except download.NotAvailable as error:
            if not or_shapes:
                raise CourseError(
                    f"CIFAR-10 was not found locally, and the download failed: {error}. Set QAT_DATA_DIR to a folder "
                    "with a copy, or choose the data set 'shapes'."
                ) from error
            print(f"CIFAR-10 was not found locally, and the download failed: {error}.")
            print(
                "Using drawn shapes instead. This is NOT CIFAR-10: do not compare these results with CIFAR-10 results."
            )
            return _load_shapes()
    return Dataset(**_tensors(arrays), classes=readers.CLASSES, name="cifar10")


def _read_cache() -> readers.Arrays | None:
    """Return the copy in the cache, or None if there is none.

    The file is read as a whole before it is verified, so a later change of the file does not change the data.

    Raises:
        Damaged: If the content of the file was read and is not CIFAR-10.
        Unreadable: If there is a copy that cannot be read now, for example that of another user.
    """
    path = cache_file()
    if not os.path.exists(path):
        return None
    try:
        check_readable(path, "a copy of CIFAR-10", "set QAT_CACHE_DIR to another folder")
        arrays = _parse(path.read_bytes())
        verify(arrays, str(path))
    except Unreadable:
        raise
    except CourseError as error:
        raise Damaged(str(error)) from error
    except SafetensorError as error:
        raise Damaged(f"{path} is damaged ({error}).") from error
    except (OSError, MemoryError, RuntimeError) as error:  # RuntimeError: PyTorch is out of memory
        raise unreadable(path, error) from error
    return arrays


def _parse(content: bytes) -> readers.Arrays:
    bytearray(len(content))  # a MemoryError if there is too little memory, for which the parser has no exception
    tensors = parse(content)
    kinds = {torch.uint8, torch.int64}
    if tensors.keys() != TENSORS or any(tensor.dtype not in kinds for tensor in tensors.values()):
        raise CourseError("It does not hold the images and labels of CIFAR-10.")
    return {key: tensor.numpy() for key, tensor in tensors.items()}


def _find_and_cache() -> readers.Arrays:
    """Read the user's copy or download one, verify it and keep it in the cache.

    A lock lets only one process at a time do this; the next one then finds the copy in the cache.
    """
    folder = settings.cache_dir()
    try:
        with locks.hold(folder / ".lock", wait=lambda holder: _say_who_is_waited_for(holder, folder)):
            remove_leftovers(cache_file())
            return _read_or_replace()
    except locks.Unavailable as error:
        print(f"No copy of CIFAR-10 is kept: {error} Set QAT_CACHE_DIR to another folder.")
        return _find()


def _say_who_is_waited_for(holder: str, folder: Path) -> None:
    print(
        f"Waiting for {holder}, which is finding or downloading CIFAR-10 for {folder}. If it has stopped, end it; to "
        "wait no longer, interrupt this process or set QAT_CACHE_DIR to another folder.",
        flush=True,
    )


def _read_or_replace() -> readers.Arrays:
    """Return the copy in the cache; if there is none, or a damaged one, find another copy and keep that."""
    path, damaged = cache_file(), False
    try:
        arrays = _read_cache()
        if arrays is not None:
            return arrays
    except Unreadable as error:
        print(error)
        return _find()
    except Damaged as error:
        print(f"{path} is damaged and will be replaced ({error})")
        damaged = True
    arrays = _find()
    aside = set_aside(path) if damaged else None  # not before there is another copy
    if aside:
        print(f"The damaged file is now {aside}: delete it if you do not need it.")
    return _cache(arrays)


def _cache(arrays: readers.Arrays) -> readers.Arrays:
    try:
        write_atomically(cache_file(), lambda path: path.write_bytes(save(_tensors(arrays))))
    except CourseError as error:
        print(f"CIFAR-10 can be used, but no copy is kept: {error}")
    return arrays


def _find() -> readers.Arrays:
    folder = settings.data_dir()
    if folder is not None:
        arrays = readers.read_folder(folder)
        verify(arrays, str(folder))
        return arrays
    return download.fetch(verify)


def _tensors(arrays: readers.Arrays) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(array) for key, array in arrays.items()}
