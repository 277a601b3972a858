"""What a panel shows of a training: its title, its progress, its curves and its weights."""

import html
import os
import time

import ipywidgets as ipw
import numpy as np
import traitlets
from torch import nn

from ... import nets
from ...common import settings
from ...common.words import counted
from ...data.dataset import TITLES, Dataset
from ...nets import weights
from ..style import announced, chart, row
from . import svg
from .look import Look, Observer
from .settings import duration
from .training import FINISHED, RUNNING, Events, Training, place

MAX_LINES = 6  # of the log
MAX_EARLIER = 3  # runs that stay as thin curves
BUDGET = 0.06  # of the time of a training that drawing may take


class Monitor(ipw.VBox):
    """Shows one training after the other. Several panels of a kernel can show the same monitor.

    Its trait `phase` is "running", "stopped" or "finished", or an empty string before the first training.
    """

    phase = traitlets.Unicode("")

    def __init__(self, guessing: float):
        """Create a monitor that shows no training yet; `guessing` is the accuracy of guessing, 0 to 1."""
        self.training: Training | None = None
        self._guessing, self._observer, self._looks, self._lines = guessing, None, [], []
        self._began, self._spent, self._reach = 0.0, 0.0, 0.0
        self.title, self.status, self.left = ipw.HTML(), ipw.HTML(), ipw.HTML()
        self.progress = ipw.FloatProgress(value=0, min=0, max=1, layout=ipw.Layout(width="220px"))
        self.curves, self.histogram = chart(), chart()
        self.levels, self.lines, self.dead = ipw.HTML(), ipw.HTML(), ipw.HTML()
        self.details = ipw.Accordion([self.levels, self.lines], selected_index=None)
        self.details.set_title(0, "Levels of each layer")
        self.details.set_title(1, "Log")
        self._charts = row(self.curves, self.histogram, align="flex-start", gap="8px 24px")
        super().__init__(
            [self.title, self.status, row(self.progress, self.left), self._charts, self.dead, self.details]
        )
        self._show_parts(False)
        self.say("No run yet: press Train.", "quiet")

    def say(self, text: str, kind: str = "") -> None:
        """Show a sentence; `kind` is "", "error" or "quiet"."""
        self.status.value = announced(text, kind)

    def start(self, training: Training, note: str = "") -> None:
        """Show a training from its very beginning, and start it; `note` is a sentence to show while it runs."""
        resumes = training is self.training and training.finished_epochs > 0
        if not resumes:
            self._forget()
        self.training, self._note = training, f" {note}"
        self._began, self._spent = time.monotonic(), 0.0
        self.progress.value = training.finished_epochs / training.epochs if resumes else 0
        self.left.value = ""
        self.phase = RUNNING
        self._show_title()
        self._draw_curves()
        self._show_parts(True)
        self.say("Starting ...")
        LIVE[:] = [*(one for one in LIVE if one is not self), self]
        training.start(Events(self._on_begin, self._on_progress, self._on_epoch, self._on_line, self._on_end))

    def _forget(self) -> None:
        """Show nothing of the last training any more, except its curve among the earlier ones."""
        if self.training is not None and self.training.finished_epochs:
            remember(self.training)
        self._looks, self._lines, self._reach, self._observer = [], [], 0.0, None
        self.levels.value = self.lines.value = self.dead.value = self.histogram.value = ""

    def _on_begin(self) -> None:
        training = self.training
        self._observer = Observer(training.net, self._observer and self._observer.signs)
        if not self._looks:
            self._looks.append(self._observer.look(training.net, 0))
        self.say(f"Training {training.label}.{self._note}")
        self._show_title()
        self._draw_weights()

    def _on_progress(self, done: float, left: float | None) -> None:
        self.progress.value = done
        about = "" if left is None else f", about {duration(left)} left"
        self.left.value = f"{done:.0%} done{about}"

    def _on_epoch(self) -> None:
        start = time.perf_counter()
        self._looks.append(self._observer.look(self.training.net, self.training.finished_epochs))
        self._show_title()
        if self._spent <= BUDGET * (time.monotonic() - self._began):
            self._draw()
        self._spent += time.perf_counter() - start

    def _on_line(self, line: str) -> None:
        self._lines = [*self._lines, line][-MAX_LINES:]
        self.lines.value = f'<pre class="qat-scroll">{html.escape(chr(10).join(self._lines))}</pre>'

    def _on_end(self) -> None:
        training = self.training
        try:
            self._show_title()
            self._draw()
            if training.net is not None:
                self.levels.value = levels_table(training.net)
            self._say_end(training)
        finally:
            self.phase = training.phase

    def _say_end(self, training: Training) -> None:
        kept, epochs = training.finished_epochs, training.epochs
        self.left.value = ""
        self.progress.value = kept / epochs if training.history is not None else 0
        if training.error:
            self.say(training.error, "error")
        elif training.phase == FINISHED:
            held_out, accuracy = training.history.held_out, training.history.test_acc
            self.say(
                f"Done: {training.label} has a {held_out} accuracy of {accuracy:.4f} after "
                f"{counted(epochs, 'epoch')}. Its files are {training.name}.* in {settings.short(training.folder)}."
            )
        elif kept:
            self.say(
                f"Stopped: {kept} of {counted(epochs, 'epoch')} of {training.label} are finished and kept. Resume "
                "continues this run with its own settings."
            )
        else:
            self.say(f"Stopped before the first of {counted(epochs, 'epoch')} was finished, so nothing is kept.")

    def _show_parts(self, shown: bool) -> None:
        for part in (self.title, self.progress, self._charts, self.details):
            part.layout.display = "" if shown else "none"

    def _show_title(self) -> None:
        training, chosen = self.training, self.training.settings
        parts = [
            chosen.arch,
            f"epoch {training.finished_epochs} of {training.epochs}",
            f"{training.images:,} images of {data_title(training.dataset)}",
            f"batch size {chosen.batch_size}",
            f"seed {chosen.seed}",
        ]
        heading = f'<span class="qat-title">{html.escape(training.label)}</span> · {html.escape(" · ".join(parts))}'
        self.title.value = f'<div class="qat-run"><div>{heading}</div>{self._number()}</div>'

    def _number(self) -> str:
        if not self.training.finished_epochs:
            return '<div class="qat-quiet">no epoch is finished yet</div>'
        accuracies = self.training.history["test_acc"]
        best = f"best so far {max(accuracies):.1%}, guessing {self._guessing:.1%}"
        return (
            f'<div><span class="qat-number">{accuracies[-1]:.1%}</span> {self.training.history.held_out} accuracy '
            f'<span class="qat-quiet">({best})</span></div>'
        )

    def _draw(self) -> None:
        self._draw_curves()
        self._draw_weights()

    def _draw_curves(self) -> None:
        own = curve_of(self.training)
        curves = [*(curve for curve in EARLIER.get(_key(self.training), []) if curve.label != own.label), own]
        held_out = self.training.dataset.held_out
        drawn = svg.accuracy(curves, self.training.epochs, self._guessing, held_out)
        entries = [_legend_entry(curve, curve is own) for curve in reversed(curves)]
        split = f'<span class="qat-quiet">solid: {held_out}, dashed: training</span>'
        self.curves.value = f'{drawn}<div class="qat-legend">{"".join(entries)}{split}</div>'

    def _draw_weights(self) -> None:
        if not self._looks:
            return
        look, name = self._looks[-1], self.training.settings.scheme.name
        reach = np.abs(look.latent).max(initial=0)
        if look.quantized is not None:
            reach = max(reach, np.abs(look.quantized).max(initial=0))
        self._reach = max(self._reach, svg.rounded_up(float(reach)))  # so that the axis does not jump
        drawn = svg.histogram(look.latent, look.quantized, self._reach, look.layer, svg.shade_of(name))
        self.histogram.value = f"<div>{_histogram_title(look)}</div>{drawn}{self._small_charts(name)}"
        self.dead.value = "".join(announced(sentence, "error") for sentence in look.dead)

    def _small_charts(self, name: str) -> str:
        epochs, parts = self.training.epochs, []
        for title, column, shade in (
            ("weights that are zero", "zeros", svg.ZERO),
            ("signs flipped since the last epoch", "flipped", svg.shade_of(name)),
        ):
            values = {look.epoch: getattr(look, column) for look in self._looks if getattr(look, column) is not None}
            if values:
                now = list(values.values())[-1]
                parts.append(f"<div><b>{now:.1%}</b> {title}</div>{svg.small(values, epochs, shade, title)}")
        return "".join(parts)


