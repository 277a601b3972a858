"""A reader's own pictures and tensors."""

import re
import shutil
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qathelpers import data, nets, training
from qathelpers.common.errors import CourseError
from qathelpers.data import from_folder, from_tensors

COLOURS = {"blue": (0, 0, 255), "green": (0, 128, 0), "red": (255, 0, 0)}


def save(path, colour=(255, 0, 0), size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, {".jpg": "JPEG"}.get(path.suffix.lower()))


@pytest.fixture
def pets(tmp_path):
    """Return a folder with three classes of ten pictures, all different."""
    for kind, colour in COLOURS.items():
        for i in range(10):
            save(tmp_path / "pets" / kind / f"{i}.png", tuple(max(0, value - 3 * i) for value in colour))
    return tmp_path / "pets"


def contents(images):
    return sorted(image.numpy().tobytes() for image in images)


def test_a_folder_per_class_becomes_a_data_set(pets):
    dataset = from_folder(pets)
    assert dataset.classes == ("blue", "green", "red") and dataset.name == "pets"
    assert str(dataset) == "pets: 24 training and 6 test images"
    assert dataset.train_images.shape == (24, 3, 32, 32) and dataset.test_images.shape == (6, 3, 32, 32)
    assert torch.bincount(dataset.train_labels).tolist() == [8] * 3
    assert torch.bincount(dataset.test_labels).tolist() == [2] * 3
    for images, labels in (
        (dataset.train_images, dataset.train_labels),
        (dataset.test_images, dataset.test_labels),
    ):
        brightest = images[:, :, 16, 16].int().argmax(1)
        assert torch.equal(brightest, 2 - labels)
    assert len(set(contents(torch.cat([dataset.train_images, dataset.test_images])))) == 30
    dataset.check(8)
    assert (
        len(dataset.take(12).train_labels.unique()) > 1 and len(dataset.validation_split(12).test_labels.unique()) > 1
    )


def test_size_share_seed_and_name(pets):
    dataset = from_folder(str(pets), size=20, test_share=0.5, seed=1, name="mine")
    assert dataset.train_images.shape == dataset.test_images.shape == (15, 3, 20, 20) and dataset.name == "mine"
    again, other = from_folder(pets, 20, 0.5, 1), from_folder(pets, 20, 0.5, 2)
    assert torch.equal(again.train_images, dataset.train_images)
    assert contents(other.test_images) != contents(dataset.test_images)
    assert len(from_folder(pets, test_share=0.001).test_labels) == 3
    assert len(from_folder(pets, test_share=0.999).train_labels) == 3


def test_the_pictures_of_a_folder_can_be_read_in_grey(pets):
    colour, grey = from_folder(pets), from_folder(pets, channels=1)
    for split in ("train", "test"):
        images, labels = getattr(grey, f"{split}_images"), getattr(grey, f"{split}_labels")
        assert images.shape[1:] == (1, 32, 32) and torch.equal(labels, getattr(colour, f"{split}_labels"))
        red, green, blue = getattr(colour, f"{split}_images").float().unbind(1)
        assert (images[:, 0] - (0.299 * red + 0.587 * green + 0.114 * blue)).abs().max() <= 1
    grey.check(8)


def test_the_split_of_a_class_does_not_depend_on_others(pets):
    before = from_folder(pets)
    shutil.copytree(pets / "red", pets / "amber")
    after = from_folder(pets)
    assert after.classes == ("amber", "blue", "green", "red")
    for label, kind in enumerate(before.classes):
        old, new = before.test_images[before.test_labels == label], after.test_images[after.test_labels == label + 1]
        assert contents(old) == contents(new), kind


def test_a_folder_that_is_already_split(pets, tmp_path):
    for kind in COLOURS:
        shutil.copytree(pets / kind, tmp_path / "split" / "train" / kind)
        save(tmp_path / "split" / "test" / kind / "1.jpg", COLOURS[kind])
    (tmp_path / "split" / "README.txt").write_text("mine", encoding="utf-8")
    dataset = from_folder(tmp_path / "split")
    assert (len(dataset.train_labels), len(dataset.test_labels)) == (30, 3)
    (tmp_path / "split" / "val" / "red").mkdir(parents=True)
    with pytest.raises(CourseError, match=r"folder val beside train and test"):
        from_folder(tmp_path / "split")
    shutil.rmtree(tmp_path / "split" / "val")
    shutil.rmtree(tmp_path / "split" / "test" / "red")
    with pytest.raises(CourseError, match=r"class red in train, but not in test"):
        from_folder(tmp_path / "split")


