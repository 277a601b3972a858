import math
import warnings

import brevitas.nn as qnn
import brevitas.quant as bq
import pytest
import torch
from brevitas.quant.float_quant_ocp import Fp8e4m3OCPWeightPerTensorFloat
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from qathelpers import nets
from qathelpers.analysis import costs
from qathelpers.common.errors import CourseError
from qathelpers.nets import packing


def test_layers_of_lenet_match_a_count_by_hand():
    table = costs.layers(nets.build("XnorNN", "lenet"))
    assert table["weights"].tolist() == [450, 2400, 48000, 10080, 840]
    assert table["MACs"].tolist() == [450 * 28 * 28, 2400 * 10 * 10, 48000, 10080, 840]
    assert table["A"].tolist() == [8, 1, 1, 1, 1] and set(table["W"]) == {1}
    assert table["BOPs"].tolist() == [450 * 28 * 28 * 8, 2400 * 10 * 10, 48000, 10080, 840]
    assert table["bytes"].tolist() == [-(-count // 8) + 4 for count in table["weights"]]  # plus one scale


@pytest.mark.parametrize(
    ("name", "w", "a"), [("PytorchNN", 32, 32), ("TernaryNN", 1.58, 32), ("Int4NN", 4, 4), ("Int2NN", 1.58, 2)]
)
def test_bits_match_the_scheme(name, w, a):
    table = costs.layers(nets.build(name))
    assert set(table["W"][1:]) == {w} and set(table["A"][1:]) == {a}
    assert table.loc["stem.0", ["weights", "MACs", "W", "A", "bytes"]].tolist() == [0, 16 * 48 * 256, 4, 8, 0]


def test_kilobytes_match_the_packed_net():
    table = costs.layers(nets.build("BinaryNN"))
    batchnorms = sum(4 * 4 * m.num_features + 8 for m in nets.build("BinaryNN").modules() if hasattr(m, "num_features"))
    assert packing.kilobytes(nets.build("BinaryNN")) == (table["bytes"].sum() + batchnorms) / 1000


def test_counting_does_not_change_the_net():
    net = nets.build("Int2NN", "lenet").train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    costs.layers(net)
    assert net.training and all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules() if isinstance(module, nn.Conv2d))


def test_the_summary_has_one_row_per_net():
    names = ["PytorchNN", "TernaryNN", "BinaryNN"]
    table = costs.summary([nets.build(name) for name in names])
    assert table.index.tolist() == names
    assert table["million MACs"].nunique() == 1
    assert table["kB"].is_monotonic_decreasing and table["million BOPs"].is_monotonic_decreasing


def test_the_stem_of_binary_activations_doubles_the_first_convolution():
    binary, xnor = (costs.layers(nets.build(name)).loc["blocks.0.widen.1"] for name in ("BinaryNN", "XnorNN"))
    assert xnor["MACs"] == 2 * binary["MACs"]
    assert xnor["BOPs"] * 16 == binary["BOPs"]


def test_nets_that_build_did_not_make_are_counted_too():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 30 * 30, 10))
    table = costs.summary([net])
    assert table.index.tolist() == ["Sequential"]
    assert table["million MACs"].tolist() == [round((4 * 27 * 900 + 36000) / 1e6, 1)]


B = {"weight_quant": nets.quantizers.BinaryWeight, "bias": False}
shared = qnn.QuantConv2d(3, 3, 1, **B)
# One row per net: its layers, and then the MACs, W, A and bytes that were counted by hand for the last layer.
BY_HAND = {
    "transposed": ([qnn.QuantConvTranspose2d(3, 4, 2, stride=2, **B)], 3 * 64 * 4 * 4, 1, 8, 6 + 4),
    "transposed in groups": ([nn.ConvTranspose2d(3, 6, 3, groups=3)], 3 * 64 * 2 * 9, 32, 8, 54 * 4),
    "1-D": ([nn.Flatten(2), qnn.QuantConv1d(3, 4, 9, stride=5, **B)], 4 * 12 * 27, 1, 8, 14 + 4),
    "depthwise": ([qnn.QuantConv2d(3, 6, 3, groups=3, **B)], 6 * 36 * 9, 1, 8, 7 + 4),
    "in groups": ([nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2)], 8 * 36 * 4 * 9, 32, 32, 8 * 36 * 4),
    "linear at every position": ([nn.Flatten(2), qnn.QuantLinear(64, 4, **B)], 3 * 4 * 64, 1, 8, 32 + 4),
    "16-bit weights": ([qnn.QuantConv2d(3, 8, 3, bias=False, weight_bit_width=16)], 8 * 36 * 27, 16, 8, 8 * 27 * 2 + 4),
    "FP8 weights": (
        [qnn.QuantConv2d(3, 8, 3, bias=False, weight_quant=Fp8e4m3OCPWeightPerTensorFloat)],
        8 * 36 * 27,
        8,
        8,
        8 * 27 + 4,
    ),
    "input_quant": (
        [qnn.QuantConv2d(3, 8, 3, input_quant=bq.Int8ActPerTensorFloat, input_bit_width=3, **B)],
        8 * 36 * 27,
        1,
        3,
        27 + 4,
    ),
    "used twice": ([shared, nn.ReLU(), shared], 2 * 9 * 64, 1, 32, 2 + 4),
}


