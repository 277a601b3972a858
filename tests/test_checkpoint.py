import contextlib
import re
from unittest import mock

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qathelpers import nets
from qathelpers.common.errors import CourseError
from qathelpers.common.files import Unreadable
from qathelpers.nets import Scheme, quantizers
from qathelpers.nets.identity import structure_digest
from qathelpers.training import checkpoint

from .odd_files import FILES, PYTORCH, as_it_is, as_nobody, odd_files, shared_folder

CONFIG = {"name": "BinaryNN", "arch": "lenet"}
SOUND_TENSORS = [write for title, write, named in FILES if title.startswith("weights") and named == "safetensors"]


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


@odd_files
@pytest.mark.parametrize("with_net", [False, True])
def test_a_file_that_is_no_checkpoint_is_called_what_it_is_and_stays(tmp_path, write, named, with_net):
    path = tmp_path / "best.safetensors"
    write(path)
    before, net = as_it_is(path) if path.exists() else None, nets.build("BinaryNN", "lenet") if with_net else None
    sound = with_net and write in SOUND_TENSORS
    with contextlib.nullcontext() if sound else pytest.raises(CourseError, match=named) as refused:
        checkpoint.load(path, net)
    if not sound:
        assert str(path) in str(refused.value) and "delete" not in str(refused.value)
    if named == PYTORCH:
        assert "weights_only=True" in str(refused.value) and "damaged" not in str(refused.value)
    assert before is None or as_it_is(path) == before


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
@pytest.mark.parametrize("packed", [False, True])
def test_weights_of_another_program_and_of_wrapped_nets_are_loaded_into_a_net(tmp_path, prefix, packed):
    """DataParallel and torch.compile put a prefix before the name of each tensor."""
    net, x = nets.build("BinaryNN", "lenet", seed=5).eval(), torch.randn(4, 3, 32, 32)
    wrapped = {"": net, "module.": torch.nn.DataParallel(net), "_orig_mod.": torch.compile(net)}[prefix]
    ours = checkpoint.save(wrapped, tmp_path / "ours.safetensors", CONFIG, packed=packed)
    foreign = tmp_path / "model.safetensors"
    foreign.write_bytes(safetensors.torch.save(wrapped.state_dict()))
    for path, own in ((ours, None), (ours, "net"), (foreign, "net")):
        loaded = checkpoint.load(path, own and nets.build("BinaryNN", "lenet"))
        assert torch.equal(loaded(x), net(x)) and not loaded.training


def tensors_of(name="BinaryNN", **changes):
    return nets.build(name, "lenet").state_dict() | changes


KEY = "features.0.weight"
SHAPE = tuple(nets.build("BinaryNN", "lenet").state_dict()[KEY].shape)


@pytest.mark.parametrize(
    ("tensors", "named"),
    [
        (tensors_of(**{KEY: torch.zeros(1, 2)}), rf"{KEY}.*\(1, 2\).*{re.escape(str(SHAPE))}"),
        (tensors_of(**{KEY: torch.zeros(SHAPE, dtype=torch.int8)}), rf"{KEY}.*int8.*float32"),
        (tensors_of(**{KEY: torch.zeros(SHAPE, dtype=torch.complex64)}), rf"{KEY}.*complex64"),
        (tensors_of(extra=torch.zeros(1)), "extra is not in the net"),
        ({key: tensor for key, tensor in tensors_of().items() if key != KEY}, f"{KEY} is missing"),
        (
            {f"model.{key}": tensor for key, tensor in tensors_of(extra=torch.zeros(1)).items()},
            "extra is not in the net",
        ),
        ({f"{len(key)}.{key}": tensor for key, tensor in tensors_of().items()}, f"{KEY}"),
        ({}, "is missing from the file"),
    ],
)
def test_the_first_tensors_that_do_not_fit_are_named(tmp_path, tensors, named):
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors.torch.save(tensors))
    net = nets.build("BinaryNN", "lenet")
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    with pytest.raises(CourseError, match=named):
        checkpoint.load(path, net)
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_converted(tmp_path, dtype):
    tensors = {key: t.to(dtype) if t.is_floating_point() else t for key, t in tensors_of().items()}
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors.torch.save(tensors))
    net = checkpoint.load(path, nets.build("BinaryNN", "lenet"))
    assert net.state_dict()[KEY].dtype == torch.float32
    assert torch.equal(net.state_dict()[KEY], tensors[KEY].float())


@pytest.mark.parametrize(
    "config",
    [
        {},
        [],
        ["a list"],
        "a text",
        None,
        7,
        {"name": "BinaryNN"},
        {"arch": "lenet"},
        {"name": None, "arch": None},
        {"name": ["BinaryNN"], "arch": "lenet"},
        {"name": "BinaryNN", "arch": {"lenet": 1}},
        {"name": "MyNN", "arch": "lenet"},
        {"name": "BinaryNN", "arch": "mine"},
        CONFIG | {"classes": "ten"},
        CONFIG | {"classes": 0},
        CONFIG | {"classes": 2**70},
        CONFIG | {"image_size": None},
        CONFIG | {"image_size": -32},
    ],
)
def test_a_config_that_names_no_net_is_refused_with_the_way_out(tmp_path, config):
    net = nets.build("BinaryNN", "lenet")
    path = checkpoint.write(tmp_path / "odd.safetensors", net.state_dict(), {"config": config})
    with pytest.raises(CourseError, match=r"odd\.safetensors.*checkpoint\.(load|save)"):
        checkpoint.load(path)
    if config == {}:  # the file says nothing about its net, but the caller knows it
        assert checkpoint.load(path, nets.build("BinaryNN", "lenet")).spec.name == "BinaryNN"


