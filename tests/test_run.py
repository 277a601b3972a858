"""One training on disk: what defines it, when it counts as finished, and how it is resumed."""

import os
import re

import pytest
import torch

from qathelpers.common.errors import CourseError
from qathelpers.common.files import Unreadable
from qathelpers.data import Batches
from qathelpers.nets import Recipe, build
from qathelpers.training import History, Run, checkpoint, evaluate, fit
from qathelpers.training.run import run_name

from .odd_files import as_nobody, odd_files, shared_folder

RECIPE = Recipe(batch_size=64, augment=False)


def plan(dataset, folder, name="BinaryNN", epochs=2, **options):
    """Return a net and its run."""
    net = build(name, "lenet")
    return net, Run.plan(net, dataset, epochs, device="cpu", folder=folder, **{"recipe": RECIPE} | options)


def train(dataset, folder, name="BinaryNN", epochs=2, **options):
    """Return a trained net and its history."""
    net = build(name, "lenet")
    return net, fit(net, dataset, epochs, device="cpu", folder=folder, **{"recipe": RECIPE} | options)


def stop(history):
    raise KeyboardInterrupt


def test_the_config_says_what_is_trained_how_and_on_what(tiny):
    config = plan(tiny, None, epochs=3, seed=4)[1].config
    assert (config["name"], config["arch"], config["bits"], config["init_seed"]) == ("BinaryNN", "lenet", "W1A32", 0)
    assert (config["data"], config["train_images"], config["test_images"]) == ("shapes", 400, 200)
    assert (config["epochs"], config["seed"], config["device"], config["evaluation"]) == (3, 4, "cpu", "fp32")
    assert Recipe(**config["recipe"]) == RECIPE
    assert config["hardware"] and config["versions"]["torch"] == torch.__version__.split("+")[0] and config["date"]
    assert config["weights"] == 62_242 and 8 < config["kB"] < 62_242 / 4 / 1000
    assert "evaluated_on" not in config
    assert plan(tiny.validation_split(100), None)[1].config["evaluated_on"] == "validation"


def test_without_a_recipe_it_is_that_of_the_net(tiny):
    net, run = plan(tiny, None, "XnorNN", recipe=None)
    assert run.recipe == net.spec.recipe != Recipe()


def test_the_files_are_named_after_the_net_and_its_seed(tiny, tmp_path):
    train(tiny, tmp_path, seed=2, epochs=1)
    names = {path.name for path in tmp_path.iterdir()} - {".BinaryNN-seed2.lock"}
    assert names == {f"BinaryNN-seed2.{suffix}" for suffix in ("npy", "json", "safetensors")}
    assert run_name("BinaryNN") == "BinaryNN" and run_name("BinaryNN", 2) == "BinaryNN-seed2"


@pytest.mark.parametrize(
    ("name", "arch", "resizing"),
    [("PytorchNN", "lenet", 0.0), ("XnorNN", "lenet", 0.0), ("Int2NN", "convnet-x0.1", 1.0)],
)
def test_the_recorded_accuracy_is_that_of_the_saved_weights(tiny, tmp_path, name, arch, resizing):
    recipe = Recipe(batch_size=64, progressive_resizing=resizing)
    history = fit(build(name, arch), tiny, 2, recipe=recipe, device="cpu", folder=tmp_path)
    net = checkpoint.load(tmp_path / f"{name}.safetensors")
    loss, accuracy = evaluate(net, Batches(tiny.test_images, tiny.test_labels, 1000))
    saved = History.load(tmp_path / f"{name}.npy")
    for config in (history.config, saved.config, checkpoint.read_config(tmp_path / f"{name}.safetensors")):
        assert (config["test_loss"], config["test_acc"], config["evaluation"]) == (loss, accuracy, "fp32")
    assert history.test_acc == saved.test_acc == accuracy and history.evaluation == saved.evaluation == "fp32"


def test_the_recorded_accuracy_is_that_of_the_last_epoch_not_of_the_best(tiny, tmp_path):
    net, run = plan(tiny, tmp_path)
    history = History(run.config)
    for epoch, accuracy in enumerate((0.75, 0.5), 1):
        history.append(epoch, train_loss=1.0, train_acc=0.5, test_loss=2.0 - accuracy, test_acc=accuracy, seconds=1.0)
    run.finish(history, net)
    for config in (Run.open(tmp_path, "BinaryNN").config, checkpoint.read_config(run.weights_path)):
        assert (config["test_loss"], config["test_acc"]) == (1.5, 0.5)


