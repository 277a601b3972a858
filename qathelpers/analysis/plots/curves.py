"""Every figure of the course. A net has the same colour in all of them."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib import figure as mpl
from matplotlib.axes import Axes
from torch import nn

from ..common.files import write_atomically
from ..nets import weights
from ..nets.architectures import spec_of
from ..training.history import History

# The palette of Okabe and Ito, whose colours colour-blind readers can tell apart (jfly.uni-koeln.de/color).
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
    """A figure that a notebook displays when it is the value of a cell.

    It does not use pyplot, which would keep every figure in memory and might display it a second time.
    """

    def _repr_png_(self) -> bytes:  # called by Jupyter
        return self.png()

    def png(self) -> bytes:
        """Return the content of a .png file with this figure."""
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=90)
        return file.getvalue()


def colour(name: str) -> str:
    """Return the colour of the net `name`; unknown nets are grey.

    Variants have the colour of their net: "BinaryNN-8bit-first-last" that of "BinaryNN".
    """
    return COLOURS.get(name.split("-")[0], "#777777")


def accuracy(histories: Sequence[History]) -> Figure:
    """Plot the accuracy per epoch: training dashed, test solid."""
    return _curves(histories, "acc", "accuracy")


def loss(histories: Sequence[History]) -> Figure:
    """Plot the loss per epoch: training dashed, test solid."""
    return _curves(histories, "loss", "cross-entropy (nats)")


def curves(histories: Sequence[History], epochs: int | None = None) -> Figure:
    """Plot accuracy and loss side by side; `epochs` fixes the range of the x-axis while a training is still running."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for position, (column, label) in enumerate((("acc", "accuracy"), ("loss", "cross-entropy (nats)")), start=1):
        axes = figure.add_subplot(1, 2, position)
        _draw_curves(axes, histories, column, label)
        if epochs:
            axes.set_xlim(0.8, max(epochs, 2) + 0.2)
    return figure


def sizes(histories: Sequence[History]) -> Figure:
    """Plot the test accuracy of the last epoch against the packed size in kB.

    Runs whose config does not contain the size are left out.
    """
    figure, axes = _axes(4.8, 3.4)
    for history in histories:
        kilobytes, accuracy = history.config.get("kB"), history.test_acc
        if kilobytes:
            axes.plot(kilobytes, accuracy, "o", color=colour(history.name))
            axes.annotate(history.name, (kilobytes, accuracy), (5, 4), textcoords="offset points", fontsize="small")
    axes.set(xscale="log", xlabel="kB, packed", ylabel="test accuracy", title=_title(histories))
    axes.margins(0.25)
    axes.grid(alpha=0.3)
    return figure


def costs(table: pd.DataFrame) -> Figure:
    """Plot test accuracy against size and against bit operations, one point per net.

    Args:
        table: One row per net, its name as the index, with the columns `test` (accuracy, 0 to 1), `kB` and
            `million BOPs`, as `costs.summary` and `results.table` give them.
    """
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, column in ((left, "kB"), (right, "million BOPs")):
        for name, row in table.iterrows():
            axes.plot(row[column], row["test"], "o", color=colour(name), label=name)
        axes.set(xscale="log", xlabel=column)
        axes.grid(alpha=0.3)
    left.set(ylabel="test accuracy")
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
    # A long legend inside the axes would cover the curves, so it goes next to them.
    outside = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
    axes.legend(fontsize="small", **(outside if len(histories) > 3 else {}))


def _title(histories: Sequence[History]) -> str:
    configs = [history.config for history in histories]
    data = " and ".join(
        sorted({"CIFAR-10" if c["data"] == "cifar10" else f"{c['data']} (not CIFAR-10)" for c in configs})
    )
    return f"{data}, {' and '.join(sorted({c['arch'] for c in configs}))}"


