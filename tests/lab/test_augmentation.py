"""Where voxels go, against SciPy and by hand; what is left alone; how often each kind comes."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from scipy.interpolate import BSpline

from unifocal.lab.augmentation import FOLD_FREE, INTERVALS, KNOTS, Augmentation, Change, control_points, spline, warp

IGNORE = 255
SHAPES = {2: (24, 36), 3: (12, 20, 16)}
SPACING = {2: (1.0, 1.0), 3: (3.0, 0.5, 1.0)}


def nothing(n=1, dimension=2, channels=1, **changes):
    """A change of n images that changes nothing but what is given."""
    planes = dimension * (dimension - 1) // 2
    neutral = Change(
        np.zeros((n, dimension), bool),
        np.ones(n),
        np.zeros((n, planes)),
        np.zeros((n, dimension * KNOTS**dimension)),
        np.ones((n, channels)),
    )
    return neutral._replace(**{name: np.array(value) for name, value in changes.items()})


def bend(n=1, dimension=2, strength=1.0, seed=0):
    return np.random.default_rng(seed).uniform(-strength, strength, (n, dimension * KNOTS**dimension))


def make(dimension=2, n=1, channels=1, seed=0, values=(0, 1, 2, IGNORE)):
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.random((n, channels, *SHAPES[dimension])).astype(np.float32))
    return images, torch.from_numpy(rng.choice(values, (n, *SHAPES[dimension])).astype(np.uint8))


def generators(n, seed=0):
    return [np.random.Generator(np.random.PCG64((seed, i))) for i in range(n)]


def disc(size=128, radius=20.0, centre=(60, 70)):
    rows, columns = np.ogrid[:size, :size]
    return torch.from_numpy((np.hypot(rows - centre[0], columns - centre[1]) < radius).astype(np.uint8))[None]


# Where voxels go


@pytest.mark.parametrize("dimension", [2, 3])
def test_rotation_and_zoom_equal_an_affine_transform_of_scipy(dimension):
    angles = [0.2] if dimension == 2 else [0.2, -0.25, 0.1]
    zoom, spacing = 1.15, np.array(SPACING[dimension])
    images, labels = make(dimension)
    change = nothing(1, dimension, zoom=[zoom], angles=[angles])
    image, label = Augmentation(dimension, 1, SPACING[dimension]).apply(images, labels, change)

    def turn(i, j, angle):
        matrix = np.eye(dimension)
        matrix[[i, j], [i, j]] = np.cos(angle)
        matrix[i, j], matrix[j, i] = -np.sin(angle), np.sin(angle)
        return matrix

    if dimension == 2:
        matrix = turn(0, 1, angles[0])
    else:
        matrix = turn(0, 1, angles[0]) @ turn(0, 2, angles[1]) @ turn(1, 2, angles[2])
    matrix = np.diag(1 / spacing) @ matrix @ np.diag(spacing) / zoom  # from voxels of the result to voxels of the image
    centre = (np.array(SHAPES[dimension]) - 1) / 2
    place = {"matrix": matrix, "offset": centre - matrix @ centre, "mode": "grid-constant"}
    expected = ndimage.affine_transform(images[0, 0].numpy(), order=1, **place)
    np.testing.assert_allclose(image[0, 0], expected, atol=2e-5)
    np.testing.assert_array_equal(label[0], ndimage.affine_transform(labels[0].numpy(), order=0, **place))


@pytest.mark.parametrize("plane", [(0, 1), (0, 2), (1, 2)])
def test_a_quarter_turn_is_that_of_torch(plane):
    rng = np.random.default_rng(0)
    images, labels = (
        torch.from_numpy(rng.random((1, 2, 9, 9, 9))).float(),
        torch.from_numpy(rng.integers(0, 4, (1, 9, 9, 9))),
    )
    angles = [[np.pi / 2 * (plane == p) for p in ((0, 1), (0, 2), (1, 2))]]
    image, label = Augmentation(3, 2).apply(images, labels.byte(), nothing(1, 3, 2, angles=angles))
    torch.testing.assert_close(image[0], torch.rot90(images[0], -1, (plane[0] + 1, plane[1] + 1)), atol=1e-5, rtol=0)
    assert torch.equal(label[0], torch.rot90(labels[0].byte(), -1, plane))


@pytest.mark.parametrize("dimension", [2, 3])
def test_mirroring_is_exact_for_each_combination_of_axes(dimension):
    flips = list(product([False, True], repeat=dimension))
    images, labels = make(dimension, len(flips), channels=2)
    mirrored = Augmentation(dimension, 2).apply(images, labels, nothing(len(flips), dimension, 2, flips=flips))
    for i, along in enumerate(flips):
        axes = [axis for axis in range(dimension) if along[axis]]
        assert torch.equal(mirrored[0][i], images[i].flip([axis + 1 for axis in axes]))
        assert torch.equal(mirrored[1][i], labels[i].flip(axes))


@pytest.mark.parametrize("zoom", [0.85, 1.25])
def test_a_disc_grows_with_the_square_of_the_zoom(zoom):
    labels = disc()
    image, label = Augmentation(2, 1).apply(labels[:, None].float(), labels, nothing(zoom=[zoom]))
    assert label.sum() / labels.sum() == pytest.approx(zoom**2, rel=0.02)
    assert image.sum() / labels.sum() == pytest.approx(zoom**2, rel=0.02)
    rows, columns = np.nonzero(label[0].numpy())  # about the centre of the image, 63.5, not of the disc
    assert rows.mean() == pytest.approx(63.5 + zoom * (60 - 63.5), abs=0.2)
    assert columns.mean() == pytest.approx(63.5 + zoom * (70 - 63.5), abs=0.2)


def test_the_weights_are_those_of_scipys_cubic_b_spline():
    place = (np.arange(10) + 0.5) / 10 * INTERVALS
    for knot in range(KNOTS):
        basis = BSpline.basis_element(np.arange(-2, 3) + knot - 1, extrapolate=False)
        np.testing.assert_allclose(spline(10, torch.device("cpu"))[knot], np.nan_to_num(basis(place)), atol=1e-12)


@pytest.mark.parametrize("dimension", [2, 3])
def test_bending_moves_voxels_by_the_spline_of_the_control_points(dimension):
    """The displacement, evaluated by SciPy, is where the ramps of coordinates say that values were taken."""
    shape, shift = SHAPES[dimension], bend(dimension=dimension, strength=0.3)
    ramps = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    images = torch.from_numpy(ramps[None].astype(np.float32))
    labels = torch.zeros(1, *shape, dtype=torch.uint8)
    taken, _ = Augmentation(dimension, dimension).apply(images, labels, nothing(1, dimension, dimension, shift=shift))
    moves = shift.reshape(dimension, *[KNOTS] * dimension)
    for axis in range(dimension):
        coefficients = moves[axis] * FOLD_FREE * shape[axis] / INTERVALS
        for k, side in enumerate(shape):  # along one axis after the other
            along = BSpline(np.arange(-3, KNOTS + 1), coefficients, 3, axis=k)
            coefficients = along((np.arange(side) + 0.5) / side * INTERVALS)
        inside = (slice(3, -3),) * dimension  # at the border zeros are mixed in
        np.testing.assert_allclose((taken[0, axis] - images[0, axis])[inside], coefficients[inside], atol=1e-4)


@pytest.mark.parametrize("dimension", [2, 3])
def test_the_strongest_bending_does_not_fold(dimension):
    size = (40,) * dimension
    for seed in range(5):
        shift = np.sign(bend(dimension=dimension, seed=seed))
        grid = control_points(np.ones(1), np.zeros((1, dimension * (dimension - 1) // 2)), shift, np.ones(dimension))[0]
        for _ in size:
            grid = np.tensordot(grid, spline(40, torch.device("cpu")).numpy(), ([1], [0]))
        slopes = np.stack([np.stack(np.gradient(part), -1) for part in grid], -2)
        assert np.linalg.det(slopes).min() > 0


def test_image_and_labels_move_together():
    labels = disc().repeat(64, 1, 1)
    augmentation = Augmentation(2, 1)
    change = augmentation.draw(generators(64))._replace(gamma=np.ones((64, 1)))
    image, label = augmentation.apply(labels[:, None].float(), labels, change)
    assert change.moved.sum() > 15
    for seen, told in zip(image[:, 0].numpy() > 0.5, label.numpy() == 1, strict=True):
        border = ndimage.binary_dilation(told) & ~ndimage.binary_erosion(told)
        assert told.any() and not (seen ^ told)[~border].any()


# Labels


@pytest.mark.parametrize("dimension", [2, 3])
def test_labels_stay_classes_and_what_is_ignored_stays_ignored(dimension):
    """A volume whose classes lie in blocks: nearest neighbours, never means, so no class appears between two others."""
    images, labels = make(dimension, 32)
    half = SHAPES[dimension][0] // 2
    labels[:, :half], labels[:, half:] = 2, IGNORE
    augmentation = Augmentation(dimension, 1)
    change = augmentation.draw(generators(32))._replace(zoom=np.full(32, 1.3), flips=np.zeros((32, dimension), bool))
    _, label = augmentation.apply(images, labels, change)
    assert label.dtype == torch.uint8 and set(label.unique().tolist()) <= {0, 2, IGNORE}
    assert (label[:, 0] != IGNORE).float().mean() > 0.95 and (label[:, -1] != 2).float().mean() > 0.95


def test_outside_is_background_and_for_a_patch_beyond_its_border_ignored():
    images, labels = make(values=(1, 2))
    small = nothing(zoom=[0.5])
    image, label = Augmentation(2, 1).apply(images, labels, small)
    assert (label[0, :5] == 0).all() and (image[0, 0, :5] == 0).all() and (label[0, 7:-7, 10:-10] > 0).all()
    _, label = Augmentation(2, 1).apply(images, labels, small, SHAPES[2])
    assert (label[0, :5] == IGNORE).all()


def test_a_patch_shows_what_lies_around_it():
    images, labels = make()
    inner = (slice(None), slice(None), slice(3, -3), slice(6, -6))
    patch = tuple(labels[inner[1:]].shape[1:])
    for zoom in (1.0, 0.85, 1.2):  # a border of an eighth is enough for these
        change = nothing(zoom=[zoom], shift=bend(strength=0.3))
        whole, theirs = Augmentation(2, 1).apply(images, labels, change, patch)
        assert whole.shape[2:] == theirs.shape[1:] == patch
        assert (whole > 0).all()
    plain, theirs = Augmentation(2, 1).apply(images, labels, nothing(), patch)
    torch.testing.assert_close(plain, images[inner], atol=1e-5, rtol=0)
    assert torch.equal(theirs, labels[inner[1:]])


# What is left alone


@pytest.mark.parametrize("dimension", [2, 3])
def test_an_image_is_changed_alike_in_any_company(dimension):
    images, labels = make(dimension, 12, channels=2)
    augmentation = Augmentation(dimension, 2)
    together = augmentation.apply(images, labels, augmentation.draw(generators(12)))
    for i in range(12):
        change = augmentation.draw(generators(12)[i : i + 1])
        alone = augmentation.apply(images[i : i + 1], labels[i : i + 1], change)
        assert torch.equal(together[0][i], alone[0][0]) and torch.equal(together[1][i], alone[1][0])


def test_what_nothing_concerns_stays_to_the_bit():
    images, labels = make(n=3)
    before = images.clone(), labels.clone()
    change = nothing(3, zoom=[1, 1.2, 1], gamma=[[1], [1], [1.4]])
    image, label = Augmentation(2, 1).apply(images, labels, change)
    assert torch.equal(image[0], images[0]) and torch.equal(label[[0, 2]], labels[[0, 2]])
    assert not torch.equal(image[1], images[1]) and not torch.equal(image[2], images[2])
    assert torch.equal(images, before[0]) and torch.equal(labels, before[1])  # the caller's are the caller's


# Gamma


def test_gamma_by_hand():
    image = torch.tensor([[[[0, 0.25, 1.0]], [[-1, 0, 3.0]], [[7, 7, 7.0]]]])
    changed, _ = Augmentation(2, 3).apply(image, image[:, 0].byte(), nothing(1, 2, 3, gamma=[[2, 0.5, 3]]))
    torch.testing.assert_close(changed, torch.tensor([[[[0, 0.0625, 1]], [[-1, 1, 3]], [[7, 7, 7.0]]]]))


# How often


def test_each_kind_comes_as_often_and_as_strong_as_it_should():
    n = 4000
    change = Augmentation(3, 2).draw(generators(n))

    def often(events, share):
        low, high = stats.binom.interval(0.9999, events.size, share)
        return low <= events.sum() <= high

    assert often(change.flips, 0.5)
    for fired in (change.zoom != 1, change.angles.any(1), change.shift.any(1), (change.gamma != 1).all(1)):
        assert often(fired, 0.15)
    assert often(change.moved, 1 - 0.85**3)  # the kinds are independent
    zoom, gamma = change.zoom[change.zoom != 1], change.gamma[change.gamma != 1]
    angles = np.rad2deg(change.angles[change.angles.any(1)])
    for values, low, high in ((zoom, 0.85, 1.25), (gamma, 0.7, 1.5), (angles, -15, 15)):
        assert low <= values.min() < low + 0.01 * (high - low) and high - 0.01 * (high - low) < values.max() <= high
    assert often(zoom < 1, 0.5) and often(gamma < 1, 0.5) and often(angles < 0, 0.5)
    assert 0.95 < np.abs(change.shift).max() < 1


def test_one_kind_does_not_depend_on_another():
    """The same generator draws the same zoom, whether or not an elastic deformation is drawn between."""
    few, many = (Augmentation(2, channels).draw(generators(50)) for channels in (1, 4))
    assert np.array_equal(few.zoom, many.zoom) and np.array_equal(few.shift, many.shift)


@pytest.mark.parametrize("dimension", [2, 3])
def test_a_lattice_at_rest_is_the_identity(dimension):
    images, labels = make(dimension, 2, channels=4)
    at_rest = nothing(2, dimension)
    points = control_points(at_rest.zoom, at_rest.angles, at_rest.shift, np.ones(dimension))
    image, label = warp(images, labels, points, SHAPES[dimension], 0)
    torch.testing.assert_close(image, images, atol=1e-5, rtol=0)
    assert torch.equal(label, labels)
