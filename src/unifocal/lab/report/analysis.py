"""What the statistics say of each class of each data set on each network: a `Block` each. Nothing is computed here."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from unifocal.lab.data.cases import Dataset
from unifocal.lab.data.problems import suggest
from unifocal.lab.errors import LabError
from unifocal.lab.experiment import Experiment
from unifocal.lab.metrics import LOWER_IS_BETTER, METRICS
from unifocal.lab.report.labels import short_names
from unifocal.lab.report.numbers import called
from unifocal.lab.report.reading import Study
from unifocal.lab.report.sizes import Third, by_case_size, by_lesion_size, false_alarms, foreground_sizes, numbered
from unifocal.lab.statistics.friedman import Friedman, friedman
from unifocal.lab.statistics.intervals import case_intervals, seed_spread, summarise
from unifocal.lab.statistics.pairwise import Pairwise, pairwise
from unifocal.lab.statistics.power import Power, detectable
from unifocal.lab.statistics.ranks import METHODS, Rankings, rankings
from unifocal.lab.statistics.retraining import Retraining, over_folds
from unifocal.lab.statistics.stability import Stability, stability
from unifocal.lab.statistics.table import Scores, make_scores
from unifocal.lab.statistics.verdict import Verdicts, verdicts

MANY = 24  # losses from which on the slow method of ranking is bootstrapped no more, and figures show the first
ALPHA = 0.05


@dataclass(frozen=True)
class Block:
    """One class of one data set on one network, under one metric.

    Attributes:
        title: what tells it from the other blocks; empty where it is the only one.
        losses: labels of all that were asked for, in order.
        names: short name of each.
        done: finished runs of each, of `planned`.
        lacking: by metric and loss with every run, how many results of test cases are not there; 0 is left out.
        summary: as `results.summarise`, of all metrics.
        cases: the rows of the results table, of all metrics.
        scores: of the metric; None where no run has tested anything.
    """

    dataset: Dataset
    network: str
    target: str
    metric: str
    title: str
    losses: tuple[str, ...]
    names: Mapping[str, str]
    done: Mapping[str, int]
    planned: int
    lacking: Mapping[str, Mapping[str, int]]
    summary: pd.DataFrame
    cases: pd.DataFrame
    scores: Scores | None
    lesions: pd.DataFrame

    @property
    def called(self) -> str:
        """The metric in words."""
        return called(self.metric)

    @property
    def lower_is_better(self) -> bool:
        return self.metric in LOWER_IS_BETTER

    @property
    def spacing(self) -> tuple[float, ...] | None:
        return self.dataset.facts[0].spacing

    @property
    def complete(self) -> tuple[str, ...]:
        """The losses that finished every run, with a result of every case: only these can be the best."""
        return self.complete_in(self.metric)

    @property
    def finished(self) -> tuple[str, ...]:
        """The losses that finished every run."""
        return tuple(loss for loss in self.losses if self.done[loss] == self.planned)

    def complete_in(self, metric: str) -> tuple[str, ...]:
        """The losses that finished every run, with a row of the metric for every case and seed; it may be undefined."""
        lacking = self.lacking.get(metric, {})
        return tuple(loss for loss in self.finished if loss not in lacking)

    def means(self, metric: str) -> pd.DataFrame:
        """mean, half_width, images, values, undefined of a metric, by loss; those without a row are left out."""
        return self.summary[self.summary["metric"] == metric].set_index("loss")

    def is_even(self, metric: str) -> bool:
        """Is a metric defined on as many cases for each complete loss? Else one that fails often may look the best."""
        return bool(self.means(metric)["undefined"].reindex(self.complete_in(metric)).nunique() <= 1)

    def shortly(self, text: str) -> str:
        """A sentence of the statistics in the page's words: the short names of losses, and a space before %."""
        for label in sorted(self.losses, key=len, reverse=True):
            if label != self.names[label]:
                text = text.replace(label, self.names[label])
        return re.sub(r"(?<=\d)%", " %", text)

    @cached_property
    def ranked(self) -> tuple[str, ...]:
        """The losses that have a mean, best first; complete ones before the others."""
        means = self.means(self.metric)["mean"].dropna()
        ordered = means.sort_values(ascending=self.lower_is_better, kind="stable").index
        complete = set(self.complete)
        return tuple(sorted(ordered, key=lambda loss: loss not in complete))

    @cached_property
    def pairs(self) -> Pairwise:
        return pairwise(self._scores, alpha=ALPHA)

    @cached_property
    def unpaired(self) -> Pairwise:
        """The papers' own test."""
        return pairwise(self._scores, "rank-sum", ALPHA)

    @cached_property
    def retraining(self) -> Retraining:
        return over_folds(self._scores)

    @cached_property
    def verdicts(self) -> Verdicts:
        return verdicts(self.pairs, self.retraining, ALPHA)

    @cached_property
    def power(self) -> Power:
        return detectable(self._scores, alpha=ALPHA)

    @cached_property
    def friedman(self) -> Friedman:
        return friedman(self._scores, ALPHA)

    @cached_property
    def rankings(self) -> Rankings:
        return rankings(self._scores, ALPHA)

    @cached_property
    def stability(self) -> Stability:
        methods = METHODS if len(self._scores.losses) <= MANY else METHODS[:3]
        return stability(self._scores, methods=methods, alpha=ALPHA)

    @cached_property
    def over_cases(self) -> pd.DataFrame:
        return case_intervals(self._scores)

    @cached_property
    def seeds(self) -> pd.DataFrame:
        return seed_spread(self._scores)

    @cached_property
    def sizes(self) -> "pd.Series[float]":
        """Of the foreground of each case that has any."""
        return foreground_sizes(self.dataset, self.target)

    @cached_property
    def alarms(self) -> pd.DataFrame:
        """Without foreground: the cases, and the share with a false alarm, by loss; no row where there are none."""
        return false_alarms(self.cases, self.sizes)

    @cached_property
    def case_thirds(self) -> list[Third]:
        return by_case_size(self._scores, self.sizes)

    @cached_property
    def lesion_thirds(self) -> list[Third]:
        unit = dict(zip(self._scores.cases, self._scores.unit.tolist(), strict=True))
        return by_lesion_size(self.lesions, unit)

    @property
    def _scores(self) -> Scores:
        if self.scores is None:
            raise LabError(f"expected results of {self.metric}; no run of {self.title or self.target} has any.")
        return self.scores


