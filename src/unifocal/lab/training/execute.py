"""One run from its first epoch to its tables, in its own folder, going on wherever it was left.

The folder holds

    run.json        its identity and settings
    history.csv     one row for each epoch
    weights.ckpt    weights of the lowest validation loss, or of the last epoch, as `keep` says
    last.ckpt       everything needed to go on, and previous.ckpt, of the epoch before; removed at the end. The next one
                    is next.ckpt until it is whole
    predictions/    class indices on the grid of the original image
    cases.csv       metrics of the test cases, and lesions.csv, of each of their lesions
    validation.csv  metrics of the cases that chose the epoch
    result.json     the very last file; besides the times of its epochs it says how long the process that trained
                    took beyond them (`seconds_starting`), and for predictions and metrics (`seconds_scoring`)
"""

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from unifocal.lab.batches import Batches
from unifocal.lab.data.cases import IGNORE
from unifocal.lab.errors import LabError
from unifocal.lab.experiment import Experiment
from unifocal.lab.networks.chosen import Chosen
from unifocal.lab.results import UNKNOWN, is_whole, rows_of, write_table
from unifocal.lab.runs import Run
from unifocal.lab.storage import read_json, remove_parts, write_json
from unifocal.lab.training.checkpoints import CHECKPOINTS, remove_checkpoints
from unifocal.lab.training.fit import WEIGHTS, Tell, check_whole, fit
from unifocal.lab.training.history import Judge, Row, best_epoch, is_over, read_history, unmoved
from unifocal.lab.training.initialisation import initialise
from unifocal.lab.training.scoring import score
from unifocal.lab.training.segmentation import Segmentation

TABLES = ("cases", "lesions", "validation")  # `rows` of `result.json` says how long each is


def silent(epoch: int, validation_loss: float) -> None:
    """Tells nobody; a function with a name, since the processes of one run are handed it by that."""


