"""Repeat a recorded run from its card alone, and say whether the same came out."""

from pathlib import Path

import numpy as np
import pandas as pd

from . import data, hardware
from .errors import CourseError
from .history import History
from .nets import build
from .recipe import Recipe
from .training import fit

RESULTS = ("train_loss", "train_acc", "test_loss", "test_acc")


def reproduce(card: dict, folder: str | Path | None = None) -> History:
    """Train the net that `card` describes as it says and return the history.

    Downloads the data where it has to. Raises CourseError when the card is of other settings than this version of the
    course knows, when there are fewer images, or as `fit` and `data.load` do.
    """
    try:
        recipe = Recipe(**card["recipe"])
        net = build(card["name"], card["arch"], seed=card["init_seed"])
        loaded = data.load(card["data"]).take(card["train_images"], card["test_images"])
    except (KeyError, TypeError, ValueError) as error:
        raise CourseError(f"This card is of another version of the course ({error}): record the run again.") from error
    counts = len(loaded.train_labels), len(loaded.test_labels)
    if counts != (card["train_images"], card["test_images"]):
        raise CourseError(
            f"The run had {card['train_images']:,} training and {card['test_images']:,} test images, here are "
            f"{counts[0]:,} and {counts[1]:,}: unset QAT_MAX_IMAGES."
        )
    return fit(net, loaded, card["epochs"], recipe=recipe, seed=card["seed"], folder=folder)


def difference(recorded: History, again: History) -> str:
    """Return how `again` differs from `recorded`, in a sentence: the same to the last bit, or by how much and why."""
    if len(again) != len(recorded):
        return f"Stopped after {len(again)} of {len(recorded)} epochs; the same command goes on from there."
    if all(np.array_equal(recorded[column], again[column]) for column in RESULTS):
        return "The same history, to the last bit."
    gap = np.abs(recorded["test_acc"] - again["test_acc"])
    changes = _changes(recorded.card, again.card)
    reason = f"other circumstances ({'; '.join(changes)})" if changes else "a change in the course's code"
    return f"Test accuracies differ by up to {gap.max():.4f}, by {gap[-1]:.4f} in the last epoch: {reason}."


def side_by_side(recorded: History, again: History) -> pd.DataFrame:
    """Return both runs' accuracies, a row an epoch."""
    columns = {}
    for title, history in (("recorded", recorded), ("again", again)):
        columns |= {f"{kind}, {title}": pd.Series(history[f"{kind}_acc"]) for kind in ("train", "test")}
    return pd.DataFrame(columns).round(4).rename(index=lambda row: row + 1).rename_axis("epoch")


def _changes(old: dict, new: dict) -> list[str]:
    """Return in what the machines or the versions of two cards differ."""
    old, new = ({**card, **card.get("versions", {})} for card in (old, new))
    keys = ("hardware", "precision", *hardware.versions())
    return [f"{key} {old.get(key)} then, {new.get(key)} now" for key in keys if old.get(key) != new.get(key)]
