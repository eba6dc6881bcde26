"""Checkpoints that are whole or absent, and that training does not wait for."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from unifocal.lab.storage import write_with


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


def _write(checkpoint: dict[str, Any], path: Path) -> None:
    write_with(path, lambda part: torch.save(checkpoint, part))
