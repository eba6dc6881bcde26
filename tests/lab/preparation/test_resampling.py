"""Resampling keeps positions in the world, total weight and classes; second implementations are SciPy and torch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import zoom

from unifocal.lab.data.cases import IGNORE
from unifocal.lab.preparation.resampling import resample_image, resample_labels, resample_volume, weights

SHAPES = [
    ((20, 31, 12), (13, 31, 5)),
    ((20, 31, 12), (10, 8, 12)),
    ((9, 14, 7), (20, 25, 7)),
    ((6, 30, 11), (11, 19, 3)),
]


def ramp(shape, slope=(1.0, -2.0, 0.5)):
    """A linear function of the position, in voxels of the first grid, from the corner of the extent."""
    i, j, k = np.meshgrid(*(np.arange(n) + 0.5 for n in shape), indexing="ij")
    return slope[0] * i + slope[1] * j + slope[2] * k


def positions(old, new):
    """Centres of the new voxels on the old axis, by the corner of the extent: o + 1/2 new lengths."""
    return (np.arange(new) + 0.5) * old / new


def dense(old, new, widen=True):
    matrix = weights(old, new, widen)
    assert matrix is not None
    return matrix.toarray()


@pytest.mark.parametrize(("old", "new"), [(10, 3), (10, 7), (10, 9), (5, 12), (2, 1), (1, 4), (11, 1), (300, 131)])
@pytest.mark.parametrize("widen", [True, False])
def test_weights_are_shares(old, new, widen):
    shares = dense(old, new, widen)
    assert shares.shape == (new, old) and shares.min() >= 0
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-6)


def test_weights_by_hand():
    assert weights(7, 7) is None
    np.testing.assert_allclose(dense(2, 4), np.array([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]))
    # Halved: the triangle reaches two voxels to either side of a centre that lies between two.
    np.testing.assert_allclose(dense(8, 4)[1], np.array([0, 0.125, 0.375, 0.375, 0.125, 0, 0, 0]))
    # Not widened, only the two neighbours count.
    np.testing.assert_allclose(dense(8, 4, widen=False)[1], np.array([0, 0, 0.5, 0.5, 0, 0, 0, 0]))
    # 3 to 2: centres 1/4 and 7/4 of a triangle of half-width 3/2; at 1/4 it weighs 5/6, 1/2 and 0 of 4/3, which has its
    # mass at 3/8. Tilted to 1/4: 1 - (1/8) (x - 3/8) / (15/64), for x = 0 and 1, is 6/5 and 2/3.
    np.testing.assert_allclose(dense(3, 2), np.array([[0.75, 0.25, 0], [0, 0.25, 0.75]]), atol=1e-6)


@pytest.mark.parametrize(("old", "new"), SHAPES)
def test_a_ramp_stays_where_it_is(old, new):
    """Everywhere where an axis gets coarser, and half an old voxel from the edge where it gets finer."""
    resampled = resample_volume(ramp(old), new)
    where = np.meshgrid(*(positions(o, n) for o, n in zip(old, new, strict=True)), indexing="ij")
    expected = where[0] - 2 * where[1] + 0.5 * where[2]
    inside = np.ones(new, bool)
    for axis, (o, n) in enumerate(zip(old, new, strict=True)):
        if n > o:
            at = positions(o, n)
            keep = (at >= 0.5) & (at <= o - 0.5)
            inside &= keep.reshape([-1 if a == axis else 1 for a in range(3)])
    assert inside.any()
    np.testing.assert_allclose(resampled[inside], expected[inside], atol=2e-4)


@pytest.mark.parametrize("order", ["C", "F"])
def test_finer_grids_agree_with_scipy(order):
    volume = np.asarray(np.random.default_rng(0).normal(size=(6, 9, 5)), np.float32, order=order)
    shape = (13, 20, 5)
    factors = [n / o for n, o in zip(shape, volume.shape, strict=True)]
    expected = zoom(volume, factors, order=1, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(resample_volume(volume, shape), expected, atol=1e-5)


@pytest.mark.parametrize("order", ["C", "F"])
def test_halved_grids_agree_with_torch_within(order):
    """By whole factors torch's antialiasing needs no tilt but at the edge."""
    volume = np.asarray(np.random.default_rng(0).normal(size=(1, 24, 30)), np.float32, order=order)
    expected = F.interpolate(torch.from_numpy(volume)[None], (12, 10), mode="bilinear", antialias=True)[0, 0]
    resampled = resample_volume(volume, (1, 12, 10))[0]
    np.testing.assert_allclose(resampled[2:-2, 2:-2], expected[2:-2, 2:-2], atol=1e-5)


