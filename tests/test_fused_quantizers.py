"""Fused quantizers give the values and the gradients of Brevitas' own, and are used for no other quantizers."""

import copy
from contextlib import nullcontext

import brevitas.nn as qnn
import brevitas.quant
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qathelpers.nets import build, weights
from qathelpers.nets import quantizers as q
from qathelpers.nets.fused_quantizers import fused
from qathelpers.nets.identity import structure_digest

WEIGHTS = ["BinaryWeight", "TernaryWeight", "Int2Weight", "Int4Weight", "Int8Weight"]
ACTIVATIONS = ["BinaryActivation", "Int2Activation", "Int4Activation", "Int8Activation"]
SHIPPED = {name: getattr(brevitas.quant, name) for name in dir(brevitas.quant)}
COMPLETE = [
    name
    for name, quantizer in SHIPPED.items()
    if (q.is_weight_quantizer(quantizer) or q.is_activation_quantizer(quantizer)) and not q.problem_with(quantizer)
]


def fused_parts(net):
    """Return the types of the parts of `net` that are computed otherwise inside the context."""
    before = {name: type(part) for name, part in net.named_modules()}
    with fused(net):
        return [type(part) for name, part in net.named_modules() if type(part) is not before[name]]


def drawn(shape, seed, magnitude):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * magnitude


def results(layer, quantize, x, seed):
    """Return everything that a quantizer computes, and the gradients of its values and of its scale."""
    output = quantize(layer, x)
    values, scale = output.value, output.scale
    loss = (values * drawn(values.shape, seed + 1, 1).to(values.dtype)).sum()
    if scale.requires_grad:
        loss = loss + (scale * drawn(scale.shape, seed + 2, 1)).sum()
    inputs = [*layer.parameters()] + ([x] if x.requires_grad else [])
    return [values, scale, output.zero_point, output.bit_width, *torch.autograd.grad(loss, inputs)]


def assert_the_same(layer, quantize, x, seed=0, rtol=1e-4):
    expected = results(copy.deepcopy(layer), quantize, x, seed)
    assert fused_parts(layer)
    with fused(layer):
        got = results(layer, quantize, x, seed)
    for number, (one, other) in enumerate(zip(got, expected, strict=True)):
        assert one.dtype == other.dtype and one.shape == other.shape
        if number < 4:
            assert torch.equal(one, other)
        else:  # a sum over all values, of which large terms may cancel
            assert (one - other).abs().max() <= rtol * max(other.abs().max(), x.numel() ** 0.5)


def quantized_weight(layer, x):
    return layer.quant_weight()


def activation(layer, x):
    return layer(x)


@pytest.mark.parametrize("name", WEIGHTS)
@settings(max_examples=20)
@given(seed=st.integers(0, 1000), magnitude=st.floats(1e-3, 1e3), outputs=st.integers(1, 8), inputs=st.integers(1, 8))
def test_weights_are_quantized_as_brevitas_does(name, seed, magnitude, outputs, inputs):
    layer = qnn.QuantConv2d(inputs, outputs, 3, bias=False, weight_quant=getattr(q, name))
    layer.weight.data = drawn(layer.weight.shape, seed, magnitude)
    assert_the_same(layer, quantized_weight, layer.weight.detach(), seed)


@pytest.mark.parametrize("name", ["TernaryWeight", "Int8Weight"])
@settings(max_examples=20)
@given(bits=st.integers(2, 8), narrow=st.booleans(), seed=st.integers(0, 1000))
def test_so_are_weights_of_any_width_and_range(name, bits, narrow, seed):
    layer = qnn.QuantLinear(
        9, 4, bias=False, weight_quant=getattr(q, name), weight_bit_width=bits, weight_narrow_range=narrow
    )
    layer.weight.data = drawn(layer.weight.shape, seed, 1)
    assert_the_same(layer, quantized_weight, layer.weight.detach(), seed)


@pytest.mark.parametrize("name", WEIGHTS)
def test_so_are_zeros_and_large_and_equal_weights(name):
    for values in (torch.zeros(4, 6), torch.full((4, 6), -2.0), torch.eye(4, 6) * 1e6):
        layer = qnn.QuantLinear(6, 4, bias=False, weight_quant=getattr(q, name))
        layer.weight.data = values.clone()
        assert_the_same(layer, quantized_weight, values)


def activation_layer(name):
    kind = qnn.QuantIdentity if name == "BinaryActivation" else qnn.QuantReLU
    return kind(act_quant=getattr(q, name), return_quant_tensor=True)


