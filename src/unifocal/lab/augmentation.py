"""Mirroring, scaling, rotation, elastic deformation and gamma: of a whole batch at once, on its device.

The papers' pipeline is MIScnn's (frankkramer-lab/MIScnn, data_augmentation.py). From there are the probability, the
ranges of zoom, angle and gamma, half of the zooms and gammas lying below 1, a gamma of its own for every channel, and
what comes into view from outside: background, of intensity 0.

Ours is the elastic deformation. MIScnn smooths white noise with a Gaussian of 9 to 13 voxels and multiplies it by up
to 900: that moves voxels by up to 3 (standard deviation) in 3D, but by up to 16 in 2D, where images fold over. Here it
is a cubic B-spline of four intervals along each axis whose control points move by less than 0.4 intervals: such a
spline cannot fold, in 2D or 3D (Choi and Lee 2000, Graphical Models 62). It moves voxels by up to 3 at 128 x 128, and
by up to 3, 3 and 1.5 at 160 x 160 x 80. Ours are also linear interpolation, for cubic, and gamma after the rest,
without restoring mean and standard deviation.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from unifocal.lab.data.cases import IGNORE
from unifocal.lab.device import to_device
from unifocal.lab.patches import Shape

PROBABILITY = 0.15  # of each kind for each image; an image is mirrored along each axis with probability 1/2
ZOOM = (0.85, 1.25)  # above 1, what is seen becomes larger
ANGLE = np.deg2rad(15)
GAMMA = (0.7, 1.5)
INTERVALS = 4  # of the B-spline along each axis
KNOTS = INTERVALS + 3
FOLD_FREE = 0.4  # of an interval; the bounds are 0.488 in 2D and 0.403 in 3D

Array = NDArray[np.float64]


class Change(NamedTuple):
    """What is to become of each of n images; a neutral value leaves it as it is."""

    flips: NDArray[np.bool_]  # (n, axes)
    zoom: Array  # (n,), neutral 1
    angles: Array  # (n, planes) in radians, neutral 0
    shift: Array  # (n, axes * KNOTS^axes) of the control points, in -1 to 1, neutral 0
    gamma: Array  # (n, channels), neutral 1

    @property
    def moved(self) -> NDArray[np.bool_]:
        """(n,) which images are scaled, turned or bent."""
        which: NDArray[np.bool_] = (self.zoom != 1) | self.angles.any(1) | self.shift.any(1)
        return which


class Augmentation:
    """One random change of each image of a batch and, as far as it moves things, of its labels.

    spacing  of the voxels along each axis. Rotations keep angles in these units; without it voxels are cubes, as in
             MIScnn, and thick slices are sheared.

    All draws are made on the CPU, by a generator for each image, and the coordinates are computed in float64: what
    becomes of an image does not depend on its neighbours in the batch, nor, but for rounding, on the device.
    """

    def __init__(self, dimension: int, channels: int, spacing: Sequence[float] | None = None) -> None:
        self.spacing = np.ones(dimension) if spacing is None else np.asarray(spacing, float)
        planes, kinds = dimension * (dimension - 1) // 2, 4
        self.counts = (dimension, kinds, 1, planes, 1, dimension * KNOTS**dimension, channels)

    def draw(self, draws: Sequence[np.random.Generator]) -> Change:
        # All numbers at once, wanted or not: whether one kind fires must not change what the next one draws.
        numbers = np.stack([draw.random(sum(self.counts)) for draw in draws])
        ends = np.cumsum((0, *self.counts))
        flips, fires, zoom, angles, strength, shift, gamma = (numbers[:, a:b] for a, b in pairwise(ends))
        zoomed, turned, bent, brightened = (fires < PROBABILITY).T[:, :, None]
        return Change(
            flips < 0.5,
            np.where(zoomed, _around_1(zoom, ZOOM), 1)[:, 0],
            np.where(turned, ANGLE * (2 * angles - 1), 0),
            np.where(bent, strength * (2 * shift - 1), 0),
            np.where(brightened, _around_1(gamma, GAMMA), 1),
        )

    def apply(
        self, images: Tensor, labels: Tensor, change: Change, patch: Shape | None = None
    ) -> tuple[Tensor, Tensor]:
        """Carry out `change` on images (n, channels, *spatial) and labels (n, *spatial).

        What it does not concern stays as it is, to the bit. Patches may come with more than `patch`, equally at both
        ends of each axis: that is there to come into view, and what lies beyond it has the label `IGNORE`.
        """
        size, outside = (tuple(labels.shape[1:]), 0) if patch is None else (patch, IGNORE)
        if change.flips.any():
            images, labels = mirror(images, labels, change.flips)
        moved = change.moved | (labels.shape[1:] != size)
        if moved.any():
            points = control_points(change.zoom[moved], change.angles[moved], change.shift[moved], self.spacing * size)
            there = partial(warp, points=points, size=size, outside=outside)
            images, labels = _on_some(moved, there, images, labels)
        brighter = (change.gamma != 1).any(1)
        if brighter.any():
            (images,) = _on_some(brighter, lambda some: (power(some, change.gamma[brighter]),), images)
        return images, labels


def _on_some(
    which: NDArray[np.bool_], function: Callable[..., tuple[Tensor, ...]], *tensors: Tensor
) -> tuple[Tensor, ...]:
    """The tensors with `function` applied to those rows that `which` marks, on the CPU."""
    if which.all():
        return function(*tensors)
    rows = to_device(np.flatnonzero(which), tensors[0].device)
    changed = function(*(tensor[rows] for tensor in tensors))
    return tuple(tensor.index_copy(0, rows, new) for tensor, new in zip(tensors, changed, strict=True))


def _around_1(numbers: Array, bounds: tuple[float, float]) -> Array:
    """Uniform numbers in [0, 1) to the range `bounds`, half of them to either side of 1."""
    result: Array = np.interp(numbers, (0, 0.5, 1), (bounds[0], 1, bounds[1]))
    return result


def mirror(images: Tensor, labels: Tensor, flips: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
    """Mirror images and labels along the axes that `flips` (n, axes) names for each."""
    n, dimension = flips.shape
    sizes = labels.shape[1:]
    forth = [np.arange(size) for size in sizes]
    axes = [np.where(flips[:, k, None], forth[k][::-1], forth[k]) for k in range(dimension)]
    packed = to_device(np.concatenate([np.arange(n)[:, None], *axes], axis=1), images.device)
    rows, *places = torch.split(packed, [1, *sizes], dim=1)
    index = [rows.view(n, *[1] * dimension)]
    for k, place in enumerate(places):
        index.append(place.view(n, *[1] * k, -1, *[1] * (dimension - 1 - k)))
    mirrored = images.movedim(1, -1)[tuple(index)].movedim(-1, 1)
    # In one layout always: the CPU rounds powers differently in another.
    return mirrored.contiguous(), labels[tuple(index)]


def control_points(zoom: Array, angles: Array, shift: Array, extent: Array) -> Array:
    """Where the control points (n, axes, KNOTS, ...) of a regular lattice go, in units of half the image.

    zoom (n,), angles (n, planes) in radians, shift (n, axes * KNOTS^axes) in -1 to 1, times `FOLD_FREE` intervals;
    extent (axes,) is the size of the image in the units in which a rotation keeps angles.

    The map leads from where a voxel will be to where its value is taken: bent, then turned and scaled about the centre.
    """
    n, dimension = len(zoom), len(extent)
    interval = 2 / INTERVALS
    line = -1 + interval * (np.arange(KNOTS) - 1)
    lattice = np.stack(np.meshgrid(*[line] * dimension, indexing="ij"))
    points = lattice + FOLD_FREE * interval * shift.reshape(n, *lattice.shape)
    matrix = rotation(angles) * extent / extent[:, None] / zoom[:, None, None]
    moved: Array = np.einsum("nij,nj...->ni...", matrix, points)
    return moved


def rotation(angles: Array) -> Array:
    """Matrices (n, axes, axes) that turn by `angles` (n, planes): in the plane of the picture, or about three axes."""
    n, planes = angles.shape
    dimension = 2 if planes == 1 else 3
    matrix = np.tile(np.eye(dimension), (n, 1, 1))
    for angle, (i, j) in zip(angles.T, combinations(range(dimension), 2), strict=True):
        turn = np.tile(np.eye(dimension), (n, 1, 1))
        turn[:, i, i] = turn[:, j, j] = np.cos(angle)
        turn[:, j, i] = np.sin(angle)
        turn[:, i, j] = -turn[:, j, i]
        matrix = matrix @ turn
    return matrix


def warp(images: Tensor, labels: Tensor, points: Array, size: Shape, outside: int) -> tuple[Tensor, Tensor]:
    """Take images linearly and labels from the nearest voxel where the spline through the control points leads.

    The result has `size`, in whose halves the points are counted; the images may be larger, about the same centre.
    Outside, images are 0 and labels `outside`.
    """
    share = np.divide(size, labels.shape[1:]).reshape(-1, *[1] * len(size))
    grid = to_device((share * points)[:, ::-1].copy(), images.device)  # grid_sample names the last axis first
    for side in size:
        grid = torch.tensordot(grid, spline(side, images.device), ([2], [0]))
    grid = grid.movedim(1, -1).float()
    above = labels[:, None] - float(outside)  # grid_sample knows no outside but 0
    nearest = F.grid_sample(above, grid, mode="nearest", align_corners=False) + outside
    return F.grid_sample(images, grid, align_corners=False), nearest[:, 0].to(labels.dtype)


@lru_cache(maxsize=64)
def spline(size: int, device: torch.device) -> Tensor:
    """Weights (KNOTS, size) of the control points of a cubic B-spline at the centres of `size` voxels, float64."""
    place = (np.arange(size) + 0.5) * INTERVALS / size + 1
    distance = np.abs(place - np.arange(KNOTS)[:, None])
    near, far = 2 / 3 - distance**2 + distance**3 / 2, np.maximum(2 - distance, 0) ** 3 / 6
    return to_device(np.where(distance < 1, near, far), device)


def power(images: Tensor, gamma: Array) -> Tensor:
    """Raise each channel, between its minimum and its maximum, to its power `gamma` (n, channels)."""
    axes = tuple(range(2, images.ndim))
    exponent = to_device(gamma.astype(np.float32), images.device).view(*gamma.shape, *[1] * len(axes))
    low = images.amin(axes, keepdim=True)
    span = images.amax(axes, keepdim=True) - low
    tiny = torch.finfo(images.dtype).tiny  # an even channel stays even
    return torch.addcmul(low, span, ((images - low) / span.clamp_min(tiny)) ** exponent)
