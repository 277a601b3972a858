"""Every picture of the course; one colour a net, everywhere the same."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib import figure as mpl
from matplotlib.axes import Axes
from torch import nn

from . import weights
from .files import write_atomically
from .history import History

# Okabe and Ito's palette, which colour-blind readers can tell apart (jfly.uni-koeln.de/color).
COLOURS = {
    "PytorchNN": "#000000",
    "TernaryNN": "#0072B2",
    "BinaryNN": "#D55E00",
    "XnorNN": "#CC79A7",
    "Int2NN": "#009E73",
    "Int4NN": "#56B4E9",
    "Int8NN": "#E69F00",
}


class Figure(mpl.Figure):
    """A figure that a notebook shows when it is a cell's value.

    It is made without pyplot and so belongs to nobody: it is shown once, and none piles up in memory.
    """

    def _repr_png_(self) -> bytes:
        return self.png()

    def png(self) -> bytes:
        """Return the picture as a file's content."""
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=90)
        return file.getvalue()


def colour(name: str) -> str:
    """Return the colour of a net; variants share their net's, and nets of the reader's own are grey."""
    return COLOURS.get(name.split("-")[0], "#777777")


def accuracy(histories: Sequence[History]) -> Figure:
    """Draw accuracy over the epochs: training dashed, test solid."""
    return _curves(histories, "acc", "accuracy")


def loss(histories: Sequence[History]) -> Figure:
    """Draw the loss over the epochs: training dashed, test solid."""
    return _curves(histories, "loss", "cross-entropy (nats)")


def curves(histories: Sequence[History], epochs: int | None = None) -> Figure:
    """Draw accuracy and loss side by side, with room for `epochs` where the training is still under way."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for place, (column, label) in enumerate((("acc", "accuracy"), ("loss", "cross-entropy (nats)")), start=1):
        axes = figure.add_subplot(1, 2, place)
        _draw_curves(axes, histories, column, label)
        if epochs:
            axes.set_xlim(0.8, max(epochs, 2) + 0.2)
    return figure


def sizes(histories: Sequence[History]) -> Figure:
    """Draw the last epoch's test accuracy against the packed size in kB, from the histories' cards."""
    figure, axes = _axes(4.8, 3.4)
    for history in histories:
        kilobytes, accuracy = history.card.get("kB"), history["test_acc"][-1]
        if kilobytes:
            axes.plot(kilobytes, accuracy, "o", color=colour(history.name))
            axes.annotate(history.name, (kilobytes, accuracy), (5, 4), textcoords="offset points", fontsize="small")
    axes.set(xscale="log", xlabel="kB, packed", ylabel="test accuracy", title=_title(histories))
    axes.margins(0.25)
    axes.grid(alpha=0.3)
    return figure


def costs(table: pd.DataFrame) -> Figure:
    """Draw the column `test` (accuracy) of a row a net against `kB` and against `million bit operations`."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, column in ((left, "kB"), (right, "million bit operations")):
        for name, row in table.iterrows():
            axes.plot(row[column], row["test"], "o", color=colour(name), label=name)
        axes.set(xscale="log", xlabel=column)
        axes.grid(alpha=0.3)
    left.set(ylabel="accuracy on the test images")
    right.legend(fontsize="small")
    return figure


def _curves(histories: Sequence[History], column: str, label: str) -> Figure:
    figure, axes = _axes(6.4, 4)
    _draw_curves(axes, histories, column, label)
    return figure


def _draw_curves(axes: Axes, histories: Sequence[History], column: str, label: str) -> None:
    for history in histories:
        for split, style in (("train", "--"), ("test", "-")):
            values = history[f"{split}_{column}"]
            marker = "o" if len(values) < 20 else None
            axes.plot(
                history["epoch"],
                values,
                style,
                color=colour(history.name),
                label=f"{history.name} {split}",
                marker=marker,
                markersize=3,
            )
    axes.set(xlabel="epoch", ylabel=label, title=_title(histories))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    many = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}  # beside the curves, where they would be covered
    axes.legend(fontsize="small", **(many if len(histories) > 3 else {}))


