"""Masks for new images from trained runs, on the grid and with the header of each image."""

from collections import Counter
from collections.abc import Sequence
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
from unifocal.lab.inference import predict as probabilities_of
from unifocal.lab.preparation import find_prediction, prepare_image, to_original, write_prediction
from unifocal.lab.progress import Track, silent
from unifocal.lab.runs import Run, fingerprint
from unifocal.lab.storage import lock, read_json, write_json
from unifocal.lab.training.execute import choose_device, chosen, is_trained, load_network
from unifocal.lab.words import counted

VARIES = ("fold", "seed", "split")  # between the runs of a model
RECORD = "prediction.json"  # what the masks in a folder were made by


@dataclass(frozen=True)
class Model:
    """Trained runs of one network and loss; their probabilities are averaged."""

    experiment: Experiment
    runs: tuple[Run, ...]

    @property
    def title(self) -> str:
        first = self.runs[0]
        return f"{first.network.label}, {first.loss.label}, {counted(len(self.runs), 'run')}"


def find_model(folder: Path, loss: str | None = None, network: str | None = None) -> Model:
    """The trained runs of `folder`: of a run's own, or those that the last training or comparison there asked for.

    Folds and seeds of one network and loss make up one model. Where there are several models, `loss` or `network`
    choose; what there is to choose from is told.
    """
    folder = folder.expanduser().resolve()
    if (folder / "run.json").is_file():
        experiment, run = read_run(folder.parent.parent, folder.name)
        return Model(experiment, (_trained(experiment, [run])))
    names = _planned(folder)
    if not names:
        raise LabError(
            "expected the output folder of `unifocal train` or `unifocal compare`, or one of its runs; "
            f"{folder} is none."
        )
    found = [read_run(folder, name) for name in names if is_trained(folder / "runs" / name)]
    if not found:
        raise LabError(f"expected a trained run; none of the {len(names)} in {folder} has finished its training.")
    models: dict[tuple[str, str], list[Run]] = {}
    for _, run in found:
        models.setdefault((run.network.label, run.loss.label), []).append(run)
    chosen = [key for key in models if loss in (None, key[1]) and network in (None, key[0])]
    if len(chosen) != 1:
        choices = "; ".join(f"--network {a} --loss {b}" for a, b in models)
        near = suggest(loss, [b for _, b in models]) if loss and not chosen else ""
        raise LabError(f"expected one network and loss; {folder} has {choices}. Choose.{near}")
    return Model(found[0][0], _trained(found[0][0], models[chosen[0]]))


def predict(
    model: Model,
    images: Path,
    out: Path,
    layout: str | None = None,
    device: str = "auto",
    track: Track = silent,
) -> list[Path]:
    """Write a mask of class indices for every image of a folder; those that are there and can be read are kept.

    Volumes whose axes point elsewhere than those trained on are turned for the network, and their masks turned back.

    Raises LabError, before anything starts, for images that are broken or do not fit the model, and where `out` holds
    the masks of another model; and at the end for images whose damage was found on reading, all at once.
    """
    images, out = images.expanduser().resolve(), out.expanduser().resolve()
    if out.is_relative_to(images):
        raise LabError(f"expected a folder for masks apart from the images; got {out}. Use another --out.")
    dataset = list_images(images, model.experiment.dataset, layout)
    axes = check_images(dataset)
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


def _trained(experiment: Experiment, runs: Sequence[Run]) -> tuple[Run, ...]:
    for run in runs:
        if not is_trained(experiment.run_folder(run.name)):
            raise LabError(f"expected a trained run; {experiment.run_folder(run.name)} has not finished its training.")
    ways = {fingerprint({k: v for k, v in run.identity().items() if k not in VARIES}) for run in runs}
    if len(ways) > 1:
        raise LabError(
            f"expected runs that were trained alike; the {len(runs)} of {runs[0].loss.label} have different settings. "
            "Name the folder of one run."
        )
    return tuple(runs)


def _planned(folder: Path) -> list[str]:
    """The runs that the last command asked for in `folder`, or in the one above if that held several data sets."""
    for home in (folder, folder.parent):
        if (home / "experiment.json").is_file():
            runs = read_json(home / "experiment.json")["runs"]
            return [run["name"] for run in runs if (home / run["folder"]).resolve() == folder]
    return []


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
    before = read_json(path) if path.exists() else {}
    stamps: dict[str, Any] = before.pop("stamps", {})
    if before and before != _made_by(model, dataset):
        raise LabError(
            f"expected an empty folder, or masks of the same images by the same model; {out} holds those of another. "
            "Use another --out."
        )
    _write(model, dataset, out, stamps)
    return stamps


def _write(model: Model, dataset: Dataset, out: Path, stamps: dict[str, Any]) -> None:
    write_json(out / RECORD, {**_made_by(model, dataset), "stamps": stamps})
