"""When memory, a disk or a permission fails, no file is called damaged, no net is blamed, and nothing is deleted."""

import errno
import io
import os
import shutil

import pytest
import torch
from brevitas import nn as qnn
from PIL import Image
from torch import nn

from qathelpers import data, training
from qathelpers.analysis import costs
from qathelpers.common import environment, errors, files, hardware
from qathelpers.common.errors import CourseError
from qathelpers.data import download, pictures, readers
from qathelpers.nets import ARCHITECTURES, Architecture, Scheme, build, packing, quantizers
from qathelpers.training import History, checkpoint
from tools import migrate

from .conftest import contents

ERRORS = [
    MemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"),
    OSError(errno.EIO, os.strerror(errno.EIO)),
    PermissionError(errno.EACCES, os.strerror(errno.EACCES)),
    OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
]
BLAME = ("damaged", "fresh copy", "remove", "cannot process", "does not accept", "not a", "pip install", "packed=False")
IMAGES = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)


class Failing(nn.Module):
    """A net that is well made, on a machine that fails while it computes."""

    def __init__(self, fail):
        super().__init__()
        self.layer, self.fail = nn.Linear(3072, 10), fail

    def forward(self, images):
        self.fail()
        return self.layer(images.flatten(1))


def png():
    file = io.BytesIO()
    Image.new("RGB", (32, 32)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    """Return a folder with a finished run, a packed checkpoint and a picture, which no test here changes."""
    folder = tmp_path_factory.mktemp("blame") / "runs"
    shutil.copytree(trained, folder)
    config = {"name": "BinaryNN", "arch": "lenet"}
    checkpoint.save(build("BinaryNN", "lenet"), folder / "packed.safetensors", config, packed=True)
    (folder / "x.png").write_bytes(png())
    return folder


def failing(failure):
    def fail(*_, **__):
        raise failure

    return fail


def own_architecture(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "own", Architecture(lambda scheme: qnn.QuantConv2d(3, 4, 3)))
        build("BinaryNN", "own")


CHECKPOINT = "qathelpers.training.checkpoint"

# The function in whose place the machine fails, and the call that needs it.
PATCHED = {
    "rows of a history": ("numpy.lib.format.read_array", lambda folder: History.load(folder / "BinaryNN.npy")),
    "config of a history": ("json.load", lambda folder: History.load(folder / "BinaryNN.npy")),
    "weights": (f"{CHECKPOINT}.safe_open", lambda folder: checkpoint.load(folder / "BinaryNN.safetensors")),
    "header of weights": ("json.loads", lambda folder: checkpoint.load(folder / "BinaryNN.safetensors")),
    "net of a checkpoint": (f"{CHECKPOINT}.build", lambda folder: checkpoint.load(folder / "BinaryNN.safetensors")),
    "packed weights": (
        "qathelpers.nets.packing.unpack_net",
        lambda folder: checkpoint.load(folder / "packed.safetensors"),
    ),
    "packing": ("qathelpers.nets.packing.pack", lambda folder: packing.check_packing(build("BinaryNN", "lenet"))),
    "a scheme": (
        "brevitas.nn.QuantConv2d",
        lambda folder: Scheme("My", "W1A32", quantizers.BinaryWeight, first_last=None),
    ),
    "an own architecture": ("brevitas.nn.QuantConv2d", own_architecture),
    "a picture": ("PIL.Image.open", lambda folder: pictures.read_picture(folder / "x.png")),
    "an image of CIFAR-10": ("PIL.Image.open", lambda folder: readers._decode(png(), "x.png")),
    "a device": ("torch.empty", lambda folder: hardware.find_device("cpu")),
    "a package": ("importlib.import_module", lambda folder: environment._importer("torch")()),
    "an old checkpoint": (
        "tools.migrate.safe_open",
        lambda folder: migrate.migrate_checkpoint(folder / "BinaryNN.safetensors"),
    ),
}
DATASET = data.Dataset(IMAGES, torch.arange(4) % 2, IMAGES, torch.arange(4) % 2, ("a", "b"), "own")
CALLED = {
    "prediction": lambda fail: training.predict(Failing(fail), IMAGES),
    "training": lambda fail: training.fit(Failing(fail), DATASET, 1, device="cpu"),
    "costs": lambda fail: costs.summary([Failing(fail).eval()], (3, 32, 32)),
    "a file of CIFAR-10": lambda fail: readers.read_batches(fail, "x"),
}


def outcome(call):
    with pytest.raises(Exception) as raised:
        call()
    return raised.value


def assert_not_blamed(error, failure):
    text = errors.sentence(error)
    assert text and not any(word in text for word in BLAME), text
    assert "memory" in text if errors.is_out_of_memory(failure) else failure.strerror in text


@pytest.mark.parametrize(("target", "call"), PATCHED.values(), ids=PATCHED)
def test_the_machine_fails_in_a_library(folder, monkeypatch, target, call):
    before = contents(folder)
    for failure in ERRORS:
        with monkeypatch.context() as patch:
            patch.setattr(target, failing(failure))
            error = outcome(lambda: call(folder))
        assert_not_blamed(error, failure)
    assert contents(folder) == before


@pytest.mark.parametrize("call", CALLED.values(), ids=CALLED)
def test_the_machine_fails_in_a_net_or_a_reader(call):
    for failure in ERRORS:
        assert_not_blamed(outcome(lambda failure=failure: call(failing(failure))), failure)


def test_the_machine_fails_in_an_export(tmp_path):
    pytest.importorskip("onnx")
    from qathelpers.deploy import compare_layers, conversion, onnx_export

    calls = [
        lambda fail: compare_layers._of_net(Failing(fail).eval(), torch.zeros(2, 3, 32, 32)),
        lambda fail: conversion._output(fail, torch.zeros(2, 3, 32, 32), "It failed", "remove it"),
        lambda fail: onnx_export.export(Failing(fail).eval(), tmp_path / "x.onnx", shape=(3, 32, 32)),
    ]
    for failure in ERRORS[:3]:
        for call in calls:
            assert_not_blamed(outcome(lambda call=call, failure=failure: call(failing(failure))), failure)
    assert not list(tmp_path.glob("x.onnx"))


@pytest.mark.parametrize("target", ["numpy.lib.format.read_array", f"{CHECKPOINT}.safe_open"])
def test_a_training_replaces_no_run_that_it_cannot_read(folder, dataset, monkeypatch, target):
    before, net = contents(folder), build("BinaryNN", "lenet")
    for failure, overwrite in zip(ERRORS, (False, True, False, True, True), strict=True):
        with monkeypatch.context() as patch:
            patch.setattr(target, failing(failure))
            error = outcome(
                lambda overwrite=overwrite: training.fit(
                    net, dataset, 3, device="cpu", folder=folder, overwrite=overwrite
                )
            )
        assert_not_blamed(error, failure)
    assert contents(folder) == before


def test_a_mirror_is_not_blamed_for_a_full_memory():
    assert "memory" in download._reason(MemoryError())


def test_what_a_failed_write_leaves_does_not_hide_why_it_failed(tmp_path, monkeypatch):
    def fail(path):
        monkeypatch.setattr(os, "unlink", lambda _: (_ for _ in ()).throw(OSError(errno.EIO, "I/O")))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(CourseError, match=os.strerror(errno.ENOSPC)):
        files.write_atomically(tmp_path / "x", fail)


@pytest.mark.parametrize(
    ("message", "is_memory"),
    [
        ("CUDA error: out of memory", True),
        ("CUDNN_STATUS_ALLOC_FAILED", True),
        ("std::bad_alloc", True),
        ("Failed to allocate memory for requested buffer of size 99", True),
        ("cannot allocate a name for this node", False),
        ("shapes differ", False),
    ],
)
def test_used_up_memory_is_recognized_by_what_libraries_say(message, is_memory):
    assert errors.is_out_of_memory(RuntimeError(message)) == is_memory
    assert not errors.is_out_of_memory(CourseError(message))
