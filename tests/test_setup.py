import importlib
import os
import shutil
import sys
import types
from collections import namedtuple
from importlib import metadata

import pytest

from qathelpers.common import environment, settings
from qathelpers.common.errors import CourseError


def test_setup_names_versions_and_device(capsys):
    environment.setup()
    output = capsys.readouterr().out
    assert f"torch {metadata.version('torch')}" in output and "trains on" in output


@pytest.fixture
def colab(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))


def test_on_colab_setup_says_where_runs_are_saved(capsys, colab, monkeypatch):
    environment.setup()
    output = capsys.readouterr().out
    assert str(settings.results_dir()) in output and "%env QAT_RESULTS_DIR=" in output
    monkeypatch.setenv("QAT_RESULTS_DIR", f"{environment.DRIVE}/MyDrive/qat")
    environment.setup()
    assert "mount" in capsys.readouterr().out
    monkeypatch.setattr(os.path, "ismount", lambda path: path == environment.DRIVE)
    environment.setup()
    output = capsys.readouterr().out
    assert f"{environment.DRIVE}/MyDrive/qat" in output and "mount" not in output


def test_colab_needs_no_lab(capsys, colab, monkeypatch):
    environment.check()
    assert "jupyterlab" not in capsys.readouterr().out
    monkeypatch.delitem(sys.modules, "google.colab")
    environment.check()
    assert "jupyterlab" in capsys.readouterr().out


def test_further_checks_are_printed_and_count(capsys):
    assert environment.check(lambda: "the data is here")
    assert "[ok]   the data is here" in capsys.readouterr().out

    def fail():
        raise CourseError("do this")

    assert not environment.check(fail, lambda: "and the next one")
    output = capsys.readouterr().out
    assert "[fix]  do this" in output and "[ok]   and the next one" in output


def test_a_package_that_cannot_be_imported_is_named(capsys, monkeypatch):
    def broken(name):
        raise RuntimeError("no such library")

    monkeypatch.setattr(importlib, "import_module", broken)
    assert not environment.check()
    assert "[fix]  brevitas" in capsys.readouterr().out


def test_a_full_disk_is_named(capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: namedtuple("usage", "free")(10**9))
    assert not environment.check()
    assert f"1.0 GB free in {settings.cache_dir()}" in capsys.readouterr().out
