"""What the network sees: aligned, normalised, and a function of (seed, fold, epoch, case) alone."""

import numpy as np
import pytest
import torch

from unifocal.lab.network import build_network
from unifocal.lab.pipeline import Augmentation, Batches, Prepared, prepare

SIZE = 32


def make_case(height=60, width=90):
    """A bright rectangle, off centre in both directions, and its mask."""
    mask = np.zeros((height, width), np.uint8)
    mask[5:30, 50:80] = 1
    return (10 + 200 * mask).astype(np.float32), mask


def make_data(n=10):
    rng = np.random.default_rng(0)
    images, labels = [], []
    for _ in range(n):
        mask = np.zeros((SIZE, SIZE), np.uint8)
        top, left = rng.integers(2, 16, 2)
        mask[top : top + 12, left : left + 9] = 1
        images.append(torch.from_numpy(0.2 + 0.6 * mask.astype(np.float32))[None])
        labels.append(torch.from_numpy(mask))
    return Prepared(torch.stack(images), torch.stack(labels))


def test_prepared_images_fill_0_to_1_and_keep_their_place():
    image, mask = make_case()
    image, labels = prepare(image, mask, SIZE)
    assert image.shape == (1, SIZE, SIZE) and image.dtype == torch.float32
    assert labels.shape == (SIZE, SIZE) and labels.dtype == torch.uint8
    assert image.min() == 0 and image.max() == 1
    # Top right, not bottom left: rows stay rows. Half a pixel of the small grid may blur.
    assert ((image[0] > 0.5) == (labels == 1)).float().mean() > 0.99
    rows, columns = np.nonzero(labels.numpy())
    assert rows.mean() == pytest.approx((17 + 0.5) / 60 * SIZE - 0.5, abs=0.6)
    assert columns.mean() == pytest.approx((64.5 + 0.5) / 90 * SIZE - 0.5, abs=0.6)


def test_a_constant_image_does_not_become_nan():
    image, _ = prepare(np.full((40, 40), 7, np.float32), np.zeros((40, 40), np.uint8), SIZE)
    assert torch.equal(image, torch.zeros_like(image))


def test_the_range_of_an_image_does_not_matter():
    image, mask = make_case()
    torch.testing.assert_close(prepare(image, mask, SIZE)[0], prepare(image * 50 - 300, mask, SIZE)[0])


def test_mask_follows_the_image_through_each_augmentation():
    data, augmentation = make_data(1), Augmentation(SIZE)
    for probability, step in augmentation.steps:
        augmentation.steps = [(1.0, step)]
        moved = 0.0
        for seed in range(12):
            image, labels = augmentation(data.images[0], data.labels[0], np.random.RandomState(seed))
            assert set(labels.unique().tolist()) <= {0, 1} and labels.dtype == torch.uint8
            # The image is its mask, so thresholding it must give the mask back, but for the blurred border.
            assert ((image[0] > 0.5) == (labels == 1)).float().mean() > 0.95, step
            moved += (image != data.images[0]).float().mean().item()
        assert moved > 0, f"{step} does nothing"
        assert 0 < probability < 1


def collect(batches):
    return [(images.clone(), labels.clone()) for images, labels in batches]


def same(left, right):
    return len(left) == len(right) and all(
        torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(left, right, strict=True)
    )


def make_batches(seed=(0, 0), epoch=3, indices=range(10)):
    return Batches(make_data(), indices, 4, seed, lambda: epoch, Augmentation(SIZE))


def test_batches_depend_on_seed_fold_and_epoch_only():
    first = collect(make_batches())
    np.random.default_rng().random()
    torch.rand(5)
    used = make_batches()
    collect(used)
    assert same(first, collect(make_batches())) and same(first, collect(used))
    for other in (make_batches(seed=(1, 0)), make_batches(seed=(0, 1)), make_batches(epoch=4)):
        assert not same(first, collect(other))


def test_augmentation_belongs_to_the_case_not_to_its_place_in_the_order():
    """Leaving a case out must not change what the others look like."""
    few, many = ({tuple(i.flatten().tolist()) for images, _ in b for i in images} for b in (
        make_batches(indices=range(5)), make_batches(indices=range(10))))  # fmt: skip
    assert len(few) == 5 and few < many


def test_every_case_once_and_none_dropped():
    batches = Batches(make_data(), [7, 2, 4, 9, 1], 2, (0, 0), lambda: 0)
    seen = torch.cat([images for images, _ in batches])
    expected = make_data().images[[7, 2, 4, 9, 1]]
    assert len(batches) == 3 and len(seen) == 5
    assert sorted(seen.sum((1, 2, 3)).tolist()) == sorted(expected.sum((1, 2, 3)).tolist())


def test_validation_batches_are_in_order_and_untouched():
    images, labels = next(iter(Batches(make_data(), [3, 1], 2)))
    assert torch.equal(images, make_data().images[[3, 1]])
    assert torch.equal(labels, make_data().labels[[3, 1]].long())


def test_tracking_of_other_users_of_monai_is_left_on():
    from monai.data.meta_obj import get_track_meta

    collect(make_batches())
    assert get_track_meta()


def test_weights_are_a_function_of_the_seed(capsys):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second, other = (build_network(2, 4, seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))
    assert capsys.readouterr().out == ""


def test_the_network_has_the_papers_size():
    count = sum(parameter.numel() for parameter in build_network(2, 64, 0).parameters())
    assert count == pytest.approx(31.1e6, rel=0.01)
