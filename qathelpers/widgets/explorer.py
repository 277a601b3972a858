"""Change a quantizer's settings and see how it quantizes the weights of a trained layer."""

import io
from dataclasses import dataclass

import ipywidgets as ipw
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from torch import nn

from ..analysis import plots
from ..common.errors import CourseError
from ..nets import weights
from ..nets.architectures import spec_of
from ..results.recorded import recorded_net

REACH = 4  # the plots show the weights from -4 to 4 scales
BINS = np.linspace(-REACH, REACH, 81)
LINE = torch.linspace(-REACH, REACH, 801)
ZOOM = 5  # the histogram of the latent weights is drawn 5 times as high: each bin has only a small share of them


@dataclass(frozen=True)
class Setting:
    """The settings of a weight quantizer.

    Args:
        bits: Number of bits; 1 means that only the signs remain.
        factor: The scale is `factor` times the magnitude that `base` names.
        base: "mean" for the mean magnitude of the weights; "largest" for a scale at which the highest integer stands
            for the largest magnitude.
        threshold: Weights whose magnitude is below `threshold` scales become 0.
        narrow: Whether to leave out the lowest integer, so that the levels are symmetric around 0.
        per_channel: Whether each output channel has a scale of its own.
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
        """Return the scale(s) of `weight` (outputs, ...), shaped so that `weight / scale` broadcasts."""
        rows = weight.flatten(1) if self.per_channel else weight.flatten().unsqueeze(0)
        magnitude = rows.abs().mean(1) if self.base == "mean" else rows.abs().amax(1) / self.highest
        return (self.factor * magnitude.clamp_min(1e-10)).view(-1, *[1] * (weight.ndim - 1))

    def integers(self, scaled: torch.Tensor) -> torch.Tensor:
        """Return the integers that `scaled` (weights divided by their scale) is rounded to."""
        if self.bits == 1:
            return torch.where(scaled < 0, -1.0, 1.0)
        rounded = scaled.sign() * scaled.abs().round().clamp_min(1)
        return torch.where(scaled.abs() < self.threshold, 0.0, rounded.clamp(self.lowest, self.highest))

    def passes(self, scaled: torch.Tensor) -> torch.Tensor:
        """Return where the straight-through gradient passes: at the weights that are not clipped."""
        return (scaled >= self.lowest - 0.5) & (scaled <= self.highest + 0.5)


class QuantizerExplorer(ipw.VBox):
    """Choose a layer and a quantizer; see its step function, the quantized weights, their error, zeros and gradient.

    `setting` has the current settings and `summary` (a dict of numbers) their effect, for use in the next cell.

    Args:
        net: The net whose layers are offered; by default the recorded float net.

    Raises:
        CourseError: If `net` has no convolution or linear layer, or has weights that are NaN or infinite. If `net` is
            not given and there is no recorded net.
        ValueError: If `net` is something else.
    """

    def __init__(self, net: nn.Module | None = None):
        """Create the widget for the layers of `net`."""
        if net is None:
            net = recorded_net("PytorchNN")
        if not isinstance(net, nn.Module):
            raise ValueError(f"net is a {type(net).__name__}: pass one net")
        self._weights = {
            name: weights.latent(module)
            for name, module in net.named_modules()
            if isinstance(module, nn.Conv2d | nn.Linear)
        }
        for name, weight in self._weights.items():
            if not weight.isfinite().all():
                raise CourseError(f"The weights of {name} are NaN or infinite: train the net again.")
        if not self._weights:
            raise CourseError(
                f"{spec_of(net).name} has no layer to show: pass a net with a Conv2d or a Linear layer (or one of "
                "Brevitas' classes of these)."
            )
        self.layer = ipw.Dropdown(options=list(self._weights), description="layer")
        self.bits = ipw.IntSlider(value=2, min=1, max=8, description="bits")
        self.base = ipw.Dropdown(options=["mean", "largest"], description="scale from")
        self.factor = ipw.FloatSlider(value=1, min=0.1, max=4, step=0.05, description="times")
        self.threshold = ipw.FloatSlider(value=0.5, min=0, max=1.5, step=0.05, description="threshold")
        self.narrow = ipw.Checkbox(value=True, description="narrow range")
        self.per_channel = ipw.Checkbox(value=False, description="one scale per channel")
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
        """The quantizer that the controls describe."""
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
        counts = torch.bincount((integers - setting.lowest).long().flatten())  # much faster than torch.unique
        shares = counts / integers.numel()
        error = (integers * scale - weight).square().sum() / weight.square().sum()
        self.summary = {
            "levels": int((counts > 0).sum()),
            "relative squared error": error.item(),
            "zeros": shares[-setting.lowest].item() if len(shares) > -setting.lowest else 0.0,
            "gradient passes": setting.passes(scaled).float().mean().item(),
            "scale": scale.mean().item(),
        }
        self.picture.value = self._canvas.draw(setting, scaled, shares)
        self.text.value = _sentence(self.summary, len(scale))


def _sentence(summary: dict[str, float], scales: int) -> str:
    scale = (
        f"one scale, {summary['scale']:.4f}" if scales == 1 else f"{scales} scales, on average {summary['scale']:.4f}"
    )
    return (
        f"{summary['levels']} levels in use; {scale}. Relative squared error: {summary['relative squared error']:.1%}. "
        f"Zeros: {summary['zeros']:.0%}. The straight-through gradient reaches {summary['gradient passes']:.0%} of the "
        "weights; the others are clipped and receive none."
    )


class _Canvas:
    """A figure that redraws only what changes.

    Drawing the axes and labels again at each step of a slider would be too slow to follow the mouse.
    """

    def __init__(self) -> None:
        figure = plots.Figure(figsize=(9, 3.4), dpi=90, layout="constrained")
        self.canvas = FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        left.plot(LINE, LINE, color="lightgray", linewidth=1)
        (self.stairs,) = left.plot(LINE, LINE, color=plots.COLOURS["TernaryNN"])
        self.passing = left.axvspan(-1, 1, color=plots.COLOURS["Int2NN"], alpha=0.15, label="gradient passes")
        left.set(
            xlabel="latent weight / scale", ylabel="integer", xlim=(-REACH, REACH), ylim=(-REACH - 0.5, REACH + 0.5)
        )
        left.legend(loc="upper left", fontsize="small")
        self.latent = right.stairs(
            np.zeros(len(BINS) - 1), BINS, fill=True, color="lightgray", label=f"latent weights, x {ZOOM}"
        )
        self.levels = right.vlines([0], 0, 1, color=plots.COLOURS["TernaryNN"], linewidth=2, label="quantized weights")
        right.set(xlabel="latent weight / scale", ylabel="share of the weights", xlim=(-REACH, REACH), ylim=(0, 1))
        right.legend(loc="upper left", fontsize="small")
        self.moving = (self.passing, self.stairs, self.latent, self.levels)
        for artist in self.moving:
            artist.set_animated(True)
        self.canvas.draw()
        self.background = self.canvas.copy_from_bbox(figure.bbox)

    def draw(self, setting: Setting, scaled: torch.Tensor, shares: torch.Tensor) -> bytes:
        """Return the figure of `setting`, applied to `scaled` weights, as the content of a .png file."""
        self.stairs.set_data(LINE, setting.integers(LINE))
        start, end = max(setting.lowest - 0.5, -REACH), min(setting.highest + 0.5, REACH)
        self.passing.set_x(start)
        self.passing.set_width(end - start)
        counts, _ = np.histogram(scaled.numpy().clip(-REACH, REACH), BINS)
        self.latent.set_data(ZOOM * counts / scaled.numel(), BINS)
        segments = [[(level, 0), (level, share)] for level, share in enumerate(shares.tolist(), start=setting.lowest)]
        self.levels.set_segments([segment for segment in segments if segment[1][1] > 0])
        self.canvas.restore_region(self.background)
        for artist in self.moving:
            artist.axes.draw_artist(artist)
        file = io.BytesIO()
        Image.fromarray(np.asarray(self.canvas.buffer_rgba())[..., :3]).save(file, "png", compress_level=1)
        return file.getvalue()
