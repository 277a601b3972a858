import pytest
import torch
from torch.optim.swa_utils import update_bn

from qathelpers import nets
from qathelpers.deploy import onnx
from qathelpers.errors import CourseError

needs_deploy = pytest.mark.skipif(bool(onnx.missing()), reason=f"needs pip install -e '.[deploy]': {onnx.missing()}")


def trained(name):
    """A net whose BatchNorms have seen something."""
    net = nets.build(name, "lenet")
    update_bn([torch.randn(256, 3, 32, 32, generator=torch.Generator().manual_seed(1))], net)
    return net.eval()


@needs_deploy
@pytest.mark.parametrize("name", ["PytorchNN", "TernaryNN", "Int2NN", "Int4NN", "Int8NN", "TernaryNN-8bit-ends"])
def test_onnxruntime_computes_the_same_from_qcdq(name, tmp_path):
    net, images = trained(name), torch.randn(256, 3, 32, 32)
    with torch.no_grad():
        expected = net(images)
    path = onnx.export(net, tmp_path / "net.onnx", images=256)
    found = onnx.run(path, images)
    assert (found - expected).abs().median() < 1e-5
    # A signal on the border between two levels may fall to either side; of 256 images there are few.
    assert ((found - expected).abs().amax(1) > 1e-3).float().mean() < 0.05
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]
    with torch.no_grad():
        assert torch.equal(net(images), expected)


@needs_deploy
@pytest.mark.parametrize("name", ["BinaryNN", "XnorNN"])
def test_binary_nets_are_refused_in_qcdq_with_the_way_out(name, tmp_path):
    net, images = trained(name), torch.randn(8, 3, 32, 32)
    with torch.no_grad():
        expected = net(images)
        with pytest.raises(CourseError, match="format='qonnx'"):
            onnx.export(net, tmp_path / "net.onnx")
        assert not list(tmp_path.iterdir())
        assert torch.equal(net(images), expected)
    assert onnx.export(net, tmp_path / "net.onnx", "qonnx").stat().st_size > 10_000


@needs_deploy
@pytest.mark.parametrize("name", ["PytorchNN", "BinaryNN", "TernaryNN", "XnorNN", "Int2NN", "Int4NN", "Int8NN"])
def test_every_net_computes_the_same_from_qonnx(name, tmp_path):
    net, images = trained(name), torch.randn(256, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = net(images)
    found = onnx.run(onnx.export(net, tmp_path / "net.onnx", "qonnx", images=256), images)
    assert ((found - expected).abs().amax(1) > 1e-3).float().mean() < 0.05


@needs_deploy
def test_an_export_that_fails_leaves_the_net_as_it_was(tmp_path, monkeypatch):
    net, images = trained("TernaryNN"), torch.randn(8, 3, 32, 32)
    with torch.no_grad():
        expected = net(images)
        (tmp_path / "file").write_text("no folder")
        with pytest.raises(CourseError, match="could not be written"):
            onnx.export(net, tmp_path / "file" / "net.onnx")
        assert torch.equal(net(images), expected)


def test_bad_formats_and_missing_packages_are_a_sentence(tmp_path, monkeypatch):
    net = nets.build("TernaryNN", "lenet")
    with pytest.raises(CourseError, match="choose one of qcdq, qonnx"):
        onnx.export(net, tmp_path / "net.onnx", "onnx")
    monkeypatch.setattr(onnx, "missing", lambda: ["onnx"])
    with pytest.raises(CourseError, match="onnx not installed: run `pip install"):
        onnx.export(net, tmp_path / "net.onnx")


@needs_deploy
def test_the_runtime_left_to_itself_rounds_activations_that_nobody_quantized(tmp_path):
    net, images = trained("TernaryNN"), torch.randn(64, 3, 32, 32)
    with torch.no_grad():
        expected = net(images)
    found = onnx.run(onnx.export(net, tmp_path / "net.onnx", images=64), images, exact=False)
    assert 1e-4 < (found - expected).abs().median() < 0.1
