"""The environment check that bug reports ask for, and the checks under the notebooks' exercises."""

import importlib
import math
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib import metadata

import torch

from . import data, hardware, settings
from .errors import CourseError

PACKAGES = ("torch", "torchvision", "brevitas", "numpy", "matplotlib", "ipywidgets")
LAB = ("jupyterlab", "nbval")  # what Colab has something else for
DRIVE = "/content/drive"  # where Colab mounts it
Mistakes = Sequence[tuple[object, str]]  # wrong answers that people give, and what to tell them
NEEDED_GB = 2  # for the data, a download in progress and some runs


def setup() -> None:
    """Print versions and device, on Colab also where runs are saved: every notebook's first output."""
    versions = ", ".join(f"{name} {version}" for name, version in hardware.versions().items())
    device = hardware.best_device()
    print(f"{versions}; trains on {device} ({hardware.describe(device)})")
    if settings.on_colab():
        print(_where_runs_go())


def _where_runs_go() -> str:
    folder = settings.results_dir()
    if folder.is_relative_to(DRIVE) and os.path.ismount(DRIVE):
        return f"Runs are saved in {folder}, on your Drive: after a disconnect a training goes on from its last epoch."
    return (
        f"Runs are saved in {folder} and go with this machine; to keep them, mount your Drive and run "
        f"`%env QAT_RESULTS_DIR={DRIVE}/MyDrive/qat` in a cell, both before the training."
    )


def environment() -> bool:
    """Print a line for Python, each package, device, data and disk: [ok], or what to do; return whether all are ok."""
    names = PACKAGES if settings.on_colab() else (*PACKAGES, *LAB)
    checks: list[Callable[[], str]] = [_python, *(_importer(name) for name in names), _device, _data, _disk]
    return all([_line(check) for check in checks])


def _line(check: Callable[[], str]) -> bool:
    try:
        print("[ok]  ", check())
    except Exception as error:  # a package that does not import raises anything
        print("[fix] ", error)
        return False
    return True


def _python() -> str:
    return f"Python {sys.version.split()[0]}"


def _importer(name: str) -> Callable[[], str]:
    def check() -> str:
        try:
            importlib.import_module(name)
        except Exception as error:
            raise CourseError(f"{name} does not import ({error}): run `pip install -e '.[lab]'` here.") from error
        return f"{name} {metadata.version(name)}"

    return check


def _device() -> str:
    device = hardware.best_device()
    return f"{device} ({hardware.describe(device)}), {'bf16' if hardware.bf16_is_fast(device) else 'fp32'}"


def _data() -> str:
    if data.cache_file().exists():
        return f"CIFAR-10 in the cache, {settings.short(data.cache_file())}"
    own = settings.data_dir()
    if own is None:
        return "CIFAR-10 not here yet: it is downloaded when first used, or set QAT_DATA_DIR to a folder with a copy"
    if not own.is_dir():
        raise CourseError(f"QAT_DATA_DIR is {own}, which is no folder: set it to a folder with a copy, or unset it.")
    return f"CIFAR-10 will be read from QAT_DATA_DIR ({own})"


def _disk() -> str:
    folder = settings.course_dir()
    free = shutil.disk_usage(folder).free / 1e9
    if free < NEEDED_GB:
        raise CourseError(f"{free:.1f} GB free in {folder}: free {NEEDED_GB} GB, or set QAT_CACHE_DIR elsewhere.")
    return f"{free:.0f} GB free where the course is"


