"""What a loss is called with, read once: shapes, dtypes and values are checked here and nowhere else."""

import os
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from ..sums import Activation, has_memory

T = TypeVar("T")

_UNSIGNED = {torch.uint16: torch.int32, torch.uint32: torch.int64, torch.uint64: torch.int64}
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_SLACK = 1e-2  # how far given probabilities and soft labels may be off, as bfloat16 ones are


@dataclass(frozen=True)
class Inputs:
    """The checked arguments of one call."""

    logits: Tensor  # (N, K, *spatial)
    labels: Tensor  # (N, *spatial) class indices, or (N, K, *spatial) if dense
    dense: bool
    voxel_weights: Tensor | None  # (N, *spatial)
    activation: Activation
    ignore_index: int | None

    @property
    def all_valid(self) -> bool:
        """Does every image surely have a voxel that counts?"""
        return self.voxel_weights is None and self.ignore_index is None and self.logits.numel() > 0


def read_inputs(
    logits: Tensor,
    labels: Tensor,
    voxel_weights: Tensor | None,
    activation: str,
    ignore_index: int | None,
    against_rest: bool,
) -> Inputs:
    """Check what a loss was called with; labels lose a channel axis of length 1.

    against_rest  is every channel read against the rest, whatever the activation (A-FL)?
    """
    logits, labels, voxel_weights = plain(logits), plain(labels), plain(voxel_weights)
    _check_logits(logits)
    resolved = _resolve(activation, logits)
    labels, dense = _read_labels(logits, labels)
    if ignore_index is not None:
        ignore_index = _read_ignore_index(labels, dense, ignore_index)
    weights = None if voxel_weights is None else _read_weights(logits, voxel_weights)
    inputs = Inputs(logits, labels, dense, weights, resolved, ignore_index)
    if _values_are_checked(logits, labels):
        _check_values(inputs, against_rest)
    return inputs


def _values_are_checked(logits: Tensor, labels: Tensor) -> bool:
    """Values cost a pass, and on a GPU a synchronisation: there they are checked on request."""
    if torch.compiler.is_compiling() or not (has_memory(logits) and has_memory(labels)):
        return False
    return logits.device.type == "cpu" or os.environ.get("UNIFOCAL_CHECK") == "1"


def plain(x: T) -> T:
    """The tensor inside a subclass that only carries notes along, such as MONAI's MetaTensor."""
    if isinstance(x, Tensor) and type(x) is not Tensor and type(x).__torch_dispatch__ is Tensor.__torch_dispatch__:
        return x.as_subclass(Tensor)  # type: ignore[return-value]
    return x


def _is_dense(x: object) -> bool:
    return isinstance(x, Tensor) and x.layout == torch.strided


def describe(x: object) -> str:
    if isinstance(x, Tensor):
        if not _is_dense(x):
            return f"a {str(x.layout).removeprefix('torch.')} tensor"
        return f"{str(x.dtype).removeprefix('torch.')} of shape {tuple(x.shape)}"
    return f"{type(x).__name__}"


def _check_logits(logits: Tensor) -> None:
    if not _is_dense(logits) or logits.dtype not in _FLOATS:
        raise TypeError(
            "logits must be a dense floating-point tensor (16, 32 or 64 bits) of shape (N, C, *spatial); got "
            f"{describe(logits)}. Pass the network's raw output."
        )
    if logits.ndim < 2 or logits.shape[1] == 0:
        raise ValueError(
            f"logits must have shape (N, C, *spatial) with at least one channel; got {tuple(logits.shape)}. "
            "For a single image add the batch axis with logits[None]."
        )


def _resolve(activation: str, logits: Tensor) -> Activation:
    channels = logits.shape[1]
    if activation == "auto":
        return "sigmoid" if channels == 1 else "softmax"
    if activation == "softmax" and channels == 1:
        raise ValueError(
            "activation='softmax' over one channel is 1 everywhere; logits have shape "
            f"{tuple(logits.shape)}. Use activation='sigmoid' for one channel, or give the network two."
        )
    return activation  # type: ignore[return-value]


