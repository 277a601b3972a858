"""Diagrams of packed weights and of arithmetic with bits."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ..figure import NEGATIVE, POSITIVE, ZERO, Figure, colour, new
from .canvas import INK, arrow, canvas, cells, label

SIZE = 0.42  # inches; the side of a cell
TINT = {-1: "#F6CFB8", 0: "#E4E4E4", 1: "#BBDDF2"}  # light versions of the colours of negative, zero and positive
SHADE = {-1: NEGATIVE, 0: ZERO, 1: POSITIVE}


def packed_bytes(signs: Sequence[int], trits: Sequence[int]) -> Figure:
    """Draw how one byte holds eight signs, and how another one holds five ternary weights.

    Args:
        signs: Eight weights, -1 or 1; the first one becomes the lowest bit.
        trits: Five weights, -1, 0 or 1; the first one becomes the lowest digit in base 3.

    Raises:
        ValueError: If there are not eight and five, or if a weight has another value.
    """
    _check("signs", signs, 8, (-1, 1))
    _check("trits", trits, 5, (-1, 0, 1))
    bits = [(sign + 1) // 2 for sign in signs]
    binary = sum(bit << place for place, bit in enumerate(bits))
    digits = [trit + 1 for trit in trits]
    ternary = sum(digit * 3**place for place, digit in enumerate(digits))
    figure, axes = canvas(8.6, 3.1)
    _packed(axes, 0.95, signs, bits, 2, "eight signs in base 2")
    _packed(axes, 5.15, trits, digits, 3, "five ternary weights in base 3")
    return figure.with_alt(
        f"Two bytes. Left: the eight signs {_listed(signs)} become the bits {_listed(bits)}, which have the place "
        f"values 1 to 128 and give the byte {binary}. Right: the five ternary weights {_listed(trits)} become the "
        f"digits {_listed(digits)}, which have the place values 1 to 81 and give the byte {ternary}."
    )


def xnor_patch(patch: np.ndarray, kernel: np.ndarray) -> Figure:
    """Draw the truth table of XNOR and a dot product of signs that is computed by counting bits that differ.

    Args:
        patch: Signs under the kernel, -1 or 1, in the shape of the kernel.
        kernel: Signs of the kernel, such as (3, 3).
    """
    patch, kernel = _grid("patch", patch), _grid("kernel", kernel)
    if patch.shape != kernel.shape:
        raise ValueError(f"patch has the shape {patch.shape} and kernel {kernel.shape}: they must be equal")
    differ = (patch != kernel).astype(int)
    count, total = int(differ.sum()), int((patch * kernel).sum())
    rows, columns = patch.shape
    figure, axes = canvas(3.4 + 3 * (columns * SIZE + 0.7), max(rows * SIZE + 1.2, 2.4))
    middle = 1.25
    _truth_table(axes, 0.3, middle)
    left = 3.3
    shown = (("signs of the patch", patch, "⊕"), ("signs of the kernel", kernel, "="), ("differ: XOR", differ, ""))
    for title, grid, symbol in shown:
        colours = {0: "white", 1: "#FFE08A"} if title.startswith("differ") else TINT
        text = {0: "0", 1: "1"} if title.startswith("differ") else {-1: "0", 1: "1"}
        _draw_grid(axes, left, middle, grid, colours, text)
        label(axes, left + columns * SIZE / 2, middle + rows * SIZE / 2 + 0.25, title)
        axes.text(left + columns * SIZE + 0.33, middle, symbol, ha="center", va="center", fontsize="x-large")
        left += columns * SIZE + 0.7
    label(
        axes, left - 0.7, middle - rows * SIZE / 2 - 0.35,
        f"popcount = {count}      dot product = {patch.size} − 2 · {count} = {total}", align="right",
    )  # fmt: skip
    return figure.with_alt(
        f"Left: the truth table of XNOR, which is 1 where two bits are equal, as the product of two signs is +1 where "
        f"they are equal. Right: a patch and a kernel of {patch.size} signs as bits; they differ in {count} places, so "
        f"their dot product is {patch.size} - 2 x {count} = {total}."
    )


def padded_corner(patch: np.ndarray, inside: np.ndarray, kernel: np.ndarray) -> Figure:
    """Draw the dot product at a corner of an image: with zeros, with padding that became -1, and with a mask.

    Args:
        patch: Signs under the kernel, -1 or 1; values outside the image do not matter.
        inside: True where the patch lies inside the image, in the shape of the patch.
        kernel: Signs of the kernel, in the shape of the patch.
    """
    patch, kernel, inside = _grid("patch", patch), _grid("kernel", kernel), np.asarray(inside, bool)
    if not patch.shape == kernel.shape == inside.shape:
        raise ValueError("patch, inside and kernel must have the same shape")
    zeros, minus = np.where(inside, patch, 0), np.where(inside, patch, -1)
    right, wrong = int((zeros * kernel).sum()), int((minus * kernel).sum())
    valid, far = int(inside.sum()), int((minus != kernel).sum())
    differ = int(((patch != kernel) & inside).sum())
    panels = (
        ("as floats: zeros outside", zeros, {-1: "−1", 0: "0", 1: "+1"}, f"dot product {right}"),
        ("as bits: 0 outside means −1", minus, {-1: "0", 1: "1"}, f"{minus.size} − 2 · {far} = {wrong}"),
        ("as bits, with a mask", zeros, {-1: "0", 0: "×", 1: "1"}, f"{valid} − 2 · {differ} = {right}"),
    )  # fmt: skip
    rows, columns = patch.shape
    step = columns * SIZE + 1.35
    figure, axes = canvas(4 * step - 0.4, rows * SIZE + 1.2)
    middle = 0.65 + rows * SIZE / 2
    _draw_grid(axes, 0.5, middle, kernel, TINT, {-1: "−1", 1: "+1"})
    label(axes, 0.5 + columns * SIZE / 2, middle + rows * SIZE / 2 + 0.3, "kernel")
    for number, (title, grid, text, result) in enumerate(panels, start=1):
        left = 0.5 + number * step
        _draw_grid(axes, left, middle, grid, TINT, text, inside)
        label(axes, left + columns * SIZE / 2, middle + rows * SIZE / 2 + 0.3, title)
        is_wrong = number == 2 and wrong != right
        label(
            axes, left + columns * SIZE / 2, middle - rows * SIZE / 2 - 0.3, result + ("  (wrong)" if is_wrong else ""),
            colour=NEGATIVE if is_wrong else INK,
        )  # fmt: skip
    return figure.with_alt(
        f"A kernel at the corner of an image, where {patch.size - valid} of {patch.size} values lie outside. With "
        f"zeros outside, the dot product is {right}. As bits, the padding bit 0 means -1, and the dot product becomes "
        f"{wrong}. If a mask leaves out the padding, it is {valid} - 2 x {differ} = {right} again."
    )


def operations_and_time(table: pd.DataFrame) -> Figure:
    """Draw the bit operations of some programs beside the time that they take, on log axes.

    Args:
        table: One row per program, with the columns `million BOPs` and `ms per image`, and `net`, the net's name, which
            determines the colour.
    """
    columns = ("million BOPs", "ms per image")
    figure, both = new(9, 0.7 + 0.33 * len(table), 1, 2, sharey=True)
    for axes, column in zip(both, columns, strict=True):
        for name, value in table[column].items():
            axes.plot([value], [name], "o", color=colour(table.loc[name, "net"]))
            text = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
            axes.annotate(text, (value, name), (7, -3), textcoords="offset points", fontsize="small")
        axes.set(xscale="log", xlabel=f"{column} (log axis)")
        axes.margins(x=0.25, y=0.1)
    rows = "; ".join(f"{name} {row.iloc[0]:g} and {row.iloc[1]:g} ms" for name, row in table[[*columns]].iterrows())
    return figure.with_alt(f"Two dot plots on log axes: million bit operations, and time per image. {rows}.")


def _check(name: str, values: Sequence[int], count: int, allowed: tuple[int, ...]) -> None:
    if len(values) != count or not set(values) <= set(allowed):
        raise ValueError(f"{name} must be {count} values out of {allowed}; got {list(values)}")


def _grid(name: str, values: np.ndarray) -> np.ndarray:
    grid = np.asarray(values)
    if grid.ndim != 2 or not np.isin(grid, (-1, 1)).all():
        raise ValueError(f"{name} must be a matrix of -1 and 1")
    return grid.astype(int)


def _listed(values: Sequence[int]) -> str:
    return ", ".join(str(int(value)) for value in values)


def _packed(axes: Axes, x: float, weights: Sequence[int], digits: Sequence[int], base: int, title: str) -> None:
    """Draw a row of weights, the digits below it, their place values, and the byte they add up to."""
    names = {-1: "−1", 0: "0", 1: "+1"}
    colours = [TINT[weight] for weight in weights]
    width = len(weights) * SIZE
    byte = sum(digit * base**place for place, digit in enumerate(digits))
    label(axes, x + width / 2, 2.85, title)
    for y, name in ((2.3, "weight"), (1.6, "digit"), (1.15, "place")):
        label(axes, x - 0.1, y + SIZE / 2 - (0.1 if name == "place" else 0), name, align="right")
    cells(axes, x, 2.3, [names[weight] for weight in weights], SIZE, colours)
    cells(axes, x, 1.6, digits, SIZE, colours)
    for place in range(len(weights)):
        arrow(axes, (x + (place + 0.5) * SIZE, 2.3), (x + (place + 0.5) * SIZE, 1.6 + SIZE))
        label(axes, x + (place + 0.5) * SIZE, 1.25, f"{base**place}")
    terms = " + ".join(f"{digit}·{base**place}" for place, digit in enumerate(digits) if digit) or "0"
    label(axes, x + width / 2, 0.8, terms)
    label(axes, x + width / 2, 0.4, f"= {byte}, the byte {byte:08b} in bits")


def _truth_table(axes: Axes, x: float, middle: float) -> None:
    """Draw the truth table of XNOR beside the table of products of signs."""
    heads = ("a", "b", "a · b", "bits", "XNOR")
    columns = [x + 0.15 + 0.52 * number for number in range(5)]
    top = middle + 0.8
    for place, head in zip(columns, heads, strict=True):
        label(axes, place, top, head)
    axes.plot([x - 0.1, columns[-1] + 0.3], [top - 0.2] * 2, color=INK, linewidth=0.8)
    names = {-1: "−1", 1: "+1"}
    for row, (a, b) in enumerate(((-1, -1), (-1, 1), (1, -1), (1, 1)), start=1):
        values = (names[a], names[b], names[a * b], f"{(a + 1) // 2} {(b + 1) // 2}", str(int(a == b)))
        for place, value, sign in zip(columns, values, (a, b, a * b, None, a * b), strict=True):
            label(axes, place, top - 0.1 - 0.34 * row, value, colour=INK if sign is None else SHADE[sign])


def _draw_grid(
    axes: Axes,
    x: float,
    middle: float,
    grid: np.ndarray,
    colours: dict[int, str],
    text: dict[int, str],
    inside: np.ndarray | None = None,
) -> None:
    """Draw a matrix with its left edge at x, and its values outside the image on grey cells."""
    rows, _ = grid.shape
    for number, row in enumerate(grid):
        y = middle + (rows / 2 - number - 1) * SIZE
        fills = [
            TINT[0] if inside is not None and not inside[number, column] else colours[value]
            for column, value in enumerate(row)
        ]
        cells(axes, x, y, [text[value] for value in row], SIZE, fills)
