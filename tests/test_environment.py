import importlib.metadata
import importlib.util
import itertools
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from qathelpers.__main__ import main as qat
from qathelpers.common import settings

if sys.version_info < (3, 11):
    pytest.skip("needs tomllib", allow_module_level=True)
import tomllib

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]


# What the notebooks import, and what is needed to open and test them.
NEEDED = {"torch", "torchvision", "brevitas", "numpy", "matplotlib", "jupyterlab", "nbval", "ipywidgets"}


def names(requirements):
    return {Requirement(requirement).name for requirement in requirements}


def test_conda_users_get_what_pip_users_get():
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    items = [line.strip().removeprefix("- ") for line in text.splitlines() if line.strip().startswith("- ")]
    assert items[items.index("pip:") + 1 :] == ["--editable .[lab]"]
    assert f"python{PROJECT['requires-python']}" in items


def test_everything_that_the_notebooks_need_is_installed():
    assert names([*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["lab"]]) >= NEEDED


def test_tests_and_tools_can_be_imported_with_the_extras_that_make_installs():
    extras = [PROJECT["optional-dependencies"][extra] for extra in ("lab", "test")]
    assert {"nbclient", "nbconvert", "nbformat", "pytest", "ruff"} <= names(itertools.chain(*extras))


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


def targets():
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))


def test_the_pages_name_only_commands_that_the_makefile_has():
    pages = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "notebooks" / "INSTRUCTORS.md",
        *ROOT.glob("docs/*.md"),
    ]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", text, re.M))
    assert {"run", "test", "lab", "notebooks"} <= named <= targets()


def test_every_target_has_a_command_without_make():
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `make ([a-z]+)` \| (.+) \|$", page, re.M))
    assert set(rows) == targets()
    commands = " ".join(rows.values())
    assert set(re.findall(r"`qat ([a-z]+)`", commands)) <= set(qat.commands)
    for module in re.findall(r"`python -m (tools\.\w+)", commands):
        assert importlib.util.find_spec(module), module
    for file in re.findall(r"`python (\S+\.py)`", commands):
        assert (ROOT / file).is_file(), file


def test_a_wheel_has_every_module_the_recorded_runs_and_the_license_and_nothing_else(tmp_path):
    source = tmp_path / "course"
    shutil.copytree(ROOT / "qathelpers", source / "qathelpers", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "data", source / "data", ignore=shutil.ignore_patterns("cifar10.safetensors"))
    (source / "data" / "cifar10").mkdir(exist_ok=True)
    (source / "data" / "cifar10" / "cifar10.safetensors").touch()
    shutil.copytree(ROOT / "tools", source / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "LICENSE-CC-BY-4.0"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*command, tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    files = set(zipfile.ZipFile(wheel).namelist())
    found = (path for kind in ("results", "checkpoints") for path in (ROOT / "data" / kind).rglob("*"))
    recorded = {f"qathelpers/recorded/{path.relative_to(ROOT / 'data').as_posix()}" for path in found if path.is_file()}
    shipped = [path for kind in ("py", "c", "html") for path in (ROOT / "qathelpers").rglob(f"*.{kind}")]
    modules = {path.relative_to(ROOT).as_posix() for path in shipped}
    about = {file for file in files if file.split("/")[0].endswith(".dist-info")}
    assert recorded and files - about == recorded | modules
    assert [file.rpartition("/")[2] for file in about if "LICENSE" in file] == ["LICENSE"]


def test_the_licenses_are_complete():
    text = (ROOT / "LICENSE-CC-BY-4.0").read_text(encoding="utf-8")
    assert re.findall(r"^Section (\d) --", text, re.MULTILINE) == list("12345678")
    code = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Redistribution and use in source and binary forms" in code and "Neither the name of" in code
    assert all("Copyright (c) 2026, the authors of this course" in license for license in (text, code))


def test_without_a_checkout_the_installed_runs_are_found(tmp_path, monkeypatch):
    assert settings.recorded_dir() == ROOT / "data"
    monkeypatch.setattr(settings, "PACKAGE", tmp_path / "qathelpers")
    assert settings.recorded_dir() == tmp_path / "qathelpers" / "recorded"