def _read_labels(logits: Tensor, labels: Tensor) -> tuple[Tensor, bool]:
    n, channels, *spatial = logits.shape
    if not _is_dense(labels) or labels.is_complex() or (labels.is_floating_point() and labels.dtype not in _FLOATS):
        raise TypeError(f"labels must be a dense tensor of integers, bools or soft labels; got {describe(labels)}.")
    if labels.requires_grad:
        raise ValueError("labels receive no gradient; pass labels.detach().")
    if labels.device != logits.device:
        raise ValueError(
            f"logits and labels must be on one device; logits are on {logits.device}, labels on {labels.device}. "
            f"Move the labels with labels.to({str(logits.device)!r})."
        )
    given = labels
    dense = tuple(labels.shape) == tuple(logits.shape) and (channels > 1 or labels.is_floating_point())
    if not dense:
        if tuple(labels.shape) == (n, 1, *spatial):
            labels = labels[:, 0]
        if tuple(labels.shape) != (n, *spatial):
            raise ValueError(
                f"labels must be class indices of shape (N, *spatial) = {(n, *spatial)} or {(n, 1, *spatial)}, or "
                f"one-hot or soft labels of the shape of the logits, {tuple(logits.shape)}; "
                f"got {describe(labels)}.{_shape_advice(logits, labels)}"
            )
        if labels.is_floating_point():
            raise TypeError(
                f"labels of shape {tuple(given.shape)} must be integer or bool class indices; got "
                f"{describe(given)}. Convert them with labels.long(), or pass soft labels of shape "
                f"{tuple(logits.shape)}."
            )
    return labels.to(_UNSIGNED.get(labels.dtype, labels.dtype)), dense


def _shape_advice(logits: Tensor, labels: Tensor) -> str:
    shape, wanted = tuple(labels.shape), tuple(logits.shape)
    if shape == (*wanted[:1], *wanted[2:], wanted[1]):
        return " Their channels come last: pass labels.movedim(-1, 1)."
    if labels.ndim == logits.ndim and shape[:1] == wanted[:1] and shape[2:] == wanted[2:]:
        return (
            f" They have {shape[1]} channels where the logits have {wanted[1]}: pass labels.argmax(1), or build the "
            f"network with {shape[1]} outputs."
        )
    if labels.ndim == logits.ndim - 2 and shape == wanted[2:]:
        return " For a single image add the batch axis with labels[None]."
    if shape == wanted[1:]:
        return " For a single image without batch axis pass logits[None] and labels[None]."
    return ""


def _read_ignore_index(labels: Tensor, dense: bool, ignore_index: int) -> int | None:
    if dense and (labels.is_floating_point() or ignore_index in (0, 1)):
        raise ValueError(
            f"ignore_index={ignore_index} cannot mark voxels in {describe(labels)} one-hot or soft labels. "
            "Pass voxel_weights with 0 at the voxels to leave out, or integer class indices."
        )
    if labels.dtype == torch.bool:
        return None
    limits = torch.iinfo(labels.dtype)
    return ignore_index if limits.min <= ignore_index <= limits.max else None  # else no label can equal it


def _read_weights(logits: Tensor, weights: Tensor) -> Tensor:
    n, _, *spatial = logits.shape
    if not _is_dense(weights) or weights.is_complex():
        raise TypeError(f"voxel_weights must be a dense tensor of real numbers; got {describe(weights)}.")
    if tuple(weights.shape) == (n, 1, *spatial):
        weights = weights[:, 0]
    if tuple(weights.shape) != (n, *spatial):
        raise ValueError(
            f"voxel_weights must have shape (N, *spatial) = {(n, *spatial)} or {(n, 1, *spatial)}; "
            f"got {describe(weights)}."
        )
    if weights.device != logits.device:
        raise ValueError(f"voxel_weights must be on the logits' device {logits.device}; got {weights.device}.")
    if weights.requires_grad:
        raise ValueError("voxel_weights receive no gradient; pass voxel_weights.detach().")
    return weights.to(_UNSIGNED.get(weights.dtype, weights.dtype))


