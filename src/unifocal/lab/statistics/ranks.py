"""Ranks of the losses, by four methods; they may disagree, and then the order is a matter of taste.

    mean        by the mean over cases
    median      by the median over cases: bad failures on few cases do not count
    mean rank   each case ranks the losses, and the ranks are averaged: large differences count as small ones
    test        by the number of losses that one is significantly better than (signed-rank, Holm, two-sided)

As in challengeR (Wiesenfarth et al. 2021): aggregate then rank, rank then aggregate, test then rank. Rank 1 is best,
and ties share the lowest rank. Every case counts the same in the first three; tests and bootstraps take groups as
the independent units.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from unifocal.lab.statistics.arrays import Floats
from unifocal.lab.statistics.common import Common, common
from unifocal.lab.statistics.pairwise import DIGITS, holm
from unifocal.lab.statistics.signedrank import signed_rank
from unifocal.lab.statistics.table import Scores

METHODS = ("mean", "median", "mean rank", "test")


@dataclass(frozen=True)
class Rankings:
    """The losses that have every run, on the cases that all of them share.

    Attributes:
        rows: one row per (method, loss): `value` (that which is ranked; for the test the number of losses beaten),
            `rank`.
        agreement: Kendall's tau-b between the methods, methods by methods; NaN where a method ties all losses.
    """

    rows: pd.DataFrame
    agreement: pd.DataFrame
    reasons: tuple[str, ...]

    def matrix(self) -> pd.DataFrame:
        """Losses by methods, the ranks."""
        return self.rows.pivot(index="loss", columns="method", values="rank").loc[
            list(dict.fromkeys(self.rows["loss"])), list(METHODS)
        ]


def rankings(scores: Scores, alpha: float = 0.05) -> Rankings:
    """Rank the losses by every method."""
    shared = common(scores)
    values = {method: observed(shared, method, alpha) for method in METHODS}
    ranks = {method: rank(found[None], ascending(method, shared))[0] for method, found in values.items()}
    rows = pd.DataFrame(
        [
            (method, loss, values[method][n], ranks[method][n])
            for method in METHODS
            for n, loss in enumerate(shared.losses)
        ],
        columns=["method", "loss", "value", "rank"],
    )
    agreement = pd.DataFrame(
        [[kendall(ranks[a], ranks[b]) for b in METHODS] for a in METHODS], index=list(METHODS), columns=list(METHODS)
    )
    reasons = list(shared.reasons)
    first = {method: {shared.losses[n] for n in np.flatnonzero(ranks[method] == 1)} for method in METHODS}
    if len(shared.losses) > 1 and not set.intersection(*first.values()) and len(shared.values):
        reasons.append("The methods of ranking disagree about the first place.")
    return Rankings(rows, agreement, tuple(reasons))


def observed(shared: Common, method: str, alpha: float) -> Floats:
    """The number by which each loss is ranked."""
    values = shared.values.round(DIGITS)
    if not len(values):
        return np.full(len(shared.losses), np.nan)
    if method == "mean":
        return np.asarray(values.mean(0))
    if method == "median":
        return np.asarray(np.median(values, axis=0))
    if method == "mean rank":
        return np.asarray(case_ranks(shared).mean(0))
    return _beaten(shared, alpha)


def case_ranks(shared: Common) -> Floats:
    """Shape (cases, losses): the rank of each loss on each case, 1 for the best, ties averaged."""
    values = shared.values.round(DIGITS)
    return np.asarray(stats.rankdata(values if shared.lower_is_better else -values, axis=1))


def ascending(method: str, shared: Common) -> bool:
    """Whether a low number is good."""
    return method == "mean rank" or (shared.lower_is_better and method != "test")


def rank(values: Floats, low_is_good: bool) -> Floats:
    """Ranks within each row, 1 for the best, ties sharing the lowest; NaN stays NaN."""
    rounded = values.round(DIGITS)
    return np.asarray(
        stats.rankdata(rounded if low_is_good else -rounded, method="min", axis=1, nan_policy="propagate")
    )


def kendall(first: Floats, second: Floats) -> float:
    """Kendall's tau-b of two rankings; NaN if one of them ties everything."""
    if np.ptp(first) > 0 and np.ptp(second) > 0:
        return float(stats.kendalltau(first, second).statistic)
    return float("nan")


def _beaten(shared: Common, alpha: float) -> Floats:
    means = shared.unit_means
    pairs = list(combinations(range(len(shared.losses)), 2))
    beaten = np.zeros(len(shared.losses))
    if not pairs:
        return beaten
    results = [signed_rank((means[:, a] - means[:, b]).round(DIGITS)) for a, b in pairs]
    significant = holm(np.array([result.p for result in results])) <= alpha
    for (a, b), result, is_significant in zip(pairs, results, significant, strict=True):
        if is_significant and result.plus != result.minus:
            beaten[a if (result.plus > result.minus) != shared.lower_is_better else b] += 1
    return beaten
