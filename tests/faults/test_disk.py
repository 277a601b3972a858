"""Folders that cannot be written, full disks, and other processes: what was there stays, and a training goes on."""

import errno
import os
import shutil
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

import filelock
import numpy as np
import pytest

from qathelpers import results, training
from qathelpers.analysis import plots
from qathelpers.common import settings
from qathelpers.common.errors import CourseError
from qathelpers.nets import build
from qathelpers.training import History, checkpoint
from tools.record import record

from .conftest import assert_refused, contents

resource = pytest.importorskip("resource", reason="a full disk is imitated by a limit that Windows lacks")

READ_ONLY = Path("/proc/self")  # nobody can make a file there, not even root
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason=f"needs {READ_ONLY}")


@contextmanager
def full_disk():
    """Let this process write no byte to any file; as on a full disk, it can still make and rename files."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def fit(dataset):
    """Return a function that trains BinaryNN and puts its output into `fit.lines`."""

    def fit(folder, epochs=3, **options):
        net, log = build("BinaryNN", "lenet"), fit.lines.append
        return training.fit(net, dataset, epochs, device="cpu", folder=folder, log=log, **options)

    fit.lines = []
    return fit


def stop(history):
    raise KeyboardInterrupt


@linux
def test_a_folder_that_cannot_be_written_is_named_before_the_training(fit):
    reason = os.strerror(errno.ENOENT)  # what Linux says there
    assert_refused(lambda: fit(READ_ONLY), CourseError, [str(READ_ONLY), reason, "QAT_RESULTS_DIR"])
    assert not fit.lines


def test_a_file_in_the_place_of_the_folder_is_named(runs, dataset, tmp_path):
    shutil.move(settings.results_dir(), tmp_path / "moved")
    settings.results_dir().write_text("not a folder", encoding="utf-8")
    before = contents(tmp_path)
    train = lambda: results.load_or_train("BinaryNN", dataset, 3, arch="lenet")  # noqa: E731
    assert_refused(train, CourseError, [str(runs), "QAT_RESULTS_DIR"])
    assert contents(tmp_path) == before


@linux
def test_a_run_is_recorded_where_files_can_be_written(runs, tmp_path):
    before = contents(tmp_path)
    target = READ_ONLY / "data"
    assert_refused(lambda: record("BinaryNN", "lenet", "shapes", target=target), CourseError, [str(target)])
    assert contents(tmp_path) == before


def save_history(runs):
    History.load(runs / "BinaryNN.npy").save(runs / "TernaryNN.npy")


def save_weights(runs):
    checkpoint.save(build("BinaryNN", "lenet"), runs / "TernaryNN.safetensors", {"name": "BinaryNN", "arch": "lenet"})


def save_plot(runs):
    plots.save(plots.loss([History.load(runs / "BinaryNN.npy")]), runs / "loss.png")


@pytest.mark.parametrize(
    ("save", "name"),
    [(save_history, "TernaryNN.json"), (save_weights, "TernaryNN.safetensors"), (save_plot, "loss.png")],
)
def test_a_full_disk_leaves_the_old_file(runs, save, name):
    before = contents(runs)
    with full_disk():
        assert_refused(lambda: save(runs), CourseError, [str(runs / name), "QAT_RESULTS_DIR"])
    assert contents(runs) == before


def test_a_training_stopped_by_a_full_disk_goes_on_when_there_is_room(runs, fit):
    first = fit(runs, epochs=4, on_epoch=stop)
    with full_disk():
        assert_refused(lambda: fit(runs, epochs=4), CourseError, ["BinaryNN.resume.safetensors", "QAT_RESULTS_DIR"])
    lengths = []

    def fill_the_disk(history):
        lengths.append(len(history))
        disk.enter_context(full_disk())

    with ExitStack() as disk, pytest.raises(CourseError):
        fit(runs, epochs=4, on_epoch=fill_the_disk)
    assert lengths == [2]
    history = fit(runs, epochs=4, on_epoch=lambda history: lengths.append(len(history)))
    assert lengths == [2, 3, 4]
    assert np.array_equal(history.rows[:1], first.rows)
    assert not [path for path in runs.glob(".*") if path.suffix != ".lock"]


def test_a_training_within_a_training_of_the_same_run_is_refused(runs, fit):
    refused = []

    def train_again(history):
        assert_refused(lambda: fit(runs), CourseError, ["BinaryNN", str(runs), "QAT_RESULTS_DIR"])
        refused.append(len(history))

    assert len(fit(runs, on_epoch=train_again)) == 3
    assert refused == [1, 2, 3]


def test_a_file_system_without_locks_does(runs, fit, monkeypatch):
    def acquire(*arguments, **options):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    assert len(fit(runs)) == 3


def test_what_a_killed_process_left_is_removed(runs, fit):
    leftovers = [
        runs / f".BinaryNN{suffix}.abcd1234" for suffix in (".npy", ".json", ".safetensors", ".resume.safetensors")
    ]
    for path in leftovers:
        path.write_bytes(b"half a fi")
    before = contents(runs)
    fit(runs)
    assert not any(path.exists() for path in leftovers)
    assert contents(runs).keys() == before.keys() - {path.name for path in leftovers}
