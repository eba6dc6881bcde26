"""One trial of a search: an ordinary run in a folder of its own, whose loss is chosen when it begins.

A trial is a cell of the grid, named after its search, fold and number, so it may be executed anywhere and killed at any
time. `trial.json` in its folder says what it tries; from then on it tries that. The first trials of each fold are the
losses of the space at their defaults, each run to its end: they are what the others have to beat.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from unifocal.lab.cells import Record, run_cell
from unifocal.lab.choices import LossChoice
from unifocal.lab.errors import LabError
from unifocal.lab.experiment import Experiment, open_experiment, write_run
from unifocal.lab.results import read_table
from unifocal.lab.runs import Run, fingerprint
from unifocal.lab.settings import Settings, make_settings
from unifocal.lab.storage import expecting, read_json, write_json
from unifocal.lab.training.execute import is_finished
from unifocal.lab.training.history import Judge, read_history, unmoved
from unifocal.lab.tuning.space import Space, parse_space

if TYPE_CHECKING:
    from unifocal.lab.tuning.study import FoldStudy

FOLDER = "search"  # of the output folder, where searches are written down
METRIC = "DSC"  # of the validation cases, by which trials are judged


@dataclass(frozen=True)
class Plan:
    """What all trials of a search share; `search/<id>.json` has it."""

    space: Space
    prune: bool
    settings: Settings
    prepared: str
    data: str
    splits: tuple[str, ...]

    @classmethod
    def of(cls, experiment: Experiment, settings: Settings, space: Space, prune: bool) -> Self:
        splits = tuple(fingerprint(experiment.names(split)) for split in experiment.splits)
        return cls(space, prune, settings, experiment.prepared, experiment.data, splits)

    @property
    def id(self) -> str:
        """Different whenever a trial of the same number might be another; how many there are does not matter."""
        loss = self.space.bases[0]
        as_written = {"loss": loss.model_dump(mode="json")}  # so that searches of earlier versions go on
        runs = [self.run(fold, loss).identity() | as_written for fold in range(len(self.splits))]
        return fingerprint({"space": str(self.space), "prune": self.prune, "runs": runs})[:8]

    @property
    def seed(self) -> int:
        [seed] = self.settings.seeds
        return seed

    def run(self, fold: int, loss: LossChoice, seed: int | None = None) -> Run:
        """The training of a loss on a fold, from the search's seed or another."""
        [network] = self.settings.networks
        seed = self.seed if seed is None else seed
        return Run(loss, network, fold, seed, self.settings, self.data, self.splits[fold])

    def write(self, out: Path) -> None:
        record = {"space": str(self.space), "prune": self.prune, "settings": self.settings.model_dump(mode="json")}
        record |= {"prepared": self.prepared, "data": self.data, "splits": list(self.splits)}
        write_json(out / FOLDER / f"{self.id}.json", record)

    @classmethod
    def read(cls, out: Path, id: str) -> Self:
        path = out / FOLDER / f"{id}.json"
        record = read_json(path)
        with expecting("the plan of a search", path):
            rest = {name: record[name] for name in ("prune", "prepared", "data")}
            return cls(
                space=parse_space(record["space"]),
                settings=make_settings(**record["settings"]),
                splits=tuple(record["splits"]),
                **rest,
            )


@dataclass(frozen=True)
class Spot:
    """Which trial it is: of which search, on which fold, its number from 0."""

    search: str
    fold: int
    trial: int

    @property
    def name(self) -> str:
        return f"search-{self.search}-fold{self.fold}-trial{self.trial:03d}"

    @property
    def title(self) -> str:
        return f"fold {self.fold}, trial {self.trial}"

    @classmethod
    def parse(cls, name: str) -> Self:
        found = re.fullmatch(r"search-([0-9a-f]{8})-fold(\d+)-trial(\d+)", name)
        if found is None:
            raise LabError(f"expected the name of a trial, as in search-0123abcd-fold0-trial000; got {name!r}.")
        return cls(found[1], int(found[2]), int(found[3]))


@dataclass(frozen=True)
class Tried:
    """What a trial tries, as `trial.json` says.

    Attributes:
        candidate: name of the loss in the space.
        values: of all that varies of it.
        loss: its label, with them.
        number: Optuna's; None for the defaults, which were not asked for.
    """

    candidate: str
    values: Mapping[str, Any]
    loss: str
    number: int | None

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """None where nothing was chosen yet."""
        path = folder / "trial.json"
        if not path.is_file():
            return None
        try:
            return cls(**read_json(path))
        except (LabError, TypeError):  # what the folder holds besides is of a loss that nobody knows any more
            raise LabError(
                f"expected what a trial tries; {path} is damaged. Remove {folder} and repeat the command that made it: "
                "another trial takes its place."
            ) from None


