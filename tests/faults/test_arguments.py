"""Arguments and settings that are wrong: the error names the value and what is allowed, and nothing is written."""

import pytest
import torch
from torch import nn

from qathelpers import data, results, training
from qathelpers.common import settings
from qathelpers.common.errors import CourseError
from qathelpers.data import Batches, Dataset, shapes
from qathelpers.nets import Recipe, Scheme, build, packing, quantizers, weights
from qathelpers.nets.recipe import changed
from qathelpers.results.reproduce import reproduce
from qathelpers.training import History
from tools.record import record

from .conftest import assert_refused, contents

IMAGES, LABELS = torch.zeros(60, 3, 32, 32, dtype=torch.uint8), torch.zeros(60, dtype=torch.int64)
DATASET = Dataset(IMAGES, LABELS, IMAGES, LABELS, shapes.CLASSES, "shapes")
CONFIG = {"name": "BinaryNN", "arch": "lenet", "init_seed": 0, "seed": 0, "epochs": 1, "recipe": {}, "data": "shapes"}
CONFIG |= {"train_images": 20_000, "test_images": 5_000}


def own(name, weight=quantizers.BinaryWeight):
    return Scheme(name, "W1A32", weight, first_last=None)


def fit(net="BinaryNN", dataset=DATASET, epochs=1, **options):
    net = build(net, "lenet") if isinstance(net, str | Scheme) else net
    return training.fit(net, dataset, epochs, device=options.pop("device", "cpu"), folder=runs(), **options)


def runs():
    return settings.results_dir() / "shapes"


def pack(*values, lowest=-1, step=2, levels=2):
    return packing.pack(torch.tensor(values), lowest, step, levels)


@pytest.fixture(autouse=True)
def nothing_is_written(tmp_path):
    yield
    assert not contents(tmp_path)


# What is wrong, the call, what the CourseError names.
CHOICES = [
    ("unknown net", lambda: build("FourNN"), ["'FourNN'", "TernaryNN"]),
    ("list of nets", lambda: build(["BinaryNN"]), ["['BinaryNN']", "TernaryNN"]),
    ("unknown architecture", lambda: build("XnorNN", "vgg"), ["'vgg'", "lenet"]),
    ("width that is not a number", lambda: build("XnorNN", "convnet-xyz"), ["convnet-xyz"]),
    ("width of a net with only one", lambda: build("XnorNN", "lenet-x2"), ["lenet", "-x2"]),
    ("unknown data set", lambda: data.load("mnist"), ["'mnist'", "shapes"]),
    ("no images", lambda: fit(dataset=DATASET.take(0)), ["0 images"]),
    ("unknown device", lambda: fit(device="tpu"), ["'tpu'", "'cpu'"]),
    ("net that is not recorded", lambda: results.recorded_net("BinNN"), ["BinNN", "BinaryNN"]),
    ("architecture without recorded nets", lambda: results.recorded_net("BinaryNN", "vgg"), ["vgg", "none"]),
    ("path as the name of a scheme", lambda: fit(own("../mine")), ["'../mine'"]),
    ("path as the name of a run to record", lambda: record("../x", "lenet", "shapes"), ["../x.npy"]),
    ("scheme without a name", lambda: fit(own("")), ["''"]),
    ("name too long for a file", lambda: fit(own("x" * 300)), ["x" * 300, "80"]),
    ("name of a hidden file", lambda: fit(own(".x")), ["'.x'"]),
    ("own scheme with a name of the course", lambda: build(own("BinaryNN", quantizers.Int4Weight)), ["BinaryNN"]),
    ("name of a quantizer", lambda: own("My", "binary"), ["weight", "My", "'binary'", "quantizers.BinaryWeight"]),
    ("unknown setting", lambda: changed(Recipe(), ["shift=2"]), ["'shift'", "batch_size"]),
    ("text as a learning rate", lambda: Recipe(lr="0.1"), ["lr", "'0.1'"]),
    ("switch as a number", lambda: Recipe(batch_size=True), ["batch_size", "True"]),
    ("table of a run without an epoch", lambda: results.table([History({"name": "MyNN"})]), ["MyNN"]),
    ("config without a recipe", lambda: reproduce({}), ["'recipe'"]),
    ("config with an unknown setting", lambda: reproduce(CONFIG | {"recipe": {"colour": 1}}), ["'colour'"]),
    ("config with an impossible seed", lambda: reproduce(CONFIG | {"init_seed": -1}), ["init_seed", "-1"]),
]


@pytest.mark.parametrize(("call", "named"), [row[1:] for row in CHOICES], ids=[row[0] for row in CHOICES])
def test_a_wrong_choice_is_named(call, named):
    assert_refused(call, CourseError, named)


# A change of the recipe, what the CourseError names besides the setting: the value, or the allowed ones.
SETTINGS = {
    "lr": ["''"],
    "lr=nan": ["nan"],
    "lr=inf": ["inf"],
    "bias_lr=-0.1": ["-0.1"],
    "batch_size=1.5": ["'1.5'"],
    "batch_size=0": ["0", "1"],
    "augment=yes": ["'yes'", "true", "false"],
    "optimizer=sgd": ["'sgd'", "muon", "adam"],
    "label_smoothing=2": ["2.0", "1"],
    "translate=40": ["40", "8"],
    "progressive_resizing=2": ["2.0", "1"],
    "latent_clip=0": ["0.0", "0.01"],
}


