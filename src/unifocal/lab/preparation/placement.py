"""How the grid of a file became the training grid, and the way back: resampled, then cut or padded."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from unifocal.lab.preparation.resampling import along_first, resample_plane, weights
from unifocal.lab.settings import Settings, each_axis

PICTURE_SIZE = 128
BLOCK = 1 << 24  # voxels of the original grid looked at together

Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True)
class Placement:
    """Where the training grid lies in the grid of the file.

    Attributes:
        original: shape of the file.
        resampled: shape after resampling, over the same extent.
        start: the first voxel of the training grid on the resampled one; negative where it was padded.
        size: shape of the training grid.
    """

    original: tuple[int, ...]
    resampled: tuple[int, ...]
    start: tuple[int, ...]
    size: tuple[int, ...]

    @classmethod
    def of(cls, shape: tuple[int, ...], spacing: tuple[float, ...] | None, settings: Settings) -> Self:
        """Where the settings place a file of this shape and, for volumes, spacing in mm."""
        n = len(shape)
        resampled = wanted_size(settings, n) or shape
        if settings.spacing is not None and spacing is not None:
            wanted = each_axis("spacing", settings.spacing, n)
            lengths = (length * s / w for length, s, w in zip(shape, spacing, wanted, strict=True))
            resampled = tuple(max(1, math.floor(length + 0.5)) for length in lengths)
        size = resampled if settings.crop is None else each_axis("crop", settings.crop, n)
        start = tuple((length - cut) // 2 for length, cut in zip(resampled, size, strict=True))
        return cls(shape, resampled, start, size)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        return cls(**{name: tuple(int(n) for n in numbers) for name, numbers in fields.items()})

    def to_json(self) -> dict[str, Any]:
        return {name: list(numbers) for name, numbers in asdict(self).items()}

    def cut(self, array: NDArray[Number], fill: int) -> NDArray[Number]:
        """The training grid from (..., *resampled), filled up where that does not reach."""
        if self.size == self.resampled:
            return array
        padded = np.full((*array.shape[: -len(self.size)], *self.size), fill, array.dtype)
        inside, there = self.overlap()
        channels: tuple[Any, ...] = (...,)
        padded[(*channels, *inside)] = array[(*channels, *there)]
        return padded

    def overlap(self) -> tuple[list[slice], list[slice]]:
        """Where training and resampled grid overlap, in either."""
        there = [
            slice(max(start, 0), min(start + size, length))
            for start, size, length in zip(self.start, self.size, self.resampled, strict=True)
        ]
        return [slice(s.start - o, s.stop - o) for s, o in zip(there, self.start, strict=True)], there


def wanted_size(settings: Settings, axes: int) -> tuple[int, ...] | None:
    """The size that every case is resized to; None if there is none.

    Pictures are resized to 128 x 128 unless the settings say otherwise, or make them one size by crop or patch.
    """
    if settings.size is not None:
        return each_axis("size", settings.size, axes)
    is_default = axes == 2 and settings.crop is None and settings.patch is None
    return (PICTURE_SIZE, PICTURE_SIZE) if is_default else None


def to_original(probabilities: Tensor, placement: Placement) -> NDArray[np.uint8]:
    """Class indices on the grid of the file from probabilities (classes, *size) on the training grid.

    Probabilities are interpolated linearly, and the most probable class is taken then, so that surfaces stay smooth.
    What was cut off is background. Works in blocks along the first axis: beside its arguments and its result it needs
    about 300 MB, however large the file.
    """
    if tuple(probabilities.shape[1:]) != placement.size:
        raise ValueError(
            f"expected probabilities of shape (classes, {placement.size}); got {tuple(probabilities.shape)}"
        )
    given: NDArray[np.float32] = probabilities.detach().float().cpu().numpy()
    if len(placement.size) == 2:
        return np.asarray(_most_probable(given[:, None], _as_volume(placement))[0])
    return _most_probable(given, placement)


def _as_volume(placement: Placement) -> Placement:
    """A picture is a volume of one slice."""
    return Placement((1, *placement.original), (1, *placement.resampled), (0, *placement.start), (1, *placement.size))


def _most_probable(probabilities: NDArray[np.float32], placement: Placement) -> NDArray[np.uint8]:
    across, *within = (weights(old, new) for old, new in zip(placement.resampled, placement.original, strict=True))
    found = np.zeros(placement.original, np.uint8)
    depth = max(1, BLOCK // math.prod(placement.original[1:]))
    for start in range(0, len(found), depth):
        rows = slice(start, min(start + depth, len(found)))
        if across is None:
            sources, mixed = rows, None
        else:
            used = across[rows].indices
            sources = slice(int(used.min()), int(used.max()) + 1)
            mixed = across[rows][:, sources]
        largest: NDArray[np.float32] | None = None
        for index in range(len(probabilities)):
            slices = along_first(_uncut(probabilities[index], placement, sources, outside=index == 0), mixed)
            share = np.stack([resample_plane(plane, *within) for plane in slices])
            if largest is None:
                largest = share
                continue
            larger = share > largest
            found[rows][larger] = index
            np.copyto(largest, share, where=larger)
    return found


def _uncut(probability: NDArray[np.float32], placement: Placement, rows: slice, outside: float) -> NDArray[np.float32]:
    """Some slices of the resampled grid; `outside` is the probability where the training grid does not reach."""
    whole = np.full((rows.stop - rows.start, *placement.resampled[1:]), outside, np.float32)
    (_, *inside), (there, *within) = placement.overlap()
    first, last = max(rows.start, there.start), min(rows.stop, there.stop)
    if first < last:
        part = probability[first - placement.start[0] : last - placement.start[0], *inside]
        whole[first - rows.start : last - rows.start, *within] = part
    return whole
