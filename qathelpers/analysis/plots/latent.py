"""Plots of weights: the latent weights of a layer, with the levels they are quantized to and the thresholds between."""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from ...nets import weights
from ...nets.architectures import spec_of
from ..figure import GREY, NEGATIVE, POSITIVE, ZERO, Figure, colour, new

BINS = 60
MAX_LEVELS = 16  # with more, lines and numbers for each level would cover the histogram


def latent_weights(net: nn.Module, layer: str | None = None) -> Figure:
    """Plot a histogram of the latent weights of one layer, coloured by the sign of the level they are quantized to.

    Solid lines are the quantized levels, each with the share of the weights on it; dashed lines are the thresholds
    between neighbouring levels. Neither is drawn for floats and for layers with more than 16 levels.

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
    title = f"{spec_of(net).name}, {next(name for name, candidate in modules.items() if candidate is module)}"
    is_quantized = module in weights.quantized_layers(net).values()
    return latent_histogram(
        weights.latent(module), weights.quantized(module) if is_quantized else None, title, colour(spec_of(net).name)
    )


def latent_histogram(
    latent: torch.Tensor, quantized: torch.Tensor | None = None, title: str = "", shade: str = GREY
) -> Figure:
    """Plot a histogram of latent weights, with their levels and thresholds if `quantized` is given.

    Args:
        latent: Latent weights, any shape.
        quantized: The quantized weights, of the same shape.
        title: The title of the plot.
        shade: The colour of the bars if there are no levels to colour them by.
    """
    figure, axes = new(6.4, 3.6)
    values = latent.detach().flatten().float().cpu().numpy()
    axes.set(xlabel="latent weight", ylabel="latent weights per bin", title=title)
    levels = np.array([]) if quantized is None else quantized.detach().flatten().float().cpu().numpy()
    distinct = np.unique(levels)
    if not 0 < len(distinct) <= MAX_LEVELS or not np.isfinite(distinct).all():
        axes.hist(values, bins=BINS, color=shade, alpha=0.6)
        return figure.with_alt(f"Histogram of the latent weights of {title or 'a layer'}.")
    groups = [values[levels == level] for level in distinct]
    axes.hist(groups, bins=BINS, stacked=True, color=[_shade(level) for level in distinct], alpha=0.6)
    _draw_levels(axes, distinct, groups)
    borders = thresholds(groups)
    for number, border in enumerate(borders):
        axes.axvline(border, color="black", linestyle="--", linewidth=1, label=None if number else "threshold")
    if borders:
        axes.legend(fontsize="small", loc="upper left")
    return figure.with_alt(_alt(title, distinct, groups, borders))


def thresholds(groups: Sequence[np.ndarray]) -> list[float]:
    """Return the border between neighbouring groups of latent weights; groups that overlap have none.

    Args:
        groups: The latent weights of each level, sorted by level.
    """
    borders = []
    for low, high in itertools.pairwise(groups):
        if low.max() <= high.min():
            borders.append(float(low.max() + high.min()) / 2)
    return borders


def latent_over_epochs(snapshots: Sequence[torch.Tensor], titles: Sequence[str], name: str = "") -> Figure:
    """Plot how the latent weights of one layer change during training: one histogram per snapshot.

    All histograms share their axes, so that they can be compared.

    Args:
        snapshots: The latent weights of the layer at several times, on the CPU (see `nets.weights.latent`).
        titles: One title per snapshot.
        name: The name of the net, which determines the colour.
    """
    figure, row = new(2.4 * len(snapshots), 2.4, 1, len(snapshots), sharex=True, sharey=True, squeeze=False)
    largest = max(float(weight.abs().max()) for weight in snapshots)
    for axes, weight, title in zip(row[0], snapshots, titles, strict=True):
        axes.hist(weight.flatten().numpy(), bins=np.linspace(-largest, largest, BINS + 1), color=colour(name))
        axes.set(title=title, xlabel="latent weight")
        axes.locator_params(axis="x", nbins=2)
        axes.label_outer()
    spreads = ", ".join(f"{title} {weight.std().item():.3f}" for weight, title in zip(snapshots, titles, strict=True))
    return figure.with_alt(f"Histograms of the latent weights of one layer. Their standard deviations: {spreads}.")


def _shade(level: float) -> str:
    return ZERO if level == 0 else POSITIVE if level > 0 else NEGATIVE


def _draw_levels(axes, levels: np.ndarray, groups: Sequence[np.ndarray]) -> None:
    count = sum(map(len, groups))
    for level, group in zip(levels, groups, strict=True):
        axes.axvline(level, color=_shade(level), linewidth=2)
        axes.annotate(
            f"{len(group) / count:.0%}", (level, 1), (0, 2), xycoords=("data", "axes fraction"),
            textcoords="offset points", ha="center", fontsize="small", color=_shade(level),
        )  # fmt: skip
    axes.set_title(axes.get_title(), pad=16)


def _alt(title: str, levels: np.ndarray, groups: Sequence[np.ndarray], borders: Sequence[float]) -> str:
    count = sum(map(len, groups))
    shares = ", ".join(
        f"{level:+.4f} with {len(group) / count:.0%} of the weights"
        for level, group in zip(levels, groups, strict=True)
    )
    between = f" Thresholds at {', '.join(f'{border:+.4f}' for border in borders)}." if borders else ""
    return f"Histogram of the latent weights of {title or 'a layer'} and their levels: {shares}.{between}"