def test_a_finished_run_is_opened_by_its_name(tiny, tmp_path):
    net, history = train(tiny, tmp_path)
    run = Run.open(tmp_path, "BinaryNN")
    assert run.config == history.config and (run.epochs, run.recipe) == (2, RECIPE)
    assert (run.finished().rows == history.rows).all()
    images = torch.randn(4, 3, 32, 32)
    assert torch.equal(run.load_net()(images), net(images))
    with pytest.raises(CourseError, match=r"BinaryNN-seed3\.npy"):
        Run.open(tmp_path, "BinaryNN", seed=3)


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 3},
        {"recipe": Recipe(batch_size=64, augment=False, lr=0.1)},
        {"dataset": (399, 200)},
        {"dataset": (400, 199)},
    ],
)
def test_a_run_with_other_settings_is_not_finished(tiny, tmp_path, changes):
    train(tiny, tmp_path)
    counts = changes.pop("dataset", (400, 200)) if "dataset" in changes else (400, 200)
    assert plan(tiny.take(*counts), tmp_path, **changes)[1].finished() is None


def test_circumstances_do_not_make_it_another_run(tiny, tmp_path):
    train(tiny, tmp_path)
    run = plan(tiny, tmp_path)[1]
    run.config |= {"hardware": "a laptop", "precision": "another", "versions": {}, "date": "1990-01-01", "kB": 1.0}
    history = run.finished()
    assert history is not None and len(history) == 2


def test_an_interrupted_run_is_not_finished_and_can_be_resumed_or_forgotten(tiny, tmp_path):
    train(tiny, tmp_path, on_epoch=stop)
    net, run = plan(tiny, tmp_path)
    assert run.finished() is None and not run.weights_path.exists()
    assert len(run.read_resume(net).rows) == 1
    run.forget()
    assert run.read_resume(net) is None
    run.forget()  # nothing to forget is no error


@pytest.mark.parametrize("name", ["PytorchNN", "Int4NN"])
@pytest.mark.filterwarnings("ignore:.*meta parameter")
def test_a_resumed_net_is_on_the_device_of_the_training(tiny, tmp_path, name):
    """The meta device stands in for a GPU; its tensors have no values, so the training fails in its first step."""
    train(tiny, tmp_path, name, on_epoch=stop)
    net, lines = build(name, "lenet"), []
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        fit(net, tiny, 2, recipe=RECIPE, device="meta", folder=tmp_path, log=lines.append)
    assert "resumed after epoch 1" in lines[0]
    assert {tensor.device.type for tensor in (*net.parameters(), *net.buffers())} == {"meta"}


