"""All environment variables that the course reads.

Each variable is read when its function is called, so the first cell of a notebook can set it.
"""

import os
import sys
from pathlib import Path

from .errors import CourseError

MAX_DIGITS = 12  # of a whole number
PACKAGE = Path(__file__).resolve().parents[1]  # the folder qathelpers/


def course_dir() -> Path:
    """Return the checkout of the course, or the working directory if the package was installed without one."""
    checkout = PACKAGE.parent
    return checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()


def recorded_dir() -> Path:
    """Return the folder of the recorded runs: data/ in the checkout, or its copy in the installed package."""
    checkout = PACKAGE.parent
    return checkout / "data" if (checkout / "pyproject.toml").is_file() else PACKAGE / "recorded"


def on_colab() -> bool:
    """Return whether this runs on Google Colab, whose kernels import google.colab when they start."""
    return "google.colab" in sys.modules


def on_kaggle() -> bool:
    """Return whether this runs on Kaggle, which sets `KAGGLE_KERNEL_RUN_TYPE`."""
    return "KAGGLE_KERNEL_RUN_TYPE" in os.environ


def short(path: Path) -> Path:
    """Return `path` relative to the course, so that notebooks and bug reports do not show folders outside it."""
    return path.relative_to(course_dir()) if path.is_relative_to(course_dir()) else path


def data_name() -> str:
    """Return `QAT_DATA`: the default of `data.load`, which is "auto", "cifar10" or "shapes"."""
    return os.environ.get("QAT_DATA") or "auto"


def data_dir() -> Path | None:
    """Return `QAT_DATA_DIR`: a folder with the user's own copy of CIFAR-10, or None if it is not set."""
    return _path("QAT_DATA_DIR", None)


def cache_dir() -> Path:
    """Return `QAT_CACHE_DIR`: where a verified copy of CIFAR-10 is kept (default: data/cifar10 in the checkout)."""
    return _path("QAT_CACHE_DIR", course_dir() / "data" / "cifar10")


def results_dir() -> Path:
    """Return `QAT_RESULTS_DIR`: where runs are saved (default: runs/ in the checkout)."""
    return _path("QAT_RESULTS_DIR", course_dir() / "runs")


def max_epochs() -> int | None:
    """Return `QAT_MAX_EPOCHS`: the largest number of epochs of any training, for quick tests of the course."""
    return _count("QAT_MAX_EPOCHS")


def max_images() -> int | None:
    """Return `QAT_MAX_IMAGES`: the largest number of images per split, for quick tests of the course."""
    return _count("QAT_MAX_IMAGES")


def _path(variable: str, default: Path | None) -> Path | None:
    value = os.environ.get(variable)
    try:
        return Path(value).expanduser().resolve() if value else default
    except (RuntimeError, OSError, ValueError) as error:  # an unknown user ("~nobody/data"), or a loop of links
        raise CourseError(
            f"{variable} is {value!r}, which is not a valid path ({error}): set it to a folder."
        ) from error


def _count(variable: str) -> int | None:
    value = os.environ.get(variable)
    if not value:
        return None
    if not value.isdecimal() or len(value) > MAX_DIGITS or int(value) < 1:
        shown = value if len(value) <= 80 else f"{value[:77]}..."
        raise CourseError(
            f"{variable} is {shown!r}: set it to a whole number of 1 to {MAX_DIGITS} digits, at least 1, or unset it."
        )
    return int(value)
