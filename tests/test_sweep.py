import os
import signal
import subprocess
import sys
import time

import pytest

from qathelpers import sweep
from qathelpers.errors import CourseError
from qathelpers.history import History

pytest.importorskip("distributed", reason="needs pip install -e '.[sweep]'")
SETTINGS = {"QAT_DATA": "shapes", "QAT_MAX_IMAGES": "300", "OMP_NUM_THREADS": "1"}


@pytest.fixture
def start():
    processes = []

    def start(*arguments):
        command = [sys.executable, "-m", "qathelpers", "sweep", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        processes.append(subprocess.Popen(command, env=os.environ | SETTINGS, **pipes))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()


def workers_of(process):
    columns = ["-ww", "-o", "pid=", "-o", "args="]
    rows = subprocess.run(["ps", "--ppid", str(process.pid), *columns], capture_output=True, text=True).stdout
    return [int(row.split()[0]) for row in rows.splitlines() if "spawn_main" in row]


@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers with ps")
def test_a_killed_worker_is_replaced_and_what_is_finished_is_skipped(start, tmp_path):
    folder = tmp_path / "runs" / "shapes" / "lenet"
    options = ("-n", "30", "--name", "BinaryNN", "--arch", "lenet", "--workers", "1")
    process = start(*options, "--seed", "0")
    while not (folder / "BinaryNN.npy").exists() or len(History.load(folder / "BinaryNN.npy")) < 2:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    (worker,) = workers_of(process)
    os.kill(worker, signal.SIGKILL)
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 0, output
    assert "BinaryNN lenet seed 0: test accuracy 0." in output
    assert "BinaryNN: resumed after epoch" in (folder / "BinaryNN.log").read_text()
    assert len(History.load(folder / "BinaryNN.npy")) == 30

    again = start(*options, "--seed", "0")
    assert "1 of 1 trainings are finished already." in again.communicate(timeout=120)[0]


def test_a_grid_is_every_combination_and_names_what_it_does_not_know():
    jobs = sweep.grid(["BinaryNN", "PytorchNN"], ["convnet", "convnet-x0.5"], [0, 1, 2], 4, "cifar10", ["lr=0.1"])
    assert len({str(job) for job in jobs}) == 12
    for names, archs, changes, sentence in (
        (["MyNN"], ["lenet"], [], "There is no net 'MyNN'"),
        (["BinaryNN"], ["resnet"], [], "There is no architecture 'resnet'"),
        (["BinaryNN"], ["lenet-x2"], [], "lenet has one width only"),
        (["BinaryNN"], ["convnet-xyz"], [], "convnet-xyz is no width"),
        (["BinaryNN"], ["lenet"], ["speed=2"], "A recipe has no 'speed'"),
    ):
        with pytest.raises(CourseError, match=sentence):
            sweep.grid(names, archs, [0], 1, "shapes", changes)


def test_a_scheduler_that_does_not_answer_is_a_sentence(tiny, monkeypatch):
    monkeypatch.setattr(sweep, "ANSWER", 2)
    jobs = sweep.grid(["BinaryNN"], ["lenet"], [0], 1, "shapes")
    with pytest.raises(CourseError, match=r"No Dask scheduler answers at tcp://127\.0\.0\.1:1: start one"):
        sweep.run(jobs, tiny, scheduler="tcp://127.0.0.1:1")


def test_without_dask_the_error_says_how_to_get_it(tiny, monkeypatch):
    monkeypatch.setattr(sweep.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CourseError, match=r"pip install -e '.\[sweep\]'"):
        sweep.run([], tiny)
