"""Masks for new images from trained runs, on the grid and with the header of each image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from unifocal.lab.data.problems import suggest
from unifocal.lab.data.unlabelled import list_images
from unifocal.lab.errors import LabError
from unifocal.lab.experiment import Experiment, read_run
from unifocal.lab.inference import predict as probabilities_of
from unifocal.lab.preparation import find_prediction, prepare_image, to_original, write_prediction
from unifocal.lab.progress import Track, silent
from unifocal.lab.runs import Run, fingerprint
from unifocal.lab.storage import lock, read_json, write_json
from unifocal.lab.training.execute import choose_device, chosen, is_trained, load_network

RECORD = "prediction.json"  # what the masks in a folder were made by


@dataclass(frozen=True)
class Model:
    """Trained runs of one network and loss; their probabilities are averaged."""

    experiment: Experiment
    runs: tuple[Run, ...]

    @property
    def title(self) -> str:
        first = self.runs[0]
        return f"{first.network.label}, {first.loss.label}, {len(self.runs)} run{'s' * (len(self.runs) > 1)}"


def find_model(folder: Path, loss: str | None = None, network: str | None = None) -> Model:
    """The trained runs below `folder`: a run's own folder, that of a training, or that of a comparison.

    Folds and seeds of one network and loss make up one model. Where there are several models, `loss` or `network`
    choose; what there is to choose from is told.
    """
    folder = folder.expanduser().resolve()
    if (folder / "run.json").is_file():
        experiment, run = read_run(folder.parent.parent, folder.name)
        return Model(experiment, (_trained(experiment, [run])))
    names = sorted(path.parent.name for path in folder.glob("runs/*/run.json"))
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
    """Write a mask of class indices for every image of a folder; those that are there already are not made again.

    Raises LabError for images that do not fit the model, and where `out` holds the masks of another model.
    """
    dataset = list_images(images, model.experiment.dataset, layout)
    out = out.expanduser().resolve()
    with lock(out):
        _record(model, out)
        members = _Members(model, torch.device(choose_device(device)))
        paths = []
        for case in track(dataset.cases, "predicting"):
            path = find_prediction(out, case.id)
            if path is None:
                image, placement = prepare_image(case, dataset, model.runs[0].settings)
                path = write_prediction(out, case.id, to_original(members(image), placement), like=case.image)
            paths.append(path)
    return paths


class _Members:
    """The networks of a model: the mean of their probabilities."""

    def __init__(self, model: Model, device: torch.device) -> None:
        self.device, self.settings = device, model.runs[0].settings
        experiment, run = model.experiment, model.runs[0]
        self.divisor = chosen(run, experiment).divisor
        self.networks: list[nn.Module] = [
            load_network(run, experiment, experiment.run_folder(run.name)).to(device).eval() for run in model.runs
        ]

    def __call__(self, image: Tensor) -> Tensor:
        parts = [probabilities_of(n, image, self.settings, self.device, self.divisor) for n in self.networks]
        return sum(parts[1:], parts[0]) / len(parts)


def _trained(experiment: Experiment, runs: Sequence[Run]) -> tuple[Run, ...]:
    for run in runs:
        if not is_trained(experiment.run_folder(run.name)):
            raise LabError(f"expected a trained run; {experiment.run_folder(run.name)} has not finished its training.")
    preparations = {fingerprint(run.settings.section("Preparation")) for run in runs}
    if len(preparations) > 1:
        raise LabError(
            f"expected runs that see images alike; the {len(runs)} of {runs[0].loss.label} were trained with different "
            "settings of the section Preparation. Name the folder of one run."
        )
    return tuple(runs)


def _record(model: Model, out: Path) -> None:
    """Masks of different models never stand in one folder as if they were of one."""
    record = {"model": model.title, "runs": sorted(run.name for run in model.runs)}
    path = out / RECORD
    if path.exists() and read_json(path) != record:
        raise LabError(
            f"expected an empty folder, or masks by the same model; {out} holds those of another. Use another --out."
        )
    write_json(path, record)