def test_train_and_test_can_be_classes(tmp_path):
    for kind in ("test", "train"):
        save(tmp_path / kind / "a.png")
        save(tmp_path / kind / "b.png")
    assert from_folder(tmp_path).classes == ("test", "train")


def test_stray_files_are_ignored_and_extensions_may_be_in_upper_case(pets):
    before = from_folder(pets)
    apple_double = struct.pack(">II16xH", 0x00051607, 0x00020000, 0)
    for folder in (pets, *(pets / kind for kind in COLOURS)):
        for name in ("._0.png", ".DS_Store", "Thumbs.db", "desktop.ini", "notes.txt", ".hidden.jpg"):
            (folder / name).write_bytes(apple_double)
        for name in ("__MACOSX", ".ipynb_checkpoints", "@eaDir"):
            (folder / name).mkdir()
            (folder / name / "._0.png").write_bytes(apple_double)
    assert torch.equal(from_folder(pets).train_images, before.train_images)
    (pets / "red" / "0.png").rename(pets / "red" / "0.PNG")
    save(pets / "red" / "A.JPG")
    save(pets / "red" / "b.Jpeg")
    assert len(from_folder(pets).train_labels) + len(from_folder(pets).test_labels) == 32


def empty(folder):
    for file in folder.iterdir():
        file.unlink()


# What is wrong, how to make it so, what the sentence says.
REFUSED = [
    ("no folder", lambda p: shutil.rmtree(p), r"pets does not exist"),
    ("a file", lambda p: (shutil.rmtree(p), p.write_text("zip", encoding="utf-8")), r"is a file: unpack"),
    ("no classes", lambda p: [shutil.rmtree(p / kind) for kind in COLOURS], r"no class folders: put"),
    ("pictures without classes", lambda p: [(save(p / "a.png"), shutil.rmtree(p / k)) for k in COLOURS], r"no class"),
    ("one class", lambda p: [shutil.rmtree(p / kind) for kind in ("red", "blue")], r"only one class, green"),
    ("no pictures in a class", lambda p: empty(p / "red"), r"red contains no pictures"),
    ("only a stray file", lambda p: (empty(p / "red"), (p / "red" / "._1.png").touch()), r"red contains no pictures"),
    ("one picture", lambda p: (empty(p / "red"), save(p / "red" / "1.png")), r"class red .*only one picture"),
    ("a damaged picture", lambda p: (p / "red" / "3.png").write_bytes(b"\x89PNG"), r"red/3\.png .*damaged.*remove it"),
    ("an empty picture", lambda p: (p / "red" / "x.JPG").touch(), r"red/x\.JPG is empty.*remove it"),
    ("text as picture", lambda p: (p / "red" / "x.gif").write_bytes(b"hi"), r"red/x\.gif is not a picture.*remove it"),
    ("HEIC", lambda p: (p / "red" / "x.HEIC").write_bytes(b"\0\0\0\x18ftypheic"), r"x\.HEIC is a HEIC.*PNG or JPEG"),
    ("a strip", lambda p: save(p / "red" / "x.png", size=(1, 3000)), r"red/x\.png has 1 x 3,000 pixels"),
    ("a broken link", lambda p: (p / "red" / "x.png").symlink_to(p / "gone"), r"x\.png does not exist"),
    ("a folder in a class", lambda p: save(p / "red" / "dark" / "1.png"), r"red contains the folder dark"),
    ("a folder called x.png", lambda p: (p / "red" / "x.png").mkdir(), r"red contains the folder x\.png"),
    ("the folder above", lambda p: p.rename(p.parent / "inner") and (p.mkdir(), (p.parent / "inner").rename(p / "in")),
     r"only one class, in, .*pass .*pets/in"),
]  # fmt: skip


