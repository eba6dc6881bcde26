"""The files of a comparison as one object: a `Study` holds all that a report tells, and nothing else is read.

Read are `experiment.json`, `dataset.json` and `folds.json` of each data set, `tuning.csv`, `search.csv` and
`search.json`, and of each planned run its history, result and tables. Where the folders of the runs have not come
along, `results.csv` and `lesions.csv` stand in.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from unifocal.lab.data.cases import Dataset
from unifocal.lab.errors import LabError
from unifocal.lab.experiment import Experiment, open_experiment
from unifocal.lab.grid.status import RunStatus, State, read_status, total_remaining
from unifocal.lab.protocols import Protocol, load
from unifocal.lab.results import COLUMNS, join_tables, read_table, without_signs
from unifocal.lab.settings import Settings, make_settings
from unifocal.lab.storage import read_json

KEYS = ("dataset", "network", "loss", "fold", "seed")
LESIONS = (*KEYS, "case", "class", "voxels", "size", "overlap")


AGAIN = "`unifocal compare` writes it anew if it is removed."


@dataclass(frozen=True)
class PlannedRun:
    """A run as its folder shows it.

    Attributes:
        title: how people are told of it.
        reason: why it failed.
        epoch: whole epochs done, of `epochs`.
        result: what `result.json` says; empty until the run is finished.
        history: a row for each epoch.
    """

    dataset: str
    network: str
    loss: str
    fold: int
    seed: int
    title: str
    folder: Path
    state: State
    reason: str | None
    epoch: int
    epochs: int
    result: Mapping[str, Any] = field(default_factory=dict)
    history: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def key(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in KEYS)

    @property
    def is_finished(self) -> bool:
        return self.state == "finished"


@dataclass(frozen=True)
class Study:
    """A comparison, finished or not.

    Attributes:
        experiments: by the name of the data set.
        runs: those asked for last, in the order of the plan.
        cases: a row for each data set, network, loss, fold, seed, case, class and metric of the finished runs; of
            metrics with a sign the absolute value.
        lesions: every lesion of the test cases for each finished run.
        sweep: `tuning.csv`, where `tune` has swept; empty elsewhere.
        search: `search.csv`, where `tune` has searched; empty elsewhere.
        outcome: `search.json`, what came of the search; empty elsewhere.
        trials: what a search has tried; the losses at their defaults are runs like any other.
        seconds_left: until all runs are finished, while some are running and anything tells.
    """

    folder: Path
    settings: Settings
    experiments: Mapping[str, Experiment]
    runs: tuple[PlannedRun, ...]
    cases: pd.DataFrame
    lesions: pd.DataFrame
    sweep: pd.DataFrame
    search: pd.DataFrame
    outcome: Mapping[str, Any]
    trials: tuple[RunStatus, ...]
    seconds_left: float | None

    @property
    def losses(self) -> tuple[str, ...]:
        """Labels, in the order of the settings."""
        return tuple(loss.label for loss in self.settings.losses)

    @property
    def networks(self) -> tuple[str, ...]:
        return tuple(network.label for network in self.settings.networks)

    @property
    def datasets(self) -> dict[str, Dataset]:
        return {name: experiment.dataset for name, experiment in self.experiments.items()}

    @cached_property
    def protocol(self) -> Protocol | None:
        return load(self.settings.protocol) if self.settings.protocol else None

    @property
    def is_under_way(self) -> bool:
        """Has a run begun that has not ended?"""
        return "running" in {*(run.state for run in self.runs), *(trial.state for trial in self.trials)}


def read_study(folder: Path) -> Study:
    """All that the files in the output folder of `compare` or `tune` say.

    Raises LabError if it is none, or if a file is damaged or missing.
    """
    folder = Path(folder).expanduser()
    statuses = read_status(folder)
    record = read_json(folder / "experiment.json")
    settings = make_settings(**record["settings"])
    experiments = {name: _open(folder / place) for name, place in record["datasets"].items()}
    by_place = {place: name for name, place in record["datasets"].items()}
    runs, cases, lesions, trials = [], [], [], []
    for entry, status in zip(record["runs"], statuses, strict=True):
        if entry.get("part") in ("trial", "again"):
            trials.append(status)
            continue
        place = folder / entry["folder"] / "runs" / entry["name"]
        keys = {name: entry[name] for name in KEYS[1:]}
        run = PlannedRun(
            dataset=by_place[entry["folder"]],
            **keys,
            title=status.title,
            folder=place,
            state=status.state,
            reason=status.reason,
            epoch=status.epoch,
            epochs=status.epochs,
            result=read_json(place / "result.json") if status.state == "finished" else {},
            history=_history(place / "history.csv"),
        )
        if run.is_finished and (place / "cases.csv").is_file():
            cases.append(_results(place / "cases.csv"))
            lesions.append(_lesions(place / "lesions.csv"))
        runs.append(run)
    if not cases and (folder / "results.csv").is_file():
        cases, lesions = _of(runs, _results(folder / "results.csv")), _of(runs, _lesions(folder / "lesions.csv"))
        done = {key for part in cases for key in _keys(part)}
        runs = [replace(run, state="finished") if run.key in done else run for run in runs]
    table = join_tables(cases)
    found = [part for part in lesions if len(part)]
    return Study(
        folder,
        settings,
        experiments,
        tuple(runs),
        without_signs(table) if len(table) else pd.DataFrame(columns=list(COLUMNS)),
        pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=list(LESIONS)),
        _texts(folder / "tuning.csv", "parameter", "value", "loss"),
        _texts(folder / "search.csv", "loss", "state"),
        read_json(folder / "search.json") if (folder / "search.json").is_file() else {},
        tuple(trials),
        total_remaining(statuses),
    )


def _open(folder: Path) -> Experiment:
    try:
        return open_experiment(folder)
    except FileNotFoundError as error:
        raise LabError(
            f"expected the output folder of a comparison; {error.filename} is not there. Copy the whole folder, "
            "prepared/ and *.ckpt excepted."
        ) from None


def _history(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except (FileNotFoundError, pd.errors.EmptyDataError):
        return pd.DataFrame()


def _results(path: Path) -> pd.DataFrame:
    try:
        table = read_table(path)
    except ValueError as error:
        raise LabError(f"expected a table of results; {path} cannot be read ({error}). {AGAIN}") from None
    missing = [column for column in COLUMNS if column not in table]
    if missing and len(table):
        raise LabError(f"expected a table of results; {path} has no column {', '.join(missing)}. {AGAIN}")
    return table


def _lesions(path: Path) -> pd.DataFrame:
    """A table of lesions; without rows where no test case has any."""
    try:
        return read_table(path)
    except (FileNotFoundError, pd.errors.EmptyDataError):
        return pd.DataFrame()


def _texts(path: Path, *columns: str) -> pd.DataFrame:
    """A table, with texts in these columns: a value tried may be a word or a list, and "none" is one."""
    if not path.is_file():
        return pd.DataFrame()
    return pd.read_csv(path, dtype=dict.fromkeys(columns, str), na_values=[""], keep_default_na=False)


def _of(runs: list[PlannedRun], table: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of runs whose folders are not there; those of other comparisons in the same file are left out."""
    lost = {run.key for run in runs if not run.folder.exists()}
    return [table[[key in lost for key in _keys(table)]]] if len(table) else []


def _keys(table: pd.DataFrame) -> list[tuple[Any, ...]]:
    return list(table[list(KEYS)].itertuples(index=False, name=None))
