import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qathelpers.common.errors import CourseError
from qathelpers.data.batches import (
    COLOUR_CORRELATION,
    GREY_MEAN,
    GREY_STD,
    MEAN,
    PIXEL_CORRELATION,
    STD,
    Batches,
    normalize,
    progressive_side,
    resize,
    standardize,
    whitening_filter,
)

LABELS = torch.arange(20)


def epoch(batches, number, side=None):
    return [torch.cat(parts) for parts in zip(*batches.epoch(number, side), strict=True)]


@pytest.mark.parametrize(("channels", "mean", "std"), [(3, MEAN, STD), (1, GREY_MEAN, GREY_STD)])
def test_standardize_is_the_textbook_formula(images, channels, mean, std):
    images = images[:, :channels]
    expected = (images[3, :, 4, 5] / 255 - torch.tensor(mean)) / torch.tensor(std)
    torch.testing.assert_close(standardize(images)[3, :, 4, 5], expected)


def test_the_statistics_of_grey_images_follow_from_those_of_the_colours():
    """Check them against the variance of a weighted sum of colours with the correlation 0.9."""
    luma = torch.tensor([0.299, 0.587, 0.114])
    spread = luma * torch.tensor(STD)
    correlations = torch.full((3, 3), COLOUR_CORRELATION).fill_diagonal_(1)
    assert luma @ torch.tensor(MEAN) == pytest.approx(GREY_MEAN[0], abs=0.001)
    assert (spread @ correlations @ spread).sqrt() == pytest.approx(GREY_STD[0], abs=0.005)


@pytest.mark.parametrize("channels", [1, 3])
def test_normalize_whitens(tiny, channels):
    def correlation(x):
        return torch.corrcoef(torch.stack([x[..., :-1].flatten(), x[..., 1:].flatten()]))[0, 1].item()

    images = tiny.train_images[:, :channels]
    plain, white = standardize(images), normalize(images)
    assert abs(correlation(white)) < correlation(plain) / 2
    assert white.shape == plain.shape and white.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_whitening_filter_whitens_its_own_model(channels):
    """Check that whitening turns the covariance of the model into the identity, for a negligible eps."""
    kernel = whitening_filter(eps=1e-6, channels=channels)
    assert kernel.shape == (channels, channels, 3, 3)
    colours = torch.full((channels, channels), COLOUR_CORRELATION).fill_diagonal_(1)
    places = torch.cartesian_prod(torch.arange(3.0), torch.arange(3.0))
    covariance = torch.kron(colours, PIXEL_CORRELATION ** torch.cdist(places, places))
    rows = kernel.flatten(1)
    torch.testing.assert_close(rows @ covariance @ rows.T, torch.eye(channels), atol=1e-2, rtol=0)


@pytest.mark.parametrize("shape", [(4, 2, 8, 8), (4, 4, 8, 8), (4, 0, 8, 8), (4, 8, 8, 3), (3, 8, 8)])
def test_images_with_other_channels_are_refused(shape):
    images = torch.zeros(shape, dtype=torch.uint8)
    for function in (standardize, normalize):
        with pytest.raises(CourseError) as caught:
            function(images)
        assert str(shape) in str(caught.value)
    with pytest.raises(ValueError) as caught:
        Batches(images, torch.zeros(len(images), dtype=torch.int64))
    assert str(shape) in str(caught.value)


def test_grey_batches_keep_one_channel_and_are_augmented(images):
    grey = images[:, :1]
    plain, _ = epoch(Batches(grey, LABELS, 8), 0)
    assert torch.equal(plain, normalize(grey)) and plain.shape == (20, 1, 32, 32)
    padded = torch.nn.functional.pad(normalize(grey), [1] * 4, mode="reflect")
    for image, label in zip(*epoch(Batches(grey, LABELS, 7, shuffle=True, augment=True, translate=1), 0), strict=True):
        windows = [padded[label, :, y : y + 32, x : x + 32] for y in range(3) for x in range(3)]
        assert any(torch.equal(image, w) or torch.equal(image, w.flip(-1)) for w in windows)


