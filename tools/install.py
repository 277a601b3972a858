"""Create the environment `.venv` of the course, or do nothing if it is complete.

The Makefile runs this file before anything is installed, so it uses the standard library only. Without make, run
`python tools/install.py`, or `python tools/install.py --help` for the options.

The environment is complete if the file `.venv/.ready` names all wanted extras, the requirements that `pyproject.toml`
has now, and the build of PyTorch, if you ask for one. Times of files do not matter, and a complete environment needs no
network. If the folder of the course was moved or copied, the course is installed again from its new place, because
`qat` and the notebooks would otherwise run the code in the old one.
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
from urllib.parse import unquote_to_bytes, urlsplit
from urllib.request import url2pathname

if __package__:
    from . import wheels
else:  # run as a file
    import wheels

ROOT = Path(__file__).resolve().parent.parent
BUILDS = "https://download.pytorch.org/whl"
CPU_BUILDS = f"{BUILDS}/cpu"  # PyTorch's own index of builds without CUDA
CUDA_BUILDS = f"{BUILDS}/cu130"  # and of builds with CUDA 13.0, also for Windows
FROM_DEFAULT = (
    "pip's default index provides it. On Linux, that build contains CUDA, a download of about 3 GB. (TORCH=cuda asks "
    "for this build directly.)"
)
STAYS = "the build that is installed stays."
OLDEST = (3, 10)
EXTRAS = ("lab", "test")
SETUPTOOLS = "setuptools>=77"  # as in pyproject.toml; with it, a moved course can be installed again without a network

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


def default_has_cuda() -> bool:
    """Return whether pip's default index provides a build of PyTorch with CUDA: only on Linux with an x86 processor."""
    return platform.system() == "Linux" and platform.machine() == "x86_64"


def index_of(choice: str) -> str | None:
    """Return the index of PyTorch that has the wanted build, or None if pip's default index has it.

    Args:
        choice: "cpu", "cuda", or "auto": a build without CUDA where pip's default index has one with CUDA, but the
            machine has no NVIDIA GPU; elsewhere the build of pip's default index.
    """
    if choice == "cuda":
        return None if default_has_cuda() else CUDA_BUILDS
    if choice == "cpu" or (default_has_cuda() and not has_nvidia_gpu()):
        return CPU_BUILDS
    return None


def torch_command(python: Path, pyproject: str, index: str | None, again: bool = False) -> list[str]:
    """Return the command that installs PyTorch from an index; it fails at once if PyTorch's own is out of reach.

    Args:
        python: The Python of the environment.
        pyproject: The text of pyproject.toml, which has the versions of torch and torchvision.
        index: An index of PyTorch, or None for pip's default index.
        again: Replace the installed build, which pip would otherwise accept.
    """
    packages = re.findall(r'^\s*"(torch(?:vision)?[<>=][^"]*)"', pyproject, re.MULTILINE)
    replace = ["--force-reinstall", "--no-deps"] if again else []  # the course's requirements bring what is missing
    source = ["--index-url", index, "--retries", "0", "--timeout", "15"] if index else []
    return [str(python), "-m", "pip", "install", "--quiet", *replace, *source, *packages]


def only_the_index() -> dict[str, str]:
    """Return an environment in which pip asks no other index and looks into no other folder than its options name."""
    others = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CONSTRAINT", "PIP_NO_INDEX")
    kept = {name: value for name, value in os.environ.items() if name not in others}
    return kept | {"PIP_CONFIG_FILE": os.devnull}


def install_torch(python: Path, pyproject: str, choice: str, again: bool) -> str | None:
    """Install PyTorch, unless the course's requirements bring the wanted build; return the build.

    Returns:
        "cpu"; "cuda"; "default" for that of pip's default index on other systems than Linux with an x86 processor; or
        None if another build should be replaced by one for CPUs and their index is out of reach.

    Raises:
        subprocess.CalledProcessError: If the build with CUDA cannot be installed.
    """
    index, default = index_of(choice), "cuda" if default_has_cuda() else "default"
    command = torch_command(python, pyproject, index, again)
    if index == CPU_BUILDS:
        if not subprocess.run(command, env=only_the_index(), capture_output=True).returncode:
            return "cpu"
        print(f"PyTorch could not be installed from {CPU_BUILDS}, so {STAYS if again else FROM_DEFAULT}", flush=True)
        return None if again else default
    if index or again:
        subprocess.run(command, env=only_the_index() if index else None, check=True)
    return "cuda" if index else default


