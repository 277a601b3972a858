import re

import pytest
import torch

from qathelpers import results
from qathelpers.common.errors import CourseError
from qathelpers.nets import Recipe, Scheme, quantizers
from qathelpers.training import History, predict

from .odd_files import as_nobody, odd_files, shared_folder


def test_a_finished_run_is_loaded_and_other_settings_are_trained(tiny, capsys):
    first_net, first = results.load_or_train("BinaryNN", tiny, 1, arch="lenet")
    assert "BinaryNN epoch 1/1" in capsys.readouterr().out
    net, again = results.load_or_train("BinaryNN", tiny, 1, arch="lenet")
    printed = capsys.readouterr().out
    assert "BinaryNN.safetensors" in printed and "epoch" not in printed
    assert (again.rows == first.rows).all() and again.config == first.config
    assert torch.equal(predict(net, tiny.test_images), predict(first_net, tiny.test_images))
    _, other = results.load_or_train("BinaryNN", tiny, 2, arch="lenet")
    assert len(other) == 2
    options = {"arch": "lenet", "recipe": Recipe(lr=0.05)}
    with pytest.raises(CourseError, match=r"BinaryNN\.safetensors.*recipe.*overwrite=True"):
        results.load_or_train("BinaryNN", tiny, 2, **options)
    assert "training" not in capsys.readouterr().out.rpartition("epoch 2/2")[2]
    _, other = results.load_or_train("BinaryNN", tiny, 2, **options, overwrite=True)
    assert other.config["recipe"]["lr"] == 0.05


def test_runs_with_other_seeds_are_kept_beside_each_other(tiny):
    folder = results.run_folder("shapes", "lenet")
    for seed in (0, 2):
        results.load_or_train("BinaryNN", tiny, 1, arch="lenet", seed=seed)
    assert sorted(path.name for path in folder.glob("*.npy")) == ["BinaryNN-seed2.npy", "BinaryNN.npy"]
    found = results.find_histories(folder)
    assert [(run.config["seed"], run.config["init_seed"]) for run in found] == [(0, 0), (2, 2)]


def test_histories_are_found_in_the_order_of_the_course_and_by_seed(tmp_path):
    config = {"bits": "W1A32", "data": "shapes", "hardware": "a laptop"}
    for name, seed in (("BinaryNN", 1), ("BinaryNN", 0), ("Mine", 0), ("PytorchNN", 0), ("TernaryNN", 0)):
        run = History(config | {"name": name, "seed": seed})
        run.save(tmp_path / f"{name}{seed}-begun.npy")  # has no epochs yet
        run.append(epoch=1, train_loss=1, train_acc=0.6, test_loss=1, test_acc=0.5, seconds=30)
        run.save(tmp_path / f"{name}{seed}.npy")
    found = [(run.name, run.config["seed"]) for run in results.find_histories(tmp_path)]
    assert found == [("PytorchNN", 0), ("TernaryNN", 0), ("BinaryNN", 0), ("BinaryNN", 1), ("Mine", 0)]


@pytest.mark.parametrize("data_name", ["shapes", "cifar10"])
def test_data_sets_and_architectures_have_folders_of_their_own(data_name, tmp_path):
    assert results.run_folder(data_name, "lenet") == tmp_path / "runs" / data_name / "lenet"


def test_a_scheme_of_your_own_is_trained_and_found_again(tiny, capsys):
    mine = Scheme("MyNN", "W1A32", quantizers.BinaryWeight, None, quantizers.BinaryWeight)
    first, _ = results.load_or_train(mine, tiny, 1, arch="lenet")
    capsys.readouterr()
    again, _ = results.load_or_train(mine, tiny, 1, arch="lenet")
    assert torch.equal(predict(again, tiny.test_images), predict(first, tiny.test_images))
    assert "MyNN: loaded" in capsys.readouterr().out


CONFIG = {"name": "MyNN", "bits": "W1A32", "seed": 0, "data": "shapes", "hardware": "a laptop"}


def run(path, **changes):
    config = {key: value for key, value in (CONFIG | changes).items() if value is not ...}
    history = History(config)
    history.append(epoch=1, train_loss=1, train_acc=0.6, test_loss=1, test_acc=0.5, seconds=30)
    return history.save(path)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": ...},
        {"bits": ...},
        {"data": ...},
        {"hardware": ...},
        {"seed": "0"},
        {"seed": None},
        {"bits": 1},
        {"data": ["shapes"]},
        {"hardware": None},
        {"kB": "12"},
        {"test_acc": "high"},
        {"test_acc": [0.5]},
    ],
)
def test_a_run_of_another_program_is_named_with_what_its_config_lacks(tmp_path, capsys, change):
    run(tmp_path / "sound.npy")
    run(tmp_path / "odd.npy", **change)
    assert len(results.find_histories(tmp_path)) == 1
    assert re.search(rf"odd\.(npy|json).*{next(iter(change))}", capsys.readouterr().out)


@odd_files
def test_an_odd_file_among_the_runs_is_named_and_left_out(tmp_path, capsys, write, named):
    run(tmp_path / "sound.npy")
    run(tmp_path / "odd.npy")
    (tmp_path / "odd.npy").unlink()
    write(tmp_path / "odd.npy")
    assert len(results.find_histories(tmp_path)) == 1
    output = capsys.readouterr().out
    assert "odd.npy" in output and re.search(named, output)


def test_what_macos_leaves_beside_a_run_is_no_run(tmp_path):
    run(tmp_path / "sound.npy")
    (tmp_path / "._sound.npy").write_bytes(b"\0\5\x16\7" + bytes(100))
    assert [history.name for history in results.find_histories(tmp_path)] == ["MyNN"]


def test_the_runs_of_another_user_are_found_or_the_folder_is_named(monkeypatch):
    with shared_folder() as folder:
        monkeypatch.setenv("QAT_RESULTS_DIR", str(folder))
        path = run(results.run_folder("shapes", "lenet") / "MyNN.npy", kB=8.0)
        with as_nobody():
            assert len(results.find_histories(path.parent)) == len(results.leaderboard("shapes")) == 1
        for closed in (path.parent, path.parent.parent):
            closed.chmod(0o700)
            for read in (lambda: results.find_histories(path.parent), lambda: results.leaderboard("shapes")):
                with as_nobody(), pytest.raises(CourseError, match=r"shapes.*QAT_RESULTS_DIR"):
                    read()
            closed.chmod(0o755)


@pytest.mark.parametrize("arch", ["../evil", "../../evil", "a/b", "", ".hidden", "x" * 81])
def test_the_name_of_an_architecture_never_leads_out_of_the_results(arch):
    with pytest.raises(CourseError, match="architecture"):
        results.run_folder("shapes", arch)
