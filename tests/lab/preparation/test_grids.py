"""A sequence with a grid of its own, seen from another: a ramp in the world stays that ramp."""

import numpy as np
import pytest

from unifocal.lab.data.volumes import Grid
from unifocal.lab.preparation.grids import resample_onto, resampled_grid


def make_grid(shape, spacing, origin, axes=((1, 0, 0), (0, 1, 0), (0, 0, 1))):
    affine = np.column_stack([np.array(axes, float).T * spacing, origin])
    return Grid(shape, tuple(map(tuple, affine.tolist())))


def world(grid):
    """Millimetres (3, i, j, k) of all voxel centres."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"))
    return np.einsum("ab,bijk->aijk", grid.matrix[:3, :3], index) + grid.matrix[:3, 3, None, None, None]


def ramp(grid):
    x, y, z = world(grid)
    return (2 * x - y + 0.5 * z + 3).astype(np.float32)


T2W = make_grid((24, 20, 9), (1.0, 1.0, 3.0), (-10.0, -12.0, -15.0))
TILTED = make_grid((40, 36, 20), (1.5, 1.5, 2.5), (30.0, -28.0, -25.0),
                   ((-np.cos(0.2), np.sin(0.2), 0), (np.sin(0.2), np.cos(0.2), 0), (0, 0, 1)))  # fmt: skip
FINE = make_grid((90, 90, 80), (0.4, 0.4, 0.5), (-14.0, -15.0, -19.0))
SWAPPED = make_grid((20, 40, 40), (2.0, 1.2, 1.2), (25.0, -20.0, -20.0), ((0, 0, 1), (-1, 0, 0), (0, 1, 0)))


def test_a_resampled_grid_has_the_same_corners():
    for shape in ((12, 20, 18), (7, 33, 9)):
        for grid in (T2W, TILTED):
            new = resampled_grid(grid, shape)
            assert new.shape == shape
            for corner in ((0, 0, 0), (1, 0, 0), (1, 1, 1)):  # of the extent: half a voxel outside the centres
                old_corner, new_corner = (
                    g.matrix @ np.append(np.multiply(corner, g.shape) - 0.5, 1) for g in (grid, new)
                )
                np.testing.assert_allclose(old_corner, new_corner, atol=1e-9)


@pytest.mark.parametrize("moving", [TILTED, FINE, SWAPPED, T2W], ids=["tilted", "fine", "swapped", "itself"])
def test_a_ramp_in_the_world_stays(moving):
    """Linear interpolation keeps a ramp, and antialiasing does, whatever the axes; all of T2W lies inside."""
    for target in (T2W, resampled_grid(T2W, (12, 11, 9)), resampled_grid(T2W, (30, 31, 20))):
        seen = resample_onto(ramp(moving), moving, target)
        assert seen.shape == target.shape and seen.dtype == np.float32
        inside = np.ones(target.shape, bool)
        index = np.einsum("ab,bijk->aijk", np.linalg.inv(moving.matrix)[:3, :3], world(target))
        index += np.linalg.inv(moving.matrix)[:3, 3, None, None, None]
        for axis, n in enumerate(moving.shape):
            inside &= (index[axis] >= 0) & (index[axis] <= n - 1)
        assert inside.mean() > 0.5
        np.testing.assert_allclose(seen[inside], ramp(target)[inside], atol=2e-3)


def test_beyond_the_edge_it_is_as_dark_as_anywhere():
    moving = make_grid((4, 4, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    target = make_grid((12, 4, 4), (1.0, 1.0, 1.0), (-4.0, 0.0, 0.0))
    volume = np.full((4, 4, 4), 50, np.float32)
    volume[1, 1, 1] = -7
    seen = resample_onto(volume, moving, target)[:, 0, 0]
    # voxels -4 to 7 of the volume: the neighbour of an edge voxel counts as its continuation
    assert seen.tolist() == [-7, -7, -7, 50, 50, 50, 50, 50, 50, -7, -7, -7]


def test_a_finer_sequence_does_not_alias():
    """Slices of 0 and 1 in turn, half a voxel of the target each, are grey."""
    moving = make_grid((40, 6, 6), (0.5, 1.0, 1.0), (0.0, 0.0, 0.0))
    volume = np.zeros((40, 6, 6), np.float32)
    volume[::2] = 1
    target = make_grid((10, 4, 4), (1.0, 1.0, 1.0), (5.0, 1.0, 1.0))
    np.testing.assert_allclose(resample_onto(volume, moving, target), 0.5, atol=1e-5)
