import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qathelpers import nets, training
from qathelpers.common import distributed, hardware
from qathelpers.common.errors import CourseError
from qathelpers.data import Dataset, shapes
from qathelpers.training import checkpoint
from qathelpers.training.history import History

from . import processes

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no torch.distributed")


def enter(rank, size, port, task, *arguments):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    distributed.init()
    task(*arguments)


def together(size, task, *arguments, method=processes.METHOD):
    """Run `task` in `size` processes of one group."""
    processes.run(size, enter, size, processes.free_port(), task, *arguments, method=method)


def never(device):
    return False


def save_gradients(name, arch, path):
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(65, 3, 32, 32, generator=generator), torch.randint(10, (65,), generator=generator)
    net = nets.build(name, arch).train()
    distributed.convert_sync_batchnorm(net)
    images, labels = distributed.shard(images), distributed.shard(labels)
    loss = F.cross_entropy(net(images), labels)
    (loss * distributed.shard_weight(len(labels), loss.device)).backward()
    distributed.all_reduce_gradients(net)
    if distributed.rank() == 0:
        torch.save({n: p.grad for n, p in net.named_parameters()} | dict(net.named_buffers()), path)


def test_two_processes_have_the_gradients_and_statistics_of_one(tmp_path):
    save_gradients("TernaryNN", "lenet", tmp_path / "1.pt")
    together(2, save_gradients, "TernaryNN", "lenet", tmp_path / "2.pt")
    one, two = (torch.load(tmp_path / f"{size}.pt") for size in (1, 2))
    assert one.keys() == two.keys()
    for key, values in one.items():
        if values.is_floating_point() and values.numel():
            assert (values - two[key]).abs().max() <= 2e-5 * values.abs().max() + 1e-7, key


def train(data, folder, epochs):
    hardware.bf16_is_fast = never  # the rounding of bf16 would hide differences in the arithmetic
    net = nets.build("PytorchNN", "lenet")
    training.fit(net, data, epochs, recipe=replace(net.spec.recipe, lr=0.01), folder=folder, log=lambda line: None)


def test_the_first_epoch_has_the_losses_of_one_process(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "bf16_is_fast", never)
    train(tiny, tmp_path / "1", 1)
    together(2, train, tiny, tmp_path / "2", 1)
    one, two = (History.load(tmp_path / str(size) / "PytorchNN.npy") for size in (1, 2))
    assert np.allclose(one["train_loss"], two["train_loss"], rtol=1e-3)
    assert np.allclose(one["test_loss"], two["test_loss"], rtol=1e-3)
    assert (one.config["processes"], two.config["processes"]) == (1, 2)


def stop_after(epochs, data, folder):
    def stop(history):
        if len(history) == epochs:
            raise KeyboardInterrupt

    hardware.bf16_is_fast = never
    net = nets.build("PytorchNN", "lenet")
    training.fit(net, data, 3, folder=folder, on_epoch=stop, log=lambda line: None)


def test_a_run_of_two_processes_resumes_in_one(tiny, tmp_path, capsys):
    together(2, stop_after, 2, tiny, tmp_path)
    assert len(History.load(tmp_path / "PytorchNN.npy")) == 2
    net = nets.build("PytorchNN", "lenet")
    history = training.fit(net, tiny, 3, folder=tmp_path)
    assert re.search(r"PytorchNN.*epoch 2", capsys.readouterr().out)
    assert len(history) == 3


def sum_numbers():
    for _ in range(100):
        assert distributed.all_reduce([1, 2], torch.device("cpu")) == [2, 4]


@pytest.mark.parametrize("attempt", [0, *(pytest.param(number, marks=pytest.mark.slow) for number in (1, 2, 3))])
def test_processes_end_without_an_error(attempt):
    # Without the atexit handler, threads of gloo aborted every third process while Python shut down. Processes of a
    # fork server end without a shutdown.
    together(2, sum_numbers, method="spawn")


def test_a_last_batch_with_fewer_images_than_processes_is_refused(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 4)
    distributed.check_last_batch(256, 64)
    with pytest.raises(CourseError, match=r"3 images.* 4 processes.*batch_size"):
        distributed.check_last_batch(259, 64)


