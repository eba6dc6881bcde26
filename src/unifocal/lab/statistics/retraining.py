"""Two losses at a time, over folds: would networks trained anew differ?

A test over cases takes the trained networks as given. Here each fold, with its own networks, gives one difference,
so the luck of training is in the spread. The training sets of the folds overlap, which makes the plain t-test too
sure of itself; the corrected resampled t-test (Nadeau and Bengio 2003) widens its error:

    t = m / sqrt((1 / J + n_test / n_train) s²),   J - 1 degrees of freedom

with mean m and variance s² of the differences of J folds. It is conservative, and with five folds it finds only
large differences; that is what five trainings can show. Seeds are averaged within a fold: they make its difference
more precise, and are no further folds.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from unifocal.lab.statistics.arrays import Floats, group_means, mean_where
from unifocal.lab.statistics.pairwise import holm, square
from unifocal.lab.statistics.table import Scores

LABEL = "corrected resampled t-test over folds, two-sided"
FEW_FOLDS = 5
NOTHING = 1e-12  # less than the last bits of a mean


@dataclass(frozen=True)
class Retraining:
    """All pairs of losses over folds.

    Attributes:
        ratio: n_test / n_train as counted in cases; those for validation count as training, for they choose the epoch.
        rows: one row per pair: `loss`, `other`, `folds`, `difference` (mean over folds of loss - other), `low`,
            `high` (its corrected 95 % interval), `spread` (standard deviation over folds), `p`, `p_holm`,
            `reasons`. NaN where fewer than two folds have both.
    """

    test: str
    ratio: float
    rows: pd.DataFrame
    reasons: tuple[str, ...]

    def matrix(self, column: str) -> pd.DataFrame:
        """A symmetric column, such as `p_holm`, as a square table of losses; the diagonal is NaN."""
        return square(self.rows, column)


def over_folds(scores: Scores, ratio: float | None = None) -> Retraining:
    """Compare all pairs of losses by the corrected resampled t-test; Holm's family is all pairs.

    `ratio` is n_test / n_train where the scored cases are not all that a fold leaves out.
    """
    sizes = np.bincount(scores.fold)
    if ratio is None:
        ratio = float(np.mean(sizes / (sizes.sum() - sizes))) if len(sizes) > 1 else float("nan")
    rows = []
    for a in range(len(scores.losses) - 1):
        differences = scores.values[a] - scores.values[a + 1 :]
        cases = mean_where(differences, np.isfinite(differences), axis=1)
        folds = group_means(cases.T, scores.fold, len(sizes)).T
        rows += [
            (scores.losses[a], scores.losses[a + 1 + n], *_test(row[np.isfinite(row)], ratio))
            for n, row in enumerate(folds)
        ]
    table = pd.DataFrame(rows, columns=["loss", "other", "folds", "difference", "low", "high", "spread", "p"])
    table["p_holm"] = holm(table["p"].to_numpy(float))
    table["reasons"] = [_reasons(row.folds, len(sizes), row.spread, row.p) for row in table.itertuples()]
    reasons = list(scores.reasons)
    if len(sizes) < 2:
        reasons.append("One fold: nothing is known of other trainings.")
    elif len(sizes) < FEW_FOLDS:
        reasons.append(f"{len(sizes)} folds: only very large differences between trainings can be shown.")
    return Retraining(LABEL, ratio, table, tuple(reasons))


def _test(differences: Floats, ratio: float) -> tuple[int, float, float, float, float, float]:
    folds, nan = len(differences), float("nan")
    if folds < 2:
        return folds, float(differences.mean()) if folds else nan, nan, nan, nan, nan
    mean, spread = float(differences.mean()), float(differences.std(ddof=1))
    if spread < NOTHING:
        return folds, mean, nan, nan, spread, 1.0 if abs(mean) < NOTHING else nan
    error = spread * np.sqrt(1 / folds + ratio)
    half = float(stats.t.ppf(0.975, folds - 1) * error)
    return folds, mean, mean - half, mean + half, spread, float(2 * stats.t.sf(abs(mean) / error, folds - 1))


def _reasons(folds: int, of: int, spread: float, p: float) -> tuple[str, ...]:
    reasons = []
    if folds < of:
        reasons.append(f"{folds} of {of} folds have both.")
    if spread < NOTHING:
        reasons.append(
            "Equal on all folds." if p == 1 else "All folds differ by the same amount: no spread to judge by."
        )
    return tuple(reasons)