def test_without_a_folder_nothing_is_saved(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net, run = plan(tiny, None)
    history = train(tiny, None)[1]
    assert len(history) == 2 and "test_acc" in history.config
    assert run.finished() is None and run.read_resume(net) is None
    assert not list(tmp_path.rglob("*.safetensors")) and not list(tmp_path.rglob("*.npy"))


def interrupted(dataset, folder, name="BinaryNN", **options):
    """Return a run that was interrupted after its first epoch, and its net."""
    train(dataset, folder, name, on_epoch=stop, **options)
    net, run = plan(dataset, folder, name, **options)
    return net, run


def epochs_of(dataset, folder):
    """Return the epochs that a training still has to do."""
    done = []
    train(dataset, folder, on_epoch=lambda history: done.append(len(history)))
    return done


@odd_files
def test_a_file_that_is_no_resume_file_is_named_and_the_training_starts_anew(tiny, tmp_path, capsys, write, named):
    net, run = plan(tiny, tmp_path)
    write(run.resume_path)
    exists = os.path.exists(run.resume_path)
    if named == "folder":
        with pytest.raises(CourseError, match=r"BinaryNN\.resume\.safetensors"):
            epochs_of(few(tiny), tmp_path)
        return
    assert run.read_resume(net) is None
    printed = capsys.readouterr().out
    assert not exists or (str(run.resume_path) in printed and re.search(named, printed) and "delete" not in printed)


def few(dataset):
    return dataset.take(64, 32)


def rewrite(run, change, **header):
    """Change the tensors and the header of a resume file, as another version of the course might have written it."""
    tensors, old = checkpoint.read(run.resume_path)
    header = {key: value for key, value in (old | header).items() if value is not ...}
    checkpoint.write(run.resume_path, change(tensors), header)


def without(part):
    return lambda tensors: {key: tensor for key, tensor in tensors.items() if part not in key}


def renamed(old, new):
    return lambda tensors: {key.replace(old, new): tensor for key, tensor in tensors.items()}


def reshaped(tensors):
    return {key: t.flatten()[:1] if "velocity" in key else t for key, t in tensors.items()}


def half_precision(tensors):
    return {key: t.half() if "velocity" in key else t for key, t in tensors.items()}


def test_a_change_of_the_working_directory_does_not_split_a_run(tiny, tmp_path, monkeypatch):
    data, here, elsewhere = few(tiny), tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(here)
    options = {"device": "cpu", "folder": "runs", "on_batch": lambda _: None, "log": lambda _: None}
    fit(build("BinaryNN", "lenet"), data, 2, on_epoch=lambda _: os.chdir(elsewhere), **options)
    names = {path.suffix for path in (here / "runs").iterdir()}
    assert {".npy", ".json", ".safetensors"} <= names and not list(elsewhere.iterdir())


@pytest.mark.parametrize(
    ("change", "header"),
    [
        (without("optimizer."), {"optimizers": []}),
        (without("optimizer."), {"optimizers": ...}),
        (without("optimizer.1."), {"optimizers": ...}),
        (without("optimizer.1."), {"optimizers": ["Muon"]}),
        (dict, {"optimizers": ["Adam"]}),
        (dict, {"optimizers": ["SGD", "Muon"]}),
        (dict, {"optimizers": "Muon and SGD"}),
        (renamed("velocity", "momentum_buffer"), {}),
        (renamed("velocity", "momentum_buffer"), {"optimizers": ...}),
        (renamed("optimizer.0.", "optimizer.7."), {"optimizers": ...}),
        (renamed("optimizer.0.0.", "optimizer.0.99."), {}),
        (renamed("optimizer.0.0.", "optimizer.0.first."), {}),
        (renamed("optimizer.", "optimizer.state."), {}),
        (reshaped, {}),
        (without("net."), {}),
        (dict, {"rows": ...}),
        (dict, {"rows": 3}),
        (dict, {"rows": [[1, 2]]}),
        (dict, {"rows": [[2**40, 0, 0, 0, 0, 0]]}),
        (dict, {"rows": []}),
        (dict, {"rows": [[2, 1, 0.5, 1, 0.5, 1]]}),
        (dict, {"rows": [[1, 1, 0.5, 1, 0.5, 1]] * 2}),
        (dict, {"rows": [[epoch, 1, 0.5, 1, 0.5, 1] for epoch in (1, 2, 3)]}),
        (half_precision, {}),
        (dict, {"config": []}),
        (dict, {"config": {}}),
    ],
)
def test_a_resume_file_that_is_laid_out_otherwise_starts_the_training_anew_and_says_so(
    tiny, tmp_path, capsys, change, header
):
    data = few(tiny)
    run = interrupted(data, tmp_path)[1]
    rewrite(run, change, **header)
    capsys.readouterr()
    assert epochs_of(data, tmp_path) == [1, 2]
    assert str(run.resume_path) in capsys.readouterr().out
    assert len(run.finished()) == 2 and not run.resume_path.exists()


def test_a_resume_file_that_does_not_name_its_optimizers_is_used_if_they_fit(tiny, tmp_path):
    data = few(tiny)
    rewrite(interrupted(data, tmp_path)[1], dict, optimizers=...)
    assert epochs_of(data, tmp_path) == [2]


class Frozen(torch.nn.Sequential):
    """A net whose second optimizer has nothing to do: none of its vectors is trained."""

    def __init__(self):
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(3072, 10, bias=False), torch.nn.BatchNorm1d(10))
        self[2].requires_grad_(False)


