import re

import pytest
import torch
from brevitas.quant import Int8WeightPerTensorFloat
from torch import nn
from torch.optim.swa_utils import update_bn

from qathelpers import nets
from qathelpers.common.errors import CourseError
from qathelpers.deploy import onnx_export

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
def test_a_net_that_build_did_not_make_is_refused(tmp_path):
    with pytest.raises(CourseError, match=r"Sequential.*nets\.build"):
        onnx_export.export(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), tmp_path / "net.onnx")
