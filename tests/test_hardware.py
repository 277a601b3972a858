import platform
import subprocess
import sys

import pytest

from qathelpers import hardware

PAGE_FAULTS = """
import resource, sys, torch
from qathelpers import hardware
if sys.argv[1] == "keep":
    assert hardware.keep_freed_memory()
for _ in range(10):
    torch.ones(10_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(10_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the setting")
def test_freed_memory_is_used_again_without_the_kernel():
    """40 MB are 10,000 pages, or 20 huge ones: without the setting each repetition faults on all of them again."""
    faults = {
        way: int(subprocess.run([sys.executable, "-c", PAGE_FAULTS, way], capture_output=True, text=True).stdout)
        for way in ("leave", "keep")
    }
    assert faults["keep"] < faults["leave"] / 5


def test_elsewhere_memory_is_left_to_the_system(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert hardware.keep_freed_memory() is False


def test_the_hardware_has_a_name():
    assert "threads" in hardware.describe(hardware.torch.device("cpu"))
