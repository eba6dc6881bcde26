"""What the lab adds to the training of a network: its own trainer against a bare PyTorch loop, epoch by epoch in turn.

    python benchmarks/lab.py [--size 128] [--width 16] [--rounds 8] [--epochs 4]

Both train the same U-Net with the same loss, optimiser and schedule on the same prepared cases, made up here. The bare
loop has its batches ready in memory and does nothing else; the lab reads, augments, validates on one case, and writes
history and checkpoints. Start-up and the first epoch are not counted. Prints the medians over rounds and their ratio,
with augmentation and without.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from unifocal.lab.data.reading import read_dataset
from unifocal.lab.experiment import Experiment, plan
from unifocal.lab.runs import Run
from unifocal.lab.settings import Settings, make_settings
from unifocal.lab.synthetic import write_synthetic
from unifocal.lab.training.execute import build_network, choose_device, make_batches
from unifocal.lab.training.fit import fit
from unifocal.lab.training.segmentation import Segmentation, make_optimiser, make_schedule


def bare(run: Run, experiment: Experiment, device: torch.device) -> float:
    """Seconds of a loop of ten lines."""
    settings = run.settings
    batches, _ = make_batches(run, experiment, lambda: 0, device)
    ready = list(batches)
    network = build_network(run, experiment).to(device).train()
    loss = run.loss.build(ignore_index=255)
    optimiser = make_optimiser(network, settings)
    schedule = make_schedule(optimiser, settings)
    started = 0.0
    for epoch in range(settings.epochs):
        for images, labels in ready:
            optimiser.zero_grad()
            loss(network(images), labels).backward()
            optimiser.step()
        schedule.step()
        if epoch == 0:
            started = clock(device)
    return clock(device) - started


def lab(run: Run, experiment: Experiment, device: torch.device) -> float:
    """Seconds of the same epochs in the lab."""
    with tempfile.TemporaryDirectory() as folder:
        history = Path(folder) / "history.csv"
        module = Segmentation(build_network(run, experiment), run.loss.build(ignore_index=255), run.settings, history)
        batches, held_out = make_batches(run, experiment, module.epoch, device)
        ends: list[float] = []
        fit(module, batches, held_out, run.settings, Path(folder), device.type, lambda *_: ends.append(clock(device)))
        return ends[-1] - ends[0]


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def measured(settings: Settings, data: Path, folder: Path, rounds: int) -> tuple[float, float]:
    """(bare, lab): the medians, in seconds for each epoch."""
    experiment = plan(read_dataset(data), settings, folder)
    run, device = experiment.runs(settings)[0], torch.device(choose_device(settings.device))
    times = [(bare(run, experiment, device), lab(run, experiment, device)) for _ in range(rounds + 1)][1:]
    one, two = (statistics.median(column) / (settings.epochs - 1) for column in zip(*times, strict=True))
    return one, two


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("size", 128), ("width", 16), ("rounds", 8), ("epochs", 4), ("cases", 62), ("threads", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_synthetic(folder / "data", cases=options.cases, seed=0, size=options.size)
        for augment in (False, True):
            settings = make_settings(
                losses="unified-focal",
                division="whole",
                validation=0.02,
                size=options.size,
                width=options.width,
                epochs=options.epochs,
                augment=augment,
            )
            one, two = measured(settings, folder / "data", folder / "out", options.rounds)
            what = "with augmentation" if augment else "without augmentation"
            print(f"{what}: bare {one:.3f} s, lab {two:.3f} s an epoch, ratio {two / one:.3f}", flush=True)


if __name__ == "__main__":
    main()
