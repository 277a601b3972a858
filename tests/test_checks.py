import os
import re
import sys
import types
from importlib import metadata

import pytest
import torch

from qathelpers import checks


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (0.4, "solved."),
        (torch.tensor(0.4), "solved."),
        (None, "not answered yet. Hint: think"),
        (0.5, "0.5 is too large. Hint: think"),
        (0.3, "0.3 is too small"),
        ("many", "a number is wanted"),
        (torch.zeros(2), "a number is wanted"),
    ],
)
def test_numbers(capsys, answer, said):
    checks.number("x", answer, 0.4, hint="think")
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([-1, 0, 1], "solved."),
        (torch.tensor([-1, 0, 1]), "solved."),
        (None, "not answered yet"),
        ([1, 0, -1], "the order is another one"),
        ([0, 1], "is not it. Hint: look"),
        (3, "a list of numbers is wanted"),
    ],
)
def test_sequences(capsys, answer, said):
    checks.sequence("x", answer, [-1, 0, 1], hint="look")
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "said"),
    [(" Cat", "solved."), (None, "not answered yet"), ("dog", "'dog' is not it"), (3, "a word in quotes is wanted")],
)
def test_texts(capsys, answer, said):
    checks.text("x", answer, "cat", hint="look")
    assert said in capsys.readouterr().out


def test_setup_names_versions_and_device(capsys):
    checks.setup()
    output = capsys.readouterr().out
    assert f"torch {metadata.version('torch')}" in output and "trains on" in output


@pytest.fixture
def colab(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))


def test_on_colab_setup_says_where_runs_go(capsys, colab, monkeypatch):
    checks.setup()
    assert (
        "go with this machine; to keep them, mount your Drive and run `%env QAT_RESULTS_DIR=" in capsys.readouterr().out
    )
    monkeypatch.setenv("QAT_RESULTS_DIR", f"{checks.DRIVE}/MyDrive/qat")
    checks.setup()
    assert "mount your Drive" in capsys.readouterr().out
    monkeypatch.setattr(os.path, "ismount", lambda path: path == checks.DRIVE)
    checks.setup()
    assert f"Runs are saved in {checks.DRIVE}/MyDrive/qat, on your Drive: after" in capsys.readouterr().out


def test_colab_is_not_asked_for_a_lab(capsys, colab, monkeypatch):
    checks.environment()
    assert "jupyterlab" not in capsys.readouterr().out
    monkeypatch.delitem(sys.modules, "google.colab")
    checks.environment()
    assert "jupyterlab" in capsys.readouterr().out


def test_a_known_mistake_gets_its_own_hint(capsys):
    checks.number("x", 3, 0.4, hint="think", mistakes=[(3.2, "no"), (3, "That is bits.")])
    checks.sequence("y", [0, 1], [1], hint="look", mistakes=[((0, 1), "Without the zero.")])
    checks.text("z", "dog", "cat", hint="look", mistakes=[("Dog", "It barks.")])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("Hint: ")[1] for line in lines] == ["That is bits.", "Without the zero.", "It barks."]


def _raises(x):
    raise KeyError("nothing")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda x: x.sign(), "f: solved."),
        (lambda x: [-1.0, 1.0], "f: solved."),
        (None, "a function is wanted|not answered yet"),
        (lambda x: None, "not answered yet. Hint: look"),
        (lambda x: x, r"it returns tensor\(\[-2., +3.\]\), wanted is tensor\(\[-1., +1.\]\). Hint: You forgot it."),
        (lambda x: x.abs(), "Hint: look"),
        (lambda x: "word", "it returns word, wanted is"),
        (_raises, r"it raises KeyError \('nothing'\). Hint: look"),
        (3, "a function is wanted"),
    ],
)
def test_functions(capsys, answer, said):
    inputs = [(torch.tensor([-2.0, 3.0]),)]
    checks.function("f", answer, torch.sign, inputs, hint="look", mistakes=[(lambda x: x, "You forgot it.")])
    assert re.search(said, capsys.readouterr().out)
