import pytest
import torch
from click.testing import CliRunner

from qathelpers import __main__ as cli
from qathelpers.__main__ import EPOCHS, main
from qathelpers.common import hardware
from qathelpers.common.errors import CourseError
from qathelpers.data import normalize
from qathelpers.deploy import c, export, onnx_export, openvino_export
from qathelpers.nets import ARCHITECTURES
from qathelpers.results import recorded_net
from qathelpers.training import History, checkpoint, predict


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


def test_export_has_an_option_for_each_format():
    assert set(cli.EXPORT_FORMATS) == set(export.FORMATS)


needs_openvino = pytest.mark.skipif(not openvino_export.available(), reason="needs pip install -e '.[deploy]'")
needs_deploy = pytest.mark.skipif(bool(onnx_export.missing()), reason="needs pip install -e '.[deploy]'")


@pytest.mark.skipif(c.compiler() is None, reason="needs a C compiler")
def test_export_writes_a_recorded_net_in_c(call, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("export", "TernaryNN", "--arch", "lenet", "--format", "c")
    assert result.exit_code == 0, result.output
    found = c.run_c(tmp_path / "TernaryNN-lenet.c", images)
    assert torch.allclose(found, predict(recorded_net("TernaryNN", "lenet"), images), atol=1e-4)


@pytest.mark.parametrize(
    ("format", "existing"), [("c", "net.c"), pytest.param("openvino", "net.bin", marks=needs_openvino)]
)
def test_export_keeps_a_file_that_exists_unless_it_is_told_to_replace_it(call, tmp_path, format, existing):
    path, out = tmp_path / existing, tmp_path / ("net.c" if format == "c" else "net.xml")
    path.write_text("mine", encoding="utf-8")
    arguments = ("export", "TernaryNN", "--arch", "lenet", "--format", format, "-o", str(out))
    refused = call(*arguments)
    assert refused.exit_code == 1 and existing in refused.output and "--overwrite" in refused.output
    assert [file.name for file in tmp_path.glob("net.*")] == [existing] and path.read_text("utf-8") == "mine"
    assert call(*arguments, "--overwrite").exit_code == 0 and path.read_bytes() != b"mine"


@needs_deploy
@pytest.mark.slow
def test_export_writes_a_run_of_your_own_in_every_format(call, tiny, tmp_path):
    assert call("train", "-n", "1", "--name", "TernaryNN", "--arch", "lenet").exit_code == 0
    trained, some = tmp_path / "runs" / "shapes" / "lenet" / "TernaryNN.safetensors", tiny.test_images[:4]
    expected = predict(checkpoint.load(trained), some)
    for format in ("qcdq", "qonnx", "int8", "openvino"):
        out = tmp_path / "out" / format / ("net.xml" if format == "openvino" else "net.onnx")
        result = call("export", str(trained), "--format", format, "-o", str(out))
        assert result.exit_code == 0 and str(out) in result.output, result.output
        found = openvino_export.load(out, batch=4)(some) if format == "openvino" else onnx_export.run(out, some)
        assert (found - expected).abs().max() < (0.1 if format == "int8" else 1e-3) * expected.abs().max()


@needs_deploy
def test_export_writes_files_for_floats_and_for_a_fixed_number_of_images(call, images, tmp_path):
    out = tmp_path / "net.onnx"
    result = call(
        "export", "TernaryNN", "--arch", "lenet", "--format", "qcdq", "-o", str(out), "--floats", "--batch", "2"
    )
    assert result.exit_code == 0, result.output
    assert onnx_export.run(out, normalize(images[:2])).shape == (2, 10)
    with pytest.raises(CourseError, match="images=3"):
        onnx_export.run(out, normalize(images[:3]))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("TernaryNN", "--format", "c", "-o", "net.onnx"), ".c"),
        (("TernaryNN", "--format", "c", "--floats"), "--floats"),
        (("TernaryNN", "--format", "qonnx", "--fast"), "--fast"),
        (("TernaryNN", "--format", "openvino", "--batch", "2"), "--batch"),
        (("TernaryNN", "--format", "c", "-o", "file/net.c"), "file"),
        (("FourNN", "--format", "c"), "TernaryNN"),
        (("TernaryNN", "--arch", "lenet", "--seed", "7", "--format", "c"), "TernaryNN-seed7"),
        (("missing.safetensors", "--format", "c"), "missing.safetensors"),
        (("missing.safetensors", "--format", "c", "--arch", "lenet"), "--arch"),
        (("Int4NN", "--format", "c"), "QuantReLU"),
        (("XnorNN", "--format", "qcdq"), "qonnx"),
    ],
)
def test_export_refuses_in_one_sentence_and_leaves_no_file(call, arguments, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    result = call("export", *arguments)
    assert result.exit_code == 1 and named in result.output and len(result.output.splitlines()) == 1, result.output
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_export_in_8_bits_needs_images_of_the_data_that_the_net_was_trained_on(call, tmp_path):
    config = {"name": "PytorchNN", "arch": "lenet", "data": "birds"}
    path = checkpoint.save(recorded_net("PytorchNN", "lenet"), tmp_path / "mine.safetensors", config)
    result = call("export", str(path), "--format", "int8", "-o", str(tmp_path / "net.onnx"))
    assert result.exit_code == 1 and "export_int8" in result.output and not (tmp_path / "net.onnx").exists()