# What the panels of this kernel share: the monitors that have shown a training, and the curves of the last runs.
LIVE: list[Monitor] = []
EARLIER: dict[tuple, list[svg.Curve]] = {}


def running_monitor() -> Monitor | None:
    """Return the monitor of a training that runs in this kernel, the latest one, or None."""
    return next((one for one in reversed(LIVE) if one.training.running), None)


def stopped_monitor(dataset: Dataset) -> Monitor | None:
    """Return the latest monitor if it shows a stopped run on these data whose epochs are still on disk, else None."""
    if not LIVE:
        return None
    training = LIVE[-1].training
    is_same = training.dataset.name == dataset.name and len(training.dataset.train_labels) == len(dataset.train_labels)
    resume = place(training).with_name(f"{place(training).name}.resume.safetensors")
    return LIVE[-1] if training.resumable and is_same and os.path.exists(resume) else None


def remember(training: Training) -> None:
    """Keep the curve of a run, so that it can be compared with the next ones on the same data."""
    curve = curve_of(training)
    kept = [one for one in EARLIER.get(_key(training), []) if one.label != curve.label]
    EARLIER[_key(training)] = [*kept, curve][-MAX_EARLIER:]


def curve_of(training: Training) -> svg.Curve:
    """Return the accuracies of a training so far."""
    label = f"{training.label} ({training.settings.arch}, {training.images:,} images)"
    history = training.history
    columns = ([], []) if history is None else (history["train_acc"].tolist(), history["test_acc"].tolist())
    return svg.Curve(training.settings.scheme.name, label, *columns)


