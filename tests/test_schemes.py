"""A scheme asks its quantizers what they are: a subclass or a quantizer of Brevitas is treated like ours."""

import brevitas.nn as qnn
import pytest
import torch
from brevitas.quant import (
    Int8ActPerTensorFloat,
    SignedBinaryActPerTensorConst,
    SignedTernaryActPerTensorConst,
    Uint8ActPerTensorFloat,
)
from torch import nn

from qathelpers.nets import SCHEMES, ConvNet, Scheme, build, quantizers, weights


class OwnSign(quantizers.BinaryActivation):
    """What a learner may write."""


BINARY = {
    "ours": quantizers.BinaryActivation,
    "a subclass": OwnSign,
    "with another scale": quantizers.BinaryActivation.let(scaling_init=0.5),
    "Brevitas' own": SignedBinaryActPerTensorConst,
}
SIGNED_2_BIT = {"ours, signed": quantizers.Int2Activation.let(signed=True), "ternary": SignedTernaryActPerTensorConst}
BEHIND_A_RELU = {
    "ours": quantizers.Int4Activation,
    "Brevitas' own": Uint8ActPerTensorFloat,
    "ours, signed": quantizers.Int4Activation.let(signed=True),
    "Brevitas' own, signed": Int8ActPerTensorFloat,
}


def with_activation(quantizer):
    return Scheme("MyNN", "W1A?", quantizers.BinaryWeight, quantizer, first_last=quantizers.BinaryWeight)


def test_the_schemes_of_the_course_are_there():
    plain = {"PytorchNN", "TernaryNN", "BinaryNN", "XnorNN", "Int2NN", "Int4NN", "Int8NN"}
    with_8bit_ends = {f"{name}-8bit-first-last" for name in plain - {"PytorchNN", "Int8NN"}}
    assert set(SCHEMES) == plain | with_8bit_ends


@pytest.mark.parametrize("quantizer", (BINARY | SIGNED_2_BIT).values(), ids=BINARY | SIGNED_2_BIT)
def test_a_signed_activation_of_one_or_two_bits_is_not_behind_a_relu(quantizer):
    """Behind a ReLU, it would never reach its negative levels."""
    act = with_activation(quantizer).act()
    assert isinstance(act, qnn.QuantIdentity)
    values = act.eval()(torch.linspace(-3, 3, 101))
    assert values.min() < 0 < values.max()


@pytest.mark.parametrize("quantizer", BEHIND_A_RELU.values(), ids=BEHIND_A_RELU)
def test_other_activations_are_quantized_relus(quantizer):
    """A signed quantizer of many bits alone would be nearly linear, and a net without nonlinearities learns little."""
    act = with_activation(quantizer).act()
    assert isinstance(act, qnn.QuantReLU)
    values = act.eval()(torch.linspace(-3, 3, 101))
    assert values.min() == 0 and len(values.unique()) > 4


def test_without_a_quantizer_the_activation_is_a_float_relu():
    assert type(with_activation(None).act()) is nn.ReLU


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("quantizer", BINARY.values(), ids=BINARY)
def test_binary_activations_get_a_stem_with_several_fixed_thresholds(quantizer, size):
    """Each threshold is passed by fewer pixels than the one below it."""
    scheme, once = with_activation(quantizer), with_activation(None).stem(size, stride=2)
    stem = scheme.stem(size, stride=2)
    thresholds, rest = divmod(stem[0].channels, once[0].channels)
    assert thresholds >= 2 and rest == 0 and scheme.has_binary_activations
    assert not any(parameter.requires_grad for parameter in stem.parameters())
    images = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    shares = stem(images).gt(0).float().mean((0, 2, 3)).view(thresholds, -1)
    assert (shares > 0).all() and (shares < 0.5).all() and (shares.diff(dim=0) < 0).all()


@pytest.mark.parametrize("quantizer", [None, *SIGNED_2_BIT.values(), *BEHIND_A_RELU.values()])
def test_other_activations_get_a_stem_that_is_centred_and_learns(quantizer):
    scheme = with_activation(quantizer)
    stem = scheme.stem(4, stride=2)
    assert stem[0].channels == 32 and not scheme.has_binary_activations
    assert all(parameter.requires_grad for parameter in stem.parameters())
    means = stem(torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(1))).mean((0, 2, 3))
    torch.testing.assert_close(means, torch.zeros_like(means), atol=1e-5, rtol=0)


@pytest.mark.parametrize("quantizer", BINARY.values(), ids=BINARY)
def test_a_net_with_binary_activations_learns(quantizer):
    torch.manual_seed(0)
    net = ConvNet(with_activation(quantizer), widths=(8, 8, 8))
    torch.nn.functional.cross_entropy(net(torch.randn(8, 3, 32, 32)), torch.arange(8)).backward()
    assert all(layer.weight.grad.count_nonzero() > 0 for layer in weights.quantized_layers(net).values())


def test_8bit_first_last_is_in_the_name_and_in_the_net():
    layers = weights.quantized_layers(build("BinaryNN-8bit-first-last", "lenet"))
    levels = [len(weights.describe(name, layer).integers) for name, layer in layers.items()]
    assert levels[0] > 50 and levels[-1] > 50
    assert set(levels[1:-1]) == {2}
    assert len(weights.describe("first", weights.first_layer(build("BinaryNN"))).integers) == 2


def test_a_scheme_of_your_own_makes_a_net():
    weight = quantizers.Int4Weight.let(bit_width=3)
    net = build(Scheme("MyNN", "W3A32", weight, first_last=quantizers.Int8Weight), "lenet")
    layers = weights.quantized_layers(net)
    levels = [len(weights.describe(name, layer).integers) for name, layer in layers.items()]
    assert max(levels[1:-1]) == 7 and min(levels[0], levels[-1]) > 50
