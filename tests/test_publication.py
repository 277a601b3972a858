"""What others need to use, cite and change the course: its version, its citation, its issue form and its picture."""

import importlib.util
import json
import os
import re
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from packaging.requirements import Requirement

from qathelpers import results
from tools import install, picture

if sys.version_info < (3, 11):
    pytest.skip("needs tomllib", allow_module_level=True)
import tomllib

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_citation_and_changelog_have_the_version_of_the_package():
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["version"] == PROJECT["version"]
    newest = re.search(r"^## (\S+) \((\d{4}-\d\d-\d\d)\)", read("CHANGELOG.md"), re.MULTILINE)
    assert newest.groups() == (citation["version"], str(citation["date-released"]))


def test_the_citation_has_what_its_format_requires_and_the_licenses_of_the_course():
    citation = yaml.safe_load(read("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["license"] == ["BSD-3-Clause", "CC-BY-4.0"] and PROJECT["license"] in citation["license"]


def test_the_issue_form_requires_the_output_of_qat_check():
    form = yaml.safe_load(read(".github/ISSUE_TEMPLATE/bug_report.yml"))
    assert form["name"] and form["description"]
    (check,) = [field for field in form["body"] if field["id"] == "check"]
    assert "qat check" in check["attributes"]["label"] and check["validations"]["required"] is True


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("github-workflows", ".github/workflows/*.yml"),
        ("dependabot", ".github/dependabot.yml"),
        ("github-issue-forms", ".github/ISSUE_TEMPLATE/*.yml"),
        ("citation-file-format", "CITATION.cff"),
    ],
)
def test_files_for_github_follow_their_schema(schema, files):
    check_jsonschema = pytest.importorskip("check_jsonschema")
    paths = sorted(map(str, ROOT.glob(files)))
    assert paths
    result = CliRunner().invoke(check_jsonschema.main, ["--builtin-schema", f"vendor.{schema}", *paths])
    assert result.exit_code == 0, result.output


def test_workflows_run_commands_that_exist():
    commands = []
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()
        commands += [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    assert ".ci/run" in commands
    assert os.name == "nt" or (ROOT / ".ci" / "run").stat().st_mode & 0o111  # Windows does not keep this bit
    targets = re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE)
    assert set(re.findall(r"make ([a-z]+)", " ".join(commands))) <= set(targets)
    modules = re.findall(r"python -m (tools\.\w+)", " ".join(commands))
    assert modules and all(map(importlib.util.find_spec, modules))


def test_a_codespace_sets_up_the_environment_that_its_editor_uses():
    container = json.loads(read(".devcontainer/devcontainer.json"))
    assert "tools/install.py --torch cpu" in container["postCreateCommand"]
    interpreter = container["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
    assert interpreter.endswith(install.python_of(Path(".venv")).as_posix()) or os.name == "nt"


def test_the_picture_of_the_readme_shows_the_recorded_runs():
    alt = picture.draw().alt
    assert f"![{alt}]({picture.PICTURE})" in read("README.md")
    svg = read(picture.PICTURE)
    assert alt in svg, "run `python -m tools.picture`"
    nets = {name for arch in picture.MARKERS for name in results.table(results.recorded_histories(arch)).index}
    assert set(picture.points()) == nets and all(name in alt for name in nets)


def test_writing_the_picture_twice_changes_nothing(tmp_path):
    (tmp_path / "README.md").write_text(f"before\n![old]({picture.PICTURE})\nafter\n", encoding="utf-8")
    files = picture.update(tmp_path)
    first = [path.read_bytes() for path in files]
    assert [path.read_bytes() for path in picture.update(tmp_path)] == first
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert text.startswith("before\n![Test accuracy") and text.endswith(f"]({picture.PICTURE})\nafter\n")


def test_the_versions_that_ci_used_have_no_addresses_and_satisfy_the_requirements():
    lines = [line for line in read("constraints.txt").splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+_-]+", line) for line in lines)
    versions = {name.lower(): version for name, version in (line.split("==") for line in lines)}
    extras = PROJECT["optional-dependencies"]
    installed = ("lab", "test", *re.search(r'EXTRAS="([^"]+)"', read(".ci/run"))[1].split())
    wanted = PROJECT["dependencies"] + [requirement for extra in installed for requirement in extras[extra]]
    for requirement in map(Requirement, wanted):
        assert versions[requirement.name] in requirement.specifier, requirement.name
