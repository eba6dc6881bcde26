"""What came of a search: who won on each fold, what that bought on cases that chose nothing, which loss to recommend.

The search is nested. On each fold the validation cases alone choose the winner; then it is trained again, from another
seed, and so is the same loss at its defaults, and these two are compared on the fold's test cases. Trained again,
because the best of many trainings owes a part of its score to luck, on any cases. So the difference is an honest
estimate of what the losses that such a search finds are worth; that of the recommended one, which is made of all
winners, is known only when it has been tried on other folds.
"""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unifocal.lab.choices import LossChoice
from unifocal.lab.claims import owner_of
from unifocal.lab.errors import LabError
from unifocal.lab.experiment import Experiment
from unifocal.lab.results import join_tables, read_table
from unifocal.lab.runs import Run
from unifocal.lab.statistics.pairwise import pairwise
from unifocal.lab.statistics.retraining import over_folds
from unifocal.lab.statistics.table import make_scores
from unifocal.lab.statistics.verdict import verdicts
from unifocal.lab.storage import read_json
from unifocal.lab.training.history import read_history
from unifocal.lab.tuning.space import DIGITS, Candidate, Domain, Range, Space
from unifocal.lab.tuning.trials import METRIC, Plan, Spot, Tried, read_end, validation

TUNED, DEFAULT = "tuned", "default"


@dataclass(frozen=True)
class Trial:
    """A trial as its folder shows it.

    Attributes:
        tried: None where nothing was chosen yet.
        state: finished, pruned, repeated, running, failed or waiting.
        score: of the validation cases; NaN where there is none.
    """

    spot: Spot
    folder: Path
    tried: Tried | None
    state: str
    epochs: int
    score: float


def read_trial(home: Path, spot: Spot) -> Trial:
    folder = home / "runs" / spot.name
    end = read_end(folder)
    state = end or ("running" if owner_of(folder) else "failed" if (folder / "failure.json").exists() else "waiting")
    score = validation(folder) if end in ("finished", "repeated") else math.nan
    return Trial(spot, folder, Tried.read(folder), state, len(read_history(folder / "history.csv")), score)


@dataclass(frozen=True)
class Again:
    """A loss trained again on a fold."""

    run: Run
    folder: Path

    @property
    def is_finished(self) -> bool:
        return read_end(self.folder) == "finished"

    @cached_property
    def test(self) -> pd.DataFrame:
        """The metrics of the test cases."""
        return read_table(self.folder / "cases.csv")

    @property
    def score(self) -> float:
        """Of the test cases; NaN where it is not finished."""
        return float(self.test.loc[self.test["metric"] == METRIC, "value"].mean()) if self.is_finished else math.nan


@dataclass(frozen=True)
class Winner:
    """The best trial of a fold by its validation cases, and the same loss at its defaults; both trained again."""

    trial: Trial
    default: Trial
    again: Again
    default_again: Again

    @property
    def is_default(self) -> bool:
        return self.again.run.name == self.default_again.run.name

    @property
    def is_tested(self) -> bool:
        return self.again.is_finished and self.default_again.is_finished


@dataclass(frozen=True)
class Gain:
    """Winners less the same losses at their defaults, both trained again: one class, the test cases of all folds.

    Attributes:
        low, high: 95 % interval of the difference over cases: these networks on new cases.
        low_folds, high_folds: over folds: new trainings.
    """

    target: str
    folds: int
    tuned: float
    default: float
    difference: float
    low: float
    high: float
    low_folds: float
    high_folds: float
    units: int
    unit_name: str
    p_cases: float
    p_folds: float
    verdict: str
    better: str


@dataclass(frozen=True)
class Settled:
    """A parameter of the recommended loss.

    Attributes:
        value: the median of the winners' values, to as many digits as their scatter warrants.
        values: of the winners.
        domain: what was searched.
    """

    name: str
    value: Any
    values: tuple[Any, ...]
    domain: Domain


