import pytest
import torch

from qathelpers.nets.stem import DCTStem, dct_filters


@pytest.mark.parametrize(
    ("size", "channels", "count", "largest"), [(2, 3, 12, 2), (4, 3, 16, 4), (2, 1, 4, 1), (4, 1, 10, 4)]
)
def test_filters_are_small_integers_and_orthogonal(size, channels, count, largest):
    filters = dct_filters(size, channels)
    assert filters.shape == (count, channels, size, size)
    assert filters.abs().max() == largest and (filters == filters.round()).all()
    products = filters.flatten(1) @ filters.flatten(1).T
    assert torch.equal(products, products.diag().diag())


@pytest.mark.parametrize("size", [2, 4])
def test_a_grey_patch_has_brightness_only_and_each_response_comes_with_its_negative(size):
    stem = DCTStem(size)
    found = stem(torch.ones(1, 3, 8, 8))[:, :, 1, 1]
    assert found[0, 0] == 3 * size**2 and found[0, stem.channels // 2] == -3 * size**2
    assert found[0].count_nonzero() == 2


@pytest.mark.parametrize("size", [2, 4])
def test_a_grey_image_gets_the_brightness_responses_of_an_rgb_image_with_equal_channels(size):
    images = torch.randn(4, 1, 16, 16)
    grey, colour = DCTStem(size, inputs=1), DCTStem(size)
    count = len(grey.filters)
    responses = colour(images.expand(-1, 3, -1, -1))[:, :count]
    torch.testing.assert_close(3 * grey(images)[:, :count], responses, atol=1e-4, rtol=1e-4)
    assert grey.channels == 2 * count


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_other_channels_are_refused(channels):
    with pytest.raises(ValueError, match=str(channels)):
        DCTStem(inputs=channels)


@pytest.mark.parametrize("channels", [1, 3])
def test_small_patches_keep_the_whole_image(channels):
    images = torch.randn(4, channels, 16, 16)
    filters = dct_filters(2, channels)
    norms = filters.square().sum((1, 2, 3), keepdim=True)
    found = DCTStem(2, stride=2, inputs=channels)(images)[:, : len(filters)]
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
