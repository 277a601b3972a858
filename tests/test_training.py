from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from qathelpers import nets, training
from qathelpers.errors import CourseError
from qathelpers.history import History
from qathelpers.recipe import Recipe

RECIPE = Recipe(batch_size=64)


def lenet(name="BinaryNN"):
    return nets.build(name, "lenet")


def test_fit_learns_and_returns_a_row_an_epoch(tiny, capsys):
    history = training.fit(lenet("PytorchNN"), tiny, 8, recipe=replace(RECIPE, augment=False), device="cpu")
    assert history["epoch"].tolist() == list(range(1, 9))
    assert history["train_acc"][-1] > 0.5 > history["train_acc"][0]
    assert history["train_loss"][-1] < history["train_loss"][0]
    assert (history["seconds"] > 0).all()
    lines = [line for line in capsys.readouterr().out.splitlines() if "epoch" in line]
    assert len(lines) == 8 and "train loss" in lines[0] and "test loss" in lines[0]


@pytest.mark.parametrize(("epochs", "expected"), [(1, [32]), (2, [16, 32]), (6, [16, 20, 24, 28, 32, 32])])
def test_images_grow_over_the_first_epochs(tiny, epochs, expected):
    net, sides = nets.build("PytorchNN"), []
    net.stem.register_forward_pre_hook(lambda _, inputs: sides.append(inputs[0].shape[-1]))
    training.fit(net, tiny.take(20, 20), epochs, recipe=replace(RECIPE, growing=2 / 3), device="cpu")
    # an epoch has one step, one batch to measure BatchNorm's statistics anew, and one to test
    assert sides[::3] == sides[1::3] == sides[2::3] == expected


def test_latent_weights_are_clipped_and_float_ones_are_not():
    def clips(name):
        recipe = replace(RECIPE, latent_clip=3.0)
        return {group["clip"] for group in training.make_optimizers(nets.build(name), recipe)[0].param_groups}

    assert clips("BinaryNN") == {3.0}
    assert clips("PytorchNN") == {float("inf")}


def test_the_statistics_are_those_of_the_net_that_comes_out(tiny):
    net = lenet()
    history = training.fit(net, tiny, 1, recipe=RECIPE, device="cpu")
    test = training.Batches(tiny.test_images, tiny.test_labels, 1000)
    loss, accuracy = training.evaluate(net, test)
    assert history["test_loss"][-1] == loss and history["test_acc"][-1] == accuracy


@pytest.mark.parametrize("name", ["BinaryNN", "Int2NN"])
def test_an_interrupted_training_resumes_bit_for_bit(tiny, tmp_path, monkeypatch, name):
    whole_net, net = lenet(name), lenet(name)
    whole = training.fit(whole_net, tiny, 4, recipe=RECIPE, device="cpu", folder=tmp_path / "whole")

    original, calls = training.evaluate, []

    def evaluate_then_stop(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, "evaluate", evaluate_then_stop)
        part = training.fit(net, tiny, 4, recipe=RECIPE, device="cpu", folder=tmp_path / "part")
    assert len(part) == 2
    assert len(History.load(tmp_path / "part" / f"{name}.npy")) == 2

    fresh = lenet(name)
    rest = training.fit(fresh, tiny, 4, recipe=RECIPE, device="cpu", folder=tmp_path / "part")
    for column in ("epoch", "train_loss", "train_acc", "test_loss", "test_acc"):
        assert np.array_equal(whole[column], rest[column]), column
    for key, value in whole_net.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[key]), key
    assert not list((tmp_path / "part").glob("*.resume.*"))


class Exploding(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3072, 10)

    def forward(self, images):
        return self.layer(images.flatten(1)) * torch.inf


def test_a_loss_that_is_no_number_stops_with_a_sentence(tiny):
    with pytest.raises(CourseError, match="no longer a number in step 1"):
        training.fit(Exploding(), tiny, 1, device="cpu")


def test_a_net_of_ones_own_trains_with_the_default_recipe(tiny):
    net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    history = training.fit(net, tiny, 1, device="cpu")
    assert history.name == "Sequential" and history.card["recipe"]["lr"] == Recipe().lr


def test_a_dead_net_is_warned_of(tiny, capsys):
    import brevitas.nn as qnn
    from brevitas.quant import SignedTernaryWeightPerTensorConst as Shipped

    net = nn.Sequential(nn.Flatten(), qnn.QuantLinear(3072, 10, bias=True, weight_quant=Shipped))
    training.fit(net, tiny, 1, recipe=replace(RECIPE, lr=0.0), device="cpu")
    assert "Warning: 1 is dead" in capsys.readouterr().out


def test_max_epochs_shortens_every_training(tiny, monkeypatch):
    monkeypatch.setenv("QAT_MAX_EPOCHS", "1")
    assert len(training.fit(lenet(), tiny, 5, recipe=RECIPE, device="cpu")) == 1


def test_the_card_says_what_was_done_on_what(tiny):
    card = training.fit(lenet(), tiny, 1, recipe=RECIPE, device="cpu", seed=4).card
    assert (card["name"], card["arch"], card["bits"], card["seed"]) == ("BinaryNN", "lenet", "W1A32", 4)
    assert (card["data"], card["train_images"], card["epochs"]) == ("shapes", 400, 1)
    assert card["hardware"] and card["versions"]["torch"] and card["date"]


def test_after_each_epoch_the_caller_is_told(tiny):
    lengths = []
    training.fit(lenet(), tiny, 2, recipe=RECIPE, device="cpu", on_epoch=lambda history: lengths.append(len(history)))
    assert lengths == [1, 2]


def test_binary_activations_are_trained_with_adam():
    net = nets.build("XnorNN")
    (optimizer,) = training.make_optimizers(net, net.recipe)
    assert isinstance(optimizer, torch.optim.Adam) and net.recipe.growing == nets.ConvNet.recipe.growing


def test_the_caller_follows_each_batch_and_hears_each_line(tiny, capsys):
    shares, lines = [], []
    training.fit(lenet(), tiny, 2, recipe=RECIPE, device="cpu", on_batch=shares.append, say=lines.append)
    batches = -(-400 // RECIPE.batch_size)
    assert shares == [(n + 1) / (2 * batches) for n in range(2 * batches)]
    assert len(lines) == 2 and lines[0].startswith("BinaryNN epoch 1/2") and capsys.readouterr().out == ""


def test_the_caller_stops_within_a_batch(tiny, tmp_path):
    shares = []

    def stop_in_the_second_epoch(share):
        shares.append(share)
        if share > 0.5:
            raise KeyboardInterrupt

    history = training.fit(
        lenet(), tiny, 2, recipe=RECIPE, device="cpu", folder=tmp_path, on_batch=stop_in_the_second_epoch
    )
    assert len(history) == 1 and sum(share > 0.5 for share in shares) == 1
