"""The mean of each loss, and how far it can be trusted: over folds, over cases, over seeds.

Over folds: each fold's networks are other networks, so this is the spread of training and test cases together. It
is a t-interval (normal fold means, independent; the training sets overlap, so it is a little too narrow).
Over cases: these networks on other cases of the same kind. Cases of a fold share a network, so the interval does not
contain the luck of training, and is mostly the narrower of the two.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from unifocal.lab.results import without_signs
from unifocal.lab.statistics.arrays import Floats
from unifocal.lab.statistics.table import Scores

KEYS = ("loss", "class", "metric", "dataset", "network")  # the last two where the table has them
FEW_UNITS = 20


def fold_means(table: pd.DataFrame) -> pd.DataFrame:
    """Mean over images, one row per (loss, class, metric, seed, fold); undefined values are left out."""
    keys = [*_keys(table), "seed", "fold"]
    return without_signs(table).groupby(keys, sort=False, observed=True)["value"].mean().reset_index()


def over_seeds(means: pd.DataFrame) -> pd.DataFrame:
    """Of `fold_means` one row per (loss, class, metric, fold): the mean over seeds."""
    keys = [*_keys(means), "fold"]
    return means.groupby(keys, sort=False, observed=True)["value"].mean().reset_index()


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """One row per (loss, class, metric): folds, images, values, undefined, mean, half_width; in the table's order.

    `mean` is the mean over folds of each fold's mean over images, `half_width` half its 95 % t-interval over folds.
    Of several seeds each has its mean over the fold's images, and the fold the mean of these: seeds are no further
    folds. `images` are distinct; `values` are one for each image and seed, of which `undefined` are left out.
    """
    keys = _keys(table)
    means = fold_means(table).dropna(subset=["value"])
    interval = (
        over_seeds(means)
        .groupby(keys, sort=False, observed=True)["value"]
        .agg(folds="count", mean="mean", half_width=half_width)
    )
    found = table.assign(undefined=table["value"].isna()).groupby(keys, sort=False, observed=True)
    counts = found.agg(images=("case", "nunique"), values=("undefined", "size"), undefined=("undefined", "sum"))
    summary = counts.join(interval).reset_index()
    summary["folds"] = summary["folds"].fillna(0).astype(int)
    return summary


def half_width(values: "pd.Series[float] | Sequence[float]", level: float = 0.95) -> float:
    """Half the width of the t-interval of the mean of `values`; NaN for fewer than two."""
    numbers = np.asarray(values, float)
    n = len(numbers)
    if n < 2:
        return float("nan")
    return float(stats.t.ppf((1 + level) / 2, n - 1) * numbers.std(ddof=1) / np.sqrt(n))


def case_intervals(scores: Scores, *, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """One row per loss: cases, units, mean, low, high, reasons; the BCa bootstrap interval (Efron 1987).

    `mean` is the mean over all cases that have a value, seeds averaged first. Whole groups are drawn, so groups of
    several cases widen the interval as they should.
    """
    rows = []
    for loss, values in zip(scores.losses, scores.case_means, strict=True):
        defined = np.isfinite(values)
        unit = np.unique(scores.unit[defined], return_inverse=True)[1]
        total, count = np.bincount(unit, values[defined]).astype(float), np.bincount(unit).astype(float)
        mean = float(total.sum() / count.sum()) if len(total) else float("nan")
        low, high, reasons = ratio_interval(total, count, scores.unit_name, level, resamples, seed)
        rows.append((loss, int(defined.sum()), len(total), mean, low, high, reasons))
    return pd.DataFrame(rows, columns=["loss", "cases", "units", "mean", "low", "high", "reasons"])


def seed_spread(scores: Scores) -> pd.DataFrame:
    """One row per loss: seeds, cases, sd; the standard deviation between seeds of the mean over all cases.

    It is what training again does to the table's number, on the cases that have a value for every seed of the loss.
    """
    rows = []
    for loss, every, run in zip(scores.losses, scores.values, scores.run, strict=True):
        values = every[run.any(1)]
        cases = np.isfinite(values).all(0) & (len(values) > 0)
        means = values[:, cases].mean(1) if cases.any() else np.empty(0)
        sd = float(means.std(ddof=1)) if len(means) > 1 else float("nan")
        rows.append((loss, len(values), int(cases.sum()), sd))
    return pd.DataFrame(rows, columns=["loss", "seeds", "cases", "sd"])


def bca(
    samples: Sequence[Floats], statistic: Callable[..., Any], *, level: float, resamples: int, seed: int
) -> tuple[float, float]:
    """The bias-corrected and accelerated bootstrap interval (Efron 1987) of `statistic(*samples, axis)`.

    The samples are arrays of one length whose entries belong together, and are drawn together.
    """
    interval = stats.bootstrap(
        samples,
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=resamples,
        confidence_level=level,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def ratio_interval(
    total: Floats, count: Floats, unit_name: str, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float, tuple[str, ...]]:
    """The interval of sum(total) / sum(count), units drawn whole, and what speaks against it."""
    if len(total) < 2:
        return float("nan"), float("nan"), (f"Fewer than two {unit_name}s: no interval.",)
    if np.ptp(np.round(total / count, 12)) == 0:
        mean = float(total.sum() / count.sum())
        return mean, mean, (f"Every {unit_name} has the same value: the interval has no width.",)
    low, high = bca(
        (total, count),
        lambda total, count, axis: total.sum(axis) / count.sum(axis),
        level=level,
        resamples=resamples,
        seed=seed,
    )
    few = f"{len(total)} {unit_name}s, fewer than {FEW_UNITS}: a bootstrap interval is then too narrow."
    return low, high, (few,) if len(total) < FEW_UNITS else ()


def _keys(table: pd.DataFrame) -> list[str]:
    return [key for key in KEYS if key in table]
