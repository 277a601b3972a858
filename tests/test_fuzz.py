"""No file that the course reads can make it run code or end in a traceback, whatever is in it."""

import ast
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from qathelpers import checkpoints, data, nets, readers
from qathelpers.errors import CourseError
from qathelpers.history import History

from .test_readers import arrays, write_batches, write_pngs  # noqa: F401, a fixture

PACKAGE = Path(readers.__file__).parent
FUZZED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
damages = st.one_of(
    st.tuples(st.just("bytes"), st.binary(max_size=200)),
    st.tuples(st.just("cut"), st.floats(0, 0.999)),
    st.tuples(st.just("flip"), st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 7)), min_size=1, max_size=9)),
    st.tuples(st.just("flip at the start"), st.lists(st.tuples(st.floats(0, 0.02), st.integers(0, 7)), min_size=1)),
    st.tuples(st.just("remove"), st.none()),
    st.tuples(st.just("folder"), st.none()),
    st.tuples(st.just("add"), st.text("abcdefgh._-", min_size=1, max_size=9)),
    st.tuples(st.just("swap"), st.integers(0, 9)),
)


def damage(path, kind, how):
    """Do to the file at `path` what `damages` has drawn."""
    content = bytearray(path.read_bytes())
    if kind == "bytes":
        path.write_bytes(how)
    elif kind == "cut":
        path.write_bytes(content[: int(len(content) * how)])
    elif kind.startswith("flip"):
        for place, bit in how:
            content[int(len(content) * place)] ^= 1 << bit
        path.write_bytes(content)
    elif kind == "add":
        (path.parent / f"x{how}{path.suffix}").write_bytes(content)
    elif kind == "swap":
        siblings = sorted(path.parent.iterdir())
        path.write_bytes(siblings[how % len(siblings)].read_bytes())
    else:
        path.unlink()
        if kind == "folder":
            path.mkdir()


def works_or_says_so(read):
    """Call `read`; nothing but a CourseError may come out of it, and no other program may start."""
    try:
        read()
    except CourseError as error:
        assert str(error)


@pytest.fixture(scope="session")
def copies(arrays, tmp_path_factory):  # noqa: F811
    """A small copy of each format."""
    folder = tmp_path_factory.mktemp("copies")
    write_batches(folder / "batches", arrays)
    write_pngs(folder / "pngs", arrays)
    return folder


