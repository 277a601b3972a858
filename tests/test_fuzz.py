"""No file that the course reads can make it run code or end in a traceback, whatever is in it."""

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from qathelpers import data
from qathelpers.common.errors import CourseError
from qathelpers.data import readers
from qathelpers.nets import build
from qathelpers.training import History, checkpoint

from .conftest import SEED, tried
from .test_data import small_cifar  # noqa: F401, a fixture
from .test_readers import arrays, write_batches, write_pngs  # noqa: F401, a fixture

FUZZED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
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
    """Call `read`, which may raise no other error than a CourseError."""
    try:
        read()
    except CourseError as error:
        assert str(error)


@pytest.fixture(scope="session")
def copies(arrays, tmp_path_factory):  # noqa: F811
    """Write a small copy of CIFAR-10 in each format."""
    folder = tmp_path_factory.mktemp("copies")
    write_batches(folder / "batches", arrays)
    write_pngs(folder / "pngs", arrays)
    return folder


@pytest.mark.parametrize("kind", ["batches", "pngs"])
@seed(SEED)
@FUZZED
@given(file=st.integers(0, 99), change=damages)
def test_a_damaged_folder_is_read_or_refused(copies, tmp_path_factory, monkeypatch, kind, file, change):
    tried(kind)
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
    """Write a checkpoint and a history, as a training does."""
    folder = tmp_path_factory.mktemp("run")
    checkpoint.save(build("BinaryNN", "lenet"), folder / "net.safetensors", {"name": "BinaryNN", "arch": "lenet"})
    history = History({"name": "BinaryNN"})
    history.append(epoch=1, train_loss=1, train_acc=0.5, test_loss=1, test_acc=0.5, seconds=1)
    history.save(folder / "net.npy")
    return folder


@seed(SEED)
@FUZZED
@given(file=st.sampled_from(["net.safetensors", "net.npy", "net.json"]), change=damages)
def test_a_damaged_run_is_read_or_refused(run, tmp_path_factory, file, change):
    tried("runs")
    folder = tmp_path_factory.mktemp("x") / "run"
    shutil.copytree(run, folder)
    damage(folder / file, *change)
    works_or_says_so(lambda: History.load(folder / "net.npy"))
    works_or_says_so(lambda: checkpoint.load(folder / "net.safetensors"))
    shutil.rmtree(folder)


@seed(SEED)
@FUZZED
@given(
    names=st.lists(st.sampled_from([*data.FINGERPRINTS, "x"]), max_size=3),
    shape=st.lists(st.integers(0, 4)),
    kind=st.sampled_from(["uint8", "int64", "float32", "bfloat16", "bool"]),
)
def test_a_foreign_cache_is_named_and_replaced(
    small_cifar,  # noqa: F811
    tmp_path_factory,
    monkeypatch,
    capsys,
    names,
    shape,
    kind,
):
    tried("caches")
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("QAT_CACHE_DIR", str(folder))
    tensors = {
        f"{name}_{part}": torch.zeros(shape, dtype=getattr(torch, kind))
        for name in names
        for part in ("images", "labels")
    }
    save_file(tensors, data.cache_file())
    capsys.readouterr()
    for foreign in (True, False):
        dataset = data.load("cifar10")
        assert torch.equal(dataset.train_images, torch.from_numpy(small_cifar["train_images"]))
        assert (str(data.cache_file()) in capsys.readouterr().out) == foreign


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


# Values in a pickle that are not those of the official files; for a function that the pickle calls, its name.
REFUSED = {
    "a call of the system": (Calls(os.system, "touch ran"), "system"),
    "a call of eval": (Calls(eval, "open('ran', 'w')"), "eval"),
    "a call of exec": (Calls(exec, "open('ran', 'w')"), "exec"),
    "an import": (Calls(__import__, "antigravity"), "__import__"),
    "a file to open": (Calls(open, "ran", "w"), "open"),
    "a NumPy function that reads files": (Calls(np.fromfile, "x"), "fromfile"),
    "a NumPy function that unpickles": (Calls(np.load, "x", None, True), "load"),
    "a NumPy type": (Calls(np.memmap, "ran", "uint8", "w+", 0, (3,)), "memmap"),
    "an array of objects": (objects(1, 2), ""),
    "an array of objects that call": (objects(Calls(os.system, "touch ran")), ""),
    "an array of floats": (np.zeros((1, 3072)), ""),
    "an array by columns": (np.asfortranarray(np.zeros((2, 3072), np.uint8)), ""),
    "an array within a list": ([np.zeros(3072, np.uint8)], ""),
    "a set": ({1, 2}, ""),
}


@pytest.mark.parametrize(("value", "function"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_of_more_than_arrays_is_refused(copies, tmp_path, monkeypatch, value, function, protocol):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(copies / "batches", tmp_path / "x")
    before = set(tmp_path.rglob("*"))
    (tmp_path / "x" / "data_batch_2").write_bytes(pickle.dumps({b"data": value, b"labels": [0]}, protocol))
    with pytest.raises(CourseError, match=r"data_batch_2 of x\b") as raised:
        readers.read_folder(Path("x"))
    # Before protocol 3, bytes are written as a call of a function, which is refused first.
    assert function in str(raised.value) or (protocol < 3 and "_codecs.encode" in str(raised.value))
    assert set(tmp_path.rglob("*")) == before


def test_the_flags_of_a_type_are_not_believed():
    read = readers.read_batches(lambda name: flagged(), "x")
    for split, count in (("train", 5), ("test", 1)):
        images, labels = read[f"{split}_images"], read[f"{split}_labels"]
        assert images.shape == (count, 3, 32, 32) and images.dtype == np.dtype("u1") and not images.dtype.hasobject
        assert labels.tolist() == [0] * count


@pytest.mark.parametrize(
    "labels", [[10] * 10, [-1] * 10, [0.5] * 9, [[0]] * 10, ["cat"] * 10, [None] * 10, b"0123456789"]
)
def test_labels_that_are_none_are_refused(copies, tmp_path, labels):
    shutil.copytree(copies / "batches", tmp_path / "x")
    images = np.zeros((10, 3072), np.uint8)
    (tmp_path / "x" / "data_batch_2").write_bytes(pickle.dumps({b"data": images, b"labels": labels}, 4))
    with pytest.raises(CourseError, match="data_batch_2"):
        readers.read_folder(tmp_path / "x")


@pytest.mark.parametrize("kind", ["EPS", "JPEG", "GIF", "TIFF", "PPM"])
def test_of_images_png_alone_is_read(copies, tmp_path, kind):
    """Pillow would start another program, Ghostscript, to read an image in PostScript (EPS)."""
    shutil.copytree(copies / "pngs", tmp_path / "x")
    Image.new("RGB", (32, 32)).save(tmp_path / "x" / "train" / "cat" / "3.png", kind)
    with pytest.raises(CourseError, match=r"cat/3\.png"):
        readers.read_folder(tmp_path / "x")
