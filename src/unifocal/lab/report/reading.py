"""The files of a comparison as one object: a `Study` holds all that a report tells, and nothing else is read.

Read are `experiment.json`, `dataset.json` and `folds.json` of each data set, `tuning.csv`, `search.csv` and their
`.json`, and of each planned run its history, result and tables. Where the folders of the runs have not come
along, `results.csv` and `lesions.csv` stand in.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd

from unifocal.lab.data.cases import Dataset
from unifocal.lab.data.problems import some
from unifocal.lab.errors import LabError
from unifocal.lab.experiment import Experiment, open_experiment
from unifocal.lab.grid.status import RunStatus, State, is_between, read_status, time_left
from unifocal.lab.metrics import METRICS, SIGNED
from unifocal.lab.protocols import Protocol, load
from unifocal.lab.report.numbers import bounds
from unifocal.lab.results import COLUMNS, is_whole, join_tables, read_table, rows_of, without_signs
from unifocal.lab.settings import Settings, make_settings
from unifocal.lab.storage import ANEW, expecting, read_json
from unifocal.lab.words import counted

KEYS = ("dataset", "network", "loss", "fold", "seed")
BITS = 1e-9  # by which the last bits of a number may leave what is possible
LESIONS = (*KEYS, "case", "class", "voxels", "size", "overlap")


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
        recommended: `tuning.json`, what came of the sweep; empty elsewhere, and until its last stage has ended.
        search: `search.csv`, where `tune` has searched; empty elsewhere.
        outcome: `search.json`, what came of the search; empty elsewhere.
        trials: what a search has tried; the losses at their defaults are runs like any other.
        time_left: in words, until all runs are finished, while some are running and anything tells.
        tune: the words of the `tune` command that made it, but for data and settings; empty where `compare` did.
        to_come: what will be planned when these runs have ended; empty if these are all.
        damaged: what could not be read and is left out, a sentence each.
    """

    folder: Path
    settings: Settings
    experiments: Mapping[str, Experiment]
    runs: tuple[PlannedRun, ...]
    cases: pd.DataFrame
    lesions: pd.DataFrame
    sweep: pd.DataFrame
    recommended: Mapping[str, Any]
    search: pd.DataFrame
    outcome: Mapping[str, Any]
    trials: tuple[RunStatus, ...]
    time_left: str
    tune: tuple[str, ...] = ()
    to_come: str = ""
    damaged: tuple[str, ...] = ()

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
    def states(self) -> set[State]:
        """Of all that was asked for, trials too."""
        return {*(run.state for run in self.runs), *(trial.state for trial in self.trials)}

    @property
    def is_search(self) -> bool:
        return bool(self.trials) or self.tune[:1] == ("--search",)

    @property
    def has_ended(self) -> bool:
        """Is nothing running, left to do or to come?"""
        return not self.to_come and not {"running", "waiting"} & self.states

    @property
    def is_under_way(self) -> bool:
        """Has something begun that has not ended?"""
        return "running" in self.states or is_between(self.states, self.to_come)


def read_study(folder: Path) -> Study:
    """All that the files in the output folder of `compare` or `tune` say.

    A run whose files are damaged counts as failed, and what the rest can do without is left out. Raises LabError if it
    is no such folder, or if a file that everything hangs on is damaged or missing.
    """
    folder = Path(folder).expanduser()
    statuses = read_status(folder)
    record = read_json(folder / "experiment.json")
    with expecting("the record of a comparison", folder / "experiment.json"):
        settings = make_settings(**record["settings"])
        places = dict(record["datasets"])
        tune, to_come = tuple(map(str, record.get("tune", ()))), str(record.get("to_come", ""))
        planned = [
            _planned(entry, status, folder, {place: name for name, place in places.items()})
            for entry, status in zip(record["runs"], statuses, strict=True)
        ]
    experiments = {name: _open(folder / place) for name, place in places.items()}
    damaged: list[str] = []
    runs, cases, lesions = [], [], []
    for plan in filter(None, planned):
        curve = partial(_history, epochs=plan.result.get("epochs"))
        run = replace(plan, history=_kept(damaged, pd.DataFrame(), curve, plan.folder / "history.csv"))
        try:
            if run.is_finished and (run.folder / "cases.csv").is_file():
                tables = (
                    _results(run.folder / "cases.csv", rows_of(run.result, "cases")),
                    _lesions(run.folder / "lesions.csv", rows_of(run.result, "lesions")),
                )
                cases.append(tables[0].assign(loss=run.loss))
                lesions.append(tables[1].assign(loss=run.loss))
            runs.append(run)
        except LabError as error:
            runs.append(replace(run, state="failed", reason=str(error), result={}))
    trials = [status for status, run in zip(statuses, planned, strict=True) if run is None]
    if not cases and (folder / "results.csv").is_file():
        table = _results(folder / "results.csv")
        damaged += _strangers(table, record["runs"], folder / "results.csv")
        cases, lesions = _of(runs, table), _of(runs, _lesions(folder / "lesions.csv"))
        done = {key for part in cases for key in _keys(part)}
        runs = [replace(run, state="finished") if run.key in done else run for run in runs]
    joined = join_tables(cases)
    found = [part for part in lesions if len(part)]
    return Study(
        folder,
        settings,
        experiments,
        tuple(runs),
        without_signs(joined) if len(joined) else pd.DataFrame(columns=list(COLUMNS)),
        pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=list(LESIONS)),
        _kept(damaged, pd.DataFrame(), _sweep, folder / "tuning.csv"),
        _kept(damaged, {}, partial(_outcome, needed={"told", "confirm"}), folder / "tuning.json"),
        _kept(damaged, pd.DataFrame(), _search, folder / "search.csv"),
        _kept(damaged, {}, partial(_outcome, needed={"told", "candidate", "logarithmic"}), folder / "search.json"),
        tuple(trials),
        time_left(statuses),
        tune,
        to_come,
        tuple(damaged),
    )


