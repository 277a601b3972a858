"""What all figures of the course share: their style, the colour of each net, and an alternative text."""

import io
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from IPython.display import display
from matplotlib import figure as mpl
from matplotlib.axes import Axes

# The palette of Okabe and Ito, whose colours colour-blind readers can tell apart (jfly.uni-koeln.de/color). Its light
# blue and its orange are darkened, so that every colour has a contrast of at least 3 on white.
COLOURS = {
    "PytorchNN": "#000000",
    "TernaryNN": "#0072B2",
    "BinaryNN": "#D55E00",
    "XnorNN": "#CC79A7",
    "Int2NN": "#009E73",
    "Int4NN": "#4A9AC8",
    "Int8NN": "#BB8200",
}
GREY = "#777777"
NEGATIVE, ZERO, POSITIVE = "#D55E00", "#999999", "#0072B2"  # the colours of weights below, at and above zero


class Figure(mpl.Figure):
    """A figure with an alternative text, which a notebook displays when it is the value of a cell.

    It does not use pyplot, which would keep every figure in memory and might display it a second time. Its background
    is white in every theme, so that black text on it stays readable.
    """

    alt: str = ""

    def with_alt(self, text: str) -> "Figure":
        """Set what a screen reader says instead of the picture, one to three sentences; return the figure."""
        self.alt = " ".join(text.split())
        return self

    def png(self) -> bytes:
        """Return the content of a .png file with this figure."""
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=90, facecolor="white")
        return file.getvalue()

    def _ipython_display_(self) -> None:  # called by Jupyter
        data = {"image/png": self.png(), "text/plain": self.alt or repr(self)}
        display(data, metadata={"image/png": {"alt": self.alt}}, raw=True)


def new(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """Return a figure of the course's style and its axes, as `plt.subplots` does.

    Args:
        width: Width in inches; a notebook shows up to about 9.
        height: Height in inches.
        rows: Number of rows of axes.
        columns: Number of columns of axes; with one row and one column, a single `Axes` is returned, else an array.
        options: Passed on to `matplotlib.figure.Figure.subplots`, such as `sharey=True`.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, **options)
    for one in figure.axes:
        style(one)
    return figure, axes


def style(axes: Axes) -> None:
    """Give `axes` the course's style: a light grid, and no frame at the top and at the right."""
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def colour(name: str) -> str:
    """Return the colour of the net `name`; unknown nets are grey.

    Variants have the colour of their net: "BinaryNN-8bit-first-last" that of "BinaryNN".
    """
    return COLOURS.get(name.split("-")[0], GREY)


def end_labels(axes: Axes, ends: Sequence[tuple[float, str, str]], gap: float = 0.055) -> None:
    """Write labels at the right end of lines, moved apart where they would overlap.

    Call it when all lines are drawn, because it uses the range of the y-axis.

    Args:
        axes: Where the lines are drawn.
        ends: The last y-value, the label and the colour of each line.
        gap: The smallest distance between two labels, as a share of the height of the axes.
    """
    low, high = axes.get_ylim()
    ordered = sorted(ends)
    wanted = [(value - low) / (high - low) for value, _, _ in ordered]
    places = list(accumulate(wanted, lambda below, place: max(place, below + gap)))
    lift = sum(place - want for place, want in zip(places, wanted, strict=True)) / max(len(ends), 1)
    for place, (_, text, shade) in zip(places, ordered, strict=True):
        at = (1, place - lift)  # the labels as a whole stay where the lines end
        axes.annotate(text, at, (4, 0), xycoords="axes fraction", textcoords="offset points", color=shade, va="center")
    axes.set_ylim(low, high)
