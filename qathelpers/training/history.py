"""The history of a training: one row per epoch, and the config that says what was trained, how and on what."""

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..common.errors import CourseError, check_type, is_out_of_memory
from ..common.files import as_path, check_readable, format_of, unreadable, write_atomically
from . import schema

ROW = np.dtype(
    [
        ("epoch", "<i4"),
        ("train_loss", "<f8"),
        ("train_acc", "<f8"),
        ("test_loss", "<f8"),
        ("test_acc", "<f8"),
        ("seconds", "<f8"),
    ]
)

BEFORE = "before"  # the key of a config under which it holds the config of the rows that are being replaced
ATTEMPTS = 5
SECONDS_BETWEEN_ATTEMPTS = 0.05


@dataclass
class History:
    """The statistics of a training.

    `history["test_acc"]` is a column as an array. Accuracies are fractions from 0 to 1, losses are mean cross-entropies
    in nats, and `seconds` is the wall time of an epoch, including its evaluation.

    Args:
        config: What was trained, how and on what (see `Run.plan`).
        rows: One record per epoch.
    """

    config: dict
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, ROW))

    @property
    def name(self) -> str:
        """The net's name, such as "TernaryNN"."""
        return self.config["name"]

    @property
    def test_acc(self) -> float:
        """Accuracy of the saved weights on the test images, in fp32; if there is none yet, that of the last epoch.

        For older runs it can differ from the last value of the column "test_acc", which was computed in bf16.
        """
        return float(self.config.get("test_acc", self["test_acc"][-1] if len(self) else float("nan")))

    @property
    def held_out(self) -> str:
        """What the columns `test_loss` and `test_acc` were computed on: "test" or "validation" images."""
        return self.config.get("evaluated_on", "test")

    @property
    def evaluation(self) -> str:
        """Precision in which `test_acc` was computed, "fp32" or "bf16"."""
        return "fp32" if "test_acc" in self.config else self.config.get("evaluation", "unknown")

    def __len__(self) -> int:
        """Return the number of epochs."""
        return len(self.rows)

    def __getitem__(self, column: str) -> np.ndarray:
        """Return one column, an array with one value per epoch."""
        if column not in ROW.names:
            raise KeyError(f"a history has the columns {', '.join(ROW.names)}, not {column!r}")
        return self.rows[column]

    def append(
        self, epoch: int, train_loss: float, train_acc: float, test_loss: float, test_acc: float, seconds: float
    ) -> None:
        """Add the statistics of one epoch."""
        row = (epoch, train_loss, train_acc, test_loss, test_acc, seconds)
        self.rows = np.append(self.rows, np.array([row], ROW))

    def last_line(self) -> str:
        """Return the statistics of the last epoch as one line of text."""
        row = dict(zip(ROW.names, self.rows[-1].tolist(), strict=True))
        return (
            f"{self.name} epoch {row['epoch']}/{self.config['epochs']}: "
            f"train loss {row['train_loss']:.3f} acc {row['train_acc']:.4f}, "
            f"{self.held_out} loss {row['test_loss']:.3f} acc {row['test_acc']:.4f}, {row['seconds']:.1f} s"
        )

    def save(self, path: str | Path) -> Path:
        """Write the rows to `path` (.npy) and the config to the .json file beside it; return the path of the .npy file.

        A digest of the rows is stored with the config, so `load` detects if one of the two files was replaced with that
        of another run. While the rows are written, the config beside them names what was there before, too. A reader
        therefore finds a config for the rows at every moment, and also if this process is killed.

        Raises:
            CourseError: If the folder cannot be written.
        """
        path = as_path("path", path)
        config = self.config | {"rows": len(self), "sha256": _digest(self.rows)}
        before = _what_is_there(path)
        _write_config(path, config if before is None else config | {BEFORE: before})
        write_atomically(path, self._write_rows)
        if before is not None:
            _write_config(path, config)
        return path

    def _write_rows(self, path: Path) -> None:
        with open(path, "wb") as file:  # given a path, np.save would append .npy to its name
            np.save(file, self.rows, allow_pickle=False)

    @classmethod
    def load(cls, path: str | Path) -> "History":
        """Read what `save` wrote.

        Args:
            path: The .npy file.

        Raises:
            Unreadable: If a file exists but cannot be read now.
            CourseError: If a file is missing, damaged, or not a history, or if a value in the config is wrong.
        """
        path = as_path("path", path)
        for attempt in range(ATTEMPTS):
            if attempt:  # another process may have replaced both files between the two reads
                time.sleep(SECONDS_BETWEEN_ATTEMPTS)
            rows, stored = _read_rows(path), _read_config(path)
            found = _matching(rows, stored)
            if found:
                config, count = found
                return cls(config, rows[:count])
        raise CourseError(
            f"{path} and {path.with_suffix('.json').name} do not belong to the same run, or one of them is damaged: "
            "restore the right file, or train the net again."
        )


def check_histories(histories: object) -> None:
    """Check that an argument is a list of histories.

    Raises:
        CourseError: If it is something else, such as one history.
    """
    check_type("histories", histories, (list, tuple), "a list of histories, such as [history]")
    for history in histories:
        check_type("one of the histories", history, History, "what `fit` or `load_or_train` returned as history")


