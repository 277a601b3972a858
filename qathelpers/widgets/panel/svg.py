"""Small charts as SVG, which a browser draws.

Unlike the pictures of matplotlib, they take the colours of the page's theme, stay sharp when the page is zoomed, and
cost the training next to nothing.
"""

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ...analysis.plots.latent import MAX_LEVELS, thresholds

# Each colour has a contrast of at least 3 : 1 with white and with the dark theme's #111, so one serves both.
COLOURS = {
    "PytorchNN": "currentColor",
    "TernaryNN": "#0072B2",
    "BinaryNN": "#D55E00",
    "XnorNN": "#C2659A",
    "Int2NN": "#00916A",
    "Int4NN": "#2E8BC0",
    "Int8NN": "#B07A00",
}
OTHER = "#7A7A7A"
NEGATIVE, ZERO, POSITIVE = "#D55E00", "#7A7A7A", "#0072B2"
BINS = 60
WIDTH, LEFT, RIGHT, TOP = 400, 54, 22, 10  # of a chart, and of its margins


@dataclass(frozen=True)
class Curve:
    """The accuracies of one run, 0 to 1 per epoch, and what the chart calls it."""

    name: str
    label: str
    train: Sequence[float]
    test: Sequence[float]


class Chart:
    """Collects the marks of one chart; x and y are in the units of its axes."""

    def __init__(self, height: int, x: tuple[float, float], y: tuple[float, float], x_label: str = ""):
        """Set up a chart of `height` pixels whose axes have these ends, with room for the name of the x-axis."""
        self.height, self._x, self._y, self._parts = height, x, y, []
        self._x_label, self._low = x_label, height - (38 if x_label else 20)

    def x(self, value: float) -> float:
        """Return the pixel of a value on the x-axis."""
        return LEFT + (value - self._x[0]) / (self._x[1] - self._x[0]) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Return the pixel of a value on the y-axis."""
        return self._low - (value - self._y[0]) / (self._y[1] - self._y[0]) * (self._low - TOP)

    def line(self, points: Iterable[tuple[float, float]], style: str) -> None:
        """Draw a line through points, with presentation attributes such as 'stroke="red"'."""
        places = [f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points if math.isfinite(y)]
        self._parts.append(f'<polyline points="{" ".join(places)}" fill="none" {style}/>')

    def dots(self, points: Iterable[tuple[float, float]], shade: str) -> None:
        """Draw a dot at each point."""
        for x, y in points:
            if math.isfinite(y):
                self._parts.append(f'<circle cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="3" fill="{shade}"/>')

    def bars(self, edges: np.ndarray, low: np.ndarray, high: np.ndarray, shade: str) -> None:
        """Draw one bar per pair of neighbouring edges, from `low` to `high`."""
        path = "".join(
            f"M{self.x(a):.1f} {self.y(bottom):.1f}V{self.y(top):.1f}H{self.x(b):.1f}V{self.y(bottom):.1f}Z"
            for a, b, bottom, top in zip(edges[:-1], edges[1:], low, high, strict=True)
            if top > bottom
        )
        self._parts.append(f'<path d="{path}" fill="{shade}"/>')

    def text(self, x: float, y: float, text: str, anchor: str = "middle", more: str = "") -> None:
        """Write a text at a pixel."""
        self._parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{html.escape(text)}</text>')

    def axes(self, x_ticks: dict[float, str], y_ticks: dict[float, str]) -> None:
        """Draw the two axes with their ticks, and the name of the x-axis."""
        left, right, low = self._x[0], self._x[1], self._y[0]
        for value, label in y_ticks.items():
            self.line([(left, value), (right, value)], 'stroke="currentColor" stroke-opacity="0.2"')
            self.text(LEFT - 6, self.y(value) + 5, label, "end")
        self.line([(left, self._y[1]), (left, low), (right, low)], 'stroke="currentColor"')
        for value, label in x_ticks.items():
            self.text(self.x(value), self._low + 16, label)
        self.text((LEFT + WIDTH - RIGHT) / 2, self.height - 4, self._x_label)

    def svg(self, alt: str) -> str:
        """Return the chart; `alt` is what a screen reader says instead."""
        return (
            f'<div class="qat-chart"><svg viewBox="0 0 {WIDTH} {self.height}" role="img" '
            f'aria-label="{html.escape(alt)}" font-size="14" fill="currentColor">{"".join(self._parts)}</svg></div>'
        )


def shade_of(name: str) -> str:
    """Return the colour of a net; a variant has the colour of its net, a net of your own is grey."""
    return COLOURS.get(name.split("-")[0], OTHER)


def accuracy(curves: Sequence[Curve], epochs: int, guessing: float, held_out: str = "test") -> str:
    """Return a chart of the accuracy per epoch: the last curve is the current run, those before it are drawn thin.

    Args:
        curves: The runs; training dashed, test (or validation) solid.
        epochs: Number of epochs of the current run; the axis is longer if an earlier run has more epochs.
        guessing: The accuracy of guessing, 0 to 1, which is drawn as a dotted line.
        held_out: Which accuracy the solid lines show, "test" or "validation".
    """
    longest = max([epochs, 2, *(len(curve.test) for curve in curves)])
    chart = Chart(250, (0, longest), (0, 1), "epoch")
    chart.axes(epoch_ticks(longest), {value / 4: f"{25 * value}%" for value in range(5)})
    chart.line([(0, guessing), (longest, guessing)], 'stroke="currentColor" stroke-width="1.5" stroke-dasharray="2 4"')
    chart.text(WIDTH - RIGHT, chart.y(guessing) - 5, f"guessing, {guessing:.0%}", "end")
    for number, curve in enumerate(curves, start=1):
        shade, is_current = shade_of(curve.name), number == len(curves)
        width = 2.5 if is_current else 1.5
        test = list(enumerate(curve.test, start=1))
        if is_current:
            style = f'stroke="{shade}" stroke-width="1.5" stroke-dasharray="6 4"'
            chart.line(enumerate(curve.train, start=1), style)
        chart.line(test, f'stroke="{shade}" stroke-width="{width}" stroke-linejoin="round"')
        chart.dots(test if is_current and len(test) < 20 else test[-1:], shade)
    ends = "; ".join(
        f"{curve.label} has a {held_out} accuracy of {curve.test[-1]:.3f}" for curve in curves if curve.test
    )
    return chart.svg(f"Line chart of the accuracy over {longest} epochs. {ends or 'No epoch is finished yet'}.")


def histogram(latent: np.ndarray, quantized: np.ndarray | None, reach: float, layer: str, shade: str) -> str:
    """Return a histogram of latent weights, coloured by the sign of their level, with levels and thresholds.

    Args:
        latent: The latent weights of one layer, flat.
        quantized: The values they are quantized to; None for a float layer, which has neither levels nor thresholds.
        reach: The axis goes from -reach to reach.
        layer: The layer's name, for the alternative text.
        shade: The colour of the bars of a float layer.
    """
    edges = np.linspace(-reach, reach, BINS + 1)
    levels = [] if quantized is None else np.unique(quantized)
    if not 0 < len(levels) <= MAX_LEVELS or not np.isfinite(levels).all():
        levels, groups = [], [latent]
    else:
        groups = [latent[quantized == level] for level in levels]
    counts = [np.histogram(group, edges)[0] for group in groups]
    top = max(1, sum(counts).max())
    chart = Chart(210, (-reach, reach), (0, 1.16 * top), "latent weight")
    chart.axes({-reach: f"{-reach:g}", 0: "0", reach: f"{reach:g}"}, {})
    shades = [sign_shade(level) for level in levels] or [shade]
    low = np.zeros(BINS)
    for count, bar_shade in zip(counts, shades, strict=True):
        chart.bars(edges, low, low + count, bar_shade)
        low = low + count
    total = max(1, len(latent))
    shares = [(float(level), len(group) / total) for level, group in zip(levels, groups, strict=False)]
    for level, share in shares:
        chart.line([(level, 0), (level, 1.06 * top)], 'stroke="currentColor" stroke-width="2.5"')
        if len(shares) <= 4:
            chart.text(chart.x(level), TOP + 5, f"{share:.0%}")
    borders = thresholds(groups) if len(levels) else []
    for border in borders:
        chart.line([(border, 0), (border, top)], 'stroke="currentColor" stroke-width="1.5" stroke-dasharray="5 4"')
    return chart.svg(_histogram_alt(layer, shares, borders))


def small(values: dict[int, float], epochs: int, shade: str, name: str) -> str:
    """Return a low chart of one share over the epochs.

    Args:
        values: The share, 0 to 1, by the number of finished epochs.
        epochs: The last epoch of the axis.
        shade: The colour of the line.
        name: What the share is of, for the alternative text.
    """
    top = next(limit for limit in (0.02, 0.05, 0.1, 0.2, 0.5, 1) if limit >= max(values.values(), default=0))
    chart = Chart(84, (0, max(epochs, 2)), (0, top))
    chart.axes(epoch_ticks(max(epochs, 2)), {0: "0%", top: f"{top:.0%}"})
    points = list(values.items())
    chart.line(points, f'stroke="{shade}" stroke-width="2"')
    chart.dots(points if len(points) < 20 else points[-1:], shade)
    ends = f": {points[0][1]:.1%} at first, {points[-1][1]:.1%} after epoch {points[-1][0]}" if points else ""
    return chart.svg(f"Line chart of {name} over the epochs{ends}.")


def sign_shade(level: float) -> str:
    """Return the colour of a level below, at or above zero."""
    return ZERO if level == 0 else POSITIVE if level > 0 else NEGATIVE


def epoch_ticks(epochs: int) -> dict[float, str]:
    """Return at most about six whole epochs, from 0 on."""
    step = next(size * 10**power for power in range(9) for size in (1, 2, 5) if epochs <= 6 * size * 10**power)
    return {number: f"{number:,}" for number in range(0, epochs + 1, step)}


def rounded_up(value: float) -> float:
    """Return the next larger number of the form 1, 1.5, 2, 3, 5 or 7 times a power of ten; 1 for 0 and for NaN."""
    if not 0 < value < math.inf:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next((size * power for size in (1, 1.5, 2, 3, 5, 7) if value <= size * power), 10 * power)


def _histogram_alt(layer: str, shares: Sequence[tuple[float, float]], borders: Sequence[float]) -> str:
    levels = ", ".join(f"{level:+.3f} with {share:.0%} of the weights" for level, share in shares)
    between = f" Thresholds at {', '.join(f'{border:+.3f}' for border in borders)}." if borders else ""
    return f"Histogram of the latent weights of {layer}{f', and their levels: {levels}' if levels else ''}.{between}"
