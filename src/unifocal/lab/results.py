"""The tidy table, and what is computed from it alone.

One row per (dataset, network, loss, fold, seed, case, class, metric) with the number in `value`; NaN where the metric
is undefined. Everything in a report can be computed again from it: see `unifocal.lab.statistics`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unifocal.lab.errors import LabError
from unifocal.lab.metrics import SIGNED
from unifocal.lab.storage import ANEW, write_with

UNKNOWN = "unknown"  # the device of a run that has lost its `result.json`
COLUMNS = ("dataset", "network", "loss", "fold", "seed", "case", "class", "metric", "value")
CANDIDATE = ["dataset", "network", "loss"]  # what is compared with what, within a data set


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write as CSV; an undefined value is an empty field, every other one is kept to the last bit."""
    write_with(path, lambda part: table.to_csv(part, index=False))


def is_whole(path: Path, rows: int | None = None) -> bool:
    """Is there a text that ends with its last line, and with a header has so many rows, if that is known?"""
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return False
    return text.endswith("\n") and (rows is None or text.count("\n") > rows)


def rows_of(result: Mapping[str, Any], table: str) -> int | None:
    """How long a table of a finished run is; None where an earlier version did not say."""
    rows = result.get("rows")
    return rows.get(table) if isinstance(rows, dict) else None


def read_table(path: Path, rows: int | None = None) -> pd.DataFrame:
    """Raises LabError, with what to do, for a damaged one."""
    try:
        table = _read(path)
    except ValueError as error:
        raise LabError(f"expected a table; {path} is damaged ({error}). {ANEW}") from None
    if not is_whole(path, rows):
        raise LabError(f"expected a whole table; {path} is cut short. {ANEW}")
    if "value" in table and (infinite := table[np.isinf(table["value"])]).size:
        row = infinite.iloc[0]
        what = ", ".join(f"{name} {row[name]}" for name in ("loss", "case", "metric") if name in row)
        raise LabError(f"expected numbers, or nothing where undefined; {path} has an infinite value ({what}). {ANEW}")
    return table


def _read(path: Path) -> pd.DataFrame:
    # Names such as "NA" or "null" are names; only an empty value is undefined.
    text = dict.fromkeys(("dataset", "network", "loss", "case", "class", "metric"), str)
    table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values={"value": [""]})
    if "value" in table:
        table["value"] = table["value"].astype(float)
    return table


def join_tables(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(COLUMNS))


def without_signs(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the absolute value of each metric that has a sign: what means and medians are taken of."""
    return table.assign(value=table["value"].where(~table["metric"].isin(SIGNED), table["value"].abs()))
