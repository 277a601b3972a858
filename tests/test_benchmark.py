import shutil
import sys

import pandas as pd
import pytest
import torch

from qathelpers.common.errors import CourseError
from qathelpers.deploy import benchmark, c, onnx_export, openvino_export
from qathelpers.results import recorded_net
from qathelpers.training import predict

needs_deploy = pytest.mark.skipif(
    bool(onnx_export.missing()) or not openvino_export.available(), reason="needs pip install -e '.[deploy]'"
)


@needs_deploy
def test_every_backend_is_timed():
    threads = torch.get_num_threads()
    table = benchmark.inference(2, threads=1, arch="lenet", repeats=1)
    assert {"PyTorch fp32", "ONNX Runtime int8", "OpenVINO W1A1"} <= set(table.index)
    assert ("C W1A1" in table.index) == (c.compiler() is not None)
    assert (table["ms per image"] > 0).all() and table.loc["PyTorch fp32", "speedup"] == 1
    assert table.loc["OpenVINO fp32", "times its fp32"] == 1 and (table["threads"] == 1).all()
    expected = table.loc["OpenVINO fp32", "ms per image"] / table.loc["OpenVINO W1A1", "ms per image"]
    assert table.loc["OpenVINO W1A1", "times its fp32"] == pytest.approx(expected, abs=0.02)
    assert table.loc["OpenVINO W1A1", "kB"] < table.loc["PyTorch fp32", "kB"] / 10
    files = table[~table.index.str.startswith("PyTorch")]
    assert (files["file kB"] >= files["kB"]).all()  # a file holds more than weights
    assert torch.get_num_threads() == threads


@needs_deploy
def test_without_a_compiler_the_c_program_is_left_out(monkeypatch):
    monkeypatch.setattr(c, "compiler", lambda: None)
    assert not benchmark.inference(arch="lenet", repeats=1).index.str.startswith("C ").any()


@pytest.mark.skipif(not shutil.which("false"), reason="needs a command that always fails")
def test_a_compiler_that_fails_leaves_the_c_program_out_with_a_warning(monkeypatch, tmp_path):
    monkeypatch.setattr(c, "compiler", lambda: shutil.which("false"))
    with pytest.warns(UserWarning, match="C program"):
        assert benchmark._library(recorded_net("BinaryNN", "lenet"), tmp_path) is None


@needs_deploy
def test_accuracies_are_those_of_recorded_nets(tiny):
    found = benchmark.accuracies(tiny, "lenet")
    count = len(tiny.test_labels) // 100 * 100
    guesses = predict(recorded_net("PytorchNN", "lenet"), tiny.test_images[:count]).argmax(1)
    expected = (guesses == tiny.test_labels[:count]).double().mean().item()
    for runtime in ("PyTorch", "OpenVINO", "ONNX Runtime"):
        assert found[f"{runtime} fp32"] == pytest.approx(expected)
    assert pd.isna(found["OpenVINO W1A1"])  # there is no such recorded net


@needs_deploy
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is measured on Linux only")
def test_memory_is_measured_in_a_process_of_its_own():
    found = benchmark.memory(arch="lenet")
    assert found.between(0, 1000).all() and set(found.index) == set(benchmark.inference(arch="lenet", repeats=1).index)
    if c.compiler():
        assert found["C W1A1"] < found.drop("C W1A1").min()  # it needs no runtime


def timed(**rows):
    """A table of times and accuracies: by backend, (ms per image, accuracy)."""
    table = pd.DataFrame(rows, index=["ms per image", "accuracy"]).T
    table["speedup"] = table.loc["PyTorch fp32", "ms per image"] / table["ms per image"]
    return table.assign(batch=1, threads=1)


def test_the_verdict_follows_from_the_numbers():
    floats, int8, w1a1 = {"PyTorch fp32": (1.0, 0.88)}, {"OpenVINO int8": (0.2, 0.875)}, {"C W1A1": (0.04, 0.77)}
    both = benchmark.verdict(timed(**floats, **int8, **w1a1))
    assert both.index("C W1A1") < both.index("25.0") < both.index("0.770") < both.index("OpenVINO int8")
    assert "5.0" in both
    as_good = benchmark.verdict(timed(**floats, **int8, **{"C W1A1": (0.04, 0.879)}))
    assert "C W1A1" in as_good and "OpenVINO int8" not in as_good
    assert "not known" in benchmark.verdict(timed(**{"PyTorch fp32": (1.0, float("nan"))}, **w1a1))


@needs_deploy
def test_sizes_are_given_for_every_format_that_can_hold_the_net():
    table = benchmark.sizes(["PytorchNN", "BinaryNN", "Int4NN"], "lenet")
    assert table.notna().sum(axis=1).to_dict() == {"PytorchNN": 6, "BinaryNN": 5, "Int4NN": 6}
    assert table.loc["BinaryNN", "packed"] < table.loc["BinaryNN", "checkpoint"] / 15


@needs_deploy
def test_a_binary_convolution_has_a_peak():
    assert benchmark.binary_peak(channels=64, side=8) > 1e8


@pytest.mark.skipif(c.compiler() is None, reason="needs a C compiler: cc, gcc or clang")
def test_the_c_loop_has_a_peak():
    assert 1e9 < benchmark.c_peak() < 1e15


def test_too_few_test_images_are_named(tiny):
    with pytest.raises(CourseError, match=r"100 .*\b99\b"):
        benchmark.accuracies(tiny.take(test=99), "lenet")


def test_missing_packages_are_refused(monkeypatch):
    monkeypatch.setattr(openvino_export, "available", lambda: False)
    with pytest.raises(CourseError, match="pip install"):
        benchmark.inference()
