import re

import pytest
import torch
from brevitas import nn as qnn
from brevitas.quant import Fp8e4m3WeightPerTensorFloat, Int8WeightPerTensorFloat
from brevitas.quant.solver import WeightQuantSolver
from torch import nn
from torch.optim.swa_utils import update_bn

from qathelpers import nets
from qathelpers.common.errors import CourseError
from qathelpers.deploy import onnx_export
from qathelpers.nets import quantizers as q

needs_deploy = pytest.mark.skipif(
    bool(onnx_export.missing()), reason=f"needs pip install -e '.[deploy]': {onnx_export.missing()}"
)


def trained(name):
    """A net whose BatchNorms have statistics."""
    net = nets.build(name, "lenet")
    update_bn([torch.randn(256, 3, 32, 32, generator=torch.Generator().manual_seed(1))], net)
    return net.eval()


@needs_deploy
@pytest.mark.parametrize("name", ["PytorchNN", "TernaryNN", "Int2NN", "Int4NN", "Int8NN", "TernaryNN-8bit-first-last"])
def test_onnxruntime_computes_the_same_from_qcdq(name, tmp_path):
    net, images = trained(name), torch.randn(256, 3, 32, 32)
    with torch.no_grad():
        expected = net(images)
    path = onnx_export.export(net, tmp_path / "net.onnx", images=256)
    found = onnx_export.run(path, images)
    assert (found - expected).abs().median() < 1e-5
    # An activation on the border between two levels may be rounded either way. This happens on few of 256 images.
    assert ((found - expected).abs().amax(1) > 1e-3).float().mean() < 0.05
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]
    with torch.no_grad():
        assert torch.equal(net(images), expected)


@needs_deploy
@pytest.mark.parametrize("name", ["BinaryNN", "XnorNN"])
def test_binary_nets_are_refused_in_qcdq(name, tmp_path):
    net, images = trained(name), torch.randn(8, 3, 32, 32)
    with torch.no_grad():
        expected = net(images)
        with pytest.raises(CourseError, match=rf"{name}.*qonnx"):
            onnx_export.export(net, tmp_path / "net.onnx")
        assert not list(tmp_path.iterdir())
        assert torch.equal(net(images), expected)
    assert onnx_export.export(net, tmp_path / "net.onnx", "qonnx").stat().st_size > 10_000


@needs_deploy
@pytest.mark.parametrize("name", ["PytorchNN", "BinaryNN", "TernaryNN", "XnorNN", "Int2NN", "Int4NN", "Int8NN"])
def test_every_net_computes_the_same_from_qonnx(name, tmp_path):
    net, images = trained(name), torch.randn(256, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = net(images)
    found = onnx_export.run(onnx_export.export(net, tmp_path / "net.onnx", "qonnx", images=256), images)
    assert ((found - expected).abs().amax(1) > 1e-3).float().mean() < 0.05


@needs_deploy
def test_a_failed_export_does_not_change_the_net(tmp_path):
    net, images = trained("TernaryNN"), torch.randn(8, 3, 32, 32)
    with torch.no_grad():
        expected = net(images)
        (tmp_path / "file").write_text("not a folder")
        with pytest.raises(CourseError, match=re.escape(str(tmp_path / "file"))):
            onnx_export.export(net, tmp_path / "file" / "net.onnx")
        assert torch.equal(net(images), expected)


def test_bad_formats_and_missing_packages_are_refused(tmp_path, monkeypatch):
    net = nets.build("TernaryNN", "lenet")
    with pytest.raises(CourseError, match=r"'onnx'.*qcdq, qonnx"):
        onnx_export.export(net, tmp_path / "net.onnx", "onnx")
    monkeypatch.setattr(onnx_export, "missing", lambda: ["onnx"])
    with pytest.raises(CourseError, match=r"onnx.*pip install"):
        onnx_export.export(net, tmp_path / "net.onnx")


@needs_deploy
def test_without_exact_the_runtime_rounds_activations_that_the_net_does_not_quantize(tmp_path):
    net, images = trained("TernaryNN"), torch.randn(64, 3, 32, 32)
    with torch.no_grad():
        expected = net(images)
    found = onnx_export.run(onnx_export.export(net, tmp_path / "net.onnx", images=64), images, exact=False)
    assert 1e-4 < (found - expected).abs().median() < 0.1


@needs_deploy
def test_a_scheme_of_your_own_is_exported(tmp_path):
    net = nets.build(nets.Scheme("Mine", "W8A32", Int8WeightPerTensorFloat, first_last=None), "lenet").eval()
    images = torch.randn(8, 3, 32, 32)
    with torch.no_grad():
        expected = net(images)
    found = onnx_export.run(onnx_export.export(net, tmp_path / "net.onnx"), images)
    assert torch.allclose(found, expected, atol=1e-4)


@needs_deploy
@pytest.mark.parametrize("format", onnx_export.FORMATS)
def test_a_net_that_build_did_not_make_is_exported(format, tmp_path):
    quantizer = q.Int4Weight.let(bit_width=6)
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(48), qnn.QuantLinear(48, 5, bias=True, weight_quant=quantizer))
    images = torch.randn(8, 3, 4, 4)
    with torch.no_grad():
        expected = net.eval()(images)
    found = onnx_export.run(onnx_export.export(net, tmp_path / "net.onnx", format, shape=(3, 4, 4)), images)
    assert torch.allclose(found, expected, atol=1e-5)


