import pytest
import torch
from torch import nn

from qathelpers import nets
from qathelpers.analysis import costs
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
