"""Voxels in a row, and labels in each of their forms read as a number in [0, 1] and a weight per voxel."""

import torch
from torch import Tensor

# What is odd about labels: one that is no class, or no number in [0, 1]; those of a voxel that do not sum to 1.
FOREIGN, UNBALANCED = 1, 2


def flat(x: Tensor) -> Tensor:
    """(N, K, *spatial) -> (N, K, V), a view where that is possible; without spatial axes V is 1."""
    return x.flatten(2) if x.ndim > 2 else x.unsqueeze(2)


_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


def signed(labels: Tensor, ignore_index: int | None) -> tuple[Tensor, int | None]:
    """Labels of a dtype that PyTorch computes with, and the ignore_index among them, None if no label can equal it.

    A view, as volumes are not copied: what is beyond the signed range becomes negative, and so names no class still.
    """
    if ignore_index is not None and not labels.is_floating_point():
        limits = torch.iinfo(torch.uint8 if labels.dtype == torch.bool else labels.dtype)
        if not limits.min <= ignore_index <= limits.max:
            ignore_index = None
    if labels.dtype in _SIGNED:
        labels = labels.view(_SIGNED[labels.dtype])
        if ignore_index is not None and ignore_index > torch.iinfo(labels.dtype).max:
            ignore_index -= 2 ** torch.iinfo(labels.dtype).bits
    return labels, ignore_index


def targets(
    labels: Tensor,
    channels: int,
    dense: bool,
    weights: Tensor | None,
    ignore_index: int | None,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Labels as (N, K, *) in [0, 1], and voxel weights as (N, 1, *); both are 0 where a voxel is ignored.

    labels is (N, K, *) if dense, else (N, *) class indices; an index that names no channel is in no channel's class.
    """
    labels, ignore_index = signed(labels, ignore_index)
    if dense:
        valid = None if ignore_index is None else (labels != ignore_index).all(1, keepdim=True)
        g = labels.to(dtype)
    else:
        labels = labels.unsqueeze(1)
        valid = None if ignore_index is None else labels != ignore_index
        first = 1 if channels == 1 else 0
        index = torch.arange(first, first + channels, device=labels.device)
        g = (labels == index.view(1, -1, *[1] * (labels.ndim - 2))).to(dtype)
    w = torch.ones_like(g[:, :1]) if weights is None else weights.unsqueeze(1).to(dtype)
    if valid is not None:
        w = w * valid
    return g if weights is None and valid is None else g.where(w > 0, 0.0), w
