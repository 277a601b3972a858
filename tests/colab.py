"""Execute every notebook as on Colab; run colab.sh, which makes the environment for this script and starts it."""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

COLABS = ("torch", "torchvision", "numpy", "matplotlib", "pandas", "ipywidgets", "ipython", "ipykernel")
VERSIONS = f"from importlib.metadata import version; print(*(f'{{name}} {{version(name)}}' for name in {COLABS}))"
IS_THERE = "import importlib.util; print(importlib.util.find_spec('qathelpers') is not None)"
INSTALLED = "Note: you may need to restart the kernel"  # what IPython says after %pip


def python(*arguments: str) -> str:
    return subprocess.check_output([sys.executable, *arguments], text=True, cwd="/").strip()


def printed(cell: NotebookNode) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


def prepared(path: Path, address: str) -> NotebookNode:
    """Return the notebook with the address to install the package from, and with its setup cell twice."""
    notebook = nbformat.read(path, as_version=4)
    setup = notebook.cells[1]
    setup.source, count = re.subn(r'ADDRESS = "[^"]*"', f'ADDRESS = "{address}"', setup.source)
    assert count == 1, f"{path.name} has no setup cell"
    notebook.cells.insert(2, nbformat.v4.new_code_cell(setup.source))
    return notebook


def execute(notebook: NotebookNode, folder: Path, *files: Path) -> None:
    """Run the notebook in a folder that has no other files than `files`."""
    folder.mkdir(parents=True)
    nbformat.write(notebook, folder / "notebook.ipynb")
    for file in files:
        shutil.copy(file, folder)
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()


def check_setup(first: str, second: str) -> None:
    """Check that the setup cell installed the course, and that the second time it only printed the device again."""
    assert INSTALLED in first, first
    assert INSTALLED not in second and "trains on" in second and "Runs are saved in" in second, second
    assert first.endswith(second), first


def main(way: str, source: str, notebooks: Path, scratch: Path) -> None:
    """Run half of the notebooks.

    Args:
        way: "git" or "wheel". Notebook 00 is installed from git, 01 from the wheel, and so on.
        source: The address of a repository, or the path of a wheel, which is put beside each notebook.
        notebooks: The folder of the notebooks.
        scratch: A folder for what they write.
    """
    before = python("-c", VERSIONS)
    print(before)
    address, files = (source, ()) if way == "git" else ("", (Path(source),))
    for path in sorted(notebooks.glob("*.ipynb"))[("git", "wheel").index(way) :: 2]:
        assert python("-c", IS_THERE) == "False", "the course was there before it was installed"
        start, notebook = time.perf_counter(), prepared(path, address)
        execute(notebook, scratch / "content" / path.stem, *files)
        check_setup(*map(printed, notebook.cells[1:3]))
        print(f"{path.stem} from {way}: {time.perf_counter() - start:.0f} s", flush=True)
        if path.name.startswith("00"):  # after the kernel was restarted, the course is still installed
            notebook.cells = notebook.cells[2:3]
            execute(notebook, scratch / "content" / "restarted")
            assert INSTALLED not in printed(notebook.cells[0])
        python("-m", "pip", "uninstall", "--quiet", "--yes", "qathelpers")
    assert python("-c", VERSIONS) == before, f"the setup cell changed Colab's packages: {python('-c', VERSIONS)}"
    assert list((scratch / "drive").rglob("*.npy")), "no run was saved where QAT_RESULTS_DIR says"
    assert not list((scratch / "content").rglob("runs")), "runs were saved elsewhere than QAT_RESULTS_DIR says"


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(Path, sys.argv[3:]))
