import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qathelpers.data.batches import (
    COLOUR_CORRELATION,
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


def test_standardize_is_the_textbook_formula(images):
    expected = (images[3, :, 4, 5] / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(standardize(images)[3, :, 4, 5], expected)


def test_normalize_whitens(tiny):
    def correlation(x):
        return torch.corrcoef(torch.stack([x[..., :-1].flatten(), x[..., 1:].flatten()]))[0, 1].item()

    plain, white = standardize(tiny.train_images), normalize(tiny.train_images)
    assert abs(correlation(white)) < correlation(plain) / 2
    assert white.shape == plain.shape and white.is_contiguous(memory_format=torch.channels_last)


def test_the_whitening_filter_whitens_its_own_model():
    """Check that whitening turns the covariance of the model into the identity, for a negligible eps."""
    kernel = whitening_filter(eps=1e-6)
    assert kernel.shape == (3, 3, 3, 3)
    colours = torch.full((3, 3), COLOUR_CORRELATION).fill_diagonal_(1)
    places = torch.cartesian_prod(torch.arange(3.0), torch.arange(3.0))
    covariance = torch.kron(colours, PIXEL_CORRELATION ** torch.cdist(places, places))
    rows = kernel.flatten(1)
    torch.testing.assert_close(rows @ covariance @ rows.T, torch.eye(3), atol=1e-2, rtol=0)


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
