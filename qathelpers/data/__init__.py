"""The images: find and verify CIFAR-10 or draw its stand-in, and serve augmented batches."""

from .batches import MEAN, STD, Batches, normalize, progressive_side, resize, standardize
from .cifar10 import FINGERPRINTS, NAMES, cache_file, fingerprint, load, status, verify
from .dataset import Dataset

__all__ = [
    "FINGERPRINTS",
    "MEAN",
    "NAMES",
    "STD",
    "Batches",
    "Dataset",
    "cache_file",
    "fingerprint",
    "load",
    "normalize",
    "progressive_side",
    "resize",
    "standardize",
    "status",
    "verify",
]