@pytest.mark.parametrize("kind", ["batches", "pngs"])
@FUZZED
@given(file=st.integers(0, 99), change=damages)
def test_a_damaged_folder_is_read_or_refused(copies, tmp_path_factory, monkeypatch, kind, file, change):
    folder = tmp_path_factory.mktemp("x") / kind
    shutil.copytree(copies / kind, folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    damage(files[file % len(files)], *change)
    monkeypatch.setenv("QAT_DATA_DIR", str(folder))
    works_or_says_so(lambda: readers.read_folder(folder))
    works_or_says_so(lambda: data.load("cifar10"))
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A checkpoint and a history, as a training writes them."""
    folder = tmp_path_factory.mktemp("run")
    checkpoints.save(nets.build("BinaryNN", "lenet"), folder / "net.safetensors", {"name": "BinaryNN", "arch": "lenet"})
    history = History({"name": "BinaryNN"})
    history.append(epoch=1, train_loss=1, train_acc=0.5, test_loss=1, test_acc=0.5, seconds=1)
    history.save(folder / "net.npy")
    return folder


@FUZZED
@given(file=st.sampled_from(["net.safetensors", "net.npy", "net.json"]), change=damages)
def test_a_damaged_run_is_read_or_refused(run, tmp_path_factory, file, change):
    folder = tmp_path_factory.mktemp("x") / "run"
    shutil.copytree(run, folder)
    damage(folder / file, *change)
    works_or_says_so(lambda: History.load(folder / "net.npy"))
    works_or_says_so(lambda: checkpoints.load(folder / "net.safetensors"))
    shutil.rmtree(folder)


@FUZZED
@given(
    names=st.lists(st.sampled_from([*data.FINGERPRINTS, "x"]), max_size=3),
    shape=st.lists(st.integers(0, 4)),
    kind=st.sampled_from(["uint8", "int64", "float32", "bfloat16", "bool"]),
)
def test_a_foreign_cache_is_named_and_fetched_again(tmp_path_factory, monkeypatch, capsys, names, shape, kind):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("QAT_CACHE_DIR", str(folder))
    tensors = {
        f"{name}_{part}": torch.zeros(shape, dtype=getattr(torch, kind))
        for name in names
        for part in ("images", "labels")
    }
    save_file(tensors, data.cache_file())
    assert data._read_cache() is None
    assert "is damaged and will be fetched again" in capsys.readouterr().out and not data.cache_file().exists()


class Calls:
    """An object whose pickle calls `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def objects(*values):
    array = np.empty(len(values), object)
    array[:] = values
    return array


def flagged():
    """Return a pickle of 8-bit numbers whose flags say that they are addresses of objects."""
    plain = pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [0]}, protocol=4)
    state = b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK%ct"  # of the type: two sizes of -1, then the flags
    assert plain.count(state % 0) == 1
    return plain.replace(state % 0, state % 63)


REFUSED = {
    "a call of the system": (Calls(os.system, "touch ran"), "it wants posix.system"),
    "a call of eval": (Calls(eval, "open('ran', 'w')"), "it wants builtins.eval"),
    "a call of exec": (Calls(exec, "open('ran', 'w')"), "it wants builtins.exec"),
    "an import": (Calls(__import__, "antigravity"), "it wants builtins.__import__"),
    "a file to open": (Calls(open, "ran", "w"), "it wants .*open"),
    "a NumPy function that reads files": (Calls(np.fromfile, "x"), "it wants numpy.*fromfile"),
    "a NumPy function that unpickles": (Calls(np.load, "x", None, True), "it wants numpy.*load"),
    "a NumPy type": (Calls(np.memmap, "ran", "uint8", "w+", 0, (3,)), "it wants numpy.*memmap"),
    "an array of objects": (objects(1, 2), "not of 8-bit numbers"),
    "an array of objects that call": (objects(Calls(os.system, "touch ran")), "it wants posix.system"),
    "an array of floats": (np.zeros((1, 3072)), "not of 8-bit numbers"),
    "an array by columns": (np.asfortranarray(np.zeros((2, 3072), np.uint8)), "in rows"),
    "an array within a list": ([np.zeros(3072, np.uint8)], "numbers"),
    "a set": ({1, 2}, "AttributeError"),
}


@pytest.mark.parametrize(("value", "reason"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_of_more_than_arrays_is_refused(copies, tmp_path, monkeypatch, value, reason, protocol):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(copies / "batches", tmp_path / "x")
    before = set(tmp_path.rglob("*"))
    (tmp_path / "x" / "data_batch_2").write_bytes(pickle.dumps({b"data": value, b"labels": [0]}, protocol))
    with pytest.raises(CourseError, match=rf"data_batch_2 of x is missing or damaged .*({reason}|it wants )"):
        readers.read_folder(Path("x"))
    assert set(tmp_path.rglob("*")) == before


def test_the_flags_of_a_type_are_not_believed():
    images, labels = readers._unpickle(lambda name: flagged(), "data_batch_1", "x")
    assert images.shape == (1, 3, 32, 32) and images.dtype == np.dtype("u1") and not images.dtype.hasobject
    assert labels.tolist() == [0]


@pytest.mark.parametrize(
    "labels", [[10] * 10, [-1] * 10, [0.5] * 9, [[0]] * 10, ["cat"] * 10, [None] * 10, b"0123456789"]
)
def test_labels_that_are_none_are_refused(copies, tmp_path, labels):
    shutil.copytree(copies / "batches", tmp_path / "x")
    images = np.zeros((10, 3072), np.uint8)
    (tmp_path / "x" / "data_batch_2").write_bytes(pickle.dumps({b"data": images, b"labels": labels}, 4))
    with pytest.raises(CourseError, match=r"data_batch_2 of .*damaged"):
        readers.read_folder(tmp_path / "x")


@pytest.mark.parametrize("kind", ["EPS", "JPEG", "GIF", "TIFF", "PPM"])
def test_of_images_png_alone_is_read(copies, tmp_path, kind):
    """Of an image in PostScript Pillow would make pixels by starting Ghostscript."""
    shutil.copytree(copies / "pngs", tmp_path / "x")
    Image.new("RGB", (32, 32)).save(tmp_path / "x" / "train" / "cat" / "3.png", kind)
    with pytest.raises(CourseError, match=r"cat/3\.png is not a readable image"):
        readers.read_folder(tmp_path / "x")


def names(tree):
    """Yield everything that a module calls, imports or inherits from, as a dotted name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            yield ast.unparse(node)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None)
            yield from (f"{module}.{alias.name}" if module else alias.name for alias in node.names)


UNSAFE = {"eval", "exec", "compile", "__import__", "pickle", "dill", "marshal", "shelve", "torch.load", "np.load"}
UNSAFE |= {"numpy.load", "joblib", "cloudpickle", "yaml.load", "torch.hub", "runpy", "pd.read_pickle"}


def test_nothing_in_the_package_could_run_what_it_reads():
    found = {
        (path.name, name)
        for path in PACKAGE.rglob("*.py")
        for name in names(ast.parse(path.read_text()))
        if name in UNSAFE or any(name.startswith(f"{unsafe}.") for unsafe in UNSAFE)
    }
    assert found == {("readers.py", name) for name in ("pickle", "pickle.Unpickler", "pickle.UnpicklingError")}
    keywords = [
        ast.unparse(keyword)
        for path in PACKAGE.rglob("*.py")
        for keyword in ast.walk(ast.parse(path.read_text()))
        if isinstance(keyword, ast.keyword) and keyword.arg in ("allow_pickle", "weights_only", "shell")
    ]
    assert keywords and set(keywords) == {"allow_pickle=False"}