@pytest.mark.parametrize("case", BY_HAND.values(), ids=BY_HAND)
def test_other_layers_match_a_count_by_hand(case):
    modules, macs, w, a, size = case
    row = costs.layers(nn.Sequential(*modules), (3, 8, 8)).iloc[-1]
    assert row[["MACs", "W", "A", "bytes"]].tolist() == [macs, w, a, size]


def test_a_layer_that_is_used_twice_has_one_row_and_is_stored_once():
    net = nn.Sequential(shared, nn.ReLU(), shared)
    table = costs.layers(net, (3, 8, 8))
    assert table.index.tolist() == ["0"] and table["BOPs"].tolist() == [9 * 64 * (8 + 32)]
    once, twice = (costs.summary([n], (3, 8, 8))["kB"].item() for n in (nn.Sequential(shared), net))
    assert once == twice


def act(bits, layer=qnn.QuantReLU, **options):
    return layer(bit_width=bits, **options)


@pytest.mark.parametrize(
    ("between", "bits"),
    [
        ([act(4), nn.SiLU()], 32),
        ([act(4), nn.Hardtanh()], 32),
        ([act(4), nn.ReLU(inplace=True)], 32),
        ([nn.ReLU(), act(4, qnn.QuantHardTanh, min_val=-1.0, max_val=1.0)], 4),
        ([act(2), act(5, qnn.QuantSigmoid)], 5),
        ([act(4), nn.BatchNorm2d(3)], 32),
        ([act(4), qnn.QuantReLU(act_quant=None)], 32),
        ([act(4), qnn.QuantIdentity(act_quant=None)], 4),
        ([act(4), nn.MaxPool2d(2), nn.Dropout(), nn.Identity()], 4),
        ([act(4), nn.AvgPool2d(2)], 32),
        ([act(4, return_quant_tensor=True)], 4),
        ([qnn.QuantConv2d(3, 3, 1, output_quant=bq.Int8ActPerTensorFloat, output_bit_width=6)], 6),
        ([nn.Conv2d(3, 3, 1)], 32),
    ],
)
def test_inputs_have_the_bits_of_what_comes_before(between, bits):
    net = nn.Sequential(*between, nn.Conv2d(3, 2, 1))
    assert costs.layers(net, (3, 8, 8))["A"].iloc[-1] == bits


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.act, self.left, self.right, self.sum = act(2), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        levels = nn.functional.max_pool2d(self.act(2 * x - 1), 2)
        return self.sum(self.left(levels) + self.right(levels[:, [2, 1, 0]]))


def test_branches_get_the_bits_of_their_own_inputs():
    assert costs.layers(Branches(), (3, 8, 8))["A"].tolist() == [2, 2, 32]


