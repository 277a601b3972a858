import pytest
import torch
from click.testing import CliRunner

from qathelpers import __main__ as cli
from qathelpers.__main__ import EPOCHS, main
from qathelpers.common import hardware
from qathelpers.common.errors import CourseError
from qathelpers.nets import ARCHITECTURES
from qathelpers.training import History


@pytest.fixture
def call(monkeypatch):
    monkeypatch.setenv("QAT_DATA", "shapes")
    monkeypatch.setenv("QAT_MAX_IMAGES", "200")
    return lambda *arguments, **options: CliRunner().invoke(main, arguments, **options)


def test_train_asks_for_epochs_and_name_and_shows_the_levels(call, tmp_path):
    result = call("train", "--arch", "lenet", input="zero\n0\n2\nFourNN\nTernaryNN\n")
    assert result.exit_code == 0, result.output
    assert "'zero' is not a valid integer" in result.output
    assert "0 is not in the range" in result.output
    assert "'FourNN' is not one of" in result.output
    assert "epoch 2/2" in result.output
    (first_layer,) = [line for line in result.output.splitlines() if line.startswith("features.0 ")]
    levels = [float(level) for level in first_layer.split("%")[1].split(",")]
    assert len(levels) == 3 and levels[0] > levels[1] == 0 > levels[2] == -levels[0]
    folder = tmp_path / "runs" / "shapes" / "lenet"
    assert len(History.load(folder / "TernaryNN.npy")) == 2
    for name in ("TernaryNN-accuracy.png", "TernaryNN-loss.png", "TernaryNN.safetensors"):
        assert (folder / name).exists()


def test_a_float_net_has_a_sentence_instead_of_levels(call):
    result = call("train", "-n", "1", "--name", "PytorchNN", "--arch", "lenet")
    assert result.exit_code == 0 and "PytorchNN has no quantized weights" in result.output


def test_set_changes_the_recipe_and_the_config_says_so(call, tmp_path):
    shorter = ("train", "-n", "1", "--name", "BinaryNN", "--arch", "lenet")
    result = call(*shorter, "--set", "translate=2", "--set", "augment=true", "--set", "lr=0.05")
    assert result.exit_code == 0, result.output
    recipe = History.load(tmp_path / "runs" / "shapes" / "lenet" / "BinaryNN.npy").config["recipe"]
    assert (recipe["translate"], recipe["augment"], recipe["lr"]) == (2, True, 0.05)


def test_an_unknown_architecture_or_setting_is_one_sentence(call):
    for arguments in (("--arch", "resnet"), ("--set", "speed=2")):
        result = call("train", "-n", "1", "--name", "BinaryNN", *arguments)
        assert result.exit_code == 1 and "choose one of" in result.output and "Traceback" not in result.output


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


def test_data_describes_what_it_found(call):
    result = call("data")
    assert "classes: circle, drop" in result.output and "cache" in result.output


def test_check_passes_here_and_names_what_to_fix(call, monkeypatch):
    assert call("check").exit_code == 0
    monkeypatch.setenv("QAT_DATA_DIR", "/nowhere")
    result = call("check")
    assert result.exit_code == 1 and "[fix]  QAT_DATA_DIR is /nowhere, which is not a folder" in result.output


@pytest.mark.parametrize(
    ("fast", "arguments", "epochs"),
    [
        (True, (), 10),
        (False, (), 5),
        (False, ("--arch", "convnet-x0.5"), 5),
        (True, ("--arch", "sharpnet"), 14),
        (True, ("-n", "3"), 3),
    ],
)
def test_run_trains_for_as_long_as_the_machine_allows(call, monkeypatch, fast, arguments, epochs):
    asked = []

    def stop(name, dataset, epochs, **options):
        asked.append(epochs)
        raise CourseError("enough")

    monkeypatch.setattr(hardware, "bf16_is_fast", lambda device: fast)
    monkeypatch.setattr("qathelpers.__main__.load_or_train", stop)
    assert "enough" in call("run", *arguments).output
    assert asked == [epochs]


def test_run_trains_on_a_gpu_without_bf16_for_as_long_as_on_a_fast_cpu(monkeypatch):
    monkeypatch.setattr(hardware, "bf16_is_fast", lambda device: False)
    for device in ("cuda", "mps"):
        monkeypatch.setattr(hardware, "best_device", lambda device=device: torch.device(device))
        assert {arch: cli._default_epochs(arch) for arch in EPOCHS} == {
            arch: fast for arch, (_, fast) in EPOCHS.items()
        }


def test_run_knows_an_epoch_count_for_every_architecture():
    assert set(EPOCHS) == set(ARCHITECTURES)


def test_the_commands_for_maintainers_are_not_here(call):
    for command in ("notebooks", "badges", "record"):
        assert "No such command" in call(command).output
