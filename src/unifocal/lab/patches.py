"""Patches: where they lie, and how they are cut; and padding, which is always at the end of an axis."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Shape = tuple[int, ...]
Positions = NDArray[np.int64]


def by_class(positions: Positions, labels: NDArray[np.uint8]) -> list[Positions]:
    """Group voxel positions (m, axes) by the class that `labels` (*spatial) has there."""
    classes = labels[tuple(positions.T)]
    return [positions[classes == label] for label in np.unique(classes)]


def place(
    shape: Shape, patch: Shape, foreground: Sequence[Positions], share: float, draw: np.random.Generator
) -> Shape:
    """First voxel of a random patch of a case.

    With probability `share` it is centred on a voxel of `foreground`, of a class drawn evenly and then of any of its
    voxels, and moved so far that it does not leave the case; else every place has one probability. Where the case is
    smaller than the patch, the patch begins with it.
    """
    wanted, which, voxel, *free = draw.random(3 + len(shape))  # all are drawn, so that each has its meaning
    last = [max(side - size, 0) for side, size in zip(shape, patch, strict=True)]
    if foreground and wanted < share:
        positions = foreground[int(which * len(foreground))]
        centre = positions[int(voxel * len(positions))]
        return tuple(min(max(int(c) - size // 2, 0), end) for c, size, end in zip(centre, patch, last, strict=True))
    return tuple(int(number * (end + 1)) for number, end in zip(free, last, strict=True))


def cut(array: NDArray[Any], start: Shape, size: Shape, fill: int) -> NDArray[Any]:
    """A part (..., *size) of an array (..., *spatial): a view, so that of a memory map nothing else is read.

    If it sticks out of the array it is a copy, filled up with `fill`.
    """
    shape = array.shape[-len(size) :]
    inside = tuple(slice(max(a, 0), a + side) for a, side in zip(start, size, strict=True))
    part: NDArray[Any] = array[(slice(None),) * (array.ndim - len(size)) + inside]
    sticks_out = [(max(-a, 0), max(a + side - end, 0)) for a, side, end in zip(start, size, shape, strict=True)]
    if not np.any(sticks_out):
        return part
    return np.pad(part, [(0, 0)] * (array.ndim - len(size)) + sticks_out, constant_values=fill)


def common_shape(shapes: Iterable[Shape], divisor: Shape) -> Shape:
    """The smallest shape that holds all of `shapes` and is a multiple of `divisor` along each axis."""
    return tuple(math.ceil(max(sides) / d) * d for sides, d in zip(zip(*shapes, strict=True), divisor, strict=True))


def pad(tensor: Tensor, shape: Shape, fill: int) -> Tensor:
    """Fill up (..., *spatial) to (..., *shape)."""
    missing = [wanted - side for wanted, side in zip(shape, tensor.shape[-len(shape) :], strict=True)]
    if not any(missing):
        return tensor
    return F.pad(tensor, [amount for m in reversed(missing) for amount in (0, m)], value=fill)


def unpad(tensor: Tensor, shape: Shape) -> Tensor:
    """The first (..., *shape) of (..., *spatial), a view: `pad` undone."""
    for axis, side in enumerate(shape, start=tensor.ndim - len(shape)):
        tensor = tensor.narrow(axis, 0, side)
    return tensor
