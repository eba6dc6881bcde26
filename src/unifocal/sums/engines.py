"""The engines, and which of them serves a call: the fastest that can, or the one that was asked for.

An engine is a module with

    detail() -> str                                       what it is on this machine, in a few words
    why_not(x, labels, weights, form) -> str | None       the reason why it cannot serve such a call, if any; without
                                                          a form a call of `masks`, where x is the labels
    forward(x, labels, weights, gamma, rest_gamma, form) -> (values (S, N, K), labelled (N, K), voxels (N, 1))
    backward(upstream, x, labels, weights, gamma, rest_gamma, form) -> gradient (N, K, V) in the dtype of x
    masks(labels, weights, channels, dense, ignore_index, steps, dtype)
                                                          -> (volume (N, K), surface (N, K), voxels (N, 1)) in the dtype
    mean(values, labelled, voxels, reduction, weights, constant, entropy, regions)
                                                          -> what slopes.py computes, (N,) or (), and its gradient to
                                                          values; only of an engine that is quicker than that

where x is (N, K, V) of any float dtype and strides, labels (N, V) or dense (N, K, V), weights (N, V) or None, of any
dtype and strides, and gamma and rest_gamma broadcast to (N, K) in the dtype of the sums, which is float32, or float64
for float64 x. README.md says what they compute, and masks.py what `masks` does: there labels are (N, *spatial) or dense
(N, K, *spatial), weights (N, *spatial) or None, and steps are voxels per unit of length along each spatial axis.
"""

import warnings
from dataclasses import dataclass
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from . import aten, native, reference, triton
from .form import Form

# In the order in which "auto" tries them. The last serves every call.
ENGINES: dict[str, ModuleType] = {"native": native, "triton": triton, "aten": aten, "reference": reference}

_EVERYTHING = ("tp", "fp", "fn", "tn", "ce", "rest")


def select(name: str, x: Tensor, labels: Tensor, weights: Tensor | None, form: Form | None) -> ModuleType:
    """The engine of that name, or for "auto" the first that can serve the call."""
    if name == "auto":
        if x.device.type == "cpu" and (missing := native.why_missing()):
            _warn_once(missing)
        return next(e for e in ENGINES.values() if e.why_not(x, labels, weights, form) is None)
    if name not in ENGINES:
        raise ValueError(f"engine must be one of 'auto', {', '.join(map(repr, ENGINES))}; got {name!r}.")
    reason = ENGINES[name].why_not(x, labels, weights, form)
    if reason:
        raise RuntimeError(f"engine={name!r} cannot serve this call: {reason}. engine='auto' chooses one that can.")
    return ENGINES[name]


@cache
def _warn_once(missing: str) -> None:
    warnings.warn(
        "unifocal computes with operations of PyTorch on this CPU, several times as slowly as its compiled engine "
        f"would: {missing}. engine='aten' says that this is meant.",
        RuntimeWarning,
        stacklevel=2,
    )


def select_for_masks(name: str, labels: Tensor, weights: Tensor | None, dense: bool) -> ModuleType:
    """The same for `masks`."""
    return select(name, labels if dense else labels.unsqueeze(1), labels, weights, None)


@dataclass(frozen=True)
class EngineReport:
    """Whether an engine serves the tensors of a device, and why not."""

    engine: str
    device: str
    reason: str | None  # None: it serves them
    chosen: bool  # is it what engine="auto" takes there?
    detail: str


def engines() -> list[EngineReport]:
    """What `engine="auto"` chooses from: every engine on every device of this machine, in the order of preference.

    Each is asked for every activation, with class indices and with soft labels.
    """
    devices = ["cpu"] + [d for d in ("cuda", "mps", "xpu") if getattr(torch, d).is_available()]
    reports = []
    for device in devices:
        chosen = False
        for name, engine in ENGINES.items():
            reason = _reason(engine, device)
            takes = reason is None and not chosen
            reports.append(EngineReport(name, device, reason, takes, engine.detail()))
            chosen = chosen or takes
    return reports


def _reason(engine: ModuleType, device: str) -> str | None:
    x = torch.zeros(1, 2, 1, device=device)
    for activation in ("softmax", "sigmoid", "none"):
        for labels in (torch.zeros(1, 1, dtype=torch.uint8, device=device), torch.zeros_like(x)):
            reason: str | None = engine.why_not(x, labels, None, Form(activation, _EVERYTHING, None, False))
            if reason:
                return reason
    return None
