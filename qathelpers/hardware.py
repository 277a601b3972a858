"""What this machine is and what it is fast at."""

import ctypes
import os
import platform
import subprocess
import sys
from contextlib import AbstractContextManager
from importlib import metadata
from pathlib import Path

import torch

from .errors import CourseError


def best_device() -> torch.device:
    """Return the fastest device there is: CUDA, else MPS (Apple), else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def find_device(name: str | torch.device | None) -> torch.device:
    """Return the device `name`, or the fastest (None); raises CourseError when this machine has no such device."""
    try:
        device = torch.device(name or best_device())
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:  # PyTorch built without CUDA asserts
        raise CourseError(f"There is no device {name!r} here: leave the device out, or take 'cpu'.") from error
    return device


def bf16_is_fast(device: torch.device) -> bool:
    """Return whether `device` multiplies bfloat16 in hardware; emulated it is far slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):  # since torch 2.10
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def autocast(device: torch.device) -> AbstractContextManager:
    """Return a context in which convolutions compute in bfloat16 where that is fast."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16_is_fast(device))


def keep_freed_memory() -> bool:
    """Let glibc keep what tensors free for the next ones, in this process; returns whether this system has glibc.

    It returns large blocks to the kernel at once otherwise, and a training step asks for the same ones again, whose
    pages the kernel then clears one by one: 10 to 25 % of a step's time on two cores.
    Source: mallopt(3), M_MMAP_MAX and M_TRIM_THRESHOLD.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mmap_max, trim_threshold = -4, -1
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(mmap_max, 0) and libc.mallopt(trim_threshold, 2**31 - 1))


def describe(device: torch.device) -> str:
    """Return the hardware behind `device` in a few words, such as "AMD EPYC, 2 threads"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {torch.get_num_threads()} threads" + (", MPS" if device.type == "mps" else "")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide a training's result."""
    return {"python": platform.python_version()} | {
        package: metadata.version(package) for package in ("torch", "brevitas", "numpy")
    }


def _processor() -> str:
    if sys.platform == "darwin":
        return subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True
        ).stdout.strip()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or f"{os.cpu_count()} cores"
