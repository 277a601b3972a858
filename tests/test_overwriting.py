"""A finished run is only replaced by the same one, by a longer one, or with overwrite=True, and then with a word.

An interrupted run is only replaced with overwrite=True.
"""

from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import nn

from qathelpers import results
from qathelpers.__main__ import main
from qathelpers.common.errors import CourseError
from qathelpers.nets import Recipe, Scheme, quantizers
from qathelpers.results import sweep
from qathelpers.training import History, Run, checkpoint, fit, overwriting

QUIET = {"device": "cpu", "on_batch": lambda share: None}
SMALL = Recipe(optimizer="adam", lr=0.01, batch_size=32, augment=False)


@pytest.fixture
def few(tiny):
    return tiny.take(60, 40)


def linear(*layers):
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(3072, 10))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.suffix != ".lock"}


# What is trained after two epochs of `linear()` under the same name, and the setting in which it differs.
OTHERS = {
    "another net": (lambda: linear(nn.Dropout(0.5)), {}, "net_sha256"),
    "another recipe": (linear, {"recipe": replace(SMALL, lr=0.02)}, "recipe"),
    "fewer epochs": (linear, {"epochs": 1}, "epochs 2, here 1"),
    "fewer images": (linear, {"images": 50}, "data_sha256"),
}


@pytest.mark.parametrize(("make", "changes", "named"), OTHERS.values(), ids=OTHERS)
def test_a_finished_run_with_other_settings_stays(few, tmp_path, make, changes, named):
    options = QUIET | {"folder": tmp_path, "recipe": SMALL}
    fit(linear(), few, 2, **options, log=lambda line: None)
    before, steps, lines = contents(tmp_path), [], []
    options |= {"recipe": changes.get("recipe", SMALL), "on_batch": steps.append, "log": lines.append}
    data, epochs = few.take(changes.get("images", 60)), changes.get("epochs", 2)
    with pytest.raises(CourseError) as caught:
        fit(make(), data, epochs, **options)
    assert all(word in str(caught.value) for word in (str(tmp_path / "Sequential."), named, "overwrite=True"))
    assert contents(tmp_path) == before and not steps
    run = Run.plan(make(), data, epochs, recipe=options["recipe"], device="cpu", folder=tmp_path)
    assert overwriting.refusal(run) == str(caught.value)
    history = fit(make(), data, epochs, **options, overwrite=True)
    assert any("Sequential.safetensors" in line and named in line for line in lines)
    assert (History.load(tmp_path / "Sequential.npy").rows == history.rows).all() and run.finished() is not None


@pytest.mark.parametrize("epochs", [2, 3])
def test_the_same_and_a_longer_run_replace_a_finished_one_when_they_are_finished(few, tmp_path, epochs):
    options = QUIET | {"folder": tmp_path, "recipe": SMALL}
    fit(linear(), few, 2, **options, log=lambda line: None)
    before, lines, seen = contents(tmp_path), [], []

    def stop(history):
        seen.append(contents(tmp_path))
        raise KeyboardInterrupt

    fit(linear(), few, epochs, **options, log=lines.append, on_epoch=stop)
    assert "Sequential.safetensors" in lines[0]
    now = contents(tmp_path)
    assert "Sequential.resume.safetensors" in now
    assert all(folder[name] == content for folder in (*seen, now) for name, content in before.items())
    history = fit(linear(), few, epochs, **options, log=lines.append)
    assert len(history) == len(History.load(tmp_path / "Sequential.npy")) == epochs
    assert checkpoint.read_config(tmp_path / "Sequential.safetensors")["epochs"] == epochs