def install(root: Path, extras: list[str], choice: str, found: dict) -> str | None:
    """Install the course with `extras` into the `.venv` of `root`; return the build of PyTorch, None if it is unknown.

    Args:
        root: The checkout.
        extras: Tables of optional dependencies in pyproject.toml.
        choice: "auto", "cpu" or "cuda".
        found: What `.venv/.ready` says.

    Raises:
        subprocess.CalledProcessError: If the packages cannot be installed.
    """
    bundle, build, offline = root / "wheels", found.get("torch"), {}
    if bundle.is_dir() and (reason := wheels.mismatch(bundle)):
        sys.exit(reason)
    subprocess.run([sys.executable, "-m", "venv", str(root / ".venv")], check=True)
    python = python_of(root / ".venv")
    if bundle.is_dir():
        offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(bundle)}
    else:
        pyproject, again = (root / "pyproject.toml").read_text(encoding="utf-8"), wants_another(found, choice)
        known = build if choice == "auto" and build in ("cpu", "cuda") else choice
        new = install_torch(python, pyproject, known, again)
        build = new or build
        if again and new:  # if the next step fails, the environment is not complete any more
            mark(root, "", extras, build)
    command = [str(python), "-m", "pip", "install", "--quiet", SETUPTOOLS, "--editable", f".[{','.join(extras)}]"]
    subprocess.run(command, env=os.environ | offline, cwd=root, check=True)
    return build


def old_place(root: Path) -> Path | None:
    """Return the folder whose code the environment runs, if it is not the one that the environment is in; else None."""
    environment = (root / ".venv").resolve()  # a link shares the environment of another checkout
    folders = [*environment.glob("lib/*/site-packages"), environment / "Lib" / "site-packages"]  # the latter on Windows
    for note in (note for folder in folders for note in folder.glob("qathelpers-*.dist-info/direct_url.json")):
        address = urlsplit(json.loads(note.read_text(encoding="utf-8"))["url"]).path
        # Except on Windows, names are bytes, which the locale may not be able to show.
        name = url2pathname(address) if os.name == "nt" else os.fsdecode(unquote_to_bytes(address))
        if not (os.path.exists(name) and os.path.samefile(name, environment.parent)):
            return Path(name)
    return None


def install_again(root: Path) -> bool:
    """Install the course without its dependencies and without a network; return whether this worked."""
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--editable", "."]
    commands = [
        [sys.executable, "-m", "venv", str(root / ".venv")],  # rewrites `activate`
        [str(python_of(root / ".venv")), "-m", "pip", "install", *options],
    ]
    return not any(subprocess.run(command, cwd=root, capture_output=True).returncode for command in commands)


def wants_another(found: dict, choice: str) -> bool:
    """Return whether another build of PyTorch is asked for than the one that is installed."""
    return bool(found) and choice != "auto" and found.get("torch") != choice


def mark(root: Path, checksum: str, extras: list[str], build: str | None) -> None:
    """Write `.venv/.ready`."""
    ready = {"requirements": checksum, "extras": extras, "torch": build}
    (root / ".venv" / ".ready").write_text(json.dumps(ready), encoding="utf-8")


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
    if choice != "auto" and (root / "wheels").is_dir():
        print(f"The bundle has one build of PyTorch, so the choice of {choice} changes nothing.", flush=True)
        choice = "auto"
    has_all = found.get("requirements") == checksum and set(extras) <= set(found["extras"])
    python = python_of(root / ".venv")
    if os.path.lexists(python) and not os.path.exists(python):
        sys.exit(
            f"{python} points to a Python that is no longer installed: remove .venv (make clean), then run the "
            "command again."
        )
    moved = old_place(root)
    if moved:
        print(f"This environment runs the course in {moved}: installing the course in {root} instead.", flush=True)
    if has_all and not wants_another(found, choice) and (not moved or install_again(root)):
        return
    if choice == "cuda" and platform.system() == "Darwin":
        sys.exit("There is no build of PyTorch with CUDA for macOS: leave TORCH (--torch) at auto.")
    if sys.version_info < OLDEST:
        sys.exit("The course needs Python 3.10 or newer: choose one, as in make PYTHON=python3.12")
    extras = sorted({*extras, *found.get("extras", ())})
    try:
        build = install(root, extras, choice, found)
    except subprocess.CalledProcessError as error:
        sys.exit(
            f"The environment .venv could not be set up (exit code {error.returncode}, see above): check the network, "
            "then run the command again. Without a network, use a bundle (docs/install.md)."
        )
    mark(root, checksum, extras, build)


def main() -> None:
    """Run the command line described above."""
    parser = argparse.ArgumentParser(description="Create the environment .venv, or complete it.")
    parser.add_argument("extras", nargs="*", help="further extras of pyproject.toml, such as deploy")
    help_ = (
        "the build of PyTorch; auto: the installed one, else cpu on Linux without an NVIDIA GPU, else that of pip's "
        "default index; cpu or cuda replaces another one"
    )
    parser.add_argument("--torch", choices=("auto", "cpu", "cuda"), default="auto", help=help_)
    arguments = parser.parse_args()
    complete(ROOT, [*EXTRAS, *arguments.extras], arguments.torch)


if __name__ == "__main__":
    main()
