import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import torch

from qathelpers import data, results
from qathelpers.common.errors import CourseError
from qathelpers.nets import Recipe
from qathelpers.results import sweep
from qathelpers.training import History

pytest.importorskip("distributed", reason="needs pip install -e '.[sweep]'")
from .processes import free_port

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


def replacement_of(worker, process):
    while True:
        assert process.poll() is None, process.communicate()[0]
        others = set(workers_of(process)) - {worker}
        if others:
            return others.pop()
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("replacement", ["starts at once", "starts slowly", "is killed while it starts"])
@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers with ps")
def test_a_killed_worker_is_replaced_and_what_is_finished_is_skipped(start, tmp_path, monkeypatch, capsys, replacement):
    folder = tmp_path / "runs" / "shapes" / "lenet"
    options = ("-n", "30", "--name", "BinaryNN", "--arch", "lenet", "--workers", "1")
    process = start(*options, "--seed", "0")
    while not (folder / "BinaryNN.npy").exists() or len(History.load(folder / "BinaryNN.npy")) < 2:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    (worker,) = workers_of(process)
    os.kill(worker, signal.SIGKILL)
    if replacement == "starts slowly":  # more slowly than Dask's 15 s for a worker that was lost
        second = replacement_of(worker, process)
        os.kill(second, signal.SIGSTOP)
        time.sleep(20)
        os.kill(second, signal.SIGCONT)
    elif replacement == "is killed while it starts":
        os.kill(replacement_of(worker, process), signal.SIGKILL)
    output = process.communicate(timeout=500)[0]  # a busy machine takes minutes to import PyTorch three times
    assert process.returncode == 0, output
    assert "BinaryNN lenet seed 0: test accuracy 0." in output
    assert "BinaryNN: resumed after epoch" in (folder / "BinaryNN.log").read_text(encoding="utf-8")
    assert len(History.load(folder / "BinaryNN.npy")) == 30

    for variable, value in SETTINGS.items():
        monkeypatch.setenv(variable, value)
    capsys.readouterr()
    assert sweep.run(sweep.grid(["BinaryNN"], ["lenet"], [0], 30, "shapes"), data.load("shapes"), workers=1) == []
    printed = capsys.readouterr().out
    assert "1 of 1" in printed and "test accuracy" not in printed


@pytest.mark.parametrize(
    ("gpus", "name", "chosen"), [(4, 2, [2]), (4, 6, [2]), (1, 3, []), (0, 3, []), (4, "tcp://10.0.0.7:40331", [])]
)
def test_each_worker_of_this_machine_takes_its_own_gpu(tiny, monkeypatch, gpus, name, chosen):
    taken = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr("distributed.get_worker", lambda: SimpleNamespace(name=name))
    monkeypatch.setattr(sweep, "load", lambda name: tiny)
    (job,) = sweep.grid(["BinaryNN"], ["lenet"], [0], 1, "shapes")
    assert 0 <= sweep.train(job, 1, job.plan(tiny).config) <= 1 and taken == chosen


def test_a_grid_has_every_combination():
    jobs = sweep.grid(["BinaryNN", "PytorchNN"], ["convnet", "convnet-x0.5"], [0, 1, 2], 4, "cifar10", ["lr=0.1"])
    assert len({str(job) for job in jobs}) == 12
    assert all((job.epochs, job.data, job.recipe.lr) == (4, "cifar10", 0.1) for job in jobs)


@pytest.mark.parametrize(
    ("name", "arch", "change", "fault"),
    [
        ("MyNN", "lenet", "lr=0.1", "MyNN"),
        ("BinaryNN", "resnet", "lr=0.1", "resnet"),
        ("BinaryNN", "lenet-x2", "lr=0.1", "lenet.*-x2"),
        ("BinaryNN", "convnet-xyz", "lr=0.1", "convnet-xyz"),
        ("BinaryNN", "lenet", "speed=2", "speed"),
        ("BinaryNN", "lenet", "lr=fast", "lr.*fast"),
    ],
)
def test_a_grid_names_what_it_does_not_know(name, arch, change, fault):
    with pytest.raises(CourseError, match=fault):
        sweep.grid(["PytorchNN", name], [arch], [0], 1, "shapes", [change])


