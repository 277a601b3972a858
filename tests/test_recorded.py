"""The runs that come with the course: complete, readable by this version, and as good as their configs say."""

import dataclasses

import pytest
from torch import nn

from qathelpers import data, nets, results
from qathelpers.common.errors import CourseError
from qathelpers.data import Batches
from qathelpers.nets import Recipe
from qathelpers.nets.identity import structure_digest
from qathelpers.results import recorded
from qathelpers.training import checkpoint, evaluate, fit
from tools.record import JOURNAL

from .conftest import SETTINGS
from .odd_files import PYTORCH, as_it_is, as_nobody, odd_files, shared_folder

CHECKPOINTS = results.RECORDED / "checkpoints" / "cifar10"
PATHS = sorted(CHECKPOINTS.glob("*/*.safetensors"))
NETS = [(path.stem, path.parent.name) for path in PATHS]  # a stem ends with the seed, unless the seed is 0
THREE = {"PytorchNN", "TernaryNN", "BinaryNN"}
SIX = THREE | {"XnorNN", "Int2NN", "Int4NN"}
RUNS = {"convnet": SIX | {"Int8NN"}, "sharpnet": SIX, "sharpnet-x2": SIX, "lenet": THREE}


def test_the_runs_that_the_course_shows_are_recorded():
    assert {path.name for path in (results.RECORDED / "results" / "cifar10").iterdir()} == set(RUNS)
    for arch, names in RUNS.items():
        assert names <= {history.name for history in results.recorded_histories(arch)}
        assert {(name, arch) for name in names - {"PytorchNN"}} <= set(NETS)


def test_no_recording_was_interrupted():
    assert not (results.RECORDED / JOURNAL).exists()


@pytest.mark.parametrize("arch", RUNS)
def test_every_recorded_history_is_complete_and_has_settings_of_todays_recipe(arch):
    settings = {field.name for field in dataclasses.fields(Recipe)}
    for history in results.recorded_histories(arch, seed=None):
        config = history.config
        assert {"lr", "augment"} <= set(config["recipe"]) <= settings  # those that a recipe has had since have defaults
        assert isinstance(Recipe(**config["recipe"]), Recipe)
        assert config["name"] in nets.SCHEMES and config["arch"] == arch and config["data"] == "cifar10"
        assert len(history) == config["epochs"] and config["evaluation"] in ("fp32", "bf16")
        found = results.recorded_history(history.name, arch, seed=config["seed"])
        assert (found.rows == history.rows).all() and found.config == config


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_recorded_net_is_that_of_its_history(path):
    arch, (name, _, seed) = path.parent.name, path.stem.partition("-seed")
    run = {"name": name, "arch": arch, "seed": int(seed or 0)}
    net, history = results.recorded_net(**run), results.recorded_history(**run)
    assert (net.spec.name, net.spec.arch, net.spec.seed) == (name, arch, history.config["init_seed"])
    assert not net.training and sum(p.numel() for p in net.parameters()) == history.config["weights"]
    config = checkpoint.read_config(path)
    assert set(config) == set(history.config)
    assert {key for key in config if config[key] != history.config[key]} <= {"date"}
    assert history.evaluation == "fp32" and history.test_acc == config["test_acc"]
    assert history.test_acc == pytest.approx(history["test_acc"][-1], abs=0.02)  # of the last epoch, perhaps in bf16


def test_a_recorded_net_has_its_recorded_accuracy(monkeypatch):
    cache = SETTINGS.get("QAT_CACHE_DIR") or results.RECORDED / "cifar10"
    monkeypatch.setenv("QAT_CACHE_DIR", str(cache))
    if not data.cache_file().exists():
        pytest.skip("needs CIFAR-10")
    dataset = data.load("cifar10")
    loss, accuracy = evaluate(
        results.recorded_net("BinaryNN", "lenet"), Batches(dataset.test_images, dataset.test_labels, 1000)
    )
    config = results.recorded_history("BinaryNN", "lenet").config
    assert accuracy == pytest.approx(config["test_acc"], abs=2e-4)  # sums may differ in their last bit
    assert loss == pytest.approx(config["test_loss"], rel=1e-4)


