"""Results by the size of what was to be found: cases by the size of their foreground, lesions by their own.

Small, medium and large are thirds by size; equal sizes stay together, so the thirds need not be equal, and one of them
may be missing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from unifocal.lab.data.cases import Dataset
from unifocal.lab.evaluation import SIZES
from unifocal.lab.statistics.intervals import case_intervals, ratio_interval
from unifocal.lab.statistics.table import Scores

FAVOURED = ("DSC", "IoU", "precision", "NSD")  # 1 where nothing is rightly found: means that empty cases move


@dataclass(frozen=True)
class Third:
    """Those cases, or lesions, between two sizes.

    Attributes:
        number: of cases or lesions.
        rows: one row per loss: `loss`, `mean`, `low`, `high`; of lesions the recall as `mean`.
    """

    name: str
    smallest: float
    largest: float
    number: int
    rows: pd.DataFrame


def thirds(sizes: "pd.Series[float]") -> "pd.Series[int]":
    """The third, 0 to 2, that each size falls into."""
    bounds = np.quantile(sizes, (1 / 3, 2 / 3)) if len(sizes) else []
    return pd.Series(np.searchsorted(bounds, sizes), index=sizes.index)


def foreground_sizes(dataset: Dataset, target: str) -> "pd.Series[float]":
    """Voxels of the class in each case that has any, in mm³, of pictures in pixels."""
    index = dataset.classes.index(target)
    sizes = {
        case.id: facts.voxels[index] * float(np.prod(facts.spacing or (1,)))
        for case, facts in zip(dataset.cases, dataset.facts, strict=True)
    }
    found = pd.Series(sizes, dtype=float)
    return found[found > 0]


def by_case_size(scores: Scores, sizes: "pd.Series[float]") -> list[Third]:
    """The mean of each loss over the cases of each third, with its bootstrap interval over cases."""
    tested = sizes[sizes.index.isin(scores.cases)]
    which = thirds(tested)
    found = []
    for n, name in enumerate(SIZES):
        part = tested[which == n]
        if len(part):
            rows = case_intervals(_only(scores, set(part.index)), resamples=1000)
            found.append(Third(name, part.min(), part.max(), len(part), rows))
    return found


def false_alarms(rows: pd.DataFrame, sizes: "pd.Series[float]") -> pd.DataFrame:
    """Of the cases without foreground `cases`, how many, and `share`, of those in which each loss finds some; and of
    each of `FAVOURED` the mean over the cases with foreground. Each case counts by the mean over its seeds. `rows` are
    of one class."""
    shows = rows["case"].isin(sizes.index)
    found = rows[(rows["metric"] == "DSC") & ~shows & rows["value"].notna()]
    by_case = (found["value"] < 1).groupby([found["loss"], found["case"]], sort=False).mean()
    alarms = by_case.groupby("loss", sort=False)
    table = pd.DataFrame({"cases": alarms.size(), "share": alarms.mean()})
    for metric in FAVOURED:
        of_metric = rows[(rows["metric"] == metric) & shows]
        by_case = of_metric.groupby(["loss", "case"], sort=False)["value"].mean()
        table[metric] = by_case.groupby("loss", sort=False).mean().reindex(table.index)
    return table


def by_lesion_size(lesions: pd.DataFrame, unit: Mapping[str, int]) -> list[Third]:
    """The share of the lesions of each third that each loss finds, over all seeds, with its bootstrap interval.

    Lesions are of one class; `unit` is the number of the independent unit of each case, which is drawn whole.
    """
    if lesions.empty:
        return []
    # Every loss was tested on the same lesions; those of one run of each case stand for all.
    distinct = lesions[~lesions.duplicated(["case", "number"])]
    which = thirds(distinct["size"])
    bounds = [(part.min(), part.max(), len(part)) for n in range(3) for part in [distinct["size"][which == n]]]
    found = []
    for name, (smallest, largest, number) in zip(SIZES, bounds, strict=True):
        if number:
            part = lesions[lesions["size"].between(smallest, largest)]
            rows = [(loss, *_recall(mine, unit)) for loss, mine in part.groupby("loss", sort=False)]
            table = pd.DataFrame(rows, columns=["loss", "mean", "low", "high"])
            found.append(Third(name, smallest, largest, number, table))
    return found


def _recall(lesions: pd.DataFrame, unit: Mapping[str, int]) -> tuple[float, float, float]:
    """The share found, and its interval."""
    units = lesions.groupby(lesions["case"].map(unit), sort=True)["found"].agg(["sum", "size"]).astype(float)
    total, count = units["sum"].to_numpy(), units["size"].to_numpy()
    return (total.sum() / count.sum(), *ratio_interval(total, count, "unit", resamples=1000)[:2])


def numbered(lesions: pd.DataFrame) -> pd.DataFrame:
    """The table of lesions with the number of each within its case and run, and whether it was found."""
    keys = ["dataset", "network", "loss", "fold", "seed", "case", "class"]
    number = lesions.groupby(keys, sort=False).cumcount()
    return lesions.assign(number=number, found=lesions["overlap"].astype(float) > 0)


def _only(scores: Scores, cases: set[str]) -> Scores:
    chosen = np.array([case in cases for case in scores.cases])
    return replace(
        scores,
        cases=tuple(case for case in scores.cases if case in cases),
        values=scores.values[..., chosen],
        run=scores.run[..., chosen],
        fold=scores.fold[chosen],
        unit=scores.unit[chosen],
    )
