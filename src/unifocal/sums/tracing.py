"""What kind of tensor is it: one with numbers to be read, or one that stands for others?"""

import torch
from torch import Tensor

_is_wrapped, _is_batched = torch._C._functorch.is_functorch_wrapped_tensor, torch._C._functorch.is_legacy_batchedtensor
_MODES = (torch._C._TorchDispatchModeKey.FAKE, torch._C._TorchDispatchModeKey.PROXY)


def tracing() -> bool:
    """Is a graph being recorded? Then operators are called, and no value can be looked at."""
    if torch.compiler.is_compiling():
        return True
    active = torch._C._len_torch_dispatch_stack() > 0
    return active and any(torch._C._get_dispatch_mode(mode) is not None for mode in _MODES)


def is_traced(x: Tensor) -> bool:
    """Is the tensor one of a graph that is recorded?"""
    return tracing() or type(x).__torch_dispatch__ is not Tensor.__torch_dispatch__


def has_memory(*tensors: Tensor | None) -> bool:
    """Do the numbers of the tensors lie where they say, for a kernel to read?

    Not while a graph is traced or under `torch.func`, not of a zero or a negative that PyTorch has only noted down, and
    not where the storage was given back.
    """
    if tracing() or torch._C._are_functorch_transforms_active():
        return False
    for t in tensors:  # plain and quick: a step of a loss asks for a dozen tensors
        if t is not None and not _lies_there(t):
            return False
    return True


def _lies_there(x: Tensor) -> bool:
    if type(x).__torch_dispatch__ is not Tensor.__torch_dispatch__:
        return False
    if _is_wrapped(x) or _is_batched(x):
        return False
    if x._is_zerotensor() or x.is_neg():
        return False
    return x.numel() == 0 or x.untyped_storage().nbytes() > 0
