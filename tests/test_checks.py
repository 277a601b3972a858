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
