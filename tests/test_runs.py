import pytest
import torch

from qathelpers import results
from qathelpers.nets import Recipe
from qathelpers.training import History, predict


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
    _, other = results.load_or_train("BinaryNN", tiny, 2, arch="lenet", recipe=Recipe(lr=0.05))
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
