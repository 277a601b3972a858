"""The devices of this machine, and the precisions in which they compute."""

import ctypes
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import metadata
from pathlib import Path

import torch

from .errors import CourseError, is_out_of_memory, raise_if_of_the_machine

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}  # of the precisions in which autocast computes


def best_device() -> torch.device:
    """Return the fastest available device: CUDA, else MPS (Apple), else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def find_device(name: str | torch.device | None) -> torch.device:
    """Return the device called `name`, or the fastest one if `name` is None.

    Raises:
        CourseError: If this machine has no such device.
    """
    try:
        device = torch.device(best_device() if name is None else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:  # AssertionError: PyTorch was built without CUDA
        raise_if_of_the_machine(error)
        raise CourseError(f"Device {name!r} is not available: leave the device out, or choose 'cpu'.") from error
    return device


def bf16_is_fast(device: torch.device) -> bool:
    """Return whether `device` computes bf16 products in hardware; in software, bf16 is far slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):  # since torch 2.10
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def fp16_is_fast(device: torch.device) -> bool:
    """Return whether `device` is an NVIDIA GPU that computes fp16 products in hardware: a V100, a T4, or newer."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0)


def precision(device: torch.device, is_large: bool = False) -> str:
    """Return the precision in which nets are trained on `device`: "bf16" if the hardware has it, else "fp16" or "fp32".

    With bf16 and fp16, only matrix products and convolutions compute in the lower precision; everything else computes
    in fp32. GPUs with fp16 but without bf16, such as the T4, use fp16 for large nets only: with a small net, such a GPU
    mostly waits for the CPU, so fp16 would gain nothing and has a smaller range. Evaluation is always in fp32.

    Args:
        device: Where the net is trained.
        is_large: Whether the net is large (see `training.precision`).
    """
    if bf16_is_fast(device):
        return "bf16"
    return "fp16" if is_large and fp16_is_fast(device) else "fp32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Return a context in which matrix products and convolutions compute in `precision`."""
    return torch.autocast(device.type, DTYPES.get(precision, torch.bfloat16), enabled=precision in DTYPES)


def is_fast(device: torch.device) -> bool:
    """Return whether a training on `device` is short: on a GPU, or on a CPU that computes bf16 in hardware."""
    return device.type != "cpu" or bf16_is_fast(device)


def memory_format(device: torch.device, precision: str = "fp32") -> torch.memory_format:
    """Return the memory format in which convolutions are fastest on `device` in `precision`, and correct.

    On Apple's GPUs, many versions of PyTorch compute wrong gradients of BatchNorm for images in channels-last format
    (pytorch issues 134580 and 175189). On NVIDIA GPUs without bf16, channels-last format is intended for fp16 only
    (pytorch issue 44943).
    """
    is_older_gpu = device.type == "cuda" and not bf16_is_fast(device)
    if device.type == "mps" or (is_older_gpu and precision == "fp32"):
        return torch.contiguous_format
    return torch.channels_last


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute matrix products and convolutions on CUDA in fp32 within this context, without TF32.

    TF32 rounds the inputs of a product to 10 bits of mantissa. In a net with binary activations, such small differences
    flip signs. With a W1A1 net (XnorNN), an NVIDIA H200 predicted another class than a CPU for 4 % of the images in
    TF32, and for none of them in fp32.
    """
    # Not with torch.backends.cudnn.flags: it would disable cuDNN, too, unless it is called with enabled=True.
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    parts = (matmul, getattr(cudnn, "conv", None), getattr(cudnn, "rnn", None))
    # Both the old flags and, in newer releases of PyTorch, the new settings: reading one of them raises an error while
    # the other one says something else.
    wanted = [(part, "allow_tf32", False) for part in (cudnn, matmul)]
    wanted += [(part, "fp32_precision", "ieee") for part in parts if hasattr(part, "fp32_precision")]
    before = [(part, name, _read(part, name)) for part, name, _ in wanted]
    try:
        for part, name, value in wanted:
            setattr(part, name, value)
        yield
    finally:
        for part, name, value in before:
            if value is not None:
                setattr(part, name, value)


def _read(part: object, name: str) -> bool | str | None:
    """Return a setting of PyTorch; None if it cannot be read because the new and the old settings disagree."""
    try:
        return getattr(part, name)
    except RuntimeError:
        return None


def move(net: torch.nn.Module, device: torch.device, memory_format: torch.memory_format) -> None:
    """Move a net to `device`, with the weights of its convolutions in `memory_format`."""
    try:
        net.to(device, memory_format=memory_format)
    except RuntimeError:  # a quantizer that works on groups of weights has tensors of five dimensions
        net.to(device)


@contextmanager
def on_gpu(net: torch.nn.Module) -> Iterator[torch.device]:
    """Compute with `net` on an NVIDIA GPU within this context if there is one, else where it is; yield that device."""
    first = next(net.parameters(), None)
    home = torch.device("cpu") if first is None else first.device
    if home.type != "cpu" or not torch.cuda.is_available():
        yield home
        return
    try:
        net.to("cuda")
        yield torch.device("cuda")
    finally:
        net.to(home)


@contextmanager
def enough_memory(advice: str) -> Iterator[None]:
    """Turn the error of a device without enough free memory into one sentence that ends with `advice`.

    Raises:
        CourseError: If the device runs out of memory within this context.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")
        raise CourseError(f"The device has run out of memory ({reason}): {advice}.") from error


def keep_freed_memory() -> bool:
    """Make glibc keep the memory of freed tensors for new tensors, for the rest of this process.

    By default glibc returns large blocks to the kernel at once. The next training step then asks for blocks of the same
    sizes, and the kernel has to clear their pages again. This takes 10 to 25 % of the time of a step on two cores.

    Returns:
        True if the setting was made; False on systems without glibc.

    Reference:
        mallopt(3), M_MMAP_MAX and M_TRIM_THRESHOLD.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mmap_max, trim_threshold = -4, -1
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(mmap_max, 0) and libc.mallopt(trim_threshold, 2**31 - 1))


def release_freed_memory() -> bool:
    """Return the memory of freed tensors to the operating system, after work that needed much of it.

    `keep_freed_memory` keeps this memory during a training. Without this call, a notebook's kernel would hold it for as
    long as the notebook is open: about 0.4 GB after the training in 00.

    Returns:
        True if memory was released; False if there was none, and on systems without glibc.

    Reference:
        malloc_trim(3).
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    return bool(ctypes.CDLL(None).malloc_trim(0))


def describe(device: torch.device) -> str:
    """Return the name of the hardware behind `device`, for example "AMD EPYC, 2 threads"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {torch.get_num_threads()} threads" + (", MPS" if device.type == "mps" else "")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages on which the result of a training depends."""
    return {"python": platform.python_version()} | {
        package: metadata.version(package) for package in ("torch", "brevitas", "numpy")
    }


def _processor() -> str:
    if sys.platform == "darwin":
        return subprocess.run(
            ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True
        ).stdout.strip()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or f"{os.cpu_count()} cores"
