"""The cells that all losses share: what ranks and Friedman's test need, where a test of two losses needs two only."""

from dataclasses import dataclass

import numpy as np

from unifocal.lab.data.problems import some
from unifocal.lab.statistics.arrays import Floats, Ints, group_means, mean_where
from unifocal.lab.statistics.table import Scores
from unifocal.lab.words import counted


@dataclass(frozen=True)
class Common:
    """What all of some losses have: shape (cases, losses), averaged over seeds, no NaN."""

    metric: str
    lower_is_better: bool
    losses: tuple[str, ...]
    values: Floats
    unit: Ints
    unit_name: str
    reasons: tuple[str, ...]

    @property
    def units(self) -> int:
        return int(self.unit.max(initial=-1)) + 1

    @property
    def unit_means(self) -> Floats:
        """Shape (units, losses): the mean over the cases of each unit."""
        return group_means(self.values, self.unit, self.units)


def common(scores: Scores) -> Common:
    """Reduce to the losses with every run and any value, on the cells where all of them have one.

    If fewer than two losses are left, all of them are taken on the cells that they share.
    """
    incomplete = {*scores.incomplete}
    incomplete |= {loss for n, loss in enumerate(scores.losses) if not np.isfinite(scores.values[n]).any()}
    few = len(scores.losses) - len(incomplete) < 2
    kept = [n for n, loss in enumerate(scores.losses) if few or loss not in incomplete]
    values = scores.values[kept]
    shared = np.isfinite(values).all(0)  # (seeds, cases)
    cases = shared.any(0)
    means = mean_where(values, np.broadcast_to(shared, values.shape), axis=1)[:, cases].T
    unit = np.unique(scores.unit[cases], return_inverse=True)[1].astype(np.intp)
    reasons = list(scores.reasons)
    if incomplete and not few:
        reasons.append(f"Left out of what follows: {some([loss for loss in scores.losses if loss in incomplete])}.")
    if not cases.any():
        reasons.append(f"No case has a value of {scores.metric} from every loss.")
    elif not cases.all():
        reasons.append(f"{int(cases.sum())} of {counted(len(scores.cases), 'case')} have a value from every loss.")
    losses = tuple(scores.losses[n] for n in kept)
    return Common(scores.metric, scores.lower_is_better, losses, means, unit, scores.unit_name, tuple(reasons))
