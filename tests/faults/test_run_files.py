"""Files of a run that are missing, damaged, swapped or another program's: reading names the file and changes nothing.

A training that meets such files names them and starts again.
"""

import json
import os
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from qathelpers import results, training
from qathelpers.common.errors import CourseError
from qathelpers.nets import build
from qathelpers.results import recorded
from qathelpers.training import History, checkpoint
from tools.record import record

from .conftest import EPOCHS, assert_names, assert_refused, contents


def rewritten(name, change):
    """Return a function that changes the content of a run's file."""
    return lambda runs: (runs / name).write_bytes(change((runs / name).read_bytes()))


def half(content):
    return content[: len(content) // 2]


def one_bit(content):
    return content[:-20] + bytes([content[-20] ^ 1]) + content[-19:]


def config(**changes):
    """Return a function that changes BinaryNN's config; None removes an entry."""

    def change(content):
        changed = json.loads(content) | changes
        return json.dumps({key: value for key, value in changed.items() if value is not None}).encode()

    return rewritten("BinaryNN.json", change)


def removed(name):
    return lambda runs: (runs / name).unlink()


def folder(name):
    """Return a function that puts a folder in the place of a run's file."""

    def replace_by_folder(runs):
        (runs / name).unlink()
        (runs / name).mkdir()

    return replace_by_folder


def swapped(*suffixes):
    """Return a function that puts BinaryNN's files with these suffixes in the place of TernaryNN's."""

    def swap(runs):
        for suffix in suffixes:
            shutil.copy(runs / f"BinaryNN{suffix}", runs / f"TernaryNN{suffix}")

    return swap


def array(values):
    return lambda runs: np.save(runs / "BinaryNN.npy", values)


def archive(runs):
    np.savez(runs / "BinaryNN.npz", np.zeros(3))
    (runs / "BinaryNN.npz").rename(runs / "BinaryNN.npy")


def foreign_weights(metadata=None):
    """Return a function that puts another program's .safetensors in the place of BinaryNN's."""
    return lambda runs: safetensors.torch.save_file({"x": torch.zeros(3)}, runs / "BinaryNN.safetensors", metadata)


def weights_of(name):
    """Return a function that saves weights as the course does, with the name of a net that the course does not have."""
    net, header = build("BinaryNN", "lenet"), {"name": name, "arch": "lenet"}
    return lambda runs: checkpoint.save(net, runs / "BinaryNN.safetensors", header)


def recorded_under_another_name(runs):
    target = recorded.RECORDED / "checkpoints" / "shapes" / "lenet" / "TernaryNN.safetensors"
    target.parent.mkdir(parents=True)
    shutil.copy(runs / "BinaryNN.safetensors", target)


def history(runs, name="BinaryNN"):
    return History.load(runs / f"{name}.npy")


def ternary_history(runs):
    return history(runs, "TernaryNN")


def weights(runs):
    return checkpoint.load(runs / "BinaryNN.safetensors")


def weights_into_ternary(runs):
    return checkpoint.load(runs / "TernaryNN.safetensors", build("TernaryNN", "lenet"))


def recording(name):
    return lambda runs: record(name, "lenet", "shapes", target=recorded.RECORDED)


def untouched(runs):
    pass


BOTH = ["TernaryNN.npy", "TernaryNN.json"]

# What is wrong, how it comes about, what meets it, what the error names.
FAULTS = [
    ("no history", removed("BinaryNN.npy"), history, ["BinaryNN.npy", "missing"]),
    ("history with another bit", rewritten("BinaryNN.npy", one_bit), history, ["BinaryNN.npy", "BinaryNN.json"]),
    ("another program's .npy", array(np.zeros(3)), history, ["BinaryNN.npy", "test_acc"]),
    (".npy of pickled objects", array(np.array([{"a": 1}])), history, ["BinaryNN.npy", "allow_pickle"]),
    ("archive of arrays", archive, history, ["BinaryNN.npy"]),
    ("folder in the place of a history", folder("BinaryNN.npy"), history, ["BinaryNN.npy"]),
    ("history of another run", swapped(".npy"), ternary_history, BOTH),
    ("config of another run", swapped(".json"), ternary_history, BOTH),
    ("no config", removed("BinaryNN.json"), history, ["BinaryNN.json", "missing"]),
    ("half a config", rewritten("BinaryNN.json", half), history, ["BinaryNN.json"]),
    ("list as a config", rewritten("BinaryNN.json", lambda _: b"[]"), history, ["BinaryNN.json"]),
    ("config of many brackets", rewritten("BinaryNN.json", lambda _: b"[" * 100_000), history, ["BinaryNN.json"]),
    ("config without a name", config(name=None), history, ["BinaryNN.json", "name"]),
    ("config with a seed that is text", config(seed="1"), history, ["BinaryNN.json", "seed", "'1'"]),
    ("config to record without a seed", config(seed=None), recording("BinaryNN"), ["BinaryNN.npy", "seed"]),
    ("half a history", rewritten("BinaryNN.npy", half), history, ["BinaryNN.npy"]),
    ("no weights", removed("BinaryNN.safetensors"), weights, ["BinaryNN.safetensors", "missing"]),
    ("weights with another bit", rewritten("BinaryNN.safetensors", one_bit), weights, ["BinaryNN.safetensors"]),
    ("pickle", lambda runs: torch.save({}, runs / "BinaryNN.safetensors"), weights, ["BinaryNN.safetensors"]),
    ("folder in the place of weights", folder("BinaryNN.safetensors"), weights, ["BinaryNN.safetensors"]),
    ("another program's weights", foreign_weights(), weights, ["BinaryNN.safetensors", "config"]),
    ("weights from Hugging Face", foreign_weights({"format": "pt"}), weights, ["BinaryNN.safetensors", "config"]),
    ("another program's config", foreign_weights({"config": "King of Hearts"}), weights, ["BinaryNN.safetensors"]),
    ("weights of a net of your own", weights_of("MyNN"), weights, ["BinaryNN.safetensors", "MyNN", "lenet"]),
    ("weights of a nameless net", weights_of(None), weights, ["BinaryNN.safetensors", "None", "lenet"]),
    ("weights of another net", swapped(".safetensors"), weights_into_ternary, ["BinaryNN", "TernaryNN"]),
    (
        "recorded weights of another net",
        recorded_under_another_name,
        lambda runs: results.recorded_net("TernaryNN", "lenet", "shapes"),
        ["TernaryNN.safetensors", "BinaryNN"],
    ),
    ("another net's run to record", swapped(".npy", ".json", ".safetensors"), recording("TernaryNN"), ["TernaryNN"]),
    ("another run's weights to record", swapped(".safetensors"), recording("TernaryNN"), ["TernaryNN.safetensors"]),
]


@pytest.mark.parametrize(("spoil", "read", "named"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_the_file_is_named_and_left_as_it_is(runs, tmp_path, monkeypatch, spoil, read, named):
    monkeypatch.setattr(recorded, "RECORDED", tmp_path / "recorded")
    spoil(runs)
    before = contents(tmp_path)
    assert_refused(lambda: read(runs), CourseError, named)
    assert contents(tmp_path) == before


def net(name="BinaryNN"):
    return build(name, "lenet")


def own(*layers):
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(3072, 10))


def interrupted(make, epochs=3):
    """Return a function that starts a training and interrupts it after the first epoch."""

    def stop(history):
        raise KeyboardInterrupt

    return lambda runs, dataset: training.fit(make(), dataset, epochs, device="cpu", folder=runs, on_epoch=stop)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes in folders")
@pytest.mark.parametrize("suffix", [".npy", ".json", ".safetensors", ".resume.safetensors"])
def test_a_pipe_is_not_waited_for(runs, dataset, suffix):
    path = runs / f"XnorNN{suffix}"
    os.mkfifo(path)
    assert len(training.fit(build("XnorNN", "lenet"), dataset, 1, device="cpu", folder=runs, log=lambda _: None)) == 1
    assert not path.is_fifo()


def half_a_resume_file(runs, dataset):
    interrupted(net)(runs, dataset)
    (runs / "BinaryNN.resume.safetensors").write_bytes(b"half a fi")


def without_dataset(spoil):
    return lambda runs, dataset: spoil(runs)


# What is there, how it comes about, the net that is then trained and its epochs, what the output names.
USELESS = [
    ("half a history", without_dataset(rewritten("BinaryNN.npy", half)), net, EPOCHS, ["BinaryNN.npy"]),
    (
        "weights of another run",
        without_dataset(swapped(".safetensors")),
        lambda: net("TernaryNN"),
        EPOCHS,
        ["TernaryNN.safetensors", "TernaryNN.npy"],
    ),
    ("a run of other epochs", without_dataset(untouched), net, 1, ["BinaryNN.npy", "epochs"]),
    ("half a resume file", half_a_resume_file, net, 3, ["BinaryNN.resume.safetensors"]),
    ("a resume file of other settings", interrupted(net), net, 4, ["BinaryNN.resume.safetensors"]),
    (
        "a resume file of other layers",
        interrupted(own),
        lambda: own(nn.Identity()),
        3,
        ["Sequential.resume.safetensors", "net_sha256"],
    ),
]


@pytest.mark.parametrize(
    ("spoil", "make", "epochs", "named"), [row[1:] for row in USELESS], ids=[row[0] for row in USELESS]
)
def test_a_useless_run_is_named_and_trained_again(runs, dataset, capsys, spoil, make, epochs, named):
    spoil(runs, dataset)
    before, trained = contents(runs), []
    capsys.readouterr()
    net = make()
    run = training.Run.plan(net, dataset, epochs, device="cpu", folder=runs)
    assert run.finished() is None
    training.train(run, net, dataset, overwrite=True, on_epoch=lambda history: trained.append(len(history)))
    assert_names(capsys.readouterr().out, named)
    assert trained == list(range(1, epochs + 1))
    assert len(run.finished()) == epochs
    others = [name for name in before if not name.startswith(run.name)]
    assert others and all(contents(runs)[name] == before[name] for name in others)
