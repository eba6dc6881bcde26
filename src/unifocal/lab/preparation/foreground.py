"""Where foreground is, kept beside each prepared case, so that choosing a patch never searches a volume."""

import numpy as np
from numpy.typing import NDArray

from unifocal.lab.data.cases import IGNORE
from unifocal.lab.data.masks import count_classes

PER_CLASS = 4000  # positions kept; a patch is centred on one of them


def sample_foreground(labels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Positions (m, axes) of voxels of each class but the background, class by class: all, or `PER_CLASS` of them.

    The choice is even over the class and depends on the labels alone. `IGNORE` is no class.
    """
    counts, _ = count_classes(labels, IGNORE)
    chosen = [np.empty(0, np.int64)]
    for index in np.flatnonzero(counts[1:]) + 1:
        found = np.flatnonzero(labels == index)
        if len(found) > PER_CLASS:
            draw = np.random.default_rng(0)
            found = np.sort(draw.choice(found, PER_CLASS, replace=False, shuffle=False))
        chosen.append(found)
    return np.stack(np.unravel_index(np.concatenate(chosen), labels.shape), axis=1).astype(np.int64)
