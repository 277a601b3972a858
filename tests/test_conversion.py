import brevitas.nn as qnn
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from qathelpers import nets
from qathelpers.common.errors import CourseError
from qathelpers.deploy import conversion


@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.sampled_from(["same", "valid", 0, 2]))
def test_padding_by_hand_equals_that_of_the_layer(kernel, stride, dilation, padding):
    layer = qnn.QuantConv2d(1, 1, (kernel, 2), stride, padding, dilation, weight_quant=None)
    images = torch.randn(1, 1, 13, 10)
    (top, left), (bottom, right) = conversion.pads(layer, 13, 10)
    padded = nn.functional.pad(images, (left, right, top, bottom))
    by_hand = nn.functional.conv2d(padded, layer.weight, layer.bias, stride, 0, dilation)
    assert torch.allclose(by_hand, layer(images), atol=1e-6)


class Sum(nn.Module):
    def forward(self, images):
        return images.flatten(1)[:, :10]


def check(net, run, may_flip=False):
    conversion.check(net, run, (3, 8, 8), "test", may_flip)


@given(st.floats(-2, 2), st.booleans())
def test_another_factor_is_found(factor, may_flip):
    assume(abs(factor - 1) > 0.01)
    with pytest.raises(CourseError, match="does not compute"):
        check(Sum(), lambda images: factor * Sum()(images), may_flip)


def test_a_missing_bias_is_found_beside_large_logits():
    with pytest.raises(CourseError, match="does not compute"):
        check(Sum(), lambda images: Sum()(images) + torch.tensor([0.1] + [0.0] * 9))


@pytest.mark.parametrize(("wrong", "found"), [(7, False), (9, True)])
def test_few_images_may_differ_if_activations_are_quantized(wrong, found):
    def run(images):
        logits = Sum()(images).clone()
        logits[:wrong] += 1
        return logits

    with pytest.raises(CourseError, match="does not compute"):
        check(Sum(), run, may_flip=False)
    if found:
        with pytest.raises(CourseError, match="does not compute"):
            check(Sum(), run, may_flip=True)
    else:
        check(Sum(), run, may_flip=True)


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (lambda x: Sum()(x) * torch.nan, "NaN"),
        (lambda x: (x, x), "one tensor"),
        (lambda x: x.sum(), "one tensor"),
        (nn.Linear(5, 5), "does not accept images of the shape"),
    ],
)
def test_nets_that_cannot_be_compared_are_refused(net, reason):
    with pytest.raises(CourseError, match=reason):
        check(net, Sum())


def test_the_random_batch_does_not_change_the_random_numbers_of_the_caller():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    check(Sum(), Sum())
    assert torch.equal(torch.rand(1), expected)


def test_only_quantized_activations_may_flip():
    assert not conversion.may_flip(nets.build("BinaryNN"))
    assert conversion.may_flip(nets.build("XnorNN")) and conversion.may_flip(nets.build("Int4NN"))
