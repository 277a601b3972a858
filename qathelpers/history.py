"""A training's history: one row an epoch, and the card that says what was trained, how and on what."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .errors import CourseError
from .files import write_atomically

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


@dataclass
class History:
    """The statistics of a training: `card` describes the run, `rows` holds one record an epoch.

    `history["test_acc"]` is that column as an array. Accuracies are fractions from 0 to 1, losses are mean
    cross-entropies in nats, `seconds` is the wall time of an epoch's training and evaluation.
    """

    card: dict
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, ROW))

    @property
    def name(self) -> str:
        """The net's name, such as "TernaryNN"."""
        return self.card["name"]

    def __len__(self) -> int:
        """Return the number of epochs."""
        return len(self.rows)

    def __getitem__(self, column: str) -> np.ndarray:
        """Return one column, an array with one value an epoch."""
        if column not in ROW.names:
            raise KeyError(f"a history has the columns {', '.join(ROW.names)}, not {column!r}")
        return self.rows[column]

    def append(self, **values: float) -> None:
        """Add an epoch's statistics, one keyword a column."""
        self.rows = np.append(self.rows, np.array([tuple(values[column] for column in ROW.names)], ROW))

    def save(self, path: str | Path) -> Path:
        """Write the rows to `path` (.npy, no pickle) and the card beside it (.json); return the .npy's path.

        With the card goes a digest of the rows, which tells when either file is replaced by another run's.
        Raises CourseError when the folder cannot be written.
        """
        path = Path(path)

        def write_card(count: int) -> None:
            card = self.card | {"rows": count, "sha256": _digest(self.rows[:count])}
            write_atomically(path.with_suffix(".json"), lambda file: file.write_text(json.dumps(card, indent=1) + "\n"))

        def write_rows(temporary: Path) -> None:
            with open(temporary, "wb") as file:  # given a path, np.save would append .npy to its name
                np.save(file, self.rows, allow_pickle=False)

        if not path.with_suffix(".json").exists():  # rows without any card, after a kill between the two, are of no use
            write_card(0)
        write_atomically(path, write_rows)
        write_card(len(self))
        return path

    @classmethod
    def load(cls, path: str | Path) -> "History":
        """Read what `save` wrote.

        Raises CourseError when a file is missing, damaged, or not a history.
        """
        path = Path(path)
        try:
            with open(path, "rb") as file:
                rows = np.lib.format.read_array(file, allow_pickle=False)  # np.load would take archives too
            card = json.loads(path.with_suffix(".json").read_text())
        except FileNotFoundError as error:
            raise CourseError(f"{error.filename} is missing: train the net again, or name another history.") from error
        except Exception as error:  # a damaged file raises nearly anything
            raise CourseError(f"{path} is damaged ({error}): delete it and train the net again.") from error
        if rows.dtype != ROW or rows.ndim != 1 or not isinstance(card, dict) or not isinstance(card.get("name"), str):
            raise CourseError(f"{path} is not a history of this course: it needs the columns {', '.join(ROW.names)}.")
        # A process killed between the two files leaves one row more than the card knows of. The cards that first came
        # with the course know of none.
        count, digest = card.pop("rows", None), card.pop("sha256", None)
        if digest and not (isinstance(count, int) and _digest(rows[:count]) == digest):
            raise CourseError(
                f"{path} and {path.with_suffix('.json').name} are not of one run, or one is damaged: put back the "
                "right one, or train the net again."
            )
        return cls(card, rows)


def _digest(rows: np.ndarray) -> str:
    return hashlib.sha256(rows.tobytes()).hexdigest()
