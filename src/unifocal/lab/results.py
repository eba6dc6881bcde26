"""The tidy table, and what is computed from it alone.

One row per (dataset, network, loss, fold, seed, case, class, metric) with the number in `value`; NaN where the metric
is undefined. A result is the mean over folds of each fold's mean over images, and over seeds before that; its interval
is the 95 % t-interval over the fold means. Everything in a report can be computed again from this table.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from unifocal.lab.metrics import SIGNED
from unifocal.lab.storage import write_with

COLUMNS = ("dataset", "network", "loss", "fold", "seed", "case", "class", "metric", "value")
CANDIDATE = ["dataset", "network", "loss"]  # what is compared with what, within a data set


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write as CSV; an undefined value is an empty field, every other one is kept to the last bit."""
    write_with(path, lambda part: table.to_csv(part, index=False))


def read_table(path: Path) -> pd.DataFrame:
    # Names such as "NA" or "null" are names; only an empty value is undefined.
    text = dict.fromkeys(("dataset", "network", "loss", "case", "class", "metric"), str)
    table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values={"value": [""]})
    if "value" in table:
        table["value"] = table["value"].astype(float)
    return table


def join_tables(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(COLUMNS))


def fold_means(table: pd.DataFrame) -> pd.DataFrame:
    """Mean over images and seeds, one row per candidate, class, metric and fold; undefined values are left out."""
    keys = [*CANDIDATE, "class", "metric", "fold"]
    by_seed = without_signs(table).groupby([*keys, "seed"], sort=False, observed=True)["value"].mean()
    return by_seed.groupby(keys, sort=False, observed=True).mean().reset_index()


def without_signs(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the absolute value of each metric that has a sign: what means and medians are taken of."""
    return table.assign(value=table["value"].where(~table["metric"].isin(SIGNED), table["value"].abs()))


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """One row per candidate, class and metric: folds, images, undefined, mean, half_width; in the table's order."""
    keys = [*CANDIDATE, "class", "metric"]
    means = fold_means(table).dropna(subset=["value"])
    by_fold = means.groupby(keys, sort=False, observed=True)["value"]
    interval = by_fold.agg(folds="count", mean="mean", half_width=half_width)
    by_image = table.groupby(keys, sort=False, observed=True)["value"]
    counts = by_image.agg(images="size", undefined=lambda values: int(values.isna().sum()))
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
