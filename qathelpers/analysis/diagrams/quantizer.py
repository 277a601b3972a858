"""Diagrams of what a quantizer does to numbers: levels, scales, integer arithmetic, and one weight in training."""

from collections.abc import Mapping, Sequence

import torch

from ..figure import GREY, NEGATIVE, POSITIVE, Figure, new
from .canvas import INK, arrow, canvas, cells, label

GROUPS = ("#CFE3F3", "#FBE3D2", "#D5EBD8", "#F3D9E6", "#FFF0B3", "#E0DDF0", "#DDDDDD", "#F7CFCB")


def number_line(scale: float, bits: int, examples: Sequence[float] = ()) -> Figure:
    """Draw the levels of a symmetric quantizer, the thresholds half way between them, and where it clips.

    Args:
        scale: The distance between two levels.
        bits: Number of bits; narrow range, so the levels are symmetric around 0.
        examples: Numbers to quantize; an arrow leads from each to its level.
    """
    highest = 2 ** (bits - 1) - 1
    levels = [scale * integer for integer in range(-highest, highest + 1)]
    end = max([levels[-1] + scale, *(abs(x) + scale / 3 for x in examples)])
    figure, axes = new(8.6, 2.2)
    axes.set(xlim=(-end, end), ylim=(-1.4, 2.1), yticks=[])
    axes.grid(False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_xticks(levels)
    axes.axhline(0, color=INK, linewidth=1)
    for side in (-1, 1):
        axes.axvspan(side * (levels[-1] + scale / 2), side * end, color=NEGATIVE, alpha=0.12)
        label(axes, side * (levels[-1] + scale / 2 + end) / 2, 1.8, "clipped", colour=NEGATIVE)
    for integer, level in enumerate(levels, start=-highest):
        axes.plot(level, 0, "o", color=POSITIVE, markersize=9)
        label(axes, level, -0.6, f"{integer:+d}" if integer else "0", colour=POSITIVE)
    for low in levels[:-1]:
        axes.plot([low + scale / 2] * 2, [-0.3, 0.9], "--", color=GREY, linewidth=1)
    label(axes, levels[0] + scale / 2, 1.15, "threshold", colour=GREY)
    label(axes, -end, -0.6, "integers", align="left", colour=POSITIVE)
    axes.set_xlabel("levels")
    ends = []
    for x in examples:
        level = scale * max(-highest, min(highest, round(x / scale)))
        axes.plot(x, 0, "x", color=INK)
        bend = -0.35 if level > x else 0.35
        arrow(axes, (x, 0.1), (level, 0.15), bend=bend)
        label(axes, x, 1.35 if abs(x) <= levels[-1] + scale / 2 else 0.6, f"{x:g}")
        ends.append(f"{x:g} goes to {level:g}")
    between = " ".join(f"{', '.join(ends)}.".capitalize().split()) if ends else ""
    return figure.with_alt(
        f"A number line with {len(levels)} levels from {levels[0]:g} to {levels[-1]:g}, {scale:g} apart. Thresholds "
        f"lie half way between neighbouring levels; beyond the outermost levels, numbers are clipped. {between}"
    )


def one_weight(runs: Mapping[str, tuple[Sequence[float], Sequence[float]]], target: float) -> Figure:
    """Plot the training of a single weight: one panel per run, with its latent and its quantized values.

    Args:
        runs: The title of each run, and its latent and quantized value after each step.
        target: The value that the loss asks for.
    """
    figure, row = new(9, 3.2, 1, len(runs), sharey=True, squeeze=False)
    lasts = []
    for axes, (title, (latent, quantized)) in zip(row[0], runs.items(), strict=True):
        steps = range(len(latent))
        axes.step(steps, quantized, where="mid", color=POSITIVE)
        axes.plot(steps, latent, "o-", color=GREY, markersize=3)
        axes.axhline(target, color=NEGATIVE, linestyle="--")
        axes.set(title=title, xlabel="step")
        last = len(latent) - 1
        axes.annotate("target", (0, target), (2, 3), textcoords="offset points", color=NEGATIVE)
        axes.annotate("quantized", (last, quantized[-1]), (4, 0), textcoords="offset points", color=POSITIVE)
        axes.annotate("latent", (last, latent[-1]), (4, -3), textcoords="offset points", color=GREY)
        axes.set_xlim(-0.5, last * 1.25)
        jumps = sum(a != b for a, b in zip(quantized[last // 2 :], quantized[last // 2 + 1 :], strict=False))
        lasts.append(f"{title}: {jumps} jumps between levels in the second half of the steps")
    row[0][0].set_ylabel("value of the weight")
    return figure.with_alt(
        f"One weight in training towards {target:g}: the latent value moves in small steps and the quantized one jumps "
        f"between two levels. {'; '.join(lasts)}."
    )


def scale_sharing(rows: int = 4, columns: int = 8, group: int = 4) -> Figure:
    """Draw which weights of a layer share a scale: all, those of one output channel, or a group within a channel.

    Args:
        rows: Number of output channels.
        columns: Number of weights per output channel.
        group: Number of neighbouring weights in a group.
    """
    figure, axes = canvas(8.8, 2.5)
    size = 0.27
    panels = {
        "per tensor": (lambda row, column: 0, "1 scale:\none multiplication after each sum"),
        "per channel": (lambda row, column: row, f"{rows} scales:\none multiplication after each sum"),
        f"per group of {group}": (
            lambda row, column: row * (columns // group) + column // group,
            f"{rows * columns // group} scales: each sum is split\ninto {columns // group} partial sums",
        ),
    }
    for number, (title, (share, remark)) in enumerate(panels.items()):
        left = 0.35 + 2.95 * number
        label(axes, left + columns * size / 2, 2.25, title)
        for row in range(rows):
            colours = [GROUPS[share(row, column) % len(GROUPS)] for column in range(columns)]
            cells(axes, left, 1.95 - (row + 1) * size, [""] * columns, size, colours)
        label(axes, left + columns * size / 2, 0.5, remark)
    axes.text(0.2, 1.95 - rows * size / 2, "output channels", rotation=90, ha="center", va="center", fontsize="small")
    return figure.with_alt(
        f"Three copies of a weight matrix with {rows} output channels of {columns} weights, coloured by scale. Per "
        f"tensor: one colour. Per channel: one colour per row. Per group: {columns // group} colours in each row, so "
        "that the sum over a row has to be split."
    )


def integer_dot_product(x: torch.Tensor, w: torch.Tensor, x_scale: float, w_scale: float) -> Figure:
    """Draw a dot product of two quantized vectors: integers are multiplied and added, one multiplication follows.

    Args:
        x: Integers of the input (n,).
        w: Integers of the weights (n,).
        x_scale: Scale of the input.
        w_scale: Scale of the weights.
    """
    products = (x * w).tolist()
    total = sum(products)
    figure, axes = canvas(8.6, 2.3)
    size, left = 0.5, 1.9
    rows = (("integers of $x$", x.tolist(), "#FBE3D2"), ("integers of $w$", w.tolist(), "#CFE3F3"))
    rows = (*rows, ("products", products, "white"))
    for number, (title, values, colour) in enumerate(rows):
        bottom = 1.65 - 0.62 * number
        label(axes, left - 0.15, bottom + size / 2, title, align="right")
        cells(axes, left, bottom, values, size, [colour] * len(values))
    right = left + size * len(products)
    arrow(axes, (right + 0.1, 0.66), (right + 1.0, 0.66), "add")
    cells(axes, right + 1.1, 0.41, [total], size, ["#D5EBD8"])
    arrow(axes, (right + 1.7, 0.66), (right + 3.0, 0.66), "$\\cdot\\, s_x s_w$")
    value = total * x_scale * w_scale
    label(axes, right + 3.1, 0.66, f"{value:g}", align="left")
    label(axes, right + 1.35, 0.15, "an integer in units of $s_x s_w$")
    return figure.with_alt(
        f"The integers of the input, {x.tolist()}, times the integers of the weights, {w.tolist()}, give the products "
        f"{products}. Their sum, {total}, counts in units of the product of both scales; one multiplication gives "
        f"{value:g}."
    )