@pytest.mark.parametrize("optimizer", ["muon", "adam"])
def test_an_optimizer_without_gradients_does_not_hinder_resuming(tiny, tmp_path, optimizer):
    data, recipe = few(tiny), Recipe(batch_size=64, augment=False, optimizer=optimizer)
    options = {"recipe": recipe, "device": "cpu"}
    nets, done = [Frozen() for _ in range(3)], []
    for net in nets[1:]:
        net.load_state_dict(nets[0].state_dict())
    whole = fit(nets[0], data, 2, **options)
    fit(nets[1], data, 2, **options, folder=tmp_path, on_epoch=stop)
    resumed = fit(nets[2], data, 2, **options, folder=tmp_path, on_epoch=lambda history: done.append(len(history)))
    assert done == [2] and resumed["test_loss"].tolist() == whole["test_loss"].tolist()


@pytest.mark.parametrize("closed", ["BinaryNN.npy", "BinaryNN.json", "BinaryNN.safetensors", "."])
def test_a_finished_run_that_may_not_be_read_is_not_replaced(tiny, closed):
    data = few(tiny)
    with shared_folder(0o777) as folder:
        train(data, folder / "runs")
        (folder / "runs").chmod(0o777)
        before = {path.name: path.read_bytes() for path in (folder / "runs").iterdir()}
        (folder / "runs" / closed).chmod(0)
        with as_nobody(), pytest.raises(CourseError, match="QAT_RESULTS_DIR"):
            run = plan(data, folder / "runs")[1]
            if run.finished() is None:
                epochs_of(data, folder / "runs")
        assert {path.name: path.read_bytes() for path in (folder / "runs").iterdir()} == before


def test_a_resume_file_that_may_not_be_read_is_not_replaced(tiny):
    data = few(tiny)
    with shared_folder(0o777) as folder:
        run = interrupted(data, folder)[1]
        run.resume_path.chmod(0)
        before = run.resume_path.read_bytes()
        with as_nobody(), pytest.raises(Unreadable, match=r"BinaryNN\.resume\.safetensors"):
            epochs_of(data, folder)
        assert run.resume_path.read_bytes() == before


@pytest.mark.parametrize("mode", [0o755, 0o700, 0o1777])
def test_a_folder_of_another_user_where_files_cannot_be_replaced_is_named_before_the_training(tiny, mode):
    data = few(tiny)
    with shared_folder() as folder:
        run = interrupted(data, folder / "runs")[1]
        run.folder.chmod(mode)
        before = {path.name: path.read_bytes() for path in run.folder.iterdir()}
        with as_nobody(), pytest.raises(CourseError, match=r"runs.*QAT_RESULTS_DIR"):
            epochs_of(data, run.folder)
        assert {path.name: path.read_bytes() for path in run.folder.iterdir()} == before


def test_two_users_share_a_folder(tiny):
    """One trains, the other reads the result, continues an interrupted training and trains with other settings."""
    data = few(tiny)
    with shared_folder(0o777) as folder:
        run = interrupted(data, folder)[1]
        with as_nobody():
            assert epochs_of(data, folder) == [2]
            assert len(run.finished()) == 2 and run.load_net().spec.name == "BinaryNN"
        train(data, folder, epochs=1, overwrite=True)  # the files are now those of the other user
        with as_nobody():
            assert epochs_of(data, folder) == [1, 2]


def test_a_finished_run_is_loaded_from_a_folder_that_cannot_be_written(tiny):
    data = few(tiny)
    with shared_folder() as folder:
        train(data, folder)
        with as_nobody():
            run = plan(data, folder)[1]
            assert len(run.finished()) == 2 and run.load_net().spec.name == "BinaryNN"


def test_a_lock_that_another_user_may_not_open_is_named(tiny):
    data = few(tiny)
    with shared_folder(0o777) as folder:
        lock = folder / ".BinaryNN.lock"
        lock.touch(0o644)
        with as_nobody(), pytest.raises(CourseError, match=r"\.BinaryNN\.lock.*QAT_RESULTS_DIR"):
            epochs_of(data, folder)


@pytest.mark.parametrize("suffix", [".npy", ".json", ".safetensors", ".resume.safetensors"])
def test_a_folder_in_the_place_of_a_file_is_named_before_the_training(tiny, tmp_path, suffix):
    (tmp_path / f"BinaryNN{suffix}").mkdir()
    trained = []
    with pytest.raises(CourseError, match=re.escape(f"BinaryNN{suffix}")):
        train(few(tiny), tmp_path, on_batch=trained.append)
    assert not trained
