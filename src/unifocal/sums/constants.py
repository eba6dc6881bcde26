"""Small constant tensors without a copy from the host: on a GPU each copy would cost as much as a kernel."""

import torch
from torch import Tensor

from .tracing import has_memory, tracing

_MOST = 1000
_made: dict[tuple[tuple[float, ...], torch.dtype, torch.device, tuple[int, ...]], Tensor] = {}


def constant(
    values: tuple[float, ...], dtype: torch.dtype, device: torch.device, shape: tuple[int, ...] = (-1,)
) -> Tensor:
    """The numbers as a tensor that is shared by all who ask for it: never write to it."""
    if tracing():  # computed on the device, as part of the graph: whatever uses it takes that in
        made = torch.full((len(values),), values[-1], dtype=dtype, device=device)
        ends = [i for i in range(1, len(values)) if values[i] != values[i - 1]]
        for end in reversed(ends):
            made = torch.where(torch.arange(len(values), device=device) < end, values[end - 1], made)
        return made.view(shape)
    key = values, dtype, device, shape
    if key in _made:
        return _made[key]
    with torch.inference_mode(False):  # what is made while validating must serve training
        made = torch.tensor(values, dtype=dtype, device=device).view(shape)
    if len(_made) >= _MOST:  # numbers that change from step to step
        _made.clear()
    if has_memory(made):  # not one that stands for another, while a graph is traced or under torch.func
        _made[key] = made
    return made
