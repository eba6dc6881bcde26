"""Volume and surface of the mask of each channel, for the loss whose focus depends on them; no gradient.

The mask of a channel is its label; of channel 0 of several it is everything but that label: all foreground. With the
weight w of a voxel, image by image and channel by channel:

    volume = Σ w m      surface = Σ w |∇ m|      voxels = Σ w

∇ is `torch.gradient`: central differences inside, one-sided ones at the border. A voxel that is ignored or weighs
nothing counts as outside of the mask.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import native
from .labels import flat, signed, targets
from .tracing import has_memory, is_traced

Sums = tuple[Tensor, Tensor, Tensor]  # volume (N, K), surface (N, K), voxels (N, 1)

_SLAB = 2**20  # voxel-classes that the definition takes at once on a CPU


def mask_sums(
    labels: Tensor,
    weights: Tensor | None,
    channels: int,
    ignore_index: int | None,
    spacing: Sequence[float],
    dtype: torch.dtype,
    engine: str,
) -> Sums:
    """(volume, surface, voxels) of labels (N, *spatial) or dense (N, K, *spatial), computed in dtype.

    spacing  size of a voxel along each spatial axis, in the unit that |∇ m| is wanted per
    """
    labels, ignore_index = signed(labels, ignore_index)
    if not spacing:  # no spatial axis: one voxel, without surface
        labels, weights, spacing = labels[..., None], None if weights is None else weights[..., None], (1.0,)
    arguments = (labels, weights, channels, ignore_index, [1 / length for length in spacing], dtype, engine)
    result: Sums = masks(*arguments) if is_traced(labels) else _masks(*arguments)
    return result


def _masks(
    labels: Tensor,
    weights: Tensor | None,
    channels: int,
    ignore_index: int | None,
    steps: Sequence[float],
    dtype: torch.dtype,
    engine: str,
) -> Sums:
    axes = len(steps)
    dense = labels.ndim == axes + 2
    with torch.no_grad():
        if engine in ("auto", "native") and axes in (1, 2, 3) and native.why_not(labels, labels, weights, None) is None:
            return native.masks(labels, weights, channels, dense, ignore_index, steps, dtype)
        per_plane = channels * labels.shape[-axes + 1 :].numel() if axes > 1 else channels
        rows = max(1, _SLAB // max(per_plane, 1))
        if labels.device.type != "cpu" or not has_memory(labels) or engine == "reference":
            rows = 2**62  # whole: each step there costs a launch
        return _in_slabs(labels, weights, channels, dense, ignore_index, steps, dtype, rows)


def _in_slabs(
    labels: Tensor,
    weights: Tensor | None,
    channels: int,
    dense: bool,
    ignore_index: int | None,
    steps: Sequence[float],
    dtype: torch.dtype,
    rows: int,
) -> Sums:
    """Slab by slab along the first spatial axis, each with a neighbour on both sides."""
    first = 2 if dense else 1
    length = labels.shape[first]
    volume = surface = voxels = torch.zeros((), dtype=torch.float64, device=labels.device)
    for begin in range(0, max(length, 1), rows):
        low, high = max(begin - 1, 0), min(begin + rows + 1, length)
        inner = slice(begin - low, min(begin + rows, length) - low)
        part, w = labels, weights
        if rows < length:
            part = labels.narrow(first, low, high - low)
            w = None if weights is None else weights.narrow(1, low, high - low)
        mask, weight = targets(part, channels, dense, w, ignore_index, dtype)
        if channels > 1:
            mask = torch.cat((1 - mask[:, :1], mask[:, 1:]), 1).where(weight > 0, 0.0)
        squares = torch.zeros_like(mask)
        for axis, step in enumerate(steps, start=2):
            if mask.shape[axis] > 1:
                squares += torch.gradient(mask, spacing=1 / step, dim=axis)[0] ** 2
        size = squares.sqrt()
        if rows < length:
            mask, weight, size = mask[:, :, inner], weight[:, :, inner], size[:, :, inner]
        volume = volume + flat(mask * weight).sum(2, dtype=torch.float64)
        surface = surface + flat(size * weight).sum(2, dtype=torch.float64)
        voxels = voxels + flat(weight).sum(2, dtype=torch.float64)
    return volume.to(dtype), surface.to(dtype), voxels.to(dtype)


@torch.library.custom_op("unifocal::masks", mutates_args=())
def masks(
    labels: Tensor,
    weights: Tensor | None,
    channels: int,
    ignore_index: int | None,
    steps: Sequence[float],
    dtype: torch.dtype,
    engine: str,
) -> Sums:
    """`mask_sums` as an operator that tracing does not look into."""
    volume, surface, voxels = _masks(labels, weights, channels, ignore_index, steps, dtype, engine)
    return volume.clone(), surface.clone(), voxels.clone()  # an operator returns no views of one tensor


@masks.register_fake
def _(labels: Tensor, weights: Tensor | None, channels: int, *rest: object, **more: object) -> Sums:
    n = labels.shape[0]
    dtype = rest[2]
    assert isinstance(dtype, torch.dtype)
    new = labels.new_empty
    return new((n, channels), dtype=dtype), new((n, channels), dtype=dtype), new((n, 1), dtype=dtype)
