"""Our quantizers avoid traps in quantizers of Brevitas; a test here fails when a release of Brevitas fixes one."""

import brevitas.nn as qnn
import pytest
import torch
from brevitas.quant import (
    Int8WeightPerChannelFloat,
    Int8WeightPerTensorFloat,
    SignedBinaryActPerTensorConst,
    SignedBinaryWeightPerTensorConst,
    SignedTernaryWeightPerTensorConst,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from qathelpers.nets import build, weights
from qathelpers.nets import quantizers as q
from qathelpers.training import Muon


def conv(quantizer, inputs=64, outputs=32, **options):
    torch.manual_seed(0)
    return qnn.QuantConv2d(inputs, outputs, 3, bias=False, weight_quant=quantizer, **options)


LEVELS = {
    q.BinaryWeight: {-1, 1},
    q.TernaryWeight: {-1, 0, 1},
    q.Int2Weight: {-1, 0, 1},
    q.Int4Weight: set(range(-7, 8)),
    q.Int8Weight: set(range(-127, 128)),
}


@pytest.mark.parametrize("name", [quantizer.__name__ for quantizer in LEVELS])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), magnitude=st.floats(1e-3, 1e3), outputs=st.integers(1, 8))
def test_quantized_weights_are_the_scale_times_an_allowed_integer(name, seed, magnitude, outputs):
    quantizer = getattr(q, name)
    layer = conv(quantizer, 3, outputs)
    layer.weight.data = torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(seed)) * magnitude
    integers = weights.integers(layer)
    assert set(integers.unique().tolist()) <= LEVELS[quantizer]
    torch.testing.assert_close(integers * weights.scale(layer), weights.quantized(layer))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), magnitude=st.floats(1e-3, 1e3))
def test_binary_and_ternary_are_what_their_papers_say(seed, magnitude):
    latent = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(seed)) * magnitude
    mean = latent.abs().mean()
    binary, ternary = conv(q.BinaryWeight, 3, 4), conv(q.TernaryWeight, 3, 4)
    binary.weight.data, ternary.weight.data = latent.clone(), latent.clone()
    torch.testing.assert_close(weights.quantized(binary), mean * latent.sign())
    torch.testing.assert_close(weights.quantized(ternary), mean * (latent.sign() * (latent.abs() > mean / 2)))


def test_trap_1_ternary_is_dead_on_a_wide_layer():
    assert weights.describe("shipped", conv(SignedTernaryWeightPerTensorConst)).is_dead
    assert 0.15 < weights.describe("ours", conv(q.TernaryWeight)).zeros < 0.35


def test_trap_2_one_bit_integers_are_nan():
    assert not weights.quantized(conv(Int8WeightPerTensorFloat, weight_bit_width=1)).isfinite().all()
    assert weights.quantized(conv(q.BinaryWeight)).isfinite().all()


@pytest.mark.parametrize(("quantizer", "changes"), [(SignedBinaryWeightPerTensorConst, True), (q.BinaryWeight, False)])
def test_trap_3_looking_at_binary_weights_changes_them(quantizer, changes):
    layer = conv(quantizer, inputs=1)
    before = layer.weight.detach().clone()
    with torch.no_grad():
        layer.eval().quant_weight()
    assert torch.equal(layer.weight, before) != changes


