"""The two pictures of the quantizer explorer: how a layer's weights are quantized, and the error against the scale."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.collections import PolyCollection
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from ..analysis.figure import GREY, NEGATIVE, POSITIVE, Figure, style
from .canvas import Canvas
from .setting import Setting

BINS = 80
# Neighbouring levels alternate between two tones, so that they can be told apart however many there are.
TONES = {-1: (NEGATIVE, "#8a3d00"), 0: (GREY, GREY), 1: (POSITIVE, "#003a5c")}
BEHIND = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
STAIRS, PASSES, INK = "#7a1f5c", "#d9efe6", "black"


class QuantizerPlot:
    """A staircase (quantized against latent weight) above the histogram of a layer's latent weights, on one x-axis."""

    def __init__(self) -> None:
        """Create the figure; `show` gives it a layer."""
        figure = Figure(figsize=(5.4, 4.2))
        figure.subplots_adjust(left=0.13, right=0.98, top=0.96, bottom=0.12, hspace=0.12)
        self.top, self.bottom = figure.subplots(2, 1, sharex=True)
        for axes in (self.top, self.bottom):
            style(axes)
        (self.identity,) = self.top.plot([0], [0], color="#8c8c8c", linewidth=1, linestyle=":")
        (self.stairs,) = self.top.plot([0], [0], color=STAIRS, linewidth=2)
        self.passing = [axes.axvspan(-1, 1, color=PASSES, zorder=0) for axes in (self.top, self.bottom)]
        self.bars = PolyCollection([], edgecolors="white", linewidths=0.3)
        self.bottom.add_collection(self.bars)
        # One patch for all hatched bars: each patch with a hatch would take a few milliseconds.
        self.clipped = PathPatch(Path([(0, 0)]), facecolor="none", edgecolor="white", hatch="////", linewidth=0)
        self.bottom.add_patch(self.clipped)
        self.top.set(ylabel="quantized weight")
        self.bottom.set(xlabel="latent weight", ylabel="% of the weights")
        self.note = self.top.text(0.02, 0.95, "shaded: the gradient passes", transform=self.top.transAxes, va="top")
        self.hatched = self.bottom.text(0.02, 0.95, "", transform=self.bottom.transAxes, va="top")
        for text in (self.note, self.hatched):
            text.set_fontsize("small")
        self.canvas = Canvas(figure)

    def show(self, weight: torch.Tensor) -> None:
        """Choose the layer: the axes then fit its latent weights and stay as they are whatever the settings."""
        reach = 1.05 * max(weight.abs().max().item(), 1e-10)
        self.edges = np.linspace(-reach, reach, BINS + 1)
        self._bins = np.digitize(weight.flatten().numpy(), self.edges[1:-1])
        highest = np.bincount(self._bins).max() / weight.numel()
        self.line = torch.linspace(-reach, reach, 1201)
        self.top.set(xlim=(-reach, reach), ylim=(-1.05 * reach, 1.05 * reach))
        self.bottom.set(ylim=(0, 118 * highest))
        self.identity.set_data([-reach, reach], [-reach, reach])
        self.canvas.forget()

    def png(self, setting: Setting, scale: torch.Tensor, integers: torch.Tensor, clipped: torch.Tensor) -> bytes:
        """Return the picture of a setting as the content of a .png file.

        Args:
            setting: The setting.
            scale: The scale of each channel, or of all weights; the staircase has their mean.
            integers: The integers that the weights are rounded to.
            clipped: Whether each weight is clipped.
        """
        mean = scale.mean().item()
        self.stairs.set_data(self.line, setting.integers(self.line / mean) * mean)
        for span in self.passing:
            span.set_x((setting.lowest - 0.5) * mean)
            span.set_width((setting.highest - setting.lowest + 1) * mean)
        boxes, colours, hatched = self._stacked(setting, integers, clipped)
        self.bars.set_verts(boxes)
        self.bars.set_facecolor(colours)
        framed = [box for box, is_hatched in zip(boxes, hatched, strict=True) if is_hatched]
        self.clipped.set_visible(bool(framed))
        if framed:
            self.clipped.set_path(Path.make_compound_path(*(Path([*box, box[0]], closed=True) for box in framed)))
        share = clipped.float().mean().item()
        self.hatched.set_text(f"hatched: clipped, {share:.1%}" if share else "no weight is clipped")
        return self.canvas.png(
            [*self.passing, self.identity, self.stairs, self.bars, self.clipped, self.note, self.hatched]
        )

    def _stacked(self, setting: Setting, integers: torch.Tensor, clipped: torch.Tensor) -> tuple[list, list, list]:
        """Return the boxes of the histogram, their colours, and whether they are hatched.

        A bin has a box for each level that its weights go to, one upon the other.
        """
        count = setting.highest - setting.lowest + 1
        kinds = 2 * (integers.flatten().numpy().astype(np.int64) - setting.lowest) + clipped.flatten().numpy()
        table = np.bincount(self._bins * 2 * count + kinds, minlength=BINS * 2 * count).reshape(BINS, 2 * count)
        tops = 100 * table.cumsum(1) / table.sum()
        boxes, colours, hatched = [], [], []
        for number, kind in zip(*table.nonzero(), strict=True):
            left, right, top = self.edges[number], self.edges[number + 1], tops[number, kind]
            bottom = tops[number, kind - 1] if kind else 0
            boxes.append([(left, bottom), (left, top), (right, top), (right, bottom)])
            level = kind // 2 + setting.lowest
            colours.append(TONES[int(np.sign(level))][(abs(level) + 1) % 2])
            hatched.append(bool(kind % 2))
        return boxes, colours, hatched


