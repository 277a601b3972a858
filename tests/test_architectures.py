"""`build`: a net is an architecture and a scheme, and `net.spec` says which."""

from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from torch import nn

from qathelpers import nets
from qathelpers.common.errors import CourseError
from qathelpers.data import batches
from qathelpers.nets import stem, weights


@pytest.mark.parametrize("arch", nets.ARCHITECTURES)
@pytest.mark.parametrize("name", nets.SCHEMES)
def test_every_net_learns_something_from_one_step(name, arch):
    net = nets.build(name, arch)
    logits = net(torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
    assert logits.shape == (8, 10) and logits.isfinite().all()
    torch.nn.functional.cross_entropy(logits, torch.arange(8)).backward()
    for key, parameter in net.named_parameters():
        if not parameter.requires_grad:
            assert key.startswith("stem."), key
            continue
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
    first = weights.first_layer(net)
    assert first.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("arch", "widths", "count"),
    [
        ("lenet", None, 61_770),
        ("convnet", (48, 96, 152), 499_760),
        ("convnet-x0.01", (8, 8, 8), 5_264),
        ("convnet-x0.5", (24, 48, 80), 136_160),
        ("convnet-x1.5", (72, 144, 224), 1_091_456),
        ("convnet-x2", (96, 192, 304), 1_968_352),
        ("sharpnet", (40, 160, 160), 773_440),
        ("sharpnet-x2", (80, 320, 320), 3_073_280),
    ],
)
def test_the_sizes_of_the_architectures(arch, widths, count):
    """The size is the number of weights in convolutions and linear layers, which the docstrings give."""
    net = nets.build("TernaryNN", arch)
    layers = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert sum(layer.weight.numel() for layer in layers) == count
    assert nets.architecture(arch).options.get("widths") == widths


def test_schemes_share_architecture_and_latent_weights():
    states = [nets.build(name, seed=3).state_dict() for name in ("PytorchNN", "TernaryNN", "BinaryNN")]
    for key, value in states[0].items():
        for other in states[1:]:
            assert torch.equal(value, other[key]), key


def test_a_seed_decides_the_weights_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, same, other = (nets.build("BinaryNN", "lenet", seed=seed).features[0].weight for seed in (0, 0, 1))
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert torch.equal(torch.rand(1), expected)


def test_the_spec_says_what_a_net_is_and_cannot_be_changed():
    net = nets.build("XnorNN", "sharpnet-x2", seed=7)
    spec = net.spec
    assert (spec.name, spec.bits, spec.arch, spec.seed) == ("XnorNN", "W1A1", "sharpnet-x2", 7)
    assert spec.scheme is nets.SCHEMES["XnorNN"] and nets.spec_of(net) is spec
    with pytest.raises(FrozenInstanceError):
        spec.arch = "convnet"


@pytest.mark.parametrize("arch", ["lenet", "convnet", "convnet-x0.5", "sharpnet-x2"])
def test_the_recipe_is_the_architectures_changed_by_the_scheme(arch):
    recipe = nets.architecture(arch).recipe
    assert nets.build("BinaryNN", arch).spec.recipe == recipe == nets.architecture(arch.split("-")[0]).recipe
    changes = nets.SCHEMES["XnorNN"].recipe
    assert nets.build("XnorNN", arch).spec.recipe == replace(recipe, **changes) != recipe


def test_a_scheme_of_your_own_is_in_the_spec_and_brings_its_recipe():
    mine = nets.Scheme("MyNN", "W1A32", nets.quantizers.BinaryWeight, first_last=None, recipe={"lr": 0.03})
    spec = nets.build(mine, "lenet").spec
    assert (spec.name, spec.bits, spec.scheme) == ("MyNN", "W1A32", mine)
    assert spec.recipe == replace(nets.architecture("lenet").recipe, lr=0.03)


def test_a_net_from_elsewhere_is_known_by_its_class():
    spec = nets.spec_of(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)))
    assert (spec.name, spec.arch, spec.bits, spec.seed) == ("Sequential", "Sequential", "unknown", None)
    assert spec.recipe.optimizer == "adam"  # which suits every net


@pytest.mark.parametrize("arch", nets.ARCHITECTURES)
@pytest.mark.parametrize("name", ["PytorchNN", "BinaryNN", "XnorNN", "Int4NN"])
def test_nets_for_grey_images(name, arch):
    net = nets.build(name, arch, classes=7, channels=1, image_size=28)
    assert net(torch.randn(4, 1, 28, 28)).shape == (4, 7)
    assert net.spec.channels == 1 and net.spec.image == (1, 28, 28)
    assert nets.build(name, arch).spec.image == (3, 32, 32)


def test_nets_take_the_numbers_of_channels_that_images_can_have():
    assert set(batches.CHANNELS) == set(stem.COLOURS)


@pytest.mark.parametrize("arch", nets.ARCHITECTURES)
@pytest.mark.parametrize("channels", [0, 2, 4, 1.5, "grey", None, [3]], ids=str)
def test_other_numbers_of_channels_are_refused(arch, channels):
    with pytest.raises(ValueError) as caught:
        nets.build("BinaryNN", arch, channels=channels)
    assert "channels" in str(caught.value) and repr(channels) in str(caught.value)


class Plain(nn.Sequential):
    """An architecture for RGB images only."""

    def __init__(self, scheme):
        super().__init__(scheme.conv(3, 10, 5))


class Wide(nn.Sequential):
    """An architecture whose option `channels` is the number of channels of a layer."""

    def __init__(self, scheme, channels=16):
        super().__init__(scheme.conv(3, channels, 5))


class Required(nn.Sequential):
    def __init__(self, scheme, channels):
        super().__init__(scheme.conv(channels, 10, 5))


class Grey(nn.Sequential):
    def __init__(self, scheme, channels=1):
        super().__init__(scheme.conv(channels, 10, 5))


@pytest.mark.parametrize("kind", [Required, Grey])
@pytest.mark.parametrize("channels", [1, 3])
def test_channels_are_handed_to_an_architecture_of_ones_own(monkeypatch, kind, channels):
    monkeypatch.setitem(nets.ARCHITECTURES, "mine", nets.Architecture(kind))
    net = nets.build("BinaryNN", "mine", channels=channels)
    assert net[0].in_channels == net.spec.channels == channels


@pytest.mark.parametrize(
    ("architecture", "outputs"), [(nets.Architecture(Plain), 10), (nets.Architecture(Wide, {"channels": 24}), 24)]
)
def test_an_architecture_of_ones_own_without_such_an_option_is_for_rgb_images(monkeypatch, architecture, outputs):
    monkeypatch.setitem(nets.ARCHITECTURES, "mine", architecture)
    assert nets.build("BinaryNN", "mine")[0].out_channels == outputs
    with pytest.raises(CourseError, match=rf"{architecture.net.__name__}.*channels"):
        nets.build("BinaryNN", "mine", channels=1)
