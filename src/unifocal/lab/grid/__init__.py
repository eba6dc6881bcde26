"""The grid of runs, and what executes it: this process, several here, a Ray cluster, SLURM, or a part of it here.

Whatever executes a run, its folder and the numbers in it are the same. Each folder is claimed by the one process that
works on it (`claims`), so a grid may be started twice, anywhere, by mistake or on purpose: the runs are shared.
"""

import gc
import shutil
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing

from unifocal.lab.claims import clear, owner_of
from unifocal.lab.errors import LabError
from unifocal.lab.grid.cells import Cell, Execute, Record
from unifocal.lab.grid.shard import part_of
from unifocal.lab.grid.signals import terminable
from unifocal.lab.progress import Watcher
from unifocal.lab.settings import Settings

__all__ = ["Cell", "Execute", "Record", "run_grid"]

WAIT = 2.0  # seconds between two looks at runs that others work on

Engine = Callable[[Sequence[Cell], Settings, Watcher, Execute], Generator[Record, None, None]]


def run_grid(
    cells: Sequence[Cell], settings: Settings, watcher: Watcher, execute: Execute
) -> Generator[Record, None, None]:
    """Execute every cell, or those of `settings.shard`; yields their records as they come, in no order.

    `execute(out, name)` is an importable function that brings a run to its end from where it stands, leaves
    `result.json` last, and returns a record. Finished runs are handed to it here, at once. A run that another process
    works on is waited for, and taken over should that process die. A run whose process is lost is tried again.

    Raises LabError if the engine is not installed or cannot start, or if no space is left, by which every other run
    would fail, too; KeyboardInterrupt and Terminated (SIGTERM) pass through when all processes that were started here
    have ended. Close the iterator (`contextlib.closing`) if you leave it early.
    """
    cells = part_of(cells, settings.shard, lambda cell: cell.kind)
    finished = sum(cell.is_finished for cell in cells)
    watcher.plan(len(cells), finished, max((cell.epochs for cell in cells), default=0))
    engine = choose_engine(settings)
    with terminable():
        left = cells
        while left:
            for cell in [cell for cell in left if cell.is_finished]:
                left.remove(cell)
                yield execute(cell.out, cell.name)
                clear(cell.folder)
            if left:
                busy, full = set(), None
                with closing(engine(left, settings, watcher, execute)) as records:
                    for record in records:
                        if record["status"] == "busy":
                            busy.add(record["name"])
                        elif record["status"] == "full":
                            full = str(record["reason"])
                            break
                        else:
                            yield record
                if full is not None:
                    raise LabError(_no_space(full, left[0]))
                left = [cell for cell in left if cell.name in busy]
                _wait(left, watcher)


def choose_engine(settings: Settings) -> Engine:
    if settings.engine == "ray":
        from unifocal.lab.grid.ray import in_ray

        return in_ray
    if settings.engine == "slurm":
        from unifocal.lab.grid.slurm import in_slurm

        return in_slurm
    from unifocal.lab.grid.local import in_process, in_workers

    # A run on several devices tells of its epochs in a process of its own: its files are followed instead.
    return in_workers if settings.workers > 1 or settings.devices > 1 else in_process


def _no_space(reason: str, cell: Cell) -> str:
    gc.collect()  # the file that did not fit is gone, and its space is free once nothing holds it open
    free = shutil.disk_usage(cell.out).free / 1e6
    return (
        f"{reason}; {free:.1f} MB are free without it. Finished runs and whole epochs are kept: make room, and the "
        "same command goes on from there."
    )


def _wait(cells: Sequence[Cell], watcher: Watcher) -> None:
    """Wait until somebody has finished, or left, one of the runs that others work on."""
    told = None
    while cells:
        owners = [owner_of(cell.folder) for cell in cells]
        if not all(owners):
            return
        who = ", ".join(sorted({str(owner) for owner in owners}))
        if who != told:
            watcher.stage(f"waiting for what others work on: {who}")
            told = who
        time.sleep(WAIT)