def number(
    name: str, answer: object, expected: float, *, hint: str, mistakes: Mistakes = (), tolerance: float = 0.005
) -> None:
    """Say whether an exercise's `answer` is `expected` up to a relative `tolerance`, and what is wrong if not.

    `mistakes` are wrong answers that people give, each with a sentence about what led there; `hint` is for all others.
    """
    try:
        value = float(answer)
    except (TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor of several elements
        return _verdict(name, answer, "a number is wanted", hint)
    if _near(value, expected, tolerance):
        return _verdict(name, answer)
    for wrong, sentence in mistakes:
        if _near(value, wrong, tolerance):
            return _verdict(name, answer, f"{value:g} is not it", sentence)
    _verdict(name, answer, f"{value:g} is too {'large' if value > expected else 'small'}", hint)


def sequence(name: str, answer: object, expected: Sequence[float], *, hint: str, mistakes: Mistakes = ()) -> None:
    """Say whether an exercise's `answer` has the numbers `expected`, in this order, and what is wrong if not.

    `mistakes` as in `number`.
    """
    try:
        values = [float(value) for value in answer]
    except (TypeError, ValueError):
        return _verdict(name, answer, "a list of numbers is wanted", hint)
    if values == [float(value) for value in expected]:
        return _verdict(name, answer)
    for wrong, sentence in mistakes:
        if values == [float(value) for value in wrong]:
            return _verdict(name, answer, f"{answer} is not it", sentence)
    same = sorted(values) == sorted(map(float, expected))
    _verdict(name, answer, "the order is another one" if same else f"{answer} is not it", hint)


def text(name: str, answer: object, expected: str, *, hint: str, mistakes: Mistakes = ()) -> None:
    """Say whether an exercise's `answer` is the word `expected`, whatever its case, and what is wrong if not.

    `mistakes` as in `number`.
    """
    if not isinstance(answer, str):
        return _verdict(name, answer, "a word in quotes is wanted", hint)
    word = answer.strip().lower()
    if word == expected.lower():
        return _verdict(name, answer)
    for wrong, sentence in mistakes:
        if word == wrong.lower():
            return _verdict(name, answer, f"{answer!r} is not it", sentence)
    _verdict(name, answer, f"{answer!r} is not it", hint)


def function(
    name: str,
    answer: Callable[..., object] | None,
    expected: Callable[..., torch.Tensor],
    inputs: Sequence[tuple],
    *,
    hint: str,
    mistakes: Mistakes = (),
) -> None:
    """Say whether an exercise's function returns what `expected` does for each of `inputs`, tuples of arguments.

    `mistakes` are functions that people write, each with a sentence about what is wrong with it. Whatever the answer
    raises is shown as a sentence.
    """
    if answer is None or not callable(answer):
        return _verdict(name, answer, "a function is wanted", hint)
    try:
        results = [answer(*arguments) for arguments in inputs]
    except Exception as error:  # the reader's code raises anything
        return _verdict(name, answer, f"it raises {type(error).__name__} ({error})", hint)
    if all(result is None for result in results):
        return _verdict(name, None, "", hint)
    if _same(results, expected, inputs):
        return _verdict(name, answer)
    sentence = next((words for wrong, words in mistakes if _same(results, wrong, inputs)), hint)
    _verdict(name, answer, f"it returns {results[0]}, wanted is {expected(*inputs[0])}", sentence)


def _near(value: float, expected: float, tolerance: float) -> bool:
    return math.isclose(value, expected, rel_tol=tolerance, abs_tol=1e-6)


def _same(results: list, function: Callable[..., torch.Tensor], inputs: Sequence[tuple]) -> bool:
    wanted = [torch.as_tensor(function(*arguments)).float() for arguments in inputs]
    try:
        found = [torch.as_tensor(result).detach().float() for result in results]
    except (TypeError, ValueError, RuntimeError):
        return False
    return all(a.shape == b.shape and torch.allclose(a, b, atol=1e-5) for a, b in zip(found, wanted, strict=True))


def _verdict(name: str, answer: object, problem: str = "", hint: str = "") -> None:
    if answer is None:
        print(f"{name}: not answered yet. Hint: {hint}")
    elif problem:
        print(f"{name}: not yet, {problem}. Hint: {hint}")
    else:
        print(f"{name}: solved.")
