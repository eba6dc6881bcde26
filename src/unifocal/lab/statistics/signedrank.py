"""Wilcoxon's signed-rank test: exact for small samples also with ties and zeros, where SciPy's is not."""

from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from unifocal.lab.statistics.arrays import Floats

EXACT = 50  # differences that are not zero, up to which the exact distribution is used


@dataclass(frozen=True)
class SignedRank:
    """Sums of the ranks of the positive and of the negative differences, and the two-sided p-value."""

    plus: float
    minus: float
    p: float

    def effect(self, n: int) -> float:
        """Matched-pairs rank-biserial correlation of n differences: (plus - minus) / (n (n + 1) / 2), in [-1, 1]."""
        return (self.plus - self.minus) / (n * (n + 1) / 2)


def signed_rank(differences: Floats) -> SignedRank:
    """Test whether finite differences are symmetric about zero.

    Zeros are ranked and then left out (Pratt 1959): dropping them first, SciPy's default, makes the remaining ones
    look more alike than they are. Up to `EXACT` differences that are not zero the p-value counts sign patterns
    (Streitberg and Röhmel 1986), beyond it is the normal approximation with the variance of the ties.
    """
    ranks = stats.rankdata(np.abs(differences))
    plus, minus = float(ranks[differences > 0].sum()), float(ranks[differences < 0].sum())
    ranks = ranks[differences != 0]
    if not len(ranks):
        return SignedRank(0.0, 0.0, 1.0 if len(differences) else float("nan"))
    if len(ranks) <= EXACT:
        return SignedRank(plus, minus, _exact(ranks, max(plus, minus)))
    z = (plus - minus) / np.sqrt((ranks**2).sum())
    return SignedRank(plus, minus, float(2 * special.ndtr(-abs(z))))


def _exact(ranks: Floats, larger: float) -> float:
    """The share of the 2^n sign patterns whose larger sum is at least `larger`."""
    doubled = np.rint(2 * ranks).astype(int)  # mean ranks are whole or half
    share = np.zeros(doubled.sum() + 1)
    share[0] = 1.0
    for rank in doubled:
        share[rank:] = (share[rank:] + share[:-rank]) / 2
        share[:rank] /= 2
    return min(1.0, 2 * float(share[round(2 * larger) :].sum()))
