"""Train a net by pressing a button, watch it learn, stop it and resume it."""

import time
from pathlib import Path

import ipywidgets as ipw
from torch import nn

from .. import nets
from ..analysis.figure import Figure
from ..common.errors import CourseError, translated
from ..common.words import counted
from ..data.dataset import Dataset
from ..training.history import History
from .panel.estimate import Estimates
from .panel.form import Form
from .panel.messages import handle_pending
from .panel.monitor import LIVE, Monitor, running_monitor, stopped_monitor
from .panel.still import still
from .panel.training import Training, new_training, panel_folder, place
from .preview import WithPreview
from .style import Widget, row

SECONDS_BETWEEN_MESSAGES = 0.05  # while a cell waits for the training
DOUBLE_CLICK = 0.5  # seconds: the second click must not press the button that has just taken the place of the first
ESTIMATES = Estimates()  # all panels of a kernel share what they know about training times


class TrainingPanel(WithPreview, Widget):
    """Choose a net and train it in the background; watch its curves and weights, stop it and resume it.

    The training runs in a thread of its own, so the notebook stays usable. `net` and `history` are the net and its
    history so far, for use in the next cell. Each run is saved in `folder` under a name of its own, so no run replaces
    another one. A panel that is created while a training of an earlier panel runs shows that training and can stop it.

    `train`, `stop` and `resume` are the buttons as a cell can press them: `panel.train.click()`. The panel shows one
    button, which is the one of these three that makes sense at the time.

    The panel offers what is in `SCHEMES` and `ARCHITECTURES` when it is created, including entries of your own.

    Args:
        dataset: The data set to train on.
        name: The net that is selected at first: the name of a scheme, a `Scheme` of your own, or a net of your own, of
            which each run trains a copy.
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
        name: str | nets.Scheme | nn.Module = "TernaryNN",
        arch: str = "convnet",
        epochs: int = 3,
        share: float = 1.0,
    ):
        """Create the panel; nothing is trained before Train is pressed."""
        if not isinstance(dataset, Dataset):
            raise ValueError(f"dataset is a {type(dataset).__name__}: pass what `data.load` returns")
        dataset.check()
        self.dataset, self._guessing, self._changed = dataset, 1 / len(dataset.classes), 0.0
        self._current: ipw.Button | None = None
        self.form = Form(dataset, name, arch, epochs, share, ESTIMATES)
        running = running_monitor()
        self.monitor = running or stopped_monitor(dataset) or Monitor(self._guessing)
        self.train, self.stop, self.resume = (ipw.Button(description=text) for text in ("Train", "Stop", "Resume"))
        self.primary = ipw.Button(layout=ipw.Layout(width="auto", min_width="7em", flex="0 0 auto"))
        self.again = ipw.Button(layout=ipw.Layout(width="auto", flex="0 0 auto"))
        self.train.on_click(lambda _: self._train())
        self.stop.on_click(lambda _: self._stop())
        self.resume.on_click(lambda _: self._resume())
        self.primary.on_click(lambda _: self._press())
        self.again.on_click(lambda _: self._press(self.train))
        super().__init__([self.form, row(self.primary, self.again), self.monitor])
        self.add_class("qat-panel")
        self.monitor.observe(lambda _: self._refresh(), names="phase")
        for control in self.form.controls:
            control.observe(lambda _: self._refresh(), names="value")
        self._refresh()
        if running:
            label = running.training.label
            running.say(f"{label} was already being trained in this kernel: this panel shows it and can stop it.")

    # The controls and the parts of the display, as a cell can read and set them.
    name = property(lambda self: self.form.name)
    arch = property(lambda self: self.form.arch)
    epochs = property(lambda self: self.form.epochs)
    batch_size = property(lambda self: self.form.batch_size)
    share = property(lambda self: self.form.share)
    seed = property(lambda self: self.form.seed)
    progress = property(lambda self: self.monitor.progress)
    status = property(lambda self: self.monitor.status)
    curves = property(lambda self: self.monitor.curves)
    levels = property(lambda self: self.monitor.levels)
    lines = property(lambda self: self.monitor.lines)

    @property
    def training(self) -> Training | None:
        """The run that the panel shows, or None before the first one."""
        return self.monitor.training

    @property
    def net(self) -> nn.Module | None:
        """The net of the run that the panel shows."""
        return None if self.training is None else self.training.net

    @property
    def history(self) -> History | None:
        """The history of the run that the panel shows, so far."""
        return None if self.training is None else self.training.history

    @property
    def running(self) -> bool:
        """Whether a training is running."""
        return self.training is not None and self.training.running

    @property
    def folder(self) -> Path:
        """Where the run that the panel shows is saved; before the first run, where it will be."""
        if self.training is not None:
            return self.training.folder
        return panel_folder(self.dataset, self.form.selected_arch)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the training has ended, or at most `seconds`; return whether it has ended.

        Meanwhile, Stop works. Interrupting the kernel stops the training, too; its finished epochs are kept.
        """
        end = None if seconds is None else time.monotonic() + seconds
        try:
            while self.running and (end is None or time.monotonic() < end):
                self.training.join(SECONDS_BETWEEN_MESSAGES)
                handle_pending()
        except KeyboardInterrupt:
            self._stop()
            self.training.join()
            kept = counted(self.training.finished_epochs, "epoch")
            print(f"The training of {self.training.label} was stopped: {kept} of {self.training.epochs} finished.")
        return not self.running

    def preview(self) -> Figure:
        """Return a still picture of the panel."""
        return still(self.form, self.training, self._guessing)

    def _press(self, button: ipw.Button | None = None) -> None:
        """Do what the button that is shown says, unless this is the second half of a double click."""
        if time.monotonic() - self._changed >= DOUBLE_CLICK:
            (button or self._current).click()

    def _train(self) -> None:
        if self.running and not self._has_ended():
            return
        try:
            with translated():
                settings = self.form.settings()
                taken = {place(one.training) for one in LIVE if one.training.running}
                training = new_training(self.dataset, settings, taken)
        except CourseError as error:
            self.monitor.say(str(error), "error")
            return
        is_new_name = training.label != training.name
        self.monitor.start(training, f"The run has a new name, because {training.name} is kept." if is_new_name else "")

    def _resume(self) -> None:
        if self.training is not None and self._has_ended() and self.training.resumable:
            kept = self.training.finished_epochs
            self.monitor.start(self.training, f"The training continues after epoch {kept} of {self.training.epochs}.")

    def _stop(self) -> None:
        if self.running:
            self.training.stop()
            self.monitor.say("Stopping ...")

    def _has_ended(self) -> bool:
        """Return whether no training runs; one that has just reported its end may still be about to leave."""
        if self.monitor.phase != "running":
            self.training.join(5)
        return not self.running

    def _refresh(self) -> None:
        """Show the button that makes sense now."""
        runs, training = self.monitor.phase == "running", self.training
        resumable = not runs and training is not None and training.resumable
        self.train.disabled, self.stop.disabled, self.resume.disabled = runs, not runs, not resumable
        current = self.stop if runs else self.resume if resumable else self.train
        if resumable:
            self.resume.description = f"Resume after epoch {training.finished_epochs} of {training.epochs}"
        if self._current not in (None, current):
            self._changed = time.monotonic()
        self._current = current
        self.primary.description = current.description
        self.primary.button_style = "danger" if runs else "primary"
        self.primary.tooltip = self._tooltip(current)
        self.again.layout.display = "" if resumable else "none"
        if resumable:
            self._describe_again(training)
        self.form.enable(not runs)
        if training is not None and not runs:
            ESTIMATES.learn(training.history or History({}), training.dataset, training.settings)

    def _describe_again(self, training: Training) -> None:
        try:
            same = self.form.settings() == training.settings
        except CourseError:
            same = True
        self.again.description = "Start over" if same else "Train as a new run"
        self.again.tooltip = f"train from the first epoch, under a new name; {training.label} is kept"

    def _tooltip(self, button: ipw.Button) -> str:
        if button is self.stop:
            return "stop the training after this batch; finished epochs are kept"
        if button is self.resume:
            return f"continue {self.training.label} with its own settings"
        return "train from the first epoch"
