"""All losses at once: Friedman's test on their ranks, and the critical difference of Nemenyi (Demšar 2006).

Each unit (a case or group of one data set, or a data set) ranks the losses; the test asks whether the mean ranks
differ by more than chance. Units must be independent of each other: on one data set the answer holds for these
trained networks, over data sets for the losses.

    χ² = 12 N / (k (k + 1)) [Σ_j R_j² - k (k + 1)² / 4] / C        N units, k losses, mean ranks R_j
    C  = 1 - Σ (t³ - t) / (N k (k² - 1))                           ties of t losses within a unit
    F  = (N - 1) χ² / (N (k - 1) - χ²)                             Iman and Davenport 1980
    CD = q_α sqrt(k (k + 1) / (6 N))                               q_α: studentised range / √2

Demšar leaves out C. Nemenyi's test of two losses depends on which others take part (Benavoli et al. 2016): the
diagram is an overview, `pairwise` the test.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from unifocal.lab.statistics.arrays import Floats
from unifocal.lab.statistics.common import common
from unifocal.lab.statistics.pairwise import DIGITS
from unifocal.lab.statistics.table import Scores
from unifocal.lab.words import counted

FEW = 10  # units below which its p is told to be rough


@dataclass(frozen=True)
class Friedman:
    """What the test says of the losses that have every run.

    Attributes:
        chi2, tie_correction: the statistic, and C by which it is divided (1 without ties).
        f, p: Iman and Davenport's statistic and its p-value, from F with k - 1 and (k - 1)(N - 1) degrees of freedom;
            not below k!^(1 - N), the smallest that orders of k losses on N units can have.
        mean_ranks: by loss, best (lowest) first.
        critical_difference: of mean ranks, at `alpha`.
        bars: runs of neighbours in `mean_ranks` that the critical difference does not separate; at least two each.
        nemenyi: p-values, losses by losses, as `scikit_posthocs.critical_difference_diagram` takes them.
    """

    unit_name: str
    units: int
    chi2: float
    tie_correction: float
    f: float
    p: float
    mean_ranks: "pd.Series[float]"
    alpha: float
    critical_difference: float
    bars: tuple[tuple[str, ...], ...]
    nemenyi: pd.DataFrame
    reasons: tuple[str, ...]


def friedman(scores: Scores, alpha: float = 0.05) -> Friedman:
    """Test and critical-difference diagram of the losses that have every run, on the units that all of them share."""
    shared = common(scores)
    values = shared.unit_means.round(DIGITS) * (1 if scores.lower_is_better else -1)
    n, k = values.shape
    ranks = stats.rankdata(values, axis=1) if n else values
    mean_ranks = pd.Series(ranks.mean(0) if n else np.full(k, np.nan), index=list(shared.losses))
    mean_ranks = mean_ranks.sort_values(kind="stable")
    chi2, correction, f, p = _statistics(values)
    nan = float("nan")
    difference = critical_difference(k, n, alpha) if n and k > 1 else nan
    reasons = list(shared.reasons)
    if k == 2:
        reasons.append("Two losses: the signed-rank test answers the question, Friedman's test needs three.")
    elif p > alpha:
        reasons.append("Friedman's test finds no difference: the diagram must not be read for single pairs.")
    if k > 2 and 1 < n < FEW:
        few = counted(n, shared.unit_name)
        reasons.append(f"{few}: Friedman's p is an approximation that is too small for so few.")
    if difference >= k - 1:
        reasons.append(
            f"{counted(n, shared.unit_name)} {'is' if n == 1 else 'are'} too few: the critical difference of {k} "
            "losses is larger than any difference in rank."
        )
    return Friedman(
        shared.unit_name,
        n,
        chi2,
        correction,
        f,
        p,
        mean_ranks,
        alpha,
        difference,
        _bars(mean_ranks, difference),
        _nemenyi(values, shared.losses),
        tuple(reasons),
    )


def critical_difference(losses: int, units: int, alpha: float) -> float:
    """The difference in mean rank from which two of `losses` count as different (Nemenyi)."""
    q = stats.studentized_range.ppf(1 - alpha, losses, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(losses * (losses + 1) / (6 * units)))


def _statistics(values: Floats) -> tuple[float, float, float, float]:
    """chi2, tie_correction, f and p of units by losses; NaN where there are fewer than three losses or two units."""
    n, k = values.shape
    if k < 3 or n < 2:
        nan = float("nan")
        return nan, nan, nan, nan
    ties = sum(
        float((counts**3 - counts).sum()) for row in values for counts in [np.unique(row, return_counts=True)[1]]
    )
    correction = 1 - ties / (n * k * (k**2 - 1))
    if correction < 1e-9:
        return 0.0, 0.0, 0.0, 1.0  # every unit ties all losses
    chi2 = float(stats.friedmanchisquare(*values.T).statistic)
    rest = n * (k - 1) - chi2
    f = (n - 1) * chi2 / rest if rest > 1e-9 else float("inf")
    # No p can be lower than that of all units in one order, which F does not know: it calls two units sure.
    return (
        chi2,
        correction,
        f,
        max(float(stats.f.sf(f, k - 1, (k - 1) * (n - 1))), math.exp((1 - n) * math.lgamma(k + 1))),
    )


def _bars(mean_ranks: "pd.Series[float]", difference: float) -> tuple[tuple[str, ...], ...]:
    """The longest runs of neighbours less than `difference` apart; a run within another is not told."""
    ranks, names = mean_ranks.to_numpy(), list(mean_ranks.index)
    bars, last = [], 0
    for start in range(len(ranks)):
        end = int(np.sum(ranks - ranks[start] < difference))
        if end - start > 1 and end > last:
            bars.append(tuple(names[start:end]))
            last = end
    return tuple(bars)


def _nemenyi(values: Floats, losses: tuple[str, ...]) -> pd.DataFrame:
    if len(losses) < 2 or not len(values):
        return pd.DataFrame(np.nan, index=list(losses), columns=list(losses))
    from scikit_posthocs import posthoc_nemenyi_friedman  # it imports pyplot

    table: pd.DataFrame = posthoc_nemenyi_friedman(values)
    table.index = table.columns = pd.Index(losses)
    return table