def levels_table(net: nn.Module) -> str:
    """Return what `weights.report` says about `net` as an HTML table, or a sentence if `net` is a float net."""
    layers = [weights.describe(name, layer) for name, layer in weights.quantized_layers(net).items()]
    if not layers:
        return f"{html.escape(nets.spec_of(net).name)} has no quantized weights: its layers compute with 32-bit floats."
    head = "".join(f"<th>{column}</th>" for column in ("layer", *weights.COLUMNS))
    rows = [(layer.name, f"{layer.count:,}", len(layer.levels), f"{layer.zeros:.0%}", str(layer)) for layer in layers]
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in one)}</tr>" for one in rows)
    return f'<div class="qat-scroll"><table><tr>{head}</tr>{body}</table></div>'


def data_title(dataset: Dataset) -> str:
    """Return the name of a data set as the title shows it."""
    return TITLES.get(dataset.name, dataset.name).split(",")[0]


def _key(training: Training) -> tuple:
    return training.dataset.name, len(training.dataset.classes), training.dataset.held_out


def _legend_entry(curve: svg.Curve, is_current: bool) -> str:
    shade, width = svg.shade_of(curve.name), 4 if is_current else 2
    sample = f'<svg viewBox="0 0 26 8"><path d="M0 4H26" stroke="{shade}" stroke-width="{width}"/></svg>'
    text = f"{curve.label}: {curve.test[-1]:.1%}" if curve.test else curve.label
    text = html.escape(text)
    return f"<span>{sample}{f'<b>{text}</b>' if is_current else text}</span>"


def _histogram_title(look: Look) -> str:
    what = "no levels: its weights are floats" if look.quantized is None else "lines: levels, dashed: thresholds"
    when = f"after epoch {look.epoch}" if look.epoch else "before the training"
    return f'Latent weights of <b>{html.escape(look.layer)}</b> {when} <span class="qat-quiet">({what})</span>'
