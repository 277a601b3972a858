"""Every environment variable that the course reads, in one place.

Read at call time, so that a notebook may set one in its first cell.
"""

import os
import sys
from pathlib import Path

from .errors import CourseError

PACKAGE = Path(__file__).resolve().parent


def course_dir() -> Path:
    """Return the checkout that holds this package, or the working directory when it was installed elsewhere."""
    checkout = PACKAGE.parent
    return checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()


def recorded_dir() -> Path:
    """Return the folder of the runs that come with the course: data/ of the checkout, or what was installed of it."""
    checkout = PACKAGE.parent
    return checkout / "data" if (checkout / "pyproject.toml").is_file() else PACKAGE / "recorded"


def on_colab() -> bool:
    """Return whether this runs on Colab, whose kernels import a package of its own when they start."""
    return "google.colab" in sys.modules


def short(path: Path) -> Path:
    """Return `path` as seen from the course, so that a notebook or a bug report does not show where that lies."""
    return path.relative_to(course_dir()) if path.is_relative_to(course_dir()) else path


def data_name() -> str:
    """Return `QAT_DATA`: which data set `data.load` takes when it is not told ("auto", "cifar10" or "shapes")."""
    return os.environ.get("QAT_DATA") or "auto"


def data_dir() -> Path | None:
    """Return `QAT_DATA_DIR`: a folder with the user's own copy of CIFAR-10, or None."""
    return _path("QAT_DATA_DIR", None)


def cache_dir() -> Path:
    """Return `QAT_CACHE_DIR`: where a verified copy of CIFAR-10 is kept (default: data/cifar10 in the checkout)."""
    return _path("QAT_CACHE_DIR", course_dir() / "data" / "cifar10")


def results_dir() -> Path:
    """Return `QAT_RESULTS_DIR`: where runs are saved (default: runs/ in the checkout)."""
    return _path("QAT_RESULTS_DIR", course_dir() / "runs")


def max_epochs() -> int | None:
    """Return `QAT_MAX_EPOCHS`: an upper limit on every training's epochs, which makes a check of the course short."""
    return _count("QAT_MAX_EPOCHS")


def max_images() -> int | None:
    """Return `QAT_MAX_IMAGES`: an upper limit on the images of a split, which makes a check of the course short."""
    return _count("QAT_MAX_IMAGES")


def _path(variable: str, default: Path | None) -> Path | None:
    value = os.environ.get(variable)
    try:
        return Path(value).expanduser().resolve() if value else default
    except (RuntimeError, OSError) as error:  # "~nobody/data", or links that lead in a circle
        raise CourseError(f"{variable} is {value!r}, which is no path ({error}): set it to a folder.") from error


def _count(variable: str) -> int | None:
    value = os.environ.get(variable)
    if not value:
        return None
    if not value.isdecimal() or int(value) < 1:
        raise CourseError(f"{variable} is {value!r}; set it to a whole number from 1 up, or unset it.")
    return int(value)