@pytest.mark.parametrize(("change", "named"), SETTINGS.items(), ids=SETTINGS)
def test_a_wrong_setting_of_the_recipe_is_named(change, named):
    assert_refused(lambda: changed(Recipe(), [change]), CourseError, [change.partition("=")[0], *named])


# An argument that takes a whole number, its call, values that it does not take.
NUMBERS = [
    ("seed", lambda value: build("XnorNN", seed=value), [-1, 0.5, 2**32, True]),
    ("seed", lambda value: fit(seed=value), [-1]),
    ("epochs", lambda value: fit(epochs=value), [0, 1.5, "ten", True]),
    ("train", DATASET.take, [-5, 61, True]),
    ("test", lambda value: DATASET.take(test=value), [0.5, 61]),
    ("validation", DATASET.validation_split, [0, 60, 0.1, True]),
    ("batch_size", lambda value: Batches(IMAGES, LABELS, value), [0, 2.5]),
    ("translate", lambda value: Batches(IMAGES, LABELS, translate=value), [-1]),
    ("step", lambda value: pack(1, step=value), [0]),
    ("byte", lambda value: pack(-1, levels=value), [1, 257]),
]


@pytest.mark.parametrize(
    ("argument", "call", "value"),
    [pytest.param(*row[:2], value, id=f"{row[0]}={value}") for row in NUMBERS for value in row[2]],
)
def test_a_number_out_of_range_is_named(argument, call, value):
    assert_refused(lambda: call(value), ValueError, [argument, repr(value)])


# What is wrong, the call, what the ValueError names.
OBJECTS = [
    ("name as a net", lambda: training.fit("BinaryNN", DATASET, 1), ["net", "str", "torch.nn.Module"]),
    ("name as a data set", lambda: fit(dataset="shapes"), ["dataset", "str", "data.load"]),
    ("dictionary as a recipe", lambda: fit(recipe={"lr": 0.1}), ["recipe", "dict", "Recipe"]),
    ("fewer labels than images", lambda: Batches(IMAGES, LABELS[:2]), ["60 images", "2 labels"]),
    ("float images", lambda: Batches(IMAGES.float(), LABELS), ["torch.uint8", "images of torch.float32"]),
    ("float labels", lambda: Batches(IMAGES, LABELS.float()), ["torch.int64", "labels of torch.float32"]),
    ("one image instead of a batch", lambda: Batches(IMAGES[0], LABELS[:1]), ["(n, 3, h, w)", "(3, 32, 32)"]),
    ("integer below the lowest level", lambda: pack(-3, 1), ["-1", "1"]),
    ("integer above the highest level", lambda: pack(1, 3), ["-1", "1"]),
    ("integer between two levels", lambda: pack(0, 1), ["-1", "1"]),
    ("fraction to pack", lambda: pack(0.5, lowest=0, step=1), ["0", "1"]),
    ("NaN to pack", lambda: pack(float("nan"), lowest=0, step=1), ["0", "1"]),
    ("no layer with weights", lambda: weights.first_layer(nn.ReLU()), ["convolution", "linear layer"]),
    ("too few bytes to unpack", lambda: packing.unpack(IMAGES[0, 0, 0, :2], [17], 0, 1, 2), ["2 bytes", "17"]),
]


@pytest.mark.parametrize(("call", "named"), [row[1:] for row in OBJECTS], ids=[row[0] for row in OBJECTS])
def test_a_wrong_object_is_named(call, named):
    assert_refused(call, ValueError, named)


def test_a_wrong_column_is_named():
    assert_refused(lambda: History({})["acc"], KeyError, ["'acc'", "test_acc"])


LONG = "/" + 300 * "x"  # longer than the name of a file may be

# A variable, its value, what reads it, what the CourseError names.
VARIABLES = [
    ("QAT_MAX_EPOCHS", "few", fit, ["QAT_MAX_EPOCHS", "'few'"]),
    ("QAT_MAX_EPOCHS", "0", fit, ["QAT_MAX_EPOCHS", "'0'"]),
    ("QAT_MAX_IMAGES", "many", lambda: data.load("shapes"), ["QAT_MAX_IMAGES", "'many'"]),
    ("QAT_MAX_IMAGES", "60", lambda: reproduce(CONFIG), ["QAT_MAX_IMAGES", "20,000", "5,000", "60"]),
    ("QAT_DATA", "mnist", data.load, ["'mnist'", "shapes"]),
    ("QAT_DATA_DIR", "/nowhere", lambda: data.load("cifar10"), ["QAT_DATA_DIR", "/nowhere"]),
    ("QAT_DATA_DIR", LONG, lambda: data.load("cifar10"), [LONG]),
    ("QAT_DATA_DIR", "~nobody-here/x", lambda: data.load("cifar10"), ["QAT_DATA_DIR", "'~nobody-here/x'"]),
]


@pytest.mark.parametrize(
    ("variable", "value", "call", "named"), VARIABLES, ids=[f"{row[0]}={row[1][:20]}" for row in VARIABLES]
)
def test_a_wrong_environment_variable_is_named(monkeypatch, variable, value, call, named):
    monkeypatch.setenv(variable, value)
    assert_refused(call, CourseError, named)