@dataclass(frozen=True)
class Judgement:
    """What came of a search.

    Attributes:
        trials: all that were asked for, by fold and number.
        winners: one for each fold of which a trial and the winner's loss at its defaults are finished.
    """

    experiment: Experiment
    plan: Plan
    trials: tuple[Trial, ...]
    winners: tuple[Winner, ...]

    @property
    def space(self) -> Space:
        return self.plan.space

    @cached_property
    def wins(self) -> dict[str, int]:
        """How many folds each loss has won, most first."""
        return dict(Counter(_name(winner.trial) for winner in self.winners).most_common())

    @cached_property
    def recommended(self) -> Candidate:
        """The loss that won on most folds; of several the one whose best trials have the best mean."""
        return self.space.named(max(self.leading, key=self.leading.__getitem__))

    @cached_property
    def leading(self) -> dict[str, float]:
        """The losses that won most folds, several in a tie: of each the mean of its best validation scores."""
        most = max(self.wins.values())
        names = [name for name, wins in self.wins.items() if wins == most]
        return {name: statistics.fmean(self._best_of(self.space.named(name))) for name in names}

    def equals(self, winner: Winner) -> int:
        """How many other losses that its fold tried have the score of a winner, which was the first."""
        own = {winner.trial.tried.loss} if winner.trial.tried else set()
        same = [t for t in self.trials if t.spot.fold == winner.trial.spot.fold and t.score == winner.trial.score]
        return len({trial.tried.loss for trial in same if trial.tried} - own)

    @cached_property
    def settled(self) -> tuple[Settled, ...]:
        """The parameters of the recommended loss."""
        own = [w.trial.tried for w in self.winners if _name(w.trial) == self.recommended.name]
        found = []
        for name, domain in sorted(self.recommended.free.items()):
            values = tuple(tried.values[name] for tried in own if tried is not None)
            found.append(Settled(name, settle(values, domain), values, domain))
        return tuple(found)

    @cached_property
    def loss(self) -> LossChoice:
        """The loss to recommend."""
        return self.recommended.loss({parameter.name: parameter.value for parameter in self.settled})

    @cached_property
    def gains(self) -> tuple[Gain, ...]:
        """Of each class but the background; none where no winner is trained again."""
        targets = self.experiment.dataset.classes[1:] if self.tested else ()
        return tuple(self._gain(target) for target in targets)

    @cached_property
    def tested(self) -> tuple[Winner, ...]:
        """The winners that are trained again, and their defaults with them."""
        return tuple(winner for winner in self.winners if winner.is_tested)

    def _best_of(self, candidate: Candidate) -> list[float]:
        """The best validation score of a loss on each fold that has one."""
        scores: dict[int, list[float]] = {}
        for trial in self.trials:
            if _name(trial) == candidate.name and not math.isnan(trial.score):
                scores.setdefault(trial.spot.fold, []).append(trial.score)
        return [max(found) for found in scores.values()]

    def _gain(self, target: str) -> Gain:
        tables = [
            again.test.assign(loss=name)
            for winner in self.tested
            for name, again in ((TUNED, winner.again), (DEFAULT, winner.default_again))
        ]
        groups = {c.id: group for c, group in zip(self.experiment.dataset.cases, self.experiment.groups, strict=True)}
        scores = make_scores(join_tables(tables), METRIC, target, groups=groups)
        cases, folds = pairwise(scores), over_folds(scores)
        verdict, row, trained = verdicts(cases, folds).rows.iloc[0], cases.rows.iloc[0], folds.rows.iloc[0]
        means = np.nanmean(scores.case_means, axis=1)
        return Gain(
            target=target,
            folds=len(self.tested),
            tuned=float(means[0]),
            default=float(means[1]),
            **{name: float(row[name]) for name in ("difference", "low", "high")},
            low_folds=float(trained["low"]),
            high_folds=float(trained["high"]),
            units=int(row["units"]),
            unit_name=scores.unit_name,
            **{name: float(verdict[name]) for name in ("p_cases", "p_folds")},
            verdict=str(verdict["verdict"]),
            better=str(verdict["better"]),
        )


