"""Turn a quantizer's knobs and see what becomes of a real layer's weights."""

import io
from dataclasses import dataclass

import ipywidgets as ipw
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from torch import nn

from .. import plots, results, weights

BINS = np.linspace(-4, 4, 81)
LINE = torch.linspace(-4, 4, 801)


@dataclass(frozen=True)
class Setting:
    """A quantizer: `bits`; the scale, `factor` times the weights' `base`; below `threshold` scales a weight is 0.

    `base` is "mean" (magnitude) or "largest" (which the highest integer then stands for); a scale for the tensor, or
    for each output channel; `narrow` leaves out the lowest integer.
    """

    bits: int = 2
    factor: float = 1.0
    base: str = "mean"
    threshold: float = 0.5
    narrow: bool = True
    per_channel: bool = False

    @property
    def highest(self) -> int:
        """The highest integer."""
        return max(2 ** (self.bits - 1) - 1, 1)

    @property
    def lowest(self) -> int:
        """The lowest integer."""
        return -self.highest if self.narrow or self.bits == 1 else -self.highest - 1

    def scale(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the scale(s) for a weight (outputs, ...), in a shape to divide it by."""
        rows = weight.flatten(1) if self.per_channel else weight.flatten().unsqueeze(0)
        size = rows.abs().mean(1) if self.base == "mean" else rows.abs().amax(1) / self.highest
        return (self.factor * size.clamp_min(1e-10)).view(-1, *[1] * (weight.ndim - 1))

    def integers(self, scaled: torch.Tensor) -> torch.Tensor:
        """Return the integers of weights that have been divided by their scale."""
        if self.bits == 1:
            return torch.where(scaled < 0, -1.0, 1.0)
        rounded = scaled.sign() * scaled.abs().round().clamp_min(1)
        return torch.where(scaled.abs() < self.threshold, 0.0, rounded.clamp(self.lowest, self.highest))

    def passes(self, scaled: torch.Tensor) -> torch.Tensor:
        """Return where a straight-through gradient that stops at the ends passes: weights that are not clipped."""
        return (scaled >= self.lowest - 0.5) & (scaled <= self.highest + 0.5)


class QuantizerExplorer(ipw.VBox):
    """Choose a layer of a net and a quantizer; see its staircase, the weights on it, error, zeros, gradient.

    `net` is the recorded float net unless you give your own. `setting` and `summary` are the current quantizer and what
    it does, for the next cell.
    """

    def __init__(self, net: nn.Module | None = None):
        """Make the explorer; raises CourseError when there is no recorded net."""
        net = net or results.recorded_net("PytorchNN")
        self._weights = {
            name: weights.latent(module)
            for name, module in net.named_modules()
            if isinstance(module, nn.Conv2d | nn.Linear)
        }
        self.layer = ipw.Dropdown(options=list(self._weights), description="layer")
        self.bits = ipw.IntSlider(value=2, min=1, max=8, description="bits")
        self.base = ipw.Dropdown(options=["mean", "largest"], description="scale from")
        self.factor = ipw.FloatSlider(value=1, min=0.1, max=4, step=0.05, description="times")
        self.threshold = ipw.FloatSlider(value=0.5, min=0, max=1.5, step=0.05, description="threshold")
        self.narrow = ipw.Checkbox(value=True, description="narrow range")
        self.per_channel = ipw.Checkbox(value=False, description="a scale per channel")
        self.picture = ipw.Image(value=b"", format="png", layout=ipw.Layout(height="306px", width="810px"))
        self.text = ipw.HTML()
        self._canvas = _Canvas()
        controls = (self.layer, self.bits, self.base, self.factor, self.threshold, self.narrow, self.per_channel)
        for control in controls:
            control.observe(lambda _: self._update(), names="value")
        super().__init__(
            [
                ipw.HBox([self.layer, self.bits]),
                ipw.HBox([self.base, self.factor, self.threshold]),
                ipw.HBox([self.narrow, self.per_channel]),
                self.picture,
                self.text,
            ]
        )
        self._update()

    @property
    def setting(self) -> Setting:
        """The quantizer that the controls show."""
        return Setting(
            self.bits.value,
            self.factor.value,
            self.base.value,
            self.threshold.value,
            self.narrow.value,
            self.per_channel.value,
        )

    def _update(self) -> None:
        setting, weight = self.setting, self._weights[self.layer.value]
        self.threshold.disabled = self.narrow.disabled = setting.bits == 1
        scale = setting.scale(weight)
        scaled = weight / scale
        integers = setting.integers(scaled)
        counts = torch.bincount((integers - setting.lowest).long().flatten())  # much faster than unique
        shares = counts / integers.numel()
        error = (integers * scale - weight).square().sum() / weight.square().sum()
        self.summary = {
            "levels": int((counts > 0).sum()),
            "error": error.item(),
            "zeros": shares[-setting.lowest].item() if len(shares) > -setting.lowest else 0.0,
            "gradient passes": setting.passes(scaled).float().mean().item(),
            "scale": scale.mean().item(),
        }
        self.picture.value = self._canvas.draw(setting, scaled, shares)
        self.text.value = _sentence(self.summary, len(scale))


def _sentence(summary: dict[str, float], scales: int) -> str:
    scale = f"a scale of {summary['scale']:.4f}" if scales == 1 else f"{scales} scales around {summary['scale']:.4f}"
    return (
        f"{summary['levels']} levels in use, {scale}. Error: {summary['error']:.1%} of the weights' energy. "
        f"Zeros: {summary['zeros']:.0%}. The straight-through gradient reaches {summary['gradient passes']:.0%} of the "
        "weights; the others are clipped."
    )


class _Canvas:
    """One figure of which only what moves is drawn anew: axes and labels would take longer than a knob may."""

    def __init__(self) -> None:
        figure = plots.Figure(figsize=(9, 3.4), dpi=90, layout="constrained")
        self.canvas = FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        left.plot(LINE, LINE, color="lightgray", linewidth=1)
        (self.stairs,) = left.plot(LINE, LINE, color=plots.COLOURS["TernaryNN"])
        self.passing = left.axvspan(-1, 1, color=plots.COLOURS["Int2NN"], alpha=0.15, label="gradient passes")
        left.set(xlabel="latent weight / scale", ylabel="integer", xlim=(-4, 4), ylim=(-4.5, 4.5))
        left.legend(loc="upper left", fontsize="small")
        self.latent = right.stairs(np.zeros(80), BINS, fill=True, color="lightgray", label="latent weights, x 5")
        self.levels = right.vlines([0], 0, 1, color=plots.COLOURS["TernaryNN"], linewidth=2, label="on a level")
        right.set(xlabel="latent weight / scale", ylabel="share of the weights", xlim=(-4, 4), ylim=(0, 1))
        right.legend(loc="upper left", fontsize="small")
        self.moving = (self.passing, self.stairs, self.latent, self.levels)
        for artist in self.moving:
            artist.set_animated(True)
        self.canvas.draw()
        self.background = self.canvas.copy_from_bbox(figure.bbox)

    def draw(self, setting: Setting, scaled: torch.Tensor, shares: torch.Tensor) -> bytes:
        """Return the picture of one setting, 4 scales to each side of 0, as a .png file's content."""
        self.stairs.set_data(LINE, setting.integers(LINE))
        start, end = max(setting.lowest - 0.5, -4), min(setting.highest + 0.5, 4)
        self.passing.set_x(start)
        self.passing.set_width(end - start)
        counts, _ = np.histogram(scaled.numpy().clip(-4, 4), BINS)
        self.latent.set_data(5 * counts / scaled.numel(), BINS)  # five times as high, or it would lie at the bottom
        segments = [[(level, 0), (level, share)] for level, share in enumerate(shares.tolist(), start=setting.lowest)]
        self.levels.set_segments([segment for segment in segments if segment[1][1] > 0])
        self.canvas.restore_region(self.background)
        for artist in self.moving:
            artist.axes.draw_artist(artist)
        file = io.BytesIO()
        Image.fromarray(np.asarray(self.canvas.buffer_rgba())[..., :3]).save(file, "png", compress_level=1)
        return file.getvalue()
