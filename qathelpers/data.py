"""Where CIFAR-10 is, or comes from, verified: `load()` gives four tensors and says what they are."""

import contextlib
import hashlib
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path

import torch
from filelock import FileLock
from safetensors.torch import load_file, save

from . import download, readers, settings, shapes
from .errors import CourseError, check_whole
from .files import remove_leftovers, write_atomically

NAMES = ("auto", "cifar10", "shapes")

# SHA-256 over the sorted SHA-256 digests of each image's label byte and 3,072 pixel bytes (height x width x RGB): the
# same for every copy of CIFAR-10, whatever its file format and its order.
FINGERPRINTS = {
    "train": "d59acf989e068e709ce686cda292672c7b212c08d29d3d3e6d8c3aa99eba6a85",
    "test": "899683d46c3a8c66fd56e1af12202e69fe5a4517be10b0f68e04c78fe585c57c",
}


@dataclass(frozen=True)
class Data:
    """A data set in memory.

    Images are uint8 (n, 3, 32, 32), RGB from 0 to 255; labels are int64 (n,), indices into `classes`. `name` is
    "cifar10" or "shapes".
    """

    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor
    classes: tuple[str, ...]
    name: str

    def take(self, train: int | None = None, test: int | None = None) -> "Data":
        """Return the first `train` and `test` images of each split (None: all).

        Raises ValueError when a number is negative or not whole.
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

    def validation_split(self, size: int = 5000) -> "Data":
        """Return the training set alone, its last `size` images as the "test" split: for choosing anything.

        Raises ValueError when fewer than `size` + 1 training images are there.
        """
        if not isinstance(size, Integral) or not 0 < size < len(self.train_labels):
            raise ValueError(f"cannot set {size!r} of {len(self.train_labels)} training images aside")
        return replace(
            self,
            train_images=self.train_images[:-size],
            train_labels=self.train_labels[:-size],
            test_images=self.train_images[-size:],
            test_labels=self.train_labels[-size:],
        )

    def __str__(self) -> str:
        """Return the name and the sizes in a line."""
        title = "CIFAR-10" if self.name == "cifar10" else "shapes, drawn from a seed (this is NOT CIFAR-10)"
        return f"{title}: {len(self.train_labels):,} training and {len(self.test_labels):,} test images"


def load(name: str | None = None) -> Data:
    """Return CIFAR-10, or the drawn stand-in where there is neither a copy nor a network.

    `name` is "cifar10", "shapes", or "auto" (cifar10, else shapes; the default unless `QAT_DATA` says otherwise).
    CIFAR-10 is looked for in the cache, then in `QAT_DATA_DIR`, then downloaded; every copy is verified by content.
    Prints what it found. Raises CourseError when the name is unknown, a copy is wrong, or "cifar10" is nowhere.
    """
    name = name or settings.data_name()
    if name not in NAMES:
        raise CourseError(f"There is no data set {name!r}: choose one of {', '.join(NAMES)}.")
    data = _load_shapes() if name == "shapes" else _load_cifar10(or_shapes=name == "auto")
    data = data.take(settings.max_images(), settings.max_images())
    print(data)
    return data


def fingerprint(images: torch.Tensor, labels: torch.Tensor) -> str:
    """Return the SHA-256 of the content of uint8 `images` (n, 3, h, w) and `labels` (n,), whatever their order."""
    pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
    digests = sorted(
        hashlib.sha256(bytes([label]) + image.tobytes()).digest()
        for label, image in zip(labels.tolist(), pixels, strict=True)
    )
    return hashlib.sha256(b"".join(digests)).hexdigest()


def verify(arrays: readers.Arrays, source: str) -> None:
    """Raise CourseError naming `source` unless `arrays` hold exactly CIFAR-10."""
    for split, expected in FINGERPRINTS.items():
        images, labels = torch.from_numpy(arrays[f"{split}_images"]), torch.from_numpy(arrays[f"{split}_labels"])
        if not _are_pictures(images, labels) or fingerprint(images, labels) != expected:
            raise CourseError(
                f"{source} is not CIFAR-10: the content of its {len(labels):,} {split} images differs from the "
                "original; replace it with a complete copy, or remove it and the course downloads one."
            )


def _are_pictures(images: torch.Tensor, labels: torch.Tensor) -> bool:
    return (
        (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
        and labels.ndim == 1
        and images.shape == (len(labels), 3, 32, 32)
        and bool(((labels >= 0) & (labels < len(readers.CLASSES))).all())
    )


def cache_file() -> Path:
    """Return where the verified copy is kept."""
    return settings.cache_dir() / "cifar10.safetensors"


def _load_shapes() -> Data:
    # The size is fixed, not limited here: a smaller data set is a prefix of a larger one.
    limit = settings.max_images()
    return Data(*shapes.make(min(20_000, limit or 20_000), min(5_000, limit or 5_000)), shapes.CLASSES, "shapes")


def _load_cifar10(or_shapes: bool) -> Data:
    arrays = _read_cache()
    if arrays is None:
        try:
            arrays = _find_and_cache()
        except download.NotAvailable as error:
            if not or_shapes:
                raise CourseError(
                    f"CIFAR-10 is neither here nor to be had: {error}; set QAT_DATA_DIR to a folder with a copy, or "
                    "choose the data set 'shapes'."
                ) from error
            print(f"CIFAR-10 is neither here nor to be had: {error}.")
            print("The course goes on with drawn shapes. This is NOT CIFAR-10: never compare its results with those.")
            return _load_shapes()
    return Data(**_tensors(arrays), classes=readers.CLASSES, name="cifar10")


def _read_cache() -> readers.Arrays | None:
    """Return the cached copy, or None when there is none; a damaged one is named and deleted."""
    path = cache_file()
    if not path.exists():
        return None
    try:
        arrays = {key: tensor.numpy() for key, tensor in load_file(path).items()}
        verify(arrays, str(path))
    except Exception as error:  # a damaged file raises nearly anything
        print(f"{path} is damaged and will be fetched again ({error}).")
        with contextlib.suppress(OSError):
            path.unlink()
        return None
    return arrays


def _find_and_cache() -> readers.Arrays:
    """Read the user's copy or download one, verify it and keep it in the cache.

    Only one process at a time: a second one waits and then finds what the first one cached.
    """
    folder = settings.cache_dir()
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except (OSError, NotImplementedError) as error:  # the latter where a network's file system knows no locks
        print(f"CIFAR-10 is not kept, for {folder} cannot be written ({error}): set QAT_CACHE_DIR to another.")
        return _find()
    try:
        remove_leftovers(cache_file())
        return _read_cache() or _cache(_find())
    finally:
        lock.release()


def _cache(arrays: readers.Arrays) -> readers.Arrays:
    try:
        write_atomically(cache_file(), lambda path: path.write_bytes(save(_tensors(arrays))))
    except CourseError as error:
        print(f"CIFAR-10 is used but not kept: {error}")
    return arrays


def _find() -> readers.Arrays:
    own = settings.data_dir()
    if own is not None:
        arrays = readers.read_folder(own)
        verify(arrays, str(own))
        return arrays
    return download.fetch(verify)


def _tensors(arrays: readers.Arrays) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(array) for key, array in arrays.items()}
