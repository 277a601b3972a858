"""Repeat a recorded run from its config alone, and say whether the result is the same."""

from pathlib import Path

import numpy as np
import pandas as pd

from ..common import hardware
from ..common.errors import CourseError
from ..common.words import counted
from ..data.cifar10 import load
from ..nets.architectures import build
from ..nets.recipe import Recipe
from ..training import schema
from ..training.history import History
from ..training.loop import fit

TRAINING = ("train_loss", "train_acc")
TEST = ("test_loss", "test_acc")


def reproduce(config: dict, folder: str | Path | None = None) -> History:
    """Repeat the run that `config` describes, and return the history of the new run.

    Raises:
        CourseError: If the config has settings that this version of the course does not know, if there are fewer
            images than the run had, or in the cases that `fit` and `data.load` name.
    """
    problem = schema.problem_with(config) or ("has data 'auto', not a data set" if config.get("data") == "auto" else "")
    if problem:
        raise CourseError(f"This config {problem}: correct it, or record the run again.")
    try:
        recipe = Recipe(**config["recipe"])
        net = build(config["name"], config["arch"], seed=config["init_seed"])
        epochs, seed = config["epochs"], config["seed"]
        dataset, wanted = load(config["data"]), (config["train_images"], config["test_images"])
    except (KeyError, TypeError, ValueError) as error:
        raise CourseError(
            f"This config is from another version of the course ({error}): record the run again."
        ) from error
    counts = len(dataset.train_labels), len(dataset.test_labels)
    if any(count < needed for count, needed in zip(counts, wanted, strict=True)):
        raise CourseError(
            f"The run had {wanted[0]:,} training and {wanted[1]:,} test images, but there are {counts[0]:,} and "
            f"{counts[1]:,} here: unset QAT_MAX_IMAGES."
        )
    # An earlier reproduction of this run may be from another version of the course.
    return fit(net, dataset.take(*wanted), epochs, recipe=recipe, seed=seed, folder=folder, overwrite=True)


def difference(recorded: History, again: History) -> str:
    """Return in one or two sentences whether both histories are the same, or by how much they differ and why."""
    if len(again) != len(recorded):
        return (
            f"Stopped after {len(again)} of {counted(len(recorded), 'epoch')}; the same command continues from there."
        )
    same_training = all(np.array_equal(recorded[column], again[column]) for column in TRAINING)
    if same_training and all(np.array_equal(recorded[column], again[column]) for column in TEST):
        return "The same history, to the last bit."
    gap = np.abs(recorded["test_acc"] - again["test_acc"])
    text = f"Test accuracies differ by up to {gap.max():.4f}, by {gap[-1]:.4f} in the last epoch"
    then, now = (history.config.get("evaluation") for history in (recorded, again))
    if same_training and then != now:
        return f"The same training, to the last bit. {text}: evaluated in {then} then, in {now} now."
    changes = _changes(recorded.config, again.config)
    reason = f"different circumstances ({'; '.join(changes)})" if changes else "a change in the code of the course"
    if again.config["device"] != "cpu" and not changes:
        reason = "on a GPU, sums are not computed in a fixed order"
    return f"{text}: {reason}."


def side_by_side(recorded: History, again: History) -> pd.DataFrame:
    """Return the accuracies of both runs, one row per epoch."""
    columns = {}
    for title, history in (("recorded", recorded), ("again", again)):
        columns |= {f"{kind}, {title}": pd.Series(history[f"{kind}_acc"]) for kind in ("train", "test")}
    return pd.DataFrame(columns).round(4).rename(index=lambda row: row + 1).rename_axis("epoch")


def _changes(old: dict, new: dict) -> list[str]:
    """Return the differences between two configs in hardware, precision and versions."""
    old, new = ({**config, **config.get("versions", {})} for config in (old, new))
    keys = ("hardware", "precision", "evaluation", *hardware.versions())
    return [f"{key} {old.get(key)} then, {new.get(key)} now" for key in keys if old.get(key) != new.get(key)]
