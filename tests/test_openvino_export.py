import brevitas.nn as qnn
import pytest
import torch
from brevitas.quant import Int8ActPerTensorFloat
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import update_bn

from qathelpers import nets
from qathelpers.common.errors import CourseError
from qathelpers.deploy import openvino_export

needs_openvino = pytest.mark.skipif(
    not openvino_export.available(), reason="needs pip install -e '.[deploy]': openvino"
)


def trained(name, arch):
    """A net whose BatchNorms have statistics."""
    net = nets.build(name, arch)
    update_bn([torch.randn(256, 3, 32, 32, generator=torch.Generator().manual_seed(1))], net)
    return net.eval()


@needs_openvino
@pytest.mark.parametrize("arch", list(nets.ARCHITECTURES))
@pytest.mark.parametrize("name", ["PytorchNN", "TernaryNN", "BinaryNN", "XnorNN", "XnorNN-8bit-first-last"])
def test_openvino_computes_the_same(name, arch):
    net, images = trained(name, arch), torch.randn(64, 3, 32, 32)
    with torch.no_grad():
        expected = net(images)
    gaps = (openvino_export.compiled(net, 64)(images) - expected).abs().amax(1)
    # Float rounding can move an activation across the threshold of a sign, which changes the logits of that image. In
    # the same way PyTorch itself gives different logits for batch sizes 1 and 1024: on 9 % of the images for
    # XnorNN-8bit-first-last with LeNet, on none for the other nets.
    assert (gaps > 1e-3).sum() <= (12 if (name, arch) == ("XnorNN-8bit-first-last", "lenet") else 2)


@needs_openvino
def test_binary_layers_become_binary_convolutions():
    def count(name):
        return [node.get_type_name() for node in openvino_export.convert(nets.build(name)).get_ops()].count(
            "BinaryConvolution"
        )

    layers = sum(isinstance(m, nn.Conv2d | nn.Linear) for m in nets.build("XnorNN").modules())
    assert count("XnorNN") == layers and count("BinaryNN") == 0


@needs_openvino
def test_a_model_outlives_its_net():
    net, images = trained("XnorNN", "convnet"), torch.randn(1, 3, 32, 32)
    run = openvino_export.compiled(net)
    before = run(images)
    del net
    junk = [torch.randn(1000, 100) for _ in range(50)]  # overwrites memory that was freed
    assert torch.equal(run(images), before) and len(junk) == 50


@needs_openvino
@pytest.mark.parametrize("name", ["Int8NN", "Int4NN"])
def test_quantized_activations_are_converted_too(name):
    # The images are fixed: on about one of 40 random batches, a single activation of Int4NN that is rounded to the
    # neighbouring level moves the logits of its image by slightly more than the limit.
    net, images = trained(name, "convnet"), torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = net(images)
    gaps = (openvino_export.compiled(net, 64)(images) - expected).abs().amax(1)
    assert gaps.median() < 1e-4 and gaps.max() < 0.2 * expected.abs().max()


@needs_openvino
@given(
    factor=st.sampled_from([-2.0, -1e-3, 0.0, 1e-3, 0.5, 3.0]), offset=st.sampled_from([-1.5, -0.25, 0.0, 0.25, 4.0])
)
@settings(max_examples=30, deadline=None)
def test_a_batchnorm_before_a_sign_becomes_its_threshold(factor, offset):
    norm = nn.BatchNorm2d(8, eps=0, affine=True).eval()
    torch.nn.init.constant_(norm.weight, factor)
    torch.nn.init.constant_(norm.bias, offset)
    xnor = nets.SCHEMES["XnorNN"]
    net = nn.Sequential(norm, xnor.act(), xnor.conv(8, 2, 1)).eval()
    images = torch.linspace(-4, 4, 8 * 64).view(1, 8, 8, 8)
    with torch.no_grad():
        expected = net(images)
    run = openvino_export.compiled(net, shape=(8, 8, 8))
    assert torch.allclose(run(images), expected, atol=1e-5)


@needs_openvino
def test_a_saved_binary_model_is_small(tmp_path):
    sizes = {}
    for name in ("PytorchNN", "XnorNN"):
        paths = openvino_export.save(nets.build(name), tmp_path / f"{name}.xml")
        sizes[name] = paths[1].stat().st_size
    assert sizes["XnorNN"] < sizes["PytorchNN"] / 20


@needs_openvino
def test_layers_that_cannot_be_converted_are_named():
    with pytest.raises(CourseError, match="QuantIdentity"):
        openvino_export.convert(nn.Sequential(qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat)))
    half = nets.quantizers.BinaryActivation.let(scaling_init=0.5)
    with pytest.raises(CourseError, match="QuantIdentity"):
        openvino_export.convert(nn.Sequential(qnn.QuantIdentity(act_quant=half)))
    with pytest.raises(CourseError, match="Sigmoid"):
        openvino_export.convert(nn.Sequential(nn.Sigmoid()))


def test_without_openvino_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(openvino_export, "available", lambda: False)
    for function in (openvino_export.convert, openvino_export.compiled):
        with pytest.raises(CourseError, match="pip install"):
            function(nets.build("XnorNN"))


@needs_openvino
def test_converting_does_not_change_the_net():
    net = nets.build("XnorNN", "lenet").train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    openvino_export.convert(net)
    assert net.training and all(torch.equal(before[key], value) for key, value in net.state_dict().items())
