"""A data set and its folds in an output folder: all that a process anywhere needs to know to take part.

    dataset.json    cases with their files, classes and facts; the folder of the prepared cases
    folds.json      who is in which fold, groups, near-duplicates
    prepared/       the cases as the networks see them, a folder for each way to prepare them
    runs/<name>/    a run, with its own `run.json`

One folder belongs to one data set and one set of folds; asking for others there is refused. Other training settings may
share it: each run has a folder of its own, named by its identity.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from unifocal.lab.choices import LossChoice, NetworkChoice
from unifocal.lab.data.cases import Dataset
from unifocal.lab.data.duplicates import NearDuplicates, Pair, duplicates_in, identical_files
from unifocal.lab.data.folds import make_strata, merge_groups
from unifocal.lab.data.images import read_image
from unifocal.lab.division import PARTS, Split, divide
from unifocal.lab.errors import LabError
from unifocal.lab.preparation import PreparedSet, data_fingerprint, file_digests, open_prepared, prepare_all
from unifocal.lab.progress import Track, silent
from unifocal.lab.runs import Run, fingerprint
from unifocal.lab.settings import Settings, make_settings
from unifocal.lab.storage import ANEW, expecting, read_json, write_json
from unifocal.lab.words import counted

PREPARED = "prepared"
DATASET = TypeAdapter(Dataset)


@dataclass(frozen=True)
class Experiment:
    """A data set, its folds and its prepared cases, in `folder`.

    Attributes:
        data: fingerprint of images, masks and classes.
        groups: of each case; patients and near-duplicates, which no fold parts.
        pairs: the near-duplicates found.
        prepared: name of the folder of the prepared cases.
    """

    folder: Path
    dataset: Dataset
    data: str
    groups: tuple[int, ...]
    splits: tuple[Split, ...]
    pairs: tuple[Pair, ...]
    prepared: str

    @cached_property
    def cases(self) -> PreparedSet:
        """The cases as the networks see them."""
        return open_prepared(self.folder / PREPARED / self.prepared)

    def runs(self, settings: Settings) -> list[Run]:
        """Every loss on every network, fold and seed; folds outside, so that an early stop leaves whole folds."""
        return [
            self._found(Run(loss, network, fold, seed, settings, self.data, fingerprint(self.names(split))))
            for seed in settings.seeds
            for fold, split in enumerate(self.splits)
            for network in settings.networks
            for loss in settings.losses
        ]

    def _found(self, run: Run) -> Run:
        """The run in the folder that an earlier version made for it, if there is one and no newer one."""
        earlier = run.earlier_name
        if earlier == run.name or self.run_folder(run.name).exists() or not self.run_folder(earlier).exists():
            return run
        return replace(run, folder=earlier)

    def names(self, split: Split) -> dict[str, list[str]]:
        """The ids of a split's cases, by part."""
        return {part: [self.dataset.cases[i].id for i in getattr(split, part)] for part in PARTS}

    def run_folder(self, name: str) -> Path:
        return self.folder / "runs" / name


def plan(dataset: Dataset, settings: Settings, folder: Path, track: Track = silent) -> Experiment:
    """Find groups, deal the folds, prepare every case; what is there already is kept, and refused if it differs."""
    foreground = shares(dataset)
    if not any(foreground):
        raise LabError(
            f"expected lesions; all {counted(len(foreground), 'mask')} of {dataset.root} without one. Do they mark the "
            "lesion in their transparency only, or lie elsewhere?"
        )
    digests = file_digests(dataset, folder / PREPARED, track)
    duplicates = _duplicates(dataset, digests, track)
    groups = merge_groups([case.group for case in dataset.cases], duplicates.groups)
    strata = make_strata(foreground, [case.label for case in dataset.cases])
    splits = divide(dataset, groups, strata, settings)
    data = data_fingerprint(dataset, digests)
    experiment = Experiment(folder, dataset, data, tuple(groups), splits, tuple(duplicates.pairs), "")
    _record_folds(experiment, settings)
    prepared = prepare_all(dataset, settings, folder / PREPARED, track)
    experiment = replace(experiment, prepared=prepared.folder.name)
    write_json(
        folder / "dataset.json",
        {"prepared": experiment.prepared, "dataset": DATASET.dump_python(dataset, mode="json")},
    )
    return experiment