def test_trap_4_gradients_of_binary_weights_carry_the_scale_but_muon_steps_alike():
    steps = []
    for quantizer in (q.BinaryWeight, q.TernaryWeight):
        layer = conv(quantizer, 8, 8)
        layer(torch.randn(4, 8, 9, 9, generator=torch.Generator().manual_seed(0))).square().sum().backward()
        layer.weight.data *= 8**0.5 / layer.weight.data.norm()
        before = layer.weight.detach().clone()
        Muon(layer.parameters(), lr=0.1).step()
        steps.append((layer.weight - before).norm().item())
    assert steps[0] == pytest.approx(steps[1], rel=0.5)

    shipped = conv(SignedBinaryWeightPerTensorConst, 1)
    shipped.quant_weight().value.sum().backward()
    assert shipped.weight.grad.abs().max().item() == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("quantizer", "levels"), [(q.Int2Activation, 4), (q.Int4Activation, 16), (q.Int8Activation, 256)]
)
def test_trap_6_activations_have_their_range_before_the_first_step(quantizer, levels):
    x = torch.linspace(-1, 10, 5001)
    ours = qnn.QuantReLU(act_quant=quantizer).eval()(x)
    assert len(ours.unique()) == levels
    assert ours.max().item() == pytest.approx(quantizer.max_val, rel=0.02)
    shipped = qnn.QuantReLU(bit_width=4).eval()(x)
    assert shipped.max().item() != pytest.approx(10, rel=0.5)


def test_trap_6_binary_activations_are_signs():
    x = torch.tensor([-2.0, -0.5, 0.5, 2.0], requires_grad=True)
    out = qnn.QuantIdentity(act_quant=q.BinaryActivation)(x)
    out.sum().backward()
    assert out.tolist() == [-1, -1, 1, 1]
    assert x.grad.tolist() == [0, 1, 1, 0]


def test_a_layer_of_zeros_stays_finite():
    for quantizer in LEVELS:
        layer = conv(quantizer, 3, 4)
        layer.weight.data.zero_()
        assert weights.quantized(layer).isfinite().all()


@pytest.mark.parametrize(
    ("quantizer", "bits"),
    [
        (q.BinaryWeight, 1),
        (SignedBinaryWeightPerTensorConst, 1),
        (q.TernaryWeight, 2),
        (q.Int8Weight, 8),
        (q.Int8Weight.let(bit_width=1), 1),
        (None, None),
    ],
)
def test_the_bits_of_a_weight_quantizer(quantizer, bits):
    weight_quant = conv(quantizer).weight_quant
    assert q.bits_of(weight_quant) == bits and q.is_binary(weight_quant) is (bits == 1)


@pytest.mark.parametrize(
    ("quantizer", "bits"),
    [(q.BinaryActivation, 1), (SignedBinaryActPerTensorConst, 1), (q.Int2Activation, 2), (None, None)],
)
def test_the_bits_of_an_activation_quantizer(quantizer, bits):
    act_quant = qnn.QuantIdentity(act_quant=quantizer).act_quant
    assert q.bits_of(act_quant) == bits and q.is_binary(act_quant) is (bits == 1)


def test_a_floating_point_format_has_no_bits_and_is_not_binary():
    formats = pytest.importorskip("brevitas.quant.float", reason="needs a newer Brevitas")
    act_quant = qnn.QuantReLU(act_quant=formats.Fp8e4m3ActPerTensorFloat).act_quant
    assert q.bits_of(act_quant) is None and not q.is_binary(act_quant)


def test_the_learned_parameters_are_the_scales_of_the_activations():
    assert not q.learned_parameters(build("PytorchNN", "lenet")) and not q.learned_parameters(build("XnorNN", "lenet"))
    net = build("Int4NN", "lenet")
    scales = [module.act_quant.scale() for module in net.modules() if isinstance(module, qnn.QuantReLU)]
    assert len(q.learned_parameters(net)) == len(scales) == 4


def test_a_learned_scale_of_a_weight_is_a_learned_parameter_and_the_weight_is_not():
    layer = conv(Int8WeightPerChannelFloat.let(scaling_impl_type="parameter_from_stats"))
    (scale,) = q.learned_parameters(layer)
    assert scale.shape == (32, 1, 1, 1) and scale.requires_grad


def test_weights_are_not_learned_parameters_of_a_quantizer_that_two_layers_share():
    """Brevitas then computes one scale from both weights, which are parameters of the quantizer, too."""
    first = conv(q.TernaryWeight)
    net = nn.Sequential(first, conv(first.weight_quant, 32))
    assert any(parameter is first.weight for parameter in net[1].weight_quant.parameters())
    assert not q.learned_parameters(net)