def test_without_augmentation_batches_are_the_images_in_order(images):
    shown, labels = epoch(Batches(images, LABELS, 8), 3)
    assert torch.equal(shown, normalize(images))
    assert torch.equal(labels, LABELS)


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 20), size=st.integers(1, 25), seed=st.integers(0, 10), number=st.integers(0, 5))
def test_an_epoch_shows_every_image_once_and_repeats_itself(images, count, size, seed, number):
    make = lambda: Batches(images[:count], LABELS[:count], size, shuffle=True, augment=True, seed=seed)  # noqa: E731
    shown, labels = epoch(make(), number)
    again, _ = epoch(make(), number)
    assert sorted(labels.tolist()) == list(range(count))
    assert torch.equal(shown, again)
    assert len(make()) == len(list(make().epoch(0)))


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_every_augmented_image_is_a_shift_and_perhaps_a_flip_of_its_original(images, shift):
    padded = torch.nn.functional.pad(normalize(images), [shift] * 4, mode="reflect")
    span = range(2 * shift + 1)
    batches = Batches(images, LABELS, 7, shuffle=True, augment=True, translate=shift)
    for image, label in zip(*epoch(batches, 0), strict=True):
        windows = [padded[label, :, y : y + 32, x : x + 32] for y in span for x in span]
        assert any(torch.equal(image, w) or torch.equal(image, w.flip(-1)) for w in windows)


@pytest.mark.parametrize("side", [1, 12, 32])
def test_cutout_covers_one_square_of_each_image_and_changes_nothing_else(images, side):
    options = {"shuffle": True, "augment": True, "translate": 2}
    whole, _ = epoch(Batches(images, LABELS, 7, **options), 1)
    holes, _ = epoch(Batches(images, LABELS, 7, cutout=side, **options), 1)
    for before, after in zip(whole, holes, strict=True):
        covered = (after == 0).all(0)
        assert covered.sum() == side**2
        assert covered.any(0).sum() == covered.any(1).sum() == side
        assert torch.equal(after, before.masked_fill(covered, 0))


def test_flips_alternate_between_epochs():
    left = torch.zeros(50, 3, 32, 32, dtype=torch.uint8)
    left[..., :16] = 255
    batches = Batches(left, torch.arange(50), 50, shuffle=True, augment=True)
    bright_left = []
    for number in (0, 1, 2):
        shown, labels = epoch(batches, number)
        bright_left.append((shown[..., 0].mean((1, 2)) > 0)[labels.argsort()])
    assert torch.equal(bright_left[0], ~bright_left[1])
    assert torch.equal(bright_left[0], bright_left[2])
    assert 0 < bright_left[0].sum() < 50


def test_epochs_and_seeds_differ(images):
    orders = [
        tuple(epoch(Batches(images, LABELS, 20, shuffle=True, augment=True, seed=s), e)[1].tolist())
        for s, e in [(0, 0), (0, 1), (1, 0)]
    ]
    assert len(set(orders)) == 3


def test_shuffled_without_augmentation_are_the_same_images_in_another_order(images):
    shown, labels = epoch(Batches(images, LABELS, 8, shuffle=True), 1)
    assert not torch.equal(labels, LABELS)
    assert torch.equal(shown, normalize(images)[labels])


def test_resized_images_show_the_same_content_on_fewer_pixels():
    left = torch.zeros(2, 3, 32, 32)
    left[..., :16] = 1
    small = resize(left, 24)
    assert small.shape == (2, 3, 24, 24)
    torch.testing.assert_close(small[..., :11], torch.ones(2, 3, 24, 11))
    assert not small[..., 13:].any()
    checks = torch.ones(1, 1, 32, 32)
    checks[..., ::2, ::2] = 5
    torch.testing.assert_close(resize(checks, 16), torch.full((1, 1, 16, 16), 2.0))
    assert resize(left, 32) is left


@pytest.mark.parametrize(
    ("full", "sides"),
    [
        (32, [16, 20, 24, 28, 32, 32]),
        (48, [16, 24, 32, 40, 48, 48]),
        (30, [16, 20, 24, 28, 30, 30]),
        (28, [16, 20, 24, 24, 28, 28]),
        (16, [16] * 6),
        (8, [8] * 6),
    ],
)
def test_progressive_resizing_goes_from_16_pixels_to_the_full_size(full, sides):
    assert [progressive_side(progress, full) for progress in (0, 0.25, 0.5, 0.75, 1, 1.5)] == sides


def test_an_epoch_can_have_smaller_images(images):
    shown, _ = epoch(Batches(images, LABELS, 8), 0, 20)
    assert torch.equal(shown, resize(normalize(images), 20)) and shown.shape[-1] == 20
    assert next(Batches(images, LABELS, 8).epoch(0, 20))[0].is_contiguous(memory_format=torch.channels_last)
