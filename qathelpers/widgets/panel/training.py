"""One training in a thread of its own, with everything that is needed to resume it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...common.errors import CourseError, sentence
from ...common.words import counted
from ...data.dataset import Dataset
from ...nets import spec_of
from ...results.runs import run_folder
from ...training import loop
from ...training.history import History
from ...training.run import Run, run_name
from .settings import Settings

SECONDS_BETWEEN_UPDATES = 0.2  # of the progress bar: one message per batch would flood the browser
RUNNING, STOPPED, FINISHED = "running", "stopped", "finished"


@dataclass
class Events:
    """What a training calls, from its thread."""

    began: Callable[[], None]
    progress: Callable[[float, float | None], None]
    epoch: Callable[[], None]
    line: Callable[[str], None]
    ended: Callable[[], None]


@dataclass(eq=False)
class Training:
    """A run of the panel: its settings never change, so that a stopped run can only be continued as it was begun.

    Args:
        dataset: The whole data set of the panel.
        settings: What to train, and on which share of the data.
        folder: Where the run is saved.
        label: What the panel calls it, such as "BinaryNN 2".
    """

    dataset: Dataset
    settings: Settings
    folder: Path
    label: str
    phase: str = STOPPED
    error: str = ""
    net: nn.Module | None = None
    history: History | None = None
    events: Events | None = None
    _at_work: bool = False
    _ended: threading.Event = field(default_factory=threading.Event, repr=False)
    _stop_requested: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def name(self) -> str:
        """The name of the run's files, without suffix."""
        return run_name(self.settings.scheme.name, self.settings.seed)

    @property
    def running(self) -> bool:
        """Whether the thread is at work."""
        return self._at_work and not self._ended.is_set()

    @property
    def finished_epochs(self) -> int:
        """Number of epochs that are kept."""
        return 0 if self.history is None else len(self.history)

    @property
    def epochs(self) -> int:
        """Number of epochs of the whole run; `QAT_MAX_EPOCHS` can make it smaller than the form says."""
        return self.settings.epochs if self.history is None else self.history.config["epochs"]

    @property
    def resumable(self) -> bool:
        """Whether the training can go on: it was stopped, or failed, after at least one epoch and before the last."""
        return self.phase == STOPPED and 0 < self.finished_epochs < self.epochs

    @property
    def images(self) -> int:
        """Number of training images."""
        return _count(len(self.dataset.train_labels), self.settings.share)

    def start(self, events: Events) -> None:
        """Begin the training or continue it, in a thread."""
        self.events, self.error, self.phase = events, "", RUNNING
        self._stop_requested.clear()
        self._ended.clear()
        self._at_work = True
        threading.Thread(target=self._work, daemon=True).start()

    def stop(self) -> None:
        """End the training at its next batch."""
        self._stop_requested.set()

    def join(self, seconds: float | None = None) -> None:
        """Wait for the thread, at most `seconds`.

        This is not `Thread.join`: in Python up to 3.12, an interrupt there marks a thread that is at work as ended.
        """
        if self._at_work:
            self._ended.wait(seconds)

    def _work(self) -> None:
        try:
            self._train()
        except KeyboardInterrupt:  # before the first batch
            pass
        except Exception as error:  # a thread that ended without a message would look like a slow training
            self.error = sentence(error) or f"{type(error).__name__}: {error}"
        finally:
            self.phase = FINISHED if self.history is not None and self.finished_epochs == self.epochs else STOPPED
            try:
                self.events.ended()
            finally:
                self._ended.set()

    def _train(self) -> None:
        settings, total = self.settings, self.dataset
        dataset = total.take(self.images, _count(len(total.test_labels), settings.share))
        net = settings.build(dataset)
        recipe = replace(spec_of(net).recipe, batch_size=settings.batch_size)
        run = Run.plan(net, dataset, settings.epochs, recipe=recipe, seed=settings.seed, folder=self.folder)
        self._check_resume(run, net)
        self.net = net
        if not self.finished_epochs:
            self.history = History(run.config)
        self.events.began()
        clock = _Clock(self.finished_epochs / run.epochs)

        def after_batch(done: float) -> None:
            self._check_stop()
            if clock.is_due(done):
                self.events.progress(done, clock.seconds_left(done))

        def after_epoch(history: History) -> None:
            self.history = history
            self.events.epoch()
            self._check_stop()

        with self._stoppable(net):
            self.history = loop.train(
                run, net, dataset, on_epoch=after_epoch, on_batch=after_batch, log=self.events.line
            )

    @contextmanager
    def _stoppable(self, net: nn.Module) -> Iterator[None]:
        """Let Stop end the training at the next layer: the evaluation has no callback, and its batches are large."""
        layers = [net, *(module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear))]
        hooks = [layer.register_forward_pre_hook(lambda *_: self._check_stop()) for layer in layers]
        norms = [(module, module.momentum) for module in net.modules() if isinstance(module, _BatchNorm)]
        try:
            yield
        finally:
            for module, momentum in norms:  # `update_bn` does not restore them if it is interrupted
                module.momentum = momentum
            for hook in hooks:
                hook.remove()

    def _check_stop(self) -> None:
        if self._stop_requested.is_set():
            raise KeyboardInterrupt

    def _check_resume(self, run: Run, net: nn.Module) -> None:
        """Check that the files still hold the epochs that the panel shows; otherwise, the run would start again."""
        if not self.finished_epochs:
            return
        resume = run.read_resume(net)
        if resume is None or len(resume.rows) != self.finished_epochs:
            raise CourseError(
                f"{run.resume_path} no longer holds the {counted(self.finished_epochs, 'finished epoch')} of "
                f"{self.label}, or the net has changed since then: press Start over to train from the beginning."
            )


class _Clock:
    """Measures how fast a training is, from its first batch on: the work before that does not repeat."""

    def __init__(self, done: float):
        self._began, self._done, self._updated, self._start = None, done, 0.0, done

    def is_due(self, done: float) -> bool:
        """Return whether it is time for the next update."""
        now = time.monotonic()
        if self._began is None:
            self._began, self._start = now, done
        if now - self._updated < SECONDS_BETWEEN_UPDATES and done < 1:
            return False
        self._updated = now
        return True

    def seconds_left(self, done: float) -> float | None:
        """Return the expected time until the end; None after the first batch, which says nothing about it."""
        since = done - self._start
        return (time.monotonic() - self._began) * (1 - done) / since if since > 0 else None


def new_training(dataset: Dataset, settings: Settings, taken: set[Path]) -> Training:
    """Return a training under a name of its own, so that it replaces no files of another one.

    Args:
        dataset: The whole data set.
        settings: What to train.
        taken: The folders of trainings that run now; they may not have any files yet.
    """
    base = panel_folder(dataset, settings.arch)
    name = run_name(settings.scheme.name, settings.seed)
    number, folder, label = 1, base, name
    while folder / name in taken or _has_files(folder, name):
        number += 1
        label = f"{name} {number}"
        folder = base / label
    return Training(dataset, settings, folder, label)


def panel_folder(dataset: Dataset, arch: str) -> Path:
    """Return where panels save: not beside the runs of `load_or_train`, which a quick try must not replace."""
    return run_folder(dataset.name, arch) / "panel"


def place(training: Training) -> Path:
    """Return the path of a training's files, without suffix."""
    return training.folder / training.name


def _has_files(folder: Path, name: str) -> bool:
    return any((folder / f"{name}{suffix}").exists() for suffix in (".npy", ".safetensors", ".resume.safetensors"))


def _count(images: int, share: float) -> int:
    return max(1, round(share * images))