@pytest.mark.parametrize(("break_it", "reason"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_folder_that_cannot_be_read_is_refused_in_a_sentence(pets, break_it, reason):
    break_it(pets)
    with pytest.raises(CourseError, match=reason) as caught:
        from_folder(pets)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"size": 4}, ValueError, "size"),
        ({"size": 32.0}, ValueError, "size"),
        ({"seed": -1}, ValueError, "seed"),
        ({"test_share": 0}, ValueError, "test_share"),
        ({"test_share": 1.0}, ValueError, "test_share"),
        ({"test_share": "20%"}, ValueError, "test_share"),
        ({"test_share": float("nan")}, ValueError, "test_share"),
        ({"channels": 2}, ValueError, "channels.*2"),
        ({"channels": 4}, ValueError, "channels.*4"),
        ({"channels": "grey"}, ValueError, "channels.*'grey'"),
        ({"name": "cifar10"}, CourseError, "my-cifar10"),
        ({"name": "Shapes"}, CourseError, "Shapes"),
        ({"name": "a/b"}, CourseError, "'a/b'"),
        ({"name": ""}, CourseError, "''"),
    ],
)
def test_wrong_options_are_named(pets, options, error, named):
    with pytest.raises(error, match=named):
        from_folder(pets, **options)


def test_the_name_of_a_folder_becomes_a_valid_name(pets):
    odd = pets.rename(pets.parent / "été (1) & more!")
    assert from_folder(odd).name == "été -1- - more"
    with pytest.raises(CourseError, match="my-cifar10"):
        from_folder(odd.rename(odd.parent / "cifar10"))


def test_a_net_is_trained_on_a_folder(pets):
    dataset = from_folder(pets)
    ten = from_tensors(
        dataset.train_images, dataset.train_labels, dataset.test_images, dataset.test_labels, list("abcdefghij")
    )
    recipe = nets.Recipe(batch_size=8)
    assert len(training.fit(nets.build("BinaryNN", "lenet"), ten, 1, recipe=recipe, device="cpu", log=str)) == 1


IMAGES = np.random.default_rng(0).integers(0, 256, (30, 3, 28, 28), np.uint8)
LABELS = np.arange(30) % 3


def make(train_images=IMAGES, train_labels=LABELS, test_images=IMAGES[:6], test_labels=LABELS[:6], **options):
    return from_tensors(train_images, train_labels, test_images, test_labels, **options)


def test_tensors_arrays_and_lists_give_the_same_data_set():
    tensors = make(torch.tensor(IMAGES), torch.tensor(LABELS), torch.tensor(IMAGES[:6]), torch.tensor(LABELS[:6]))
    for labels in (
        LABELS,
        LABELS.astype(np.uint8),
        LABELS.astype(np.int32),
        LABELS.tolist(),
        torch.tensor(LABELS).int(),
    ):
        dataset = make(train_labels=labels)
        assert torch.equal(dataset.train_images, tensors.train_images)
        assert torch.equal(dataset.train_labels, tensors.train_labels) and dataset.train_labels.dtype == torch.int64
    assert tensors.classes == ("0", "1", "2") and tensors.name == "own"
    assert str(make(name="mnist", classes=["a", "b", "c"])) == "mnist: 30 training and 6 test images"
    assert make(classes=list("abcd")).classes == tuple("abcd")  # a class may have no images if it has a name


def test_arrays_are_copied():
    images, labels = IMAGES.copy(), LABELS.copy()
    dataset = make(images, labels)
    images[:], labels[:] = 0, 0
    assert torch.equal(dataset.train_images, torch.tensor(IMAGES))
    assert torch.equal(dataset.train_labels, torch.tensor(LABELS))


@pytest.mark.parametrize("grey", [IMAGES[:, 0], IMAGES[:, :1], torch.tensor(IMAGES[:, 0]), torch.tensor(IMAGES[:, :1])])
def test_grey_images_keep_their_single_channel(grey):
    dataset = make(grey, test_images=grey[:6])
    assert dataset.train_images.shape == (30, 1, 28, 28) and dataset.train_images.is_contiguous()
    assert torch.equal(dataset.train_images[:, 0], torch.tensor(IMAGES[:, 0]))
    dataset.check(8)


