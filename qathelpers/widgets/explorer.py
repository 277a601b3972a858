"""Change a quantizer's settings and see how it quantizes the weights of a trained layer."""

from dataclasses import astuple, replace

import ipywidgets as ipw
import torch
from torch import nn

from ..analysis.figure import Figure
from ..common.errors import CourseError
from ..nets import weights
from ..nets.architectures import spec_of
from ..results.recorded import recorded_net
from .explorer_plots import ErrorPlot, QuantizerPlot
from .preview import WithPreview
from .setting import PRESETS, Setting, relative_error
from .still import still
from .style import Widget, announced, button, picture, row, tick, tiles, unseen, wide

FACTORS = (0.1, 4.0, 0.05)  # the smallest and the largest factor of the scale, and the step between them
SAMPLE = 8192  # weights; the curve of the error against the scale is computed from so many of them
TILES = {  # the title of each number, its key in `summary`, and its format
    "levels in use": ("levels", "{:.0f}"),
    "relative squared error": ("relative squared error", "{:.2%}"),
    "zeros": ("zeros", "{:.1%}"),
    "receive a gradient": ("gradient passes", "{:.1%}"),
}


class QuantizerExplorer(WithPreview, Widget):
    """Choose a layer and a quantizer; see its staircase, which level each weight goes to, and the error of the scale.

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
        self._weights = _weights(recorded_net("PytorchNN") if net is None else net)
        self.layer = wide(ipw.Dropdown(options=list(self._weights), description="layer"))
        self.bits = wide(ipw.IntSlider(value=2, min=1, max=8, description="bits"))
        self.base = wide(ipw.Dropdown(options=["mean", "largest"], description="scale from"))
        low, high, step = FACTORS
        self.factor = wide(ipw.FloatSlider(value=1, min=low, max=high, step=step, description="times"))
        self.threshold = wide(ipw.FloatSlider(value=0.5, min=0, max=1.5, step=0.05, description="threshold"))
        self.narrow, self.per_channel = tick("narrow range"), tick("one scale per channel", False)
        self.best = button("best scale", "set the scale with the smallest error")
        self.presets = {name: button(name, sentence) for name, (_, sentence) in PRESETS.items()}
        self.picture, self.valley = picture(540, 280), picture(360, 250)
        self.tiles, self.text, self.note, self._unseen = ipw.HTML(), ipw.HTML(), ipw.HTML(), ipw.HTML()
        self._plot, self._errors = QuantizerPlot(), ErrorPlot()
        self._curve, self._shown, self.summary = (None, [], []), None, {}
        for control in self._controls:
            control.observe(lambda _: self._update(), names="value")
        for name, preset in self.presets.items():
            preset.on_click(lambda _, name=name: self._choose(name))
        self.best.on_click(lambda _: self._take_best())
        self._held = False
        super().__init__(
            [
                row(ipw.HTML("<b>Try</b>"), *self.presets.values()),
                self.note,
                row(self.layer, self.bits, self.base, self.factor, self.threshold),
                row(self.narrow, self.per_channel, self.best),
                self.tiles,
                row(self.picture, self.valley, align="flex-start"),
                self.text,
                self._unseen,
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

    def preview(self) -> Figure:
        """Return a still picture of the widget."""
        setting = self.setting
        chosen = f"{self.layer.value}: {setting.bits} bits, scale {setting.factor:g} times the {setting.base} magnitude"
        numbers = ", ".join(f"{title} {form.format(self.summary[key])}" for title, (key, form) in TILES.items())
        alt = _alt(self.summary, self.layer.value, min(self._curve[2]))
        return still("Quantizer explorer", [chosen, numbers], alt, [self.picture.value, self.valley.value])

    @property
    def _controls(self) -> tuple[ipw.Widget, ...]:
        return self.layer, self.bits, self.factor, self.base, self.threshold, self.narrow, self.per_channel

    def _choose(self, name: str) -> None:
        setting, sentence = PRESETS[name]
        self._held = True  # one picture for all controls together
        for control, value in zip(self._controls[1:], astuple(setting), strict=True):
            control.value = value
        self._held = False
        self._update()
        self.note.value = announced(sentence)

    def _take_best(self) -> None:
        _, factors, errors = self._curve
        self.factor.value = factors[errors.index(min(errors))]

    def _update(self) -> None:
        if self._held:
            return
        setting, weight = self.setting, self._weights[self.layer.value]
        self.threshold.disabled = self.narrow.disabled = setting.bits == 1
        self.note.value = ""
        scale = setting.scale(weight)
        scaled = weight / scale
        integers, passes = setting.integers(scaled), setting.passes(scaled)
        before, self.summary = self.summary, _summary(setting, weight, scale, integers, passes)
        if self._shown != self.layer.value:
            self._plot.show(weight)
            self._shown, before = self.layer.value, {}  # a change against another layer would say nothing
        self.picture.value = self._plot.png(setting, scale, integers, ~passes)
        self._draw_errors(setting, weight)
        self.tiles.value = _tiles(self.summary, before)
        self.text.value = announced(_sentence(self.summary, len(scale), setting))
        self._unseen.value = unseen(_alt(self.summary, self.layer.value, min(self._curve[2])))

    def _draw_errors(self, setting: Setting, weight: torch.Tensor) -> None:
        sample = _sample(weight)
        key = self.layer.value, replace(setting, factor=1.0)
        if self._curve[0] != key:
            low, high, step = FACTORS
            factors = [round(low + number * step, 2) for number in range(round((high - low) / step) + 1)]
            errors = [max(replace(setting, factor=factor).error(sample), 1e-12) for factor in factors]
            self._curve = key, factors, errors
            self._errors.show(factors, errors, setting.base)
        self.valley.value = self._errors.png(setting.factor, max(setting.error(sample), 1e-12))


def _weights(net: nn.Module) -> dict[str, torch.Tensor]:
    """Return the latent weights of each layer of `net` that can be shown."""
    if not isinstance(net, nn.Module):
        raise ValueError(f"net is a {type(net).__name__}: pass one net")
    modules = {name: m for name, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    latent = {name: weights.latent(module) for name, module in modules.items()}
    for name, weight in latent.items():
        if not weight.isfinite().all():
            raise CourseError(f"The weights of {name} are NaN or infinite: train the net again.")
    if not latent:
        raise CourseError(
            f"{spec_of(net).name} has no layer to show: pass a net with a Conv2d or a Linear layer (or one of "
            "Brevitas' classes of these)."
        )
    return latent


def _sample(weight: torch.Tensor) -> torch.Tensor:
    """Return at most `SAMPLE` weights, spread evenly over each output channel, as (outputs, weights)."""
    rows = weight.flatten(1)
    step = -(-rows.numel() // SAMPLE)
    return rows[:, :: min(step, rows.shape[1])]


def _summary(
    setting: Setting, weight: torch.Tensor, scale: torch.Tensor, integers: torch.Tensor, passes: torch.Tensor
) -> dict[str, float]:
    counts = torch.bincount((integers - setting.lowest).long().flatten())  # much faster than torch.unique
    return {
        "levels": int((counts > 0).sum()),
        "relative squared error": relative_error(weight, integers * scale),
        "zeros": (integers == 0).float().mean().item(),
        "gradient passes": passes.float().mean().item(),
        "scale": scale.mean().item(),
    }


def _tiles(summary: dict[str, float], before: dict[str, float]) -> str:
    numbers = {title: form.format(summary[key]) for title, (key, form) in TILES.items()}
    notes = {title: _change(form, summary[key], before.get(key)) for title, (key, form) in TILES.items()}
    return tiles(numbers, notes)


def _change(form: str, now: float, before: float | None) -> str:
    if before is None:
        return "\N{NO-BREAK SPACE}"
    if form.format(now) == form.format(before):
        return "as before"
    return f"{'▲' if now > before else '▼'} from {form.format(before)}"


def _sentence(summary: dict[str, float], scales: int, setting: Setting) -> str:
    scale = f"The scale is {summary['scale']:.4f}"
    if scales > 1:
        scale = f"The mean of the {scales} scales is {summary['scale']:.4f}; the staircase is drawn for this mean"
    low, high = setting.lowest, setting.highest
    return f"{scale}. The integers range from {low} to {high}" + (", without 0." if setting.bits == 1 else ".")


def _alt(summary: dict[str, float], layer: str, best: float) -> str:
    return (
        f"Staircase above the histogram of the latent weights of {layer}, coloured by level: {summary['levels']} "
        f"levels, {summary['zeros']:.0%} zeros, {1 - summary['gradient passes']:.1%} clipped. Beside it, the error "
        f"against the scale: {summary['relative squared error']:.3f} now, {best:.3f} at the best scale."
    )
