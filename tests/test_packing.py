import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qathelpers import nets
from qathelpers.common.errors import CourseError
from qathelpers.nets import packing, weights
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


@pytest.mark.parametrize("arch", list(nets.ARCHITECTURES))
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
