import importlib.metadata
import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

if sys.version_info < (3, 11):
    pytest.skip("needs tomllib", allow_module_level=True)
import tomllib

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_conda_and_pip_users_get_the_same():
    text = (ROOT / "environment.yml").read_text()
    items = [line.strip().removeprefix("- ") for line in text.splitlines() if line.strip().startswith("- ")]
    packages = items[items.index("pip:") + 1 :]
    assert packages == [*PROJECT["dependencies"], "--editable .[test]"]
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
    for requirement in map(Requirement, PROJECT["dependencies"]):
        assert importlib.metadata.version(requirement.name) in requirement.specifier


def test_the_readme_names_the_commands_that_the_makefile_has():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", (ROOT / "README.md").read_text(), re.M))
    assert {"run", "test", "lab", "notebooks"} <= named <= targets
