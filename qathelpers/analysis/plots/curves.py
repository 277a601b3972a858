"""Plots of runs: accuracy and loss per epoch, and what a net costs."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from ...common.words import counted
from ...training.history import History, check_histories
from ..figure import Figure, colour, end_labels, new

LABELS = {"acc": "accuracy", "loss": "cross-entropy (nats)"}


def accuracy(histories: Sequence[History]) -> Figure:
    """Plot the accuracy per epoch: training dashed, test (or validation) solid."""
    return _one(histories, "acc")


def loss(histories: Sequence[History]) -> Figure:
    """Plot the loss per epoch: training dashed, test (or validation) solid."""
    return _one(histories, "loss")


def curves(histories: Sequence[History], epochs: int | None = None) -> Figure:
    """Plot accuracy and loss side by side; `epochs` fixes the range of the x-axis while a training is still running."""
    check_histories(histories)
    figure, both = new(9, 3.4, 1, 2)
    for axes, column in zip(both, LABELS, strict=True):
        _draw(axes, histories, column, epochs)
    return figure.with_alt(f"{_alt(histories, 'acc')} {_alt(histories, 'loss')}")


def sizes(histories: Sequence[History]) -> Figure:
    """Plot the test (or validation) accuracy of the last epoch against the packed size in kB.

    Runs whose config does not contain the size are left out.
    """
    figure, axes = new(4.8, 3.4)
    shown = [history for history in histories if history.config.get("kB")]
    for history in shown:
        point = history.config["kB"], history.test_acc
        axes.plot(*point, "o", color=colour(history.name))
        axes.annotate(history.name, point, (5, 4), textcoords="offset points", fontsize="small")
    axes.set(xscale="log", xlabel="kB, packed", ylabel=f"{_held_out(histories)} accuracy", title=title(histories))
    axes.margins(0.25)
    points = ", ".join(f"{h.name} {h.config['kB']:.0f} kB and {h.test_acc:.3f}" for h in shown)
    return figure.with_alt(f"Scatter plot of {_held_out(histories)} accuracy against packed size: {points}.")


def costs(table: pd.DataFrame) -> Figure:
    """Plot test accuracy against size and against bit operations, one point per net.

    Args:
        table: One row per net, its name as the index, with the columns `test` (accuracy, 0 to 1), `kB` and
            `million BOPs`, as `costs.summary` and `results.table` give them.
    """
    figure, both = new(9, 4, 1, 2, sharey=True)
    for axes, column in zip(both, ("kB", "million BOPs"), strict=True):
        for name, row in table.iterrows():
            point = row[column], row["test"]
            axes.plot(*point, "o", color=colour(name), label=name)
            axes.annotate(name, point, (5, 4), textcoords="offset points", fontsize="small")
        axes.set(xscale="log", xlabel=column)
        axes.margins(0.2)
    both[0].set(ylabel="test accuracy")
    points = ", ".join(
        f"{name} {row['test']:.3f} with {row['kB']:.0f} kB and {row['million BOPs']:.0f} million BOPs"
        for name, row in table.iterrows()
    )
    return figure.with_alt(f"Two scatter plots of test accuracy, against kB and against million BOPs: {points}.")


def title(histories: Sequence[History]) -> str:
    """Return the data sets and architectures of some runs as the title of a plot."""
    configs = [history.config for history in histories]
    names = {"CIFAR-10" if c["data"] == "cifar10" else f"{c['data']} (not CIFAR-10)" for c in configs}
    return f"{' and '.join(sorted(names))}, {' and '.join(sorted({c['arch'] for c in configs}))}"


def _one(histories: Sequence[History], column: str) -> Figure:
    check_histories(histories)
    figure, axes = new(6.4, 4)
    _draw(axes, histories, column)
    return figure.with_alt(_alt(histories, column))


def _held_out(histories: Sequence[History]) -> str:
    return " or ".join(sorted({history.held_out for history in histories})) or "test"


def _draw(axes: Axes, histories: Sequence[History], column: str, epochs: int | None = None) -> None:
    for history in histories:
        for split, line in (("train", "--"), ("test", "-")):
            values = history[f"{split}_{column}"]
            marker = "o" if len(values) < 20 else None
            axes.plot(history["epoch"], values, line, color=colour(history.name), marker=marker, markersize=3)
    axes.set(xlabel="epoch", ylabel=LABELS[column], title=title(histories))
    if epochs:
        axes.set_xlim(0.8, max(epochs, 2) + 0.2)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.plot([], [], "--", color="grey", label="training")
    axes.plot([], [], "-", color="grey", label=_held_out(histories))
    axes.legend(fontsize="small")
    ends = [(h[f"test_{column}"][-1], h.name, colour(h.name)) for h in histories if len(h)]
    end_labels(axes, ends)


def _alt(histories: Sequence[History], column: str) -> str:
    ends = [
        f"{h.name} ends at {h[f'train_{column}'][-1]:.3f} in training and {h[f'test_{column}'][-1]:.3f} in {h.held_out}"
        for h in histories
        if len(h)
    ]
    epochs = max((len(history) for history in histories), default=0)
    return f"Line chart of the {LABELS[column]} over {counted(epochs, 'epoch')}: {'; '.join(ends)}."
