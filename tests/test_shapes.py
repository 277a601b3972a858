import pytest
import torch

from qathelpers.data import shapes


def test_a_seed_gives_the_same_balanced_images_and_a_smaller_set_is_a_prefix():
    large, small = shapes.make(250, 30), shapes.make(120, 10)
    for many, few in zip(large, small, strict=True):
        assert torch.equal(many[: len(few)], few)
    assert large[0].shape == (250, 3, 32, 32) and large[0].dtype == torch.uint8
    assert torch.bincount(large[1]).tolist() == [25] * 10


def test_splits_and_seeds_differ():
    first, second = shapes.make(100, 100), shapes.make(100, 100, seed=1)
    assert not torch.equal(first[0], first[2])
    assert not torch.equal(first[0], second[0])


def test_images_use_the_range_and_no_two_are_alike():
    images = shapes.make(200, 0)[0]
    assert images.min() < 30 and images.max() > 225
    assert len({image.numpy().tobytes() for image in images}) == 200


def test_negative_numbers_are_refused():
    with pytest.raises(ValueError):
        shapes.make(-1, 0)
