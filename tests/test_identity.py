import copy
from dataclasses import replace

import pytest
from torch import nn

from qathelpers import results
from qathelpers.common.errors import CourseError
from qathelpers.nets import ARCHITECTURES, SCHEMES, Scheme, build, quantizers
from qathelpers.nets.identity import structure_digest
from qathelpers.training import Run, fit, predict

from . import processes

QUIET = {"log": lambda line: None, "on_batch": lambda share: None}


def digest(arch="lenet", weight=quantizers.BinaryWeight, first_last=quantizers.BinaryWeight, activation=None):
    scheme = Scheme("MyNN", "W1A32", weight, activation, first_last)
    return structure_digest(build(scheme, arch))


class Renamed(quantizers.BinaryWeight):
    pass


class Mine(nn.Module):
    def forward(self, x):
        return 2 * x


class Other(nn.Module):
    def forward(self, x):
        return 3 * x


def test_nets_of_the_course_are_all_different():
    digests = [structure_digest(build(name, arch)) for name in SCHEMES for arch in ARCHITECTURES]
    assert len(set(digests)) == len(digests)


def test_the_seed_and_the_name_make_no_difference():
    assert structure_digest(build("TernaryNN", "lenet")) == structure_digest(build("TernaryNN", "lenet", seed=7))
    assert digest(weight=Renamed, first_last=Renamed) == digest()


@pytest.mark.parametrize(
    "changed",
    [
        {"weight": quantizers.TernaryWeight},
        {"first_last": quantizers.Int8Weight},
        {"first_last": None},
        {"weight": quantizers.BinaryWeight.let(scaling_min_val=0.1)},
        {"activation": quantizers.Int4Activation},
        {"activation": quantizers.Int4Activation.let(max_val=3.0)},
        {"activation": quantizers.Int4Activation.let(bit_width=3)},
        {"arch": "convnet"},
    ],
    ids=str,
)
def test_settings_make_a_difference(changed):
    digests = {digest(**changed), digest(), digest(activation=quantizers.Int4Activation.let(max_val=5.0))}
    assert len(digests) == 3


@pytest.mark.parametrize("options", [{"pools": (1, 2, 2)}, {"widths": (16, 16, 16)}, {"patch": 2}, {"stride": 1}])
def test_options_of_an_architecture_make_a_difference(options, monkeypatch):
    before = digest("convnet")
    monkeypatch.setitem(ARCHITECTURES, "convnet", ARCHITECTURES["convnet"].with_options(**options))
    assert digest("convnet") != before


def test_code_of_ones_own_makes_a_difference():
    assert structure_digest(Mine()) != structure_digest(Other())
    patched = Mine()
    patched.forward = lambda x: 4 * x
    assert structure_digest(patched) != structure_digest(Mine())
    assert structure_digest(nn.Sequential(nn.Conv2d(3, 4, 3))) != structure_digest(
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1))
    )


@pytest.mark.parametrize("name", ["TernaryNN", "XnorNN", "Int4NN"])
def test_training_and_copying_make_no_difference(name, tiny):
    net = build(name, "lenet")
    before = structure_digest(net)
    fit(net, tiny.take(60, 60), 1, device="cpu", **QUIET)
    assert structure_digest(net) == structure_digest(copy.deepcopy(net)) == before


def load_or_train(dataset, epochs=1, overwrite=False, **scheme):
    """Run what a reader's cell does who edits a scheme of the same name."""
    SCHEMES["MyNN"] = Scheme("MyNN", "W1A32", **scheme)
    try:
        return results.load_or_train("MyNN", dataset, epochs, arch="lenet", overwrite=overwrite)
    finally:
        del SCHEMES["MyNN"]


def test_an_edited_scheme_of_the_same_name_is_trained_anew(tiny, capsys):
    few = tiny.take(60, 60)
    binary = {"weight": quantizers.BinaryWeight, "first_last": quantizers.BinaryWeight}
    load_or_train(few, **binary)
    net, history = load_or_train(few, **binary)
    assert "loaded" in capsys.readouterr().out
    assert (predict(net, few.test_images).argmax(1) == few.test_labels).float().mean().item() == pytest.approx(
        history.test_acc
    )
    with pytest.raises(CourseError, match="net_sha256"):
        load_or_train(few, **binary | {"first_last": quantizers.Int8Weight})
    net, _ = load_or_train(few, overwrite=True, **binary | {"first_last": quantizers.Int8Weight})
    out = capsys.readouterr().out
    assert "training" in out and "net_sha256" in out
    assert len(net.classifier[-2].quant_weight().value.unique()) > 2


def test_other_images_of_the_same_number_and_name_are_trained_anew(tiny, capsys):
    few = tiny.take(60, 60)
    results.load_or_train("BinaryNN", few, 1, arch="lenet")
    other = replace(few, train_images=few.train_images.flip(-1))
    with pytest.raises(CourseError, match="data_sha256"):
        results.load_or_train("BinaryNN", other, 1, arch="lenet")
    results.load_or_train("BinaryNN", other, 1, arch="lenet", overwrite=True)
    assert "data_sha256" in capsys.readouterr().out


def test_an_interrupted_run_is_not_resumed_with_another_quantizer(tiny, tmp_path, capsys):
    def stop(history):
        raise KeyboardInterrupt

    few, lines = tiny.take(60, 60), []
    options = {"device": "cpu", "folder": tmp_path, "on_epoch": stop, "log": lines.append}

    def train(weight, **more):
        net = build(Scheme("MyNN", "W1A32", weight, None, weight), "lenet")
        fit(net, few, 2, on_batch=lambda share: None, **options, **more)

    train(quantizers.BinaryWeight)
    with pytest.raises(CourseError, match=r"MyNN\.resume\.safetensors.*net_sha256"):
        train(quantizers.TernaryWeight)
    train(quantizers.TernaryWeight, overwrite=True)
    assert not any("resumed" in line for line in lines)
    assert any(str(Run.open(tmp_path, "MyNN").resume_path) in line for line in lines)


def has_the_digest(rank, expected):
    assert structure_digest(build("Int4NN", "convnet")) == expected


def test_the_digest_does_not_depend_on_the_process():
    processes.run(1, has_the_digest, structure_digest(build("Int4NN", "convnet")))
