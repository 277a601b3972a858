import os
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
from torch import multiprocessing, nn

from qathelpers import hardware, nets, parallel, training
from qathelpers.errors import CourseError
from qathelpers.history import History

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no torch.distributed")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def enter(rank, size, port, task, arguments):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    parallel.start()
    task(*arguments)


def together(size, task, *arguments):
    """Run `task` in `size` processes that know of each other."""
    multiprocessing.spawn(enter, (size, free_port(), task, arguments), size)


def slow(device):
    return False


def save_gradients(name, arch, path):
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(65, 3, 32, 32, generator=generator), torch.randint(10, (65,), generator=generator)
    net = nets.build(name, arch).train()
    parallel.share_batchnorms(net)
    images, labels = parallel.share(images), parallel.share(labels)
    loss = F.cross_entropy(net(images), labels)
    (loss * parallel.weight(len(labels), loss.device)).backward()
    parallel.sum_gradients(net)
    if parallel.rank() == 0:
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
    hardware.bf16_is_fast = slow  # its rounding is coarse; what is tested is the arithmetic
    net = nets.build("PytorchNN", "lenet")
    training.fit(net, data, epochs, recipe=replace(net.recipe, lr=0.01), folder=folder, say=lambda line: None)


def test_the_first_epoch_has_the_losses_of_one_process(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "bf16_is_fast", slow)
    train(tiny, tmp_path / "1", 1)
    together(2, train, tiny, tmp_path / "2", 1)
    one, two = (History.load(tmp_path / str(size) / "PytorchNN.npy") for size in (1, 2))
    assert np.allclose(one["train_loss"], two["train_loss"], rtol=1e-3)
    assert np.allclose(one["test_loss"], two["test_loss"], rtol=1e-3)
    assert (one.card["processes"], two.card["processes"]) == (1, 2)


def stop_after(epochs, data, folder):
    def stop(history):
        if len(history) == epochs:
            raise KeyboardInterrupt

    hardware.bf16_is_fast = slow
    net = nets.build("PytorchNN", "lenet")
    training.fit(net, data, 3, folder=folder, on_epoch=stop, say=lambda line: None)


def test_another_number_of_processes_goes_on_where_two_were_stopped(tiny, tmp_path, capsys):
    together(2, stop_after, 2, tiny, tmp_path)
    assert len(History.load(tmp_path / "PytorchNN.npy")) == 2
    net = nets.build("PytorchNN", "lenet")
    history = training.fit(net, tiny, 3, folder=tmp_path)
    assert "PytorchNN: resumed after epoch 2 of 3" in capsys.readouterr().out
    assert len(history) == 3


def say_hello():
    for _ in range(100):
        assert parallel.sum_of([1, 2], torch.device("cpu")) == [2, 4]


@pytest.mark.parametrize("attempt", range(4))
def test_the_end_of_a_process_is_no_error(attempt):
    # Gloo's threads, left running, aborted every third process as Python shut down.
    together(2, say_hello)


def test_a_batch_that_cannot_be_shared_is_a_sentence(monkeypatch):
    monkeypatch.setattr(parallel, "size", lambda: 4)
    parallel.check(256, 64)
    with pytest.raises(CourseError, match="4 processes cannot share the last batch, of 3 images: start fewer"):
        parallel.check(259, 64)


def test_alone_nothing_changes():
    net = nets.build("BinaryNN", "lenet")
    parallel.share_batchnorms(net)
    assert {type(m) for m in net.modules() if "Norm" in type(m).__name__} == {nn.BatchNorm1d, nn.BatchNorm2d}
    assert parallel.weight(7, torch.device("cpu")) == 1 and parallel.sum_of([1, 2], torch.device("cpu")) == [1, 2]


def ranks_of(pid):
    children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()
    return [int(child) for child in children]


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes with pgrep")
def test_one_that_dies_ends_the_others_and_the_training_goes_on_later(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}"]
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
