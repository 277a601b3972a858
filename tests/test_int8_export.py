from collections import Counter

import brevitas.nn as qnn
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from qathelpers import nets
from qathelpers.common.errors import CourseError
from qathelpers.data import normalize
from qathelpers.deploy import int8_export, onnx_export
from qathelpers.nets import quantizers, weights
from qathelpers.results import recorded_net
from qathelpers.training import predict

needs_deploy = pytest.mark.skipif(
    bool(onnx_export.missing()), reason=f"needs pip install -e '.[deploy]': {onnx_export.missing()}"
)


def noise(count, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)


def operators(path, folder):
    """Count the operators that ONNX Runtime executes for a file."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)


@needs_deploy
@pytest.mark.parametrize("name", ["PytorchNN", "Int8NN"])
def test_onnxruntime_computes_every_convolution_in_integers(name, tiny, tmp_path):
    import onnx

    net, images = recorded_net(name), tiny.test_images
    path = int8_export.export_int8(net, tmp_path / "net.onnx", tiny.train_images[:64])
    found = operators(path, tmp_path)
    assert found["QLinearConv"] == 7 and found["Conv"] == 1  # the whitening filter stays a float
    agree = (onnx_export.run(path, images, exact=False).argmax(1) == predict(net, images).argmax(1)).float().mean()
    assert agree > 0.9
    assert path.stat().st_size < 600_000  # half a million weights, one byte each
    assert {entry.key for entry in onnx.load(str(path)).metadata_props} >= {"scheme", "classes", "input"}


@needs_deploy
def test_the_accuracy_on_cifar10_stays(cifar10, tmp_path):
    net, images, labels = recorded_net("PytorchNN"), cifar10.test_images[:1000], cifar10.test_labels[:1000]
    path = int8_export.export_int8(net, tmp_path / "net.onnx", cifar10.train_images[:256])
    scores = [run(images) for run in (onnx_export.session(path, exact=False), lambda part: predict(net, part))]
    int8, floats = ((score.argmax(1) == labels).float().mean() for score in scores)
    assert abs(int8 - floats) < 0.015


@needs_deploy
def test_what_cannot_be_calibrated_is_refused(tmp_path):
    for net, images, reason in (
        (nets.build("XnorNN", "lenet"), noise(32), "levels"),
        (nets.build("Int4NN", "lenet"), noise(32), "levels"),
        (nets.build("PytorchNN", "lenet"), noise(4), "16 images"),
        (nets.build("PytorchNN", "lenet"), noise(32).float(), "float32"),
    ):
        with pytest.raises(CourseError, match=reason):
            int8_export.export_int8(net.eval(), tmp_path / "net.onnx", images)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arch", ["lenet", "convnet"])
@pytest.mark.parametrize("negate", [False, True])
def test_plain_layers_and_the_order_of_pooling_change_nothing(arch, negate):
    net = nets.build("TernaryNN", arch)
    update_bn([normalize(noise(64))], net)
    norm = next(module for module in net.modules() if isinstance(module, nn.BatchNorm2d))
    norm.weight.data[0] *= -1 if negate else 1
    images = normalize(noise(8, 2))
    plain = int8_export.pooled_last(int8_export.in_floats(net.eval()))
    with torch.no_grad():
        assert torch.allclose(plain(images), net(images), atol=1e-5)
    assert not weights.quantized_layers(plain) and weights.quantized_layers(net)


def own_net(**settings):
    """A net with a quantized convolution that has these settings."""
    conv = qnn.QuantConv2d(3, 8, 3, bias=False, weight_quant=quantizers.TernaryWeight, **settings)
    net = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    net(normalize(noise(4)))
    return net.eval()


class Doubled(qnn.QuantConv2d):
    """Computes something else than a QuantConv2d."""

    def forward(self, images):
        return 2 * super().forward(images)


class Capped(qnn.QuantReLU):
    """Computes something else than a QuantReLU."""

    def forward(self, x):
        return super().forward(x) * 0.5


def with_hook():
    net = own_net()
    net[0].register_forward_hook(lambda module, inputs, output: output * 2)
    return net


def with_subclass():
    net = own_net()
    net[0].__class__ = Doubled
    return net


def with_activation():
    net = nets.build("Int8NN", "lenet")
    net(normalize(noise(16)))
    relu = next(module for module in net.modules() if isinstance(module, qnn.QuantReLU))
    relu.__class__ = Capped
    return net.eval()


@needs_deploy
@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: own_net(padding=1, padding_mode="reflect"), "padding_mode"),
        (lambda: own_net(padding="same", stride=2), "padding='same'"),
        (with_hook, r"0 \(QuantConv2d\).*hook"),
        (with_subclass, r"0 \(Doubled\).*forward"),
        (with_activation, "Capped.*forward"),
    ],
)
def test_a_net_that_plain_layers_cannot_express_is_refused(make, named, tmp_path):
    with pytest.raises(CourseError, match=named):
        int8_export.export_int8(make(), tmp_path / "net.onnx", noise(32))
    assert not list(tmp_path.iterdir())


@needs_deploy
def test_a_plain_version_that_computes_something_else_is_not_kept(monkeypatch, tmp_path):
    plain = int8_export._plain

    def wrong(layer):
        found = plain(layer)
        found.weight.data *= 1.1
        return found

    monkeypatch.setattr(int8_export, "_plain", wrong)
    with pytest.raises(CourseError, match="float"):
        int8_export.export_int8(own_net(padding=1), tmp_path / "net.onnx", noise(32))
    assert not list(tmp_path.iterdir())


@needs_deploy
def test_images_and_settings_that_do_not_fit_are_refused(tmp_path):
    net, some = nets.build("PytorchNN", "lenet").eval(), noise(32)
    for images in (some[..., :28, :28], some[:, :1], torch.tensor(3, dtype=torch.uint8), some[0], some.numpy(), None):
        with pytest.raises(CourseError, match="images"):
            int8_export.export_int8(net, tmp_path / "net.onnx", images)
    with pytest.raises(CourseError, match="preprocess"):
        int8_export.export_int8(net, tmp_path / "net.onnx", some, preprocess=None)
    assert not list(tmp_path.iterdir())


@needs_deploy
def test_a_net_of_your_own_is_exported(tmp_path):
    net, images = own_net(padding="same"), noise(32)
    path = int8_export.export_int8(net, tmp_path / "net.onnx", images)
    expected = predict(net, images)
    gap = (onnx_export.run(path, images, exact=False) - expected).abs().max()
    assert gap < 0.05 * (expected.max() - expected.min())


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("tracked", [False, True])
def test_pooling_is_moved_only_behind_a_batchnorm_with_statistics(affine, tracked):
    norm = nn.BatchNorm2d(3, affine=affine, track_running_stats=tracked)
    net, images = nn.Sequential(nn.MaxPool2d(2), norm), normalize(noise(16))
    net(images)
    with torch.no_grad():
        expected = net.eval()(images)
        assert torch.allclose(int8_export.pooled_last(net)(images), expected, atol=1e-5)
    assert isinstance(net[0], nn.BatchNorm2d) == tracked
