"""Checkpoints that are whole or absent, and that training does not wait for.

Beside the last one stays the one before: a disk may damage what was whole when it was written. From the second epoch
on there are two whole files of two epochs at every moment, also while a third is written and when names change.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from unifocal.lab import claims
from unifocal.lab.storage import write_with

NEXT, LAST, PREVIOUS = "next.ckpt", "last.ckpt", "previous.ckpt"  # from the newest on; the first for a moment only
CHECKPOINTS = (NEXT, LAST, PREVIOUS)


class Checkpoints(TorchCheckpointIO):
    """Copies what is to be kept, and writes it while the next epoch goes on; one at a time, in order.

    The network of an epoch can weigh more than a fast disk takes in the time of a small epoch. What goes wrong in
    writing is raised by the next `wait`, which every save and the end of the training begin with.
    """

    def __init__(self) -> None:
        self.pool: ThreadPoolExecutor | None = None
        self.pending: list[Future[None]] = []

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        copy = apply_to_collection(checkpoint, Tensor, lambda tensor: tensor.detach().to("cpu", copy=True))
        self.pool = self.pool or ThreadPoolExecutor(1, "checkpoints")
        self.pending.append(self.pool.submit(_write, copy, Path(path)))

    def wait(self) -> None:
        """Return when all is on the disk; raise what kept it from getting there."""
        pending, self.pending = self.pending, []
        for future in pending:
            future.result()

    def teardown(self) -> None:
        pool, self.pool = self.pool, None
        if pool is not None:
            pool.shutdown()
        self.wait()


def remove_checkpoints(folder: Path) -> None:
    """What is needed to go on; not the weights."""
    for name in CHECKPOINTS:
        (folder / name).unlink(missing_ok=True)


def move_up(folder: Path) -> None:
    """Let the next checkpoint be the last, and the last the previous one; after a kill in between, so again."""
    claims.check(folder / NEXT)
    if (folder / LAST).exists():
        (folder / LAST).replace(folder / PREVIOUS)
    (folder / NEXT).replace(folder / LAST)


def _write(checkpoint: dict[str, Any], path: Path) -> None:
    is_last = path.name == LAST
    write_with(path.with_name(NEXT) if is_last else path, lambda part: torch.save(checkpoint, part))
    if is_last:
        move_up(path.parent)
