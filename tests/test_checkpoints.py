import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qathelpers import checkpoints, nets
from qathelpers.errors import CourseError

CARD = {"name": "BinaryNN", "arch": "lenet"}


@pytest.mark.parametrize("name", ["PytorchNN", "TernaryNN", "BinaryNN", "XnorNN", "Int2NN", "Int4NN", "Int8NN"])
def test_what_is_loaded_computes_what_was_saved(tmp_path, name):
    net = nets.build(name, "lenet", seed=5)
    x = torch.randn(16, 3, 32, 32)
    net(x)  # moves the running statistics
    path = checkpoints.save(net, tmp_path / "net.safetensors", CARD | {"name": name})
    assert torch.equal(checkpoints.load(path)(x), net.eval()(x))
    assert checkpoints.read_card(path)["name"] == name


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keep=st.floats(0, 0.999))
def test_a_truncated_file_is_named(tmp_path, keep):
    path = checkpoints.save(nets.build("BinaryNN", "lenet"), tmp_path / "net.safetensors", CARD)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(CourseError, match=r"net\.safetensors"):
        checkpoints.load(path)
