"""The parts that diagrams are drawn from: boxes, arrows, rows of cells and labels, on axes without ticks."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Rectangle

from ..figure import Figure, new

INK, FAINT = "black", "#777777"
FILL = {"float": "#FFFFFF", "quantized": "#CFE3F3", "integer": "#FBE3D2", "fixed": "#EEEEEE", "note": "#FFF6CC"}


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure without axes, ticks or grid, in which one unit is one inch and (0, 0) is at the bottom left."""
    figure, axes = new(width, height)
    axes.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    axes.axis("off")
    return figure, axes


def box(
    axes: Axes, x: float, y: float, text: str, width: float = 1.3, height: float = 0.5, kind: str = "float"
) -> None:
    """Draw a rounded box with its centre at (x, y); `kind` is a key of `FILL`."""
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2), width, height, boxstyle="round,pad=0,rounding_size=0.08",
            facecolor=FILL[kind], edgecolor=INK, linewidth=1,
        )
    )  # fmt: skip
    axes.text(x, y, text, ha="center", va="center", fontsize="small")


def arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    text: str = "",
    *,
    colour: str = INK,
    dashed: bool = False,
    bend: float = 0,
) -> None:
    """Draw an arrow from `start` to `end` with a text above its middle; `bend` curves it (0.3 is a flat arc)."""
    style = {"arrowstyle": "->", "color": colour, "linestyle": "--" if dashed else "-", "linewidth": 1.3}
    axes.annotate("", end, start, arrowprops=style | {"connectionstyle": f"arc3,rad={bend}"})
    if text:
        middle = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
        axes.annotate(
            text, middle, (0, 4), textcoords="offset points", ha="center", va="bottom", fontsize="small", color=colour
        )


def cells(
    axes: Axes, x: float, y: float, values: Sequence[object], size: float = 0.3, colours: Sequence[str] | None = None
) -> None:
    """Draw a row of square cells whose lower left corner is (x, y), with a value in each."""
    for number, value in enumerate(values):
        fill = colours[number] if colours else "white"
        axes.add_patch(Rectangle((x + number * size, y), size, size, facecolor=fill, edgecolor=INK, linewidth=0.8))
        axes.text(x + (number + 0.5) * size, y + size / 2, str(value), ha="center", va="center", fontsize="small")


def label(axes: Axes, x: float, y: float, text: str, *, align: str = "center", colour: str = INK) -> None:
    """Write a text at (x, y); `align` is left, center or right."""
    axes.text(x, y, text, ha=align, va="center", fontsize="small", color=colour)
