"""Lesion by lesion: which components of the truth are found, and which of the prediction are false."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from unifocal.lab.metrics.pair import Mask, Pair


@dataclass(frozen=True)
class Lesion:
    """One connected component of the truth.

    Attributes:
        voxels: number of its voxels.
        size: its volume in mm³, in 2D its area in mm²; without a spacing the number of voxels again.
        overlap: share of its voxels that the prediction covers.
    """

    voxels: int
    size: float
    overlap: float

    @property
    def found(self) -> bool:
        """Does the prediction cover at least one voxel?"""
        return self.overlap > 0


def find_lesions(pair: Pair) -> list[Lesion]:
    """The lesions of the truth, in the order of their first voxels."""
    voxels, covered = _components(pair.true, pair.predicted)
    one = math.prod(pair.spacing)
    return [Lesion(int(n), float(n * one), float(c / n)) for n, c in zip(voxels, covered, strict=True)]


def detection(pair: Pair) -> dict[str, float]:
    """Lesion recall, lesion precision, lesion F1 and false lesions; NaN where undefined."""
    covered = _components(pair.true, pair.predicted)[1]
    touching = _components(pair.predicted, pair.true)[1]
    lesions, found = len(covered), int(np.count_nonzero(covered))
    predicted, right = len(touching), int(np.count_nonzero(touching))
    missed, false = lesions - found, predicted - right
    if lesions + predicted == 0:
        return {"lesion recall": 1, "lesion precision": 1, "lesion F1": 1, "false lesions": 0}
    return {
        "lesion recall": found / lesions if lesions else math.nan,
        "lesion precision": right / max(predicted, 1),  # 0 if nothing is predicted, as voxel by voxel
        "lesion F1": found / (found + (missed + false) / 2),
        "false lesions": false,
    }


def _components(mask: Mask, other: Mask) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Of each component of `mask`, the number of its voxels, and of those that `other` has too."""
    labels, n = ndimage.label(mask, np.ones((3,) * mask.ndim))
    return tuple(np.bincount(labels[chosen], minlength=n + 1)[1:] for chosen in (mask, other))  # type: ignore[return-value]
