"""Volume and surface of masks in plain PyTorch, slab by slab; what they are is said in masks.py.

A slab is some planes along the first spatial axis with a neighbour on both sides, or many small images and channels.
Its arrays stay in the cache, and a mask without a border in it is not looked at any further. On a CPU and without
voxel weights the masks of class indices are bytes, and how often each of the few possible slopes occurs is counted.
"""

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .labels import flat, signed

_SLAB = 2**17  # voxel-classes, so that the arrays of a slab stay in the cache
_SLAB_OF_BYTES = 2**19
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
    if not labels.numel():
        nothing = labels.new_zeros((n, channels), dtype=dtype)
        return nothing, nothing.clone(), labels.new_zeros((n, 1), dtype=dtype)
    labels, weights, steps = _with_small_planes(labels, weights, steps)
    classes = torch.arange(channels, dtype=dtype, device=labels.device).add_(channels == 1)
    classes = classes.view(-1, *[1] * len(steps))
    volume, surface = labels.new_zeros((2, n, channels), dtype=torch.float64)
    voxels = labels.new_zeros((n, 1), dtype=torch.float64)
    if not dense and not labels.is_cuda and weights is None and len(steps) <= 4:  # else a byte is too small
        _count(labels, channels, ignored, steps, volume, surface, voxels)
        return volume.to(dtype), surface.to(dtype), voxels.to(dtype)
    for images, low, rows, inner, together in _slabs(labels, channels, _SLAB_CUDA if labels.is_cuda else _SLAB):
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


def _with_small_planes(
    labels: Tensor, weights: Tensor | None, steps: Sequence[float]
) -> tuple[Tensor, Tensor | None, Sequence[float]]:
    """The same voxels, of which two planes along the first axis are no large part: it may change places."""
    between = range(3, labels.ndim - 1)  # not the last, whose neighbours lie together
    longest = max(between, key=lambda axis: labels.shape[axis], default=2)
    if 2 * labels.shape[3:].numel() <= _SLAB or labels.shape[longest] <= labels.shape[2]:
        return labels, weights, steps
    steps = (steps[longest - 2], *steps[: longest - 2], *steps[longest - 1 :])
    return labels.movedim(longest, 2), None if weights is None else weights.movedim(longest - 1, 1), steps