def test_nothing_aliases():
    """Slices 0, 1, 0, 1, ... at half the resolution are grey, not black or white."""
    volume = np.zeros((40, 4, 4), np.float32)
    volume[::2] = 1
    np.testing.assert_allclose(resample_volume(volume, (20, 4, 4))[1:-1], 0.5, atol=1e-6)


def by_shares(labels, shape):
    """The class with the largest share, by SciPy; equal shares to the nearest voxel's class."""
    at = [np.floor(positions(o, n)).astype(int) for o, n in zip(labels.shape, shape, strict=True)]
    nearest = labels[np.ix_(*at)]
    shares = []
    for index in range(labels.max() + 1):
        share = (labels == index).astype(float)
        for axis, (o, n) in enumerate(zip(labels.shape, shape, strict=True)):
            low = np.clip(np.floor(positions(o, n) - 0.5).astype(int), 0, o - 1)
            high = np.clip(low + 1, 0, o - 1)
            t = np.clip(positions(o, n) - 0.5 - low, 0, 1).reshape([-1 if a == axis else 1 for a in range(3)])
            share = share.take(low, axis) * (1 - t) + share.take(high, axis) * t
        shares.append(share + 1e-4 * (nearest == index))
    return np.argmax(shares, 0)


@pytest.mark.parametrize(("old", "new"), [*SHAPES, ((16, 16, 16), (8, 8, 8))])
@pytest.mark.parametrize("order", ["C", "F"])
def test_labels_go_by_shares(old, new, order):
    labels = np.random.default_rng(1).choice(4, old, p=[0.7, 0.1, 0.1, 0.1]).astype(np.uint8)
    np.testing.assert_array_equal(resample_labels(np.asarray(labels, order=order), new), by_shares(labels, new))


def test_equal_shares_do_not_shrink_a_class():
    """A slab of three slices, halved: one voxel lies half in it, and the nearest slice decides."""
    labels = np.zeros((8, 2, 2), np.uint8)
    labels[3:6] = 1
    assert resample_labels(labels, (4, 2, 2))[:, 0, 0].tolist() == [0, 1, 1, 0]


def test_ignored_voxels_stay_ignored_and_are_no_class():
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[:6] = 2
    labels[:, :4] = IGNORE
    for shape in ((12, 12, 12), (6, 6, 6), (19, 17, 23), (5, 12, 30)):
        found = resample_labels(labels, shape)
        rows = positions(12, shape[1]) < 4
        assert (found[:, rows] == IGNORE).all() and not (found[:, ~rows] == IGNORE).any()
        assert set(np.unique(found)) == {0, 2, IGNORE}
        first = positions(12, shape[0]) < 6
        assert (found[first][:, ~rows] == 2).all() and (found[~first][:, ~rows] == 0).all()


def test_pictures_are_resized_as_before():
    """Antialiased bilinear for the image, the nearest pixel centre for the mask, by torch."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (3, 37, 50)).astype(np.float32)
    expected = F.interpolate(torch.from_numpy(image)[None], (16, 24), mode="bilinear", antialias=True)[0]
    np.testing.assert_array_equal(resample_image(image, (16, 24)), expected)
    mask = rng.integers(0, 3, (37, 50)).astype(np.uint8)
    at = [np.floor(positions(o, n)).astype(int) for o, n in ((37, 16), (50, 24))]
    np.testing.assert_array_equal(resample_labels(mask, (16, 24)), mask[np.ix_(*at)])
    assert resample_image(image, (37, 50)) is image and resample_labels(mask, (37, 50)) is mask
