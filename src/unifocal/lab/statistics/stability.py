"""How much the ranks hang on the cases that happened to be in the data: bootstraps (Wiesenfarth et al. 2021).

Whole units are drawn with replacement, the same for all losses. The networks stay as they are: the spread is that of
other test cases, not of other trainings. Ranks by test are computed by the normal approximation, and bootstraps
repeat units, which makes their tests a little too sure.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from unifocal.lab.data.problems import some
from unifocal.lab.statistics.arrays import Bools, Floats, Ints
from unifocal.lab.statistics.common import Common, common
from unifocal.lab.statistics.pairwise import DIGITS
from unifocal.lab.statistics.ranks import METHODS, ascending, case_ranks, kendall, observed, rank
from unifocal.lab.statistics.table import Scores

SURE = 0.95  # share of bootstraps in which a stable winner is first


@dataclass(frozen=True)
class Stability:
    """Ranks under bootstraps of the cases.

    Attributes:
        rows: one row per (method, loss): `rank` as observed, `low`, `median`, `high` (2.5, 50 and 97.5 % of the
            bootstraps), `first` (share of bootstraps in which it is first, also with others).
        frequencies: one row per (method, loss, rank) that occurred: `share` of the bootstraps.
        kendall: one row per method: `mean`, `low`, `high` of tau-b between the observed and the bootstrap ranking.
    """

    resamples: int
    rows: pd.DataFrame
    frequencies: pd.DataFrame
    kendall: pd.DataFrame
    reasons: tuple[str, ...]


def stability(
    scores: Scores, *, methods: Sequence[str] = METHODS, resamples: int = 1000, seed: int = 0, alpha: float = 0.05
) -> Stability:
    """Rank the losses again on `resamples` bootstraps."""
    shared = common(scores)
    rows, frequencies, taus, reasons = [], [], [], list(shared.reasons)
    enough = shared.units > 1
    if not enough:
        reasons.append(f"Fewer than two {shared.unit_name}s: no bootstrap.")
    draws = _draw(shared.units, resamples, seed) if enough else np.empty((0, shared.units))
    for method in methods:
        original = rank(observed(shared, method, alpha)[None], ascending(method, shared))[0]
        if not enough:
            rows += [(method, loss, r, *[np.nan] * 4) for loss, r in zip(shared.losses, original, strict=True)]
            taus.append((method, *[np.nan] * 3))
            continue
        ranks = rank(_RESAMPLED[method](shared, draws, alpha), ascending(method, shared))
        low, median, high = np.quantile(ranks, [0.025, 0.5, 0.975], axis=0)
        first = (ranks == 1).mean(0)
        rows += list(zip([method] * len(original), shared.losses, original, low, median, high, first, strict=True))
        for n, loss in enumerate(shared.losses):
            found, count = np.unique(ranks[:, n], return_counts=True)
            frequencies += [(method, loss, int(r), c / resamples) for r, c in zip(found, count, strict=True)]
        tau = _agreement(original, ranks)
        spread = (tau.mean(), *np.quantile(tau, [0.025, 0.975])) if len(tau) else [np.nan] * 3
        taus.append((method, *spread))
        reasons += _unstable(method, shared.losses, original, first)
    return Stability(
        resamples,
        pd.DataFrame(rows, columns=["method", "loss", "rank", "low", "median", "high", "first"]),
        pd.DataFrame(frequencies, columns=["method", "loss", "rank", "share"]),
        pd.DataFrame(taus, columns=["method", "mean", "low", "high"]),
        tuple(reasons),
    )


def _agreement(original: Floats, ranks: Floats) -> Floats:
    """Kendall's tau-b of each bootstrap's ranking with the observed one, where it exists; most rankings recur."""
    distinct, place = np.unique(ranks, axis=0, return_inverse=True)
    tau = np.array([kendall(original, other) for other in distinct])[place.ravel()]
    return np.asarray(tau[np.isfinite(tau)])


def _draw(units: int, resamples: int, seed: int) -> Floats:
    """Shape (resamples, units): how often each unit is drawn."""
    counts = np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), size=resamples)
    return counts.astype(float)


def _mean(shared: Common, draws: Floats, _: float) -> Floats:
    weights = draws[:, shared.unit]
    return np.asarray(weights @ shared.values / weights.sum(1, keepdims=True))


def _median(shared: Common, draws: Floats, _: float) -> Floats:
    weights = draws[:, shared.unit]
    half = weights.sum(1, keepdims=True) / 2
    medians = np.empty((len(draws), len(shared.losses)))
    for n, values in enumerate(shared.values.T):
        order = np.argsort(values)
        reached = weights[:, order].cumsum(1)
        lower, upper = (reached >= half).argmax(1), (reached > half).argmax(1)
        medians[:, n] = (values[order][lower] + values[order][upper]) / 2
    return medians


def _mean_rank(shared: Common, draws: Floats, _: float) -> Floats:
    weights = draws[:, shared.unit]
    return np.asarray(weights @ case_ranks(shared) / weights.sum(1, keepdims=True))


def _beaten(shared: Common, draws: Floats, alpha: float) -> Floats:
    """The number of losses that each is significantly better than, in each bootstrap."""
    means, count = shared.unit_means, len(shared.losses)
    first, second = np.triu_indices(count, 1)
    if not len(first):
        return np.zeros((len(draws), count))
    weights = np.ascontiguousarray(draws.T, np.float32)
    z = np.empty((len(first), len(draws)), np.float32)
    for n, (a, b) in enumerate(zip(first, second, strict=True)):
        z[n] = _signed_rank_z((means[:, a] - means[:, b]).round(DIGITS), weights)
    significant = _holm_rejects(2 * special.ndtr(-np.abs(z)), alpha)
    up = significant & ((z > 0) != shared.lower_is_better)
    down = significant & ~up
    beaten = [up[first == n].sum(0) + down[second == n].sum(0) for n in range(count)]
    return np.stack(beaten, axis=1).astype(float)


def _signed_rank_z(differences: Floats, weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """The signed-rank sum over its standard deviation, unit u counting `weights[u]` times; one for each resample."""
    order = np.argsort(np.abs(differences), kind="stable")
    weights = weights[order]
    ranks = weights.copy()
    for place in range(1, len(ranks)):  # a cumsum over the first axis, three times as fast as NumPy's
        ranks[place] += ranks[place - 1]
    ends = _ends(np.abs(differences)[order])
    if ends is None:
        ranks -= (weights - 1) / 2
    else:  # tied units share the middle of their ranks
        last, first = ends
        below = ranks[first - 1] * (first > 0)[:, None].astype(np.float32)
        ranks = ranks[last] + below
        ranks += 1
        ranks /= 2
    sign = np.sign(differences[order]).astype(np.float32)
    weights *= ranks
    total = sign @ weights
    weights *= ranks
    spread = np.sqrt(np.abs(sign) @ weights)
    return np.asarray(np.divide(total, spread, out=np.zeros_like(spread), where=spread > 0))


def _ends(size: Floats) -> tuple[Ints, Ints] | None:
    """For each place of a sorted array the last and the first place of equal values; None if all differ."""
    last, first = np.searchsorted(size, size, "right") - 1, np.searchsorted(size, size, "left")
    return (last, first) if (last > first).any() else None


def _holm_rejects(p: Floats, alpha: float) -> Bools:
    """Holm's decisions for every column of p-values."""
    ordered = np.sort(p, axis=0)
    passed = np.logical_and.accumulate(ordered <= alpha / np.arange(len(p), 0, -1)[:, None], axis=0)
    last = passed.sum(0)
    limit = np.where(last > 0, np.take_along_axis(ordered, np.maximum(last - 1, 0)[None], axis=0)[0], -1.0)
    return np.asarray(p <= limit)


def _unstable(method: str, losses: tuple[str, ...], ranks: Floats, first: Floats) -> list[str]:
    winners = np.flatnonzero(ranks == 1)
    if len(losses) < 2:
        return []
    if len(winners) > 1:
        return [f"By {method}, the first place is shared by {some([losses[n] for n in winners])}."]
    winner = winners[0]
    if first[winner] >= SURE:
        return []
    rival = int(np.argmax(np.where(np.arange(len(losses)) == winner, -1, first)))
    return [
        f"By {method}, {losses[winner]} is first in {first[winner]:.0%} of the bootstraps, "
        f"{losses[rival]} in {first[rival]:.0%}: the first place is not settled."
    ]


_RESAMPLED = {"mean": _mean, "median": _median, "mean rank": _mean_rank, "test": _beaten}
