"""Nets that nobody here wrote, those of Brevitas' examples, are used with our public functions as a reader would."""

from dataclasses import replace

import pytest
import torch

from qathelpers.analysis import costs
from qathelpers.common.errors import CourseError
from qathelpers.data import Dataset
from qathelpers.deploy import onnx_export, openvino_export, xnor_reference
from qathelpers.nets import packing, spec_of, weights
from qathelpers.training import checkpoint, fit, predict

models = pytest.importorskip("brevitas_examples.bnn_pynq.models", reason="needs the package brevitas_examples")

QUIET = {"log": lambda line: None, "on_batch": lambda share: None}
RGB, GREY = (3, 32, 32), (1, 28, 28)
# Levels of the weights, bits of the activations, and millions of multiplications, counted by hand from the layers.
PEERS = {
    "cnv_1w1a": (RGB, 2, 1, 59.5),
    "cnv_1w2a": (RGB, 2, 2, 59.5),
    "cnv_2w2a": (RGB, 3, 2, 59.5),
    "tfc_1w1a": (GREY, 2, 1, 0.059),
    "tfc_1w2a": (GREY, 2, 2, 0.059),
    "tfc_2w2a": (GREY, 3, 2, 0.059),
    "sfc_1w1a": (GREY, 2, 1, 0.334),
    "sfc_1w2a": (GREY, 2, 2, 0.334),
    "sfc_2w2a": (GREY, 3, 2, 0.334),
    "lfc_1w1a": (GREY, 2, 1, 2.91),
    "lfc_1w2a": (GREY, 2, 2, 2.91),
    "resnet18_4w4a": (RGB, 15, 4, 555.4),
}
SLOW = [name for name in PEERS if not name.startswith("tfc")]  # each takes more than a few seconds
every_peer = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in PEERS]
)
needs_onnx = pytest.mark.skipif(
    bool(onnx_export.missing()), reason=f"needs pip install -e '.[deploy]': {onnx_export.missing()}"
)


def make(name):
    torch.manual_seed(0)
    return getattr(models, name)(pretrained=False)


