"""What a loss is called with, read once: shapes and dtypes are checked here, values in values.py, and nowhere else."""

from typing import TypeVar

import torch
from torch import Tensor

from ..sums import Activation
from .values import Inputs, check_probabilities, check_weights, values_are_checked

T = TypeVar("T")

_UNSIGNED = {torch.uint16: torch.int32, torch.uint32: torch.int64, torch.uint64: torch.int64}
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


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
    if weights is not None and values_are_checked(inputs):
        check_weights(inputs, weights)
    if resolved == "none" and values_are_checked(inputs):
        check_probabilities(inputs, against_rest)
    return inputs


def plain(x: T) -> T:
    """The tensor inside a subclass that only carries notes along, such as MONAI's MetaTensor; its sign carried out."""
    if isinstance(x, Tensor) and type(x) is not Tensor and type(x).__torch_dispatch__ is Tensor.__torch_dispatch__:
        x = x.as_subclass(Tensor)  # type: ignore[assignment]
    if isinstance(x, Tensor) and not torch.compiler.is_compiling() and x.is_neg():
        x = x.resolve_neg()  # type: ignore[assignment]
    return x


def _is_dense(x: object) -> bool:
    return isinstance(x, Tensor) and x.layout == torch.strided and not x.is_quantized


def describe(x: object) -> str:
    if isinstance(x, Tensor):
        if not _is_dense(x):
            return f"a {'quantized' if x.is_quantized else str(x.layout).removeprefix('torch.')} tensor"
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
    # ranks first: a compiler would take a height for a number of channels, and guard against it
    alike = labels.ndim == logits.ndim and tuple(labels.shape) == tuple(logits.shape)
    dense = alike and (channels > 1 or labels.is_floating_point())
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
    return labels, dense


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
    if not _is_dense(weights) or weights.is_complex() or (weights.is_floating_point() and weights.dtype not in _FLOATS):
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
