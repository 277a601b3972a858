import pytest
import torch
from torch import nn

from qathelpers import costs, nets, packing


def test_layers_of_lenet_counted_by_hand():
    table = costs.layers(nets.build("XnorNN", "lenet"))
    assert table["weights"].tolist() == [450, 2400, 48000, 10080, 840]
    assert table["MACs"].tolist() == [450 * 28 * 28, 2400 * 10 * 10, 48000, 10080, 840]
    assert table["A"].tolist() == [8, 1, 1, 1, 1] and set(table["W"]) == {1}
    assert table["bit operations"].tolist() == [450 * 28 * 28 * 8, 2400 * 10 * 10, 48000, 10080, 840]
    assert table["bytes"].tolist() == [-(-count // 8) + 4 for count in table["weights"]]  # and a scale


@pytest.mark.parametrize(
    ("name", "w", "a"), [("PytorchNN", 32, 32), ("TernaryNN", 1.58, 32), ("Int4NN", 4, 4), ("Int2NN", 1.58, 2)]
)
def test_bits_are_those_of_the_scheme(name, w, a):
    table = costs.layers(nets.build(name))
    assert set(table["W"][1:]) == {w} and set(table["A"][1:]) == {a}
    assert table.loc["stem.0", ["weights", "MACs", "W", "A", "bytes"]].tolist() == [0, 16 * 48 * 256, 4, 8, 0]


def test_kilobytes_are_those_of_the_packed_net():
    table = costs.layers(nets.build("BinaryNN"))
    batchnorms = sum(4 * 4 * m.num_features + 8 for m in nets.build("BinaryNN").modules() if hasattr(m, "num_features"))
    assert packing.kilobytes(nets.build("BinaryNN")) == (table["bytes"].sum() + batchnorms) / 1000


def test_counting_leaves_the_net_as_it_was():
    net = nets.build("Int2NN", "lenet").train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    costs.layers(net)
    assert net.training and all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules() if isinstance(module, nn.Conv2d))


def test_the_summary_has_a_row_a_net():
    table = costs.summary([nets.build(name) for name in ("PytorchNN", "TernaryNN", "BinaryNN")])
    assert table["million MACs"].nunique() == 1
    assert table["kB"].is_monotonic_decreasing and table["million bit operations"].is_monotonic_decreasing


def test_signs_at_four_thresholds_cost_a_second_convolution_of_bits():
    binary, xnor = (costs.layers(nets.build(name)).loc["blocks.0.widen.1"] for name in ("BinaryNN", "XnorNN"))
    assert xnor["MACs"] == 2 * binary["MACs"]
    assert xnor["bit operations"] * 16 == binary["bit operations"]
