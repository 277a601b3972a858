import pytest
import torch

from qathelpers.nets.stem import DCTStem, dct_filters


@pytest.mark.parametrize(("size", "count", "largest"), [(2, 12, 2), (4, 16, 4)])
def test_filters_are_small_integers_and_orthogonal(size, count, largest):
    filters = dct_filters(size)
    assert filters.shape == (count, 3, size, size)
    assert filters.abs().max() == largest and (filters == filters.round()).all()
    products = filters.flatten(1) @ filters.flatten(1).T
    assert torch.equal(products, products.diag().diag())


@pytest.mark.parametrize("size", [2, 4])
def test_a_grey_patch_has_brightness_only_and_each_response_comes_with_its_negative(size):
    stem = DCTStem(size)
    found = stem(torch.ones(1, 3, 8, 8))[:, :, 1, 1]
    assert found[0, 0] == 3 * size**2 and found[0, stem.channels // 2] == -3 * size**2
    assert found[0].count_nonzero() == 2


def test_small_patches_keep_the_whole_image():
    images = torch.randn(4, 3, 16, 16)
    filters = dct_filters(2)
    norms = filters.square().sum((1, 2, 3), keepdim=True)
    found = DCTStem(2, stride=2)(images)[:, :12]
    assert torch.allclose(torch.nn.functional.conv_transpose2d(found, filters / norms, stride=2), images, atol=1e-5)


def test_repeats_repeat_all_channels():
    images = torch.randn(2, 3, 16, 16)
    once, twice = DCTStem(), DCTStem(repeats=2)
    assert (once.channels, twice.channels) == (32, 64)
    assert torch.equal(twice(images), torch.cat([once(images)] * 2, 1))


def test_nothing_of_it_is_trained_or_saved():
    stem = DCTStem()
    assert not list(stem.parameters()) and not stem.state_dict()
    images = torch.randn(2, 3, 16, 16).to(memory_format=torch.channels_last)
    assert stem(images).is_contiguous(memory_format=torch.channels_last)
