import pytest
import torch

from qathelpers import bench_inference
from qathelpers.deploy import onnx, openvino
from qathelpers.errors import CourseError


@pytest.mark.skipif(bool(onnx.missing()) or not openvino.available(), reason="needs pip install -e '.[deploy]'")
def test_every_way_is_timed_beside_the_float_net():
    threads = torch.get_num_threads()
    table = bench_inference.inference(2, threads=1, arch="lenet", repeats=1)
    assert {"PyTorch fp32", "ONNX Runtime int8", "OpenVINO W1A1"} <= set(table.index)
    assert (table["ms an image"] >= 0).all() and table.loc["PyTorch fp32", "times as fast"] == 1
    assert table.loc["OpenVINO W1A1", "kB"] < table.loc["PyTorch fp32", "kB"] / 10
    assert torch.get_num_threads() == threads


def test_without_the_packages_the_error_says_how_to_get_them(monkeypatch):
    monkeypatch.setattr(openvino, "available", lambda: False)
    with pytest.raises(CourseError, match="pip install"):
        bench_inference.inference()
