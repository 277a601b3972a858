import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from qathelpers import nets
from qathelpers.deploy import fallback

from .test_openvino import trained


@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 6), st.integers(0, 1000))
def test_counting_bits_is_multiplying_signs(length, n, m, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.choice([-1, 0, 1], (n, length)), rng.choice([-1, 1], (m, length))
    bits = [np.packbits(values, axis=1) for values in (a > 0, b > 0, a != 0)]
    assert (fallback.dot(*bits) == a @ b.T).all()


def test_older_numpy_counts_the_same(monkeypatch):
    numbers = np.arange(256, dtype=np.uint8)
    expected = [bin(number).count("1") for number in range(256)]
    assert fallback.popcount(numbers).tolist() == expected
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert fallback.popcount(numbers).tolist() == expected


@pytest.mark.parametrize("stride, padding", [(1, 0), (1, 1), (2, 1)])
def test_a_layer_of_signs_is_exact(stride, padding):
    layer = nets.SCHEMES["XnorNN"].conv(5, 3, 3, stride=stride, padding=padding)
    images = torch.randn(2, 5, 7, 9).sign()
    counted, expected = fallback.CountingLayer(layer)(images), layer(images)
    steps = counted / fallback.CountingLayer(layer).scale
    assert torch.allclose(counted, expected, atol=1e-6) and torch.allclose(steps, steps.round(), atol=1e-4)


@pytest.mark.parametrize("arch", list(nets.ARCHITECTURES))
def test_a_whole_net_computes_the_same(arch):
    net, images = trained("XnorNN", arch), torch.randn(16, 3, 32, 32)
    counting = fallback.convert(net)
    counters = [module for module in counting.modules() if isinstance(module, fallback.CountingLayer)]
    assert len(counters) == sum(isinstance(module, nn.Conv2d | nn.Linear) for module in net.modules())
    with torch.no_grad():
        gaps = (counting(images) - net(images)).abs().amax(1)
    # A sum of signs is exact here and rounded in floats, which can move a signal over a sign's threshold.
    assert (gaps > 1e-3).sum() <= 2
    assert not any(isinstance(module, fallback.CountingLayer) for module in net.modules())


def test_layers_of_other_nets_stay_as_they_are():
    assert not any(isinstance(m, fallback.CountingLayer) for m in fallback.convert(nets.build("TernaryNN")).modules())
