"""Where the images of a batch come from: from the device, where all of them are, or from memory-mapped files."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unifocal.lab.data.cases import IGNORE
from unifocal.lab.device import pin, room, to_device
from unifocal.lab.patches import Positions, Shape, by_class, cut, place

READERS = 2  # threads
AHEAD = 4  # batches that are being read or wait for the network
BORDER = 0.125  # of a patch, at each end of an axis


class Sample(NamedTuple):
    """What its patch and its augmentation depend on, together with seed and fold."""

    epoch: int
    case: int
    number: int  # of the patch in this epoch; with whole images, of the turn


class Group(NamedTuple):
    """The samples of a batch that have one size."""

    places: Sequence[int]  # in the batch
    images: Tensor  # (n, channels, *spatial) float32
    labels: Tensor  # (n, *spatial) uint8


class Prepared(Protocol):
    """A case on the training grid: image (channels, *spatial) float32, labels (*spatial) uint8."""

    @property
    def image(self) -> Tensor: ...
    @property
    def labels(self) -> Tensor: ...


class Data(Protocol):
    """What batches need of a `PreparedSet`; two threads read it at the same time."""

    @property
    def dimension(self) -> int: ...
    @property
    def channels(self) -> int: ...
    def __getitem__(self, i: int, /) -> Prepared: ...
    def foreground(self, i: int, /) -> Positions: ...


Plan = Sequence[Sequence[Sample]]  # of an epoch: the samples of each batch
Draw = Callable[[Sample], np.random.Generator]


class Resident:
    """Whole images of one size, all of them on the device."""

    def __init__(self, data: Data, indices: Sequence[int], device: torch.device) -> None:
        self.rows = {case: row for row, case in enumerate(indices)}
        first = data[indices[0]]
        self.images = torch.empty((len(indices), *first.image.shape), device=device)
        self.labels = torch.empty((len(indices), *first.labels.shape), dtype=torch.uint8, device=device)
        for case, row in self.rows.items():
            self.images[row], self.labels[row] = data[case].image, data[case].labels

    @staticmethod
    def fits(data: Data, indices: Sequence[int], device: torch.device) -> bool:
        """Have all images one size, and is there room for them?"""
        cases = map(data.__getitem__, indices)  # never all at once: each is an open file
        shapes, sizes = zip(
            *((case.labels.shape, case.image.nbytes + case.labels.nbytes) for case in cases), strict=True
        )
        return len(set(shapes)) == 1 and sum(sizes) <= room(device)

    def groups(self, plan: Plan) -> Iterator[list[Group]]:
        for samples in plan:
            rows = to_device(np.array([self.rows[case] for _, case, _ in samples]), self.images.device)
            yield [Group(range(len(samples)), self.images[rows], self.labels[rows])]


class Files:
    """Whole images, or patches, from memory-mapped files.

    patch  size of the patches, of which `share` are on foreground
    draw   gives the generator that places the patch of a sample
    wide   says if a patch is wanted with its surroundings, `BORDER` more at each end of an axis, because augmentation
           will bring them into view

    Threads read the next batches while the network computes; only an epoch's first batch is waited for.
    """

    def __init__(
        self,
        data: Data,
        patch: Shape | None,
        share: float,
        draw: Draw,
        wide: Callable[[Sample], bool],
        device: torch.device,
    ) -> None:
        self.data, self.patch, self.share, self.draw, self.wide, self.device = data, patch, share, draw, wide, device
        self.foreground: dict[int, list[Positions]] = {}

    def groups(self, plan: Plan) -> Iterator[list[Group]]:
        pool = ThreadPoolExecutor(READERS, "reader")
        waiting: deque[Future[list[Group]]] = deque()
        try:
            for samples in plan:
                waiting.append(pool.submit(self._read, samples))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _read(self, samples: Sequence[Sample]) -> list[Group]:
        # NumPy until all is read: torch would give each of the threads as many cores as there are.
        pieces = [self._piece(sample) for sample in samples]
        sizes: dict[Shape, list[int]] = {}
        for k, (_, labels) in enumerate(pieces):
            sizes.setdefault(labels.shape, []).append(k)
        return [
            Group(places, *map(self._stack, zip(*(pieces[k] for k in places), strict=True)))
            for places in sizes.values()
        ]

    def _stack(self, arrays: Sequence[NDArray[Any]]) -> Tensor:
        return pin(np.stack(arrays), self.device)

    def _piece(self, sample: Sample) -> tuple[NDArray[Any], NDArray[Any]]:
        """Image and labels of a sample: views of the memory maps."""
        case = self.data[sample.case]
        image, labels = case.image.numpy(), case.labels.numpy()
        if self.patch is None:
            return image, labels
        if sample.case not in self.foreground:
            self.foreground[sample.case] = by_class(self.data.foreground(sample.case), labels)
        size = self.patch
        start = place(labels.shape, size, self.foreground[sample.case], self.share, self.draw(sample))
        if self.wide(sample):
            border = [math.ceil(BORDER * side) for side in size]
            start = tuple(a - b for a, b in zip(start, border, strict=True))
            size = tuple(side + 2 * b for side, b in zip(size, border, strict=True))
        return cut(image, start, size, 0), cut(labels, start, size, IGNORE)
