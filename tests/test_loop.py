import copy
from dataclasses import replace

import brevitas.nn as qnn
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from brevitas.quant import Int8ActPerTensorFloat, ShiftedUint8ActPerTensorFloat, SignedTernaryWeightPerTensorConst
from torch import nn

from qathelpers.common import hardware
from qathelpers.common.errors import CourseError
from qathelpers.data import normalize
from qathelpers.nets import Recipe, build
from qathelpers.training import History, Run, checkpoint, fit, loop, make_optimizers, predict, train_step

RECIPE = Recipe(batch_size=64)


def lenet(name="BinaryNN"):
    return build(name, "lenet")


def test_fit_learns_and_returns_one_row_per_epoch(tiny):
    lines = []
    recipe = replace(RECIPE, augment=False)
    history = fit(lenet("PytorchNN"), tiny, 8, recipe=recipe, device="cpu", log=lines.append)
    assert history["epoch"].tolist() == list(range(1, 9))
    assert history["train_acc"][-1] > 0.5 > history["train_acc"][0]
    assert history["train_loss"][-1] < history["train_loss"][0]
    assert (history["seconds"] > 0).all()
    assert len(lines) == 8 and all(f"epoch {epoch}/8" in line for epoch, line in enumerate(lines, 1))


@pytest.mark.parametrize("name", ["PytorchNN", "BinaryNN", "XnorNN", "Int4NN"])
def test_a_step_lowers_the_loss_and_returns_the_logits_before_it(tiny, name):
    images, labels = normalize(tiny.train_images[:64]), tiny.train_labels[:64]
    net = lenet(name).train()
    recipe = replace(net.spec.recipe, label_smoothing=0.0)
    before = copy.deepcopy(net)
    optimizers = make_optimizers(net, recipe)
    with torch.no_grad(), hardware.autocast(images.device, hardware.precision(images.device)):
        expected = before(images).float()
    logits = train_step(net, images, labels, optimizers, recipe)
    assert torch.equal(logits, expected) and not logits.requires_grad
    assert all(parameter.grad is None for parameter in net.parameters())
    losses = [F.cross_entropy(train_step(net, images, labels, optimizers, recipe), labels).item() for _ in range(10)]
    assert losses[-1] < losses[0] < F.cross_entropy(logits, labels).item()


