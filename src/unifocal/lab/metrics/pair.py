"""Two arrays of class indices become two masks of one class: checked once, and cut to where there is anything."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unifocal.lab.errors import LabError

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Pair:
    """A predicted and a true mask on one grid.

    Attributes:
        predicted: cut to the smallest box that holds both masks; without voxels if both are empty.
        true: cut likewise.
        voxels: number of voxels of the whole image, without those left out.
        spacing: distance of neighbours along each axis.
    """

    predicted: Mask
    true: Mask
    voxels: int
    spacing: tuple[float, ...]


def read_pair(
    prediction: NDArray[Any], truth: NDArray[Any], index: int, spacing: Sequence[float] | None, ignore: int
) -> Pair:
    """Check the arguments of `metrics.measure`, and make the masks."""
    prediction, truth = np.asarray(prediction), np.asarray(truth)
    if prediction.shape != truth.shape:
        raise LabError(f"expected prediction and truth of one shape; got {prediction.shape} and {truth.shape}.")
    if truth.ndim not in (2, 3):
        raise LabError(f"expected class indices of shape (H, W) or (i, j, k); got {truth.shape}.")
    for name, array in (("prediction", prediction), ("truth", truth)):
        if array.dtype.kind not in "biu":
            raise LabError(f"expected class indices of an integer type; the {name} is {array.dtype}.")
    if index == ignore:
        raise LabError(f"expected a class; {index} is the value that leaves voxels out.")
    steps = tuple(float(step) for step in spacing) if spacing is not None else (1.0,) * truth.ndim
    if len(steps) != truth.ndim or not all(math.isfinite(step) and step > 0 for step in steps):
        raise LabError(f"expected a positive spacing for each of {truth.ndim} axes; got {steps}.")

    predicted, true = prediction == index, truth == index
    left_out = truth == ignore
    ignored = int(np.count_nonzero(left_out))
    if ignored:
        predicted &= ~left_out
    box = tuple(_extent(predicted, true, axis) for axis in range(truth.ndim))
    return Pair(predicted[box], true[box], truth.size - ignored, steps)


def _extent(predicted: Mask, true: Mask, axis: int) -> slice:
    """The part of an axis on which either mask has voxels."""
    others = tuple(other for other in range(true.ndim) if other != axis)
    occupied = np.flatnonzero(predicted.any(others) | true.any(others))
    return slice(int(occupied[0]), int(occupied[-1]) + 1) if occupied.size else slice(0)