class ErrorPlot:
    """The error of the quantized weights against the scale, with a dot at the current scale and one at the best."""

    def __init__(self) -> None:
        """Create the figure."""
        figure = Figure(figsize=(3.6, 4.2))
        figure.subplots_adjust(left=0.2, right=0.96, top=0.9, bottom=0.12)
        self.axes = figure.subplots()
        style(self.axes)
        (self.line,) = self.axes.plot([1], [1], color=POSITIVE, linewidth=2)
        (self.best,) = self.axes.plot([1], [1], "o", markersize=9, markerfacecolor="white", markeredgecolor=INK)
        (self.today,) = self.axes.plot([1], [1], "o", markersize=8, color=NEGATIVE)
        self.labels = [
            self.axes.annotate(text, (1, 1), (0, 0), textcoords="offset points", bbox=BEHIND)
            for text in ("best", "this scale")
        ]
        self.axes.xaxis.label.set_fontsize("small")
        self.axes.set(yscale="log", title="the scale is a compromise", ylabel="relative squared error")
        self.canvas, self._drawn = Canvas(figure), None

    def show(self, factors: Sequence[float], errors: Sequence[float], base: str) -> None:
        """Choose the curve: the error at each of several scales, given as multiples of a base magnitude."""
        limits = 10 ** np.floor(np.log10(min(errors))), 10 ** np.ceil(np.log10(1.3 * max(errors)))
        if (base, limits) != self._drawn:
            unit = "mean magnitude" if base == "mean" else "(largest magnitude / highest integer)"
            self.axes.set(xlabel=f"scale / {unit}", xlim=(0, max(factors)), ylim=limits)
            self.canvas.forget()
            self._drawn = base, limits
        self.line.set_data(factors, errors)
        at = int(np.argmin(errors))
        self.best.set_data([factors[at]], [errors[at]])
        self.labels[0].xy, self.labels[0].xyann = (factors[at], errors[at]), (0, -16)
        self.labels[0].set_horizontalalignment("center")

    def png(self, factor: float, error: float) -> bytes:
        """Return the picture with a dot at the current scale, as the content of a .png file."""
        self.today.set_data([factor], [error])
        is_right = factor > sum(self.axes.get_xlim()) / 2
        self.labels[1].xy, self.labels[1].xyann = (factor, error), (-8 if is_right else 8, 8)
        self.labels[1].set_horizontalalignment("right" if is_right else "left")
        return self.canvas.png([self.line, self.best, self.today, *self.labels])
