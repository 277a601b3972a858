"""Diagrams of quantized activations: a block with signs, a thermometer code, the bits of a product, a gradient."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch

from ...common.errors import CourseError
from ..figure import NEGATIVE, POSITIVE, Figure, new
from .canvas import FAINT, FILL, arrow, box, canvas, cells, label

ONE_BIT, INTEGER, FLOAT = POSITIVE, NEGATIVE, "black"  # the colour of an arrow says what kind of values it carries
KERNEL = 9  # weights per channel of a 3 x 3 convolution


def w1a1_block(inputs: int, outputs: int, seen: Mapping[str, int]) -> Figure:
    """Draw a block of the W1A1 net and write at each arrow how many different values pass there.

    Args:
        inputs: Number of input channels of the block.
        outputs: Number of output channels.
        seen: How many different values were counted behind the two signs and the two convolutions, under the keys
            "sign 1", "convolution 1", "sign 2" and "convolution 2".
    """
    figure, axes = canvas(9, 3.7)
    sums = [_sums(inputs, seen["convolution 1"]), _sums(outputs, seen["convolution 2"])]
    signs = [f"{seen['sign 1']} values", f"{seen['sign 2']} values"]
    convolutions = [f"binary 3 x 3\nconvolution\n{n} to {outputs}" for n in (inputs, outputs)]
    top, bottom = 2.75, 0.75
    _row(axes, top, (1.3, 3.1, 5.6, 7.3), ("sign", convolutions[0], "max\npooling", "Batch-\nNorm"))
    _flow(axes, top, [(0.1, 0.8, "floats", FLOAT), (1.8, 2.5, signs[0], ONE_BIT), (3.7, 5.1, sums[0], INTEGER)])
    _flow(axes, top, [(6.1, 6.8, "", INTEGER), (7.8, 8.8, "floats", FLOAT)])
    # The features leave the first row at its right end. They reach the sum twice: through the skip, and through row 2.
    axes.plot([8.8, 8.8, 0.3, 0.3], [top, 1.75, 1.75, bottom], color=FLOAT, linewidth=1.3)
    _row(axes, bottom, (1.3, 3.1, 5.6), ("sign", convolutions[1], "Batch-\nNorm"))
    _flow(axes, bottom, [(0.3, 0.8, "", FLOAT), (1.8, 2.5, signs[1], ONE_BIT), (3.7, 5.1, sums[1], INTEGER)])
    _flow(axes, bottom, [(6.1, 7.12, "floats", FLOAT), (7.48, 8.8, "floats", FLOAT)])
    box(axes, 7.3, bottom, "+", 0.36, 0.36, "note")
    arrow(axes, (7.3, 1.75), (7.3, bottom + 0.18), colour=FLOAT)
    label(axes, 7.4, 1.35, "skip: floats", align="left", colour=FLOAT)
    return figure.with_alt(
        f"A W1A1 block. First row: floats, a sign ({signs[0]}), a binary convolution from {inputs} to {outputs} "
        f"channels ({_line(sums[0])}), max pooling, and a BatchNorm, behind which there are floats. Second row: these "
        f"floats go through a sign ({signs[1]}), a binary convolution ({_line(sums[1])}) and a BatchNorm; the skip "
        "adds the unquantized floats to the result."
    )


def thermometer(thresholds: Sequence[float]) -> Figure:
    """Draw which signs a response r gets when r and -r are both compared with several thresholds.

    Args:
        thresholds: Positive thresholds, from the smallest up, in standard deviations.

    Raises:
        CourseError: If there are none, or if they are not positive and in increasing order.
    """
    borders = [float(threshold) for threshold in thresholds]
    if not borders or borders[0] <= 0 or any(a >= b for a, b in pairwise(borders)):
        raise CourseError(f"The thresholds are {list(thresholds)}: pass positive numbers, from the smallest up.")
    line = [-border for border in reversed(borders)] + borders
    ends = [line[0] - 1, *line, line[-1] + 1]
    codes = _codes(borders, [(a + b) / 2 for a, b in pairwise(ends)])
    size, left = 0.36, 2.0
    gap = 6.2 / len(line)
    height = 1.2 + size * len(codes)
    figure, axes = canvas(9, height)
    base = height - 0.65
    arrow(axes, (left - 0.4, base), (8.8, base))
    label(axes, 8.8, base - 0.2, "$r$")
    for number, border in enumerate(line):
        x = left + (number + 0.5) * gap
        axes.plot([x, x], [base - 0.1, base + 0.1], color="black")
        label(axes, x, base + 0.28, f"{border:g}")
    for row, (name, signs) in enumerate(codes.items()):
        y = base - 0.25 - size * (row + 1)
        label(axes, left - 0.5, y + size / 2, name, align="right")
        for column, sign in enumerate(signs):
            shade = FILL["quantized" if sign == "+" else "integer"]
            cells(axes, left + column * gap - size / 2, y, [sign], size, [shade])
    words = ", ".join("".join(column) for column in zip(*codes.values(), strict=True))
    names = ", ".join(map(_plain, codes))
    return figure.with_alt(
        f"A number line with the thresholds {', '.join(f'{border:g}' for border in line)}, which separate "
        f"{len(line) + 1} intervals. Below each interval stand {len(codes)} signs, for {names}. From left to right: "
        f"{words}."
    )


def bit_products(weight: int, activation: int, weight_bits: int, activation_bits: int) -> Figure:
    """Draw the multiplication of two unsigned integers as a table of products of single bits.

    Args:
        weight: The first factor.
        activation: The second factor.
        weight_bits: The number of bits of the first factor: one row of products each.
        activation_bits: The number of bits of the second factor: one column each.

    Raises:
        CourseError: If a factor does not fit in its number of bits.
    """
    for name, value, bits in (("weight", weight, weight_bits), ("activation", activation, activation_bits)):
        if not 0 <= value < 2**bits:
            raise CourseError(f"{name} is {value}, which does not fit in {bits} bits: pass 0 to {2**bits - 1}.")
    size, total = 0.36, weight_bits + activation_bits
    height = size * weight_bits + 1.55
    figure, axes = canvas(7, height)
    right, top = 2.1 + total * size, height - 0.5
    first, second = _bits(activation, activation_bits), _bits(weight, weight_bits)
    cells(axes, right - activation_bits * size, top, first, size, [FILL["quantized"]] * activation_bits)
    label(axes, right + 0.15, top + size / 2, f"activation {activation}: {activation_bits} bits", align="left")
    for row, bit in enumerate(reversed(second)):
        y = top - 0.15 - (row + 1) * size
        cells(axes, right - (activation_bits + row) * size, y, [bit & other for other in first], size)
        cells(axes, 0.95, y, [bit], size, [FILL["integer"]])
        arrow(axes, (1.4, y + size / 2), (right - (activation_bits + row) * size - 0.08, y + size / 2), colour=FAINT)
    label(axes, 0.85, top + size / 2, f"weight {weight}: {weight_bits} bits", align="left")
    middle = top - 0.15 - weight_bits * size / 2
    count = weight_bits * activation_bits
    label(
        axes,
        right + 0.15,
        middle,
        f"{weight_bits} x {activation_bits} = {count} products\nof single bits",
        align="left",
    )
    y = top - 0.3 - (weight_bits + 1) * size
    cells(axes, right - total * size, y, _bits(weight * activation, total), size, [FILL["note"]] * total)
    label(axes, right + 0.15, y + size / 2, f"their sum: {weight * activation}", align="left")
    return figure.with_alt(
        f"Long multiplication in binary: the weight {weight} ({weight_bits} bits) times the activation {activation} "
        f"({activation_bits} bits) takes {count} products of single bits, in {weight_bits} rows, each shifted by one "
        f"place. Their sum is {weight * activation}."
    )


def forward_and_gradient(
    x: torch.Tensor, output: torch.Tensor, gradient: torch.Tensor, output_label: str, gradient_label: str
) -> Figure:
    """Plot what a quantizer returns for each input, and beside it a gradient that belongs to each input.

    Args:
        x: Inputs (n,), in increasing order.
        output: The output for each input, shape (n,).
        gradient: The gradient for each input, shape (n,).
        output_label: The y-label of the left plot.
        gradient_label: The y-label of the right plot.
    """
    figure, both = new(7.6, 2.7, 1, 2)
    inputs, left, right = (values.detach().float().cpu() for values in (x, output, gradient))
    for axes, values, name, shade in zip(
        both, (left, right), (output_label, gradient_label), (POSITIVE, NEGATIVE), strict=True
    ):
        # Steps have to look like steps: a line between two levels would show values that do not exist.
        broken = values.clone()
        broken[1:][values.diff().abs() > 0.4] = float("nan")
        axes.plot(inputs, broken, color=shade, linewidth=2)
        axes.set(xlabel="$x$", ylabel=name)
        axes.margins(y=0.15)
    levels = ", ".join(f"{level:g}" for level in left.unique().tolist()[:16])
    return figure.with_alt(
        f"Two plots over x from {inputs[0]:g} to {inputs[-1]:g}. Left, {_plain(output_label)}: a staircase with the "
        f"levels {levels}. Right, {_plain(gradient_label)}: values from {right.min():.2f} to {right.max():.2f}; "
        f"{right[0]:.2g} at the left end and {right[-1]:.2g} at the right end."
    )


def _sums(channels: int, seen: int) -> str:
    """Return how many values a sum of 9 x channels signs can have, and how many were counted."""
    return f"{KERNEL * channels + 1} possible,\n{seen} seen"


def _line(text: str) -> str:
    return " ".join(text.split())


def _plain(text: str) -> str:
    """Return a label without the marks of LaTeX, for the alternative text."""
    return text.replace(r"\partial ", "d").replace(r"\mathrm", "").translate(str.maketrans("", "", "$\\{}"))


def _row(axes, y: float, places: Sequence[float], texts: Sequence[str]) -> None:
    for x, text in zip(places, texts, strict=True):
        binary = text == "sign" or text.startswith("binary")
        box(axes, x, y, text, 1.2 if "\nconvolution" in text else 1.0, 0.8, "quantized" if binary else "float")


def _flow(axes, y: float, parts: Sequence[tuple[float, float, str, str]]) -> None:
    for start, end, text, shade in parts:
        arrow(axes, (start, y), (end, y), text, colour=shade)


def _codes(thresholds: Sequence[float], values: Sequence[float]) -> dict[str, list[str]]:
    """Return the sign of r - t and of -r - t for each threshold t, at each value of r."""
    codes = {}
    for name, factor in (("$r$", 1), ("$-r$", -1)):
        for threshold in thresholds:
            signs = ["+" if factor * value > threshold else "\N{MINUS SIGN}" for value in values]
            codes[f"{name} > {threshold:g}"] = signs
    return codes


def _bits(value: int, count: int) -> list[int]:
    """Return the bits of an unsigned integer, the highest first."""
    return [value >> place & 1 for place in reversed(range(count))]
