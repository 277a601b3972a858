import pytest
from click.testing import CliRunner

from qathelpers import hardware, results
from qathelpers.__main__ import main
from qathelpers.errors import CourseError
from qathelpers.history import History


@pytest.fixture
def call(monkeypatch):
    monkeypatch.setenv("QAT_DATA", "shapes")
    monkeypatch.setenv("QAT_MAX_IMAGES", "200")
    return lambda *arguments, **options: CliRunner().invoke(main, arguments, **options)


def test_train_asks_for_n_and_name_and_does_what_the_original_did(call, tmp_path):
    result = call("train", "--arch", "lenet", input="zero\n0\n2\nFourNN\nTernaryNN\n")
    assert result.exit_code == 0, result.output
    assert "'zero' is not a valid integer" in result.output
    assert "0 is not in the range" in result.output
    assert "'FourNN' is not one of" in result.output
    assert "epoch 2/2: train loss" in result.output
    assert "TernaryNN, first layer (features.0): +" in result.output
    folder = tmp_path / "runs" / "shapes" / "lenet"
    assert len(History.load(folder / "TernaryNN.npy")) == 2
    for name in ("TernaryNN-accuracy.png", "TernaryNN-loss.png", "TernaryNN.safetensors"):
        assert (folder / name).exists()


def test_a_recipe_is_changed_by_name_and_the_card_tells(call, tmp_path):
    shorter = ("train", "-n", "1", "--name", "BinaryNN", "--arch", "lenet")
    result = call(*shorter, "--set", "max_shift=2", "--set", "augment=true", "--set", "lr=0.05")
    assert result.exit_code == 0, result.output
    recipe = History.load(tmp_path / "runs" / "shapes" / "lenet" / "BinaryNN.npy").card["recipe"]
    assert (recipe["max_shift"], recipe["augment"], recipe["lr"]) == (2, True, 0.05)


def test_run_trains_and_compares_three_nets_and_compare_shows_them_again(call, tmp_path):
    result = call("run", "--epochs", "1", "--arch", "lenet")
    assert result.exit_code == 0, result.output
    table = result.output[result.output.index("bits") :]
    assert [line.split()[0] for line in table.splitlines()[2:5]] == ["PytorchNN", "TernaryNN", "BinaryNN"]
    assert "NOT CIFAR-10" in result.output.splitlines()[-1]
    assert (tmp_path / "runs" / "shapes" / "lenet" / "accuracy.png").exists()
    again = call("compare", "--arch", "lenet", "--data", "shapes")
    assert again.output.count("W1A32") == 1


def test_recorded_runs_are_compared(call):
    result = call("compare", "--recorded")
    assert result.exit_code == 0 and "BinaryNN" in result.output


def test_data_says_what_is_there(call):
    result = call("data")
    assert "classes: circle, drop" in result.output and "cache" in result.output


def test_check_is_ok_here_and_says_what_to_mend(call, monkeypatch):
    assert call("check").exit_code == 0
    monkeypatch.setenv("QAT_DATA_DIR", "/nowhere")
    result = call("check")
    assert result.exit_code == 1 and "[fix]  QAT_DATA_DIR is /nowhere, which is no folder" in result.output


def test_bench_data_prints_both_ways(call):
    result = call("bench", "data")
    assert "DataLoader median" in result.output and "times as fast" in result.output


@pytest.mark.parametrize(("fast", "arguments", "epochs"), [(True, (), 10), (False, (), 5), (True, ("-n", "3"), 3)])
def test_run_trains_for_as_long_as_the_machine_allows(call, monkeypatch, fast, arguments, epochs):
    asked = []

    def stop(name, data, epochs, **options):
        asked.append(epochs)
        raise CourseError("enough")

    monkeypatch.setattr(hardware, "bf16_is_fast", lambda device: fast)
    monkeypatch.setattr(results, "load_or_train", stop)
    assert "enough" in call("run", *arguments).output
    assert asked == [epochs]
