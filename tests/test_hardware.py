import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qathelpers import training
from qathelpers.common import hardware
from qathelpers.common.errors import CourseError
from qathelpers.data import normalize
from qathelpers.nets import build

from . import processes

PAGE_FAULTS = """
import resource, sys, torch
from qathelpers.common import hardware
if sys.argv[1] == "keep":
    assert hardware.keep_freed_memory()
for _ in range(10):
    torch.ones(10_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(10_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the setting")
def test_freed_memory_is_used_again_without_the_kernel():
    """A tensor of 40 MB has 10,000 pages, or 20 huge ones; without the setting, each repetition faults on all again."""
    faults = {
        way: int(subprocess.run([sys.executable, "-c", PAGE_FAULTS, way], capture_output=True, text=True).stdout)
        for way in ("leave", "keep")
    }
    assert faults["keep"] < faults["leave"] / 5


def test_elsewhere_memory_is_left_to_the_system(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert hardware.keep_freed_memory() is False


def resident():
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


def release(rank):
    hardware.keep_freed_memory()
    blocks = [torch.ones(250_000) for _ in range(200)]
    last = torch.ones(1000)  # without a block at the end, the heap would shrink by itself
    del blocks
    before = resident()
    hardware.release_freed_memory()
    assert before - resident() > 100_000_000 and len(last)  # of 200 MB


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the function")
def test_freed_memory_goes_back_to_the_system():
    processes.run(1, release)


def test_without_glibc_no_memory_is_released(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert hardware.release_freed_memory() is False


def test_the_hardware_has_a_name():
    assert "threads" in hardware.describe(torch.device("cpu"))


@pytest.fixture
def tf32():
    """Allow TF32 everywhere, and return a function that tells whether it is allowed."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    cudnn.allow_tf32 = matmul.allow_tf32 = True
    yield lambda: (cudnn.allow_tf32, matmul.allow_tf32)
    cudnn.allow_tf32, matmul.allow_tf32 = before


def test_full_precision_switches_tf32_off_and_then_back(tf32):
    enabled = torch.backends.cudnn.enabled
    with pytest.raises(KeyError), hardware.full_precision():
        assert tf32() == (False, False) and torch.backends.cudnn.enabled == enabled
        raise KeyError
    assert tf32() == (True, True)


CUDNN, MATMUL = torch.backends.cudnn, torch.backends.cuda.matmul
NEW_SETTINGS = {
    "matrix products": [(MATMUL, "fp32_precision", "tf32")],
    "convolutions": [(getattr(CUDNN, "conv", None), "fp32_precision", "ieee")],
    "everything": [(torch.backends, "fp32_precision", "tf32")],
    "nothing": [],
    "the old flags": [(CUDNN, "allow_tf32", True), (MATMUL, "allow_tf32", True)],
}


def read_settings():
    return [part.fp32_precision for part in (MATMUL, CUDNN.conv, CUDNN.rnn, CUDNN, torch.backends)]


def compute(rank, name):
    for part, setting, value in NEW_SETTINGS[name]:
        setattr(part, setting, value)
    before = read_settings()
    with hardware.full_precision():
        assert read_settings()[:3] == ["ieee"] * 3
        assert (CUDNN.allow_tf32, MATMUL.allow_tf32) == (False, False)  # and neither raises an error
    assert read_settings() == before
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    normalize(images)
    assert training.predict(build("PytorchNN", "lenet"), images).shape == (2, 10)
    assert read_settings() == before


@pytest.mark.skipif(not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="a release without new settings")
@pytest.mark.parametrize("name", NEW_SETTINGS)
def test_it_works_with_the_new_settings_of_tf32_and_puts_them_back(name):
    processes.run(1, compute, name)


def test_no_channels_last_on_apple_gpus():
    formats = [hardware.memory_format(torch.device(name)) for name in ("mps", "cpu")]
    assert formats == [torch.contiguous_format, torch.channels_last]


@pytest.mark.parametrize(
    ("capability", "small", "large"),
    [
        ((6, 1), "fp32", "fp32"),
        ((7, 0), "fp32", "fp16"),  # V100
        ((7, 5), "fp32", "fp16"),  # T4
        ((8, 0), "bf16", "bf16"),  # A100
        ((9, 0), "bf16", "bf16"),
        ((12, 0), "bf16", "bf16"),
    ],
    ids=str,
)
def test_gpus_without_bf16_compute_large_nets_in_fp16_and_channels_last(capability, small, large, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    gpu = torch.device("cuda")
    assert [hardware.precision(gpu, is_large) for is_large in (False, True)] == [small, large]
    for precision in (small, large):
        is_last = hardware.memory_format(gpu, precision) == torch.channels_last
        assert is_last == (precision != "fp32")


def test_a_whole_training_and_predictions_use_the_memory_format_of_the_device(tiny, monkeypatch):
    monkeypatch.setattr(hardware, "memory_format", lambda *_: torch.contiguous_format)
    net, seen = build("BinaryNN", "convnet-x0.2"), []
    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.BatchNorm2d):
            layer.register_forward_hook(lambda layer, inputs, _: seen.extend((inputs[0], *layer.parameters())))
    training.fit(net, tiny.take(40, 20), 1, device="cpu", log=lambda line: None, on_batch=lambda share: None)
    training.predict(net, tiny.test_images[:20])
    assert len(seen) > 20 and all(tensor.is_contiguous() for tensor in seen)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee documentation"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.06 GB)"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"),
    ],
    ids=lambda error: str(error)[:4],
)
def test_used_up_memory_is_one_sentence_that_names_the_batch_size(error, tiny):
    def fail(*_):
        raise error

    net = build("PytorchNN", "lenet")
    net.register_forward_pre_hook(fail)
    calls = {
        256: lambda: training.fit(net, tiny, 1, device="cpu", on_batch=lambda share: None),
        123: lambda: training.predict(net, tiny.test_images, 123),
    }
    for batch_size, call in calls.items():
        with pytest.raises(CourseError, match=rf"batch_size.*\b{batch_size}\b") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_another_error_stays_what_it_is():
    with pytest.raises(RuntimeError, match="shape") as caught, hardware.enough_memory("never"):
        raise RuntimeError("shapes differ")
    assert not isinstance(caught.value, CourseError)


def test_an_unknown_device_is_named():
    with pytest.raises(CourseError, match="tpu"):
        hardware.find_device("tpu")
