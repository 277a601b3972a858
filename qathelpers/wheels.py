"""Which Python and system this is, and whether a folder of wheels was made for it.

The Makefile runs it before anything is installed, so it needs nothing beside Python itself: `python wheels.py` prints
what this is, `python wheels.py FOLDER` ends with a sentence where the wheels in FOLDER are for another.
"""

import platform
import sys
from pathlib import Path

NOTE = "made-for.txt"  # beside the wheels; `make bundle` writes it


def here() -> str:
    """Return what compiled wheels depend on: Python's version, the system and its processor."""
    return f"Python {sys.version_info.major}.{sys.version_info.minor} on {platform.system()} {platform.machine()}"


def misfit(folder: Path) -> str | None:
    """Return a sentence where the wheels in `folder` are for another Python or system, else None."""
    wanted = (folder / NOTE).read_text().strip()
    if wanted == here():
        return None
    version, system = wanted.removeprefix("Python ").split(" on ")
    if here().endswith(system):
        way_out = f"make PYTHON=python{version}, or remove {folder}/ to install from the network"
    else:
        way_out = f"remove {folder}/ to install from the network"
    return f"The packages in {folder}/ are for {wanted}, and this is {here()}: {way_out}."


if __name__ == "__main__":
    if len(sys.argv) == 1:
        print(here())
    else:
        sys.exit(misfit(Path(sys.argv[1])))
