"""Pictures of a ternary net: thresholds at several scales, weights that change levels, and layers that are dead."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes

from ..figure import GREY, NEGATIVE, POSITIVE, ZERO, Figure, new
from .canvas import FAINT, INK, arrow, box, canvas, label

BINS = 60
BACKWARD = "#D55E00"
SIGNS = ((-1, NEGATIVE, "$-s$"), (0, ZERO, "0"), (1, POSITIVE, "$+s$"))
PITCH = 1.95  # inches from one layer to the next
CENTRE = 1.6  # inches from the bottom to the boxes of the levels
ROW = 1.5  # inches per chain of layers


class Signals(NamedTuple):
    """What passes through one layer of a chain, forward and backward, each as a magnitude; 0 means that nothing does.

    Args:
        name: The layer's name in the picture.
        output: Magnitude of the layer's output.
        gradient: Magnitude of the loss's gradient with respect to this output.
        weight_gradient: Magnitude of the loss's gradient with respect to the layer's weights; None without weights.
    """

    name: str
    output: float
    gradient: float
    weight_gradient: float | None = None


def three_levels(latent: torch.Tensor, scales: Mapping[str, float]) -> Figure:
    """Plot the same latent weights at several scales: one histogram per scale, coloured by the level of the weights.

    Solid lines are the levels -s, 0 and s; dashed lines are the thresholds -s/2 and s/2.

    Args:
        latent: Latent weights, any shape.
        scales: The scale s, by the title of its panel.
    """
    values = latent.detach().flatten().float().cpu().numpy()
    figure, row = new(2.9 * len(scales), 2.8, 1, len(scales), sharey=True, squeeze=False)
    end = 1.05 * max(np.abs(values).max(), *scales.values())
    told = []
    for axes, (title, scale) in zip(row[0], scales.items(), strict=True):
        levels = np.clip(np.round(values / scale), -1, 1)
        groups = [values[levels == sign] for sign, _, _ in SIGNS]
        edges = np.linspace(-end, end, BINS + 1)
        axes.hist(groups, edges, stacked=True, color=[shade for _, shade, _ in SIGNS], alpha=0.6)
        for sign, shade, _ in SIGNS:
            axes.axvline(sign * scale, color=shade, linewidth=2)
        for border in (-scale / 2, scale / 2):
            axes.axvline(border, color=INK, linestyle="--", linewidth=1)
        zeros = len(groups[1]) / len(values)
        axes.set(title=f"{title}\n{zeros:.0%} zeros", xlabel="latent weight", xlim=(-end, end))
        axes.locator_params(axis="x", nbins=5)
        told.append(f"{title}, scale {scale:.3g}: {zeros:.0%} zeros")
    row[0][0].set_ylabel("weights per bin")
    return figure.with_alt(
        f"Histograms of the same latent weights at {len(scales)} scales, with the thresholds at half the scale to both "
        f"sides of 0. {'; '.join(told)}."
    )


def level_changes(old: torch.Tensor, now: torch.Tensor) -> Figure:
    """Draw which share of the weights went from each of the three levels to each other one.

    Args:
        old: Integer levels (-1, 0 or 1) before, any shape.
        now: Integer levels of the same weights afterwards.
    """
    shares = {
        (start, end): ((old == start) & (now == end)).float().mean().item()
        for start in (-1, 0, 1)
        for end in (-1, 0, 1)
    }
    figure, axes = canvas(7, 2 * CENTRE)
    places = {-1: 1.2, 0: 3.5, 1: 5.8}
    for sign, shade, name in SIGNS:
        box(axes, places[sign], CENTRE, f"{name}\n{shares[sign, sign]:.0%} stay", 1.15, 0.65)
        axes.patches[-1].set(facecolor=shade, alpha=0.35)
    for start, end in ((-1, 0), (0, 1), (1, 0), (0, -1), (-1, 1), (1, -1)):
        _draw_change(axes, places, start, end, shares[start, end])
    return figure.with_alt(
        "Three boxes for the levels -s, 0 and +s, with arrows for the weights that changed from one to the other. "
        + ", ".join(f"{start:+d} to {end:+d}: {share:.1%}" for (start, end), share in shares.items())
        + " of all weights."
    )


def error_and_accuracy(
    factors: Sequence[float], errors: Sequence[float], accuracies: torch.Tensor, trained: Sequence[float]
) -> Figure:
    """Plot what the scale does to the error of the weights, and what to the accuracy of the trained net.

    Args:
        factors: Scales as multiples of the mean magnitude.
        errors: The squared error of the quantized weights, relative to the squared weights, at these scales.
        accuracies: Test accuracies (0 to 1) of the nets that were trained, (scales, seeds).
        trained: The scales of these nets, as multiples of the mean magnitude.
    """
    figure, (left, right) = new(8.6, 3.2, 1, 2, sharex=True)
    left.plot(factors, errors, color=INK)
    best = factors[int(np.argmin(errors))]
    for factor in trained:
        left.plot(factor, np.interp(factor, factors, errors), "o", color=POSITIVE)
    left.axvline(best, color=GREY, linestyle="--", linewidth=1)
    left.annotate(f"smallest at {best:.2g}", (best, max(errors)), (4, -8), textcoords="offset points", color=GREY)
    left.set(title="the weights", ylabel="relative squared error", xscale="log", ylim=(0, None))
    mean, spread = accuracies.mean(1), accuracies.std(1) / accuracies.shape[1] ** 0.5
    for seed in accuracies.T:
        right.plot(trained, seed, "o", color=POSITIVE, markersize=4, alpha=0.4, markeredgewidth=0)
    right.errorbar(trained, mean, spread, color=POSITIVE, capsize=4, linewidth=1.3)
    right.set(title="the trained net", ylabel="test accuracy")
    for axes in (left, right):
        axes.set_xlabel("scale / mean magnitude")
        axes.set_xticks(trained, [f"{factor:g}" for factor in trained])
        axes.minorticks_off()
    told = ", ".join(
        f"{factor:g} times: {m:.3f} with a standard error of {s:.3f}"
        for factor, m, s in zip(trained, mean, spread, strict=True)
    )
    return figure.with_alt(
        f"Left: the relative squared error of a layer's weights against the scale in multiples of the mean magnitude, "
        f"smallest at {best:.2g}. Right: test accuracy of nets trained with {accuracies.shape[1]} seeds: {told}."
    )


def dead_chains(chains: Mapping[str, Sequence[Signals]]) -> Figure:
    """Draw chains of layers with what passes through them: outputs forward, gradients backward, 0 where nothing does.

    Args:
        chains: By the title of the chain, its layers from the input to the loss.
    """
    longest = max(map(len, chains.values()))
    figure, axes = canvas(0.9 + PITCH * longest + 0.55, ROW * len(chains))
    told = []
    for number, (title, layers) in enumerate(chains.items()):
        middle = ROW * (len(chains) - number) - 0.85
        axes.text(0.1, middle + 0.7, title, va="center", fontsize="small", fontweight="bold")
        label(axes, 0.35, middle + 0.1, "images")
        for place, layer in enumerate(layers):
            _draw_layer(axes, 1.4 + PITCH * place, middle, layer, last=place == len(layers) - 1)
        gradients = ", ".join(
            f"{layer.name} {layer.weight_gradient:.2g}" for layer in layers if layer.weight_gradient is not None
        )
        told.append(f"{title}: {gradients}")
    return figure.with_alt(
        f"Chains of layers with outputs forward and gradients backward. Magnitudes of the weights' gradients: "
        f"{'; '.join(told)}."
    )


def _draw_change(axes: Axes, places: Mapping[int, float], start: int, end: int, share: float) -> None:
    """Draw the arrow from one level to another: neighbours in the middle, jumps across 0 in an arc outside."""
    above = end > start
    side, shade = (1 if above else -1), (INK if share else FAINT)
    if abs(end - start) == 1:
        edge = 0.58 * (1 if above else -1)
        start_at, end_at = (places[start] + edge, CENTRE + 0.14 * side), (places[end] - edge, CENTRE + 0.14 * side)
        height = CENTRE + 0.3 * side
        bend = 0.0
    else:
        start_at, end_at = (places[start], CENTRE + 0.36 * side), (places[end], CENTRE + 0.36 * side)
        height, bend = CENTRE + 1.42 * side, -0.38
    arrow(axes, start_at, end_at, colour=shade, bend=bend)
    axes.texts[-1].arrow_patch.set_linewidth(0.6 + 25 * share)
    label(axes, (places[start] + places[end]) / 2, height, f"{share:.1%}", colour=shade)


def _draw_layer(axes: Axes, x: float, y: float, layer: Signals, last: bool) -> None:
    dead = layer.weight_gradient is not None and layer.output == 0
    box(axes, x, y, layer.name, 1.1, 0.5, "fixed" if dead else "float")
    left, right = x + 0.55, x + PITCH - 0.55
    if last:
        right = left + 0.6
        label(axes, right + 0.05, y, "loss", align="left")
    _draw_signal(axes, (left, y + 0.1), (right, y + 0.1), layer.output, INK, above=True)
    _draw_signal(axes, (right, y - 0.1), (left, y - 0.1), layer.gradient, BACKWARD, above=False)
    if layer.weight_gradient is not None:
        shade = BACKWARD if layer.weight_gradient else FAINT
        label(axes, x, y - 0.42, f"weights' gradient {_number(layer.weight_gradient)}", colour=shade)


def _draw_signal(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], value: float, shade: str, *, above: bool
) -> None:
    arrow(axes, start, end, colour=shade if value else FAINT, dashed=not value)
    place = (start[0] + end[0]) / 2, start[1] + (0.14 if above else -0.14)
    label(axes, *place, _number(value), colour=shade if value else FAINT)


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.1g}"
