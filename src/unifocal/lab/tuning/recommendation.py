"""What a sweep recommends, and whether its validation cases can tell that from the next best and from the default.

A validation case may be one in several folds; its networks are then averaged, for it is no further case. The tests are
those of any comparison, with Holm's correction over all pairs of what was tried, since the best was picked among them.
"""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from unifocal.lab.choices import LossChoice
from unifocal.lab.experiment import Experiment
from unifocal.lab.report.numbers import interval, notes_on, p_equals, span, value
from unifocal.lab.results import join_tables
from unifocal.lab.settings import Settings
from unifocal.lab.statistics.intervals import half_width
from unifocal.lab.statistics.pairwise import pairwise
from unifocal.lab.statistics.retraining import over_folds
from unifocal.lab.statistics.table import make_scores
from unifocal.lab.statistics.verdict import LOSSES_DIFFER, NETWORKS_DIFFER, NOT_SHOWN, NOT_TESTED, verdicts
from unifocal.lab.storage import write_json, write_text
from unifocal.lab.tuning.confirming import CONFIRM, FRESH, confirming
from unifocal.lab.tuning.trials import METRIC
from unifocal.lab.words import counted

HEADINGS = ("value", f"{METRIC}, validation", f"{METRIC}, test", "")
NOTHING_TO_CONFIRM = "There is nothing to confirm: what is recommended is the loss that the sweep began with."
SAYS = {
    LOSSES_DIFFER: "The data tell the two apart, for new cases and for new trainings.",
    NETWORKS_DIFFER: "The data tell these networks apart, but not the losses: new trainings may turn out otherwise.",
    NOT_SHOWN: "The data cannot tell the two apart.",
    NOT_TESTED: "No case has a value from both.",
}


@dataclass(frozen=True)
class Recommendation:
    """The outcome of a sweep in words.

    Attributes:
        told: the loss, how it stands to others, and what may be concluded; a sentence or two each.
        confirm: the command that would confirm it; None where it is the loss that the sweep began with.
    """

    loss: LossChoice
    told: tuple[str, ...]
    confirm: str | None

    @property
    def lines(self) -> list[str]:
        return [*self.told, *([f"{CONFIRM}: {self.confirm}", FRESH] if self.confirm else [NOTHING_TO_CONFIRM])]


def recommend(
    best: LossChoice,
    start: LossChoice,
    table: pd.DataFrame,
    means: Mapping[str, float],
    validation: Mapping[str, pd.DataFrame],
    tested: Mapping[str, pd.DataFrame],
    experiment: Experiment,
    settings: Settings,
    out: Path,
) -> Recommendation:
    """Say what the sweep warrants.

    Args:
        start: what the sweep began with.
        table: a row for each value tried.
        means: validation score by the label of each plain loss tried, and `validation` and `tested` its tables.
    """
    label, beginning = best.plain().label, start.plain().label
    named = f"{beginning}, with which the sweep began," if start.plain().arguments else f"the default, {beginning},"
    told = [f"recommended: {best.label if label != beginning else named.rstrip(',')}"]
    chosen = table.groupby("stage")["chosen"].transform("any")
    for parameter in table.loc[~chosen, "parameter"].unique():
        told.append(f"{parameter} stays as it was: no value tried was better.")
    others = sorted((other for other, mean in means.items() if other != label and mean == mean), key=means.__getitem__)
    rivals = dict.fromkeys([*others[-1:], *(other for other in others if other == beginning)])
    of_start = []  # verdicts on the loss that the sweep began with
    for target in experiment.dataset.classes[1:] if rivals else ():
        rows = _standing(label, validation, experiment, target)
        where = f" in {target}" if len(experiment.dataset.classes) > 2 else ""
        for other in rivals:
            row = next(row for row in rows if (row["loss"], row["other"]) == (label, other))
            is_start, is_next = other == beginning, other == others[-1]
            which = named.rstrip(",") if is_start else other
            told.append(f"against {'the next best, ' if is_next else ''}{which}{where}: {_sentence(row)}")
            of_start += [row["verdict"]] if is_start else []
    if not rivals:
        told.append("Nothing else has a result: there is nothing to compare it with.")
    elif label != beginning and not of_start:
        told.append(f"Whether it is better than {named} is not known: that was not among the values tried.")
    elif of_start and set(of_start) == {NOT_SHOWN}:
        told.append(f"By these data {named} is as good a choice.")
    told.append(concluded(experiment, len(validation)))
    told += nested(validation, tested, beginning, named, stages=int(table["stage"].max()))
    confirm = None
    if label != beginning:
        confirm = confirming(settings, (best, start), experiment.dataset.root, out, max(settings.seeds) + 1)
    return Recommendation(best, tuple(told), confirm)


def concluded(experiment: Experiment, tried: int) -> str:
    """What chose, and what the scores may be taken for."""
    tested = {case for split in experiment.splits for case in split.test}
    both = tested & {case for split in experiment.splits for case in split.validation}
    chose = f"The validation cases chose, of all folds together; p by Holm over all pairs of the {tried} losses tried."
    if not tested:
        return f"{chose} Nothing was tested."
    if not both:
        return f"{chose} The test cases chose nothing."
    return (
        f"{chose} No fold's test cases chose in that fold, but {len(both)} of the {len(tested)} chose in another: the "
        "test scores of what is recommended are a little too good, and are no independent estimate."
    )


