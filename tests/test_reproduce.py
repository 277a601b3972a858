import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from qathelpers.common import hardware
from qathelpers.nets import Recipe, build
from qathelpers.results import reproduce
from qathelpers.training import fit

from .conftest import forget_settings


@pytest.fixture(scope="module")
def recorded(tiny):
    """A run that differs from the defaults in everything, on the first images of the stand-in."""
    recipe = Recipe(batch_size=64, lr=0.1, label_smoothing=0.05)
    net = build("TernaryNN", "lenet", seed=4)
    with pytest.MonkeyPatch.context() as patch:
        forget_settings(patch)  # this fixture is made before those of a single test
        return fit(net, tiny.take(train=100, test=50), 2, recipe=recipe, seed=3, device="cpu")


@pytest.fixture
def again(recorded):
    """A copy, to be changed."""
    return copy.deepcopy(recorded)


@pytest.fixture(autouse=True)
def same_images_and_device(monkeypatch):
    monkeypatch.setenv("QAT_MAX_IMAGES", "100")  # drawing all of them would take seconds
    monkeypatch.setattr(hardware, "best_device", lambda: torch.device("cpu"))


def test_a_config_is_enough_to_repeat_a_run(recorded):
    config = json.loads(json.dumps(recorded.config))
    again = reproduce.reproduce(config)
    assert "to the last bit" in reproduce.difference(recorded, again)
    for column in ("epoch", "train_loss", "train_acc", "test_loss", "test_acc"):
        assert np.array_equal(recorded[column], again[column])
    table = reproduce.side_by_side(recorded, again)
    assert (table["test, recorded"] == table["test, again"]).all() and list(table.index) == [1, 2]


def test_another_seed_gives_another_history(recorded):
    other = reproduce.reproduce(recorded.config | {"seed": 9})
    sentence = reproduce.difference(recorded, other)
    assert "last bit" not in sentence
    gap = np.abs(recorded["test_acc"] - other["test_acc"])
    assert f"{gap.max():.4f}" in sentence and f"{gap[-1]:.4f}" in sentence


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"versions": {"torch": "1.0"}}, ["torch", "1.0"]),
        ({"hardware": "a supercomputer"}, ["hardware", "a supercomputer"]),
        ({"precision": "fp8"}, ["precision", "fp8"]),
        ({"evaluation": "bf16"}, ["bf16", "fp32"]),
    ],
)
def test_the_circumstances_that_changed_are_named(recorded, again, changes, named):
    again.rows["train_loss"] += 0.25
    again.rows["test_acc"] += 0.0123
    for key, value in changes.items():
        again.config[key] = again.config[key] | value if isinstance(value, dict) else value
    sentence = reproduce.difference(recorded, again)
    assert "0.0123" in sentence and "last bit" not in sentence
    assert all(word in sentence for word in named)


def test_a_test_in_another_precision_is_told_from_another_training(recorded, again):
    again.rows["test_acc"] += 0.0123
    recorded = replace(recorded, config=recorded.config | {"evaluation": "bf16"})
    sentence = reproduce.difference(recorded, again)
    assert all(word in sentence for word in ("training", "last bit", "0.0123", "bf16", "fp32"))


@pytest.mark.parametrize("column", ["train_loss", "test_acc"])
def test_the_same_circumstances_leave_only_the_code_of_the_course(recorded, again, column):
    again.rows[column] += 0.0123
    sentence = reproduce.difference(recorded, again)
    assert "code" in sentence and "fp32" not in sentence


def test_an_interrupted_repetition_is_no_difference(recorded):
    sentence = reproduce.difference(recorded, replace(recorded, rows=recorded.rows[:1]))
    assert "1 of 2 epochs" in sentence and "differ" not in sentence
