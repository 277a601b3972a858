"""One training on disk: what defines it, when it counts as finished, and how it is resumed."""

import pytest
import torch

from qathelpers.common.errors import CourseError
from qathelpers.data import Batches
from qathelpers.nets import Recipe, build
from qathelpers.training import History, Run, checkpoint, evaluate, fit
from qathelpers.training.run import run_name

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
def test_a_run_with_other_settings_is_not_finished(tiny, tmp_path, capsys, changes):
    train(tiny, tmp_path)
    counts = changes.pop("dataset", (400, 200)) if "dataset" in changes else (400, 200)
    assert plan(tiny.take(*counts), tmp_path, **changes)[1].finished() is None
    assert "BinaryNN.npy" in capsys.readouterr().out


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
