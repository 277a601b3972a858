"""Make one archive for a USB stick: the course, the packages for this Python and system, and CIFAR-10.

The bundle holds the last commit, so that no unfinished change is handed out. If there is no CIFAR-10, it is left out.
Run it as `python -m tools.bundle`, or as `make bundle`.
"""

import shutil
import subprocess
import sys
import tarfile
from importlib import metadata
from pathlib import Path

from qathelpers import data
from qathelpers.common.errors import CourseError
from qathelpers.common.files import write_atomically
from qathelpers.data.cifar10 import cache_file

from . import install, wheels
from .commands import CHECKOUT

NAME = "qat-course"


def main() -> None:
    """Write build/qat-course.tar."""
    build = CHECKOUT / "build"
    folder, archive = build / NAME, build / f"{NAME}.tar"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    checkout(folder)
    collect_wheels(folder)
    copy_data(folder)
    write_atomically(archive, lambda path: _pack(folder, path))  # an older bundle stays until this one is complete
    shutil.rmtree(folder)
    print(f"{archive} is for {wheels.here()}.")


def _pack(folder: Path, archive: Path) -> None:
    with tarfile.open(archive, "w") as file:
        file.add(folder, NAME)


def checkout(folder: Path) -> None:
    """Unpack the last commit into `folder`."""
    packed = folder.with_suffix(".commit.tar")
    subprocess.run(["git", "archive", "--output", str(packed), "HEAD"], cwd=CHECKOUT, check=True)
    with tarfile.open(packed) as file:
        # Python 3.10 to 3.10.11 has no filters; the archive is our own commit, so it needs none there.
        options = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        file.extractall(folder, **options)  # noqa: S202
    packed.unlink()


def collect_wheels(folder: Path) -> None:
    """Collect all packages that `make lab` and `make test` need, with the build of PyTorch that is installed here."""
    there = folder / "wheels"
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(there)]
    torch = [f"{name}=={metadata.version(name)}" for name in ("torch", "torchvision")]
    if build := metadata.version("torch").partition("+")[2]:  # such as cpu or cu130, from PyTorch's own index
        subprocess.run([*pip, "--index-url", f"{install.BUILDS}/{build}", *torch], check=True)
    links = ["--find-links", str(there)]
    subprocess.run([*pip, *links, f"{folder}[{','.join(install.EXTRAS)}]", *torch, "setuptools", "wheel"], check=True)
    for left in (*there.glob("qathelpers-*"), folder / "build", *folder.glob("*.egg-info")):
        shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    (there / wheels.NOTE).write_text(f"{wheels.here()}\n", encoding="utf-8")


def copy_data(folder: Path) -> None:
    """Copy the verified CIFAR-10 into the bundle, or say that there is none."""
    try:
        data.load("cifar10")
    except CourseError as error:
        print(f"{error} The bundle has no CIFAR-10: where it is unpacked, the course uses drawn shapes instead.")
        return
    target = folder / "data" / "cifar10" / cache_file().name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(cache_file(), target)


if __name__ == "__main__":
    main()