def judge(experiment: Experiment, plan: Plan, trials: int) -> Judgement:
    """Read what the trials of a search have left.

    Raises LabError where no fold has a winner.
    """
    home, folds = experiment.folder, range(len(experiment.splits))
    found = [read_trial(home, Spot(plan.id, fold, n)) for fold in folds for n in range(trials)]
    winners = []
    for fold in folds:
        done = [trial for trial in found if trial.spot.fold == fold and not math.isnan(trial.score)]
        if not done:
            continue
        best = max(done, key=lambda trial: trial.score)  # the first of equals
        candidates = [candidate.name for candidate in plan.space.candidates]
        default = candidates.index(_name(best))
        winners += [_winner(experiment, plan, best, trial) for trial in done if trial.spot.trial == default]
    if not winners:
        failure = next((t.folder / "failure.json" for t in found if t.state == "failed"), None)
        why = f" The first failure: {read_json(failure)['reason']}" if failure else ""
        raise LabError(f"expected a finished trial to judge by, and the defaults beside it; no fold has both.{why}")
    return Judgement(experiment, plan, tuple(found), tuple(winners))


def _winner(experiment: Experiment, plan: Plan, trial: Trial, default: Trial) -> Winner:
    def again(of: Trial) -> Again:
        assert of.tried is not None
        run = plan.run(of.spot.fold, LossChoice.parse(of.tried.loss), plan.seed + 1)
        return Again(run, experiment.run_folder(run.name))

    return Winner(trial, default, again(trial), again(default))


def table_of(judgement: Judgement) -> pd.DataFrame:
    """One row for each trial; test scores of winners and the defaults beside them, trained again, and of no others."""
    shown = {w.default.spot: w.default_again for w in judgement.winners}
    shown |= {w.trial.spot: w.again for w in judgement.winners}
    chosen = {winner.trial.spot for winner in judgement.winners}
    names = sorted({name for candidate in judgement.space.candidates for name in candidate.free})
    rows = []
    for trial in judgement.trials:
        tried = trial.tried
        candidate = judgement.space.named(tried.candidate) if tried else None
        values = dict.fromkeys(names) | ({**candidate.base.arguments, **tried.values} if tried and candidate else {})
        rows.append(
            {
                "fold": trial.spot.fold,
                "trial": trial.spot.trial,
                "candidate": tried.candidate if tried else None,
                "loss": tried.loss if tried else None,
                **{name: values[name] for name in names},
                "is_default": trial.spot.trial < len(judgement.space.candidates),
                "state": trial.state,
                "epochs": trial.epochs,
                "validation": trial.score,
                "chosen": trial.spot in chosen,
                "test": shown[trial.spot].score if trial.spot in shown else math.nan,
            }
        )
    return pd.DataFrame(rows)


def settle(values: Sequence[Any], domain: Domain) -> Any:
    """The median, to as many digits as the scatter of the values warrants, one at least; of a choice the commonest.

    On a logarithmic scale both are taken of the logarithms.
    """
    if not isinstance(domain, Range):
        return _commonest(values)
    numbers = [math.log(value) for value in values] if domain.log else list(values)
    middle = statistics.median(numbers)
    scatter = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
    if domain.log:
        middle = math.exp(middle)
        scatter = middle * math.expm1(scatter)
    if scatter == 0 or middle == 0:
        return domain.taken(middle)
    first = -math.floor(math.log10(abs(middle)))  # the decimal place of its first digit
    last = -math.floor(math.log10(scatter))
    return domain.keep(round(middle, min(max(first, last), first + DIGITS - 1)))


def _commonest(values: Sequence[Any]) -> Any:
    words = [str(value) for value in values]
    return values[words.index(Counter(words).most_common(1)[0][0])]


def _name(trial: Trial) -> str:
    return trial.tried.candidate if trial.tried else ""
