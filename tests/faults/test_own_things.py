"""A reader's own net, architecture, pictures and files: what cannot work is named in one sentence, before any work."""

from dataclasses import replace

import brevitas.nn as qnn
import numpy as np
import pytest
import torch
from brevitas.quant import Int8WeightPerChannelFloat, Int8WeightPerTensorFloat, SignedTernaryWeightPerTensorConst
from PIL import Image
from torch import nn

from qathelpers import results, training
from qathelpers.analysis import costs, plots
from qathelpers.common.errors import CourseError
from qathelpers.data import Batches, Dataset, from_folder, from_tensors, shapes
from qathelpers.data.pictures import read_picture
from qathelpers.deploy import onnx_export, xnor_reference
from qathelpers.nets import ARCHITECTURES, Architecture, ConvNet, Recipe, Scheme, build, packing, quantizers, weights
from qathelpers.training import History, checkpoint, evaluate, predict
from qathelpers.training.evaluation import memory_format

from .conftest import assert_refused, contents

IMAGES, LABELS = torch.zeros(60, 3, 32, 32, dtype=torch.uint8), torch.arange(60) % 10
DATASET = Dataset(IMAGES, LABELS, IMAGES, LABELS, shapes.CLASSES, "shapes")
GREY = replace(DATASET, train_images=IMAGES[:, :1], test_images=IMAGES[:, :1])
BATCHES = Batches(IMAGES, LABELS)


def linear(*last):
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 10), *last)


def convolution(**options):
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 10))


def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(10))


def constant_scale():
    layer = qnn.QuantLinear(3072, 10, bias=True, weight_quant=SignedTernaryWeightPerTensorConst)
    return nn.Sequential(nn.Flatten(), layer)


def fit(net, dataset=DATASET, epochs=1, **options):
    return training.fit(net, dataset, epochs, device="cpu", **options)


def own(**options):
    return Scheme("MyNN", "W1A32", quantizers.BinaryWeight, first_last=None, **options)


