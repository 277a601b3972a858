"""The environment is set up with a stand-in for pip: PyTorch's index of CPU builds may be out of reach here."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import install, wheels

ROOT = Path(__file__).parent.parent
PYPROJECT = """[project]
name = "course"
# the deps
dependencies = [
    "torch>=2.6",
    "torchvision>=0.21",
    "torchmetrics>=1",
]

[project.urls]
Repository = "https://example.org/a"

[project.optional-dependencies]
lab = ["jupyterlab>=4.2"]  # a comment

[tool.ruff]
line-length = 120
"""


class Pip:
    """Stands in for `subprocess.run`: notes the commands; those that contain a word of `failing` fail."""

    def __init__(self):
        self.calls, self.failing = [], ()

    def __call__(self, command, env=None, check=False, **options):
        self.calls.append((command, env or {}))
        failed = any(word in command for word in self.failing)
        if failed and check:
            raise subprocess.CalledProcessError(1, command)
        return subprocess.CompletedProcess(command, int(failed), "", "")

    @property
    def installs(self):
        return [(command, env) for command, env in self.calls if "install" in command]


@pytest.fixture
def pip(monkeypatch):
    stand_in = Pip()
    monkeypatch.setattr(install.subprocess, "run", stand_in)
    return stand_in


@pytest.fixture
def course(tmp_path, monkeypatch):
    root = tmp_path / "a course"
    (root / ".venv").mkdir(parents=True)
    (root / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    return root


@pytest.fixture
def machine(monkeypatch):
    def become(system, processor="x86_64", gpu=False):
        monkeypatch.setattr(install.platform, "system", lambda: system)
        monkeypatch.setattr(install.platform, "machine", lambda: processor)
        monkeypatch.setattr(install, "has_nvidia_gpu", lambda: gpu)

    become("Linux")
    return become


@pytest.mark.parametrize(
    ("choice", "system", "processor", "gpu", "cpu"),
    [
        ("auto", "Linux", "x86_64", False, True),
        ("auto", "Linux", "x86_64", True, False),
        ("auto", "Linux", "aarch64", False, False),
        ("auto", "Darwin", "arm64", False, False),
        ("auto", "Windows", "AMD64", False, False),
        ("cpu", "Linux", "x86_64", True, True),
        ("cpu", "Windows", "AMD64", False, True),
        ("cuda", "Linux", "x86_64", False, False),
    ],
)
def test_the_build_of_pytorch(machine, course, pip, choice, system, processor, gpu, cpu):
    machine(system, processor, gpu)
    install.complete(course, ["lab"], choice)
    from_the_index = [command for command, _ in pip.installs if install.CPU_BUILDS in command]
    assert len(from_the_index) == cpu and len(pip.installs) == cpu + 1
    assert pip.installs[-1][0][-2:] == ["--editable", ".[lab]"]
    if cpu:
        assert from_the_index[0][-2:] == ["torch>=2.6", "torchvision>=0.21"]


def test_the_index_of_cpu_builds_is_asked_alone_and_fails_at_once(machine, course, pip, monkeypatch):
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://example.org/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels")
    monkeypatch.setenv("PIP_CERT", "/certificate")
    install.complete(course, ["lab"])
    command, env = pip.installs[0]
    assert command[command.index("--retries") + 1] == "0" and int(command[command.index("--timeout") + 1]) <= 15
    assert not {"PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"} & set(env)
    assert (env["PIP_CONFIG_FILE"], env["PIP_CERT"]) == (os.devnull, "/certificate")
    assert pip.installs[1][1]["PIP_FIND_LINKS"] == "/wheels"


def test_without_that_index_the_default_one_is_taken_and_a_sentence_says_so(machine, course, pip, capsys):
    pip.failing = (install.CPU_BUILDS,)
    install.complete(course, ["lab"])
    assert install.CPU_BUILDS in capsys.readouterr().out
    assert len(pip.installs) == 2 and "--index-url" not in pip.installs[1][0]
    assert (course / ".venv" / ".ready").exists()


def test_a_complete_environment_is_left_alone_whatever_the_times_of_files(machine, course, pip):
    install.complete(course, ["lab", "test"])
    pip.calls.clear()
    os.utime(course / "pyproject.toml")
    install.complete(course, ["lab"], "cpu")
    unimportant = [("example.org/a", "example.org/b"), ("line-length = 120", "line-length = 88"), ("deps", "more deps")]
    for old, new in unimportant:
        text = (course / "pyproject.toml").read_text(encoding="utf-8")
        assert old in text
        (course / "pyproject.toml").write_text(text.replace(old, new), encoding="utf-8")
        install.complete(course, ["test"])
    assert pip.calls == []


@pytest.mark.parametrize(("old", "new"), [("torch>=2.6", "torch>=2.7"), ("jupyterlab>=4.2", "jupyterlab>=4.3")])
def test_changed_requirements_are_installed(machine, course, pip, old, new):
    install.complete(course, ["lab", "test"], "cuda")
    (course / "pyproject.toml").write_text(PYPROJECT.replace(old, new), encoding="utf-8")
    install.complete(course, ["lab"], "cuda")
    assert [command[-1] for command, _ in pip.installs] == [".[lab,test]", ".[lab,test]"]


def test_a_further_extra_is_added_and_the_others_are_kept(machine, course, pip):
    for extras in (["lab"], ["deploy"], ["lab", "deploy"]):
        install.complete(course, extras, "cuda")
    assert [command[-1] for command, _ in pip.installs] == [".[lab]", ".[deploy,lab]"]


def test_a_failed_installation_is_a_sentence_and_is_tried_again(machine, course, pip):
    pip.failing = ("--editable",)
    with pytest.raises(SystemExit, match=r"\.venv"):
        install.complete(course, ["lab"])
    pip.failing = ()
    install.complete(course, ["lab"])
    assert json.loads((course / ".venv" / ".ready").read_text(encoding="utf-8"))["extras"] == ["lab"]


def editable(course, place):
    """Note in the environment of `course`, as pip does, that it runs the code in `place`."""
    note = course / ".venv" / "lib" / "python3.99" / "site-packages" / "qathelpers-1.0.dist-info" / "direct_url.json"
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps({"url": place.as_uri(), "dir_info": {"editable": True}}), encoding="utf-8")


@pytest.mark.parametrize("is_copy", [True, False])
def test_a_course_that_was_moved_or_copied_is_installed_again_without_a_network(machine, course, pip, capsys, is_copy):
    install.complete(course, ["lab"], "cuda")
    pip.calls.clear()
    editable(course, course)
    install.complete(course, ["lab"])
    assert pip.calls == []
    new = course.parent / "kürs 2"
    (shutil.copytree if is_copy else shutil.move)(course, new)
    install.complete(new, ["lab"])
    assert str(course) in capsys.readouterr().out
    ((command, _),) = pip.installs
    assert {"--no-index", "--no-deps", "--no-build-isolation"} < set(command) and command[-2:] == ["--editable", "."]


def test_a_moved_course_that_cannot_be_installed_without_a_network_is_installed_with_one(machine, course, pip):
    install.complete(course, ["lab"], "cuda")
    pip.calls.clear()
    editable(course, course.parent / "elsewhere")
    pip.failing = ("--no-index",)
    install.complete(course, ["lab"])
    assert len(pip.installs) == 2 and install.SETUPTOOLS in pip.installs[-1][0]


def test_an_environment_whose_python_was_removed_is_named(machine, course, pip):
    install.complete(course, ["lab"], "cuda")
    pip.calls.clear()
    python = install.python_of(course / ".venv")
    python.parent.mkdir()
    python.symlink_to("/nowhere/python3")
    with pytest.raises(SystemExit, match="make clean"):
        install.complete(course, ["lab"])
    assert pip.calls == []


def test_an_environment_that_two_checkouts_share_stays_as_it_is(machine, course, pip):
    install.complete(course, ["lab"], "cuda")
    pip.calls.clear()
    editable(course, course)
    other = course.parent / "other"
    other.mkdir()
    shutil.copy(course / "pyproject.toml", other)
    (other / ".venv").symlink_to(course / ".venv")
    install.complete(other, ["lab"])
    assert pip.calls == []


@pytest.mark.parametrize("content", ["", "no json", "[]", "{}"])
def test_the_mark_of_an_older_version_counts_as_none(machine, course, pip, content):
    (course / ".venv" / ".ready").write_text(content, encoding="utf-8")
    install.complete(course, ["lab"], "cuda")
    assert len(pip.installs) == 1


def build(course):
    return json.loads((course / ".venv" / ".ready").read_text(encoding="utf-8"))["torch"]


@pytest.mark.parametrize(("first", "then"), [("auto", "cuda"), ("cpu", "cuda"), ("cuda", "cpu")])
def test_another_build_replaces_the_installed_one_once_and_auto_leaves_it(machine, course, pip, first, then):
    install.complete(course, ["lab"], first)
    pip.calls.clear()
    install.complete(course, ["lab"], then)
    (torch, _), (rest, _) = pip.installs
    assert "--force-reinstall" in torch and torch[-2:] == ["torch>=2.6", "torchvision>=0.21"]
    assert (install.CPU_BUILDS in torch) == (then == "cpu") and rest[-2] == "--editable"
    assert build(course) == then
    pip.calls.clear()
    for choice in ("auto", then):
        install.complete(course, ["lab"], choice)
    assert pip.calls == []


def test_auto_keeps_the_build_when_an_extra_is_added(machine, course, pip):
    install.complete(course, ["lab"], "cuda")
    install.complete(course, ["deploy"])
    assert build(course) == "cuda" and not any(install.CPU_BUILDS in command for command, _ in pip.installs)


def test_a_build_that_cannot_replace_the_installed_one_leaves_it(machine, course, pip, capsys):
    install.complete(course, ["lab"], "cuda")
    pip.failing = (install.CPU_BUILDS,)
    install.complete(course, ["lab"], "cpu")
    assert build(course) == "cuda" and install.CPU_BUILDS in capsys.readouterr().out


def test_a_replacement_that_fails_half_way_is_completed_by_the_next_call(machine, course, pip):
    install.complete(course, ["lab", "test"], "cpu")
    pip.failing = ("--editable",)
    with pytest.raises(SystemExit):
        install.complete(course, ["lab"], "cuda")
    pip.failing = ()
    pip.calls.clear()
    install.complete(course, ["lab"])
    assert build(course) == "cuda" and pip.installs[-1][0][-1] == ".[lab,test]"


@pytest.mark.parametrize("processor", ["AMD64", "ARM64"])
def test_on_windows_cuda_comes_from_the_index_of_pytorch_or_not_at_all(machine, course, pip, processor):
    machine("Windows", processor)
    pip.failing = (install.CUDA_BUILDS,)
    with pytest.raises(SystemExit):
        install.complete(course, ["lab"], "cuda")
    assert not any("--editable" in command for command, _ in pip.installs)
    pip.failing = ()
    pip.calls.clear()
    install.complete(course, ["lab"], "cuda")
    assert [install.CUDA_BUILDS in command for command, _ in pip.installs] == [True, False]


def test_on_macos_cuda_is_refused_before_anything_is_created(machine, course, pip):
    machine("Darwin", "arm64")
    with pytest.raises(SystemExit, match="macOS"):
        install.complete(course, ["lab"], "cuda")
    assert pip.calls == []


def test_a_bundle_has_one_build(machine, course, pip, capsys):
    (course / "wheels").mkdir()
    (course / "wheels" / wheels.NOTE).write_text(wheels.here(), encoding="utf-8")
    for choice in ("cpu", "cuda"):
        install.complete(course, ["lab"], choice)
    assert len(pip.installs) == 1 and "cuda" in capsys.readouterr().out


def test_a_bundle_is_installed_without_a_network(machine, course, pip):
    (course / "wheels").mkdir()
    (course / "wheels" / wheels.NOTE).write_text(wheels.here(), encoding="utf-8")
    install.complete(course, ["lab"])
    ((_, env),) = pip.installs
    assert (env["PIP_NO_INDEX"], env["PIP_FIND_LINKS"]) == ("1", str(course / "wheels"))


def test_a_bundle_for_another_python_is_refused_before_anything_is_created(machine, course, pip):
    (course / "wheels").mkdir()
    (course / "wheels" / wheels.NOTE).write_text("Python 3.99 on Plan9 pdp11\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="Plan9"):
        install.complete(course, ["lab"])
    assert pip.calls == []


def test_the_course_asks_for_torch_and_torchvision_alone():
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'requires = ["{install.SETUPTOOLS}"]' in pyproject
    packages = install.torch_command(Path("python"), pyproject, install.CPU_BUILDS)[11:]
    assert [package.split(">")[0] for package in packages] == ["torch", "torchvision"]


def test_a_gpu_is_one_that_the_driver_lists(pip, monkeypatch):
    monkeypatch.setattr(install.shutil, "which", lambda name: None)
    assert not install.has_nvidia_gpu()
    monkeypatch.setattr(install.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert not install.has_nvidia_gpu()  # the stand-in lists none
    monkeypatch.setattr(
        install.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, "GPU 0: NVIDIA T4\n", "")
    )
    assert install.has_nvidia_gpu()


def test_it_runs_before_anything_is_installed():
    command = [sys.executable, "-S", str(ROOT / "tools" / "install.py"), "--help"]
    assert "--torch" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_hands_its_settings_on():
    command = ["make", "--dry-run", "environment", "TORCH=cpu", "PYTHON=python9"]
    assert '"python9" tools/install.py --torch cpu' in subprocess.check_output(command, cwd=ROOT, text=True)
    assert "tools/install.py --torch auto deploy" in subprocess.check_output(
        ["make", "--dry-run", "notebooks"], cwd=ROOT, text=True
    )
