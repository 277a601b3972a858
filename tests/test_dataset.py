"""What a data set says about itself, and which data it refuses before a training begins."""

import re
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from qathelpers.common.errors import CourseError
from qathelpers.data import Batches, Dataset


@pytest.fixture(scope="module")
def own(tiny):
    return replace(tiny, name="mine")


def test_a_data_set_is_named(tiny):
    assert str(replace(tiny, name="cifar10")) == "CIFAR-10: 400 training and 200 test images"
    assert str(tiny) == "shapes, drawn from a seed (this is NOT CIFAR-10): 400 training and 200 test images"
    assert str(replace(tiny, name="my pets")) == "my pets: 400 training and 200 test images"


def test_the_checks_accept_good_data_and_take_no_time(own):
    own.check()
    own.check(256)
    own.check(1000)
    replace(own, train_images=own.train_images[:, :1], test_images=own.test_images[:, :1]).check(256)
    replace(own, classes=tuple(map(str, range(100)))).check(8)  # a part of the classes may have no images
    many = replace(
        own, train_labels=own.train_labels.repeat(150), train_images=own.train_images[:1].expand(60_000, -1, -1, -1)
    )
    start = time.perf_counter()
    many.check(256)
    assert time.perf_counter() - start < 0.5


def cropped(images, *shape):
    return images[:, :, : shape[0], : shape[1]]


# What is wrong, the data set, what the sentence names.
WRONG = [
    ("labels from 1", lambda d: replace(d, train_labels=d.train_labels + 1), ["train labels", "10", "from 0 to 9"]),
    ("label -1", lambda d: replace(d, train_labels=d.train_labels - 1), ["train labels", "-1"]),
    ("label -100", lambda d: replace(d, train_labels=d.train_labels.where(d.train_labels != 3, -100)), ["40", "-100"]),
    ("test label -100", lambda d: replace(d, test_labels=d.test_labels - 100), ["20 of the test labels", "-100"]),
    ("fewer classes", lambda d: replace(d, classes=d.classes[:3]), ["9", "3 classes"]),
    ("no test images", lambda d: d.take(100, 0), ["0 images", "test", "validation_split"]),
    ("no training images", lambda d: d.take(0), ["0 images", "train"]),
    ("other sizes", lambda d: replace(d, test_images=cropped(d.test_images, 28, 28)), ["32 x 32", "28 x 28"]),
    ("not square", lambda d: replace(d, train_images=cropped(d.train_images, 32, 28)), ["32 x 28", "squares"]),
    ("one pixel", lambda d: replace(d, train_images=cropped(d.train_images, 1, 1)), ["1 x 1"]),
    ("grey and RGB", lambda d: replace(d, train_images=d.train_images[:, :1]), ["1 in the training", "3 in the test"]),
    ("two channels", lambda d: replace(d, train_images=d.train_images[:, :2]), ["(400, 2, 32, 32)", "from_tensors"]),
    ("four channels", lambda d: replace(d, test_images=d.test_images[:, [0, 1, 2, 2]]), ["(200, 4, 32, 32)"]),
    ("channels last", lambda d: replace(d, test_images=d.test_images.permute(0, 2, 3, 1)), ["(200, 32, 32, 3)"]),
    ("float images", lambda d: replace(d, train_images=d.train_images / 255), ["float32", "from_tensors"]),
    ("int32 labels", lambda d: replace(d, train_labels=d.train_labels.int()), ["train_labels", "int32"]),
    ("one-hot labels", lambda d: replace(d, test_labels=nn.functional.one_hot(d.test_labels)), ["(200, 10)"]),
    ("fewer labels", lambda d: replace(d, train_labels=d.train_labels[:-1]), ["(400, 3, 32, 32)", "(399,)"]),
    ("NumPy arrays", lambda d: replace(d, train_images=d.train_images.numpy()), ["train_images", "ndarray"]),
    ("list of labels", lambda d: replace(d, test_labels=d.test_labels.tolist()), ["test_labels", "list"]),
    ("one class", lambda d: replace(d, classes=("a",)), ["1 different", "two names"]),
    ("two equal classes", lambda d: replace(d, classes=("a",) * 10), ["1 different", "10 classes"]),
    ("number as a class", lambda d: replace(d, classes=tuple(range(10))), ["class 0", "string"]),
    ("path as a name", lambda d: replace(d, name="../x"), ["'../x'"]),
    ("no name", lambda d: replace(d, name=""), ["''"]),
]  # fmt: skip


@pytest.mark.parametrize(("change", "named"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_wrong_data_is_refused_in_a_sentence(own, change, named):
    dataset = change(own)
    with pytest.raises(CourseError) as caught:
        dataset.check()
    assert all(text in str(caught.value) for text in named), caught.value
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("count", "batch_size", "fine"),
    [(257, 256, False), (9, 4, False), (9, 8, False), (9, 1, False), (1, 256, False), (1, 1, False), (5, 2, False),
     (9, 9, True), (9, 3, True), (9, 256, True), (258, 256, True), (2, 2, True), (3, 3, True)],
)  # fmt: skip
def test_a_last_batch_of_one_image_is_refused(own, count, batch_size, fine):
    dataset = own.take(count)
    dataset.check()
    if fine:
        dataset.check(batch_size)
        return
    with pytest.raises(CourseError, match="BatchNorm") as caught:
        dataset.check(batch_size)
    if count > 1:
        assert f"batch_size={batch_size}" in str(caught.value) and f" {count} " in str(caught.value)
        dataset.check(int(re.search(r"such as (\d+)", str(caught.value))[1]))


@pytest.mark.parametrize("count", range(2, 40))
def test_the_proposed_batch_size_is_right(own, count):
    for batch_size in range(1, 45):
        try:
            own.take(count).check(batch_size)
        except CourseError as error:
            own.take(count).check(int(re.search(r"such as (\d+)", str(error))[1]))


def test_images_sorted_by_class_are_not_split(own):
    order = own.train_labels.argsort()
    ordered = replace(own, train_images=own.train_images[order], train_labels=own.train_labels[order])
    ordered.check()
    for part in (lambda: ordered.validation_split(100), lambda: ordered.take(100)):
        with pytest.raises(ValueError, match=r"sorted by class.*randperm"):
            part()
    assert len(ordered.take(None, 20).train_labels) == len(ordered.take(400).train_labels) == 400


@pytest.mark.parametrize(
    ("images", "labels", "named"),
    [
        (np.zeros((4, 3, 8, 8), np.uint8), torch.zeros(4).long(), "images is a ndarray"),
        (torch.zeros(4, 3, 8, 8).byte(), [0] * 4, "labels is a list"),
        (torch.zeros(4, 3, 8, 6).byte(), torch.zeros(4).long(), "8 x 6"),
        (torch.zeros(4, 3, 1, 1).byte(), torch.zeros(4).long(), "1 x 1"),
        (torch.zeros(4, 3, 8, 8).byte(), torch.tensor([0, 1, 2, -100]), "-100"),
    ],
)
def test_batches_refuse_what_they_would_misread(images, labels, named):
    with pytest.raises(ValueError, match=named):
        Batches(images, labels)


def test_batches_of_small_images_are_not_shifted_too_far():
    images, labels = torch.zeros(4, 3, 3, 3).byte(), torch.zeros(4).long()
    assert len(Batches(images, labels, augment=True, translate=2)) == 1
    with pytest.raises(ValueError, match=r"translate.*from 0 to 2"):
        Batches(images, labels, augment=True, translate=3)


def test_a_data_set_can_be_made_without_checks():
    Dataset(None, None, None, None, (), "")
