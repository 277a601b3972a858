"""Plots of images and of what nets make of them; and saving a plot as a file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ...common.files import as_path, write_atomically
from ..figure import Figure, new


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
    figure, axes = new(5.6, 5)
    axes.grid(False)
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    ticks = range(len(classes))
    axes.set_xticks(ticks, classes, rotation=45, ha="right")
    axes.set_yticks(ticks, classes)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    for row in ticks:
        for column in ticks:
            shade = "white" if percent[row, column] > 50 else "black"
            text = f"{percent[row, column]:.0f}"
            axes.text(column, row, text, ha="center", va="center", fontsize="small", color=shade)
    right = ", ".join(f"{name} {percent[i, i]:.0f} %" for i, name in enumerate(classes))
    errors = percent - np.diag(np.diag(percent))
    row, column = np.unravel_index(errors.argmax(), errors.shape)
    worst = f"most often wrong: {classes[row]} taken for {classes[column]}, {errors[row, column]:.0f} %"
    return figure.with_alt(f"Confusion matrix {title}. Correct per class: {right}; {worst}.")


def image_grid(images: torch.Tensor, titles: Sequence[str], columns: int = 10) -> Figure:
    """Show uint8 images, RGB (n, 3, h, w) or grey (n, 1, h, w), in rows of `columns`, each with its title above it."""
    rows = -(-len(images) // columns)
    figure, grid = new(columns, 1.25 * rows, rows, columns, squeeze=False)
    for axes in grid.flat[len(images) :]:
        axes.remove()
    for axes, image, title in zip(figure.axes, images, titles, strict=True):
        axes.imshow(image.permute(1, 2, 0).numpy(), cmap="gray", vmin=0, vmax=255)  # RGB images ignore these options
        axes.set_title(title, fontsize="x-small")
        axes.axis("off")
    return figure.with_alt(f"{len(images)} images of {', '.join(dict.fromkeys(map(str, titles)))}.")


def save(figure: Figure, path: str | Path) -> Path:
    """Save `figure` as a .png file and return the path of this file.

    Raises:
        CourseError: If the file cannot be written.
    """
    path = as_path("path", path)
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=120, format="png"))
    return path