@pytest.mark.parametrize("packed", [[], "x", None, {"features.0": 3}, {"features.0": {"shape": [1]}}])
def test_an_odd_header_of_packed_weights_is_refused(tmp_path, packed):
    net = nets.build("BinaryNN", "lenet")
    tensors = net.state_dict() | {"features.0.weight.threshold": torch.ones(())}
    path = checkpoint.write(tmp_path / "odd.safetensors", tensors, {"config": CONFIG, "packed": packed})
    with pytest.raises(CourseError, match=r"odd\.safetensors"):
        checkpoint.load(path)


@pytest.mark.parametrize("net", [{}, "BinaryNN", 3, nets.LeNet])
def test_what_is_no_net_is_refused(tmp_path, net):
    path = checkpoint.save(nets.build("BinaryNN", "lenet"), tmp_path / "net.safetensors", CONFIG)
    with pytest.raises(ValueError, match=rf"net is a {type(net).__name__}"):
        checkpoint.load(path, net)


def test_a_net_without_parameters_is_refused_as_one_that_does_not_fit(tmp_path):
    path = checkpoint.save(nets.build("BinaryNN", "lenet"), tmp_path / "net.safetensors", CONFIG)
    with pytest.raises(CourseError, match="Flatten"):
        checkpoint.load(path, torch.nn.Flatten())


def test_leaving_the_net_out_is_advised_only_if_the_course_can_build_it(tmp_path):
    other = nets.build("TernaryNN", "lenet")
    for config, advised in ((CONFIG, True), ({"name": "MyNN", "arch": "lenet"}, False)):
        path = checkpoint.save(nets.build("BinaryNN", "lenet"), tmp_path / "net.safetensors", config)
        with pytest.raises(CourseError) as refused:
            checkpoint.load(path, other)
        assert ("leave the net out" in str(refused.value)) == advised


@pytest.mark.parametrize("closed", ["file", "folder"])
def test_a_checkpoint_that_another_user_may_not_read_is_not_called_missing_or_damaged(closed):
    with shared_folder() as folder:
        path = checkpoint.save(nets.build("BinaryNN", "lenet"), folder / "runs" / "net.safetensors", CONFIG)
        (path if closed == "file" else path.parent).chmod(0)
        with as_nobody(), pytest.raises(Unreadable, match=r"net\.safetensors.*QAT_RESULTS_DIR") as refused:
            checkpoint.load(path)
        assert not re.search("missing|damaged|delete", str(refused.value))


def test_a_checkpoint_of_another_user_is_loaded():
    with shared_folder() as folder:
        path = checkpoint.save(nets.build("BinaryNN", "lenet"), folder / "net.safetensors", CONFIG)
        with as_nobody():
            assert checkpoint.load(path).spec.name == "BinaryNN"


def test_a_disk_that_does_not_answer_is_no_damage(tmp_path, monkeypatch):
    path = checkpoint.save(nets.build("BinaryNN", "lenet"), tmp_path / "net.safetensors", CONFIG)
    monkeypatch.setattr(checkpoint, "safe_open", mock.Mock(side_effect=OSError(5, "Input/output error")))
    with pytest.raises(Unreadable, match=r"net\.safetensors.*Input/output error"):
        checkpoint.load(path)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("passed", [False, True])
def test_a_scheme_that_was_edited_under_its_name_does_not_load_the_old_net(tmp_path, monkeypatch, packed, passed):
    old = Scheme("EditedNN", "W1.58A32", weight=quantizers.TernaryWeight, first_last=quantizers.TernaryWeight)
    new = Scheme("EditedNN", "W1.58A32", weight=quantizers.BinaryWeight, first_last=quantizers.BinaryWeight)
    monkeypatch.setitem(nets.SCHEMES, "EditedNN", old)
    net = nets.build("EditedNN", "lenet")
    config = {"name": "EditedNN", "arch": "lenet", "net_sha256": structure_digest(net)}
    path = checkpoint.save(net, tmp_path / "net.safetensors", config, packed=packed)
    checkpoint.load(path)
    monkeypatch.setitem(nets.SCHEMES, "EditedNN", new)
    with pytest.raises(CourseError, match="net_sha256"):
        checkpoint.load(path, nets.build("EditedNN", "lenet") if passed else None)


@pytest.mark.parametrize("sizes", [{"image_size": 8192}, {"classes": 100_000}], ids=str)
def test_a_file_that_is_too_small_for_its_net_is_refused_before_the_net_takes_memory(tmp_path, sizes):
    config = {"name": "BinaryNN", "arch": "lenet"} | sizes
    path = checkpoint.write(tmp_path / "net.safetensors", {"x": torch.zeros(1000)}, {"config": config})
    with pytest.raises(CourseError, match=r"[0-9,]{9,} weights.* 4,000 bytes"):
        checkpoint.load(path)
