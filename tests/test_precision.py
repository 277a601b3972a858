import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qathelpers.common import hardware
from qathelpers.common.errors import CourseError
from qathelpers.data import normalize
from qathelpers.nets import Recipe, build
from qathelpers.training import fit
from qathelpers.training.loop import train_step
from qathelpers.training.precision import precision

CPU = torch.device("cpu")
QUIET = {"device": "cpu", "log": lambda line: None, "on_batch": lambda share: None}


@pytest.fixture
def t4(monkeypatch):
    """Let the CPU be a device with fp16 and without bf16."""
    monkeypatch.setattr(hardware, "bf16_is_fast", lambda device: False)
    monkeypatch.setattr(hardware, "fp16_is_fast", lambda device: True)


@pytest.fixture
def fp16(monkeypatch):
    monkeypatch.setattr(hardware, "precision", lambda device, is_large=False: "fp16")


class Functional(nn.Module):
    """A net whose convolution is no module."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, 3, 5, 5))
        self.last = nn.Linear(channels, 10)

    def forward(self, images):
        return self.last(F.conv2d(images, self.weight, padding=2).amax((2, 3)))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: build("TernaryNN", "convnet"), "fp32"),
        (lambda: build("TernaryNN", "sharpnet"), "fp16"),
        (lambda: build("Int4NN", "convnet-x2"), "fp16"),
        (lambda: Functional(16), "fp32"),
        (lambda: Functional(500), "fp16"),
    ],
)
def test_the_macs_of_a_net_decide_whether_it_is_trained_in_fp16(make, expected, t4, tiny):
    assert precision(make(), tiny, CPU) == expected


def test_where_it_does_not_matter_the_net_is_not_computed(tiny):
    def fail(*_):
        raise AssertionError

    net = build("PytorchNN", "sharpnet")
    net.register_forward_pre_hook(fail)
    assert precision(net, tiny, CPU) == hardware.precision(CPU)


@pytest.mark.parametrize("name", ["PytorchNN", "TernaryNN", "XnorNN"])
def test_a_training_in_fp16_learns_as_in_fp32(name, tiny, monkeypatch):
    losses, types = [], []
    for kind in ("fp32", "fp16"):
        monkeypatch.setattr(hardware, "precision", lambda device, is_large=False, kind=kind: kind)
        net = build(name, "lenet")
        net.features[0].register_forward_hook(lambda layer, _, output: types.append(output.dtype))
        history = fit(net, tiny, 2, **QUIET)
        assert history.config["precision"] == kind
        losses.append(history["train_loss"][-1])
    assert {torch.float32, torch.float16} <= set(types)
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_optimizers_get_the_gradient_of_the_loss_itself(tiny):
    images, labels = normalize(tiny.train_images[:64]), tiny.train_labels[:64]
    net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    expected = copy.deepcopy(net)
    F.cross_entropy(expected(images), labels).backward()
    train_step(net, images, labels, [torch.optim.SGD(net.parameters(), lr=1.0)], Recipe(label_smoothing=0), "fp16")
    for after, before in zip(net.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(before - after, before.grad, rtol=0.02, atol=1e-4)


class Steep(nn.Module):
    """A net whose loss is finite in fp16, while its gradient is beyond the range of fp16."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(3072, 10)
        nn.init.zeros_(self.last.weight)

    def forward(self, images):
        return self.last(images.flatten(1).sign() * 2**14)


def test_a_gradient_beyond_the_range_of_fp16_ends_the_training(tiny, fp16):
    one_batch = tiny.take(train=100)  # so that no later loss shows what the gradient did
    with pytest.raises(CourseError, match=r"fp16.*step 1 .*cpu"):
        fit(Steep(), one_batch, 1, recipe=Recipe(batch_size=100, optimizer="adam", lr=1e-6), **QUIET)


def test_a_training_that_continues_in_another_precision_says_so(tiny, tmp_path, monkeypatch, capsys):
    def stop(history):
        raise KeyboardInterrupt

    for kind, on_epoch in (("fp16", stop), ("fp32", None)):
        monkeypatch.setattr(hardware, "precision", lambda device, is_large=False, kind=kind: kind)
        history = fit(build("BinaryNN", "lenet"), tiny.take(100, 50), 2, folder=tmp_path, on_epoch=on_epoch, **QUIET)
    out = capsys.readouterr().out
    assert "fp16" in out and "fp32" in out
    assert len(history) == 2 and history.config["precision"] == "fp32"
