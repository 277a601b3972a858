import numpy as np
import pytest
import torch
from brevitas import nn as qnn
from brevitas.quant import Int8ActPerTensorFloat
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from qathelpers import nets
from qathelpers.common.errors import CourseError
from qathelpers.deploy import xnor_reference

from .test_openvino_export import BINARY, around, conv_options, equal_or_refused, make_or_skip, sign, trained


@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 6), st.integers(0, 1000))
def test_counting_bits_equals_multiplying_signs(length, n, m, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.choice([-1, 0, 1], (n, length)), rng.choice([-1, 1], (m, length))
    bits = [np.packbits(values, axis=1) for values in (a > 0, b > 0, a != 0)]
    assert (xnor_reference.dot(*bits) == a @ b.T).all()


def test_popcount_is_the_same_for_older_numpy(monkeypatch):
    numbers = np.arange(256, dtype=np.uint8)
    expected = [bin(number).count("1") for number in range(256)]
    assert xnor_reference.popcount(numbers).tolist() == expected
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert xnor_reference.popcount(numbers).tolist() == expected


@pytest.mark.parametrize("stride, padding", [(1, 0), (1, 1), (2, 1)])
def test_a_layer_of_signs_is_exact(stride, padding):
    layer = nets.SCHEMES["XnorNN"].conv(5, 3, 3, stride=stride, padding=padding)
    images = torch.randn(2, 5, 7, 9).sign()
    counted, expected = xnor_reference.CountingLayer(layer)(images), layer(images)
    steps = counted / xnor_reference.CountingLayer(layer).scale
    assert torch.allclose(counted, expected, atol=1e-6) and torch.allclose(steps, steps.round(), atol=1e-4)


@pytest.mark.parametrize("arch", list(nets.ARCHITECTURES))
def test_a_whole_net_computes_the_same(arch):
    net, images = trained("XnorNN", arch), torch.randn(16, 3, 32, 32)
    counting = xnor_reference.convert(net)
    counters = [module for module in counting.modules() if isinstance(module, xnor_reference.CountingLayer)]
    assert len(counters) == sum(isinstance(module, nn.Conv2d | nn.Linear) for module in net.modules())
    with torch.no_grad():
        gaps = (counting(images) - net(images)).abs().amax(1)
    # Sums of signs are exact here but rounded in floats, which can move an activation across the threshold of a sign.
    assert (gaps > 1e-3).sum() <= 2


def test_converting_does_not_change_the_net():
    net = nets.build("XnorNN", "lenet").train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    counting = xnor_reference.convert(net)
    assert net.training and not counting.training
    assert not any(isinstance(module, xnor_reference.CountingLayer) for module in net.modules())
    assert not any(module._forward_pre_hooks for module in net.modules())
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    own = {tensor.data_ptr() for tensor in net.state_dict().values()}
    assert own.isdisjoint(tensor.data_ptr() for tensor in counting.state_dict().values())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_nets_and_images_on_a_gpu_are_moved_to_the_cpu():
    net, images = trained("XnorNN", "convnet"), torch.randn(4, 3, 32, 32)
    expected = xnor_reference.convert(net)(images)
    assert torch.equal(xnor_reference.convert(net.cuda())(images.cuda()), expected)
    assert next(net.parameters()).is_cuda


def test_images_with_other_channels_than_the_nets_are_refused():
    counting = xnor_reference.convert(nets.build("XnorNN", "lenet").eval())
    for channels in (1, 4):
        with pytest.raises(CourseError, match=rf"\b{channels} channels.*\b3\b"):
            counting(torch.zeros(2, channels, 32, 32))


def test_layers_of_other_nets_are_not_replaced():
    counting = xnor_reference.convert(nets.build("TernaryNN"))
    assert not any(isinstance(module, xnor_reference.CountingLayer) for module in counting.modules())


@given(conv_options())
@settings(max_examples=60, deadline=None)
def test_a_converted_convolution_computes_the_same_or_is_refused(options):
    net = nn.Sequential(sign(), make_or_skip(qnn.QuantConv2d, **BINARY, **options)).eval()
    shape = (options["in_channels"], 9, 8)
    equal_or_refused(lambda net: xnor_reference.convert(net, shape), net, torch.randn(2, *shape))


CONVERTED = {
    "a bias": lambda: around(sign(), qnn.QuantConv2d(16, 16, 3, bias=True, **BINARY)),
    "padding='same' with a stride": lambda: around(sign(), qnn.QuantConv2d(16, 16, 4, 2, padding="same", **BINARY)),
    "one layer twice": lambda: around(*[sign(), qnn.QuantConv2d(16, 16, 1, **BINARY)] * 2),
    "a sequence": lambda: nn.Sequential(nn.Flatten(2), sign(), qnn.QuantLinear(192, 8, bias=True, **BINARY)).eval(),
    "a net of one layer": lambda: qnn.QuantConv2d(3, 4, 3, **BINARY).eval(),
}


@pytest.mark.parametrize("make", CONVERTED.values(), ids=CONVERTED)
def test_other_layers_are_converted(make):
    net, images = make(), torch.randn(4, 3, 16, 12).sign()
    counting = xnor_reference.convert(net, (3, 16, 12))
    counters = [m for _, m in counting.named_modules(remove_duplicate=False) if hasattr(m, "kernels")]
    layers = [
        m for _, m in net.named_modules(remove_duplicate=False) if isinstance(m, qnn.QuantConv2d | qnn.QuantLinear)
    ]
    assert len(counters) == len(layers)
    with torch.no_grad():
        assert torch.allclose(counting(images), net(images), atol=1e-4, rtol=1e-4)


def with_another_forward():
    net = around(sign(), qnn.QuantConv2d(16, 16, 3, **BINARY))
    net[3].forward = lambda x: x
    return net


REFUSED = {
    "reflect": lambda: around(qnn.QuantConv2d(16, 16, 3, padding=1, padding_mode="reflect", **BINARY)),
    "input_quant": lambda: around(qnn.QuantConv2d(16, 16, 3, input_quant=Int8ActPerTensorFloat, **BINARY)),
    "output_quant": lambda: around(qnn.QuantConv2d(16, 16, 3, output_quant=Int8ActPerTensorFloat, **BINARY)),
    "2 .QuantConvTranspose2d": lambda: around(qnn.QuantConvTranspose2d(16, 16, 2, **BINARY)),
    "QuantConv1d": lambda: nn.Sequential(nn.Flatten(2), qnn.QuantConv1d(3, 4, 3, **BINARY)),
    "3 .QuantConv2d.*forward was replaced": with_another_forward,
}


@pytest.mark.parametrize(("reason", "make"), REFUSED.items(), ids=REFUSED)
def test_what_cannot_be_converted_is_refused(reason, make):
    with pytest.raises(CourseError, match=reason):
        xnor_reference.convert(make(), (3, 16, 12))


def test_images_of_another_shape_are_refused():
    with pytest.raises(CourseError, match=r"\(1, 28, 28\).*`shape`"):
        xnor_reference.convert(nets.build("XnorNN", "lenet"), (1, 28, 28))


def test_a_layer_whose_output_is_changed_by_a_hook_is_refused():
    net = around(sign(), qnn.QuantConv2d(16, 16, 3, **BINARY))
    net[3].register_forward_hook(lambda module, inputs, output: output / 2)
    with pytest.raises(CourseError, match="does not compute what the net computes"):
        xnor_reference.convert(net, (3, 16, 12))


@pytest.mark.parametrize("arch", ["lenet", "convnet"])
def test_untrained_nets_are_converted(arch):
    xnor_reference.convert(nets.build("XnorNN", arch))


@pytest.mark.parametrize("arch", ["lenet", "convnet-x0.2"])
def test_the_shape_is_by_default_that_of_the_images_of_the_net(arch):
    net = nets.build("XnorNN", arch, image_size=28, channels=1).eval()
    images = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert xnor_reference.convert(net)(images).shape == net(images).shape == (4, 10)
