"""Two processes at once, a kill between two files, and Ctrl-C: nothing is lost, and nothing false is said."""

import contextlib
import os
import signal
import socket
import threading

import pytest
from click.testing import CliRunner

from qathelpers import results, training
from qathelpers.__main__ import INTERRUPTED
from qathelpers.__main__ import main as qat
from qathelpers.common import interrupts, locks
from qathelpers.common.errors import CourseError
from qathelpers.nets import build
from qathelpers.training import History, checkpoint, loop
from qathelpers.training.run import Run

from .conftest import EPOCHS, assert_names

ROW = {"train_loss": 1, "train_acc": 0.1, "test_loss": 1, "test_acc": 0.1, "seconds": 1}


@pytest.fixture
def ctrl_c():
    """Let Ctrl-C raise KeyboardInterrupt, also if these tests were started in the background, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def history(epochs, **config):
    result = History({"name": "BinaryNN"} | config)
    for epoch in range(epochs):
        result.append(epoch=epoch + 1, **ROW)
    return result


def test_a_reader_beside_a_writer_finds_the_history_as_it_was_or_is(tmp_path):
    path, done, lengths = tmp_path / "BinaryNN.npy", threading.Event(), []
    growing = history(1)
    growing.save(path)

    def write():
        for epoch in range(2, 120):
            growing.append(epoch=epoch, **ROW)
            growing.save(path)
        done.set()

    threading.Thread(target=write).start()
    while not done.is_set():
        lengths.append(len(History.load(path)))
    assert lengths == sorted(lengths) and lengths[0] >= 1 and len(lengths) > 20


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("kill", [1, 2, 3, 4])
@pytest.mark.parametrize("old", [0, 1, 5], ids=lambda old: f"{old} epochs before")
@pytest.mark.parametrize("new", [{}, {"note": "another run"}], ids=["the same run", "another run"])
def test_a_kill_between_the_files_leaves_the_old_or_the_new_history(tmp_path, monkeypatch, kill, old, new):
    path, replace, calls = tmp_path / "BinaryNN.npy", os.replace, []
    before, after = history(old, note="first"), history(2, **({"note": "first"} | new))
    if old:
        before.save(path)

    def die(source, target):
        replace(source, target)
        calls.append(target)
        if len(calls) == kill:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        with contextlib.suppress(Killed):
            after.save(path)
    if not path.exists():
        assert not old
        return
    found = History.load(path)
    assert (found.config, found.rows.tolist()) in [(h.config, h.rows.tolist()) for h in (before, after)]
    after.save(path)  # the next save mends what the kill left
    assert History.load(path).config == after.config and '"before"' not in path.with_suffix(".json").read_text(
        encoding="utf-8"
    )


def test_a_run_that_another_process_finishes_meanwhile_is_not_trained_again(dataset, monkeypatch, capsys):
    finished, looks = Run.finished, []

    def look(self):
        found = finished(self)
        looks.append(found)
        if len(looks) == 1:
            training.fit(build("BinaryNN", "lenet"), dataset, EPOCHS, device="cpu", folder=self.folder)
            capsys.readouterr()
        return found

    monkeypatch.setattr(Run, "finished", look)
    _, history = results.load_or_train("BinaryNN", dataset, EPOCHS, arch="lenet")
    assert looks[0] is None and len(looks[1]) == len(history) == EPOCHS
    assert f"epoch 1/{EPOCHS}" not in capsys.readouterr().out


@pytest.fixture
def held(tmp_path):
    """Hold a lock in another thread; return its path and what lets it go."""
    path, ready, enough = tmp_path / "cache" / ".lock", threading.Event(), threading.Event()

    def hold():
        with locks.hold(path):
            ready.set()
            enough.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    ready.wait()
    yield path, enough.set
    enough.set()
    thread.join()


def test_a_wait_for_a_lock_names_the_process_that_holds_it(held):
    path, release = held
    said = []

    def wait(name):
        said.append(name)
        release()

    with locks.hold(path, wait=wait):
        assert len(said) == 1
        assert_names(said[0], [str(os.getpid()), socket.gethostname()])
    assert [file.name for file in path.parent.iterdir()] == [".lock"]


def test_who_does_not_wait_is_told_who_holds_the_lock(held):
    with pytest.raises(locks.Busy, match=rf"\b{os.getpid()}\b"), locks.hold(held[0]):
        pass


def interrupt(at):
    """Return a function that acts as `at`, but gets a Ctrl-C while it runs for the second time."""
    calls = []

    def act(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return at(*arguments, **options)

    return act


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_while_an_epoch_is_saved_keeps_the_epoch_in_memory_and_on_disk(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "write", interrupt(checkpoint.write))
    lines = []
    history = training.fit(
        build("BinaryNN", "lenet"), dataset, 4, device="cpu", folder=tmp_path, log=lines.append, on_batch=lambda _: None
    )
    assert len(history) == len(History.load(tmp_path / "BinaryNN.npy")) == 2
    assert_names(lines[-1], ["2"])


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_while_a_training_is_finished_comes_too_late(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "write", interrupt(checkpoint.write))  # the first call saves the only epoch
    net = build("BinaryNN", "lenet")
    run = Run.plan(net, dataset, 1, device="cpu", folder=tmp_path)
    assert len(training.train(run, net, dataset, log=lambda _: None)) == 1
    assert len(run.finished()) == 1 and not run.resume_path.exists()


@pytest.mark.usefixtures("ctrl_c")
def test_a_second_ctrl_c_is_not_delayed():
    reached = []
    with pytest.raises(KeyboardInterrupt), interrupts.delayed():
        signal.raise_signal(signal.SIGINT)
        reached.append(1)
        signal.raise_signal(signal.SIGINT)
        reached.append(2)
    assert reached == [1]


@pytest.mark.parametrize("command", ["train -n 3 --name BinaryNN", "run -n 3"])
def test_an_interrupted_command_does_not_report_success(monkeypatch, command):
    monkeypatch.setenv("QAT_DATA", "shapes")
    monkeypatch.setenv("QAT_MAX_IMAGES", "60")
    train_epoch, calls = loop.train_epoch, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train_epoch(*arguments)

    monkeypatch.setattr(loop, "train_epoch", interrupted)
    result = CliRunner().invoke(qat, [*command.split(), "--arch", "lenet"])
    assert isinstance(result.exception, SystemExit) and result.exit_code == INTERRUPTED


def test_compare_leaves_the_plots_of_other_runs(runs):
    plot = runs / "accuracy.png"
    plot.write_bytes(b"mine")
    own = results.run_folder("cifar10", "convnet")
    result = CliRunner().invoke(qat, ["compare", "--recorded", "--arch", "convnet"])
    assert result.exit_code == 0 and plot.read_bytes() == b"mine" and not own.exists()
    saved = [line.removeprefix("saved ") for line in result.output.splitlines() if line.startswith("saved ")]
    assert len(saved) == 2 and all(os.path.isfile(path) for path in saved)


def test_one_foreign_file_does_not_stop_a_table(runs):
    (runs / "dangling.npy").symlink_to(runs / "nowhere")
    (runs / "BinaryNN (1).npy").write_bytes((runs / "BinaryNN.npy").read_bytes())
    result = CliRunner().invoke(qat, ["compare", "--data", "shapes", "--arch", "lenet"])
    assert result.exit_code == 0
    assert_names(result.output, ["BinaryNN", "TernaryNN", "dangling.npy", "BinaryNN (1).json"])


def test_an_error_that_is_no_mistake_of_the_code_is_a_sentence_at_the_command_line(monkeypatch):
    for error in (OSError(28, "No space left on device", "/x/y"), MemoryError(), CourseError("do this")):
        monkeypatch.setattr("qathelpers.__main__.load", lambda name, error=error: (_ for _ in ()).throw(error))
        result = CliRunner().invoke(qat, ["data"])
        assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    monkeypatch.setattr("qathelpers.__main__.load", lambda name: {}["mistake"])
    assert isinstance(CliRunner().invoke(qat, ["data"]).exception, KeyError)
