"""Where a conclusion is not warranted, and why: sentences, the gravest first."""

from collections.abc import Iterator

import numpy as np

from unifocal.lab.data.problems import some
from unifocal.lab.experiment import Experiment
from unifocal.lab.report.analysis import Block
from unifocal.lab.report.numbers import percent
from unifocal.lab.report.reading import PlannedRun, Study
from unifocal.lab.report.sizes import FAVOURED
from unifocal.lab.report.tuned import search_so_far
from unifocal.lab.results import UNKNOWN
from unifocal.lab.statistics.intervals import FEW_UNITS
from unifocal.lab.statistics.retraining import FEW_FOLDS
from unifocal.lab.twins import warnings_of
from unifocal.lab.words import counted

STILL_FALLING = 0.5  # share of runs whose best epoch is the last, from which on training was too short
NEXT_TO_NOTHING = 0.01  # recall
MOST = 0.5  # share of cases
UNEQUAL = 1.5  # ratio of the largest to the smallest fold from which on it is told


def warnings(study: Study, blocks: list[Block]) -> list[str]:
    """What a reader must know before believing a number."""
    found = [
        *(text for name, experiment in study.experiments.items() for text in _leakage(_of(name, study), experiment)),
        *_unfinished(study),
        *warnings_of(study.settings.losses, {len(dataset.classes) for dataset in study.datasets.values()}),
        *study.damaged,
        *(text for block in blocks for text in _block(block)),
        *_training(study),
        *(text for name, experiment in study.experiments.items() for text in _data(_of(name, study), experiment)),
    ]
    return list(dict.fromkeys(found))


def _unfinished(study: Study) -> Iterator[str]:
    failed = [run for run in study.runs if run.state == "failed"]
    left = [run for run in study.runs if run.state in ("running", "waiting")]
    if failed:
        yield (
            f"{counted(len(failed), 'run')} of {len(study.runs)} failed. Losses without every run are compared on "
            "fewer cases, and none of them is called the best."
        )
    if so_far := search_so_far(study):
        yield f"{so_far}. This page compares the losses at their defaults alone."
    if left:
        have = "has" if len(left) == 1 else "have"
        yield f"{counted(len(left), 'run')} of {len(study.runs)} {have} not finished: all of this may still change."


def _of(name: str, study: Study) -> str:
    """Which data set is meant, where there are several."""
    return f"{name}: " if len(study.datasets) > 1 else ""


def _leakage(of: str, experiment: Experiment) -> Iterator[str]:
    parted = _parted(experiment)
    if parted:
        yield (
            f"{of}Leakage: of {counted(len(parted), 'group')} of cases that belong together (a patient, "
            f"near-duplicates) some are trained on and others tested on, as the division was published "
            f"({some(parted)}). Scores are too good by an unknown amount."
        )


def _data(of: str, experiment: Experiment) -> Iterator[str]:
    if all(case.group is None for case in experiment.dataset.cases):
        yield (
            f"{of}No patient is named, so cases of one patient may lie in different folds. --groups FILE names them."
        )
    tests = [len(split.test) for split in experiment.splits]
    if len(tests) > 1 and max(tests) > UNEQUAL * max(min(tests), 1):
        yield f"{of}The folds are unequal, {min(tests)} to {max(tests)} test cases; each counts the same in the means."


def _parted(experiment: Experiment) -> list[str]:
    """Groups of which a fold trains on one case and tests on another, by the name of a case."""
    found: dict[int, str] = {}
    for split in experiment.splits:
        seen = {experiment.groups[i] for i in (*split.train, *split.validation)}
        for i in split.test:
            if experiment.groups[i] in seen:
                found.setdefault(experiment.groups[i], experiment.dataset.cases[i].id)
    return list(found.values())


def _block(block: Block) -> Iterator[str]:
    of = f"{block.title}: " if block.title else ""
    yield from (of + text for text in _lacking(block))
    if block.scores is None:
        return
    units = len(np.unique(block.scores.unit))
    if units < FEW_UNITS:
        name = block.scores.unit_name
        too_few = "is too little" if units == 1 else "are too few"
        yield f"{of}{counted(units, name)} {too_few} for firm conclusions; {FEW_UNITS} would still be few."
    folds = int(block.scores.fold.max()) + 1
    if folds == 1:
        yield f"{of}One fold: nothing is known of other trainings of the same losses."
    elif folds < FEW_FOLDS:
        yield f"{of}{folds} folds: only very large differences between trainings can be shown."
    if len(block.scores.losses) > 1:
        reasons = [*block.scores.reasons, *block.rankings.reasons, *block.stability.reasons]
        yield from (of + block.shortly(text) for text in dict.fromkeys(reasons) if _is_grave(text))
        yield from (of + text for text in _order(block))
    yield from (of + text for text in _alarms(block))
    yield from (of + text for text in _collapsed(block))


