"""Configs and headers that were edited by hand or forged: the wrong value is named, and other runs are still shown."""

import contextlib
import io
import json
import shutil

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from qathelpers import results
from qathelpers.common.errors import CourseError
from qathelpers.nets import Recipe, architecture, build
from qathelpers.nets.recipe import changed
from qathelpers.results.reproduce import reproduce
from qathelpers.training import History, checkpoint, schema

from ..conftest import SEED, tried
from .conftest import assert_refused

# A key of a config, and values that it cannot have.
WRONG = {
    "name": ["$\\frac$", "", 7, "a/b", "x" * 500, None],
    "arch": [None, 5, "../x"],
    "bits": [None, 3, "\ud800"],
    "kB": ["ten", [], -1, True],
    "init_seed": ["0", -1, 0.5],
    "classes": ["x", 0, 10**9],
    "image_size": ["x", 10**6],
    "channels": [0, "3"],
    "data": [None, 5, [], "a/b"],
    "class_names": [None, "cat", ["cat", 3], {}],
    "train_images": ["a", -1, None],
    "epochs": ["two", None, 0, -3, 10**30],
    "seed": ["1", None, 0.0, -1, 2**70, True],
    "recipe": [None, [], {"lr": []}],
    "hardware": [None, "half \udfff"],
    "versions": [None, 3, {"torch": 2}],
    "evaluation": [3],
    "evaluated_on": ["train"],
    "test_acc": ["x", 7, None, [], float("nan")],
}
CASES = [pytest.param(key, value, id=f"{key}={value!r}"[:40]) for key, values in WRONG.items() for value in values]


def edit(runs, **changes):
    path = runs / "BinaryNN.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


@pytest.mark.parametrize(("key", "value"), CASES)
def test_a_wrong_value_is_named_and_the_other_runs_are_shown(runs, capsys, key, value):
    edit(runs, **{key: value})
    assert_refused(
        lambda: History.load(runs / "BinaryNN.npy"), CourseError, ["BinaryNN.json", "name" if key == "name" else key]
    )
    assert [history.name for history in results.find_histories(runs)] == ["TernaryNN"]
    assert "BinaryNN.json" in capsys.readouterr().out
    assert results.leaderboard("shapes").index.tolist() == ["TernaryNN"]


PACKED = {
    "shape": [[-1, -450], [10**9, 10**9], None, "x", [0], [1] * 9],
    "lowest": [10**30, None, "x", 0.5],
    "step": [0, None, 10**400],
    "levels": [0, 10**9, None],
    "thresholds": [[1, 2]],
}


@pytest.mark.parametrize(
    ("key", "value"),
    [pytest.param(key, value, id=f"{key}={str(value)[:20]}") for key, values in PACKED.items() for value in values],
)
def test_a_forged_description_of_packed_weights_is_refused(runs, key, value):
    path = runs / "BinaryNN.safetensors"
    checkpoint.save(checkpoint.load(path), path, checkpoint.read_config(path), packed=True)
    tensors, header = checkpoint.read(path)
    next(iter(header["packed"].values()))[key] = value
    checkpoint.write(path, tensors, header)
    before = path.read_bytes()
    assert_refused(lambda: checkpoint.load(path), CourseError, [str(path)])
    assert path.read_bytes() == before


def test_the_schema_accepts_what_a_training_writes(runs):
    assert schema.problem_with(json.loads((runs / "BinaryNN.json").read_text(encoding="utf-8"))) == ""


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
edits = st.dictionaries(st.sampled_from([*schema.CONFIG, "rows", "sha256", "before", "note"]), values, min_size=1)
FUZZED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def copy(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("edited") / "lenet"
    shutil.copytree(trained, folder)
    return folder, json.loads((folder / "BinaryNN.json").read_text(encoding="utf-8"))


@seed(SEED)
@FUZZED
@given(changes=edits)
def test_no_edit_of_a_config_ends_in_a_traceback(copy, monkeypatch, changes):
    tried("configs")
    folder, config = copy
    (folder / "BinaryNN.json").write_text(json.dumps(config | changes), encoding="utf-8")
    with contextlib.redirect_stdout(io.StringIO()):
        histories = results.find_histories(folder)
        with contextlib.suppress(CourseError):
            results.summarize(histories)
    assert "TernaryNN" in [history.name for history in histories]


@seed(SEED)
@FUZZED
@given(changes=edits)
def test_no_forged_header_ends_in_a_traceback(copy, changes):
    tried("headers")
    folder, config = copy
    path = folder / "forged.safetensors"
    few = {key: value for key, value in changes.items() if key != "arch"}  # a wide net would take long to build
    checkpoint.write(path, {}, {"config": config | few})
    with contextlib.suppress(CourseError):
        checkpoint.load(path)


@seed(SEED)
@FUZZED
@given(
    name=st.sampled_from([*Recipe.__dataclass_fields__, "x"]),
    text=st.text(max_size=30) | st.integers().map(str) | st.floats().map(str),
)
def test_no_setting_ends_in_a_traceback(name, text):
    tried("settings of a recipe")
    with contextlib.suppress(CourseError):
        changed(Recipe(), [f"{name}={text}"])


@seed(SEED)
@FUZZED
@given(
    text=st.text(max_size=20)
    | st.floats().map(lambda factor: f"convnet-x{factor}")
    | st.integers().map(lambda n: f"sharpnet-x{n}")
)
def test_no_architecture_ends_in_a_traceback(text):
    tried("names of architectures")
    with contextlib.suppress(CourseError):
        architecture(text)


@pytest.mark.parametrize(
    "arch", ["convnet-x0", "convnet-x-1", "convnet-x1e4", "convnet-x1e30", "convnet-xnan", "convnet-x+1", "lenet-x1"]
)
def test_an_impossible_width_is_refused_before_anything_is_built(arch):
    assert_refused(lambda: build("BinaryNN", arch), CourseError, [arch.partition("-")[0]])


@pytest.mark.parametrize(("key", "value"), [("data", "auto"), ("train_images", None), ("epochs", "two"), ("seed", 0.0)])
def test_a_config_that_names_no_run_is_not_reproduced(runs, key, value):
    config = History.load(runs / "BinaryNN.npy").config | {key: value}
    assert_refused(lambda: reproduce(config), CourseError, [key])
