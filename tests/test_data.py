import os
import shutil
from pathlib import Path
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qathelpers import data
from qathelpers.common.errors import CourseError
from qathelpers.data import download

from . import processes
from .odd_files import as_nobody, shared_folder
from .test_readers import arrays, write_batches  # noqa: F401, a fixture

TENSORS = ("train_images", "train_labels", "test_images", "test_labels")


@pytest.fixture
def small_cifar(arrays, monkeypatch, tmp_path):  # noqa: F811
    """Replace the real fingerprints by those of 60 images, and put a copy of these images into QAT_DATA_DIR."""
    for split in data.FINGERPRINTS:
        images, labels = (torch.from_numpy(arrays[f"{split}_{kind}"]) for kind in ("images", "labels"))
        monkeypatch.setitem(data.FINGERPRINTS, split, data.fingerprint(images, labels))
    write_batches(tmp_path / "copy", arrays)
    monkeypatch.setenv("QAT_DATA_DIR", str(tmp_path / "copy"))
    return arrays


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setattr(download, "MIRRORS", [])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 100))
def test_the_fingerprint_knows_content_not_order(images, seed):
    labels = torch.arange(20) % 10
    order = torch.randperm(20, generator=torch.Generator().manual_seed(seed))
    expected = data.fingerprint(images, labels)
    assert data.fingerprint(images[order], labels[order]) == expected
    changed = images.clone()
    changed[seed % 20, 1, 2, 3] ^= 1
    assert data.fingerprint(changed, labels) != expected
    assert data.fingerprint(images, labels.roll(1)) != expected


def test_the_users_copy_is_read_verified_and_cached(small_cifar, monkeypatch, capsys):
    first = data.load("cifar10")
    assert first.name == "cifar10" and len(first.classes) == 10
    assert torch.equal(first.train_images, torch.from_numpy(small_cifar["train_images"]))
    assert "CIFAR-10: 50 training and 10 test images" in capsys.readouterr().out
    monkeypatch.setenv("QAT_DATA_DIR", "/nowhere")
    second = data.load("cifar10")
    assert all(torch.equal(getattr(first, name), getattr(second, name)) for name in TENSORS)


def test_a_wrong_copy_is_refused_by_name(small_cifar, tmp_path, monkeypatch):
    small_cifar = small_cifar | {"test_labels": small_cifar["test_labels"][::-1]}
    write_batches(tmp_path / "wrong", small_cifar)
    monkeypatch.setenv("QAT_DATA_DIR", str(tmp_path / "wrong"))
    with pytest.raises(CourseError, match=r"wrong is not CIFAR-10.* 10 test images"):
        data.load()
    assert not data.cache_file().exists()


@pytest.mark.parametrize("damage", [lambda c: c[:-100], lambda c: c[:-1] + bytes([c[-1] ^ 1]), lambda c: b""])
def test_a_damaged_cache_is_named_and_fetched_again(small_cifar, capsys, damage):
    data.load("cifar10")
    data.cache_file().write_bytes(damage(data.cache_file().read_bytes()))
    again = data.load("cifar10")
    assert f"{data.cache_file()} is damaged" in capsys.readouterr().out
    assert torch.equal(again.train_images, torch.from_numpy(small_cifar["train_images"]))
    data.load("cifar10")
    assert "damaged" not in capsys.readouterr().out


def test_without_copy_and_network_auto_gives_shapes_and_says_so(no_network, monkeypatch, capsys):
    monkeypatch.setenv("QAT_MAX_IMAGES", "30")
    dataset = data.load()
    assert dataset.name == "shapes" and len(dataset.train_labels) == len(dataset.test_labels) == 30
    assert "NOT CIFAR-10" in capsys.readouterr().out


def test_without_copy_and_network_cifar10_says_what_to_do(no_network):
    with pytest.raises(CourseError, match="QAT_DATA_DIR"):
        data.load("cifar10")