@pytest.mark.parametrize("epochs", [1, 2, 4])
def test_an_interrupted_run_with_other_settings_stays_and_can_be_finished(few, tmp_path, epochs):
    def stop_after_two(history):
        if len(history) == 2:
            raise KeyboardInterrupt

    options = QUIET | {"folder": tmp_path, "recipe": SMALL}
    fit(linear(), few, 3, **options, on_epoch=stop_after_two, log=lambda line: None)
    before, steps, lines = contents(tmp_path), [], []
    named = ("Sequential.resume.safetensors", "2 of 3", f"epochs 3, here {epochs}", "overwrite=True")
    with pytest.raises(CourseError) as caught:
        fit(linear(), few, epochs, **options | {"on_batch": steps.append})
    assert all(word in str(caught.value) for word in named)
    assert contents(tmp_path) == before and not steps
    if epochs == 1:
        assert len(fit(linear(), few, epochs, **options, overwrite=True, log=lines.append)) == 1
        assert any("2 of 3" in line for line in lines) and not (tmp_path / "Sequential.resume.safetensors").exists()
    else:
        assert len(fit(linear(), few, 3, **options, log=lines.append)) == 3
        assert any("resumed after epoch 2" in line for line in lines)


@pytest.mark.parametrize("kind", ["safetensors", "pickle"])
def test_a_file_of_another_program_stays(few, tmp_path, kind):
    path = tmp_path / "Sequential.safetensors"
    save_file({"x": torch.ones(2)}, path) if kind == "safetensors" else torch.save({"x": torch.ones(2)}, path)
    before = path.read_bytes()
    with pytest.raises(CourseError, match=r"Sequential\.safetensors"):
        fit(linear(), few, 1, **QUIET, recipe=SMALL, folder=tmp_path)
    assert path.read_bytes() == before


def test_a_history_without_weights_stays_too(few, tmp_path):
    fit(linear(), few, 2, **QUIET, recipe=SMALL, folder=tmp_path)
    (tmp_path / "Sequential.safetensors").unlink()
    with pytest.raises(CourseError, match=r"Sequential\.npy"):
        fit(linear(nn.ReLU()), few, 2, **QUIET, recipe=SMALL, folder=tmp_path)
    assert len(fit(linear(), few, 2, **QUIET, recipe=SMALL, folder=tmp_path)) == 2


def test_an_edited_scheme_with_the_same_name_is_refused(few):
    def mine(first_last):
        return Scheme("MyNN", "W1A32", quantizers.BinaryWeight, None, first_last)

    results.load_or_train(mine(quantizers.Int4Weight), few, 1, arch="lenet")
    with pytest.raises(CourseError, match=r"MyNN\.safetensors.*net_sha256"):
        results.load_or_train(mine(quantizers.Int8Weight), few, 1, arch="lenet")
    net, history = results.load_or_train(mine(quantizers.Int8Weight), few, 1, arch="lenet", overwrite=True)
    assert len(history) == 1 and net.spec.scheme.first_last is quantizers.Int8Weight


def test_a_sweep_trains_nothing_if_one_of_its_runs_would_replace_another(few):
    pytest.importorskip("distributed", reason="needs pip install -e '.[sweep]'")
    results.load_or_train("BinaryNN", few, 2, arch="lenet")
    jobs = sweep.grid(["TernaryNN", "BinaryNN"], ["lenet"], [0], 1, "shapes")
    with pytest.raises(CourseError, match=r"BinaryNN\.safetensors.*epochs 2"):
        sweep.run(jobs, few)
    assert not list(results.run_folder("shapes", "lenet").glob("TernaryNN*"))


def test_the_command_line_trains_longer_runs_and_keeps_others(monkeypatch):
    monkeypatch.setenv("QAT_MAX_IMAGES", "60")

    def qat(command, epochs, *options):
        names = ["--name", "BinaryNN"] if command == "train" else []
        arguments = [command, "-n", str(epochs), *names, "--arch", "lenet", "--data", "shapes", *options]
        return CliRunner().invoke(main, arguments)

    path = results.run_folder("shapes", "lenet") / "BinaryNN.safetensors"
    assert [qat("train", epochs).exit_code for epochs in (1, 2)] == [0, 0]
    assert checkpoint.read_config(path)["epochs"] == 2
    for command in ("train", "run"):
        refused = qat(command, 1)
        assert refused.exit_code == 1 and "BinaryNN.safetensors" in refused.output and "--overwrite" in refused.output
    assert not (path.parent / "PytorchNN.npy").exists()
    assert qat("train", 1, "--overwrite").exit_code == 0
    assert checkpoint.read_config(path)["epochs"] == 1
