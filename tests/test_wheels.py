import subprocess
import sys

import pytest

from qathelpers import wheels


@pytest.fixture
def folder(tmp_path):
    (tmp_path / wheels.NOTE).write_text(f"{wheels.here()}\n")
    return tmp_path


def test_wheels_made_here_fit(folder):
    assert wheels.misfit(folder) is None


def test_wheels_for_another_python_name_it(folder):
    _, system = wheels.here().split(" on ")
    (folder / wheels.NOTE).write_text(f"Python 3.99 on {system}\n")
    sentence = wheels.misfit(folder)
    assert f"are for Python 3.99 on {system}, and this is {wheels.here()}: make PYTHON=python3.99, or" in sentence


def test_wheels_for_another_system_are_of_no_use(folder):
    python, _ = wheels.here().split(" on ")
    (folder / wheels.NOTE).write_text(f"{python} on Plan9 pdp11\n")
    assert "on Plan9 pdp11" in wheels.misfit(folder) and "make PYTHON" not in wheels.misfit(folder)


def test_it_runs_before_anything_is_installed(folder):
    def call(*arguments):
        command = [sys.executable, "-I", "-S", wheels.__file__, *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    assert call().stdout.strip() == wheels.here()
    assert call(str(folder)).returncode == 0
    (folder / wheels.NOTE).write_text("Python 3.99 on Plan9 pdp11\n")
    assert call(str(folder)).returncode == 1 and "Plan9" in call(str(folder)).stderr
