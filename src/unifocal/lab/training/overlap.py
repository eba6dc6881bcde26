"""The Dice coefficient of a validation pass: cheap, and comparable between losses, which have scales of their own."""

import torch
from torch import Tensor

from unifocal.lab.data.cases import IGNORE


class Overlap:
    """Counts voxels on their device, over all batches of a pass and all processes of a run."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.counts: Tensor | None = None  # (classes without background, 2): voxels in both, and in either twice over

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Count a batch: logits (n, classes, *spatial), labels (n, *spatial) with `IGNORE` where nothing is known."""
        found = logits.detach().argmax(1).masked_fill(labels == IGNORE, IGNORE)
        rows = []
        for index in range(1, logits.shape[1]):
            here, there = found == index, labels == index
            rows.append(torch.stack([(here & there).sum(), here.sum() + there.sum()]))
        counts = torch.stack(rows)
        self.counts = counts if self.counts is None else self.counts + counts

    @property
    def value(self) -> Tensor:
        """The mean over the classes but the background; 1 for a class that is neither there nor found."""
        if self.counts is None:
            return torch.tensor(0.0)
        counts = self.counts.double()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(counts)
        both, sizes = counts.unbind(1)
        return torch.where(sizes > 0, 2 * both / sizes.clamp_min(1), 1.0).mean()