def analyse(study: Study, metric: str) -> list[Block]:
    """A block for each data set, network and class, in the order of the settings.

    Raises LabError for a metric that there is none of.
    """
    metric = next((known for known in METRICS if known.lower() == metric.lower()), metric)
    if metric not in METRICS:
        raise LabError(f"expected a metric: {', '.join(METRICS)}; got {metric!r}.{suggest(metric, METRICS)}")
    names = short_names(study.losses)
    tables = {} if study.cases.empty else dict(list(study.cases.groupby(["dataset", "network", "class"], sort=False)))
    lesions = numbered(study.lesions)
    keys = [
        (name, network, target)
        for name, experiment in study.experiments.items()
        for target in experiment.dataset.classes[1:]
        for network in study.networks
    ]
    several = [len({key[n] for key in keys}) > 1 for n in range(3)]
    blocks = []
    for key in keys:
        name, network, target = key
        experiment = study.experiments[name]
        mine = [run for run in study.runs if (run.dataset, run.network) == (name, network)]
        done = {loss: sum(run.loss == loss and run.is_finished for run in mine) for loss in study.losses}
        planned = len(experiment.splits) * len(study.settings.seeds)
        table = tables.get(key, study.cases.iloc[:0])
        here = (lesions[column] == word for column, word in zip(("dataset", "network", "class"), key, strict=True))
        blocks.append(
            Block(
                dataset=experiment.dataset,
                network=network,
                target=target,
                metric=metric,
                title=", ".join(word for word, is_telling in zip(key, several, strict=True) if is_telling),
                losses=study.losses,
                names=names,
                done=done,
                planned=planned,
                lacking=_lacking(table, [loss for loss in study.losses if done[loss] == planned], experiment, study),
                summary=summarise(table) if len(table) else _NOTHING,
                cases=table,
                scores=_scores(table, metric, target, experiment, study.losses),
                lesions=lesions[np.logical_and.reduce(list(here))],
            )
        )
    return blocks


def _lacking(table: pd.DataFrame, losses: list[str], experiment: Experiment, study: Study) -> dict[str, dict[str, int]]:
    """A row is due of every test case and seed in each metric that any run has: one that is gone is no result."""
    expected = sum(len(split.test) for split in experiment.splits) * len(study.settings.seeds)
    rows = table[["metric", "loss", "seed", "case"]].drop_duplicates()
    found = rows.groupby(["metric", "loss"], sort=False).size()
    return {
        metric: {loss: n for loss in losses if (n := expected - int(found.get((metric, loss), 0))) > 0}
        for metric in table["metric"].unique()
    }


_NOTHING = pd.DataFrame(columns=["loss", "metric", "folds", "images", "values", "undefined", "mean", "half_width"])


def _scores(
    table: pd.DataFrame, metric: str, target: str, experiment: Experiment, losses: tuple[str, ...]
) -> Scores | None:
    if table.loc[table["metric"] == metric, "value"].notna().sum() == 0:
        return None
    order = table["loss"].map({loss: n for n, loss in enumerate(losses)})
    rows = table.iloc[order.argsort(kind="stable")]  # in the order of the settings, whatever finished first
    groups = {case.id: group for case, group in zip(experiment.dataset.cases, experiment.groups, strict=True)}
    return make_scores(rows, metric, target, groups=groups, lower_is_better=metric in LOWER_IS_BETTER)
