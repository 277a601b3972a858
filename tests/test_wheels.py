import subprocess
import sys

import pytest

from tools import wheels


@pytest.fixture
def folder(tmp_path):
    (tmp_path / wheels.NOTE).write_text(f"{wheels.here()}\n", encoding="utf-8")
    return tmp_path


def test_wheels_made_here_fit(folder):
    assert wheels.mismatch(folder) is None


def test_for_wheels_of_another_python_that_python_is_suggested(folder):
    _, system = wheels.here().split(" on ")
    (folder / wheels.NOTE).write_text(f"Python 3.99 on {system}\n", encoding="utf-8")
    sentence = wheels.mismatch(folder)
    assert f"Python 3.99 on {system}" in sentence and wheels.here() in sentence and "make PYTHON=python3.99" in sentence


def test_for_wheels_of_another_system_no_python_is_suggested(folder):
    python, _ = wheels.here().split(" on ")
    (folder / wheels.NOTE).write_text(f"{python} on Plan9 pdp11\n", encoding="utf-8")
    assert "on Plan9 pdp11" in wheels.mismatch(folder) and "make PYTHON" not in wheels.mismatch(folder)


def test_it_runs_before_anything_is_installed(folder):
    def call(*arguments):
        command = [sys.executable, "-I", "-S", wheels.__file__, *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    assert call().stdout.strip() == wheels.here()
    assert call(str(folder)).returncode == 0
    (folder / wheels.NOTE).write_text("Python 3.99 on Plan9 pdp11\n", encoding="utf-8")
    assert call(str(folder)).returncode == 1 and "Plan9" in call(str(folder)).stderr
