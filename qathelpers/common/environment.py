"""Check what is installed on this machine and whether the course can run on it."""

import importlib
import os
import shutil
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from . import hardware, settings, tracebacks
from .errors import CourseError, raise_if_of_the_machine, sentence
from .files import check_writable, existing

PACKAGES = ("torch", "torchvision", "brevitas", "numpy", "matplotlib", "ipywidgets")
LAB_PACKAGES = ("jupyterlab", "nbval")  # not needed on Colab and Kaggle, which have their own notebook servers
DRIVE = "/content/drive"  # where Colab mounts Google Drive
NEEDED_GB = 2  # for the data, a download in progress and some runs


def setup() -> None:
    """Print the versions, the device and, on Colab, where runs are saved; each notebook starts with this call.

    From then on, the notebook shows one sentence instead of a traceback for errors that are not bugs in the code.
    """
    tracebacks.show_sentences()
    versions = ", ".join(f"{name} {version}" for name, version in hardware.versions().items())
    device = hardware.best_device()
    print(f"{versions}; trains on {device} ({hardware.describe(device)})")
    if settings.on_colab():
        print(_where_runs_are_saved())


def check(*more: Callable[[], str]) -> bool:
    """Print one line each for Python, the packages, the device and the disk: [ok], or [fix] and what to do.

    Args:
        more: Further checks, run before those of the folders. Each returns the text of its line, or raises CourseError.

    Returns:
        True if every check passed.
    """
    names = PACKAGES if settings.on_colab() or settings.on_kaggle() else (*PACKAGES, *LAB_PACKAGES)
    folders = {"cache": settings.cache_dir, "runs": settings.results_dir}
    checks = [_python, *map(_importer, names), _device, *more, *(_folder(*item) for item in folders.items())]
    return all([_print_line(check) for check in checks])  # a list, so that all lines are printed


def _print_line(check: Callable[[], str]) -> bool:
    try:
        print("[ok]  ", check())
    except Exception as error:  # a broken package can raise any exception when it is imported
        print("[fix] ", sentence(error) or f"{type(error).__name__}: {error}")
        return False
    return True


def _python() -> str:
    return f"Python {sys.version.split()[0]}"


def _importer(name: str) -> Callable[[], str]:
    def check() -> str:
        try:
            importlib.import_module(name)
        except Exception as error:
            raise_if_of_the_machine(error)
            raise CourseError(
                f'{name} cannot be imported ({error}): run `pip install -e ".[lab]"` in the folder of the course.'
            ) from error
        return f"{name} {metadata.version(name)}"

    return check


def _device() -> str:
    device = hardware.best_device()
    precisions = dict.fromkeys(hardware.precision(device, is_large) for is_large in (False, True))
    return f"{device} ({hardware.describe(device)}), {' or '.join(precisions)}"


def _folder(title: str, path: Callable[[], Path]) -> Callable[[], str]:
    def check() -> str:
        folder = path()
        check_writable(folder)
        free = shutil.disk_usage(existing(folder)).free / 1e9
        if free < NEEDED_GB:
            raise CourseError(
                f"only {free:.1f} GB free in {folder}: free {NEEDED_GB} GB, or set QAT_CACHE_DIR and QAT_RESULTS_DIR "
                "to folders on another disk."
            )
        return f"{title}: {settings.short(folder)} can be written, {free:.0f} GB free"

    return check


def _where_runs_are_saved() -> str:
    folder = settings.results_dir()
    if folder.is_relative_to(DRIVE) and os.path.ismount(DRIVE):
        return (
            f"Runs are saved in {folder}, on your Google Drive: after a disconnect, training resumes from the last "
            "finished epoch."
        )
    return (
        f"Runs are saved in {folder} and are lost with this machine. To keep them, mount your Google Drive and run "
        f"`%env QAT_RESULTS_DIR={DRIVE}/MyDrive/qat` in a cell, both before training."
    )
