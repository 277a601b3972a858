import json
from dataclasses import replace

import pytest

from qathelpers import data, nets, reproduce, results, training
from qathelpers.recipe import Recipe


@pytest.fixture
def recorded(tiny, monkeypatch):
    monkeypatch.setattr(data, "load", lambda name: tiny if name == "shapes" else None)
    net = nets.build("TernaryNN", "lenet", seed=4)
    recipe = Recipe(batch_size=64, lr=0.1, label_smoothing=0.05)
    return training.fit(net, tiny.take(train=100, test=50), 2, recipe=recipe, seed=3, device="cpu")


def test_a_card_is_enough(recorded):
    card = json.loads(json.dumps(recorded.card))
    again = reproduce.reproduce(card)
    assert reproduce.difference(recorded, again) == "The same history, to the last bit."
    table = reproduce.side_by_side(recorded, again)
    assert (table["test, recorded"] == table["test, again"]).all() and list(table.index) == [1, 2]


def test_what_differs_is_said_and_why(recorded):
    other = reproduce.reproduce(recorded.card | {"seed": 9})
    other.card["versions"] = other.card["versions"] | {"torch": "1.0"}
    sentence = reproduce.difference(recorded, other)
    assert "differ by up to 0." in sentence and "1.0 now" in sentence
    other.card["versions"] = recorded.card["versions"]
    assert "the course's code" in reproduce.difference(recorded, other)


def test_an_interrupted_repetition_is_no_difference(recorded):
    assert "1 of 2 epochs" in reproduce.difference(recorded, replace(recorded, rows=recorded.rows[:1]))


def test_every_recorded_card_can_be_trained_from():
    for arch in results.recorded_archs():
        for history in results.recorded_histories(arch, seed=None):
            assert Recipe(**history.card["recipe"]) and history.card["name"] in nets.SCHEMES
            assert history.card["arch"] == arch and len(history) == history.card["epochs"]