class Other(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.unused, self.lstm = nn.Conv2d(3, 4, 1), nn.Linear(5, 6), nn.LSTM(4, 2, batch_first=True)
        self.matrix = nn.Parameter(torch.zeros(2, 7))
        self.norm = nn.LayerNorm((4, 8, 8))

    def forward(self, x):
        return self.lstm(self.norm(self.conv(x)).flatten(2).mT)[0] @ self.matrix


class Composed(nn.Module):
    """Writes `values` into one channel of 4-bit activations, and calls its layers by keyword."""

    def __init__(self, values):
        super().__init__()
        self.first, self.act, self.last = nn.Conv2d(3, 8, 3), act(4), nn.Conv2d(8, 8, 3)
        self.values = values

    def forward(self, x):
        y = self.act(self.first(input=x)).clone()
        if self.values is not None:
            y[:, 0] = self.values(x)
        return self.last(input=y)


@pytest.mark.parametrize(
    ("values", "bits"),
    [
        (None, 4),
        (lambda x: x[:, 0, 1:-1, 1:-1].sigmoid(), 32),
        (lambda x: x[:, 0, 1:-1, 1:-1], 8),
        (lambda x: 0.3, 32),
    ],
)
def test_values_that_are_written_into_a_tensor_count_and_layers_may_be_called_by_keyword(values, bits):
    table = costs.layers(Composed(values), (3, 8, 8))
    assert table["A"].tolist() == [8, bits]
    assert table["MACs"].tolist() == [8 * 27 * 36, 8 * 72 * 16]


def test_weights_that_are_not_counted_are_named():
    with pytest.warns(UserWarning, match="MACs are not counted for Other, unused, lstm of Other"):
        table = costs.layers(Other(), (3, 8, 8))
    assert table.index.tolist() == ["conv", "Other", "unused", "lstm"]
    assert table["MACs"].isna().tolist() == [False, True, True, True]
    assert table["weights"].tolist() == [12, 14, 30, 4 * 2 * (4 + 2)]
    with pytest.warns(UserWarning, match="lstm"):
        assert math.isnan(costs.summary([Other()], (3, 8, 8))["million MACs"].item())


def test_images_of_another_shape_are_refused():
    with pytest.raises(CourseError, match=r"\(1, 28, 28\).*`image`"):
        costs.layers(nets.build("XnorNN"), (1, 28, 28))


def test_weights_that_are_nan_and_nets_without_layers_are_no_error():
    net = nn.Sequential(qnn.QuantConv2d(3, 8, 3, **B))
    net[0].weight.data[:] = torch.nan
    assert costs.layers(net)["bytes"].tolist() == [27 + 4]
    assert costs.layers(nn.Sequential(nn.Flatten())).empty and costs.summary([]).empty


def test_each_module_gets_its_own_mode_back():
    net = nets.build("XnorNN", "lenet").train()
    net.features[2].eval()
    costs.layers(net)
    assert net.training and net.features[0].training and not net.features[2].training


@pytest.mark.parametrize("name", list(nets.SCHEMES))
def test_the_summary_has_the_size_of_the_packed_net(name):
    net = nets.build(name, "lenet")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert costs.summary([net])["kB"].item() == round(packing.kilobytes(net), 1)


@given(
    st.sampled_from([1, 2, 3, 6]),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 2),
    st.integers(1, 2),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_macs_are_the_multiplications_of_the_convolution(groups, kernel, stride, padding, dilation, transposed):
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    layer = kind(6, 12, kernel, stride, padding, groups=groups, dilation=dilation, bias=False)
    nn.init.ones_(layer.weight)
    macs = costs.layers(nn.Sequential(layer), (6, 8, 7))["MACs"].item()
    # With weights and inputs of 1, each output is the number of its products. Padded zeros count as products.
    if transposed:
        layer.padding = (0, 0)
        assert macs == layer(torch.ones(1, 6, 8, 7)).sum()
    else:
        layer.padding = (0, 0)
        padded = nn.functional.pad(torch.ones(1, 6, 8, 7), [padding] * 4, value=1.0)
        assert macs == layer(padded).sum()


@pytest.mark.parametrize("name", ["PytorchNN", "XnorNN"])
def test_costs_are_counted_for_the_images_that_the_net_was_built_for(name):
    grey = nets.build(name, "lenet", image_size=28, channels=1)
    first = costs.layers(grey).iloc[0]
    assert first["weights"] == 6 * 1 * 5 * 5 and first["MACs"] == first["weights"] * 24 * 24
    colour = nets.build(name, "lenet", image_size=28)
    assert costs.layers(colour).iloc[0]["MACs"] == 3 * first["MACs"]
    stem = costs.layers(nets.build(name, "convnet", image_size=28, channels=1)).iloc[0]
    assert stem["MACs"] == 10 * 4 * 4 * 14 * 14
    table = costs.summary([grey, colour, nets.build(name, "lenet")])
    assert table["million MACs"].is_monotonic_increasing and table["million MACs"].is_unique


@pytest.mark.parametrize(("name", "bits"), [("PytorchNN", 32), ("Int4NN", 4), ("XnorNN", 1)])
@pytest.mark.parametrize("arch", ["convnet", "sharpnet"])
def test_the_working_memory_is_the_largest_input_and_output_of_a_layer(name, bits, arch):
    net = nets.build(name, arch)
    pairs = []
    layers = [layer for layer in net.modules() if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)]
    hooks = [
        layer.register_forward_hook(lambda _, i, o: pairs.append((i[0].numel(), getattr(o, "value", o).numel())))
        for layer in layers
    ]
    net.eval()(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    expected = max(inputs + outputs for inputs, outputs in pairs) * bits / 8 / 1000
    assert costs.feature_map_kilobytes(net) == pytest.approx(expected)


def test_outputs_are_stored_with_the_bits_of_the_layer_that_reads_them():
    net = torch.nn.Sequential(torch.nn.Linear(100, 200, bias=False), torch.nn.Linear(200, 50, bias=False))
    floats = torch.nn.Sequential(torch.nn.Flatten(), *net)  # the image has 8 bits per value, all others 32
    assert costs.feature_map_kilobytes(floats, (1, 10, 10)) == (200 + 50) * 4 / 1000
    assert costs.working_memory([]) == 0
    calls = [costs.Call(100, 50, 8), costs.Call(50, 10, 4)]
    assert costs.working_memory(calls) == max(100 * 8 + 50 * 4, 50 * 4 + 10 * 32) / 8000