def check_one_data_set(histories: Sequence[History]) -> None:
    """Check that all runs are on one data set, and that all were evaluated on test images or all on validation images.

    Raises:
        CourseError: If they are on several data sets, or were evaluated on both.
    """
    data = sorted({history.config["data"] for history in histories})
    if len(data) > 1:
        raise CourseError(f"These runs are on {' and '.join(data)}: compare runs on one data set.")
    if len({history.held_out for history in histories}) > 1:
        validated = ", ".join(sorted({history.name for history in histories if history.held_out == "validation"}))
        raise CourseError(
            f"{validated}: evaluated on validation images, the other runs on test images. Compare runs that were "
            "evaluated on the same images."
        )


def by_net(histories: Sequence[History]) -> dict[str, list[History]]:
    """Return the runs of each net, by the net's name."""
    groups: dict[str, list[History]] = {}
    for history in histories:
        groups.setdefault(history.name, []).append(history)
    return groups


def same_evaluation(histories: Sequence[History]) -> tuple[str, list[float]]:
    """Return a precision in which all runs were evaluated, and the test accuracy of each run in it: fp32 if possible.

    Older runs, whose weights were not kept, have a test accuracy in bf16 only. If there is no precision that all runs
    have in common, return the names of all precisions, and the `test_acc` of each run.
    """
    accuracies = []
    for history in histories:
        own = {history.config.get("evaluation", history.evaluation): float(history["test_acc"][-1])}
        accuracies.append(own | {history.evaluation: history.test_acc})
    for precision in ("fp32", "bf16"):
        if all(precision in accuracy for accuracy in accuracies):
            return precision, [accuracy[precision] for accuracy in accuracies]
    names = sorted({history.evaluation for history in histories})
    return " and ".join(names), [history.test_acc for history in histories]


def _read(path: Path, parse: Callable[[BinaryIO], Any]) -> Any:
    wanted = f"a {path.suffix or '.npy'} file of a history"
    check_readable(path, wanted, "train the net again, or name the .npy file of another history")
    try:
        with open(path, "rb") as file:
            return parse(file)
    except Exception as error:  # a damaged file can raise almost anything
        if isinstance(error, OSError) or is_out_of_memory(error):
            raise unreadable(path, error) from error
        kind = format_of(path)
        is_other = kind and path.suffix not in kind  # the format has the name of its suffix in parentheses
        problem = f"{kind}, not {wanted}" if is_other else f"damaged or from another program ({error})"
        raise CourseError(
            f"{path} is {problem}: name the .npy file of a history, or move this file to another folder and train the "
            "net again."
        ) from error


def _read_rows(path: Path) -> np.ndarray:
    rows = _read(path, _parse_rows)
    if rows.dtype != ROW or rows.ndim != 1:
        raise CourseError(
            f"{path} is a NumPy array of another program, not a history of the course, which has the columns "
            f"{', '.join(ROW.names)}: move it to another folder, or name another file."
        )
    return rows


def _parse_rows(file: BinaryIO) -> np.ndarray:
    size = os.fstat(file.fileno()).st_size
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(file)
    if math.prod(shape) * dtype.itemsize > size:  # NumPy would allocate memory for values that the file lacks
        raise ValueError(f"it has {size:,} bytes, too few for an array of the shape {shape}")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)  # np.load would accept archives, too


def _read_config(path: Path) -> dict:
    """Return the content of the .json file beside `path`, after a check of its values."""
    path = path.with_suffix(".json")
    stored = _read(path, json.load)
    if not isinstance(stored, dict) or not isinstance(stored.get("name"), str):
        raise CourseError(
            f"{path} is not the config of a run, because it does not name a net: replace it with the right file, or "
            "train the net again."
        )
    for config in (stored, stored.get(BEFORE, {})):
        if problem := schema.problem_with(config):
            raise CourseError(
                f"The config {path} {problem}: correct it, replace it with the right file, or train the net again."
            )
    return stored


def _write_config(path: Path, config: dict) -> None:
    text = json.dumps(config, indent=1) + "\n"
    write_atomically(path.with_suffix(".json"), lambda file: file.write_text(text, encoding="utf-8"))


def _what_is_there(path: Path) -> dict | None:
    """Return the config of the rows that are at `path`, with their number and digest; None if there is no such run."""
    try:
        if not os.path.exists(path):
            return None
        there = History.load(path)
    except CourseError:
        return None
    return there.config | {"rows": len(there), "sha256": _digest(there.rows)}


def _matching(rows: np.ndarray, stored: dict) -> tuple[dict, int] | None:
    """Return the config that describes `rows`, and the number of rows that it vouches for; None if none does.

    A config without a digest, from an older version of the course, describes any rows. A config can describe fewer rows
    than there are: older versions wrote the rows first, and could be killed before they wrote the config.
    """
    candidates = [{key: value for key, value in stored.items() if key != BEFORE}, stored.get(BEFORE)]
    for exact in (True, False):
        for config in filter(None, candidates):
            count, digest = config.get("rows"), config.get("sha256")
            plain = {key: value for key, value in config.items() if key not in ("rows", "sha256")}
            if not digest:
                return plain, len(rows)
            if not schema.is_whole(count, 0, len(rows)) or (exact and count != len(rows)):
                continue
            if _digest(rows[:count]) == digest:
                return plain, count
    return None


def _digest(rows: np.ndarray) -> str:
    return hashlib.sha256(rows.tobytes()).hexdigest()