def execute(run: Run, experiment: Experiment, folder: Path, tell: Tell = silent, judge: Judge = unmoved) -> None:
    """Train, predict and measure one run.

    Raises whatever went wrong, or what `judge` raises; KeyboardInterrupt passes as such. In either case the same call
    goes on later from the last whole epoch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_parts(folder)
    device = torch.device(choose_device(run.settings.device))
    split = experiment.splits[run.fold]
    result = read_result(folder) or recover_result(run, folder)
    if result is None:
        result = train(run, experiment, folder, device, tell, judge)
    started = time.perf_counter()
    network = load_network(run, experiment, folder)
    divisor = chosen(run, experiment).divisor
    tables: dict[str, pd.DataFrame] = {}
    tables["validation"], _ = score(run, experiment, network, divisor, split.validation, device)
    tables["cases"], tables["lesions"] = score(
        run, experiment, network, divisor, split.test, device, folder / "predictions"
    )
    for name in TABLES:
        write_table(folder / f"{name}.csv", tables[name])
    result.setdefault("seconds_scoring", round(time.perf_counter() - started, 3))
    write_json(folder / "result.json", result | {"rows": {name: len(tables[name]) for name in TABLES}})
    remove_checkpoints(folder)


def train(
    run: Run, experiment: Experiment, folder: Path, device: torch.device, tell: Tell, judge: Judge
) -> dict[str, Any]:
    """Leave the weights in `weights.ckpt`; return what `result.json` says."""
    settings = run.settings
    started = time.perf_counter()
    network = build_network(run, experiment)
    module = Segmentation(network, run.loss.build(ignore_index=IGNORE), settings, folder / "history.csv")
    module.judge = judge
    batches, held_out = make_batches(run, experiment, module.epoch, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    begun = fit(module, batches, held_out, settings, folder, device.type, tell)
    history = read_history(folder / "history.csv")
    here = [row["seconds"] for row in history[begun:]]  # a run that went on has taken the others before
    beyond = time.perf_counter() - started - (len(here) * float(np.median(here)) if here else 0.0)
    return {
        **of_history(history),
        "seconds_starting": round(beyond, 3),
        "parameters": sum(p.numel() for p in network.parameters()),
        "gpu_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def of_history(history: Sequence[Row]) -> dict[str, Any]:
    """What `result.json` says that the rows of the epochs tell."""
    best, seconds = best_epoch(history), [row["seconds"] for row in history]
    return {
        "status": "finished",
        "seconds": round(sum(seconds), 3),
        "seconds_per_epoch": round(float(np.median(seconds)), 4),
        "epochs": len(history),
        "best_epoch": int(best["epoch"]),
        "validation_loss": best["validation_loss"],
    }


def recover_result(run: Run, folder: Path) -> dict[str, Any] | None:
    """What is left to say of a run that has lost its `result.json` after its training; None if it was not over.

    Only then are there no checkpoints any more, and weights beside a whole history.
    """
    if any((folder / name).exists() for name in CHECKPOINTS) or not (folder / WEIGHTS).is_file():
        return None
    try:
        check_whole(folder / WEIGHTS)
        history = read_history(folder / "history.csv")
    except LabError:
        return None
    if not is_over(history, run.settings.epochs, run.settings.early_stop):
        return None
    return {**of_history(history), "device": UNKNOWN, "versions": {}}


def make_batches(
    run: Run, experiment: Experiment, epoch: Callable[[], int], device: torch.device
) -> tuple[Batches, Batches]:
    """To train on, in the order and with the augmentation of `epoch()`, and to validate on."""
    split, divisor, seed = experiment.splits[run.fold], chosen(run, experiment).divisor, (run.seed, run.fold)
    return (
        Batches(experiment.cases, split.train, run.settings, seed, epoch, device, divisor),
        Batches(experiment.cases, split.validation, run.settings, seed, None, device, divisor),
    )


def chosen(run: Run, experiment: Experiment) -> Chosen:
    return Chosen.of(run.network, experiment.dataset.dimension, run.settings.width)


def build_network(run: Run, experiment: Experiment) -> nn.Module:
    """The network before its first step: its weights depend on seed and fold, and not on the loss."""
    seed = int(np.random.SeedSequence((run.seed, run.fold)).generate_state(1)[0])
    classes, supervised = len(experiment.dataset.classes), run.settings.deep_supervision != "none"
    network = chosen(run, experiment).build(experiment.cases.channels, classes, seed, supervised)
    initialise(network, run.settings.initialisation, seed)
    return network


def load_network(run: Run, experiment: Experiment, folder: Path) -> nn.Module:
    """The trained network."""
    network = build_network(run, experiment)
    try:
        check_whole(folder / WEIGHTS)
    except LabError as error:
        raise LabError(f"{error} Remove {folder}, and train it again.") from None
    weights = torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True)["state_dict"]
    network.load_state_dict(
        {name.removeprefix("network."): value for name, value in weights.items() if name.startswith("network.")}
    )
    return network


def read_result(folder: Path) -> dict[str, Any] | None:
    """`result.json` of a run that is trained; None if it is not, or if the file is damaged or the weights are gone."""
    try:
        result = read_json(folder / "result.json")
    except (FileNotFoundError, LabError):
        return None
    return result if isinstance(result, dict) and (folder / WEIGHTS).is_file() else None


def is_trained(folder: Path) -> bool:
    """Are the weights of a run final?"""
    return read_result(folder) is not None


def is_finished(folder: Path) -> bool:
    """Is all there that a report needs, and whole? A run that has lost a part of it is completed from its weights."""
    result = read_result(folder)
    return result is not None and all(is_whole(folder / f"{name}.csv", rows_of(result, name)) for name in TABLES)


def choose_device(name: str) -> str:
    """`cpu` or `cuda`; auto takes the GPU where there is one."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def versions() -> Mapping[str, str]:
    from importlib.metadata import version

    names = ("unifocal", "torch", "lightning", "monai", "numpy", "scipy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def processor() -> str:
    """The model of the CPU; where the system does not tell, its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