def _planned(
    entry: Mapping[str, Any], status: RunStatus, folder: Path, by_place: Mapping[str, str]
) -> PlannedRun | None:
    """A run as far as `experiment.json` and its status tell; None of what a search has tried."""
    if entry.get("part") in ("trial", "again"):
        return None
    place = folder / entry["folder"] / "runs" / entry["name"]
    return PlannedRun(
        dataset=by_place[entry["folder"]],
        **{name: entry[name] for name in KEYS[1:]},
        title=status.title,
        folder=place,
        state=status.state,
        reason=status.reason,
        epoch=status.epoch,
        epochs=status.epochs,
        result=read_json(place / "result.json") if status.state == "finished" else {},
    )


def _kept(damaged: list[str], nothing: Any, read: Callable[[Path], Any], path: Path) -> Any:
    """What `read` makes of a file; of a damaged one `nothing`, and a word on it in `damaged`."""
    try:
        return read(path)
    except LabError as error:
        damaged.append(f"Left out: {error}")
        return nothing


def _open(folder: Path) -> Experiment:
    try:
        return open_experiment(folder)
    except FileNotFoundError as error:
        raise LabError(
            f"expected the output folder of a comparison; {error.filename} is not there. Copy the whole folder, "
            "prepared/ and *.ckpt excepted."
        ) from None


def _history(path: Path, epochs: int | None) -> pd.DataFrame:
    """A row for each of the epochs, if their number is known; of a run that has only begun none."""
    if not path.is_file() or not path.stat().st_size:
        return pd.DataFrame()
    try:
        table = pd.read_csv(path, dtype=float)
        is_damaged = not is_whole(path, epochs) or "validation_loss" not in table
    except ValueError:
        is_damaged = True
    if is_damaged:
        raise LabError(f"the learning curve {path} is damaged. Remove it: no result hangs on it.")
    return table


def _results(path: Path, rows: int | None = None) -> pd.DataFrame:
    table = read_table(path, rows)
    missing = [column for column in COLUMNS if column not in table]
    if missing and len(table):
        raise LabError(f"expected a table of results; {path} has no column {', '.join(missing)}. {ANEW}")
    if len(table):
        _check_range(table, path)
    return table


def _check_range(table: pd.DataFrame, path: Path) -> None:
    """Raises LabError where a metric has a value that it cannot have."""
    for metric, values in table.groupby("metric", sort=False)["value"]:
        if metric not in METRICS or metric in SIGNED:
            continue
        low, high = bounds(str(metric))
        beyond = values[(values < low - BITS) | (values > high + BITS)]
        if len(beyond):
            row = table.loc[beyond.index[0]]
            kind = "between 0 and 1" if high == 1 else "of at least 0"
            raise LabError(
                f"expected a {metric} {kind}; {path} has {row['value']:g} for case {row['case']!r} of {row['loss']!r}, "
                f"fold {row['fold']}, seed {row['seed']}. {ANEW}"
            )


def _strangers(table: pd.DataFrame, planned: Sequence[Mapping[str, Any]], path: Path) -> list[str]:
    """A word on the rows of losses that the comparison does not have."""
    known = {entry["loss"] for entry in planned}
    others = table[~table["loss"].isin(known)] if len(table) else table
    if others.empty:
        return []
    names = some(list(others["loss"].unique()))
    return [f"Left out: {counted(len(others), 'row')} of {path.name}, of losses that this comparison has not: {names}."]


def _lesions(path: Path, rows: int | None = None) -> pd.DataFrame:
    """A table of lesions; without rows where no test case has any."""
    return read_table(path, rows) if path.is_file() else pd.DataFrame()


def _outcome(path: Path, needed: set[str]) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    outcome = read_json(path)
    if not isinstance(outcome, dict) or not needed <= set(outcome):
        raise LabError(f"expected what came of tuning; {path} holds something else. {ANEW}")
    return outcome


def _texts(path: Path, *columns: str) -> pd.DataFrame:
    """A table, with texts in these columns: a value tried may be a word or a list, and "none" is one."""
    if not path.is_file():
        return pd.DataFrame()
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(columns, str), na_values=[""], keep_default_na=False)
    except ValueError as error:
        raise LabError(f"expected a table; {path} is damaged ({error}). {ANEW}") from None
    if not is_whole(path) or not set(columns) <= set(table):
        raise LabError(f"expected a whole table; {path} is cut short. {ANEW}")
    return table


def _sweep(path: Path) -> pd.DataFrame:
    return _texts(path, "parameter", "value", "loss")


def _search(path: Path) -> pd.DataFrame:
    return _texts(path, "loss", "state")


def _of(runs: list[PlannedRun], table: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of runs whose folders are not there; those of other comparisons in the same file are left out."""
    lost = {run.key for run in runs if not run.folder.exists()}
    return [table[[key in lost for key in _keys(table)]]] if len(table) else []


def _keys(table: pd.DataFrame) -> list[tuple[Any, ...]]:
    return list(table[list(KEYS)].itertuples(index=False, name=None))
