"""Volumes whose grids differ: where the voxels of a resampled grid lie, and how one grid is seen from another."""

import numpy as np
from numpy.typing import NDArray

from unifocal.lab.data.volumes import Grid
from unifocal.lab.preparation.resampling import resample_volume


def resampled_grid(grid: Grid, shape: tuple[int, ...]) -> Grid:
    """The grid of `shape` voxels over the same extent."""
    scale = np.divide(grid.shape, shape)
    change = np.diag([*scale, 1.0])
    change[:3, 3] = scale / 2 - 0.5
    affine = grid.matrix @ change
    i, j, k = shape
    return Grid((i, j, k), tuple(tuple(float(value) for value in row) for row in affine[:3]))


def resample_onto(volume: NDArray[np.float32], grid: Grid, target: Grid) -> NDArray[np.float32]:
    """A volume with a grid of its own as it appears on `target`: linear, after antialiasing where that is coarser.

    Beyond half a voxel outside its edge it is as dark as its darkest voxel.
    """
    from scipy.ndimage import affine_transform

    steps = np.abs(np.linalg.inv(grid.matrix) @ target.matrix)[:3, :3].max(1)  # of the target, in voxels of the volume
    shape = tuple(max(1, round(n / max(step, 1.0))) for n, step in zip(grid.shape, steps, strict=True))
    if shape != grid.shape:
        volume, grid = resample_volume(volume, shape), resampled_grid(grid, shape)
    change = np.linalg.inv(grid.matrix) @ target.matrix
    seen: NDArray[np.float32] = affine_transform(
        np.pad(volume, 1, mode="edge"),
        change[:3, :3],
        change[:3, 3] + 1,
        output_shape=target.shape,
        output=np.float32,
        order=1,
        mode="constant",
        cval=float(volume.min()),
    )
    return seen
