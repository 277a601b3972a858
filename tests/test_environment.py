import importlib.metadata
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from qathelpers import settings

if sys.version_info < (3, 11):
    pytest.skip("needs tomllib", allow_module_level=True)
import tomllib

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT, SETUPTOOLS = PYPROJECT["project"], PYPROJECT["tool"]["setuptools"]


def test_conda_and_pip_users_get_the_same():
    text = (ROOT / "environment.yml").read_text()
    items = [line.strip().removeprefix("- ") for line in text.splitlines() if line.strip().startswith("- ")]
    packages = items[items.index("pip:") + 1 :]
    assert packages == [*PROJECT["dependencies"], "--editable .[lab,test]"]
    assert f"python{PROJECT['requires-python']}" in items


def test_colabs_versions_satisfy_the_ranges():
    ranges = {r.name: r.specifier for r in map(Requirement, PROJECT["dependencies"])}
    colab = {
        "torch": "2.11.0",
        "torchvision": "0.26.0",
        "numpy": "2.1.3",
        "matplotlib": "3.10.0",
        "ipywidgets": "7.7.1",
    }
    for name, version in colab.items():
        assert version in ranges[name], name


def test_what_is_installed_satisfies_the_ranges():
    for requirement in map(Requirement, [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["lab"]]):
        assert importlib.metadata.version(requirement.name) in requirement.specifier


def test_the_readme_names_the_commands_that_the_makefile_has():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", (ROOT / "README.md").read_text(), re.M))
    assert {"run", "test", "lab", "notebooks"} <= named <= targets


def test_every_package_is_installed():
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "qathelpers").rglob("*.py")}
    names = {".".join(folder.parts) for folder in folders}
    assert {*names, "qathelpers.recorded"} == set(SETUPTOOLS["packages"])


def test_the_recorded_runs_are_installed_and_no_data(tmp_path):
    source = tmp_path / "course"
    shutil.copytree(ROOT / "qathelpers", source / "qathelpers", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "data", source / "data", ignore=shutil.ignore_patterns("cifar10.safetensors"))
    (source / "data" / "cifar10").mkdir(exist_ok=True)
    (source / "data" / "cifar10" / "cifar10.safetensors").touch()
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*command, tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("qathelpers/recorded/")}
    found = (path for kind in ("results", "checkpoints") for path in (ROOT / "data" / kind).rglob("*"))
    recorded = [path for path in found if path.is_file()]
    assert recorded and names == {f"qathelpers/recorded/{path.relative_to(ROOT / 'data')}" for path in recorded}


def test_without_a_checkout_the_installed_runs_are_found(tmp_path, monkeypatch):
    assert settings.recorded_dir() == ROOT / "data"
    monkeypatch.setattr(settings, "PACKAGE", tmp_path / "qathelpers")
    assert settings.recorded_dir() == tmp_path / "qathelpers" / "recorded"
