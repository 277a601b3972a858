"""Check that a folder of wheels was made for this Python and system.

The Makefile runs this file before anything is installed, so it uses the standard library only.
`python tools/wheels.py` prints this machine's Python version, system and processor. `python tools/wheels.py FOLDER`
fails with an explanation if the wheels in FOLDER were made for another version, system or processor.
"""

import platform
import sys
from pathlib import Path

NOTE = "made-for.txt"  # in the folder of wheels; `make bundle` writes it


def here() -> str:
    """Return what a compiled wheel has to match: the Python version, the system and the processor."""
    return f"Python {sys.version_info.major}.{sys.version_info.minor} on {platform.system()} {platform.machine()}"


def mismatch(folder: Path) -> str | None:
    """Return why the wheels in `folder` cannot be installed here and what to do, or None if they can be."""
    try:
        made_for = (folder / NOTE).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError) as error:
        return f"{folder / NOTE} cannot be read ({error}): unpack the bundle again, or remove {folder}/."
    if made_for == here():
        return None
    version, separator, system = made_for.removeprefix("Python ").partition(" on ")
    if not separator:
        return f"{folder / NOTE} says {made_for[:80]!r}, not a Python and a system: unpack the bundle again."
    way_out = f"remove {folder}/ to install from the network"
    if here().endswith(system):
        way_out = f"run make PYTHON=python{version}, or {way_out}"
    return f"The packages in {folder}/ were made for {made_for}, but this is {here()}: {way_out}."


def main() -> None:
    """Run the command line described above."""
    if len(sys.argv) == 1:
        print(here())
    else:
        sys.exit(mismatch(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
