"""Distances between two surfaces, by SciPy on the voxels of the surfaces alone, so that a whole CT takes no time.

HD95 takes for a surface the centres of the voxels of a mask that have a neighbour (4 in 2D, 6 in 3D) outside it, each
counting once, as MONAI's `compute_hausdorff_distance` does. NSD takes the surface between the voxels, in elements that
count by their area in mm² (or length in mm), as Nikolov et al. define it and MONAI's `compute_surface_dice` with
`use_subvoxels` and DeepMind's `surface-distance` compute it. Outside the image there is background.
"""

import itertools
import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from unifocal.lab.errors import LabError
from unifocal.lab.metrics.pair import Mask, Pair

TOLERANCE = 1.0  # mm, or pixels
ROUNDING = 1e-6  # of the tolerance: headers keep a spacing of 1 mm as 0.9999999 or 1.0000001

Points = NDArray[np.float64]


def hd95(pair: Pair) -> float:
    """The greater of the two 95th percentiles (interpolated) of the distances from one surface to the other.

    In the unit of the spacing; NaN if a mask is empty.
    """
    predicted, true = (_boundary_voxels(mask, pair.spacing) for mask in (pair.predicted, pair.true))
    if not len(predicted) or not len(true):
        return math.nan
    there, back = KDTree(true).query(predicted)[0], KDTree(predicted).query(true)[0]
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def nsd(pair: Pair, tolerance: float) -> float:
    """The share of both surfaces, by area, that is no further than `tolerance` from the other surface."""
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise LabError(f"expected a positive tolerance; got {tolerance}.")
    if not pair.true.any() or not pair.predicted.any():
        return float(not pair.true.any() and not pair.predicted.any())
    areas = _areas(pair.spacing)
    predicted, predicted_area = _elements(pair.predicted, pair.spacing, areas)
    true, true_area = _elements(pair.true, pair.spacing, areas)
    limit = tolerance * (1 + ROUNDING)
    there = KDTree(true).query(predicted, distance_upper_bound=limit)[0]  # infinite beyond the bound
    back = KDTree(predicted).query(true, distance_upper_bound=limit)[0]
    near = predicted_area[np.isfinite(there)].sum() + true_area[np.isfinite(back)].sum()
    return float(near / (predicted_area.sum() + true_area.sum()))


def _boundary_voxels(mask: Mask, spacing: tuple[float, ...]) -> Points:
    points: Points = np.argwhere(mask & ~ndimage.binary_erosion(mask)) * np.array(spacing)
    return points


def _elements(mask: Mask, spacing: tuple[float, ...], areas: NDArray[np.float64]) -> tuple[Points, Points]:
    """Where the elements of a surface lie, at the corners of voxels, and the area of each.

    The voxels around a corner, each of them in or out, are the bits of a number that says which element it is.
    """
    padded = np.pad(mask, 1).view(np.uint8)
    around = list(itertools.product((0, 1), repeat=mask.ndim))
    code = np.zeros(np.add(mask.shape, 1), np.uint8)
    for bit, offset in enumerate(reversed(around)):
        code |= padded[tuple(slice(o, o + n) for o, n in zip(offset, code.shape, strict=True))] << bit
    corners = (code != 0) & (code != 2 ** len(around) - 1)
    return np.argwhere(corners) * np.array(spacing), areas[code[corners]]


def _areas(spacing: tuple[float, ...]) -> NDArray[np.float64]:
    """The area, in 2D the length, of each kind of element."""
    from monai.metrics.utils import get_code_to_measure_table  # with torch it takes two seconds to import

    table, _ = get_code_to_measure_table(spacing)  # type: ignore[no-untyped-call]
    return np.asarray(table, np.float64)
