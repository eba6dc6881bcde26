"""Voxels in a row, and labels in each of their forms read as a number in [0, 1] and a weight per voxel."""

import torch
from torch import Tensor


def flat(x: Tensor) -> Tensor:
    """(N, K, *spatial) -> (N, K, V), a view where that is possible; without spatial axes V is 1."""
    return x.flatten(2) if x.ndim > 2 else x.unsqueeze(2)


def has_memory(x: Tensor) -> bool:
    """Does the tensor hold numbers of its own, or stand for others while a graph is traced or under `torch.func`?"""
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(x)
    return type(x).__torch_dispatch__ is Tensor.__torch_dispatch__ and not wrapped


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