def registered(entry):
    """Build a net of an architecture that is registered as `entry`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "mine", entry)
        return build("BinaryNN", "mine")


def convnet(**options):
    return registered(ARCHITECTURES["convnet"].with_options(**options))


class WithoutScheme(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(3072, 10))


class Failing(nn.Module):
    def __init__(self, scheme, width=3):
        super().__init__()
        raise KeyError("width")


class Returning(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.layer, self.change = nn.Linear(3072, 10), change

    def forward(self, images):
        return self.change(self.layer(images.flatten(1)))


# What is wrong, the call, what the CourseError names.
WRONG = [
    ("lazy layer to train", lambda: fit(lazy()), ["1.weight", "lazy"]),
    ("lazy layer to predict with", lambda: predict(lazy(), IMAGES), ["1.weight", "lazy"]),
    ("lazy layer to evaluate", lambda: evaluate(lazy(), BATCHES), ["1.weight", "lazy"]),
    ("lazy layer to count", lambda: costs.layers(lazy()), ["1.weight", "lazy"]),
    ("lazy layer to measure", lambda: packing.kilobytes(lazy()), ["1.weight", "lazy"]),
    ("lazy layer to report", lambda: packing.size_report(lazy()), ["1.weight", "lazy"]),
    ("lazy layer to save", lambda: checkpoint.save(lazy(), "x.safetensors", {}), ["1.weight", "lazy"]),
    ("lazy layer to convert", lambda: xnor_reference.convert(lazy()), ["1.weight", "lazy"]),
    ("lazy layer in an architecture", lambda: registered(Architecture(lambda scheme: lazy())), ["1.weight", "lazy"]),
    ("no net to report", lambda: weights.report(None), ["net", "None", "torch.nn.Module"]),
    ("no net to count", lambda: costs.layers(None), ["net", "None", "torch.nn.Module"]),
    ("no net to export", lambda: xnor_reference.convert(None), ["net", "None", "torch.nn.Module"]),
    ("a number as an image's shape", lambda: costs.layers(linear(), 32), ["image", "int", "(3, 32, 32)"]),
    ("grey pictures for an RGB net", lambda: predict(convolution(), IMAGES[:, :1]), ["1 x 32 x 32", "channels=3"]),
    ("grey data for an RGB net", lambda: fit(convolution(), GREY), ["1 x 32 x 32", "channels=3"]),
    ("pictures of another size", lambda: predict(linear(), IMAGES[..., :20, :20]), ["3 x 20 x 20", "size"]),
    (
        "pictures of another size for a net of the course",
        lambda: predict(build("BinaryNN", "lenet"), IMAGES[..., :20, :20]),
        ["3 x 20 x 20", "32 x 32", "image_size=20"],
    ),
    ("net in double precision", lambda: fit(linear().double()), ["torch.float64", "net.float()"]),
    ("net in half precision", lambda: predict(linear().half(), IMAGES), ["torch.float16", "net.float()"]),
    ("float pictures", lambda: predict(linear(), IMAGES / 255), ["torch.float32", "uint8"]),
    ("array of pictures", lambda: predict(linear(), IMAGES.numpy()), ["images", "ndarray", "uint8"]),
    ("data set instead of pictures", lambda: predict(linear(), DATASET), ["images", "Dataset", "dataset.test_images"]),
    ("net and pictures swapped", lambda: predict(IMAGES, linear()), ["net", "Tensor"]),
    ("data set instead of batches", lambda: evaluate(linear(), DATASET), ["batches", "Dataset", "data.Batches"]),
    ("net and batches swapped", lambda: evaluate(BATCHES, linear()), ["net", "Batches"]),
    ("too few outputs", lambda: evaluate(linear(nn.Linear(10, 4)), BATCHES), ["(60, 4)", "9"]),
    ("labels of another data set", lambda: evaluate(linear(), Batches(IMAGES, LABELS + 5)), ["(60, 10)", "14"]),
    ("probabilities from a layer", lambda: fit(linear(nn.Softmax(1))), ["Sequential", "probabilities", "Softmax"]),
    ("probabilities", lambda: fit(Returning(lambda x: x.softmax(1))), ["Returning", "probabilities", "Softmax"]),
    ("a Sigmoid at the end", lambda: fit(linear(nn.Sigmoid())), ["Sequential", "Sigmoid"]),
    ("a Sigmoid in forward", lambda: fit(Returning(lambda x: x.sigmoid()[:, :, None].flatten(1))), ["Sigmoid"]),
    ("Muon for constant scales", lambda: fit(constant_scale(), recipe=Recipe()), ["Sequential", "Muon", "adam"]),
    ("text as a callback", lambda: fit(linear(), on_epoch="x"), ["on_epoch", "'x'"]),
    ("number as a callback", lambda: fit(linear(), on_batch=3), ["on_batch", "3"]),
    ("no log", lambda: fit(linear(), log=None), ["log", "None"]),
    ("number as a folder", lambda: fit(linear(), folder=3), ["folder", "int"]),
    ("option that does not exist", lambda: convnet(width=3), ["ConvNet", "'width'", "widths"]),
    ("option of a preset", lambda: Architecture(ConvNet, {"pool": 2}), ["ConvNet", "'pool'", "pools"]),
    ("scheme as an option", lambda: convnet(scheme=None), ["ConvNet", "'scheme'"]),
    ("too few widths", lambda: convnet(widths=(8, 8)), ["widths=(8, 8)", "pools=(2, 2, 1)"]),
    ("width of 0", lambda: convnet(widths=(8, 0, 8)), ["widths", "0"]),
    ("negative width", lambda: convnet(widths=(8, 8, -8)), ["widths", "-8"]),
    ("float width", lambda: convnet(widths=(8.0, 8, 8)), ["widths", "8.0"]),
    ("text as widths", lambda: convnet(widths=("8", "8", "8")), ["widths", "'8'"]),
    ("one number as widths", lambda: convnet(widths=8), ["widths", "int"]),
    ("no widths", lambda: convnet(widths=()), ["widths", "empty"]),
    ("pool of 0", lambda: convnet(pools=(2, 0, 1)), ["pools", "0"]),
    ("stride of 0", lambda: convnet(stride=0), ["stride", "0"]),
    ("patch that does not exist", lambda: convnet(patch=3), ["patch", "3", "2", "4"]),
    ("function as an entry", lambda: registered(lambda scheme: linear()), ["ARCHITECTURES", "'mine'", "Architecture"]),
    ("class as an entry", lambda: registered(ConvNet), ["ARCHITECTURES", "'mine'", "Architecture"]),
    ("class without a scheme", lambda: Architecture(WithoutScheme), ["WithoutScheme", "Scheme"]),
    ("class that fails", lambda: registered(Architecture(Failing)), ["Failing", "KeyError", "Scheme"]),
    ("net instead of a class", lambda: Architecture(linear()), ["'Sequential'", "Scheme"]),
    (
        "function that returns nothing",
        lambda: registered(Architecture(lambda scheme: None)),
        ["None", "torch.nn.Module"],
    ),
    ("unknown setting in a scheme", lambda: own(recipe={"lrr": 1}), ["'lrr'", "lr"]),
    ("text in a scheme's recipe", lambda: own(recipe={"lr": "x"}), ["lr", "'x'"]),
    ("whole recipe in a scheme", lambda: own(recipe=Recipe()), ["MyNN", "Recipe", "dict"]),
    ("number as a name", lambda: Scheme(3, "W1A1"), ["name", "int"]),
    ("no path to a folder", lambda: from_folder(None), ["path", "None"]),
    ("picture instead of a folder", lambda: from_folder(Image.new("RGB", (9, 9))), ["path", "Image"]),
    ("no path to a picture", lambda: read_picture(None), ["source", "None"]),
    ("picture instead of its path", lambda: read_picture(Image.new("RGB", (9, 9))), ["source", "Image"]),
    ("array instead of a path", lambda: read_picture(np.zeros((9, 9, 3), np.uint8)), ["source", "ndarray"]),
    ("no path to a checkpoint", lambda: checkpoint.load(None), ["path", "None"]),
    ("net instead of a path", lambda: checkpoint.load(linear()), ["path", "Sequential"]),
    ("net and path swapped", lambda: checkpoint.save("x.safetensors", linear(), {}), ["net", "str"]),
    ("no config", lambda: checkpoint.save(linear(), "x.safetensors", None), ["config", "None", "dict"]),
    ("list as a config", lambda: checkpoint.save(linear(), "x.safetensors", []), ["config", "list", "dict"]),
    ("tensor in a config", lambda: checkpoint.save(linear(), "x.safetensors", {"a": IMAGES}), ["'a'", "Tensor"]),
    (
        "array's number in a config",
        lambda: checkpoint.save(linear(), "x", {"a": np.float32(1)}),
        ["'a'", "float32"],
    ),
    ("number as a key of a config", lambda: checkpoint.save(linear(), "x", {1: 2}), ["1", "int", "string"]),
    ("text as a switch", lambda: fit(linear(), folder="x", overwrite="no"), ["overwrite", "str"]),
    ("text as packed", lambda: checkpoint.save(linear(), "x", {}, packed="no"), ["packed", "str"]),
    ("number of a GPU that is not there", lambda: training.fit(linear(), DATASET, 1, device=99), ["99"]),
    ("outputs before images", lambda: fit(Returning(lambda x: x.T)), ["Returning", "(10, 2)"]),
    ("text as a data set", lambda: results.load_or_train("BinaryNN", "cifar10", 1), ["dataset", "str", "data.load"]),
    ("number of classes", lambda: from_tensors(IMAGES, LABELS, IMAGES, LABELS, classes=10), ["classes", "10"]),
    ("number of classes in a data set", lambda: replace(DATASET, classes=10).check(), ["classes", "int"]),
    ("text as classes in a data set", lambda: replace(DATASET, classes="abcdefghij").check(), ["classes", "str"]),
    ("labels as images", lambda: from_tensors(LABELS, IMAGES, LABELS, IMAGES), ["train_images", "(60,)"]),
    ("pixels of 0 and 1", lambda: from_tensors(IMAGES + 1, LABELS, IMAGES, LABELS), ["train_images", "images * 255"]),
    ("NaN as pixels", lambda: from_tensors(IMAGES * float("nan"), LABELS, IMAGES, LABELS), ["train_images", "NaN"]),
    ("device of batches", lambda: Batches(IMAGES, LABELS, device="nope"), ["'nope'"]),
    ("layer with float weights", lambda: weights.integers(nn.Linear(3, 3)), ["Linear", "weights.quantized_layers"]),
    ("float layer to describe", lambda: weights.describe("x", nn.Linear(3, 3)), ["Linear", "weights.quantized_layers"]),
    ("float layer to pack", lambda: packing.weight_bytes(nn.Linear(3, 3)), ["Linear", "weights.quantized_layers"]),
    ("layer without weights", lambda: weights.latent(nn.ReLU()), ["ReLU"]),
    ("no net to warn of", lambda: weights.warnings(None), ["net", "None"]),
    ("list to pack", lambda: packing.pack([1, -1], -1, 2, 2), ["integers", "list"]),
    ("negative size of an image", lambda: costs.layers(linear(), (3, -32, 32)), ["image", "-32"]),
    ("text as the size of an image", lambda: xnor_reference.convert(linear(), ("3", 32, 32)), ["shape", "'3'"]),
    ("one history in a plot", lambda: plots.accuracy(History({})), ["histories", "History"]),
    ("nets in a table", lambda: results.table([linear()]), ["histories", "Sequential"]),
    ("no path for a figure", lambda: plots.save(plots.accuracy([]), None), ["path", "None"]),
    ("no name of a recorded net", lambda: results.recorded_net(None), ["name", "None"]),
    (
        "column of labels",
        lambda: from_tensors(IMAGES, LABELS[:, None], IMAGES, LABELS),
        ["train_labels", "(60, 1)", "labels.flatten()"],
    ),
    (
        "column of labels in a data set",
        lambda: replace(DATASET, train_labels=LABELS[:, None]).check(),
        ["(60, 1)", "train_labels.flatten()"],
    ),
    (
        "pixels from -1 to 1",
        lambda: from_tensors(IMAGES / 127.5 - 1, LABELS, IMAGES, LABELS),
        ["train_images", "((images + 1) * 127.5)"],
    ),
    ("normalized pixels", lambda: from_tensors(IMAGES - 2.5, LABELS, IMAGES, LABELS), ["-2.5", "normalization"]),
]


@pytest.mark.parametrize(("call", "named"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_what_cannot_work_is_named_before_any_work(tmp_path, monkeypatch, call, named):
    monkeypatch.chdir(tmp_path)
    assert_refused(call, CourseError, named)
    assert not contents(tmp_path)


@pytest.mark.parametrize(
    "net",
    [
        pytest.param(linear, id="Linear"),
        pytest.param(lambda: linear(nn.LogSoftmax(1)), id="LogSoftmax"),  # a softmax does not change these logits
        pytest.param(lambda: Returning(lambda x: x.relu()), id="ReLU"),
        pytest.param(lambda: Returning(lambda x: x.view(-1, 10)), id="view"),
        pytest.param(constant_scale, id="constant scales and the default recipe"),
    ],
)
def test_other_nets_are_trained(net):
    assert len(fit(net(), log=lambda line: None)) == 1


def test_muon_on_a_net_of_the_course_with_constant_scales_is_warned_of():
    lines, scheme = [], Scheme("MyNN", "W1.58A32", SignedTernaryWeightPerTensorConst, first_last=None)
    assert len(fit(build(scheme, "lenet"), recipe=Recipe(), log=lines.append)) == 1
    assert "Muon" in lines[0] and "adam" in lines[0]


@pytest.mark.parametrize("spec", ["x", {"name": "MyNN"}, 3])
def test_a_net_may_have_something_else_called_spec(spec):
    net = linear()
    net.spec = spec
    assert fit(net, log=lambda line: None).config["name"] == "Sequential"


def pictures(folder):
    for kind in ("cat", "dog"):
        (folder / kind).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (9, 9)).save(folder / kind / f"{number}.png")


@pytest.mark.parametrize("place", ["", "train", "beside"])
@pytest.mark.parametrize("name", ["loose.png", "IMG_1.JPG", "IMG_2.HEIC"])
def test_pictures_outside_the_class_folders_are_named(tmp_path, place, name):
    for folder in [tmp_path] if not place else [tmp_path / "train", tmp_path / "test"]:
        pictures(folder)
    assert len(from_folder(tmp_path, name="mine").classes) == 2
    where = tmp_path / ("train" if place == "train" else "")
    (where / "notes.txt").write_text("not a picture", encoding="utf-8")
    assert len(from_folder(tmp_path, name="mine").classes) == 2
    (where / name).write_bytes(b"a picture")
    assert_refused(lambda: from_folder(tmp_path, name="mine"), CourseError, [str(where), name])


@pytest.mark.skipif(bool(onnx_export.missing()), reason="needs pip install -e '.[deploy]'")
@pytest.mark.parametrize(("format", "name"), [("qcdq", "TernaryNN"), ("qonnx", "BinaryNN")])
def test_onnx_files_are_run_with_the_images_that_they_were_exported_for(tmp_path, capfd, format, name):
    path = onnx_export.export(build(name, "lenet"), tmp_path / "net.onnx", format, images=2)
    images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    assert onnx_export.run(path, images[:2]).shape == (2, 10)
    for wrong, named in (
        (images, ["(2, 3, 32, 32)", "(4, 3, 32, 32)", "images=4"]),
        (images[:2, :1], ["(2, 3, 32, 32)", "(2, 1, 32, 32)"]),
        (images[:2].float(), ["float32", "uint8"]),
        (images[:2].numpy(), ["images", "ndarray"]),
    ):
        assert_refused(lambda wrong=wrong: onnx_export.run(path, wrong), CourseError, named)
    (tmp_path / "bad.onnx").write_bytes(b"hello")
    for file in ("bad.onnx", "no.onnx"):
        assert_refused(lambda file=file: onnx_export.run(tmp_path / file, images), CourseError, [file])


@pytest.mark.skipif(bool(onnx_export.missing()), reason="needs pip install -e '.[deploy]'")
def test_an_export_that_fails_prints_nothing(tmp_path, capfd):
    net = Returning(torch.special.bessel_j0)
    assert_refused(lambda: onnx_export.export(net, tmp_path / "x.onnx"), CourseError, ["Returning", "QCDQ"])
    output = capfd.readouterr()
    assert not output.out and not output.err and not contents(tmp_path)


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda net: nn.ModuleDict({"module": net})])
def test_weights_are_to_be_loaded_into_the_net_inside_a_wrapper(tmp_path, wrap):
    path = checkpoint.save(build("BinaryNN", "lenet"), tmp_path / "net.safetensors", {})
    assert_refused(lambda: checkpoint.load(path, wrap(build("BinaryNN", "lenet"))), CourseError, ["net.module"])


@pytest.mark.parametrize("prefix", ["model.", "net.encoder.", "module.model."])
@pytest.mark.parametrize("packed", [False, True])
def test_weights_are_loaded_from_the_file_of_a_wrapper(tmp_path, prefix, packed):
    net = build("BinaryNN", "lenet")
    whole = net
    for name in reversed(prefix.split(".")[:-1]):
        whole = nn.ModuleDict({name: whole})
    path = checkpoint.save(whole, tmp_path / "net.safetensors", {}, packed=packed)
    loaded = checkpoint.load(path, build("BinaryNN", "lenet", seed=1))
    assert torch.equal(predict(loaded, IMAGES[:2]), predict(net, IMAGES[:2]))


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        ({"name": "Sequential", "arch": "Sequential", "init_seed": None}, {}),
        ({"name": "BinaryNN", "arch": "lenet"}, {"classes": 7}),
    ],
)
def test_a_net_that_cannot_be_rebuilt_is_to_be_passed(tmp_path, config, sizes):
    path = checkpoint.save(build("BinaryNN", "lenet", **sizes), tmp_path / "net.safetensors", config)
    with pytest.raises(CourseError) as caught:
        checkpoint.load(path)
    message = str(caught.value)
    assert all(word in message for word in (str(path), config["name"], "checkpoint.load(path, net)"))
    assert "leave the net out" not in message and "seed" not in message


def test_fewer_images_than_wanted_are_taken_if_the_course_is_shortened(monkeypatch):
    monkeypatch.setenv("QAT_MAX_IMAGES", "60")
    assert len(DATASET.take(5000).train_labels) == 60


class Learned(Int8WeightPerTensorFloat):
    scaling_impl_type, bit_width = "parameter_from_stats", 3


class LearnedPerChannel(Int8WeightPerChannelFloat):
    scaling_impl_type, bit_width = "parameter_from_stats", 4


@pytest.mark.parametrize("quantizer", [Learned, LearnedPerChannel, quantizers.BinaryWeight])
def test_a_learned_scale_is_packed_and_counted_once(tmp_path, quantizer):
    def make():
        return nn.Sequential(nn.Flatten(), qnn.QuantLinear(3072, 10, bias=False, weight_quant=quantizer))

    net = make()
    expected = predict(net, IMAGES[:2])
    path = checkpoint.save(net, tmp_path / "net.safetensors", {}, packed=True)
    tensors = checkpoint.read(path)[0]
    assert len(tensors) == 2  # the packed weights, and the magnitudes from which the scale follows
    assert packing.size_report(net).loc["all", "packed"] == sum(tensor.nbytes for tensor in tensors.values())
    assert packing.kilobytes(net) == packing.size_report(net).loc["all", "packed"] / 1000
    assert torch.equal(predict(checkpoint.load(path, make()), IMAGES[:2]), expected)


class OwnForward(ConvNet):
    def forward(self, images):
        return super().forward(images).view(len(images), -1)


@pytest.mark.parametrize(
    ("net", "accepts"),
    [
        (lambda: build("BinaryNN", "convnet-x0.2"), True),
        (lambda: type("Subclass", (ConvNet,), {})(own(), widths=(8, 8, 8)), True),
        (convolution, True),
        (lambda: OwnForward(own(), widths=(8, 8, 8)), False),
        (lambda: nn.Sequential(Returning(lambda x: x)), False),
    ],
)
def test_channels_last_images_go_to_nets_whose_code_is_known_to_accept_them(net, accepts):
    expected = torch.channels_last if accepts else torch.contiguous_format
    assert memory_format(net(), torch.device("cpu")) == expected
