"""What a comparison would take, from a few real steps of each of its cells.

Everything up to the first run is done for good, in the output folder: `unifocal compare` goes on from there. Then each
network with each loss takes some steps on the prepared cases, and its time and memory are multiplied out.
"""

import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from unifocal.lab.batches import Batches
from unifocal.lab.cells import explain
from unifocal.lab.comparison import plan_all, plan_runs
from unifocal.lab.data.cases import IGNORE, Dataset
from unifocal.lab.data.masks import read_mask
from unifocal.lab.device import autocast
from unifocal.lab.experiment import Experiment
from unifocal.lab.inference import predict
from unifocal.lab.outcome import Outcome
from unifocal.lab.progress import Watcher
from unifocal.lab.runs import Run
from unifocal.lab.settings import Settings
from unifocal.lab.storage import lock
from unifocal.lab.training.execute import build_network, choose_device, chosen, is_finished, make_batches
from unifocal.lab.training.scoring import Scores
from unifocal.lab.training.segmentation import Segmentation

WARM = 2  # steps before the clock starts: they allocate and choose algorithms
TIMED = 5


@dataclass(frozen=True)
class Cost:
    """One cell of the grid: a network with a loss on a data set, all its folds and seeds.

    Attributes:
        runs: how many, and `finished`: how many of them are done already.
        step: seconds of a step of training; `epoch` of a whole epoch, validation included.
        run: seconds of a whole run, predictions and their metrics included.
        memory: peak bytes on the GPU, or of the process on a CPU; None where not known.
        problem: why it could not be measured.
    """

    dataset: str
    network: str
    loss: str
    runs: int
    finished: int
    step: float = float("nan")
    epoch: float = float("nan")
    run: float = float("nan")
    memory: int | None = None
    problem: str | None = None

    @property
    def left(self) -> float:
        """Seconds of the runs still to do, one after the other."""
        return self.run * (self.runs - self.finished)


def plan_costs(
    datasets: Sequence[Dataset], settings: Settings, out: Path, watcher: Watcher | None = None
) -> list[Cost]:
    """Plan the comparison in `out`, then measure each of its cells; one that fails is told and stops no other."""
    watcher, out = watcher or Watcher(), Path(out).expanduser().resolve()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    with watcher:
        experiments = plan_all(datasets, settings, out, watcher)
        with lock(out):
            planned = plan_runs(experiments, settings, out)
        return [_cost(cell, watcher) for cell in _cells(planned)]


def _cells(planned: Sequence[Outcome]) -> list[list[Outcome]]:
    """The runs by data set, network and loss."""
    cells: dict[tuple[Path, str, str], list[Outcome]] = {}
    for outcome in planned:
        key = (outcome.experiment.folder, outcome.run.network.label, outcome.run.loss.label)
        cells.setdefault(key, []).append(outcome)
    return list(cells.values())


def _cost(cell: Sequence[Outcome], watcher: Watcher) -> Cost:
    experiment, run = cell[0].experiment, cell[0].run
    watcher.stage(f"measuring {run.network.label}, {run.loss.label} on {experiment.dataset.name}")
    known = (experiment.dataset.name, run.network.label, run.loss.label)
    counts = (len(cell), sum(is_finished(outcome.folder) for outcome in cell))
    try:
        return Cost(*known, *counts, **measure(run, experiment))
    except Exception as error:
        return Cost(*known, *counts, problem=explain(error))


def measure(run: Run, experiment: Experiment) -> dict[str, Any]:
    """`step`, `epoch`, `run` and `memory` of a `Cost`, by `TIMED` real steps and one case, predicted and measured.

    Measured is the truth against itself: what a network finds that has learnt nothing says little of its cost.
    """
    settings, split = run.settings, experiment.splits[run.fold]
    device = torch.device(choose_device(settings.device))
    network = build_network(run, experiment).to(device)
    divisor = chosen(run, experiment).divisor
    module = Segmentation(network, run.loss.build(ignore_index=IGNORE), settings, Path())
    optimiser = module.configure_optimizers()
    batches, held_out = make_batches(run, experiment, lambda: 0, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)

    def train(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        with autocast(settings.precision, device):
            loss = module.training_loss(network(batch[0]), batch[1])
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    @torch.no_grad()
    def validate(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        with autocast(settings.precision, device):
            module.loss(network(batch[0]), batch[1])

    network.train()
    step = _seconds_each(train, _again(batches), device)
    network.eval()
    check = _seconds_each(validate, _again(held_out), device)
    first, dataset = split.train[0], experiment.dataset
    image, truth = experiment.cases[first].image, read_mask(dataset.cases[first], dataset)

    def score(_: object) -> None:
        predict(network, image, settings, device, divisor)
        Scores(run, experiment).add(first, truth)

    case = _seconds_each(score, iter([None] * 2), device, warm=1)
    epoch = len(batches) * step + len(held_out) * check
    scored = len(split.validation) + len(split.test)
    whole = settings.epochs * epoch + scored * case
    return {"step": step, "epoch": epoch, "run": whole, "memory": _peak(device)}


def _again(batches: Batches) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    while True:
        yield from batches


def _seconds_each(work: Callable[[Any], object], items: Iterator[Any], device: torch.device, warm: int = WARM) -> float:
    for item in islice(items, warm):
        work(item)
    _wait(device)
    started, n = time.perf_counter(), 0
    for item in islice(items, TIMED):
        work(item)
        n += 1
    _wait(device)
    return (time.perf_counter() - started) / max(n, 1)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # kilobytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