def run_trial(out: str, name: str) -> Record:
    """Do a trial, or what is left of it; see `cells.run_cell`. Nothing that is done is done again."""
    from unifocal.lab.tuning.study import FoldStudy, Pruned

    spot, home = Spot.parse(name), Path(out)
    plan, folder = Plan.read(home, spot.search), home / "runs" / name
    study = FoldStudy(home / FOLDER / f"{spot.search}.journal", spot.fold, plan.space, plan.seed, plan.settings.epochs)
    tried = Tried.read(folder)
    if tried is None:
        tried = _choose(study, plan, spot, home)
        write_json(folder / "trial.json", asdict(tried))
    if read_end(folder) is None and (twin := _twin(home, spot, tried)):
        write_json(folder / "result.json", {"status": "repeated", "trial": twin.trial})
    record: Record = {"name": name, "status": "finished", "reason": None, "seconds": 0.0}
    if read_end(folder) in (None, "finished"):
        experiment = replace(open_experiment(home), prepared=plan.prepared)
        write_run(experiment, plan.run(spot.fold, LossChoice.parse(tried.loss)), name)
        # The defaults run to their end, and so does what several devices share: their processes have one judge each.
        judge: Judge = unmoved
        if plan.prune and tried.number is not None and plan.settings.devices == 1 and not is_finished(folder):
            judge = study.judge(tried.number)
        try:
            record = run_cell(out, name, judge)
        except Pruned:
            write_json(
                folder / "result.json", {"status": "pruned", "epochs": len(read_history(folder / "history.csv"))}
            )
        if record["status"] != "finished":
            return record | {"reason": f"{tried.loss}: {record['reason']}"}
    if read_end(folder) == "pruned":
        for checkpoint in folder.glob("*.ckpt"):
            checkpoint.unlink(missing_ok=True)
    _tell(study, plan, spot, tried, folder)
    return record | {"reason": f"{tried.loss}: {_in_short(folder)}"}


def _choose(study: "FoldStudy", plan: Plan, spot: Spot, home: Path) -> Tried:
    """The losses at their defaults come first; then Optuna is asked for what has not been tried on this fold."""
    candidates = plan.space.candidates
    if spot.trial < len(candidates):
        candidate = candidates[spot.trial]
        return Tried(candidate.name, candidate.defaults, candidate.base.label, None)
    known = {base.label for base in plan.space.bases}
    known |= {other.loss for folder in _folders(home, spot) if (other := Tried.read(folder))}
    number, candidate, values = study.ask(spot.trial, known)
    return Tried(candidate.name, values, candidate.loss(values).label, number)


def _folders(home: Path, spot: Spot) -> list[Path]:
    """Of the trials of a fold."""
    return sorted((home / "runs").glob(f"search-{spot.search}-fold{spot.fold}-trial*"))


def _twin(home: Path, spot: Spot, tried: Tried) -> Spot | None:
    """A finished trial of this fold that was the same training."""
    for folder in _folders(home, spot):
        if folder.name != spot.name and is_finished(folder):
            other = Tried.read(folder)
            if other is not None and other.loss == tried.loss:
                return Spot.parse(folder.name)
    return None


def read_end(folder: Path) -> str | None:
    """How a trial ended: finished, pruned or repeated; None if it has not."""
    try:
        return str(read_json(folder / "result.json")["status"])
    except (FileNotFoundError, LabError, KeyError, TypeError):
        return None


def source(folder: Path) -> Path:
    """The folder that holds the tables of a trial: its own, or that of the trial that it repeats."""
    if read_end(folder) != "repeated":
        return folder
    return folder.with_name(replace(Spot.parse(folder.name), trial=read_json(folder / "result.json")["trial"]).name)


def validation(folder: Path) -> float:
    """What a trial is judged by: the mean score of the validation cases, over cases and classes."""
    table = read_table(source(folder) / "validation.csv")
    return float(table.loc[table["metric"] == METRIC, "value"].mean())


def _tell(study: "FoldStudy", plan: Plan, spot: Spot, tried: Tried, folder: Path) -> None:
    value = None if read_end(folder) == "pruned" else validation(folder)
    if tried.number is not None:
        study.tell(tried.number, value)
    elif value is not None and (candidate := plan.space.named(tried.candidate)).holds_defaults:
        study.add(
            spot.trial, candidate, value, [row["validation_dice"] for row in read_history(folder / "history.csv")]
        )


def _in_short(folder: Path) -> str:
    match read_end(folder):
        case "pruned":
            return f"pruned after {read_json(folder / 'result.json')['epochs']} epochs"
        case "repeated":
            number = read_json(folder / "result.json")["trial"]
            return f"as in trial {number}, validation {METRIC} {validation(folder):.3f}"
    return f"validation {METRIC} {validation(folder):.3f}"
