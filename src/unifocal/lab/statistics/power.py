"""The smallest difference that this study could have seen: what "no difference shown" leaves open.

For a paired t-test of n units whose differences have the standard deviation s, it is

    δ = s ν / √n,   with ν such that P(|T| > t) = power,  T ~ noncentral t(n - 1, ν),  t its two-sided critical value

(Cohen 1988). For the corrected test over J folds √n becomes
1 / sqrt(1 / J + n_test / n_train). The signed-rank test needs about 5 % more units than the t-test where
differences are normal, and fewer where they have heavy tails. `s` is that of this study: a difference smaller than
δ may exist and was likely to be missed; it is not a p-value in other clothes, and says nothing of a pair that was
shown to differ.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy import optimize, stats

from unifocal.lab.statistics.pairwise import paired_differences
from unifocal.lab.statistics.retraining import over_folds
from unifocal.lab.statistics.table import Scores

QUANTILES = 4000  # the power is then good to five digits


@dataclass(frozen=True)
class Power:
    """The smallest detectable mean differences, in the metric's unit.

    Attributes:
        rows: one row per pair: `loss`, `other`, `units`, `sd` (of the differences of units; NaN where they do not
            vary), `detectable` (over cases, a single test at `alpha`), `detectable_holm` (if it must pass the first
            step of Holm's correction over all pairs, alpha / pairs), `folds`, `detectable_folds` and
            `detectable_folds_holm` (likewise over folds).
        typical: the medians of the four over all pairs.
    """

    alpha: float
    power: float
    rows: pd.DataFrame
    typical: "pd.Series[float]"
    reasons: tuple[str, ...]


def detectable(scores: Scores, *, alpha: float = 0.05, power: float = 0.8) -> Power:
    """The smallest mean difference of each pair that is found with probability `power`."""
    folds = over_folds(scores)
    pairs = max(1, len(folds.rows))
    rows = []
    for a, others in paired_differences(scores):
        for b, differences in others:
            both = differences[np.isfinite(differences)]
            n = len(both)
            sd = float(both.std(ddof=1)) if n > 1 and np.ptp(both) > 0 else float("nan")
            one, many = noncentrality(n, alpha, power), noncentrality(n, alpha / pairs, power)
            root = np.sqrt(max(n, 1))
            rows.append((scores.losses[a], scores.losses[b], n, sd, sd * one / root, sd * many / root))
    columns = ["loss", "other", "units", "sd", "detectable", "detectable_holm"]
    table = pd.DataFrame(rows, columns=columns)
    table["folds"] = folds.rows["folds"].to_numpy()
    errors = folds.rows["spread"].to_numpy(float) * np.sqrt(1 / table["folds"].clip(lower=1) + folds.ratio)
    for column, level in ("detectable_folds", alpha), ("detectable_folds_holm", alpha / pairs):
        table[column] = errors * np.array([noncentrality(n, level, power) for n in table["folds"]])
    typical = table[[column for column in table if column.startswith("detectable")]].median()
    reasons = list(scores.reasons)
    if rows and typical.isna().all():
        reasons.append(f"Too few {scores.unit_name}s to say what could have been seen.")
    return Power(alpha, power, table, typical, tuple(reasons))


@lru_cache(maxsize=4096)
def noncentrality(n: int, alpha: float, power: float) -> float:
    """ν of the module's equation: the smallest mean difference in standard errors; NaN for fewer than two.

    T > t where a normal Z > t sqrt(V / (n - 1)) - ν, V with n - 1 degrees of freedom; the mean over V is taken over
    its quantiles. SciPy's noncentral t is NaN for many large ν, and `TTestPower.solve_power` then returns a wrong
    number without a word (3.32 for n = 5000, alpha = 1e-5).
    """
    if n < 2:
        return float("nan")
    t = stats.t.isf(alpha / 2, n - 1)
    quantiles = stats.chi2.ppf((np.arange(QUANTILES) + 0.5) / QUANTILES, n - 1)
    limits = t * np.sqrt(quantiles / (n - 1))

    def missing(nu: float) -> float:
        return float((stats.norm.sf(limits - nu) + stats.norm.cdf(-limits - nu)).mean()) - power

    missed = (1 - power) / 2  # by Z, and by V: together at most 1 - power, so the end of the bracket has enough power
    end = t * np.sqrt(stats.chi2.isf(missed, n - 1) / (n - 1)) + stats.norm.isf(missed)
    return float(optimize.brentq(missing, 0, end + 1))
