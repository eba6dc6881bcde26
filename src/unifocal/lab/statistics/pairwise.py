"""Two losses at a time, over cases, with Holm's correction over all pairs.

What is tested: whether *these trained networks* differ on new cases like those tested. Cases are independent of
each other given the networks, which is all that the test needs; that the networks of one fold share their luck in
training does not enter, so it does not say what new trainings would give (see `retraining` for that).

The unit is the case, paired over losses, seeds averaged first. Where groups hold several cases, the unit is the
group and its value the mean over its cases: patients are independent, the images of one are not.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from unifocal.lab.statistics.arrays import Floats, group_means, mean_where
from unifocal.lab.statistics.intervals import half_width
from unifocal.lab.statistics.signedrank import signed_rank
from unifocal.lab.statistics.table import Scores
from unifocal.lab.words import counted

Test = Literal["signed-rank", "rank-sum"]
LABELS: dict[Test, str] = {
    "signed-rank": "Wilcoxon signed-rank test, paired, two-sided",
    "rank-sum": "Wilcoxon rank-sum test, two-sided, corrected for ties; unpaired, as in the papers: it does not use "
    "that all losses were tested on the same cases",
}
EFFECTS: dict[Test, str] = {"signed-rank": "matched-pairs rank-biserial correlation", "rank-sum": "Cliff's delta"}
DIGITS = 12  # differences are rounded to these, so that equal ones tie whatever their last bits say
MANY_TIES = 0.5
COLUMNS = ["loss", "other", "better", "units", "difference", "low", "high", "wins", "ties", "defeats"]
COLUMNS += ["effect", "standardised", "p"]


@dataclass(frozen=True)
class Pairwise:
    """All pairs of losses under one test.

    Attributes:
        test: what the test is called.
        effect: what the effect size is called.
        unit_name: what was paired: case, group (its mean), or data set.
        rows: one row per pair: `loss`, `other`, `units` (that have a value from both), `difference` (mean of loss -
            other), its 95 % t-interval `low`, `high`, `wins`, `ties`, `defeats` of `loss` in units, `effect` in
            [-1, 1] and `standardised` (mean / standard deviation of the differences; Cohen's d_z), both positive
            where `loss` is better, `better` (the name that the effect favours, empty if neither), `p`, `p_holm`,
            `reasons`. NaN where a pair has nothing to test.
    """

    test: str
    effect: str
    unit_name: str
    rows: pd.DataFrame
    reasons: tuple[str, ...]

    def matrix(self, column: str) -> pd.DataFrame:
        """A symmetric column, such as `p_holm`, as a square table of losses; the diagonal is NaN."""
        return square(self.rows, column)


def pairwise(scores: Scores, test: Test = "signed-rank", alpha: float = 0.05) -> Pairwise:
    """Compare all pairs of losses; the family of Holm's correction is all pairs of this class and metric."""
    sign = -1.0 if scores.lower_is_better else 1.0
    means = unit_means(scores, scores.values)
    rows = []
    for a, others in paired_differences(scores):
        for b, differences in others:
            here = np.isfinite(differences)
            row = _describe(differences[here], sign)
            if test == "signed-rank":
                effect, row["p"] = _signed_rank(differences[here])
            else:
                effect, row["p"] = _rank_sum(means[a, here], means[b, here])
            row["effect"] = sign * effect
            better = scores.losses[a] if row["effect"] > 0 else scores.losses[b] if row["effect"] < 0 else ""
            rows.append({"loss": scores.losses[a], "other": scores.losses[b], "better": better, **row})
    table = pd.DataFrame(rows, columns=COLUMNS)
    table["p_holm"] = holm(table["p"].to_numpy(float))
    pairs = int(table["p"].notna().sum())
    table["reasons"] = [
        _reasons(row.units, row.ties, row.effect * row.standardised < 0, pairs, alpha, scores.unit_name)
        for row in table.itertuples()
    ]
    return Pairwise(LABELS[test], EFFECTS[test], scores.unit_name, table, scores.reasons)


def paired_differences(scores: Scores) -> Iterator[tuple[int, list[tuple[int, Floats]]]]:
    """For each loss, the losses after it with the differences of every unit; NaN where they share no value.

    A difference is taken seed by seed where both have a value, then averaged over seeds, then over the unit's cases.
    """
    for a in range(len(scores.losses) - 1):
        means = unit_means(scores, scores.values[a] - scores.values[a + 1 :])
        yield a, [(a + 1 + n, row) for n, row in enumerate(means.round(DIGITS))]


def unit_means(scores: Scores, values: Floats) -> Floats:
    """From (n, seeds, cases) to (n, units): the mean over seeds, then over the cases of each unit."""
    over_seeds = mean_where(values, np.isfinite(values), axis=1)
    return group_means(over_seeds.T, scores.unit, int(scores.unit.max()) + 1).T


def holm(p: Floats) -> Floats:
    """Adjust p-values by Holm's step-down method (Holm 1979); NaN takes no part.

    The same as statsmodels' `multipletests`, which collects garbage at every call and so takes 0.1 s each.
    """
    adjusted = np.full(len(p), np.nan)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested])]
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1.0)
    return adjusted