def test_a_cache_that_cannot_be_written_does_not_stop_anybody(small_cifar, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    monkeypatch.setenv("QAT_CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert data.load("cifar10").name == "cifar10"
    output = capsys.readouterr().out
    assert "QAT_CACHE_DIR" in output and str(tmp_path / "file" / "cache") in output


@pytest.mark.parametrize(
    ("folder", "file"), [(0o755, 0o644), (0o777, 0o644), (0o700, 0o644), (0o755, 0o600), (0o777, 0o600), (0o777, None)]
)
def test_the_cache_of_another_user_is_used_or_left_as_it_is(small_cifar, monkeypatch, capsys, folder, file):
    """Without a file (None), there is only the other user's lock."""
    copy = os.environ["QAT_DATA_DIR"]
    with shared_folder() as shared:
        shutil.copytree(copy, shared / "copy")
        monkeypatch.setenv("QAT_DATA_DIR", str(shared / "copy"))
        monkeypatch.setenv("QAT_CACHE_DIR", str(shared / "cache"))
        data.load("cifar10")
        cache = data.cache_file()
        before = cache.read_bytes()
        (cache.parent / ".lock").chmod(0o644)
        cache.unlink() if file is None else cache.chmod(file)
        cache.parent.chmod(folder)
        capsys.readouterr()
        with as_nobody():
            loaded = data.load("cifar10")
        assert torch.equal(loaded.train_images, torch.from_numpy(small_cifar["train_images"]))
        is_read = file == 0o644 and folder != 0o700
        assert ("QAT_CACHE_DIR" in capsys.readouterr().out) != is_read
        assert file is None or cache.read_bytes() == before


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError(), RuntimeError("no memory")])
def test_a_cache_that_cannot_be_read_now_is_not_replaced(small_cifar, monkeypatch, capsys, error):
    data.load("cifar10")
    before = data.cache_file().stat().st_ino
    monkeypatch.setattr(Path, "read_bytes", mock.Mock(side_effect=error))
    assert data.load("cifar10").name == "cifar10"
    output = capsys.readouterr().out
    assert str(data.cache_file()) in output and "damaged" not in output
    assert data.cache_file().stat().st_ino == before


def load_cifar10(rank, fingerprints, expected):
    data.FINGERPRINTS.update(fingerprints)
    assert data.load("cifar10").train_images.sum().item() == expected


def test_two_processes_at_once(small_cifar):
    processes.run(2, load_cifar10, dict(data.FINGERPRINTS), small_cifar["train_images"].sum().item())
    assert {path.name for path in data.cache_file().parent.iterdir()} <= {"cifar10.safetensors", ".lock"}


def test_the_status_says_where_cifar10_is(small_cifar, tmp_path, monkeypatch):
    assert "QAT_DATA_DIR" in data.status() and str(tmp_path / "copy") in data.status()
    monkeypatch.delenv("QAT_DATA_DIR")
    assert "download" in data.status() and "QAT_DATA_DIR" in data.status()
    monkeypatch.setenv("QAT_DATA_DIR", str(tmp_path / "absent"))
    with pytest.raises(CourseError, match=r"QAT_DATA_DIR.*absent"):
        data.status()
    monkeypatch.setenv("QAT_DATA_DIR", str(tmp_path / "copy"))
    data.load("cifar10")
    assert str(data.cache_file()) in data.status()


def test_the_validation_split_is_taken_from_the_training_set(tiny):
    split = tiny.validation_split(100)
    assert torch.equal(torch.cat([split.train_images, split.test_images]), tiny.train_images)
    assert (tiny.held_out, split.held_out, split.take(10, 10).held_out) == ("test", "validation", "validation")
    assert "100 validation images" in str(split)


COPY = os.environ.get("QAT_DATA_DIR")


@pytest.mark.skipif(not COPY, reason="set QAT_DATA_DIR to a copy of CIFAR-10 to read it here")
def test_the_real_cifar10(monkeypatch):
    monkeypatch.setenv("QAT_DATA_DIR", str(Path(COPY).resolve()))
    dataset = data.load("cifar10")
    assert dataset.train_images.shape == (50_000, 3, 32, 32) and dataset.test_images.shape == (10_000, 3, 32, 32)
    assert torch.bincount(dataset.train_labels).tolist() == [5000] * 10
    pixels = dataset.train_images.double() / 255
    assert pixels.mean((0, 2, 3)).tolist() == pytest.approx(data.MEAN, abs=1e-4)
    assert pixels.permute(1, 0, 2, 3).flatten(1).std(1).tolist() == pytest.approx(data.STD, abs=1e-4)
