"""What depends on the device: how arrays get there, how much room there is, in which precision it computes."""

from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor

MEMORY = 256 * 2**20  # bytes of data that a run may hold in memory without a GPU; the files are cached by the system


def pin(array: NDArray[Any] | Tensor, device: torch.device) -> Tensor:
    """A tensor in memory from which it can be copied to `device` without waiting."""
    tensor = array if isinstance(array, Tensor) else torch.from_numpy(array)
    if device.type != "cuda":
        return tensor
    with torch.cuda.device(device):  # or else a thread pins its memory through the first GPU
        return tensor.pin_memory()


def to_device(array: NDArray[Any] | Tensor, device: torch.device) -> Tensor:
    """Copy to `device` without waiting for what it is doing."""
    if isinstance(array, Tensor) and array.device == device:
        return array
    return pin(array, device).to(device, non_blocking=True)


def room(device: torch.device, share: float = 0.125) -> int:
    """Bytes that a run may hold on `device`: this share of what is free on a GPU, `MEMORY` on a CPU."""
    if device.type != "cuda":
        return MEMORY
    free, _ = torch.cuda.mem_get_info(device)
    return int(share * free)


def autocast(precision: Literal["32", "bf16", "16"], device: torch.device) -> torch.autocast:
    """The context in which a network computes in `settings.precision`."""
    dtype = torch.float16 if precision == "16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision != "32")