def bars(shape, train, test=100):
    """A data set of ten classes: a bright bar on noise, at one of ten heights."""
    images = torch.randint(0, 100, (train + test, *shape), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(train + test) % 10
    for image, label in zip(images, labels.tolist(), strict=True):
        top = label * (shape[1] - 4) // 9
        image[:, top : top + 4] += 150
    images = images.to(torch.uint8)
    return Dataset(images[:train], labels[:train], images[train:], labels[train:], tuple("abcdefghij"), "bars")


@pytest.fixture(scope="module")
def trained():
    """Return a function that trains a peer for one epoch, once, and returns the net, the history and the data."""
    nets = {}

    def train(name):
        if name not in nets:
            net, data = make(name), bars(PEERS[name][0], 32, 20)
            nets[name] = net, fit(net, data, 1, device="cpu", **QUIET), data
        return nets[name]

    return train


@every_peer
def test_a_peer_is_looked_into_and_counted(name):
    shape, levels, bits, millions = PEERS[name]
    net = make(name)
    report, table = weights.report(net), costs.layers(net, shape)
    inner = report.iloc[1:-1]  # the first and the last layer of ResNet-18 have 8 bits
    assert (inner["levels"] == levels).all() and not weights.warnings(net)
    assert report.index.tolist() == table.index.tolist()
    assert (table["A"].iloc[1:-1] == bits).all()
    assert table["MACs"].sum() / 1e6 == pytest.approx(millions, rel=0.01)
    per_weight = {2: 1 / 8, 3: 1 / 5, 15: 1 / 2}[levels]  # bytes
    assert (inner["weights"] * per_weight - table["bytes"].iloc[1:-1]).abs().max() <= 4 * 512 + 1  # and the scales
    assert costs.summary([net], shape)["kB"].item() == round(packing.kilobytes(net), 1)


@every_peer
def test_a_peer_trains_with_the_default_recipe_and_keeps_its_weights(name, trained):
    net, history, _ = trained(name)
    zeros = weights.report(make(name))["zeros"]
    assert spec_of(net).recipe.optimizer == history.config["recipe"]["optimizer"] == "adam"
    assert history["train_loss"].tolist()[0] < 5 and history.config["kB"] == round(packing.kilobytes(net), 1)
    assert (weights.report(net)["zeros"] - zeros).abs().max() < 0.05 and not weights.warnings(net)


@every_peer
@pytest.mark.parametrize("packed", [False, True])
def test_a_peer_is_loaded_as_it_was_saved(name, packed, trained, tmp_path):
    net, history, data = trained(name)
    expected = predict(net, data.test_images)
    path = checkpoint.save(net, tmp_path / "net.safetensors", history.config | {"precision": "fp32"}, packed=packed)
    assert torch.equal(predict(checkpoint.load(path, make(name)), data.test_images), expected)
    assert torch.equal(predict(net, data.test_images), expected)  # saving left the net alone
    assert path.stat().st_size < (1.2 if packed else 10_000) * 1000 * packing.kilobytes(net) + 20_000
    with pytest.raises(CourseError):
        checkpoint.load(path)  # the course cannot build it


@every_peer
def test_an_interrupted_training_of_a_peer_ends_as_one_that_was_not(name, tmp_path):
    def stop(history):
        raise KeyboardInterrupt

    data = bars(PEERS[name][0], 32, 10)
    whole = fit(make(name), data, 2, device="cpu", **QUIET)
    fit(make(name), data, 2, device="cpu", folder=tmp_path, on_epoch=stop, **QUIET)
    resumed = fit(make(name), data, 2, device="cpu", folder=tmp_path, **QUIET)
    for column in ("train_loss", "test_loss"):
        assert resumed[column].tolist() == whole[column].tolist()


@needs_onnx
@every_peer
@pytest.mark.parametrize("format", onnx_export.FORMATS)
def test_a_peer_is_exported_to_onnx_or_refused(name, format, trained, tmp_path):
    net, images = trained(name)[0].eval(), torch.randn(2, *PEERS[name][0])
    with torch.no_grad():
        expected = getattr(net(images), "value", net(images))
    if format == "qcdq" and "1w" in name:
        with pytest.raises(CourseError, match="qonnx"):
            onnx_export.export(net, tmp_path / "net.onnx", format, images=2, shape=PEERS[name][0])
    else:
        path = onnx_export.export(net, tmp_path / "net.onnx", format, images=2, shape=PEERS[name][0])
        assert torch.allclose(onnx_export.run(path, images), expected, atol=1e-4)
    with torch.no_grad():
        assert torch.equal(getattr(net(images), "value", net(images)), expected)


@pytest.mark.skipif(not openvino_export.available(), reason="needs pip install -e '.[deploy]'")
@every_peer
def test_openvino_refuses_a_peer(name):
    with pytest.raises(CourseError, match=r"CNV|FC|QuantResNet"):
        openvino_export.compiled(make(name).eval(), shape=PEERS[name][0])


@every_peer
def test_counting_bits_gives_the_logits_of_a_peer(name, trained):
    net, images = trained(name)[0].eval(), torch.randn(2, *PEERS[name][0])
    counting = xnor_reference.convert(net, PEERS[name][0])
    layers = [module for module in counting.modules() if isinstance(module, xnor_reference.CountingLayer)]
    assert len(layers) == (len(weights.quantized_layers(net)) if "1w" in name else 0)
    with torch.no_grad():
        outputs = [getattr(run(images), "value", run(images)) for run in (counting, net)]
    assert torch.allclose(*outputs, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "images", "epochs"), [("tfc_2w2a", 1280, 3), ("lfc_1w1a", 640, 3), ("cnv_2w2a", 640, 2)]
)
def test_a_peer_learns(name, images, epochs):
    """The weights of these nets start between -1 and 1, so they need some hundred steps, here in small batches."""
    net = make(name)
    recipe = replace(spec_of(net).recipe, batch_size=16)
    history = fit(net, bars(PEERS[name][0], images), epochs, recipe=recipe, device="cpu", **QUIET)
    assert history["test_acc"][-1] > 0.2 and not weights.warnings(net)
