"""How good a predicted mask is: overlap, surface, volume and lesions of one class, from two arrays of class indices.

Each class is judged on its own, that class against all else, on the grid of the original image. P is the set of voxels
predicted, T the truth; TP, FP, FN and TN count voxels.

    DSC              2 TP / (2 TP + FP + FN)
    IoU              TP / (TP + FP + FN)
    precision        TP / (TP + FP)
    recall           TP / (TP + FN)            (sensitivity)
    specificity      TN / (TN + FP)
    HD95             95th percentile of the distance from one surface to the other, the greater of the two directions
    NSD              share of both surfaces that lies within a tolerance of the other one
    volume error     (|P| - |T|) / |T|         (with its sign; means are taken of its size)
    lesion recall    lesions found / lesions
    lesion precision predicted lesions that touch a true one / predicted lesions
    lesion F1        found / (found + (missed + false) / 2)
    false lesions    number of predicted lesions that touch no true one

A lesion is a connected component, by corners too (8 neighbours in 2D, 26 in 3D). It is found if the prediction covers
at least one of its voxels. Where a mask is empty some of this says nothing by itself: `EMPTY_RULE` has the rule.

Voxels that the truth marks as left out belong to neither mask, and count nowhere. `docs/metrics.md` names the sources.
"""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from unifocal.lab.data.cases import IGNORE
from unifocal.lab.metrics.components import Lesion, detection, find_lesions
from unifocal.lab.metrics.counts import counts
from unifocal.lab.metrics.pair import read_pair
from unifocal.lab.metrics.surfaces import TOLERANCE, hd95, nsd

__all__ = [
    "EMPTY_RULE",
    "LOWER_IS_BETTER",
    "MAIN",
    "METRICS",
    "SIGNED",
    "UNITS",
    "Lesion",
    "lesions",
    "measure",
    "unit",
]

MAIN = ("DSC", "IoU", "precision", "recall", "specificity")
METRICS = (
    *MAIN,
    "HD95",
    "NSD",
    "volume error",
    "lesion recall",
    "lesion precision",
    "lesion F1",
    "false lesions",
)
UNITS = dict.fromkeys(METRICS, "fraction") | {"HD95": "mm", "false lesions": "count"}  # see `unit` for pictures
LOWER_IS_BETTER = frozenset({"HD95", "volume error", "false lesions"})
SIGNED = frozenset({"volume error"})  # a mean or a rank is that of the absolute value, or errors would cancel

EMPTY_RULE = """\
- truth and prediction both empty: DSC, IoU, precision, recall, specificity, NSD, lesion recall, lesion precision and \
lesion F1 are 1, volume error and false lesions 0; HD95 is undefined
- truth empty, prediction not: DSC, IoU, precision, NSD, lesion precision and lesion F1 are 0; recall, lesion recall, \
volume error and HD95 are undefined
- prediction empty, truth not: DSC, IoU, precision, recall, NSD, lesion recall, lesion precision and lesion F1 are 0, \
volume error is -1; HD95 is undefined
- the class fills the whole image: specificity is undefined

Undefined values are left out of the means; their number is given."""


def measure(
    prediction: NDArray[Any],
    truth: NDArray[Any],
    index: int = 1,
    spacing: Sequence[float] | None = None,
    tolerance: float | None = None,
    ignore: int = IGNORE,
) -> dict[str, float]:
    """All `METRICS` of class `index` for one image, by name; undefined ones are NaN.

    Args:
        prediction: class indices, (H, W) or (i, j, k).
        truth: class indices of the same shape, `ignore` where there is no truth.
        index: the class to judge.
        spacing: distance of neighbours along each axis, in mm; None counts in pixels.
        tolerance: of NSD, in mm, or in pixels without a spacing; None is 1.
        ignore: the value in `truth` that leaves a voxel out.

    Raises:
        LabError: shapes, types, spacing or tolerance make no sense.
    """
    pair = read_pair(prediction, truth, index, spacing, ignore)
    values = {
        **counts(pair),
        "HD95": hd95(pair),
        "NSD": nsd(pair, TOLERANCE if tolerance is None else tolerance),
        **detection(pair),
    }
    return {name: float(values[name]) for name in METRICS}


def lesions(
    prediction: NDArray[Any],
    truth: NDArray[Any],
    index: int = 1,
    spacing: Sequence[float] | None = None,
    ignore: int = IGNORE,
) -> list[Lesion]:
    """The lesions of class `index` in the truth, and which of them the prediction finds; arguments as in `measure`.

    Predicted lesions that touch no true one are not among them: `measure` counts these as "false lesions".
    """
    return find_lesions(read_pair(prediction, truth, index, spacing, ignore))


def unit(metric: str, spacing: Sequence[float] | None) -> str:
    """The unit of a metric: that of `UNITS`, with px in place of mm where there was no spacing."""
    return "px" if UNITS[metric] == "mm" and spacing is None else UNITS[metric]
