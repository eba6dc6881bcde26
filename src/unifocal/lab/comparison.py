"""Every loss on every network, fold and seed of every data set.

What is done is not done again, and what fails stops nothing else.

check     losses, networks and data against each other, before anything heavy starts
plan      folds and prepared cases of each data set (`experiment.plan`), a folder for each run
run       the grid (`grid.run_grid`), by whatever engine
tell      tables, summary and pictures of the runs asked for last, and of no others
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from unifocal.lab import pictures, report
from unifocal.lab.cells import run_cell
from unifocal.lab.choices import LossChoice
from unifocal.lab.data.cases import IGNORE, Dataset
from unifocal.lab.data.selection import select
from unifocal.lab.division import is_divided
from unifocal.lab.errors import LabError
from unifocal.lab.experiment import Experiment, plan, write_run
from unifocal.lab.fitting import check_fit
from unifocal.lab.grid import Cell, run_grid
from unifocal.lab.grid.slurm import check_slurm
from unifocal.lab.outcome import Comparison, Outcome
from unifocal.lab.progress import Watcher
from unifocal.lab.results import join_tables, read_table, write_table
from unifocal.lab.settings import Settings
from unifocal.lab.storage import lock, write_json
from unifocal.lab.training.execute import TABLES
from unifocal.lab.twins import warnings_of
from unifocal.lab.words import counted

ALONE: Mapping[str, Any] = {}  # of runs that are a part of nothing else


def compare(datasets: Sequence[Dataset], settings: Settings, out: Path, watcher: Watcher | None = None) -> Comparison:
    """Run what is not yet run, then write tables, summary and pictures to `out`.

    One data set has its folds and runs in `out` itself, several have a folder each, named as they are.

    Raises LabError before anything starts if the settings, the data or the folder do not allow it. KeyboardInterrupt
    passes through; the same call goes on later.
    """
    watcher = watcher or Watcher()
    out = Path(out).expanduser().resolve()
    with watcher:
        experiments = plan_all(datasets, settings, out, watcher)
        comparison = carry_out(experiments, settings, out, watcher)
        if settings.shard is None:
            with lock(out, watcher.stage):
                watcher.stage("drawing and writing")
                write(comparison, watcher)
    return comparison


def plan_all(datasets: Sequence[Dataset], settings: Settings, out: Path, watcher: Watcher) -> list[Experiment]:
    """Check everything, then plan each data set in its folder."""
    datasets = [select(dataset, settings) for dataset in datasets]
    check(datasets, settings)
    for warning in warnings_of(settings.losses, {len(dataset.classes) for dataset in datasets}):
        watcher.stage(warning)
    with lock(out, watcher.stage):
        several = len(datasets) > 1
        return [plan_aloud(dataset, settings, out / dataset.name if several else out, watcher) for dataset in datasets]


def carry_out(
    experiments: Sequence[Experiment], settings: Settings, out: Path, watcher: Watcher, more: Mapping[str, Any] = ALONE
) -> Comparison:
    """Do every run of `settings` on planned data, and collect the tables; `more` as in `plan_runs`."""
    with lock(out, watcher.stage):
        planned = plan_runs(experiments, settings, out, more)
    outcomes = run(planned, experiments, settings, watcher)
    return collect(experiments, settings, out, outcomes)


def check(datasets: Sequence[Dataset], settings: Settings) -> None:
    """What cannot work is said before anything heavy starts."""
    names = [dataset.name for dataset in datasets]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise LabError(f"expected data sets of different names; {', '.join(twice)} stands twice. Rename a folder.")
    check_device(settings.device)
    if settings.engine == "slurm":
        check_slurm(settings)
    if settings.tensorboard and find_spec("tensorboard") is None:
        raise LabError("expected TensorBoard, which is not installed. pip install 'unifocal[lab,tensorboard]'")
    for dataset in datasets:
        if any(not case.images for case in dataset.cases):
            raise LabError(
                f"expected images to train on; {dataset.name} has labels alone. `unifocal describe` shows them."
            )
        check_fit(dataset, settings)
        check_losses(settings.losses, len(dataset.classes), dataset.dimension)
    check_distinct(settings.losses)


def check_distinct(losses: Sequence[LossChoice]) -> None:
    """Losses that are the same by all parameters are one."""
    seen: dict[str, LossChoice] = {}
    for loss in losses:
        first = seen.setdefault(loss.plain().label, loss)
        if first is not loss:
            raise LabError(
                f"expected different losses; {first.label} and {loss.label} are the same by all parameters. "
                "Leave one of them out."
            )


def check_losses(losses: Sequence[LossChoice], classes: int, dimension: int = 2) -> None:
    """Build and try every loss, so that no mistake comes to light an hour later."""
    sizes = (8,) * dimension
    logits = torch.linspace(-1, 1, classes * 2 * 8**dimension).reshape(2, classes, *sizes).requires_grad_()
    labels = (torch.arange(2 * 8**dimension) % classes).reshape(2, *sizes)
    for loss in losses:
        module = loss.build(ignore_index=IGNORE)
        try:
            value = module(logits, labels)
        except (TypeError, ValueError, RuntimeError) as error:
            fitted = counted(classes, "class", "classes")
            raise LabError(f"loss {loss.label!r} does not fit {fitted}: {error}") from error
        if value.ndim != 0:
            raise LabError(
                f"loss {loss.label!r}: expected one number per batch; got a tensor of shape {tuple(value.shape)}. "
                "Leave reduction at 'mean'."
            )


def check_device(name: str) -> None:
    if name == "cuda" and not torch.cuda.is_available():
        raise LabError("expected a CUDA device; torch finds none here. Use --device cpu, or auto.")


def plan_aloud(dataset: Dataset, settings: Settings, folder: Path, watcher: Watcher) -> Experiment:
    """`experiment.plan`, and what a user should know of it."""
    watcher.stage(f"preparing {counted(len(dataset.cases), 'case')} of {dataset.name}")
    for note in dataset.notes:
        watcher.stage(note)
    if settings.division == "dealt" and is_divided(dataset):
        watcher.stage(
            f"{dataset.name} comes divided; folds are dealt anew over all cases (--division published uses its own)"
        )
    experiment = plan(dataset, settings, folder, watcher.track)
    if experiment.pairs:
        watcher.stage(report.near_duplicate_line(dataset, experiment.pairs))
    return experiment


def plan_runs(
    experiments: Sequence[Experiment], settings: Settings, out: Path, more: Mapping[str, Any] = ALONE
) -> list[Outcome]:
    """Write down every run, so that any process can do it, and the list of them for whoever follows.

    Of runs that are a part of something `more` stands in that list: `tune`, the words of that command but for data and
    settings, and `to_come`, what will be planned when these have ended.
    """
    planned = [Outcome(run, experiment, None) for experiment in experiments for run in experiment.runs(settings)]
    for outcome in planned:
        write_run(outcome.experiment, outcome.run)
    record: dict[str, Any] = {
        "datasets": {e.dataset.name: str(e.folder.relative_to(out)) for e in experiments},
        "settings": settings.model_dump(mode="json"),
        **more,
        "runs": [
            {
                "name": outcome.run.name,
                "title": title(outcome, experiments),
                "folder": str(outcome.experiment.folder.relative_to(out)),
                "epochs": settings.epochs,
                "network": outcome.run.network.label,
                "loss": outcome.run.loss.label,
                "fold": outcome.run.fold,
                "seed": outcome.run.seed,
            }
            for outcome in planned
        ],
    }
    write_json(out / "experiment.json", record)
    return planned


def run(
    planned: Sequence[Outcome], experiments: Sequence[Experiment], settings: Settings, watcher: Watcher
) -> list[Outcome]:
    """Do all runs; each as it ended, in the order of the plan. Those of other shards are left out."""
    cells = [
        Cell(
            str(outcome.experiment.folder),
            outcome.run.name,
            title(outcome, experiments),
            settings.epochs,
            kind(outcome),
        )
        for outcome in planned
    ]
    with closing(run_grid(cells, settings, watcher, run_cell)) as records:
        ends = {record["name"]: record for record in records}
    return [
        Outcome(outcome.run, outcome.experiment, None if end["status"] == "finished" else str(end["reason"]))
        for outcome in planned
        if (end := ends.get(outcome.run.name)) is not None
    ]


def collect(experiments: Sequence[Experiment], settings: Settings, out: Path, outcomes: list[Outcome]) -> Comparison:
    """The tables of all finished runs, joined."""
    finished = [outcome for outcome in outcomes if outcome.failure is None]
    # A run that is written in two ways is one run, whose tables know one of them.
    tables = {
        name: join_tables([read_table(o.folder / f"{name}.csv").assign(loss=o.run.loss.label) for o in finished])
        for name in TABLES
    }
    return Comparison(list(experiments), settings, out, outcomes, **tables)


def write(comparison: Comparison, watcher: Watcher) -> None:
    """Tables, pictures and summary, in `comparison.out`; none where nothing was tested.

    A picture that cannot be drawn, as of a damaged prediction, costs no table.
    """
    if not comparison.is_tested:
        return
    write_table(comparison.out / "results.csv", comparison.cases)
    write_table(comparison.out / "lesions.csv", comparison.lesions)
    for experiment in comparison.experiments:
        try:
            pictures.draw(comparison, experiment)
        except LabError as error:
            watcher.stage(
                f"{pictures.PICTURE} is left out: {error} Where that is a prediction, remove cases.csv in the folder"
                " of its run, and the same command predicts again."
            )
    report.write_summary(comparison)


def title(outcome: Outcome, experiments: Sequence[Experiment]) -> str:
    """How people are told of a run: its data set, too, where there are several."""
    name = f"{outcome.experiment.dataset.name}, " if len(experiments) > 1 else ""
    return name + outcome.run.title


def kind(outcome: Outcome) -> str:
    """Data set, network and loss: what shards get equal shares of."""
    return "/".join((outcome.experiment.dataset.name, outcome.run.network.label, outcome.run.loss.label))