def test_a_step_follows_the_gradient_of_the_smoothed_loss(tiny):
    images, labels = normalize(tiny.train_images[:64]), tiny.train_labels[:64]
    net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    expected = copy.deepcopy(net)
    with hardware.autocast(images.device, hardware.precision(images.device)):
        logits = expected(images).float()
    F.cross_entropy(logits, labels, label_smoothing=0.3).backward()
    train_step(net, images, labels, [torch.optim.SGD(net.parameters(), lr=1.0)], replace(RECIPE, label_smoothing=0.3))
    for after, before in zip(net.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(after, before - before.grad)


def test_learning_rates_fall_during_the_training(tiny):
    weights = []
    for final_lr in (0.0, 1.0):
        net = lenet("PytorchNN")
        fit(net, tiny.take(128, 10), 1, recipe=replace(RECIPE, final_lr=final_lr), device="cpu")
        weights.append(net.features[0].weight)
    assert not torch.allclose(*weights)


@pytest.mark.parametrize(
    ("epochs", "share", "expected"),
    [
        (1, 2 / 3, [32]),
        (2, 2 / 3, [16, 32]),
        (6, 2 / 3, [16, 20, 24, 28, 32, 32]),
        (1, 1.0, [32]),
        (3, 1.0, [16, 24, 32]),
        (2, 0.0, [32, 32]),
    ],
)
def test_images_grow_over_the_first_epochs_and_are_full_size_in_the_last(tiny, epochs, share, expected):
    net, sides = build("PytorchNN", "convnet-x0.1"), []
    # The check before the training calls a copy of the net.
    net.stem.register_forward_pre_hook(lambda stem, x: sides.append(x[0].shape[-1]) if stem is net.stem else None)
    fit(net, tiny.take(20, 20), epochs, recipe=replace(RECIPE, progressive_resizing=share), device="cpu")
    # Each epoch has one training step, one batch that measures the BatchNorms' statistics anew, and one test batch.
    assert sides[::3] == sides[1::3] == sides[2::3] == expected


@pytest.mark.parametrize("name", ["BinaryNN", "Int2NN"])
def test_an_interrupted_training_resumes_bit_for_bit(tiny, tmp_path, name):
    whole_net, part_net, fresh = lenet(name), lenet(name), lenet(name)
    options = {"recipe": RECIPE, "device": "cpu"}
    whole = fit(whole_net, tiny, 4, folder=tmp_path / "whole", **options)

    def stop_in_the_third_epoch(share):
        if share > 0.6:
            raise KeyboardInterrupt

    part = fit(part_net, tiny, 4, folder=tmp_path / "part", on_batch=stop_in_the_third_epoch, **options)
    assert len(part) == 2 and len(History.load(tmp_path / "part" / f"{name}.npy")) == 2
    rest = fit(fresh, tiny, 4, folder=tmp_path / "part", **options)
    for column in ("epoch", "train_loss", "train_acc", "test_loss", "test_acc"):
        assert np.array_equal(whole[column], rest[column]), column
    for net in (fresh, checkpoint.load(tmp_path / "part" / f"{name}.safetensors")):
        assert all(torch.equal(value, net.state_dict()[key]) for key, value in whole_net.state_dict().items())
    assert not list((tmp_path / "part").glob("*.resume.*"))


def interrupted(make, dataset, folder):
    """Return the histories of a training in one go and of one that was interrupted after its first epoch."""

    def stop(history):
        raise KeyboardInterrupt

    options = {"recipe": RECIPE, "device": "cpu"}
    whole = fit(make(), dataset, 3, **options)
    fit(make(), dataset, 3, folder=folder, on_epoch=stop, **options)
    return whole, fit(make(), dataset, 3, folder=folder, **options)


def test_dropout_draws_the_same_in_a_resumed_training_and_leaves_the_readers_random_numbers_alone(tiny, tmp_path):
    def make():
        torch.manual_seed(1)
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3072, 10))

    whole, resumed = interrupted(make, tiny.take(100, 20), tmp_path)
    assert len(set(whole["train_loss"])) == 3 and resumed["train_loss"].tolist() == whole["train_loss"].tolist()
    torch.manual_seed(7)
    fit(make(), tiny.take(20, 20), 1, recipe=RECIPE, device="cpu", seed=3)
    drawn = torch.rand(3)
    torch.manual_seed(1)
    make()
    assert torch.equal(drawn, torch.rand(3))


@pytest.mark.parametrize(
    ("quantizer", "options"),
    [
        (Int8ActPerTensorFloat, {}),  # collects statistics during all of this training
        (Int8ActPerTensorFloat, {"collect_stats_steps": 6}),  # until the second epoch
        (Int8ActPerTensorFloat, {"scaling_impl_type": "stats"}),  # a running mean
        (ShiftedUint8ActPerTensorFloat, {}),
    ],
)
def test_a_training_resumes_while_activation_quantizers_collect_statistics(tiny, tmp_path, quantizer, options):
    def make():
        torch.manual_seed(1)
        act = qnn.QuantReLU(act_quant=quantizer.let(**options) if options else quantizer)
        return nn.Sequential(nn.Flatten(), nn.Linear(3072, 16), act, nn.Linear(16, 10))

    whole, resumed = interrupted(make, tiny.take(100, 20), tmp_path)
    for column in ("train_loss", "test_loss"):
        assert resumed[column].tolist() == whole[column].tolist()


class Tutorial(nn.Module):
    """A net that calls `view` on its images and on the result of a convolution, as in many tutorials."""

    def __init__(self):
        super().__init__()
        self.conv, self.head, self.skip = nn.Conv2d(3, 4, 3, stride=4), nn.Linear(256, 10), nn.Linear(3072, 10)

    def forward(self, images):
        return self.head(self.conv(images).view(-1, 256)) + self.skip(images.view(len(images), -1))


def test_a_net_with_view_trains(tiny):
    net = Tutorial()
    history = fit(net, tiny, 1, recipe=RECIPE, device="cpu")
    assert len(history) == 1
    accuracy = (predict(net, tiny.test_images).argmax(1) == tiny.test_labels).double().mean().item()
    assert accuracy == pytest.approx(history["test_acc"][-1])