def _check_values(x: Inputs, against_rest: bool) -> None:
    """Check the voxels that count: what stands at ignored ones and at weight 0 does not matter."""
    if x.logits.numel() == 0:
        return
    if x.voxel_weights is not None:
        low, high = _range(x.voxel_weights)
        if not 0 <= low <= high < float("inf"):
            raise ValueError(f"voxel_weights must be finite and not negative; they range from {low:g} to {high:g}.")
    counts = _counting(x)
    if x.dense:
        _check_soft_labels(x, counts, exclusive=against_rest or x.activation != "sigmoid")
    else:
        _check_indices(x, counts)
    if x.activation == "none":
        _check_probabilities(x, counts, exclusive=not against_rest)


def _counting(x: Inputs) -> Tensor | None:
    """(N, *spatial), true where a voxel counts; None: everywhere."""
    counts = None if x.voxel_weights is None else x.voxel_weights > 0
    if x.ignore_index is not None:
        valid = x.labels != x.ignore_index
        valid = valid.all(1) if x.dense else valid
        counts = valid if counts is None else counts & valid
    return counts


def _range(values: Tensor) -> tuple[float, float]:
    low, high = values.detach().aminmax()
    return float(low), float(high)


def _voxelwise(values: Tensor, counts: Tensor | None) -> Tensor:
    """(N, K, *spatial) -> (voxels that count, K)."""
    values = values.detach().movedim(1, -1)
    return values.flatten(0, -2) if counts is None else values[counts]


def _check_indices(x: Inputs, counts: Tensor | None) -> None:
    classes = max(x.logits.shape[1], 2)
    if x.labels.dtype == torch.bool:
        return
    low, high = _range(x.labels)
    if 0 <= low and high < classes:
        return
    foreign = (x.labels < 0) | (x.labels >= classes)
    if counts is not None:
        foreign &= counts
    if not foreign.any():
        return
    values = torch.unique(x.labels[foreign])
    found = ", ".join(str(int(v)) for v in values[:5]) + (", ..." if len(values) > 5 else "")
    if x.logits.shape[1] == 1 and len(values) == 1 and int(values[0]) == 255:
        advice = "If 255 is the foreground pass labels > 0; if it marks voxels to leave out, ignore_index=255."
    elif len(values) == 1:
        advice = f"If {found} marks voxels to leave out, make the loss with ignore_index={found}."
    else:
        advice = "Map them to class indices, or give the network as many outputs as there are classes."
    raise ValueError(
        f"labels must be class indices from 0 to {classes - 1} for logits with {x.logits.shape[1]} channel(s); "
        f"found {found}. {advice}"
    )


def _check_soft_labels(x: Inputs, counts: Tensor | None, exclusive: bool) -> None:
    labels = _voxelwise(x.labels, counts)
    if not labels.numel():
        return
    if labels.dtype != torch.bool:
        low, high = _range(labels)
        if not 0 <= low <= high <= 1:
            advice = "If they are a mask of 0 and 255 pass labels > 0. " if x.logits.shape[1] == 1 else ""
            raise ValueError(
                f"one-hot or soft labels must lie in [0, 1]; they range from {low:g} to {high:g}. {advice}"
                "Class indices go in as integers of shape (N, *spatial)."
            )
    if exclusive and x.logits.shape[1] > 1:
        low, high = _range(labels.sum(1, dtype=torch.float32))
        if not 1 - _SLACK <= low <= high <= 1 + _SLACK:
            raise ValueError(
                "one-hot or soft labels of mutually exclusive classes must sum to 1 at every voxel; the sums range "
                f"from {low:g} to {high:g}. For overlapping classes use activation='sigmoid'; to leave voxels out "
                "pass voxel_weights."
            )


def _check_probabilities(x: Inputs, counts: Tensor | None, exclusive: bool) -> None:
    p = _voxelwise(x.logits, counts)
    if not p.numel():
        return
    low, high = _range(p)
    if not -_SLACK <= low <= high <= 1 + _SLACK:
        raise ValueError(
            f"activation='none' takes probabilities in [0, 1]; they range from {low:g} to {high:g}. "
            "For raw network outputs use activation='auto'."
        )
    if exclusive and x.logits.shape[1] > 1:
        low, high = _range(p.sum(1, dtype=torch.float32))
        if not 1 - _SLACK <= low <= high <= 1 + _SLACK:
            raise ValueError(
                "activation='none' takes probabilities that sum to 1 over the channels; the sums range from "
                f"{low:g} to {high:g}. For multi-label outputs pass logits and activation='sigmoid'."
            )