def latent_weights(net: nn.Module, layer: str | None = None) -> Figure:
    """Plot a histogram of the latent weights of one layer, and its quantized levels as vertical lines.

    The height of a line is the share of the weights that are quantized to this level.

    Args:
        net: The net.
        layer: The name of a layer, as in `net.named_modules()`; by default the first convolution or linear layer.

    Raises:
        ValueError: If `net` has no layer of this name.
    """
    modules = dict(net.named_modules())
    if layer is not None and layer not in modules:
        raise ValueError(
            f"The net has no layer {layer!r}; its quantized layers are: {', '.join(weights.quantized_layers(net))}."
        )
    module = weights.first_layer(net) if layer is None else modules[layer]
    layer_name = next(name for name, candidate in modules.items() if candidate is module)
    net_name = spec_of(net).name
    figure, axes = _axes(6.4, 3.6)
    axes.hist(
        weights.latent(module).flatten().numpy(), bins=60, color=colour(net_name), alpha=0.4, label="latent weights"
    )
    axes.set(xlabel="weight", ylabel="latent weights per bin", title=f"{net_name}, {layer_name}")
    if module in weights.quantized_layers(net).values():
        _draw_levels(axes.twinx(), weights.quantized(module), colour(net_name))
    return figure


def _draw_levels(axes: Axes, values: torch.Tensor, line_colour: str) -> None:
    levels, counts = values.unique(return_counts=True)
    shares = (counts / values.numel()).numpy()
    axes.vlines(levels.numpy(), 0, shares, color=line_colour, linewidth=2, label="quantized levels")
    axes.set(ylabel="share of weights per level", ylim=(0, 1))
    axes.legend(loc="upper right", fontsize="small")


def latent_over_epochs(snapshots: Sequence[torch.Tensor], titles: Sequence[str], name: str = "") -> Figure:
    """Plot how the latent weights of one layer change during training: one histogram per snapshot.

    All histograms share their axes, so that they can be compared.

    Args:
        snapshots: The latent weights of the layer at several times, on the CPU (see `nets.weights.latent`).
        titles: One title per snapshot.
        name: The name of the net, which determines the colour.
    """
    figure = Figure(figsize=(2.4 * len(snapshots), 2.4), layout="constrained")
    largest = max(float(weight.abs().max()) for weight in snapshots)
    axes = None
    for position, (weight, title) in enumerate(zip(snapshots, titles, strict=True), start=1):
        axes = figure.add_subplot(1, len(snapshots), position, sharex=axes, sharey=axes)
        axes.hist(weight.flatten().numpy(), bins=np.linspace(-largest, largest, 61), color=colour(name))
        axes.set(title=title, xlabel="latent weight")
        axes.locator_params(axis="x", nbins=2)
        axes.label_outer()
    return figure


def confusion(labels: torch.Tensor, predictions: torch.Tensor, classes: Sequence[str], title: str = "") -> Figure:
    """Plot a confusion matrix: the percentage of the images of a class (row) that got each prediction (column).

    Args:
        labels: The true classes, int64 (n,).
        predictions: The predicted classes, int64 (n,).
        classes: The name of each class.
        title: The title of the figure.
    """
    counts = np.zeros((len(classes), len(classes)))
    np.add.at(counts, (labels.numpy(), predictions.numpy()), 1)
    percent = 100 * counts / counts.sum(1, keepdims=True).clip(1)
    figure, axes = _axes(5.6, 5)
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    ticks = range(len(classes))
    axes.set_xticks(ticks, classes, rotation=45, ha="right")
    axes.set_yticks(ticks, classes)
    axes.set(xlabel="predicted", ylabel="true", title=title)
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


def image_grid(images: torch.Tensor, titles: Sequence[str], columns: int = 10) -> Figure:
    """Show uint8 images (n, 3, 32, 32) in rows of `columns`, each with its title above it."""
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(columns, 1.25 * rows), layout="constrained")
    for position, (image, title) in enumerate(zip(images, titles, strict=True), start=1):
        axes = figure.add_subplot(rows, columns, position)
        axes.imshow(image.permute(1, 2, 0).numpy())
        axes.set_title(title, fontsize="x-small")
        axes.axis("off")
    return figure


def save(figure: Figure, path: str | Path) -> Path:
    """Save `figure` as a .png file and return the path of this file.

    Raises:
        CourseError: If the file cannot be written.
    """
    path = Path(path)
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=120, format="png"))
    return path


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()