@pytest.mark.parametrize(("processes", "gpus"), [(2, 1), (8, 4)])
def test_more_processes_than_gpus_are_refused_at_once_in_each_of_them(monkeypatch, processes, gpus):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    for variable, value in {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "LOCAL_RANK": 0}.items():
        monkeypatch.setenv(variable, str(value))
    with pytest.raises(CourseError, match=rf"{processes} processes.*--nproc_per_node={gpus}\b"):
        distributed.init()


def test_a_single_process_changes_nothing():
    net = nets.build("BinaryNN", "lenet")
    distributed.convert_sync_batchnorm(net)
    assert {type(m) for m in net.modules() if "Norm" in type(m).__name__} == {nn.BatchNorm1d, nn.BatchNorm2d}
    assert distributed.shard_weight(7, torch.device("cpu")) == 1 and distributed.all_reduce(
        [1, 2], torch.device("cpu")
    ) == [1, 2]


def ranks_of(pid):
    children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()
    return [int(child) for child in children]


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes with pgrep")
def test_when_one_process_dies_all_end_and_the_run_is_kept(tmp_path):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        f"--master_port={processes.free_port()}",
    ]
    command += ["-m", "qathelpers", "train", "-n", "500", "--name", "BinaryNN", "--arch", "lenet"]
    settings = {"QAT_DATA": "shapes", "QAT_MAX_IMAGES": "400", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | settings
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "epoch 3/500" in line:
            break
    os.kill(ranks_of(process.pid)[-1], signal.SIGKILL)
    start = time.monotonic()
    rest = process.communicate(timeout=60)[0]
    assert time.monotonic() - start < 60 and process.returncode != 0
    assert "-9" in rest and sum("epoch 3/500" in line for line in lines) == 1
    assert len(History.load(tmp_path / "runs" / "shapes" / "lenet" / "BinaryNN.npy")) >= 3


def stop_first(history):
    raise KeyboardInterrupt


def train_apart(folder, counts, seeds, stop, sentences):
    """Train with a folder of its own per process; put the message of a refusal into the folder `sentences`."""
    hardware.bf16_is_fast = never
    rank = distributed.rank()
    tiny = Dataset(*shapes.make(counts[rank], 60), shapes.CLASSES, "shapes")
    net = nets.build("PytorchNN", "lenet", seeds[rank])
    try:
        training.fit(
            net, tiny, 2, folder=folder / str(rank), on_epoch=stop_first if stop else None, log=lambda line: None
        )
    except CourseError as error:
        (sentences / str(rank)).write_text(str(error), encoding="utf-8")
    else:
        (sentences / f"weights{rank}").write_text(checkpoint.digest(net.state_dict(), {}), encoding="utf-8")


@pytest.mark.slow
def test_processes_with_folders_of_their_own_resume_from_the_state_of_process_0(tmp_path):
    for stop in (True, False):
        together(2, train_apart, tmp_path, (120, 120), (0, 0), stop, tmp_path)
    assert len(History.load(tmp_path / "0" / "PytorchNN.npy")) == 2 and not (tmp_path / "1").exists()
    assert (tmp_path / "weights0").read_text(encoding="utf-8") == (tmp_path / "weights1").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("counts", "seeds", "named"), [((120, 100), (0, 0), "train_images"), ((120, 120), (0, 1), "init_seed")]
)
def test_processes_that_would_train_different_runs_all_stop_with_a_sentence(tmp_path, counts, seeds, named):
    together(2, train_apart, tmp_path, counts, seeds, False, tmp_path)
    for rank in (0, 1):
        assert named in (tmp_path / str(rank)).read_text(encoding="utf-8")
    assert not list(tmp_path.rglob("*.npy"))


@pytest.mark.parametrize(("local", "name"), [("2", "lo"), ("1", None)])
def test_gloo_stays_on_the_loopback_interface_if_all_processes_are_on_this_machine(monkeypatch, local, name):
    seen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo"), (2, "eth0")])
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *arguments, **options: seen.append(arguments))
    monkeypatch.setattr("atexit.register", lambda function: None)
    for variable, value in {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": local, "GLOO_SOCKET_IFNAME": ""}.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    distributed.init()
    assert seen == [("gloo",)] and os.environ.get("GLOO_SOCKET_IFNAME") == name
