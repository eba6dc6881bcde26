"""Runs on this machine: one after another in this process, or several at a time, each in a process of its own."""

import os
import queue
import sys
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

from unifocal.lab.grid.cells import Cell, Execute, Record, outcome, perform, read_history, why_set_back
from unifocal.lab.grid.following import Following
from unifocal.lab.grid.pool import Pool
from unifocal.lab.grid.threads import cores_here, threads_per_run, variables
from unifocal.lab.progress import Watcher, listening
from unifocal.lab.settings import Settings

POLL = 0.5  # seconds between two looks at the files of the runs


def in_process(
    cells: Sequence[Cell], settings: Settings, watcher: Watcher, execute: Execute
) -> Generator[Record, None, None]:
    """One run after another; they tell of their start and epochs by `progress.tell_start` and `tell_epoch`."""
    for cell in cells:
        yield _one(cell, watcher, execute)


def _one(cell: Cell, watcher: Watcher, execute: Execute) -> Record:
    told = _Telling(cell, watcher)
    with listening(told):
        record = perform(execute, cell)
    if record["status"] != "busy":
        told.start(told.before)  # if it never came to an epoch
    if told.has_begun:
        watcher.run_ended(cell.title, outcome(record))
    return record


class _Telling:
    """Passes on to a watcher what a run in this process tells of itself."""

    def __init__(self, cell: Cell, watcher: Watcher) -> None:
        self.cell, self.watcher, self.has_begun = cell, watcher, False
        self.before = len(read_history(cell.folder))

    def start(self, epochs_done: int) -> None:
        if self.has_begun:
            return
        self.has_begun = True
        self.watcher.run_started(self.cell.title, epochs_done)
        if epochs_done < self.before:
            lost = self.before - epochs_done
            self.watcher.run_set_back(self.cell.title, epochs_done, lost, why_set_back(self.cell.folder))

    def epoch_ended(self, epoch: int, validation_loss: float) -> None:
        self.start(epoch)
        self.watcher.epoch_ended(self.cell.title, epoch, validation_loss)


def in_workers(
    cells: Sequence[Cell], settings: Settings, watcher: Watcher, execute: Execute
) -> Generator[Record, None, None]:
    """Several runs at a time; progress is read from their files."""
    following = Following(watcher)
    for cell in cells:
        following.begin(cell)
    count = min(settings.workers, len(cells))
    pool = Pool(cells, execute, [environment(settings, number, count) for number in range(count)])
    running: dict[str, Cell] = {}
    left = len(cells)
    try:
        while left:
            try:
                cell, news = pool.news.get(timeout=POLL)
            except queue.Empty:
                for at_work in running.values():
                    following.look(at_work)
                continue
            if isinstance(news, Exception):
                raise news
            if news is None:
                running[cell.name] = cell
            elif isinstance(news, str):
                watcher.stage(f"{cell.title}: {news}; it goes on in another process")
            else:
                left -= 1
                following.end(running.pop(cell.name), news)
                yield news
    finally:
        pool.stop()


def environment(settings: Settings, number: int, workers: int) -> dict[str, str]:
    """What the given worker is to know: its share of the threads and GPUs, and where modules are found."""
    threads = variables(threads_per_run(settings, cores_here(), workers))
    path = {"PYTHONPATH": os.pathsep.join(folder or str(Path.cwd()) for folder in sys.path)}
    return {**os.environ, **threads, **_gpus(settings, number), **path}


def _gpus(settings: Settings, number: int) -> Mapping[str, str]:
    """GPUs are dealt out in turn, as many to each worker as a run is to use."""
    if settings.device == "cpu":
        return {}
    import torch

    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = visible if len(visible) == count else [str(i) for i in range(count)]
    hands = [names[i : i + settings.devices] for i in range(0, count - settings.devices + 1, settings.devices)]
    return {"CUDA_VISIBLE_DEVICES": ",".join(hands[number % len(hands)])} if hands else {}