def _title(histories: Sequence[History]) -> str:
    cards = [history.card for history in histories]
    data = " and ".join(
        sorted({"CIFAR-10" if c["data"] == "cifar10" else f"{c['data']} (not CIFAR-10)" for c in cards})
    )
    return f"{data}, {' and '.join(sorted({c['arch'] for c in cards}))}"


def latent_weights(net: nn.Module, layer: str | None = None) -> Figure:
    """Draw a histogram of a layer's latent weights, its quantized levels as lines; the first layer by default.

    The height of a level's line is the share of weights on it. Raises ValueError when there is no such layer.
    """
    modules = dict(net.named_modules())
    if layer is not None and layer not in modules:
        raise ValueError(f"the net has no layer {layer!r}; quantized ones: {', '.join(weights.quantized_layers(net))}")
    module = weights.first_layer(net) if layer is None else modules[layer]
    name = next(key for key, value in modules.items() if value is module)
    figure, axes = _axes(6.4, 3.6)
    own = colour(getattr(net, "name", ""))
    axes.hist(weights.latent(module).flatten().numpy(), bins=60, color=own, alpha=0.4, label="latent weights")
    axes.set(xlabel="weight", ylabel="latent weights a bin", title=f"{getattr(net, 'name', 'net')}, {name}")
    if module in weights.quantized_layers(net).values():
        _draw_levels(axes.twinx(), weights.quantized(module), own)
    return figure


def _draw_levels(axes: Axes, values: torch.Tensor, own: str) -> None:
    levels, counts = values.unique(return_counts=True)
    axes.vlines(levels.numpy(), 0, (counts / values.numel()).numpy(), color=own, linewidth=2, label="quantized levels")
    axes.set(ylabel="share of weights on a level", ylim=(0, 1))
    axes.legend(loc="upper right", fontsize="small")


def latent_over_epochs(snapshots: Sequence[torch.Tensor], titles: Sequence[str], name: str = "") -> Figure:
    """Draw a histogram for each of a layer's latent weights, taken at several times; colour is that of the net `name`.

    All have the same axes, so that what moves is the weights.
    """
    figure = Figure(figsize=(2.4 * len(snapshots), 2.4), layout="constrained")
    largest = max(float(weight.abs().max()) for weight in snapshots)
    axes = None
    for index, (weight, title) in enumerate(zip(snapshots, titles, strict=True)):
        axes = figure.add_subplot(1, len(snapshots), index + 1, sharex=axes, sharey=axes)
        axes.hist(weight.flatten().numpy(), bins=np.linspace(-largest, largest, 61), color=colour(name))
        axes.set(title=title, xlabel="latent weight")
        axes.locator_params(axis="x", nbins=2)
        axes.label_outer()
    return figure


def confusion(labels: torch.Tensor, guesses: torch.Tensor, classes: Sequence[str], title: str = "") -> Figure:
    """Draw how often (in %) images of a class (row) were taken for each class (column); int64 (n,) both."""
    counts = np.zeros((len(classes), len(classes)))
    np.add.at(counts, (labels.numpy(), guesses.numpy()), 1)
    percent = 100 * counts / counts.sum(1, keepdims=True).clip(1)
    figure, axes = _axes(5.6, 5)
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    ticks = range(len(classes))
    axes.set_xticks(ticks, classes, rotation=45, ha="right")
    axes.set_yticks(ticks, classes)
    axes.set(xlabel="taken for", ylabel="is", title=title)
    for row in ticks:
        for column in ticks:
            dark = percent[row, column] > 50
            axes.text(
                column,
                row,
                f"{percent[row, column]:.0f}",
                ha="center",
                va="center",
                fontsize="small",
                color="white" if dark else "black",
            )
    return figure


def pictures(images: torch.Tensor, titles: Sequence[str], columns: int = 10) -> Figure:
    """Draw uint8 images (n, 3, 32, 32) in rows of `columns`, each under its title."""
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(columns, 1.25 * rows), layout="constrained")
    for index, (image, title) in enumerate(zip(images, titles, strict=True)):
        axes = figure.add_subplot(rows, columns, index + 1)
        axes.imshow(image.permute(1, 2, 0).numpy())
        axes.set_title(title, fontsize="x-small")
        axes.axis("off")
    return figure


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as a .png file and return its path; raises CourseError when the folder cannot be written."""
    path = Path(path)
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=120, format="png"))
    return path


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()
