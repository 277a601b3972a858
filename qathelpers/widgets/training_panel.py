"""Train a net by pressing a button, watch it learn, stop it and resume it."""

import html
import threading
import time
from dataclasses import replace
from numbers import Real
from pathlib import Path

import ipywidgets as ipw
import pandas as pd
from torch import nn

from .. import nets
from ..analysis import plots
from ..common.errors import MAX_SEED, CourseError, check_whole
from ..data.dataset import Dataset
from ..nets import weights
from ..results.runs import build_for, run_folder
from ..training import loop
from ..training.history import History
from ..training.run import Run

SECONDS_BETWEEN_UPDATES = 0.2  # of the progress bar: one message per batch would flood the browser
MAX_EPOCHS = 10_000
MAX_LINES = 6  # of the log


class TrainingPanel(ipw.VBox):
    """Choose a net and train it in the background; watch its curves and levels, stop it and resume it.

    The training runs in a thread of its own, so the notebook stays usable. `net` and `history` are the net and its
    history so far, for use in the next cell. The run is saved in `folder`.

    The panel offers what is in `SCHEMES` and `ARCHITECTURES` when it is created, including entries of your own.

    Args:
        dataset: The data set to train on.
        name: The net that is selected at first: the name of a scheme, or a `Scheme` of your own.
        arch: Name of the architecture that is selected at first, such as "convnet" or "convnet-x0.5".
        epochs: Number of epochs that is entered at first.
        share: Share of the images that is selected at first, from 0.01 to 1.

    Raises:
        CourseError: If the data set is not valid (see `Dataset.check`), or if there is no such scheme or architecture.
        ValueError: If an argument has the wrong type or is out of range.
    """

    def __init__(
        self,
        dataset: Dataset,
        name: str | nets.Scheme = "TernaryNN",
        arch: str = "convnet",
        epochs: int = 3,
        share: float = 1.0,
    ):
        """Create the panel; nothing is trained before Train is pressed."""
        if not isinstance(dataset, Dataset):
            raise ValueError(f"dataset is a {type(dataset).__name__}: pass what `data.load` returns")
        dataset.check()
        check_whole("epochs", epochs, 1, MAX_EPOCHS)
        if not isinstance(share, Real) or not 0.01 <= share <= 1:
            raise ValueError(f"share must be a number from 0.01 to 1; got {share!r}")
        self.dataset, self.history, self.net = dataset, None, None
        self._stop_requested, self._thread, self._last_update = threading.Event(), None, 0.0
        self._schemes, selected = _schemes_with(name)
        archs = _archs_with(arch)
        self.name = ipw.Dropdown(options=list(self._schemes), value=selected, description="net")
        self.arch = ipw.Dropdown(options=archs, value=arch, description="architecture")
        self.epochs = ipw.IntText(value=epochs, description="epochs")
        self.batch_size = ipw.Dropdown(options=[64, 128, 256, 512, 1024], value=256, description="batch size")
        self.share = ipw.FloatSlider(share, min=0.01, max=1, step=0.01, readout_format=".0%", description="data used")
        self.seed = ipw.IntText(value=0, description="seed")
        self.train = ipw.Button(description="Train", button_style="primary", tooltip="train from the beginning")
        self.stop = ipw.Button(description="Stop", disabled=True, tooltip="stop the training; finished epochs are kept")
        self.resume = ipw.Button(description="Resume", disabled=True, tooltip="continue after the last finished epoch")
        self.progress = ipw.FloatProgress(value=0, min=0, max=1, layout=ipw.Layout(width="300px"))
        self.status = ipw.HTML("Not trained yet.")
        self.curves = ipw.Image(value=b"", format="png", layout=ipw.Layout(height="306px", width="810px"))
        self.curves.layout.visibility = "hidden"
        self.levels = ipw.HTML()
        self.lines = ipw.HTML()
        self.train.on_click(lambda _: self._start(resume=False))
        self.resume.on_click(lambda _: self._start(resume=True))
        self.stop.on_click(lambda _: self._request_stop())
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
        """Whether a training is running."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def folder(self) -> Path:
        """Where the run is saved: not beside the runs of `load_or_train`, which a quick try must not replace."""
        return run_folder(self.dataset.name, self.arch.value) / "panel"

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the training has ended, or at most `seconds`; return whether it has ended."""
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
        self._stop_requested.clear()
        self._lines, self._began = [], time.monotonic()
        self._set_buttons(running=True)
        self._show_status("Starting ...")
        self._thread = threading.Thread(target=self._run, args=(resume,), daemon=True)
        self._thread.start()

    def _check(self) -> None:
        if not 1 <= self.epochs.value <= MAX_EPOCHS:
            raise CourseError(f"epochs is {self.epochs.value}: choose a whole number from 1 to {MAX_EPOCHS:,}.")
        if not 0 <= self.seed.value <= MAX_SEED:
            raise CourseError(f"seed is {self.seed.value}: choose a whole number from 0 to {MAX_SEED:,}.")

    def _request_stop(self) -> None:
        self._stop_requested.set()
        self._show_status("Stopping ...")

    def _run(self, resume: bool) -> None:
        try:
            self._train(resume)
        except Exception as error:  # a thread that ended without a message would look like a slow training
            sentence = str(error) if isinstance(error, CourseError) else f"{type(error).__name__}: {error}"
            self._show_status(sentence, error=True)
        finally:
            self._set_buttons(running=False)

    def _train(self, resume: bool) -> None:
        seed, share = self.seed.value, self.share.value
        counts = (len(self.dataset.train_labels), len(self.dataset.test_labels))
        dataset = self.dataset.take(*(max(1, round(share * count)) for count in counts))
        net = build_for(dataset, self._schemes[self.name.value], self.arch.value, seed)
        recipe = replace(net.spec.recipe, batch_size=self.batch_size.value)
        run = Run.plan(net, dataset, self.epochs.value, recipe=recipe, seed=seed, folder=self.folder)
        if not resume:
            with run.lock():  # if another process is training this run, its resume file must stay
                run.forget()
        self.net = net
        self.history = loop.train(
            run, net, dataset, on_epoch=self._after_epoch, on_batch=self._after_batch, log=self._log
        )
        self._show_end(self.history)

    def _after_batch(self, done: float) -> None:
        if self._stop_requested.is_set():
            raise KeyboardInterrupt
        now = time.monotonic()
        if now - self._last_update < SECONDS_BETWEEN_UPDATES and done < 1:
            return
        self._last_update, self.progress.value = now, done
        left = (now - self._began) * (1 - done) / done
        self._show_status(f"Training: {done:.0%} done, about {_duration(left)} left.")

    def _after_epoch(self, history: History) -> None:
        self.history = history
        self.curves.value = plots.curves([history], history.config["epochs"]).png()
        self.curves.layout.visibility = "visible"
        self.levels.value = levels_table(self.net)
        if self._stop_requested.is_set():
            raise KeyboardInterrupt

    def _log(self, line: str) -> None:
        self._lines = [*self._lines, line][-MAX_LINES:]
        self.lines.value = f"<pre>{html.escape(chr(10).join(self._lines))}</pre>"

    def _show_end(self, history: History) -> None:
        epochs = history.config["epochs"]
        if len(history) < epochs:
            self._show_status(f"Stopped: {len(history)} of {epochs} epochs are finished. Press Resume to continue.")
            return
        self.progress.value = 1
        accuracy = history.test_acc
        self._show_status(f"Done: {history.name} has a test accuracy of {accuracy:.4f} after {epochs} epochs.")

    def _show_status(self, text: str, error: bool = False) -> None:
        colour = "#b00020" if error else "inherit"
        self.status.value = f'<span style="color: {colour}">{html.escape(text)}</span>'

    def _set_buttons(self, running: bool) -> None:
        stopped = self.history is not None and len(self.history) < self.history.config["epochs"]
        self.train.disabled, self.stop.disabled = running, not running
        self.resume.disabled = running or not stopped
        for control in (self.name, self.arch, self.epochs, self.batch_size, self.share, self.seed):
            control.disabled = running


