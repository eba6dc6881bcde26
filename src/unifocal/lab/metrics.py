"""Per-image metrics of each foreground class from its confusion counts, with a rule for empty masks.

Each class is judged on its own, that class against all else, on the grid of the original image:

    DSC         2 TP / (2 TP + FP + FN)
    IoU         TP / (TP + FP + FN)
    precision   TP / (TP + FP)
    recall      TP / (TP + FN)           (sensitivity)
    specificity TN / (TN + FP)

Where the class is absent the fractions say nothing by themselves. The rule:

    truth empty, prediction empty   DSC = IoU = precision = recall = 1: there was nothing to find, and it was not found
    truth empty, prediction not     DSC = IoU = precision = 0; recall undefined
    prediction empty, truth not     DSC = IoU = precision = recall = 0
    the class fills the image       specificity undefined

Undefined values are NaN: they are left out of every mean, and their number is told beside it. The precision of an
empty prediction is 0 and not undefined, because a loss that finds nothing would else be judged by its empty images
alone and come out with a perfect precision.
"""

import numpy as np
from numpy.typing import NDArray

METRICS = ("DSC", "IoU", "precision", "recall", "specificity")

EMPTY_RULE = """\
- truth and prediction both empty: DSC = IoU = precision = recall = 1
- truth empty, prediction not: DSC = IoU = precision = 0, recall undefined
- prediction empty, truth not: DSC = IoU = precision = recall = 0
- the class fills the whole image: specificity undefined

Undefined values are left out of the means; their number is given."""


def measure(prediction: NDArray[np.integer], truth: NDArray[np.integer], index: int = 1) -> dict[str, float]:
    """The metrics of class `index` for one image, by name; undefined ones are NaN."""
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction and truth must have one shape; got {prediction.shape} and {truth.shape}.")
    predicted, true = prediction == index, truth == index
    tp = int((predicted & true).sum())
    fp = int(predicted.sum()) - tp
    fn = int(true.sum()) - tp
    tn = predicted.size - tp - fp - fn
    if tp + fp + fn == 0:
        return {"DSC": 1.0, "IoU": 1.0, "precision": 1.0, "recall": 1.0, "specificity": 1.0}
    return {
        "DSC": 2 * tp / (2 * tp + fp + fn),
        "IoU": tp / (tp + fp + fn),
        "precision": tp / max(tp + fp, 1),
        "recall": _fraction(tp, tp + fn),
        "specificity": _fraction(tn, tn + fp),
    }


def _fraction(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
