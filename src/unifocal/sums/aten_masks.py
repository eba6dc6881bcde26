"""Volume and surface of masks in plain PyTorch, slab by slab; what they are is said in masks.py.

A slab is some planes along the first spatial axis with a neighbour on both sides, or many small images and channels.
Its arrays stay in the cache, and a mask without a border in it is not looked at any further.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .labels import flat, signed

_SLAB = 2**17  # voxel-classes, so that the arrays of a slab stay in the cache
_SLAB_CUDA = 2**24
_FLOOR = 2.0**-50  # below any slope: the root of 0 takes many times as long as that of another number


def counted(x: Tensor, w: Tensor) -> Tensor:
    """x, but 0 where w is 0 even if x is not a number there; by its bits, which is quicker than `where`."""
    bits = torch.int64 if x.dtype == torch.float64 else torch.int32
    return x.view(bits).bitwise_and(w.gt(0).to(bits).neg_()).view(x.dtype)


@torch.no_grad()
def masks(
    labels: Tensor,
    weights: Tensor | None,
    channels: int,
    dense: bool,
    ignore_index: int | None,
    steps: Sequence[float],
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """(volume (N, K), surface (N, K), voxels (N, 1)), see masks.py; labels are (N, *spatial), or (N, K, *spatial)."""
    labels, ignored = signed(labels, ignore_index)
    labels = labels if dense else labels.unsqueeze(1)
    n = labels.shape[0]
    classes = torch.arange(channels, dtype=dtype, device=labels.device).add_(channels == 1)
    classes = classes.view(-1, *[1] * len(steps))
    volume, surface = labels.new_zeros((2, n, channels), dtype=torch.float64)
    voxels = labels.new_zeros((n, 1), dtype=torch.float64)
    for images, low, rows, inner, together in _slabs(labels, channels):
        label = labels[images].narrow(2, low, rows)
        w = None if weights is None else weights[images, None].narrow(2, low, rows).to(dtype)
        if ignored is not None:
            valid = label.ne(ignored).to(dtype)
            valid = valid.amin(1, keepdim=True) if dense else valid
            w = valid if w is None else w * valid
        weight = None if w is None else w[:, :, inner]
        voxels[images].add_(label[0, 0, inner].numel() if weight is None else flat(weight).sum(2))
        label = label if dense else label.to(dtype)
        for first in range(0, channels, together):
            some = slice(first, first + together)
            if dense:
                mask = label[:, some].to(dtype).contiguous()
            else:
                own = classes[some]
                mask = torch.eq(label, own, out=own.new_empty((label.shape[0], len(own), *label.shape[2:])))
            if channels > 1 and first == 0:
                mask = torch.cat((1 - mask[:, :1], mask[:, 1:]), 1) if mask.shape[1] > 1 else 1 - mask
            if w is not None:
                mask = counted(mask, w)
            volume[images, some].add_(_sum(mask[:, :, inner], weight))
            if mask.is_cuda or not _is_constant(mask, dense):
                surface[images, some].add_(_sum(_slope(mask, steps, inner), weight))
    return volume.to(dtype), surface.to(dtype), voxels.to(dtype)


def _slabs(labels: Tensor, channels: int) -> Iterator[tuple[slice, int, int, slice, int]]:
    """Which images, the first row that is read and how many, those of them that are summed; and channels at a time."""
    n, _, length = labels.shape[:3]
    most, plane = _SLAB_CUDA if labels.is_cuda else _SLAB, max(labels.shape[3:].numel(), 1)
    rows = min(max(most // plane, 2), max(length, 1))
    together = min(max(most // (plane * rows), 1), channels)
    images = max(most // (plane * rows * channels), 1) if rows == length else 1
    for i in range(0, n, images):
        for begin in range(0, length, rows):
            end = min(begin + rows, length)
            low, high = max(begin - 1, 0), min(end + 1, length)
            yield slice(i, i + images), low, high - low, slice(begin - low, end - low), together


def _sum(x: Tensor, weight: Tensor | None) -> Tensor:
    return flat(x if weight is None else x * weight).sum(2)


def _is_constant(mask: Tensor, soft: bool) -> bool:
    """Is the mask 0 everywhere, or of 0 and 1 and 1 everywhere? The sum of a soft one could be rounded to that."""
    total = float(mask.sum())
    return total == 0 or (not soft and total == mask.numel())


def _slope(mask: Tensor, steps: Sequence[float], inner: slice) -> Tensor:
    """|∇ mask| of the inner rows: central differences inside, one-sided ones at both ends of an axis."""
    rows = mask[:, :, inner].contiguous()
    twice, squares = torch.empty_like(rows), torch.full_like(rows, _FLOOR**2)
    for axis, step in enumerate(steps, start=2):
        if mask.shape[axis] > 1:
            if axis == 2:
                _twice_difference(mask, inner, twice)
            else:
                _twice_difference_in_rows(rows, axis, twice)
            squares.addcmul_(twice, twice, value=(step / 2) ** 2)
    return squares.sqrt_().sub_(_FLOOR)


def _twice_difference(mask: Tensor, inner: slice, out: Tensor) -> None:
    """What follows a row less what precedes it; at an end, twice the difference to the only neighbour."""
    last = mask.shape[2] - 1
    if inner.start == 0:
        torch.sub(mask[:, :, 1], mask[:, :, 0], out=out[:, :, 0]).mul_(2)
    if inner.stop == last + 1:
        torch.sub(mask[:, :, last], mask[:, :, last - 1], out=out[:, :, -1]).mul_(2)
    low, high = max(inner.start, 1), min(inner.stop, last)
    if low < high:
        between = out[:, :, low - inner.start : high - inner.start]
        torch.sub(mask[:, :, low + 1 : high + 1], mask[:, :, low - 1 : high - 1], out=between)


def _twice_difference_in_rows(rows: Tensor, axis: int, out: Tensor) -> None:
    """The same along another axis, as if all were one long row for speed; what crossed an end is then replaced."""
    step, last = rows.stride(axis), rows.shape[axis] - 1
    line = rows.view(-1)
    torch.sub(line[2 * step :], line[: -2 * step], out=out.view(-1)[step:-step])
    for end, i, j in (0, 0, 1), (last, last - 1, last):
        torch.sub(rows.select(axis, j), rows.select(axis, i), out=out.select(axis, end)).mul_(2)
