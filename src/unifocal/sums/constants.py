"""Small constant tensors without a copy from the host: on a GPU each copy would cost as much as a kernel."""

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from .tracing import tracing

_made: dict[tuple[tuple[float, ...], torch.dtype, torch.device], Tensor] = {}


def constant(values: Sequence[float], dtype: torch.dtype, device: torch.device) -> Tensor:
    """The numbers as a tensor that is shared by all who ask for it: never write to it."""
    if tracing():  # filled on the device, as part of the graph
        runs = [torch.full((len(list(run)),), value, dtype=dtype, device=device) for value, run in groupby(values)]
        return torch.cat(runs) if len(runs) > 1 else runs[0]
    key = tuple(values), dtype, device
    if key in _made:
        return _made[key]
    with torch.inference_mode(False):  # what is made while validating must serve training
        made = torch.tensor(values, dtype=dtype, device=device)
    if type(made) is Tensor:  # not one that stands for another while a graph is traced
        _made[key] = made
    return made
