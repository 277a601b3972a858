"""The images: CIFAR-10, its stand-in or a reader's own pictures, and augmented batches of them."""

from .batches import MEAN, STD, Batches, normalize, progressive_side, resize, standardize
from .cifar10 import FINGERPRINTS, NAMES, cache_file, fingerprint, load, status, verify
from .custom import from_folder, from_tensors
from .dataset import Dataset
from .pictures import read_picture, read_with_whole

__all__ = [
    "FINGERPRINTS",
    "MEAN",
    "NAMES",
    "STD",
    "Batches",
    "Dataset",
    "cache_file",
    "fingerprint",
    "from_folder",
    "from_tensors",
    "load",
    "normalize",
    "progressive_side",
    "read_picture",
    "read_with_whole",
    "resize",
    "standardize",
    "status",
    "verify",
]