def square(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """A column of a table of pairs as a symmetric square; the diagonal is NaN."""
    losses = list(dict.fromkeys([*rows["loss"], *rows["other"]]))
    matrix = pd.DataFrame(np.nan, index=losses, columns=losses)
    for loss, other, value in zip(rows["loss"], rows["other"], rows[column], strict=True):
        matrix.loc[loss, other] = matrix.loc[other, loss] = value
    return matrix


def _describe(differences: Floats, sign: float) -> dict[str, float]:
    n = len(differences)
    mean = float(differences.mean()) if n else float("nan")
    half = half_width(differences)
    varies = n > 1 and np.ptp(differences) > 0
    return {
        "units": n,
        "difference": mean,
        "low": mean - half,
        "high": mean + half,
        "wins": int((sign * differences > 0).sum()),
        "ties": int((differences == 0).sum()),
        "defeats": int((sign * differences < 0).sum()),
        "standardised": sign * mean / float(differences.std(ddof=1)) if varies else float("nan"),
    }


def _signed_rank(differences: Floats) -> tuple[float, float]:
    """Rank-biserial correlation and p-value."""
    result = signed_rank(differences)
    return result.effect(len(differences)) if len(differences) else float("nan"), result.p


def _rank_sum(first: Floats, second: Floats) -> tuple[float, float]:
    """Cliff's delta and the p-value, normal approximation with the variance of the ties."""
    if not len(first):
        return float("nan"), float("nan")
    first, second = first.round(DIGITS), second.round(DIGITS)
    if np.ptp([first, second]) == 0:
        return 0.0, 1.0
    result = stats.mannwhitneyu(first, second, use_continuity=False, method="asymptotic")
    return 2 * float(result.statistic) / (len(first) * len(second)) - 1, float(result.pvalue)


def _reasons(units: int, ties: int, opposed: bool, pairs: int, alpha: float, unit_name: str) -> tuple[str, ...]:
    reasons = []
    smallest = 2.0 ** (1 - (units - ties))  # p where all differences have one sign
    if not units:
        return (f"No {unit_name} has a value from both.",)
    if ties == units:
        return (f"Equal on all {units} {unit_name}s." if units > 1 else f"Equal on the only {unit_name}.",)
    differ = f"{counted(units - ties, unit_name)} that {'differs' if units - ties == 1 else 'differ'}"
    if smallest > alpha:
        reasons.append(f"{differ}: no result can reach p ≤ {alpha:g}.")
    elif smallest * pairs > alpha:
        reasons.append(f"{differ} are too few for Holm's correction of {pairs} pairs.")
    if ties / units > MANY_TIES:
        reasons.append(f"{ties} of {units} {unit_name}s are tied.")
    if opposed:
        reasons.append("The mean favours one loss, the ranks the other: a few large differences decide the mean.")
    return tuple(reasons)
