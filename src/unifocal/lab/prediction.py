"""Masks for new images from trained runs, on the grid and with the header of each image."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unifocal.lab.data.cases import Case, Dataset
from unifocal.lab.data.checks import look_at, look_into
from unifocal.lab.data.masks import read_values
from unifocal.lab.data.problems import listed, suggest
from unifocal.lab.data.unlabelled import list_images
from unifocal.lab.data.volumes import Header, turn
from unifocal.lab.errors import LabError
from unifocal.lab.experiment import Experiment, read_run
from unifocal.lab.grid.status import RunStatus, read_status
from unifocal.lab.inference import predict as probabilities_of
from unifocal.lab.preparation import find_prediction, prepare_image, to_original, write_prediction
from unifocal.lab.progress import Track, silent
from unifocal.lab.runs import Run, fingerprint
from unifocal.lab.storage import expecting, lock, read_json, write_json
from unifocal.lab.training.execute import choose_device, chosen, is_trained, load_network
from unifocal.lab.training.fit import WEIGHTS
from unifocal.lab.words import counted

Key = tuple[str, str]  # network and loss

VARIES = ("fold", "seed", "split")  # between the runs of a model
RECORD = "prediction.json"  # what the masks in a folder were made by


@dataclass(frozen=True)
class Model:
    """Trained runs of one network and loss; their probabilities are averaged.

    Attributes:
        missing: what is to be said of each run that was asked for, too, and cannot be used.
    """

    experiment: Experiment
    runs: tuple[Run, ...]
    missing: tuple[str, ...] = ()

    @property
    def warning(self) -> str:
        """Which runs are missing, and why; empty if none is."""
        if not self.missing:
            return ""
        planned = counted(len(self.runs) + len(self.missing), "run")
        return f"only {len(self.runs)} of {planned} can be used: {'; '.join(self.missing)}"

    @property
    def title(self) -> str:
        first = self.runs[0]
        return f"{first.network.label}, {first.loss.label}, {counted(len(self.runs), 'run')}"


def find_model(folder: Path, loss: str | None = None, network: str | None = None) -> Model:
    """The trained runs of `folder`: of a run's own, or those that the last training or comparison there asked for.

    Folds and seeds of one network and loss make up one model. Where there are several models, `loss` or `network`
    choose among those that were asked for, trained or not; what there is to choose from is told.
    """
    folder = folder.expanduser().resolve()
    if (folder / "run.json").is_file():
        experiment, run = _open(folder.parent.parent, folder.name)
        if not is_trained(folder):
            lost = (folder / "result.json").is_file() and not (folder / WEIGHTS).is_file()
            what = f"has no {WEIGHTS}" if lost else "has not finished its training"
            raise LabError(f"expected a trained run; {folder} {what}.")
        return Model(experiment, (run,))
    planned = _planned(folder)
    if not planned:
        raise LabError(
            "expected the output folder of `unifocal train` or `unifocal compare`, or one of its runs; "
            f"{folder} is none."
        )
    models: dict[Key, list[RunStatus]] = {}
    for key, status in planned:
        models.setdefault(key, []).append(status)
    chosen = [key for key in models if loss in (None, key[1]) and network in (None, key[0])]
    if len(chosen) != 1:
        choices = "; ".join(f"--network {a} --loss {b}" for a, b in models)
        near = suggest(loss, [b for _, b in models]) if loss and not chosen else ""
        raise LabError(f"expected one network and loss; {folder} has {choices}. Choose.{near}")
    runs = models[chosen[0]]
    trained = [run for run in runs if is_trained(folder / "runs" / run.name)]
    missing = tuple(f"{run.title} {_why(run)}" for run in runs if run not in trained)
    if not trained:
        raise LabError(
            f"expected a trained run of {', '.join(chosen[0])}; {folder} has none: {'; '.join(missing)}. "
            "The command that made this folder trains what is missing."
        )
    found = [_open(folder, run.name) for run in trained]
    return Model(found[0][0], _alike([run for _, run in found]), missing)


def predict(
    model: Model,
    images: Path,
    out: Path,
    layout: str | None = None,
    device: str = "auto",
    track: Track = silent,
    say: Callable[[str], object] = lambda text: None,
) -> list[Path]:
    """Write a mask of class indices for every image of a folder; those that are there and can be read are kept.

    `say` is told what of the folder is left out.
    Volumes whose axes point elsewhere than those trained on are turned for the network, and their masks turned back.

    Raises LabError, before anything starts, for images that are broken or do not fit the model, and where `out` holds
    the masks of another model; and at the end for images whose damage was found on reading, all at once.
    """
    images, out = images.expanduser().resolve(), out.expanduser().resolve()
    if out.is_relative_to(images):
        raise LabError(f"expected a folder for masks apart from the images; got {out}. Use another --out.")
    dataset = list_images(images, model.experiment.dataset, layout)
    axes = check_images(dataset)
    for note in dataset.notes:
        say(note)
    with lock(out):
        stamps = _record(model, dataset, out)
        members = _Members(model, torch.device(choose_device(device)))
        paths, problems = [], []
        for case in track(dataset.cases, "predicting"):
            path, stamp = find_prediction(out, case.id), _stamp(case)
            if path is None or not _is_readable(path) or stamps.get(case.id) != stamp:
                try:
                    mask = members.mask(case, dataset, axes.get(case.id))
                except LabError as error:
                    problems.append(f"{case.id}: {error}")
                    continue
                path = write_prediction(out, case.id, mask, like=case.image)
                stamps[case.id] = stamp
                _write(model, dataset, out, stamps)
            paths.append(path)
    if problems:
        raise LabError(
            f"{listed('expected images that can be read', problems)}\n"
            f"The masks of the others, {len(paths)} of {len(dataset.cases)}, are in {out}."
        )
    return paths


class _Members:
    """The networks of a model: the mean of their probabilities."""

    def __init__(self, model: Model, device: torch.device) -> None:
        self.device, self.settings = device, model.runs[0].settings
        experiment, run = model.experiment, model.runs[0]
        self.trained = experiment.dataset
        self.divisor = chosen(run, experiment).divisor
        self.networks: list[nn.Module] = [
            load_network(run, experiment, experiment.run_folder(run.name)).to(device).eval() for run in model.runs
        ]

    def mask(self, case: Case, dataset: Dataset, axes: str | None) -> NDArray[np.uint8]:
        """Class indices on the grid of the file; `axes` are those of a volume."""
        seen = axes_seen(axes, self.trained)
        image, placement = prepare_image(case, dataset, self.settings, seen)
        found = to_original(self(image), placement)
        return found if axes is None or seen is None else turn(found, seen, axes)

    def __call__(self, image: Tensor) -> Tensor:
        parts = [probabilities_of(n, image, self.settings, self.device, self.divisor) for n in self.networks]
        return sum(parts[1:], parts[0]) / len(parts)


def _alike(runs: Sequence[Run]) -> tuple[Run, ...]:
    ways = {fingerprint({k: v for k, v in run.identity().items() if k not in VARIES}) for run in runs}
    if len(ways) > 1:
        raise LabError(
            f"expected runs that were trained alike; the {len(runs)} of {runs[0].loss.label} have different settings. "
            "Name the folder of one run."
        )
    return tuple(runs)


def _planned(folder: Path) -> list[tuple[Key, RunStatus]]:
    """The runs that the last command asked for in `folder`, or in the one above if that held several data sets.

    Raises LabError for the one above itself.
    """
    home = next((home for home in (folder, folder.parent) if (home / "experiment.json").is_file()), None)
    if home is None:
        return []
    statuses = read_status(home)
    with expecting("planned runs", home / "experiment.json"):
        entries = list(zip(read_json(home / "experiment.json")["runs"], statuses, strict=True))
        folders = {home / entry["folder"]: None for entry, _ in entries}
        here = [(entry, status) for entry, status in entries if (home / entry["folder"]).resolve() == folder]
        if not here and home == folder and folders:
            raise LabError(
                f"expected the folder of one data set; {folder} holds {len(folders)}. "
                f"Name one of them: {', '.join(map(str, folders))}."
            )
        return [(key, status) for entry, status in here if (key := _key(folder, entry)) is not None]


def _open(folder: Path, name: str) -> tuple[Experiment, Run]:
    try:
        return read_run(folder, name)
    except FileNotFoundError as error:
        raise LabError(
            f"expected all that tells of a run; {error.filename} is missing. Repeat the command that made this folder, "
            "which writes it anew."
        ) from None


def _key(folder: Path, entry: dict[str, Any]) -> Key | None:
    """Network and loss of a planned run; of a trial of a search, which chooses its loss late, once it is trained."""
    if entry["loss"] is not None:
        return entry["network"], entry["loss"]
    if not is_trained(folder / "runs" / entry["name"]):
        return None
    _, run = _open(folder, entry["name"])
    return run.network.label, run.loss.label


def _why(run: RunStatus) -> str:
    """What keeps a run from being used."""
    if run.state == "failed":
        return f"failed ({run.reason})"
    return f"has no {WEIGHTS}" if run.state in ("finished", "pruned") else f"is {run.state}"


def axes_seen(axes: str | None, trained: Dataset) -> str | None:
    """Where the axes of a volume point when the network sees it: as they are, or as most of those trained on."""
    known = Counter(facts.axes for facts in trained.facts if facts.axes is not None)
    return axes if axes in known or not known else known.most_common(1)[0][0]


def check_images(dataset: Dataset) -> dict[str, str]:
    """Where the axes of each volume point, by case; a LabError with every case whose files are broken or do not fit.

    Of volumes headers and sizes are looked at: what is wrong inside is seen when they are read.
    """
    axes, problems = {}, []
    for case in dataset.cases:
        looks, wrong = look_at(case, dataset)
        problems += wrong
        if isinstance(look := looks.get(case.image), Header):
            axes[case.id] = look.grid.axes
    if problems:
        raise LabError(listed("expected images that can be read", problems))
    return axes


def _is_readable(path: Path) -> bool:
    """Can a mask be read to its end? Not, is it what was written: one that somebody has corrected by hand stays."""
    try:
        look_into(path)
        read_values(path)
    except LabError:
        return False
    return True


def _stamp(case: Case) -> list[list[Any]]:
    """What tells that an image has been replaced, by a newer or an older one."""
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in case.images]


def _made_by(model: Model, dataset: Dataset) -> dict[str, Any]:
    runs = sorted(run.name for run in model.runs)
    return {"model": model.title, "runs": runs, "images": str(dataset.root)}


def _record(model: Model, dataset: Dataset, out: Path) -> dict[str, Any]:
    """Masks of different models, or of different images, never stand in one folder as if they were of one.

    Returns the stamps of the images whose masks are there.
    """
    path = out / RECORD
    stamps: dict[str, Any] = {}
    if path.exists():
        before, now = read_json(path), _made_by(model, dataset)
        with expecting("what the masks in this folder were made by", path):
            stamps = dict(before.pop("stamps", {}))
            other = _other(before, now) if before != now else None
        if other:
            raise LabError(
                f"expected an empty folder, or masks of the same images by the same model; {out} holds those of "
                f"{other}. Use another --out."
            )
    _write(model, dataset, out, stamps)
    return stamps


def _other(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What the masks that are there were made of, or by, in so far as that differs."""
    runs, wanted = set(before["runs"]), set(now["runs"])
    if runs < wanted:
        return f"{len(runs)} of its {counted(len(wanted), 'run')}, as the others could not be used then"
    if runs > wanted:
        return f"{counted(len(runs), 'run')}, of which {len(wanted)} can be used now"
    return f"other images ({before['images']})" if runs == wanted else f"another ({before['model']})"


def _write(model: Model, dataset: Dataset, out: Path, stamps: dict[str, Any]) -> None:
    write_json(out / RECORD, {**_made_by(model, dataset), "stamps": stamps})
