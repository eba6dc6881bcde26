"""The papers' coordinate sweep: one parameter of a loss after the other, each fixed at its best before the next.

Every value is a loss of its own, compared on the same folds as any other. What is best is judged on the cases that
chose the epochs, of all folds together; the scores of test cases are shown, and never asked for. But a case that is
tested on in one fold may choose in another, so the test scores of what is chosen are a little too good.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from unifocal.lab.choices import LossChoice, plain_value, split_list
from unifocal.lab.comparison import carry_out, check_distinct, check_losses, plan_all
from unifocal.lab.data.cases import Dataset
from unifocal.lab.data.selection import select
from unifocal.lab.errors import LabError
from unifocal.lab.outcome import Comparison
from unifocal.lab.progress import Watcher
from unifocal.lab.results import write_table
from unifocal.lab.settings import Settings
from unifocal.lab.statistics.intervals import half_width
from unifocal.lab.storage import lock
from unifocal.lab.tuning.recommendation import Recommendation, by_fold, recommend, write_words


@dataclass(frozen=True)
class Stage:
    """A parameter of the loss and the values to try."""

    parameter: str
    values: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.parameter}={','.join(map(str, self.values))}"

    def losses(self, base: LossChoice) -> tuple[LossChoice, ...]:
        return tuple(base.model_copy(update={"arguments": {**base.arguments, self.parameter: v}}) for v in self.values)


@dataclass(frozen=True)
class Tuning:
    """What came of a sweep.

    Attributes:
        table: one row for each value tried: stage, parameter, value, loss, finished runs, mean and half-width of the
            95 % interval over folds on validation and on test cases, and whether it was chosen.
        found: what it recommends, the best of all that was tried.
        failures: title and reason of each run that failed.
    """

    table: pd.DataFrame
    found: Recommendation
    failures: tuple[str, ...]


def parse_sweep(text: str) -> tuple[Stage, ...]:
    """Read `delta=0.1,0.2,0.3;gamma=0.1,0.5;lam=0,0.5,1`."""
    stages = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, equals, values = part.partition("=")
        tried = tuple(plain_value(value.strip()) for value in split_list(values))
        if not equals or not name.strip() or len(set(map(str, tried))) < 2:
            raise LabError(
                f"expected parameter=value,value,... with two values or more, stages after a semicolon; got {part!r}. "
                "Example: delta=0.4,0.6,0.8;gamma=0.1,0.5"
            )
        stages.append(Stage(name.strip(), tried))
    if not stages:
        raise LabError("expected something to sweep; got none. Example: --sweep 'delta=0.4,0.6,0.8;gamma=0.1,0.5'")
    return tuple(stages)


def tune(
    dataset: Dataset, settings: Settings, stages: Sequence[Stage], out: Path, watcher: Watcher | None = None
) -> Tuning:
    """Sweep the parameters of the only loss in `settings`; writes `tuning.csv`, `tuning.json` and `summary.md`, and
    leaves every run in `out`.

    Interrupted, the same call goes on. Raises LabError before anything starts if a value does not fit the loss.
    """
    if len(settings.losses) != 1 or len(settings.networks) != 1:
        raise LabError(
            f"expected one loss and one network to tune; got {len(settings.losses)} and {len(settings.networks)}."
        )
    if settings.shard is not None:
        raise LabError(
            f"expected a whole sweep, each stage of which goes by all runs of the one before; got --shard "
            f"{settings.shard}. --workers and --engine share out the runs of a stage."
        )
    watcher, out = watcher or Watcher(), Path(out).expanduser().resolve()
    start = base = settings.losses[0]
    words = ["--losses", base.label, "--sweep", ";".join(map(str, stages))]
    selected = select(dataset, settings)
    for stage in stages:
        check_losses(stage.losses(base), len(selected.classes), selected.dimension)
        check_distinct(stage.losses(base))
    tables: list[pd.DataFrame] = []
    means: dict[str, float] = {}
    validation: dict[str, pd.DataFrame] = {}
    tested: dict[str, pd.DataFrame] = {}
    failures: dict[str, str] = {}
    with watcher:
        experiments = plan_all([dataset], settings, out, watcher)
        for number, stage in enumerate(stages, start=1):
            losses = stage.losses(base)
            watcher.stage(f"stage {number} of {len(stages)}: {stage.parameter} of {base.label}")
            to_come = f"stage {number + 1} of {len(stages)}" if number < len(stages) else ""
            more = {"tune": words, "to_come": to_come}
            comparison = carry_out(experiments, settings.model_copy(update={"losses": losses}), out, watcher, more)
            failures |= {outcome.run.name: f"{outcome.run.title}: {outcome.failure}" for outcome in comparison.failures}
            table = _judge(comparison, stage, losses)
            if table["validation"].isna().all():
                raise LabError(
                    f"expected results to choose {stage.parameter} by; every run of this stage failed, the first with: "
                    f"{comparison.failures[0].failure}"
                )
            for loss, mean in zip(losses, table["validation"], strict=True):
                label, means[loss.plain().label] = loss.plain().label, mean
                for tables_of, rows in (validation, comparison.validation), (tested, comparison.cases):
                    tables_of[label] = rows[rows["loss"] == loss.label].assign(loss=label)
            chosen = choose(table, losses, base, means)
            base = base if chosen is None else losses[chosen]
            tables.append(table.assign(stage=number, chosen=table.index == chosen))
            (out / "tuning.json").unlink(missing_ok=True)  # what an earlier sweep came to
            write_table(out / "tuning.csv", pd.concat(tables, ignore_index=True))
        whole = pd.concat(tables, ignore_index=True)
        found = recommend(base, start, whole, means, validation, tested, experiments[0], settings, out)
        with lock(out, watcher.stage):
            write_words(found, whole, experiments[0], out)
    return Tuning(whole, found, tuple(failures.values()))


def choose(
    table: pd.DataFrame, losses: Sequence[LossChoice], base: LossChoice, means: Mapping[str, float]
) -> int | None:
    """The row of the stage's best by the validation cases, of those with the most finished runs.

    Of equals it is `base`, the loss as it stood before the stage, or else the first. None where `base` has been tried,
    is no row of this stage, and is better than all of them.
    """
    known = table["validation"].notna()
    score = table["validation"].where(table["runs"] == table["runs"][known].max())
    best, stood = int(score.idxmax()), base.plain().label
    if means.get(stood, -math.inf) >= score[best]:
        return next((n for n, loss in enumerate(losses) if loss.plain().label == stood), None)
    return best


def _judge(comparison: Comparison, stage: Stage, losses: Sequence[LossChoice]) -> pd.DataFrame:
    rows = []
    for value, loss in zip(stage.values, losses, strict=True):
        row: dict[str, Any] = {"parameter": stage.parameter, "value": value, "loss": loss.label}
        row["runs"] = sum(o.failure is None and o.run.loss == loss for o in comparison.outcomes)
        for part, table in (("validation", comparison.validation), ("test", comparison.cases)):
            folds = by_fold(table[table["loss"] == loss.label])
            row |= {part: folds.mean(), f"{part}_half_width": half_width(folds.tolist())}
        rows.append(row)
    return pd.DataFrame(rows)