class TernaryWithThreshold(WeightQuantSolver):
    """Brevitas exports it to QONNX as 2-bit integers, with other thresholds."""

    quant_type, bit_width, signed, narrow_range = "ternary", 2, True, True
    threshold, scaling_impl_type, scaling_stats_op = 0.7, "stats", "ave"
    scaling_per_output_type, restrict_scaling_type = "tensor", "fp"


@needs_deploy
@pytest.mark.parametrize(
    ("quantizer", "refused"),
    [
        (TernaryWithThreshold, ["qonnx"]),
        (q.Int8Weight.let(bit_width=10), ["qcdq"]),
        (Fp8e4m3WeightPerTensorFloat, ["qcdq", "qonnx"]),
    ],
)
def test_a_file_that_computes_something_else_is_not_written(quantizer, refused, tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), qnn.QuantLinear(48, 5, bias=False, weight_quant=quantizer)).eval()
    images = torch.randn(8, 3, 4, 4)
    with torch.no_grad():
        expected = net(images)
    for format in onnx_export.FORMATS:
        path = tmp_path / format / "net.onnx"
        if format in refused:
            with pytest.raises(CourseError, match=format.upper()):
                onnx_export.export(net, path, format, shape=(3, 4, 4))
            assert not list(path.parent.iterdir())
        else:
            onnx_export.export(net, path, format, shape=(3, 4, 4))
            assert torch.allclose(onnx_export.run(path, images), expected, atol=1e-4)
    with torch.no_grad():
        assert torch.equal(net(images), expected)


@needs_deploy
def test_images_of_another_shape_than_the_net_accepts_are_refused(tmp_path):
    with pytest.raises(CourseError, match=r"\(3, 8, 8\)"):
        onnx_export.export(nets.build("TernaryNN", "lenet"), tmp_path / "net.onnx", shape=(3, 8, 8))
    assert not list(tmp_path.iterdir())


@needs_deploy
@pytest.mark.parametrize(("arch", "channels"), [("lenet", 1), ("convnet", 1), ("lenet", 3)])
@pytest.mark.parametrize("format", onnx_export.FORMATS)
def test_nets_for_other_images_and_classes_are_exported(arch, channels, format, tmp_path):
    net = nets.build("TernaryNN", arch, classes=7, image_size=28, channels=channels)
    images = torch.randn(8, channels, 28, 28, generator=torch.Generator().manual_seed(2))
    update_bn([torch.randn(64, channels, 28, 28, generator=torch.Generator().manual_seed(1))], net)
    with torch.no_grad():
        expected = net.eval()(images)
    found = onnx_export.run(onnx_export.export(net, tmp_path / "net.onnx", format), images)
    assert found.shape == (8, 7) and torch.allclose(found, expected, atol=1e-3)
