"""The tidy table.

One row per (loss, fold, seed, case, class, metric) with the number in `value`; NaN where the metric is undefined.
Everything in a report can be computed again from it: see `unifocal.lab.statistics`.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from unifocal.lab.storage import write_with

COLUMNS = ("loss", "fold", "seed", "case", "class", "metric", "value")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write as CSV; an undefined value is an empty field, every other one is kept to the last bit."""
    write_with(path, lambda part: table.to_csv(part, index=False))


def read_table(path: Path) -> pd.DataFrame:
    # Names such as "NA" or "null" are names; only an empty value is undefined.
    text = {"loss": str, "case": str, "class": str, "metric": str}
    table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values={"value": [""]})
    table["value"] = table["value"].astype(float)
    return table


def join_tables(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(COLUMNS))
