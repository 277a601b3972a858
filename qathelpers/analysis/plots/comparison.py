"""Plots that compare trained nets with each other."""

from collections.abc import Sequence
from math import sqrt

import numpy as np

from ...common.errors import CourseError
from ...training.history import History, by_net, check_one_data_set, same_evaluation
from ..figure import Figure, colour, new
from .curves import title

ROW = 0.42  # inches per net


def end_points(histories: Sequence[History]) -> Figure:
    """Plot the test accuracy after the last epoch: one row per net, one dot per seed, the best net at the top.

    A bar shows the mean over the seeds and its standard error s / sqrt(k) to both sides, where s is the (sample)
    standard deviation and k the number of seeds. A net with a single seed has no bar, because its spread is unknown.

    Args:
        histories: Runs on one data set. All dots of a net show accuracies that were computed in the same precision, if
            there is one that all its runs were evaluated in (see `same_evaluation`).

    Raises:
        CourseError: If there is no run, if a run has no epochs, or if the runs are on several data sets.
    """
    rows = sorted(_accuracies(histories).items(), key=lambda row: np.mean(row[1]))
    figure, axes = new(6.4, 1.1 + ROW * len(rows))
    for height, (name, values) in enumerate(rows):
        shade = colour(name)
        axes.plot(values, [height] * len(values), "o", color=shade, markersize=5, alpha=0.55, markeredgewidth=0)
        mean, error = np.mean(values), standard_error(values)
        if error is not None:
            axes.errorbar(mean, height - 0.24, xerr=error, color=shade, capsize=5, marker="|", markersize=11)
        axes.annotate(name, (max(values), height), (9, 0), textcoords="offset points", color=shade, va="center")
    low, high = min(min(values) for _, values in rows), max(max(values) for _, values in rows)
    span = max(high - low, 0.01)
    axes.set(xlim=(low - 0.06 * span, high + 0.25 * span), ylim=(-0.7, len(rows) - 0.5), yticks=[])
    axes.set(xlabel="test accuracy after the last epoch", title=title(histories))
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    listed = "; ".join(_row(name, values) for name, values in reversed(rows))
    return figure.with_alt(f"Test accuracies after the last epoch, one row per net and one dot per seed: {listed}.")


def standard_error(values: Sequence[float]) -> float | None:
    """Return the standard error of the mean of `values`; None for a single one, which says nothing about its spread."""
    return float(np.std(values, ddof=1) / sqrt(len(values))) if len(values) > 1 else None


def _accuracies(histories: Sequence[History]) -> dict[str, list[float]]:
    """Return the test accuracies of the runs of each net, all of a net in one precision if there is one."""
    if not histories or not all(len(history) for history in histories):
        raise CourseError("There is no end point to show: pass runs with at least one finished epoch.")
    check_one_data_set(histories)
    return {name: same_evaluation(runs)[1] for name, runs in by_net(histories).items()}


def _row(name: str, values: Sequence[float]) -> str:
    error = standard_error(values)
    spread = "one seed" if error is None else f"standard error {error:.4f}, {len(values)} seeds"
    return f"{name} {np.mean(values):.4f} ({spread})"
