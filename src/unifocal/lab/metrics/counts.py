"""What follows from the numbers of voxels: overlap, and the error of the volume."""

import numpy as np

from unifocal.lab.metrics.pair import Pair

NAN = float("nan")


def counts(pair: Pair) -> dict[str, float]:
    """DSC, IoU, precision, recall, specificity and volume error; NaN where undefined."""
    tp = int(np.count_nonzero(pair.predicted & pair.true))
    fp = int(np.count_nonzero(pair.predicted)) - tp
    fn = int(np.count_nonzero(pair.true)) - tp
    tn = pair.voxels - tp - fp - fn
    if tp + fp + fn == 0:
        return {"DSC": 1, "IoU": 1, "precision": 1, "recall": 1, "specificity": 1, "volume error": 0}
    return {
        "DSC": 2 * tp / (2 * tp + fp + fn),
        "IoU": tp / (tp + fp + fn),
        # 0 and not undefined if nothing is predicted: a loss that finds nothing would else be judged by its empty
        # images alone, and come out with a perfect precision.
        "precision": tp / max(tp + fp, 1),
        "recall": tp / (tp + fn) if tp + fn else NAN,
        "specificity": tn / (tn + fp) if tn + fp else NAN,
        "volume error": (fp - fn) / (tp + fn) if tp + fn else NAN,
    }
