"""Free search by Optuna over parameters of losses, losses, or both; nested, so that no fold is tested on what chose.

check     the space against the losses and the data, before anything starts
plan      a folder for each trial of each fold
run       the grid: every trial asks its fold's study what to try, trains, and tells it how well it did
again     what won on each fold, and the same loss at its defaults, trained from another seed
judge     winners, gain, recommendation, from the folders of all these alone
"""

import statistics
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from unifocal.lab.cells import run_cell
from unifocal.lab.comparison import check_losses, plan_all
from unifocal.lab.data.cases import Dataset
from unifocal.lab.data.selection import select
from unifocal.lab.errors import LabError
from unifocal.lab.experiment import Experiment, write_run
from unifocal.lab.grid import Cell, Execute, run_grid
from unifocal.lab.progress import Watcher
from unifocal.lab.results import write_table
from unifocal.lab.settings import Settings
from unifocal.lab.storage import lock, read_json, write_json
from unifocal.lab.tuning.judgement import Judgement, Winner, judge, table_of
from unifocal.lab.tuning.space import Space
from unifocal.lab.tuning.trials import FOLDER, Plan, Spot, run_trial
from unifocal.lab.tuning.words import record_of, write_words
from unifocal.lab.words import counted

ENOUGH = 20  # finished trials of the recommended loss on a fold, from which on importances are told


@dataclass(frozen=True)
class Search:
    """What became of a search.

    Attributes:
        judgement: None where a part of it (`shard`) was done, and the rest may not be.
        failures: title and reason of each trial that failed.
    """

    judgement: Judgement | None
    failures: tuple[tuple[str, str], ...]


def search(
    dataset: Dataset,
    settings: Settings,
    space: Space,
    trials: int,
    out: Path,
    watcher: Watcher | None = None,
    prune: bool = True,
) -> Search:
    """Search `space` with so many trials on each fold; writes `search.csv`, `search.json` and `search.md`
    and leaves every run in `out`.

    Interrupted, the same call goes on; with more trials it goes on further. `settings.losses` play no part.

    Raises LabError before anything starts if the space, the settings or the data do not allow it.
    """
    watcher, out = watcher or Watcher(), Path(out).expanduser().resolve()
    settings = settings.model_copy(update={"losses": space.bases})
    _check(dataset, settings, space, trials)
    with watcher:
        [experiment] = plan_all([dataset], settings, out, watcher)
        plan = Plan.of(experiment, settings, space, prune)
        with lock(out, watcher.stage):
            cells = _plan_trials(experiment, plan, trials)
        failures = _run(cells, settings, watcher, run_trial)
        if settings.shard is not None:
            return Search(None, failures)
        winners = judge(experiment, plan, trials).winners
        watcher.stage("what won on each fold, and its defaults, once more from another seed")
        with lock(out, watcher.stage):
            cells = _plan_again(experiment, plan, winners)
        failures += _run(cells, settings, watcher, run_cell)
        judgement = judge(experiment, plan, trials)
        with lock(out, watcher.stage):
            write_table(out / "search.csv", table_of(judgement))
            write_json(out / "search.json", record_of(judgement, out))
            write_words(judgement, out, importances(judgement))
    return Search(judgement, failures)


def _run(cells: Sequence[Cell], settings: Settings, watcher: Watcher, execute: Execute) -> tuple[tuple[str, str], ...]:
    """Title and reason of each cell that failed."""
    titles = {cell.name: cell.title for cell in cells}
    with closing(run_grid(cells, settings, watcher, execute)) as records:
        return tuple((titles[r["name"]], str(r["reason"])) for r in records if r["status"] != "finished")


def _check(dataset: Dataset, settings: Settings, space: Space, trials: int) -> None:
    for name, values in (("network", settings.networks), ("seed", settings.seeds)):
        if len(values) != 1:
            raise LabError(f"expected one {name} to search with; got {len(values)}. Each trial is one training.")
    if settings.division == "whole":
        raise LabError(
            "expected folds, of which each tests what was chosen without it; --division whole tests nothing. "
            "Leave it out."
        )
    least = len(space.candidates) + 1
    if trials < least:
        raise LabError(
            f"expected at least {least} trials: each fold begins with every loss at its defaults, "
            f"{counted(least - 1, 'trial')}; got --trials {trials}."
        )
    selected = select(dataset, settings)
    check_losses(list(space.corners()), len(selected.classes), selected.dimension)


def _plan_trials(experiment: Experiment, plan: Plan, trials: int) -> list[Cell]:
    """Write down what is to be tried; folds inside, so that each study knows much before it is asked again."""
    out = experiment.folder
    plan.write(out)
    spots = [Spot(plan.id, fold, trial) for trial in range(trials) for fold in range(len(experiment.splits))]
    bases = plan.space.bases
    record = {
        "datasets": {experiment.dataset.name: "."},
        "settings": plan.settings.model_dump(mode="json"),
        "search": plan.id,
        "tune": ["--search", str(plan.space), "--trials", str(trials), *([] if plan.prune else ["--no-prune"])],
        "to_come": "what won, once more" if plan.settings.shard is None else "",
        "runs": [
            {
                "name": spot.name,
                "title": spot.title,
                "folder": ".",
                "epochs": plan.settings.epochs,
                "network": plan.settings.networks[0].label,
                "loss": bases[spot.trial].label if spot.trial < len(bases) else None,  # it is chosen later
                "fold": spot.fold,
                "seed": plan.seed,
                "part": "default" if spot.trial < len(bases) else "trial",
            }
            for spot in spots
        ],
    }
    write_json(out / "experiment.json", record)
    return [Cell(str(out), spot.name, spot.title, plan.settings.epochs) for spot in spots]


def _plan_again(experiment: Experiment, plan: Plan, winners: Sequence[Winner]) -> list[Cell]:
    """Add the trainings of winners and defaults from another seed to what is planned."""
    out = experiment.folder
    runs = {again.run.name: again.run for w in winners for again in (w.again, w.default_again)}
    record, cells = read_json(out / "experiment.json"), []
    for run in runs.values():
        write_run(experiment, run)
        cell = Cell(str(out), run.name, f"fold {run.fold}, again, {run.loss.label}", plan.settings.epochs)
        cells.append(cell)
        record["runs"].append(
            {"name": cell.name, "title": cell.title, "folder": ".", "epochs": cell.epochs, "part": "again"}
            | {"network": run.network.label, "loss": run.loss.label, "fold": run.fold, "seed": run.seed}
        )
    record["to_come"] = ""
    write_json(out / "experiment.json", record)
    return cells


def importances(judgement: Judgement) -> dict[str, float]:
    """Of each parameter of the recommended loss, the mean over folds; empty where there is too little to say."""
    from unifocal.lab.tuning.study import FoldStudy

    plan, candidate = judgement.plan, judgement.recommended
    folds = range(len(judgement.experiment.splits))
    if len(candidate.free) < 2 or min(_finished(judgement, candidate.name, folds)) < ENOUGH:
        return {}
    journal = judgement.experiment.folder / FOLDER / f"{plan.id}.journal"
    found = [
        FoldStudy(journal, fold, plan.space, plan.seed, plan.settings.epochs).importances(candidate) for fold in folds
    ]
    return {name: statistics.fmean(shares[name] for shares in found) for name in candidate.free}


def _finished(judgement: Judgement, name: str, folds: Sequence[int]) -> list[int]:
    """Finished trials of a loss on each fold."""
    done = [t.spot.fold for t in judgement.trials if t.state == "finished" and t.tried and t.tried.candidate == name]
    return [done.count(fold) for fold in folds]
