"""Train a net by pressing a button, watch it, stop it, go on."""

import html
import threading
import time
from dataclasses import replace
from pathlib import Path

import ipywidgets as ipw
from torch import nn

from .. import hardware, nets, plots, results, weights
from ..checkpoints import Files, stem
from ..data import Data
from ..errors import MAX_SEED, CourseError
from ..files import check_writable
from ..history import History
from ..training import fit

SECONDS_BETWEEN_UPDATES = 0.2  # of the progress bar: a message to the browser for every batch would be a flood
MAX_LINES = 6


class TrainingPanel(ipw.VBox):
    """Choose a net, train it in the background, watch its curves and levels; stop it and resume it.

    The training runs in a thread of its own, so that the notebook stays usable. `history` and `net` are what came out,
    or how far it has come. Files are saved where `folder` says, as `fit` does.
    """

    def __init__(self, data: Data, name: str = "TernaryNN", arch: str = "convnet", epochs: int = 3, share: float = 1.0):
        """Make the panel for `data`; the other arguments are what it shows at first."""
        self.data, self.history, self.net = data, None, None
        self._stop, self._thread, self._last_update = threading.Event(), None, 0.0
        self.name = ipw.Dropdown(options=[key for key in nets.SCHEMES if "-" not in key], value=name, description="net")
        self.arch = ipw.Dropdown(options=list(nets.ARCHITECTURES), value=arch, description="architecture")
        self.epochs = ipw.IntText(value=epochs, description="epochs n")
        self.batch_size = ipw.Dropdown(options=[64, 128, 256, 512, 1024], value=256, description="batch size")
        self.share = ipw.FloatSlider(share, min=0.01, max=1, step=0.01, readout_format=".0%", description="of the data")
        self.seed = ipw.IntText(value=0, description="seed")
        self.train = ipw.Button(description="Train", button_style="primary", tooltip="train from the start")
        self.stop = ipw.Button(description="Stop", disabled=True, tooltip="stop; the finished epochs are kept")
        self.resume = ipw.Button(description="Resume", disabled=True, tooltip="go on where it was stopped")
        self.progress = ipw.FloatProgress(value=0, min=0, max=1, layout=ipw.Layout(width="300px"))
        self.status = ipw.HTML("Not trained yet.")
        self.curves = ipw.Image(value=b"", format="png", layout=ipw.Layout(height="306px", width="810px"))
        self.curves.layout.visibility = "hidden"
        self.levels = ipw.HTML()
        self.lines = ipw.HTML()
        self.train.on_click(lambda _: self._start(resume=False))
        self.resume.on_click(lambda _: self._start(resume=True))
        self.stop.on_click(lambda _: self._stop_training())
        super().__init__(
            [
                ipw.HBox([self.name, self.arch, self.epochs]),
                ipw.HBox([self.batch_size, self.share, self.seed]),
                ipw.HBox([self.train, self.stop, self.resume, self.progress]),
                self.status,
                self.curves,
                self.levels,
                self.lines,
            ]
        )

    @property
    def running(self) -> bool:
        """Whether a training is under way."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def folder(self) -> Path:
        """Where the run's files go: not among those of `load_or_train`, which a run on little data must not replace."""
        return results.run_folder(self.data.name, self.arch.value) / "panel"

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the training has ended, at most `seconds`, and return whether it has."""
        if self._thread is not None:
            self._thread.join(seconds)
        return not self.running

    def _start(self, resume: bool) -> None:
        if self.running:
            return
        try:
            self._check()
        except CourseError as error:
            self._show_status(str(error), error=True)
            return
        self._stop.clear()
        self._lines, self._began = [], time.monotonic()
        self._set_buttons(running=True)
        self._show_status("Starting ...")
        self._thread = threading.Thread(target=self._run, args=(resume,), daemon=True)
        self._thread.start()

    def _check(self) -> None:
        if not 1 <= self.epochs.value <= 10_000:
            raise CourseError(f"The epochs n are {self.epochs.value}: choose a whole number from 1 to 10,000.")
        if not 0 <= self.seed.value <= MAX_SEED:
            raise CourseError(f"The seed is {self.seed.value}: choose a whole number from 0 to {MAX_SEED:,}.")

    def _stop_training(self) -> None:
        self._stop.set()
        self._show_status("Stopping ...")

    def _run(self, resume: bool) -> None:
        try:
            self._train(resume)
        except Exception as error:  # whatever it is, a thread that dies in silence would look like a slow one
            sentence = str(error) if isinstance(error, CourseError) else f"{type(error).__name__}: {error}"
            self._show_status(sentence, error=True)
        finally:
            self._set_buttons(running=False)

    def _train(self, resume: bool) -> None:
        seed, share = self.seed.value, self.share.value
        data = self.data.take(
            *(max(1, round(share * n)) for n in (len(self.data.train_labels), len(self.data.test_labels)))
        )
        net = nets.build(self.name.value, self.arch.value, seed=seed)
        files = Files(self.folder, stem({"name": net.name, "seed": seed}))
        if not resume:
            check_writable(files.folder)
            with files.lock():  # what another process is training is not ours to forget
                files.forget()
        recipe = replace(net.recipe, batch_size=self.batch_size.value)
        self.net = net
        self.history = fit(
            net,
            data,
            self.epochs.value,
            recipe=recipe,
            seed=seed,
            device=hardware.best_device(),
            folder=self.folder,
            on_epoch=self._after_epoch,
            on_batch=self._after_batch,
            say=self._say,
        )
        self._show_end(self.history, net)

    def _after_batch(self, share: float) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt
        now = time.monotonic()
        if now - self._last_update < SECONDS_BETWEEN_UPDATES and share < 1:
            return
        self._last_update, self.progress.value = now, share
        left = (now - self._began) * (1 - share) / share
        self._show_status(f"Training, {share:.0%} done, about {_minutes(left)} left.")

    def _after_epoch(self, history: History) -> None:
        self.history = history
        self.curves.value = plots.curves([history], history.card["epochs"]).png()
        self.curves.layout.visibility = "visible"
        self.levels.value = levels_table(self.net)
        if self._stop.is_set():
            raise KeyboardInterrupt

    def _say(self, line: str) -> None:
        self._lines = [*self._lines, line][-MAX_LINES:]
        self.lines.value = f"<pre>{html.escape(chr(10).join(self._lines))}</pre>"

    def _show_end(self, history: History, net: nn.Module) -> None:
        total = history.card["epochs"]
        if len(history) < total:
            self._show_status(f"Stopped; {len(history)} of {total} epochs are kept. Resume goes on from there.")
            return
        self.progress.value = 1
        accuracy = history["test_acc"][-1]
        self._show_status(f"Done: {net.name} has a test accuracy of {accuracy:.4f} after {total} epochs.")

    def _show_status(self, text: str, error: bool = False) -> None:
        colour = "#b00020" if error else "inherit"
        self.status.value = f'<span style="color: {colour}">{html.escape(text)}</span>'

    def _set_buttons(self, running: bool) -> None:
        stopped = self.history is not None and len(self.history) < self.history.card["epochs"]
        self.train.disabled, self.stop.disabled = running, not running
        self.resume.disabled = running or not stopped
        for control in (self.name, self.arch, self.epochs, self.batch_size, self.share, self.seed):
            control.disabled = running


def levels_table(net: nn.Module) -> str:
    """Return the levels and zeros of the first layers of `net` as an HTML table, or a sentence for a float net."""
    layers = weights.quantized_layers(net)
    if not layers:
        return f"{net.name} has no quantized weights: its layers compute with 32-bit floats."
    reports = [weights.describe(name, layer) for name, layer in layers.items()]
    cells = [("layer", "levels", "zeros"), *((r.name, str(r), f"{r.zeros:.0%}") for r in reports)]
    rows = ("".join(f"<td style='padding: 0 12px 0 0'>{html.escape(cell)}</td>" for cell in row) for row in cells)
    return f"<table style='line-height: 1.3'>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
