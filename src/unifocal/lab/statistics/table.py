"""The tidy table as one block of numbers: loss by seed by case, for one metric of one class on one data set.

What was not run and what is undefined are kept apart: a run that failed leaves no row, a metric without a value
leaves NaN.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from unifocal.lab.data.problems import some, suggest
from unifocal.lab.errors import LabError
from unifocal.lab.results import without_signs
from unifocal.lab.statistics.arrays import Bools, Floats, Ints, mean_where
from unifocal.lab.words import counted

NEEDED = ("loss", "fold", "seed", "case", "class", "metric", "value")
CONSTANT = ("dataset", "network")  # optional columns that must not vary within one block


@dataclass(frozen=True)
class Scores:
    """One metric of one class.

    Attributes:
        values: shape (losses, seeds, cases); NaN where the metric is undefined or the run is missing.
        run: same shape; whether the table has a row, that is, whether a network was tested there.
        fold: number of the fold that tests each case, the same for all losses and seeds.
        unit: number of the independent unit of each case: its group, or the case itself.
        unit_name: what a unit is called, in the singular.
    """

    metric: str
    lower_is_better: bool
    losses: tuple[str, ...]
    seeds: tuple[int, ...]
    cases: tuple[str, ...]
    values: Floats
    run: Bools
    fold: Ints
    unit: Ints
    unit_name: str

    @property
    def incomplete(self) -> tuple[str, ...]:
        """The losses without a row for some seed and case."""
        return tuple(loss for loss, run in zip(self.losses, self.run, strict=True) if not run.all())

    @property
    def case_means(self) -> Floats:
        """Shape (losses, cases): the mean over the seeds that have a value; NaN where none has."""
        return mean_where(self.values, np.isfinite(self.values), axis=1)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the losses cannot all be compared on the same footing; empty if they can."""
        reasons = []
        if len(self.losses) < 2:
            reasons.append("There is one loss: nothing to compare.")
        if self.incomplete:
            reasons.append(f"Not every result is there: {some(self.incomplete)}.")
        undefined = self.run & np.isnan(self.values)
        uneven = undefined.any(0) & (self.run & ~undefined).any(0)
        if uneven.any():
            reasons.append(
                f"{self.metric} is undefined for some losses only, on {int(uneven.any(0).sum())} of "
                f"{counted(len(self.cases), 'case')}. Leaving these out favours the losses that fail there."
            )
        return tuple(reasons)


def make_scores(
    table: pd.DataFrame,
    metric: str,
    class_name: str,
    *,
    groups: Mapping[str, Hashable | None] | None = None,
    lower_is_better: bool = False,
) -> Scores:
    """Take one metric of one class out of the tidy table.

    The rows of all metrics tell what was tested: a case without a row of this one is a case without a result.

    Args:
        table: one row for each loss, fold, seed, case, class and metric; one data set and one network.
        groups: group of every case; None where it is unknown, and the case then stands for itself.
        lower_is_better: true for distances.

    Of metrics with a sign the size is taken.

    Raises LabError for rows that are absent, doubled, infinite or contradict each other.
    """
    every = _rows(table, metric, class_name)
    loss, losses = pd.factorize(every["loss"])
    case, cases = pd.factorize(every["case"])
    seed, seeds = pd.factorize(every["seed"], sort=True)
    fold, _ = pd.factorize(every["fold"], sort=True)
    is_metric = (every["metric"] == metric).to_numpy()
    places = loss[is_metric], seed[is_metric], case[is_metric]
    rows = without_signs(every[is_metric])
    twice = pd.DataFrame(dict(enumerate(places))).duplicated().to_numpy()
    if twice.any():
        row = rows[twice].iloc[0]
        raise LabError(
            f"expected one value for each loss, seed and case; case {row['case']!r} of {row['loss']!r}, "
            f"seed {row['seed']}, has several for {metric}. Remove the doubled rows."
        )
    fold_of = np.zeros(len(cases), np.intp)
    fold_of[case] = fold
    moved = fold_of[case] != fold
    if moved.any():
        raise LabError(
            f"expected each case in one fold, for all losses and seeds; case {every['case'].to_numpy()[moved][0]!r} "
            "is in several. Look at comparisons with different folds one at a time."
        )
    shape = (len(losses), len(seeds), len(cases))
    values, run = np.full(shape, np.nan), np.zeros(shape, bool)
    values[places] = rows["value"].to_numpy(float)
    run[places] = True
    unit, unit_name = _units([str(name) for name in cases], groups)
    return Scores(
        metric, lower_is_better, tuple(losses), tuple(seeds), tuple(cases), values, run, fold_of, unit, unit_name
    )


def completeness(scores: Scores) -> pd.DataFrame:
    """One row per (loss, seed, fold): cases, missing (no row), undefined (a row without a value)."""
    rows = []
    for n, loss in enumerate(scores.losses):
        for s, seed in enumerate(scores.seeds):
            for fold in range(int(scores.fold.max()) + 1):
                here = scores.fold == fold
                run, values = scores.run[n, s, here], scores.values[n, s, here]
                rows.append((loss, seed, fold, len(run), int((~run).sum()), int((run & np.isnan(values)).sum())))
    return pd.DataFrame(rows, columns=["loss", "seed", "fold", "cases", "missing", "undefined"])


def _rows(table: pd.DataFrame, metric: str, class_name: str) -> pd.DataFrame:
    """Of the class, of all metrics."""
    missing = [name for name in NEEDED if name not in table]
    if missing:
        raise LabError(f"expected a table with the columns {', '.join(NEEDED)}; {', '.join(missing)} is not there.")
    for name, wanted in (("class", class_name), ("metric", metric)):
        known = [str(word) for word in table[name].unique()]
        if wanted not in known:
            raise LabError(
                f"expected a {name} of the table: {', '.join(known) or 'it is empty'}; got {wanted!r}."
                f"{suggest(wanted, known)}"
            )
    rows = table[table["class"] == class_name]
    is_metric = rows["metric"] == metric
    if not is_metric.any():
        raise LabError(f"expected rows of {metric} for the class {class_name!r}; the table has none.")
    for name in CONSTANT:
        if name in rows and rows[name].nunique() > 1:
            raise LabError(
                f"expected one {name} at a time; got {some(map(str, rows[name].unique()))}. "
                f"Choose the rows of one, e.g. table[table[{name!r}] == ...]."
            )
    if np.isinf(rows.loc[is_metric, "value"].to_numpy(float)).any():
        raise LabError(f"expected a number or, where {metric} is undefined, NaN; got an infinite value.")
    return rows


def _units(cases: list[str], groups: Mapping[str, Hashable | None] | None) -> tuple[Ints, str]:
    if groups is None:
        return np.arange(len(cases)), "case"
    unknown = [case for case in cases if case not in groups]
    if unknown:
        raise LabError(f"expected the group of every case, None where it is unknown; nothing for {some(unknown)}.")
    # A case of no group is a unit of its own, and no name of a group can be taken for it.
    keys: list[Hashable] = [("case", case) if groups[case] is None else ("group", groups[case]) for case in cases]
    number = {key: n for n, key in enumerate(dict.fromkeys(keys))}
    unit = np.array([number[key] for key in keys], np.intp)
    return unit, "group" if len(number) < len(cases) else "case"
