import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qathelpers import nets
from qathelpers.common.errors import CourseError
from qathelpers.training import checkpoint

CONFIG = {"name": "BinaryNN", "arch": "lenet"}


@pytest.mark.parametrize("name", ["PytorchNN", "TernaryNN", "BinaryNN", "XnorNN", "Int2NN", "Int4NN", "Int8NN"])
def test_what_is_loaded_computes_what_was_saved(tmp_path, name):
    net = nets.build(name, "lenet", seed=5)
    x = torch.randn(16, 3, 32, 32)
    net(x)  # moves the running statistics
    path = checkpoint.save(net, tmp_path / "net.safetensors", CONFIG | {"name": name})
    loaded, own = checkpoint.load(path), nets.build(name, "lenet")
    assert torch.equal(loaded(x), net.eval()(x))
    assert checkpoint.load(path, own) is own and torch.equal(own(x), net(x)) and not own.training
    assert loaded.spec.name == name and checkpoint.read_config(path) == CONFIG | {"name": name}


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
@pytest.mark.parametrize("name", ["PytorchNN", "XnorNN", "Int4NN"])
def test_a_net_is_loaded_onto_its_device(tmp_path, name):
    """The meta device stands in for a GPU. Its tensors have no values, but they show that none was left on the CPU."""
    path = checkpoint.save(nets.build(name, "lenet"), tmp_path / "net.safetensors", CONFIG | {"name": name})
    net = checkpoint.load(path, nets.build(name, "lenet").to("meta"))
    assert {tensor.device.type for tensor in (*net.parameters(), *net.buffers())} == {"meta"}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keep=st.floats(0, 0.999))
def test_a_truncated_file_is_named(tmp_path, keep):
    path = checkpoint.save(nets.build("BinaryNN", "lenet"), tmp_path / "net.safetensors", CONFIG)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(CourseError, match=r"net\.safetensors"):
        checkpoint.load(path)