@pytest.mark.parametrize("name", ["PytorchNN", "BinaryNN", "XnorNN", "Int2NN", "Int4NN"])
def test_a_resumed_training_has_all_tensors_on_its_device(tiny, tmp_path, name):
    """The device `meta` stands in for a GPU. It computes nothing, but shows which tensors were left on the CPU."""

    def stop(history):
        raise KeyboardInterrupt

    fit(lenet(name), tiny, 2, recipe=RECIPE, device="cpu", folder=tmp_path, on_epoch=stop)
    net = lenet(name)
    run = Run.plan(net, tiny, 2, recipe=RECIPE, device="meta", folder=tmp_path)
    history, optimizers = loop._start(run, net, lambda line: None)
    assert len(history) == 1
    states = [state for optimizer in optimizers for state in optimizer.state.values()]
    kept = [tensor for state in states for key, tensor in state.items() if key != "step"]  # Adam's is on the host
    assert len(kept) >= 5
    assert {tensor.device.type for tensor in (*net.parameters(), *net.buffers(), *kept)} == {"meta"}


class Exploding(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3072, 10)

    def forward(self, images):
        return self.layer(images.flatten(1)) * torch.inf


def test_a_loss_that_is_nan_names_the_step_and_the_learning_rate(tiny):
    with pytest.raises(CourseError, match=r"step 1\b.*lr=0\.125"):
        fit(Exploding(), tiny, 1, recipe=replace(RECIPE, lr=0.125), device="cpu")


def test_a_net_from_elsewhere_trains_with_the_default_recipe(tiny):
    net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    history = fit(net, tiny, 1, device="cpu")
    assert history.name == "Sequential" and Recipe(**history.config["recipe"]).optimizer == "adam"


def test_a_dead_layer_is_named_after_the_training(tiny):
    dead = qnn.QuantLinear(3072, 10, bias=True, weight_quant=SignedTernaryWeightPerTensorConst)
    lines = []
    recipe = replace(RECIPE, optimizer="adam", lr=0.0)
    fit(nn.Sequential(nn.Flatten(), dead), tiny, 1, recipe=recipe, device="cpu", log=lines.append)
    assert "1 is dead" in lines[-1]


def test_max_epochs_shortens_every_training(tiny, monkeypatch):
    monkeypatch.setenv("QAT_MAX_EPOCHS", "1")
    assert len(fit(lenet(), tiny, 5, recipe=RECIPE, device="cpu")) == 1


def test_the_caller_follows_each_batch_each_epoch_and_each_line(tiny, capsys):
    shares, lengths, lines = [], [], []
    callbacks = {"on_batch": shares.append, "on_epoch": lambda history: lengths.append(len(history))}
    fit(lenet(), tiny, 2, recipe=RECIPE, device="cpu", log=lines.append, **callbacks)
    batches = -(-400 // RECIPE.batch_size)
    assert shares == [(n + 1) / (2 * batches) for n in range(2 * batches)]
    assert lengths == [1, 2]
    assert len(lines) == 2 and "BinaryNN epoch 1/2" in lines[0] and capsys.readouterr().out == ""


def test_the_caller_stops_within_a_batch(tiny, tmp_path):
    shares, lines = [], []

    def stop_in_the_second_epoch(share):
        shares.append(share)
        if share > 0.5:
            raise KeyboardInterrupt

    callbacks = {"on_batch": stop_in_the_second_epoch, "log": lines.append}
    history = fit(lenet(), tiny, 2, recipe=RECIPE, device="cpu", folder=tmp_path, **callbacks)
    assert len(history) == 1 and sum(share > 0.5 for share in shares) == 1
    assert "stopped in epoch 2 of 2" in lines[-1]


def test_a_callback_that_predicts_does_not_change_the_training(tiny):
    few, options = tiny.take(96, 32), {"recipe": Recipe(batch_size=32, augment=False), "device": "cpu"}
    rows, nets = [], []
    for predicts in (False, True):
        net, modes = lenet(), []

        def on_batch(share, net=net, modes=modes, predicts=predicts):
            modes.append(net.training)
            if predicts:
                predict(net, few.test_images)

        rows.append(fit(net, few, 2, on_batch=on_batch, **options).rows)
        nets.append(net)
        assert modes == [True] * 6
    assert all((rows[0][column] == rows[1][column]).all() for column in ("train_loss", "train_acc", "test_loss"))
    first, second = (net.state_dict() for net in nets)
    assert all(torch.equal(value, second[key]) for key, value in first.items())
