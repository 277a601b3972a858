"""Diagrams of integer arithmetic: a layer, a factor and a shift, registers, thresholds, and where a mistake starts."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.patches import Circle

from ..figure import GREY, NEGATIVE, POSITIVE, Figure, end_labels, new
from .canvas import FAINT, FILL, INK, arrow, box, canvas, cells, label

SHOWN = 5  # products drawn in `integer_layer`; a layer has hundreds
PALETTE = (POSITIVE, NEGATIVE, "#009E73", "#CC79A7")
FEWEST = 1e-7  # the share at which `where_they_differ` draws a share of zero, because its axis is logarithmic


def integer_layer(
    levels: Sequence[int], weights: Sequence[int], total: int, factor: int, offset: int, shift: int, result: int
) -> Figure:
    """Draw how one output of a layer is computed with integers, with the unit of each number.

    Args:
        levels: Integers of the activations under the filter, in any order; the first five are shown.
        weights: Integers of the filter, likewise.
        total: The sum of all products.
        factor: Scales and BatchNorm, as a whole number of 2 ** -shift.
        offset: The shift of the BatchNorm and half a unit for rounding, likewise.
        shift: Number of bits.
        result: The level after the shift and the clipping.
    """
    figure, axes = canvas(9.2, 2.4)
    for y, name, values in ((1.5, "$q_x$", levels), (0.85, "$q_w$", weights)):
        label(axes, 0.2, y + 0.19, name)
        cells(axes, 0.4, y, list(values[:SHOWN]), 0.38, [FILL["quantized"]] * SHOWN)
        label(axes, 2.48, y + 0.19, "...")
    label(axes, 1.35, 2.2, f"{len(levels)} levels and weights", colour=FAINT)
    stages = (
        (3.55, f"sum of products\n$S$ = {total:,}", "int32", "$s_x s_w$"),
        (5.2, f"times $M$\n= {factor:,}", "int64", "$s_y 2^{-k}$"),
        (6.9, f"plus $B$\n= {offset:,}", "int64", "$s_y 2^{-k}$"),
        (8.5, f"shift by {shift},\nclip: $q_y$ = {result}", "uint8", "$s_y$"),
    )
    arrow(axes, (2.62, 1.35), (2.88, 1.35))
    for number, (x, text, kind, unit) in enumerate(stages):
        box(axes, x, 1.35, text, 1.28, 0.62, "quantized" if number == len(stages) - 1 else "integer")
        label(axes, x, 0.72, kind, colour=FAINT)
        label(axes, x, 0.4, f"unit {unit}", colour=FAINT)
        if number:
            arrow(axes, (stages[number - 1][0] + 0.66, 1.35), (x - 0.66, 1.35))
    label(axes, 1.35, 0.4, "units $s_x$ and $s_w$", colour=FAINT)
    return figure.with_alt(
        f"One output of an integer layer. {len(levels)} levels times weights give the sum {total:,} in units of s_x "
        f"s_w. Times the factor {factor:,}, plus the offset {offset:,}, shifted right by {shift} bits and clipped, it "
        f"becomes the level {result} in units of s_y."
    )


def multiply_and_shift(number: int, factor: int, shift: int) -> Figure:
    """Draw a product in binary: the bits that a shift drops, and the bits that are left.

    Args:
        number: The integer that is multiplied, at least 0.
        factor: The factor as a whole number of 2 ** -shift, at least 0.
        shift: Number of bits that are dropped.
    """
    product = number * factor + 2 ** (shift - 1)
    digits = f"{product:0{shift + 4}b}"
    size, kept = 0.3, len(digits) - shift
    width = len(digits) * size
    figure, axes = canvas(max(width + 1.2, 7.2), 1.9)
    left = (max(width + 1.2, 7.2) - width) / 2
    label(
        axes, left + width / 2, 1.65,
        f"{number:,} x {factor / 2**shift:.6g}  is about  ({number:,} x {factor:,} + {2 ** (shift - 1):,}) >> {shift}",
    )  # fmt: skip
    cells(axes, left, 0.95, digits, size, [FILL["integer"]] * kept + [FILL["fixed"]] * shift)
    point = left + kept * size
    axes.plot([point, point], [0.8, 1.4], color=INK, linewidth=2)
    label(axes, left + kept * size / 2, 0.65, f"kept: {product >> shift:,}")
    label(axes, point + shift * size / 2, 0.65, f"dropped: {shift} bits", colour=FAINT)
    label(axes, left, 0.3, f"The line is the binary point. In reals, the product is {number * factor / 2**shift:.4g}.",
          align="left", colour=FAINT)  # fmt: skip
    return figure.with_alt(
        f"The number {product:,} in binary. The {shift} bits on the right of the binary point are dropped, which "
        f"leaves {product >> shift:,}, the rounded product of {number:,} and {factor / 2**shift:.6g}."
    )


def wrap_and_saturate(
    bits: int, sums: np.ndarray, wrap: Callable[[np.ndarray, int], np.ndarray], saturate: Callable
) -> Figure:
    """Plot what a register that is too narrow holds, above the sums that a layer really has.

    Args:
        bits: Width of the register with its sign.
        sums: Sums of one layer, any shape.
        wrap: Called with sums and bits; returns what is left if carries are lost.
        saturate: Likewise, if the register stops at its ends.
    """
    values = np.asarray(sums).ravel()
    half, reach = 2 ** (bits - 1), max(int(abs(values).max()), 2 ** (bits - 1))
    true = np.arange(-reach, reach + 1)
    figure, (top, bottom) = new(7, 4.6, 2, 1, sharex=True, height_ratios=(3, 2))
    for result, shade, name in (
        (wrap(true, bits), NEGATIVE, "wrap-around"),
        (saturate(true, bits), POSITIVE, "saturation"),
    ):
        jumps = np.where(np.abs(np.diff(result, prepend=result[0])) > 1, np.nan, result)  # no line where it jumps
        top.plot(true, jumps, color=shade, linewidth=2 if name == "saturation" else 1.4)
        end_labels(top, [(float(result[-1]), name, shade)])
    top.set(ylabel=f"in {bits} bits", title=f"a register of {bits} bits: {-half:,} to {half - 1:,}")
    beyond = float(((values < -half) | (values >= half)).mean())
    bottom.hist(values, bins=80, color=GREY)
    for end in (-half, half):
        bottom.axvline(end, color=INK, linestyle="--", linewidth=1)
    bottom.set(xlabel="true sum", ylabel="sums per bin", yscale="log", title=f"{beyond:.2%} of the sums do not fit")
    return figure.with_alt(
        f"Above: the content of a register of {bits} bits against the true sum. Wrap-around jumps from {half - 1:,} to "
        f"{-half:,} and continues from there, saturation stays at the end. Below: a histogram of the sums of a layer; "
        f"{beyond:.2%} lie outside the register's range."
    )


def sign_thresholds(lines: Mapping[str, tuple[float, float]], low: float, high: float) -> Figure:
    """Plot BatchNorms as functions of the sum before them, and the sums at which the sign behind them changes.

    Args:
        lines: For each label gain and shift; the BatchNorm returns gain x sum + shift. No gain may be zero.
        low: The left end of the axis.
        high: The right end of the axis.
    """
    figure, axes = new(7, 3.2)
    ends, places = np.array([low, high]), []
    axes.axhline(0, color=INK, linewidth=1)
    for (name, (gain, shift)), shade in zip(lines.items(), PALETTE, strict=False):
        axes.plot(ends, gain * ends + shift, color=shade, linewidth=2)
        place = -shift / gain
        places.append((name, place, gain))
        axes.axvline(place, color=shade, linestyle="--", linewidth=1)
        side = np.array([place, high if gain > 0 else low])
        axes.fill_between(side, 0, gain * side + shift, color=shade, alpha=0.12)
        axes.annotate(
            f"{name}: +1 where $S$ {'≥' if gain > 0 else '≤'} {place:.4g}", (side.mean(), 0), (0, -10),
            textcoords="offset points", ha="center", va="top", color=shade,
        )  # fmt: skip
    axes.set(xlabel="$S$ (what comes before the BatchNorm)", ylabel="BatchNorm's output", xlim=(low, high))
    axes.margins(y=0.2)
    told = "; ".join(f"{name} has the threshold {place:.4g}, {_side(gain)}" for name, place, gain in places)
    return figure.with_alt(f"BatchNorms as straight lines. Where a line crosses zero, the sign changes: {told}.")


def _side(gain: float) -> str:
    return f"its sign is +1 {'above' if gain > 0 else 'below'} it"


def block_in_integers(fraction_bits: int = 20) -> Figure:
    """Draw the way from the bytes of an image through one block, with the kind of integer on each arrow.

    Args:
        fraction_bits: Bits after the binary point of the fixed-point numbers.
    """
    figure, axes = canvas(9.2, 3.3)
    fixed = f"unit $2^{{-{fraction_bits}}}$"
    row = ((0.75, "bytes of\nthe image", "fixed"), (2.35, "whitening", "integer"), (3.95, "stem (DCT)", "integer"),
           (5.75, "levels", "quantized"), (7.6, "convolution,\npooling", "integer"))  # fmt: skip
    for x, text, kind in row:
        box(axes, x, 2.6, text, 1.05, 0.55, kind)
    texts = ("uint8", fixed, fixed, "$q_x$")
    for (start, _, _), (end, _, _), text in zip(row[:-1], row[1:], texts, strict=True):
        arrow(axes, (start + 0.53, 2.6), (end - 0.53, 2.6))
        label(axes, (start + end) / 2, 3.05, text, colour=FAINT)
    label(axes, 4.85, 2.15, "$M, B, k$\nor threshold")
    box(axes, 7.6, 1.5, "× $M$ + $B$, shift", 1.4, 0.5, "integer")
    arrow(axes, (7.6, 2.32), (7.6, 1.76))
    label(axes, 7.7, 2.04, "sums $S$ (int32)", align="left", colour=FAINT)
    box(axes, 5.3, 0.6, "levels", 1.05, 0.5, "quantized")
    box(axes, 3.2, 0.6, "convolution,\n× $M$ + $B$, shift", 1.55, 0.6, "integer")
    axes.plot([8.13, 8.75, 8.75, 5.9], [2.6, 2.6, 0.6, 0.6], color=INK, linewidth=1.3)
    arrow(axes, (6.0, 0.6), (5.8, 0.6))
    label(axes, 7.3, 0.75, "$S$, through its own $M, B, k$", colour=FAINT)
    arrow(axes, (4.77, 0.6), (3.98, 0.6))
    axes.add_patch(Circle((1.3, 1.5), 0.2, facecolor="white", edgecolor=INK))
    axes.text(1.3, 1.5, "+", ha="center", va="center", fontsize="large")
    arrow(axes, (6.9, 1.5), (1.52, 1.5))
    label(axes, 4.2, 1.66, f"skip: {fixed}")
    axes.plot([2.42, 1.3, 1.3], [0.6, 0.6, 1.1], color=INK, linewidth=1.3)
    arrow(axes, (1.3, 1.0), (1.3, 1.31))
    label(axes, 1.4, 0.95, fixed, align="left", colour=FAINT)
    arrow(axes, (1.08, 1.5), (0.2, 1.5))
    label(axes, 0.55, 1.66, "next block", colour=FAINT)
    return figure.with_alt(
        "From the bytes of an image through one block. Whitening and stem return fixed-point numbers; a factor and a "
        "shift, or a threshold, turn them into levels. A convolution returns int32 sums. Scaled once, the sums are the "
        "skip connection; scaled another way, they are the levels of the second convolution. Both paths have the unit "
        f"2 to the power of -{fraction_bits} when they are added."
    )


def where_they_differ(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Plot for each step of a net which share of its values differs from PyTorch's, one line per net.

    Args:
        tables: What `integer_reference.compare` returned, by the label of the line. All have the same rows.
    """
    figure, axes = new(8.4, 4.2)
    names = list(next(iter(tables.values())).index)
    told = []
    for (title, table), shade in zip(tables.items(), ("black", *PALETTE), strict=False):
        shares = table["share"].clip(lower=FEWEST)
        front = 2 if told else 3  # the first line covers the others where they agree with it
        axes.plot(range(len(names)), shares, marker="o", markersize=3, color=shade, label=title, zorder=front)
        first = next((name for name, share in table["share"].items() if share > 0.01), None)
        told.append(f"{title}: " + (f"more than 1 % from {first} on" if first else "at most 1 % in every layer"))
    axes.set(yscale="log", ylim=(FEWEST / 2, 2), ylabel="share that differs from PyTorch")
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize="small")
    ticks = [10.0**power for power in range(-6, 1, 2)]
    axes.set_yticks([FEWEST, *ticks], ["none", *(f"{100 * tick:g} %" for tick in ticks)])
    axes.legend(fontsize="small", loc="lower right")
    return figure.with_alt(f"Share of values that differ from PyTorch's, per layer. {'; '.join(told)}.")