def nested(
    validation: Mapping[str, pd.DataFrame], tested: Mapping[str, pd.DataFrame], beginning: str, named: str, stages: int
) -> list[str]:
    """How good choosing is on cases that chose nothing: each fold by its validation cases, on its test cases."""
    order = sorted(validation, key=lambda label: label != beginning)  # of equals it stays as it was
    chose = pd.DataFrame({label: by_fold(validation[label]) for label in order})
    scores = pd.DataFrame({label: by_fold(tested[label]) for label in order}).reindex(chose.index)
    chosen = chose.where(scores.notna()).dropna(how="all").idxmax(axis=1)
    if chosen.empty:
        return []
    own = pd.Series([scores.loc[fold, label] for fold, label in chosen.items()], chosen.index)
    picks = ", ".join(f"{label} on {counted(number, 'fold')}" for label, number in chosen.value_counts().items())
    told = f"Had each fold chosen alone, by its own validation cases ({picks}): {_mean(own)} on its test cases, "
    told += "which chose nothing"
    if beginning in scores and (both := scores.loc[own.index, beginning].notna()).any():
        gain = (own - scores[beginning])[both]
        told += f"; {_mean(gain)} more than {named.rstrip(',')}"
    later = " What was tried after the first stage was what all folds had chosen together." if stages > 1 else ""
    return [f"{told}.{later}"]


def by_fold(table: pd.DataFrame) -> "pd.Series[float]":
    """The mean score of each fold, over classes, cases and seeds."""
    return table[table["metric"] == METRIC].groupby("fold")["value"].mean().dropna()


def _mean(folds: "pd.Series[float]") -> str:
    return f"{interval(float(folds.mean()), half_width(folds.tolist()), METRIC)} {METRIC}"


def _standing(
    best: str, validation: Mapping[str, pd.DataFrame], experiment: Experiment, target: str
) -> list[dict[str, Any]]:
    """Pairs of losses with both tests and their verdict; `best` stands first in its pairs."""
    table = join_tables([validation[label] for label in sorted(validation, key=lambda label: label != best)])
    places = table["fold"].astype(str) + " " + table["case"]
    groups = {case.id: group for case, group in zip(experiment.dataset.cases, experiment.groups, strict=True)}
    of_places = dict(zip(places, table["case"].map(groups), strict=True))
    scores = make_scores(table.assign(case=places), METRIC, target, groups=of_places)
    is_grouped = len(set(experiment.groups)) < len(experiment.groups)
    scores = replace(scores, unit_name="group" if is_grouped else "case")
    ratio = statistics.fmean(len(split.validation) / len(split.train) for split in experiment.splits)
    cases, folds = pairwise(scores), over_folds(scores, ratio)
    verdict = verdicts(cases, folds).rows.rename(columns={"better": "favoured"})
    rows = cases.rows.assign(unit=scores.unit_name, **verdict[["p_cases", "p_folds", "verdict", "favoured"]])
    found: list[dict[str, Any]] = rows.to_dict("records")
    return found


def _sentence(row: Mapping[str, Any]) -> str:
    """How the best stands to another, and whether the data can tell them apart."""
    difference, unit, says = row["difference"], row["unit"], SAYS[row["verdict"]]
    units = counted(int(row["units"]), "validation case" if unit == "case" else "group")
    if row["favoured"] == row["other"]:
        says = "The tests favour that one: a few large differences decide the mean."
    over_units = _p(row["p_cases"], f"over {unit}s")
    if row["verdict"] in (LOSSES_DIFFER, NETWORKS_DIFFER) and row["low"] <= 0 <= row["high"]:
        over_units += " by ranks, though the interval holds 0"
    return (
        f"{'+' if difference > 0 else ''}{value(difference, METRIC)} {METRIC} on {units}"
        f"{' of validation cases' if unit == 'group' else ''}, 95 % interval {span(row['low'], row['high'], METRIC)} "
        f"({over_units}; {_p(row['p_folds'], 'over folds')}). {says}"
    )


def _p(p: float, over: str) -> str:
    return f"no test {over}" if math.isnan(p) else f"{p_equals(p)} {over}"


def rows_of(table: pd.DataFrame) -> list[tuple[str, str, str, str]]:
    """A row for each value tried, below `HEADINGS`."""
    return [
        (
            f"{row.parameter} = {row.value}",
            interval(row.validation, row.validation_half_width, METRIC),
            interval(row.test, row.test_half_width, METRIC),
            "chosen" if row.chosen else "",
        )
        for row in table.itertuples()
    ]


def notes(table: pd.DataFrame) -> list[str]:
    """What is to be said of the intervals in `rows_of`."""
    return notes_on(
        (mean, half, METRIC)
        for part in ("validation", "test")
        for mean, half in zip(table[part], table[f"{part}_half_width"], strict=True)
    )


def write_words(found: Recommendation, table: pd.DataFrame, experiment: Experiment, out: Path) -> None:
    """Write `tuning.json`, for programs and the report, and `summary.md`."""
    write_json(
        out / "tuning.json", {"recommended": found.loss.label, "told": list(found.told), "confirm": found.confirm}
    )
    lines = [HEADINGS, ("---", "---:", "---:", "---"), *rows_of(table)]
    sections = [
        f"# Sweep on {experiment.dataset.name}",
        f"{counted(len(table), 'value')} in {counted(int(table['stage'].max()), 'stage')}, on "
        f"{counted(len(experiment.splits), 'fold')}. `tuning.csv` has every value.",
        "\n".join(f"| {' | '.join(cells)} |" for cells in lines),
        " ".join(["Mean over folds, ± half its 95 % t-interval.", *notes(table)]),
        "\n".join(f"- {line}" for line in found.lines),
    ]
    write_text(out / "summary.md", "\n\n".join(sections) + "\n")
