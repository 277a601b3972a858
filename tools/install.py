"""Create the environment `.venv` of the course, or do nothing if it is complete.

The Makefile runs this file before anything is installed, so it uses the standard library only. Without make, run
`python tools/install.py`, or `python tools/install.py --help` for the options.

The environment is complete if the file `.venv/.ready` names all wanted extras and the requirements that
`pyproject.toml` has now. Times of files do not matter, and a complete environment needs no network.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

if __package__:
    from . import wheels
else:  # run as a file
    import wheels

ROOT = Path(__file__).resolve().parent.parent
CPU_BUILDS = "https://download.pytorch.org/whl/cpu"  # PyTorch's own index of builds without CUDA
OLDEST = (3, 10)
EXTRAS = ("lab", "test")

# The tables of pyproject.toml that say what is installed; an address or a setting of ruff changes nothing.
TABLES = ("build-system", "project", "project.optional-dependencies", "project.scripts", "tool.setuptools")


def requirements(pyproject: str) -> str:
    """Return a checksum of those tables of a pyproject.toml that say what is installed; comments do not count."""
    kept, table = [], ""
    for line in pyproject.splitlines():
        header = re.match(r"\[([\w.\"-]+)\]", line)
        table = header[1] if header else table
        if table in TABLES and line.strip() and not line.lstrip().startswith("#"):
            kept.append(line.strip())
    return hashlib.sha256("\n".join(kept).encode()).hexdigest()


def has_nvidia_gpu() -> bool:
    """Return whether the driver of NVIDIA finds a GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    listed = subprocess.run([program, "-L"], capture_output=True, text=True)
    return listed.returncode == 0 and "GPU" in listed.stdout


def takes_cpu_build(choice: str) -> bool:
    """Return whether to ask for a build of PyTorch without CUDA.

    Args:
        choice: "cpu", "cuda", or "auto": only on Linux with an x86 processor does pip's default index provide a build
            with CUDA, and there a machine without an NVIDIA GPU needs none.
    """
    if choice != "auto":
        return choice == "cpu"
    return platform.system() == "Linux" and platform.machine() == "x86_64" and not has_nvidia_gpu()


def cpu_command(python: Path, pyproject: str) -> list[str]:
    """Return the command that installs PyTorch from the index of CPU builds; it fails fast without access to it.

    Args:
        python: The Python of the environment.
        pyproject: The text of pyproject.toml, which has the versions of torch and torchvision.
    """
    packages = re.findall(r'^\s*"(torch(?:vision)?[<>=][^"]*)"', pyproject, re.MULTILINE)
    index = ["--index-url", CPU_BUILDS, "--retries", "0", "--timeout", "15"]
    return [str(python), "-m", "pip", "install", "--quiet", *index, *packages]


def only_the_index() -> dict[str, str]:
    """Return an environment in which pip asks no other index and looks into no other folder than its options name."""
    others = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CONSTRAINT", "PIP_NO_INDEX")
    kept = {name: value for name, value in os.environ.items() if name not in others}
    return kept | {"PIP_CONFIG_FILE": os.devnull}


def install(root: Path, extras: list[str], choice: str) -> None:
    """Install the course with `extras` into the `.venv` of `root`.

    Raises:
        subprocess.CalledProcessError: If the packages cannot be installed.
    """
    bundle = root / "wheels"
    if bundle.is_dir() and (reason := wheels.mismatch(bundle)):
        sys.exit(reason)
    subprocess.run([sys.executable, "-m", "venv", str(root / ".venv")], check=True)
    python, offline = python_of(root / ".venv"), {}
    if bundle.is_dir():
        offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(bundle)}
    elif takes_cpu_build(choice):
        pyproject = (root / "pyproject.toml").read_text(encoding="utf-8")
        tried = subprocess.run(cpu_command(python, pyproject), env=only_the_index(), capture_output=True)
        if tried.returncode:
            print(
                f"PyTorch could not be installed from {CPU_BUILDS}, so pip's default index provides it. On Linux, that "
                "build contains CUDA, a download of about 3 GB. (TORCH=cuda asks for this build directly.)",
                flush=True,
            )
    command = [str(python), "-m", "pip", "install", "--quiet", "--editable", f".[{','.join(extras)}]"]
    subprocess.run(command, env=os.environ | offline, cwd=root, check=True)


def python_of(environment: Path) -> Path:
    """Return the Python of a virtual environment."""
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def installed(root: Path) -> dict:
    """Return what `.venv/.ready` says: the checksum of the requirements, and the extras; nothing if it is missing."""
    try:
        found = json.loads((root / ".venv" / ".ready").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # ValueError: the file of an older version of the course, which is empty
        return {}
    return found if isinstance(found, dict) else {}


def complete(root: Path, extras: list[str], choice: str = "auto") -> None:
    """Install what the `.venv` of `root` lacks; do nothing if it lacks nothing."""
    found = installed(root)
    checksum = requirements((root / "pyproject.toml").read_text(encoding="utf-8"))
    if found.get("requirements") == checksum and set(extras) <= set(found["extras"]):
        return
    if sys.version_info < OLDEST:
        sys.exit("The course needs Python 3.10 or newer: choose one, as in make PYTHON=python3.12")
    extras = sorted({*extras, *found.get("extras", ())})
    try:
        install(root, extras, choice)
    except subprocess.CalledProcessError as error:
        sys.exit(
            f"The environment .venv could not be set up (exit code {error.returncode}, see above): check the network, "
            "then run the command again. Without a network, use a bundle (docs/install.md)."
        )
    ready = {"requirements": checksum, "extras": extras}
    (root / ".venv" / ".ready").write_text(json.dumps(ready), encoding="utf-8")


def main() -> None:
    """Run the command line described above."""
    parser = argparse.ArgumentParser(description="Create the environment .venv, or complete it.")
    parser.add_argument("extras", nargs="*", help="further extras of pyproject.toml, such as deploy")
    help_ = "the build of PyTorch; auto: cpu on Linux without an NVIDIA GPU, else that of pip's default index"
    parser.add_argument("--torch", choices=("auto", "cpu", "cuda"), default="auto", help=help_)
    arguments = parser.parse_args()
    complete(ROOT, [*EXTRAS, *arguments.extras], arguments.torch)


if __name__ == "__main__":
    main()
