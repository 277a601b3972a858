import io
import pickle
import re
import struct
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from qathelpers.common.errors import CourseError
from qathelpers.data import readers


@pytest.fixture(scope="session")
def arrays():
    rng = np.random.default_rng(0)
    make = lambda n: (rng.integers(0, 256, (n, 3, 32, 32), np.uint8), np.arange(n) % 10)  # noqa: E731
    return dict(zip(("train_images", "train_labels", "test_images", "test_labels"), make(50) + make(10), strict=True))


def write_batches(folder, arrays):
    folder.mkdir(parents=True)
    parts = {f"data_batch_{i + 1}": ("train", slice(i * 10, i * 10 + 10)) for i in range(5)}
    for name, (split, part) in (parts | {"test_batch": ("test", slice(None))}).items():
        content = {
            b"data": arrays[f"{split}_images"][part].reshape(-1, 3072),
            b"labels": arrays[f"{split}_labels"][part].tolist(),
        }
        (folder / name).write_bytes(pickle.dumps(content, protocol=4))


def png(image):
    file = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(file, "PNG")
    return file.getvalue()


def write_pngs(folder, arrays):
    for split in ("train", "test"):
        for i, (image, label) in enumerate(zip(arrays[f"{split}_images"], arrays[f"{split}_labels"], strict=True)):
            path = folder / split / readers.CLASSES[label] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(image))


def content(arrays):
    return {
        split: sorted(
            (int(y), x.tobytes()) for x, y in zip(arrays[f"{split}_images"], arrays[f"{split}_labels"], strict=True)
        )
        for split in ("train", "test")
    }


def test_official_files_and_class_folders_give_the_same_images(tmp_path, arrays):
    write_batches(tmp_path / "a" / "cifar-10-batches-py", arrays)
    write_pngs(tmp_path / "b" / "cifar10", arrays)
    for place in ("a", "a/cifar-10-batches-py", "b", "b/cifar10"):
        assert content(readers.read_folder(tmp_path / place)) == content(arrays), place


def as_the_official_archive(images, labels):
    """Return the pickle of a batch as Python 2 wrote it in 2009, with a type of byte strings that Python 3 lacks."""
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    kind = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"K" + bytes([len(images)]) + b"M\x00\x0c\x86"
    pixels = b"T" + struct.pack("<i", images.nbytes) + images.tobytes()
    numbers = b"".join(b"K" + bytes([label]) for label in labels)
    return (
        b"\x80\x02}(U\x04data"
        + array
        + b"(K\x01"
        + shape
        + kind
        + b"\x89"
        + pixels
        + b"tbU\x06labels]("
        + numbers
        + b"eu."
    )


def test_the_pickles_of_the_official_archive(tmp_path, arrays):
    write_batches(tmp_path / "x", arrays)
    official = as_the_official_archive(arrays["test_images"], arrays["test_labels"])
    assert pickle.loads(official, encoding="bytes")[b"data"].shape == (10, 3072)  # noqa: S301, made above
    (tmp_path / "x" / "test_batch").write_bytes(official)
    assert content(readers.read_folder(tmp_path / "x")) == content(arrays)


def test_parquet_files(tmp_path, arrays):
    files = []
    for split in ("train", "test"):
        column = [{"bytes": png(image), "path": None} for image in arrays[f"{split}_images"]]
        table = pa.table({"img": column, "label": arrays[f"{split}_labels"]})
        files.append(tmp_path / f"{split}.parquet")
        pyarrow.parquet.write_table(table, files[-1])
    assert content(readers.read_parquets(files)) == content(arrays)


def test_a_folder_without_a_copy_says_what_it_needs(tmp_path):
    with pytest.raises(CourseError, match=rf"{re.escape(str(tmp_path))}.*QAT_DATA_DIR"):
        readers.read_folder(tmp_path)


def test_a_missing_file_is_named(tmp_path, arrays):
    write_batches(tmp_path / "x", arrays)
    (tmp_path / "x" / "data_batch_4").unlink()
    with pytest.raises(CourseError, match=r"data_batch_4 of .*x\b"):
        readers.read_folder(tmp_path / "x")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keep=st.floats(0, 0.999), name=st.sampled_from(["data_batch_1", "test_batch"]))
def test_a_truncated_file_is_named(tmp_path_factory, arrays, keep, name):
    folder = tmp_path_factory.mktemp("x") / "y"
    write_batches(folder, arrays)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(CourseError, match=name):
        readers.read_folder(folder)


@pytest.mark.parametrize(("damage", "reason"), [(lambda p: p[:40], "PNG"), (None, "16 x 16 pixels")])
def test_a_damaged_png_is_named(tmp_path, arrays, damage, reason):
    write_pngs(tmp_path, arrays)
    path = tmp_path / "train" / "cat" / "3.png"
    small = png(np.zeros((3, 16, 16), np.uint8))
    path.write_bytes(damage(path.read_bytes()) if damage else small)
    with pytest.raises(CourseError, match=rf"cat/3\.png .*{reason}"):
        readers.read_folder(tmp_path)


def test_files_that_a_file_manager_left_are_ignored(tmp_path, arrays):
    write_pngs(tmp_path, arrays)
    for folder in [tmp_path, *(path for path in tmp_path.rglob("*") if path.is_dir())]:
        for name in ("._0.png", ".DS_Store", "Thumbs.db", "desktop.ini", "notes.txt"):
            (folder / name).write_bytes(b"\0\5\x16\7")
    (tmp_path / "__MACOSX" / "train" / "cat").mkdir(parents=True)
    (tmp_path / "__MACOSX" / "train" / "cat" / "._0.png").write_bytes(b"\0")
    assert content(readers.read_folder(tmp_path)) == content(arrays)


def test_extensions_may_be_in_upper_case(tmp_path, arrays):
    write_pngs(tmp_path, arrays)
    for path in list(tmp_path.rglob("*.png")):
        path.rename(path.with_suffix(".PNG"))
    assert content(readers.read_folder(tmp_path)) == content(arrays)


def test_a_copy_of_jpegs_is_called_what_it_is(tmp_path, arrays):
    write_pngs(tmp_path, arrays)
    path = tmp_path / "train" / "cat" / "3.png"
    Image.open(path).save(path.with_suffix(".jpg"))
    path.unlink()
    with pytest.raises(CourseError, match=r"cat/3\.jpg is a JPEG image"):
        readers.read_folder(tmp_path)


def test_an_archive_with_the_files_of_a_mac(tmp_path, arrays):
    write_pngs(tmp_path / "cifar10", arrays)
    (tmp_path / "cifar10" / "train" / "cat" / "._3.png").write_bytes(b"\0\5\x16\7")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(tmp_path / "cifar10", "cifar10")
        archive.add(tmp_path / "cifar10" / "train" / "cat" / "._3.png", "__MACOSX/cifar10/train/cat/._3.png")
    assert content(readers.read_png_archive([tmp_path / "x.tar"])) == content(arrays)
