import torch

from qathelpers.frequencies import Frequencies, patterns


def test_patterns_are_small_integers_and_orthogonal():
    filters = patterns()
    assert filters.shape == (16, 3, 4, 4)
    assert filters.abs().max() == 4 and (filters == filters.round()).all()
    products = filters.flatten(1) @ filters.flatten(1).T
    assert torch.equal(products, products.diag().diag())


def test_a_grey_patch_has_brightness_alone_and_each_pattern_comes_with_its_negative():
    found = Frequencies()(torch.ones(1, 3, 8, 8))[:, :, 1, 1]
    assert found[0, 0] == 48 and found[0, 16] == -48
    assert found[0].count_nonzero() == 2


def test_copies_repeat_all_channels():
    images = torch.randn(2, 3, 16, 16)
    once, twice = Frequencies(), Frequencies(copies=2)
    assert (once.channels, twice.channels) == (32, 64)
    assert torch.equal(twice(images), torch.cat([once(images)] * 2, 1))


def test_nothing_of_it_is_trained_or_saved():
    stem = Frequencies()
    assert not list(stem.parameters()) and not stem.state_dict()
    images = torch.randn(2, 3, 16, 16).to(memory_format=torch.channels_last)
    assert stem(images).is_contiguous(memory_format=torch.channels_last)