@pytest.mark.parametrize("arch", RUNS)
def test_the_page_of_results_shows_the_recorded_runs(arch):
    assert results.markdown(arch) in (results.RECORDED.parent / "docs" / "results.md").read_text(encoding="utf-8")


def test_recorded_histories_are_those_of_one_seed_or_of_all():
    def seeds(**options):
        return {history.config["seed"] for history in results.recorded_histories("lenet", **options)}

    assert seeds() == {0} and seeds(seed=1) == {1} and seeds(seed=None) >= {0, 1, 2} and not seeds(seed=99)


def test_the_recorded_nets_stay_small():
    files = (results.RECORDED / "checkpoints").rglob("*.safetensors")
    assert 0 < sum(file.stat().st_size for file in files) < 17e6  # of which two float convnets have 4e6


@pytest.fixture
def recorded_files(tmp_path, monkeypatch):
    """Return the files of one recorded run: its history, its config and its weights."""
    monkeypatch.setattr(recorded, "RECORDED", tmp_path)
    history, weights = results.RECORDED / "results", CHECKPOINTS / "lenet" / "BinaryNN.safetensors"
    files = []
    for path in (
        history / "cifar10" / "lenet" / "BinaryNN.npy",
        history / "cifar10" / "lenet" / "BinaryNN.json",
        weights,
    ):
        copy = tmp_path / path.relative_to(results.RECORDED)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
        files.append(copy)
    return files


READERS = [
    lambda: results.recorded_history("BinaryNN", "lenet"),
    lambda: results.recorded_history("BinaryNN", "lenet"),
    lambda: results.recorded_net("BinaryNN", "lenet"),
]


@odd_files
@pytest.mark.parametrize("number", range(3))
def test_an_odd_file_in_the_place_of_a_recorded_one_is_called_what_it_is(recorded_files, write, named, number):
    path, read = recorded_files[number], READERS[number]
    read()
    path.unlink()
    write(path)
    before = as_it_is(path) if path.exists() else None
    with pytest.raises(CourseError, match=named) as refused:
        read()
    assert path.name in str(refused.value) and "delete" not in str(refused.value)
    if named == PYTORCH:
        assert "damaged" not in str(refused.value)
    assert before is None or as_it_is(path) == before


@pytest.mark.parametrize("read", READERS[1:], ids=["history", "net"])
def test_recorded_runs_that_may_not_be_read_do_not_seem_to_be_missing(monkeypatch, read):
    with shared_folder() as folder:
        monkeypatch.setattr(recorded, "RECORDED", folder)
        for kind in ("results", "checkpoints"):
            (folder / kind / "cifar10" / "lenet").mkdir(parents=True)
            (folder / kind / "cifar10" / "lenet").chmod(0o700)
        with as_nobody(), pytest.raises(CourseError, match=r"lenet cannot be read"):
            read()


@pytest.mark.parametrize("name", ["BinaryNN", "PytorchNN"])
def test_a_retrained_net_knows_the_classes_of_its_new_data(tiny, tmp_path, name):
    net, some = results.recorded_net(name, "lenet"), tiny.take(100, 50)
    assert "airplane" in net.class_names
    mine = dataclasses.replace(some, classes=tuple(f"kind {i}" for i in range(10)), name="mine")
    fit(net, mine, 1, folder=tmp_path, log=lambda _: None)
    assert net.class_names == mine.classes
    saved, again = tmp_path / f"{name}.safetensors", results.recorded_net(name, "lenet")
    assert checkpoint.load(saved, again).class_names == mine.classes
    if name == "PytorchNN":
        assert checkpoint.load(saved).class_names == mine.classes


def test_a_net_of_your_own_knows_its_classes_and_stays_the_same_net(tiny, tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    before, some = structure_digest(net), tiny.take(100, 50)
    fit(net, some, 1, folder=tmp_path, log=lambda _: None)
    assert net.class_names == tiny.classes and structure_digest(net) == before
    again = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    assert checkpoint.load(tmp_path / "Sequential.safetensors", again).class_names == tiny.classes
    assert len(fit(net, some, 2, folder=tmp_path, log=lambda _: None)) == 2  # not refused as another net