def levels_table(net: nn.Module) -> str:
    """Return what `weights.report` says about `net` as an HTML table, or a sentence if `net` is a float net."""
    report = weights.report(net)
    if report.empty:
        return f"{html.escape(nets.spec_of(net).name)} has no quantized weights: its layers compute with 32-bit floats."
    with pd.option_context("display.max_colwidth", None):
        return report.to_html(
            border=0, index_names=False, formatters={"weights": "{:,}".format, "zeros": "{:.0%}".format}
        )


def _schemes_with(chosen: str | nets.Scheme) -> tuple[dict[str, nets.Scheme], str]:
    """Return the schemes to offer, by the name that is shown, and the name of `chosen`, which is one of them.

    The variants with 8-bit first and last layers would double the list, so a variant is only offered if it is chosen.
    """
    for name, scheme in nets.SCHEMES.items():
        if not isinstance(scheme, nets.Scheme):
            raise CourseError(f"SCHEMES[{name!r}] is a {type(scheme).__name__}: register a Scheme.")
    offered = {str(name): scheme for name, scheme in nets.SCHEMES.items() if not _is_variant(name)}
    if isinstance(chosen, nets.Scheme):
        if nets.SCHEMES.get(chosen.name, chosen) != chosen:
            raise CourseError(f"The course already has a scheme {chosen.name}: give yours another name.")
        return offered | {chosen.name: chosen}, chosen.name
    if not isinstance(chosen, str) or chosen not in nets.SCHEMES:
        raise CourseError(f"There is no net {chosen!r}: pass a Scheme, or choose one of {', '.join(offered)}.")
    return offered | {chosen: nets.SCHEMES[chosen]}, chosen


def _is_variant(name: str) -> bool:
    return str(name).endswith(nets.FIRST_LAST_SUFFIX)


def _archs_with(chosen: str) -> list[str]:
    """Return the names of the architectures to offer, with `chosen`, which can be a wider or narrower one."""
    for name, preset in nets.ARCHITECTURES.items():
        if not isinstance(preset, nets.Architecture):
            raise CourseError(
                f"ARCHITECTURES[{name!r}] is a {type(preset).__name__}: register an Architecture, such as "
                "Architecture(MyNet)."
            )
    if not isinstance(chosen, str):
        raise CourseError(f"arch is a {type(chosen).__name__}: pass the name of an entry of ARCHITECTURES.")
    nets.architecture(chosen)
    return list(dict.fromkeys([*map(str, nets.ARCHITECTURES), chosen]))


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
