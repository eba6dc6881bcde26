"""Several data sets: they, and not their cases, are what a conclusion about losses is drawn from (Demšar 2006)."""

from collections.abc import Mapping

import numpy as np

from unifocal.lab.data.problems import some
from unifocal.lab.errors import LabError
from unifocal.lab.statistics.common import common
from unifocal.lab.statistics.table import Scores


def over_datasets(parts: Mapping[str, Scores]) -> Scores:
    """Scores with data sets as cases, each the mean over the cases that its losses share (Demšar 2006).

    A test over data sets asks which loss is better on a new data set, with networks of its own; cases pooled over
    data sets would answer for these networks only, and mostly for the largest set. A loss that is incomplete on a
    data set has no value there.
    """
    if not parts:
        raise LabError("expected the scores of at least one data set; got none.")
    kinds = {(scores.metric, scores.lower_is_better) for scores in parts.values()}
    if len(kinds) > 1:
        raise LabError(f"expected one metric on all data sets; got {some(sorted(metric for metric, _ in kinds))}.")
    losses = tuple(dict.fromkeys(loss for scores in parts.values() for loss in scores.losses))
    values = np.full((len(losses), 1, len(parts)), np.nan)
    for n, scores in enumerate(parts.values()):
        shared = common(scores)
        if len(shared.values):
            values[[losses.index(loss) for loss in shared.losses], 0, n] = shared.values.mean(0)
    [(metric, lower_is_better)] = kinds
    names, numbers = tuple(parts), np.arange(len(parts))
    fold = np.zeros(len(parts), np.intp)
    return Scores(metric, lower_is_better, losses, (0,), names, values, np.isfinite(values), fold, numbers, "data set")