def open_experiment(folder: Path) -> Experiment:
    """What `plan` has written to `folder`."""
    record, folds = read_json(folder / "dataset.json"), read_json(folder / "folds.json")
    with expecting("a data set", folder / "dataset.json"):
        dataset, prepared = DATASET.validate_python(record["dataset"], strict=False), str(record["prepared"])
    position = {case.id: i for i, case in enumerate(dataset.cases)}
    with expecting("the folds of this data set", folder / "folds.json"):
        splits = tuple(
            Split(*(tuple(position[name] for name in fold[part]) for part in PARTS)) for fold in folds["folds"]
        )
        pairs = tuple(
            Pair(position[first], position[second], pair["similarity"], pair["identical"])
            for pair in folds["near_duplicates"]
            for first, second in [pair["cases"]]
        )
        groups = tuple(folds["groups"][case.id] for case in dataset.cases)
        return Experiment(folder, dataset, folds["data"], groups, splits, pairs, prepared)


def write_run(experiment: Experiment, run: Run, name: str | None = None) -> None:
    """Write down what `read_run` reads, unless it stands there already; `name` is the folder's, if not the run's.

    A damaged file is written anew: all that it says is known.
    """
    record = {
        "loss": run.loss.label,
        "network": run.network.label,
        "fold": run.fold,
        "seed": run.seed,
        "split": run.split,
        "prepared": experiment.prepared,
        "settings": run.settings.model_dump(mode="json"),
    }
    path = experiment.run_folder(name or run.name) / "run.json"
    try:
        there = read_json(path)
    except (FileNotFoundError, LabError):
        there = None
    if there != json.loads(json.dumps(record)):
        write_json(path, record)


def read_run(folder: Path, name: str) -> tuple[Experiment, Run]:
    """A run that has been planned in `folder`, and what it works on."""
    path, experiment = folder / "runs" / name / "run.json", open_experiment(folder)
    record = read_json(path)
    with expecting("a planned run", path):
        settings = make_settings(**record["settings"])
        loss, network = LossChoice.parse(record["loss"]), NetworkChoice.parse(record["network"])
        place = (record["fold"], record["seed"], settings, experiment.data, record["split"])
        run = Run(loss, network, *place, folder=name)
        return replace(experiment, prepared=record["prepared"]), run


def shares(dataset: Dataset) -> list[float]:
    """Share of foreground of every case."""
    return [1 - facts.voxels[0] / max(sum(facts.voxels), 1) for facts in dataset.facts]


def _duplicates(dataset: Dataset, digests: Mapping[Path, str], track: Track) -> NearDuplicates:
    """Pictures that look alike; of volumes those whose files are the same."""
    if dataset.dimension == 2:
        return duplicates_in(
            dataset, (read_image(case) for case in track(dataset.cases, "looking for near-duplicates"))
        )
    return identical_files([tuple(digests[path] for path in case.images) for case in dataset.cases])


def _record_folds(experiment: Experiment, settings: Settings) -> None:
    """Write the folds, or check that those already there are the same."""
    dataset, path = experiment.dataset, experiment.folder / "folds.json"
    names = [case.id for case in dataset.cases]
    record: dict[str, Any] = {
        "data": experiment.data,
        "cases": len(names),
        "classes": list(dataset.classes),
        "division": settings.division,
        "seed": settings.split_seed,
        "validation": settings.validation,
        "groups": dict(zip(names, experiment.groups, strict=True)),
        "folds": [experiment.names(split) for split in experiment.splits],
        "near_duplicates": [
            {
                "cases": [names[pair.i], names[pair.j]],
                "similarity": round(pair.similarity, 4),
                "identical": pair.identical,
            }
            for pair in experiment.pairs
        ],
    }
    if not path.exists():
        write_json(path, record)
        return
    before = read_json(path)
    if not isinstance(before, dict):
        raise LabError(f"expected the folds of an earlier comparison; {path} is none. {ANEW}")
    parts = {
        "data": "the images, masks or classes",
        "seed": "the seed of the folds",
        "validation": "the share for validation",
        "groups": "the groups of cases",
        "folds": "the folds",
    }
    changed = [words for key, words in parts.items() if before.get(key) != record[key]]
    if changed:
        raise LabError(
            f"expected the same data and folds as before in {path.parent}; what differs: {', '.join(changed)}. "
            "One output folder holds one set of folds: use another --out."
        )