# What is wrong, the arguments, what the sentence says.
WRONG = [
    ("floats", {"train_images": IMAGES / 255}, r"train_images has float64.*\(images \* 255\)\.round\(\)\.astype"),
    ("float tensor", {"test_images": torch.tensor(IMAGES) / 255}, r"test_images has torch\.float32.*to\(torch\.u"),
    ("int64 images", {"train_images": IMAGES.astype(np.int64)}, r"int64.*images\.astype\('uint8'\)"),
    ("list of images", {"train_images": IMAGES.tolist()}, r"train_images is a list"),
    ("None", {"test_images": None}, r"test_images is a NoneType"),
    ("channels last", {"train_images": IMAGES.transpose(0, 2, 3, 1)}, r"channels last.*permute\(0, 3, 1, 2\)"),
    ("grey, channels last", {"train_images": IMAGES[:, 0, :, :, None]}, r"channels last"),
    ("transparency", {"train_images": IMAGES.repeat(2, 1)[:, :4]}, r"4 channels.*images\[:, :3\]"),
    ("two channels", {"train_images": IMAGES[:, :2]}, r"shape \(30, 2, 28, 28\)"),
    ("flat", {"train_images": IMAGES.reshape(30, -1)}, r"shape \(30, 2352\)"),
    ("not square", {"train_images": IMAGES[..., :20]}, r"28 x 20 pixels"),
    ("grey and RGB", {"test_images": IMAGES[:6, :1]}, r"3 in the training images and 1 in the test images"),
    ("two sizes", {"test_images": IMAGES[:6, :, :20, :20]}, r"28 x 28.*20 x 20"),
    ("one-hot", {"train_labels": np.eye(3, dtype=int)[LABELS]}, r"train_labels has the shape.*argmax\(1\)"),
    ("float labels", {"train_labels": LABELS / 1}, r"train_labels are torch\.float64.*whole numbers"),
    ("names as labels", {"train_labels": ["cat"] * 30}, r"train_labels are not numbers"),
    ("bool labels", {"test_labels": LABELS[:6] > 1}, r"test_labels are torch\.bool"),
    ("fewer labels", {"train_labels": LABELS[:29]}, r"\(30, 3, 28, 28\) and \(29,\)"),
    ("one label", {"train_labels": 1}, r"train_labels has the shape \(\)"),
    ("no test images", {"test_images": IMAGES[:0], "test_labels": LABELS[:0]}, r"0 images in its test split"),
    ("no images", {"train_images": IMAGES[:0], "train_labels": LABELS[:0]}, r"0 images in its train split"),
    ("labels from 1", {"train_labels": LABELS + 1}, r"label 0, but the largest label is 3"),
    ("a gap", {"train_labels": LABELS * 10**9}, r"label 1, but the largest label is 2000000000"),
    ("label -100", {"train_labels": np.where(LABELS == 1, -100, LABELS)}, r"10 of the train labels of own are -100"),
    ("unknown test label", {"test_labels": LABELS[:6] + 1}, r"2 of the test labels of own are 3"),
    ("too few names", {"classes": ["a", "b"]}, r"are 2, but the 2 classes"),
    ("one name", {"classes": "abc", "train_labels": LABELS * 0}, r"classes"),
    ("equal names", {"classes": ["a", "a", "b"]}, r"2 different class names for 3"),
    ("numbers as names", {"classes": [0, 1, 2]}, r"class 0: give each class a name"),
    ("a course's name", {"name": "shapes"}, r"my-shapes"),
    ("a path as a name", {"name": "../x"}, r"'\.\./x'"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "reason"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_wrong_tensors_are_refused_in_a_sentence(arguments, reason):
    with pytest.raises(CourseError, match=reason) as caught:
        make(**arguments)
    assert "\n" not in str(caught.value)


@settings(max_examples=100, deadline=None)
@given(
    shape=st.lists(st.integers(0, 5), min_size=0, max_size=5),
    kind=st.sampled_from(["uint8", "int8", "int64", "float32", "bool", "complex64", "U3"]),
    labels=st.lists(st.integers(-1, 3), max_size=5),
)
def test_any_other_array_is_accepted_or_refused(shape, kind, labels):
    try:
        dataset = make(np.zeros(shape, kind), labels, np.zeros(shape, kind), labels)
    except CourseError as error:
        assert not re.search("\n", str(error))
        return
    dataset.check()
    data.Batches(dataset.train_images, dataset.train_labels)


@pytest.mark.parametrize("change", [lambda tensor: tensor.to("meta"), torch.Tensor.to_sparse], ids=["meta", "sparse"])
@pytest.mark.parametrize("argument", ["train_images", "train_labels", "test_images", "test_labels"])
def test_tensors_that_do_not_store_their_values_are_refused(argument, change):
    images, labels = torch.full((4, 3, 8, 8), 9, dtype=torch.uint8), torch.arange(4) % 2
    arguments = {"train_images": images, "train_labels": labels, "test_images": images, "test_labels": labels}
    arguments[argument] = change(arguments[argument])
    with pytest.raises(CourseError, match=argument):
        from_tensors(**arguments, name="own")
    with pytest.raises(CourseError, match=argument):
        data.Dataset(**arguments, classes=("a", "b"), name="own").check()