@pytest.mark.parametrize("name", ACTIVATIONS)
@settings(max_examples=20)
@given(seed=st.integers(0, 1000), magnitude=st.floats(1e-2, 1e2), scale=st.floats(0.1, 10), training=st.booleans())
def test_activations_are_quantized_as_brevitas_does(name, seed, magnitude, scale, training):
    layer = activation_layer(name).train(training)
    for parameter in layer.parameters():
        parameter.data.mul_(scale)
    assert_the_same(layer, activation, drawn((2, 3, 5, 4), seed, magnitude).requires_grad_(), seed)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_so_are_activations_on_a_threshold(name):
    layer = activation_layer(name)
    x = torch.linspace(-4, 4, 65).mul(0.25 * layer.act_quant.scale().detach())
    assert_the_same(layer, activation, x.requires_grad_())
    x = torch.tensor([-0.0, -0.5, 0, 0.5, 254.5, 255, 255.5, 256]) * layer.act_quant.scale().detach()
    assert_the_same(layer, activation, x.requires_grad_())


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_so_are_activations_in_bf16_and_a_learned_scale_gets_a_gradient_that_is_closer_to_that_in_fp32(name):
    layer, x = activation_layer(name), drawn((64, 8, 8, 8), 0, 2)
    low = x.bfloat16().requires_grad_()
    brevitas = results(copy.deepcopy(layer), activation, low, 0)
    exact = results(copy.deepcopy(layer), activation, low.detach().float().requires_grad_(), 0)
    with fused(layer):
        got = results(layer, activation, low, 0)
    assert all(torch.equal(one, other) for one, other in zip(got[:4], brevitas[:4], strict=True))
    assert torch.allclose(got[-1], brevitas[-1], rtol=0.01)
    for one, other, best in zip(got[4:-1], brevitas[4:-1], exact[4:-1], strict=True):
        assert (one - best).abs() <= (other - best).abs() + 0.02 * best.abs()


@pytest.mark.parametrize("name", ["TernaryNN", "BinaryNN", "XnorNN", "Int2NN", "Int4NN", "Int8NN"])
def test_every_quantizer_of_a_net_is_fused_inside_the_context_only(name):
    net, images = build(name, "lenet"), torch.randn(4, 3, 32, 32)
    keys, digest = list(net.state_dict()), structure_digest(net)
    originals = [type(part) for part in net.modules()]
    expected = net(images)
    activations = [layer for layer in net.modules() if isinstance(layer, qnn.QuantReLU | qnn.QuantIdentity)]
    assert len(fused_parts(net)) == len(weights.quantized_layers(net)) + len(activations)
    with fused(net):
        assert torch.allclose(net(images), expected, atol=1e-6)
        assert list(net.state_dict()) == keys and structure_digest(net) == digest
        with fused(net):
            pass
        assert len(fused_parts(copy.deepcopy(net))) == 0  # they already are
    assert [type(part) for part in net.modules()] == originals and structure_digest(net) == digest


def test_they_are_brevitas_own_again_after_an_error():
    net = build("Int4NN", "lenet")
    originals = [type(part) for part in net.modules()]
    with pytest.raises(KeyError), fused(net):
        raise KeyError
    assert [type(part) for part in net.modules()] == originals


OWN_WEIGHTS = {
    "rounds down": q.TernaryWeight.let(float_to_int_impl_type="floor"),
    "powers of two": q.TernaryWeight.let(restrict_scaling_type="power_of_two"),
    "waits": q.TernaryWeight.let(quant_delay_steps=10),
    "learned": q.TernaryWeight.let(scaling_impl_type="parameter_from_stats"),
}


@pytest.mark.parametrize("name", OWN_WEIGHTS)
def test_a_quantizer_of_the_readers_own_is_left_to_brevitas(name):
    layer = qnn.QuantLinear(8, 4, bias=False, weight_quant=OWN_WEIGHTS[name])
    layer.quant_weight()
    assert fused_parts(layer) == []


@pytest.mark.parametrize("channels", [1, 4])
def test_activations_with_a_scale_per_channel_are_left_to_brevitas_and_can_be_trained(channels):
    layer = qnn.QuantReLU(
        act_quant=q.Int4Activation,
        scaling_per_output_channel=True,
        per_channel_broadcastable_shape=(1, channels, 1, 1),
        scaling_stats_permute_dims=(1, 0, 2, 3),
        return_quant_tensor=True,
    )
    x = torch.randn(2, channels, 5, 5, requires_grad=True)
    layer(x)  # sets up the scales
    expected = results(copy.deepcopy(layer), activation, x, 0)
    assert fused_parts(layer) == []
    with fused(layer):
        got = results(layer, activation, x, 0)
    assert all(torch.equal(one, other) for one, other in zip(got, expected, strict=True))
    assert got[-2].shape == (1, channels, 1, 1) and got[-2].abs().sum() > 0


def test_a_quantizer_that_someone_looks_into_is_left_to_brevitas():
    layer, seen = qnn.QuantLinear(8, 4, bias=False, weight_quant=q.TernaryWeight), []
    layer.weight_quant.tensor_quant.int_quant.register_forward_hook(lambda *_: seen.append(1))
    with fused(layer):
        layer.quant_weight()
    assert seen


@pytest.mark.parametrize("name", COMPLETE)
def test_no_quantizer_of_brevitas_gives_other_values_or_gradients(name):
    quantizer = getattr(brevitas.quant, name)
    outcomes = []
    for context in (nullcontext, fused):
        torch.manual_seed(0)
        if q.is_weight_quantizer(quantizer):
            layer = qnn.QuantConv2d(3, 8, 4, bias=False, weight_quant=quantizer)
        else:
            layer = qnn.QuantReLU(act_quant=quantizer)
        images = torch.randn(2, 3, 6, 6, requires_grad=True)
        layer(images)  # sets up learned scales
        with context(layer):
            values = layer(images)
        values = getattr(values, "value", values)
        gradients = torch.autograd.grad(values.square().sum(), [images, *layer.parameters()], allow_unused=True)
        outcomes.append([values, *(gradient for gradient in gradients if gradient is not None)])
    for one, other in zip(*outcomes, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4 * other.abs().max().item())
