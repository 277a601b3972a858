import brevitas.nn as qnn
import pytest
import torch
from brevitas.quant import (
    Fp8e4m3Weight,
    Fp8e4m3WeightPerChannelFloat,
    Int8ActPerTensorFloat,
    Int8WeightPerTensorFloat,
    ShiftedUint8ActPerTensorFloat,
    SignedTernaryWeightPerTensorConst,
)
from torch import nn

from qathelpers import nets
from qathelpers.nets import weights

ONE_BIT_INTEGERS = {"weight_quant": Int8WeightPerTensorFloat, "weight_bit_width": 1}  # Brevitas makes NaN of them


def test_the_report_has_a_row_per_quantized_layer_with_its_levels():
    net = nets.build("TernaryNN", "lenet")
    report = weights.report(net)
    assert list(report.index) == list(weights.quantized_layers(net))
    for name, row in report.iterrows():
        layer = net.get_submodule(name)
        scale, values = weights.scale(layer).item(), weights.quantized(layer)
        assert (row["weights"], row["levels"]) == (layer.weight.numel(), 3)
        assert row["zeros"] == pytest.approx((values == 0).float().mean().item(), abs=5e-4)
        assert [float(level) for level in row["quantized weights"].split(",")] == pytest.approx(
            [scale, 0, -scale], rel=1e-3
        )
    assert not weights.warnings(net)


@pytest.mark.parametrize("net", [nets.build("PytorchNN", "lenet"), nn.ReLU()])
def test_the_report_of_a_float_net_is_empty(net):
    report = weights.report(net)
    assert report.empty and list(report.columns) == list(weights.report(nets.build("BinaryNN", "lenet")).columns)
    assert not weights.warnings(net)


@pytest.mark.parametrize(
    ("options", "reason"), [({"weight_quant": SignedTernaryWeightPerTensorConst}, "all 0"), (ONE_BIT_INTEGERS, "NaN")]
)
def test_a_dead_layer_is_named_with_the_reason(options, reason):
    net = nn.Sequential(nn.ReLU(), qnn.QuantConv2d(64, 8, 3, **options))
    (sentence,) = weights.warnings(net)
    assert "1 is dead" in sentence and reason in sentence
    assert weights.describe("1", net[1]).is_dead


def test_levels_of_many_scales_are_a_range_of_integers():
    text = weights.report(nets.build("Int4NN", "lenet"))["quantized weights"].iloc[0]
    assert {"-7", "7", "6"} <= set(text.replace(",", "").split())  # 6 channels


def test_shares_and_scales_rebuild_the_statistics_of_a_layer():
    layer = nets.build("Int2NN", "lenet").classifier[1]
    report = weights.describe("classifier.1", layer)
    assert report.integers == (1, 0, -1) and sum(report.shares) == pytest.approx(1)
    mean = sum(i * share for i, share in zip(report.integers, report.shares, strict=True)) * report.scales[0]
    assert mean == pytest.approx(weights.quantized(layer).mean().item(), abs=1e-6)


def test_quantized_weights_have_no_negative_zeros():
    values = weights.quantized(nets.build("TernaryNN", "lenet").classifier[1])
    assert (values == 0).any() and not values[values == 0].signbit().any()


def test_latent_is_a_copy():
    layer = weights.first_layer(nets.build("BinaryNN", "lenet"))
    weights.latent(layer).zero_()
    assert layer.weight.abs().sum() > 0


def test_the_first_layer_may_be_a_float_one():
    assert weights.first_layer(nn.Sequential(nn.ReLU(), nn.Linear(3, 4))).out_features == 4


def test_weights_that_are_nan_have_no_integers():
    layer = qnn.QuantLinear(4, 4, bias=False, **ONE_BIT_INTEGERS)
    with pytest.raises(ValueError, match="NaN"):
        weights.integers(layer)
    assert torch.isnan(weights.quantized(layer)).any()


@pytest.mark.parametrize("quantizer", [Fp8e4m3Weight, Fp8e4m3WeightPerChannelFloat])
def test_weights_of_a_floating_point_format_are_reported_as_they_are(quantizer):
    torch.manual_seed(0)
    layer = qnn.QuantConv2d(8, 4, 3, bias=False, weight_quant=quantizer)
    values, row = weights.quantized(layer), weights.report(nn.Sequential(layer)).iloc[0]
    assert row["levels"] == (values / weights.scale(layer)).half().unique().numel()
    assert row["zeros"] == pytest.approx((values == 0).float().mean().item(), abs=5e-4)
    assert not weights.warnings(nn.Sequential(layer)) and not weights.describe("", layer).integers
    with pytest.raises(ValueError, match="integers"):
        weights.integers(layer)


def test_large_integers_are_integers():
    torch.manual_seed(0)
    layer = qnn.QuantConv2d(8, 4, 3, bias=False, weight_quant=Int8WeightPerTensorFloat, weight_bit_width=16)
    expected = torch.round(weights.quantized(layer).double() / weights.scale(layer).double())
    assert torch.equal(weights.integers(layer).double(), expected) and expected.abs().max() == 2**15 - 1


@pytest.mark.parametrize("quantizer", [Int8ActPerTensorFloat, ShiftedUint8ActPerTensorFloat])
def test_the_training_state_holds_what_the_state_dict_lacks(quantizer):
    def make():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 4), qnn.QuantReLU(act_quant=quantizer), nn.Linear(4, 4))

    batches = torch.randn(6, 5, 4)
    net, resumed = make().train(), make().train()
    assert weights.late_parameters(net) and weights.training_state(net).keys() == weights.training_state(make()).keys()
    for batch in batches[:3]:
        net(batch)
    assert not weights.late_parameters(net)
    weights.load_training_state(resumed, weights.training_state(net))
    for batch in batches[3:]:
        assert torch.equal(net(batch), resumed(batch))
    assert torch.equal(net.eval()(batches[0]), resumed.eval()(batches[0]))