def _lacking(block: Block) -> Iterator[str]:
    """Results that are not there of runs that are."""
    mine = block.lacking.get(block.metric, {})
    for loss, number in mine.items():
        yield (
            f"{counted(number, 'result')} of {block.names[loss]} on test cases {'is' if number == 1 else 'are'} "
            "not there, though every run is: its means are of other cases, and it is not called the best."
        )
    others = [metric for metric, lacking in block.lacking.items() if lacking and lacking != mine]
    if others:
        yield (
            f"Results in {some(others)} are not there for some losses, though every run is: they are not called the "
            "best by these."
        )


def _is_grave(reason: str) -> bool:
    """Is a reason of the statistics one for the top of the page? All stand below their tables as well."""
    by_mean = reason.startswith("By mean,") or "methods of ranking disagree" in reason
    return by_mean or "undefined for some losses only" in reason


def _order(block: Block) -> Iterator[str]:
    """Means over folds and means over cases that put different losses first."""
    rows = block.rankings.rows
    first = rows[(rows["method"] == "mean") & (rows["rank"] == 1)]["loss"].tolist()
    top = next((loss for loss in block.ranked if loss in block.complete), None)
    if first and top and top not in first and block.is_even(block.metric):
        yield (
            f"The mean over folds puts {block.names[top]} first, the mean over cases "
            f"{some([block.names[loss] for loss in first])}: neither is settled."
        )


def _alarms(block: Block) -> Iterator[str]:
    """Cases without foreground, which a network passes or fails as a whole."""
    shares = block.alarms["share"] if len(block.alarms) else None
    if shares is None or shares.max() == 0:
        return
    low, high = percent(shares.min()), percent(shares.max())
    every = f"{low} of them" if low == high else f"{low} to {high} of them, by loss"
    yield (
        f"{counted(int(block.alarms['cases'].max()), 'case')} of {block.cases['case'].nunique()} show no "
        f"{block.target}, and the networks find some in {every}. In {some(FAVOURED)} such a case counts 1 for a loss "
        "that finds nothing and 0 for one that finds any, so their means favour the loss that finds less; the results "
        "have a table of the means over the other cases."
    )


def _collapsed(block: Block) -> Iterator[str]:
    """Losses whose networks find next to nothing on most cases that show the class."""
    rows = block.cases[(block.cases["metric"] == "recall") & block.cases["case"].isin(block.sizes.index)]
    share = (rows["value"] < NEXT_TO_NOTHING).groupby(rows["loss"], sort=False).mean()
    dead = share[share > MOST]
    if len(dead):
        named = some([f"with {block.names[loss]} in {percent(part)} of these cases" for loss, part in dead.items()])
        yield (
            f"The trained networks find less than {percent(NEXT_TO_NOTHING)} of {block.target} in many cases that show "
            f"it: {named}. Other settings (learning rate, epochs) may be at fault rather than the "
            "loss."
        )


def _training(study: Study) -> Iterator[str]:
    finished = [run for run in study.runs if run.result]
    last = [run for run in finished if study.settings.early_stop is None and _is_last(run)]
    if study.settings.keep == "best" and finished and len(last) > STILL_FALLING * len(finished):
        yield (
            f"In {len(last)} of {counted(len(finished), 'run')} the last epoch was the best one: training was still "
            "getting better, and more epochs may change the order."
        )
    if len(study.settings.seeds) == 1 and finished:
        yield "One seed: how much the first weights matter is not known apart from the folds."
    for what, values in _mixed(finished).items():
        yield f"The runs are not of one kind: {what} {' and '.join(sorted(values))}."


def _is_last(run: PlannedRun) -> bool:
    epochs = int(run.result.get("epochs", 0))
    return epochs > 1 and int(run.result.get("best_epoch", -1)) == epochs - 1


def _mixed(runs: list[PlannedRun]) -> dict[str, set[str]]:
    """Versions and devices of which there are several; of a run whose record was lost they are not known."""
    seen: dict[str, set[str]] = {}
    for run in runs:
        for name, value in {**run.result.get("versions", {}), "device": run.result.get("device", "")}.items():
            if value != UNKNOWN:
                seen.setdefault(name, set()).add(str(value))
    return {name: values for name, values in seen.items() if len(values) > 1}
