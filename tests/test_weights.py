import brevitas.nn as qnn
import pytest
import torch
from brevitas.quant import Int8WeightPerTensorFloat, SignedTernaryWeightPerTensorConst
from torch import nn

from qathelpers import nets, weights


def test_report_shows_the_first_layers_levels_and_each_layers_zeros():
    net = nets.build("TernaryNN", "lenet")
    lines = weights.report(net).splitlines()
    s = weights.scale(weights.first_layer(net)).item()
    assert lines[0] == f"TernaryNN, first layer (features.0): {s:+.4g}, 0, {-s:+.4g}"
    zeros = (weights.quantized(net.classifier[4]) == 0).float().mean().item()
    assert f"{zeros:.0%}" in next(line for line in lines if line.startswith("classifier.4"))
    assert "Warning" not in weights.report(net)


def test_a_float_net_gets_a_sentence():
    assert "no quantized weights" in weights.report(nets.build("PytorchNN"))
    assert "no quantized weights" in weights.report(nn.ReLU())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"weight_quant": SignedTernaryWeightPerTensorConst}, "all 0"),
        ({"weight_quant": Int8WeightPerTensorFloat, "weight_bit_width": 1}, "not numbers"),
    ],
)
def test_a_dead_layer_is_warned_of(options, reason):
    report = weights.report(nn.Sequential(qnn.QuantConv2d(64, 8, 3, **options)))
    assert f"Warning: 0 is dead: its weights are {reason}" in report


def test_levels_with_one_scale_a_channel_are_reported_as_integers():
    report = weights.report(nets.build("Int4NN"))
    assert "integers from -7 to 7, 48 scales" in report


def test_latent_is_a_copy():
    layer = weights.first_layer(nets.build("BinaryNN"))
    weights.latent(layer).zero_()
    assert layer.weight.abs().sum() > 0


def test_first_layer_of_a_net_without_any():
    with pytest.raises(ValueError, match="no convolution"):
        weights.first_layer(nn.Sequential(nn.ReLU()))
    assert weights.first_layer(nn.Linear(3, 4)).out_features == 4


def test_integers_of_a_layer_that_is_not_a_number():
    layer = qnn.QuantLinear(4, 4, bias=False, weight_quant=Int8WeightPerTensorFloat, weight_bit_width=1)
    with pytest.raises(ValueError, match="not numbers"):
        weights.integers(layer)
    assert torch.isnan(weights.quantized(layer)).any()
