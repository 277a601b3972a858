import brevitas.nn as qnn
import numpy as np
import pytest
import torch
from brevitas.quant import Fp8e4m3WeightPerTensorFloat, Int8ActPerTensorFloat, Int8WeightPerTensorFloat
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from qathelpers import nets
from qathelpers.common.errors import CourseError
from qathelpers.nets import packing, quantizers, weights
from qathelpers.training import checkpoint

QUANTIZED = [name for name, scheme in nets.SCHEMES.items() if scheme.weight is not None]


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(0, 7), max_size=4),
    lowest=st.integers(-128, 3),
    step=st.integers(1, 3),
    levels=st.integers(2, 256),
    seed=st.integers(0, 100),
)
def test_packing_is_undone_exactly(shape, lowest, step, levels, seed):
    integers = torch.randint(levels, shape, generator=torch.Generator().manual_seed(seed)) * step + lowest
    packed = packing.pack(integers, lowest, step, levels)
    assert len(packed) == -(-integers.numel() // packing.per_byte(levels))
    assert torch.equal(packing.unpack(packed, shape, lowest, step, levels), integers)


def test_how_many_numbers_fit_into_a_byte():
    assert [packing.per_byte(levels) for levels in (2, 3, 4, 15, 16, 255)] == [8, 5, 4, 2, 2, 1]


def test_bits_have_numpys_little_order():
    signs = torch.tensor([1, -1, -1, 1, 1, 1, -1, -1])
    assert packing.pack(signs, lowest=-1, step=2, levels=2).numpy() == np.packbits(signs > 0, bitorder="little")


# sharpnet has the same kinds of layers as convnet.
@pytest.mark.parametrize("arch", ["lenet", "convnet", pytest.param("sharpnet", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", QUANTIZED)
def test_a_packed_net_computes_the_same_bit_for_bit(name, arch, tmp_path, images):
    net = nets.build(name, arch, seed=3)
    inputs = images.float() / 128 - 1
    for _ in range(3):  # changes the running statistics of the BatchNorms
        net(inputs)
    net.eval()
    config = {"name": name, "arch": arch}
    plain = checkpoint.save(net, tmp_path / "plain.safetensors", config)
    packed = checkpoint.save(net, tmp_path / "packed.safetensors", config, packed=True)
    loaded = checkpoint.load(packed)
    assert torch.equal(loaded(inputs), net(inputs))
    assert weights.report(loaded).equals(weights.report(net))
    assert packed.stat().st_size < plain.stat().st_size


@pytest.mark.parametrize("arch", list(nets.ARCHITECTURES))
def test_a_float_net_trained_in_bf16_packs_to_half_and_computes_the_same_there(arch, tmp_path, images):
    net, inputs = nets.build("PytorchNN", arch, seed=3).eval(), images.float() / 128 - 1
    config = {"name": "PytorchNN", "arch": arch, "precision": "bf16"}
    plain = checkpoint.save(net, tmp_path / "plain.safetensors", config)
    packed = checkpoint.save(net, tmp_path / "packed.safetensors", config, packed=True)
    loaded = checkpoint.load(packed)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loaded(inputs), net(inputs))
    assert all(parameter.dtype == torch.float32 for parameter in loaded.parameters())
    assert packed.stat().st_size < 0.55 * plain.stat().st_size


def test_binary_weights_take_a_bit_each():
    net = nets.build("BinaryNN")
    tensors, layers = packing.pack_net(net)
    count = sum(layer.weight.numel() for layer in weights.quantized_layers(net).values())
    assert sum(tensors[f"{name}.weight"].numel() for name in layers) <= count / 8 + len(layers)


CONFIG = {"name": "BinaryNN", "arch": "lenet"}


def test_a_packed_file_of_another_architecture_is_refused(tmp_path):
    packed = checkpoint.save(nets.build("BinaryNN", "lenet"), tmp_path / "a.safetensors", CONFIG, packed=True)
    with pytest.raises(CourseError, match=r"a\.safetensors.*lenet.*convnet"):
        checkpoint.load(packed, nets.build("BinaryNN", "convnet"))


def test_a_packed_file_of_a_wider_net_is_refused(tmp_path):
    wide = nets.build("Int4NN", "lenet")
    wide.classifier[1] = nets.SCHEMES["Int4NN"].linear(400, 130)
    packed = checkpoint.save(wide, tmp_path / "a.safetensors", CONFIG | {"name": "Int4NN"}, packed=True)
    with pytest.raises(CourseError, match=r"a\.safetensors.*classifier\.1\.weight.*\(130, 400\).*\(120, 400\)"):
        checkpoint.load(packed)


@pytest.mark.parametrize("damage", ["features.0.weight", "features.0.weight.threshold"])
def test_a_packed_file_that_lacks_numbers_is_named(tmp_path, damage):
    """The checksum of such a file is right: another program may have written it."""
    net, path = nets.build("BinaryNN", "lenet"), tmp_path / "net.safetensors"
    tensors, layers = packing.pack_net(net)
    tensors[damage] = tensors[damage][:0]
    if damage.endswith("threshold"):
        del tensors[damage]
    checkpoint.write(path, tensors, {"config": CONFIG, "packed": layers})
    with pytest.raises(CourseError, match=r"net\.safetensors"):
        checkpoint.load(path)


@pytest.mark.parametrize("name", ["BinaryNN", "TernaryNN", "Int4NN", "PytorchNN"])
def test_the_size_report_adds_up_to_the_files(name, tmp_path):
    net = nets.build(name)
    report, config = packing.size_report(net), {"name": name, "arch": "convnet"}
    totals = report.loc["all"]
    assert (report.drop("all").sum() == totals).all()
    for packed, total in ((False, totals["checkpoint"]), (True, totals["packed"])):
        size = checkpoint.save(net, tmp_path / "net.safetensors", config, packed).stat().st_size
        assert total <= size <= total + 12_000  # names and header
    assert totals["packed"] == round(1000 * packing.kilobytes(net))
    assert totals["float"] <= totals["checkpoint"] and list(report.index) == list(dict.fromkeys(report.index))
    for layer, module in weights.quantized_layers(net).items():
        assert report.loc[layer, "float"] == 4 * module.weight.numel()


class Twice(nn.Module):
    """One layer under two names, as where two parts of a net share it."""

    def __init__(self, quantizer):
        super().__init__()
        self.first = self.second = qnn.QuantLinear(16, 16, bias=False, weight_quant=quantizer)

    def forward(self, x):
        return self.second(self.first(x))


@pytest.mark.parametrize(
    "quantizer",
    [
        quantizers.BinaryWeight,
        quantizers.Int4Weight,
        Int8WeightPerTensorFloat.let(scaling_impl_type="parameter_from_stats"),
    ],
)
def test_a_layer_with_two_names_is_packed_once(quantizer, tmp_path):
    net, x = Twice(quantizer).eval(), torch.randn(5, 16)
    with torch.no_grad():
        expected = net(x)
    path = checkpoint.save(net, tmp_path / "net.safetensors", {"precision": "fp32"}, packed=True)
    with torch.no_grad():
        assert torch.equal(checkpoint.load(path, Twice(quantizer))(x), expected)
    tensors, _ = packing.pack_net(net)
    assert len([name for name in tensors if name.endswith(".weight")]) == 1
    one = nn.Sequential(net.first)
    assert packing.kilobytes(net) == packing.kilobytes(one) == packing.size_report(net).loc["all", "packed"] / 1000


def test_a_net_that_is_one_layer_is_packed(tmp_path):
    net, x = qnn.QuantLinear(16, 16, bias=False, weight_quant=quantizers.Int4Weight), torch.randn(5, 16)
    path = checkpoint.save(net, tmp_path / "net.safetensors", {"precision": "fp32"}, packed=True)
    loaded = checkpoint.load(path, qnn.QuantLinear(16, 16, bias=False, weight_quant=quantizers.Int4Weight))
    assert torch.equal(loaded(x), net(x)) and packing.pack_net(net)[0]["weight"].dtype == torch.uint8


@pytest.mark.parametrize(
    ("options", "bits"),
    [
        ({"weight_quant": Int8WeightPerTensorFloat, "weight_bit_width": 16}, 16),
        ({"weight_quant": Fp8e4m3WeightPerTensorFloat}, 8),
        ({"weight_quant": Int8WeightPerTensorFloat, "weight_bit_width": 1}, 1),  # Brevitas makes NaN of them
    ],
)
def test_weights_that_cannot_be_packed_count_as_the_bits_of_their_quantizer(options, bits):
    net = nn.Sequential(nn.Linear(4, 64, bias=False), qnn.QuantLinear(64, 64, bias=False, **options))
    assert packing.levels(net[1]) is None
    assert packing.kilobytes(net) == (4 * 4 * 64 + 64 * 64 * bits / 8 + 4) / 1000
    assert packing.size_report(net).loc["1", "packed"] == 64 * 64 * bits / 8 + 4


def test_a_net_has_the_same_size_before_and_after_its_first_steps():
    act = qnn.QuantReLU(act_quant=Int8ActPerTensorFloat)
    net = nn.Sequential(nn.Linear(4, 4), act, nn.Linear(4, 4), act)
    before = packing.kilobytes(net)
    assert before == packing.size_report(net).loc["all", "packed"] / 1000 == 4 * (2 * (16 + 4) + 1) / 1000
    net.train()(torch.randn(5, 4))
    assert packing.kilobytes(net) == before