def _slabs(labels: Tensor, channels: int, most: int) -> Iterator[tuple[slice, int, int, slice, int]]:
    """Which images, the first row that is read and how many, those of them that are summed; and channels at a time."""
    n, _, length = labels.shape[:3]
    plane = max(labels.shape[3:].numel(), 1)
    rows = min(max(most // plane, 2), max(length, 1))
    together = min(max(most // (plane * rows), 1), channels)
    images = max(most // (plane * rows * channels), 1) if rows == length else 1
    for i in range(0, n, images):
        for begin in range(0, length, rows):
            end = min(begin + rows, length)
            low, high = max(begin - 1, 0), min(end + 1, length)
            yield slice(i, i + images), low, high - low, slice(begin - low, end - low), together


def _count(
    labels: Tensor,
    channels: int,
    ignored: int | None,
    steps: Sequence[float],
    volume: Tensor,
    surface: Tensor,
    voxels: Tensor,
) -> None:
    """Add the sums of class indices (N, 1, *spatial) by counting kinds of voxels: in the mask or not, and its slope."""
    sizes = itertools.product((0, 1, 2), repeat=len(steps))  # of twice the differences, the last axis first
    slopes = [math.hypot(*(d * step / 2 for d, step in zip(each, reversed(steps), strict=True))) for each in sizes]
    slope = volume.new_tensor(slopes).repeat_interleave(2)
    kinds, copies = len(slope), 256 // len(slope)  # neighbours count in different places: one would have to wait
    places = torch.arange(0, copies * kinds, kinds, dtype=torch.uint8, device=labels.device)
    dtype = torch.uint8 if channels < 254 else torch.int32
    classes = torch.arange(channels, dtype=dtype, device=labels.device).add_(channels == 1)
    classes = classes.view(-1, *[1] * len(steps))
    for images, low, rows, inner, together in _slabs(labels, channels, _SLAB_OF_BYTES):
        label = labels[images].narrow(2, low, rows)
        valid = None if ignored is None else label.ne(ignored).view(torch.uint8)
        voxels[images].add_(label[0, 0, inner].numel() if valid is None else flat(valid[:, :, inner]).sum(2))
        if label.dtype not in (torch.bool, torch.uint8):
            label = label.clamp(-1, min(channels + 1, torch.iinfo(label.dtype).max))
        label = label.to(classes.dtype)
        number = label[0, 0, inner].numel()
        if len(places) < number:
            places = places[:copies].repeat(-(-number // copies))
        for first in range(0, channels, together):
            own = classes[first : first + together]
            shape = len(label), len(own), *label.shape[2:]
            mask = torch.eq(label, own, out=label.new_empty(shape, dtype=torch.uint8))
            if channels > 1 and first == 0:
                mask[:, 0].bitwise_xor_(1)
            if valid is not None:
                mask.bitwise_and_(valid)
            kind = mask[:, :, inner].clone(memory_format=torch.contiguous_format)
            for axis, twice in _twice_differences(mask, len(steps), inner):
                kind.add_(twice, alpha=2 * 3**axis)
            if valid is not None:
                kind.mul_(valid[:, :, inner])
            kind = flat(kind).flatten(0, 1)
            found = kind.new_zeros((len(kind), kinds), dtype=torch.int64)
            for i, (least, most) in enumerate(zip(kind.amin(1).tolist(), kind.amax(1).tolist(), strict=True)):
                if least == most:
                    found[i, most] = number
                else:
                    each = torch.bincount(kind[i].add_(places[:number]), minlength=copies * kinds)
                    found[i] = each.view(copies, kinds).sum(0)
            found = found.view(len(label), len(own), kinds)
            volume[images, first : first + together].add_(found[..., 1::2].sum(2))
            surface[images, first : first + together].add_(found.to(slope.dtype) @ slope)


def _sum(x: Tensor, weight: Tensor | None) -> Tensor:
    return flat(x if weight is None else x * weight).sum(2)


def _is_constant(mask: Tensor, soft: bool) -> bool:
    """Is the mask 0 everywhere, or of 0 and 1 and 1 everywhere? The sum of a soft one could be rounded to that."""
    total = float(mask.sum())
    return total == 0 or (not soft and total == mask.numel())


def _slope(mask: Tensor, steps: Sequence[float], inner: slice) -> Tensor:
    """|∇ mask| of the inner rows: central differences inside, one-sided ones at both ends of an axis."""
    squares = torch.full_like(mask[:, :, inner], _FLOOR**2, memory_format=torch.contiguous_format)
    for axis, twice in _twice_differences(mask, len(steps), inner):
        squares.addcmul_(twice, twice, value=(steps[axis] / 2) ** 2)
    return squares.sqrt_().sub_(_FLOOR)


def _twice_differences(mask: Tensor, axes: int, inner: slice) -> Iterator[tuple[int, Tensor]]:
    """For each axis that is longer than 1, `_twice_difference` along it, for the inner rows; of bytes, its size."""
    rows = mask[:, :, inner].contiguous()
    twice = torch.empty_like(rows)
    for axis in range(axes):
        if mask.shape[2 + axis] > 1:
            if axis == 0:
                _twice_difference(mask, inner, twice)
            else:
                _twice_difference_in_rows(rows, 2 + axis, twice)
            yield axis, twice


def _subtract(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    return torch.bitwise_xor(a, b, out=out) if out.dtype == torch.uint8 else torch.sub(a, b, out=out)


def _twice_difference(mask: Tensor, inner: slice, out: Tensor) -> None:
    """What follows a row less what precedes it; at an end, twice the difference to the only neighbour."""
    last = mask.shape[2] - 1
    if inner.start == 0:
        _subtract(mask[:, :, 1], mask[:, :, 0], out[:, :, 0]).mul_(2)
    if inner.stop == last + 1:
        _subtract(mask[:, :, last], mask[:, :, last - 1], out[:, :, -1]).mul_(2)
    low, high = max(inner.start, 1), min(inner.stop, last)
    if low < high:
        between = out[:, :, low - inner.start : high - inner.start]
        _subtract(mask[:, :, low + 1 : high + 1], mask[:, :, low - 1 : high - 1], between)


def _twice_difference_in_rows(rows: Tensor, axis: int, out: Tensor) -> None:
    """The same along another axis, as if all were one long row for speed; what crossed an end is then replaced."""
    step, last = rows.stride(axis), rows.shape[axis] - 1
    line = rows.view(-1)
    _subtract(line[2 * step :], line[: -2 * step], out.view(-1)[step:-step])
    for end, i, j in (0, 0, 1), (last, last - 1, last):
        _subtract(rows.select(axis, j), rows.select(axis, i), out.select(axis, end)).mul_(2)