def test_a_job_is_the_run_that_load_or_train_finds(tiny):
    (job,) = sweep.grid(["BinaryNN"], ["lenet"], [3], 1, "shapes", ["batch_size=64"])
    run = job.plan(tiny)
    assert run.finished() is None and run.recipe == job.recipe != Recipe()
    results.load_or_train("BinaryNN", tiny, 1, arch="lenet", seed=3, recipe=job.recipe)
    assert len(job.plan(tiny).finished()) == 1
    assert (job.log_path.parent, job.log_path.stem) == (run.folder, "BinaryNN-seed3")


def test_a_scheduler_that_does_not_answer_is_named(tiny, monkeypatch):
    monkeypatch.setattr(sweep, "TIMEOUT", 2)
    jobs = sweep.grid(["BinaryNN"], ["lenet"], [0], 1, "shapes")
    with pytest.raises(CourseError, match=r"tcp://127\.0\.0\.1:1\b.*dask scheduler"):
        sweep.run(jobs, tiny, scheduler="tcp://127.0.0.1:1")


def test_without_dask_the_error_says_how_to_get_it(tiny, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CourseError, match=r"pip install .*\[sweep\]"):
        sweep.run([], tiny)


def test_two_sweeps_share_a_key_only_if_they_want_the_same_run(tiny, tmp_path, monkeypatch):
    def key(epochs=2, change="lr=0.1", dataset=tiny, folder="runs"):
        monkeypatch.setenv("QAT_RESULTS_DIR", str(tmp_path / folder))
        (job,) = sweep.grid(["BinaryNN"], ["lenet"], [0], epochs, "shapes", [change])
        return sweep._key(job, job.plan(dataset))

    assert key() == key()
    others = [key(epochs=3), key(change="lr=0.2"), key(dataset=tiny.take(100)), key(folder="other")]
    assert len({key(), *others}) == 5


def test_a_worker_with_other_data_trains_nothing(tiny, monkeypatch):
    monkeypatch.setenv("QAT_MAX_IMAGES", "50")
    monkeypatch.setattr("distributed.get_worker", lambda: SimpleNamespace(name=0))
    (job,) = sweep.grid(["BinaryNN"], ["lenet"], [0], 1, "shapes")
    with pytest.raises(CourseError, match="train_images"):
        sweep.train(job, 1, job.plan(tiny).config)
    assert not job.plan(tiny).history_path.exists()


def test_a_sweep_without_workers_ends_with_a_sentence(tiny, monkeypatch):
    from distributed import LocalCluster

    monkeypatch.setattr(sweep, "PATIENCE", 0.1)
    monkeypatch.setattr(sweep, "SECONDS_BETWEEN_UPDATES", 0.1)
    jobs = sweep.grid(["BinaryNN"], ["lenet"], [0], 1, "shapes")
    options = {"n_workers": 0, "processes": False, "protocol": "tcp", "host": "127.0.0.1", "dashboard_address": None}
    with LocalCluster(**options) as cluster, pytest.raises(CourseError, match="no worker"):
        sweep.run(jobs, tiny, scheduler=cluster.scheduler_address)


@pytest.mark.slow
def test_a_scheduler_that_is_killed_ends_the_sweep_with_a_sentence(tiny, tmp_path):
    address = f"tcp://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard", "--host", address]
    scheduler = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert any("Scheduler at" in line for line in scheduler.stderr)
    killer = threading.Timer(3, scheduler.kill)
    killer.start()
    with pytest.raises(CourseError, match="scheduler was lost"):
        sweep.run(sweep.grid(["BinaryNN"], ["lenet"], [0], 1, "shapes"), tiny, scheduler=address)
    killer.join()
