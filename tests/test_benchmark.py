import pytest
import torch

from qathelpers.common.errors import CourseError
from qathelpers.deploy import benchmark, onnx_export, openvino_export

needs_deploy = pytest.mark.skipif(
    bool(onnx_export.missing()) or not openvino_export.available(), reason="needs pip install -e '.[deploy]'"
)


@needs_deploy
def test_every_backend_is_timed():
    threads = torch.get_num_threads()
    table = benchmark.inference(2, threads=1, arch="lenet", repeats=1)
    assert {"PyTorch fp32", "ONNX Runtime int8", "OpenVINO W1A1"} <= set(table.index)
    assert (table["ms per image"] >= 0).all() and table.loc["PyTorch fp32", "speedup"] == 1
    assert table.loc["OpenVINO W1A1", "kB"] < table.loc["PyTorch fp32", "kB"] / 10
    assert (table["file kB"] >= table["kB"]).all()  # a file holds more than weights
    assert torch.get_num_threads() == threads


@needs_deploy
def test_backends_agree_in_accuracy(tiny):
    found = benchmark.accuracies(tiny, "lenet")
    assert found["PyTorch fp32"] == found["OpenVINO fp32"] == found["ONNX Runtime fp32"]
    assert abs(found["OpenVINO W1A1"] - found["PyTorch W1A1, simulated"]) < 0.05
    assert found.between(0, 1).all()


@needs_deploy
def test_sizes_are_given_for_every_format_that_can_hold_the_net():
    table = benchmark.sizes(["PytorchNN", "BinaryNN", "Int4NN"], "lenet")
    assert table.notna().sum(axis=1).to_dict() == {"PytorchNN": 6, "BinaryNN": 5, "Int4NN": 6}
    assert table.loc["BinaryNN", "packed"] < table.loc["BinaryNN", "checkpoint"] / 15


@needs_deploy
def test_a_binary_convolution_has_a_peak():
    assert benchmark.binary_peak(channels=64, side=8) > 1e8


def test_missing_packages_are_refused(monkeypatch):
    monkeypatch.setattr(openvino_export, "available", lambda: False)
    with pytest.raises(CourseError, match="pip install"):
        benchmark.inference()
