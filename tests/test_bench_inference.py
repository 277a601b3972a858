import pytest
import torch

from qathelpers import bench_inference
from qathelpers.deploy import onnx, openvino
from qathelpers.errors import CourseError

needs_deploy = pytest.mark.skipif(
    bool(onnx.missing()) or not openvino.available(), reason="needs pip install -e '.[deploy]'"
)


@needs_deploy
def test_every_way_is_timed_beside_the_float_net():
    threads = torch.get_num_threads()
    table = bench_inference.inference(2, threads=1, arch="lenet", repeats=1)
    assert {"PyTorch fp32", "ONNX Runtime int8", "OpenVINO W1A1"} <= set(table.index)
    assert (table["ms an image"] >= 0).all() and table.loc["PyTorch fp32", "times as fast"] == 1
    assert table.loc["OpenVINO W1A1", "kB"] < table.loc["PyTorch fp32", "kB"] / 10
    assert torch.get_num_threads() == threads


@needs_deploy
def test_accuracies_are_those_of_the_recorded_nets(tiny):
    found = bench_inference.accuracies(tiny, "lenet")
    assert found["PyTorch fp32"] == found["OpenVINO fp32"] == found["ONNX Runtime fp32"]
    assert abs(found["OpenVINO W1A1"] - found["PyTorch W1A1, simulated"]) < 0.05
    assert found.between(0, 1).all()


@needs_deploy
def test_sizes_are_given_in_every_format_that_can_hold_a_net():
    table = bench_inference.sizes(["PytorchNN", "BinaryNN", "Int4NN"], "lenet")
    assert table.notna().sum(axis=1).to_dict() == {"PytorchNN": 6, "BinaryNN": 5, "Int4NN": 6}
    assert table.loc["BinaryNN", "packed"] < table.loc["BinaryNN", "checkpoint"] / 15


@needs_deploy
def test_a_binary_convolution_has_a_peak():
    assert bench_inference.binary_peak(channels=64, side=8) > 1e8


def test_without_the_packages_the_error_says_how_to_get_them(monkeypatch):
    monkeypatch.setattr(openvino, "available", lambda: False)
    with pytest.raises(CourseError, match="pip install"):
        bench_inference.inference()
