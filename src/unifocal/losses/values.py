"""The numbers that a loss is called with, checked: class indices, soft labels, weights and given probabilities.

On a CPU this costs a pass over the labels, unless the engine has looked at them on its way; voxels are never copied as
a whole. What stands at voxels that are ignored or weigh nothing does not matter.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..sums import FOREIGN, UNBALANCED, Activation, has_memory, signed

_SLACK = 1e-2  # how far given probabilities, and sums of soft labels, may be off, as bfloat16 ones are
_EDGE = 1e-5  # how far soft labels may lie outside of [0, 1], as those that were resampled do


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


def values_are_checked(x: Inputs) -> bool:
    """Are there values to be read? On a GPU that would stall it: there they are checked on request."""
    if not has_memory(x.logits, x.labels):
        return False
    return x.logits.device.type == "cpu" or os.environ.get("UNIFOCAL_CHECK") == "1"


def check_weights(x: Inputs, weights: Tensor) -> None:
    if x.logits.numel() == 0:
        return
    low, high = _range(weights, None)
    most = torch.finfo(torch.promote_types(x.logits.dtype, torch.float32)).max / weights.numel()
    if not 0 <= low <= high <= most:
        raise ValueError(
            "voxel_weights must be finite and not negative, and their sum within the range of float32 unless the "
            f"logits are float64; they range from {low:g} to {high:g}."
        )


def check_labels(x: Inputs, against_rest: bool, noticed: Sequence[int]) -> None:
    """Check the labels of the voxels that count.

    noticed  what an engine found odd about them; empty if none has looked
    """
    exclusive = against_rest or x.activation != "sigmoid"
    if x.logits.numel() == 0:
        return
    if noticed and not any(odd & (FOREIGN | UNBALANCED if exclusive else FOREIGN) for odd in noticed):
        return
    if x.dense:
        _check_soft_labels(x, exclusive)
    else:
        _check_indices(x)


def _counting(x: Inputs) -> Tensor | None:
    """(N, *spatial), true where a voxel counts; None: everywhere."""
    counts = None if x.voxel_weights is None else x.voxel_weights > 0
    labels, ignore_index = signed(x.labels, x.ignore_index)
    if ignore_index is not None:
        valid = labels != ignore_index
        valid = valid.all(1) if x.dense else valid
        counts = valid if counts is None else counts & valid
    return counts


def _range(values: Tensor, counts: Tensor | None) -> tuple[float, float]:
    """Least and greatest value; (inf, -inf) of none."""
    values = values.detach() if counts is None else values.detach()[counts]
    if not values.numel():
        return float("inf"), -float("inf")
    low, high = values.aminmax()
    return float(low), float(high)


def _range_of_channels(values: Tensor, counts: Tensor | None) -> tuple[float, float]:
    if counts is None:
        return _range(values, None)
    ranges = [_range(channel, counts) for channel in values.unbind(1)]  # a copy of one channel at a time
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _sums_to_one(values: Tensor, counts: Tensor | None) -> tuple[bool, float, float]:
    """Do the channels of every voxel sum to 1, and the range of the sums."""
    low, high = _range(values.detach().sum(1, dtype=torch.float32), counts)
    return low > high or 1 - _SLACK <= low <= high <= 1 + _SLACK, low, high


def _check_indices(x: Inputs) -> None:
    classes = max(x.logits.shape[1], 2)
    if x.labels.dtype == torch.bool:
        return
    labels, _ = signed(x.labels, None)
    low, high = _range(labels, None)
    if 0 <= low and high < classes:
        return
    foreign = (labels < 0) | (labels >= classes)
    counts = _counting(x)
    if counts is not None:
        foreign &= counts
    if not foreign.any():
        return
    modulus = 0 if labels.dtype == x.labels.dtype else 2 ** torch.iinfo(labels.dtype).bits
    values = [int(v) % modulus if modulus else int(v) for v in torch.unique(labels[foreign])]
    found = ", ".join(str(v) for v in values[:5]) + (", ..." if len(values) > 5 else "")
    if x.logits.shape[1] == 1 and values == [255]:
        advice = "If 255 is the foreground pass labels > 0; if it marks voxels to leave out, ignore_index=255."
    elif len(values) == 1:
        advice = f"If {found} marks voxels to leave out, make the loss with ignore_index={found}."
    else:
        advice = "Map them to class indices, or give the network as many outputs as there are classes."
    raise ValueError(
        f"labels must be class indices from 0 to {classes - 1} for logits with {x.logits.shape[1]} channel(s); "
        f"found {found}. {advice}"
    )


def _check_soft_labels(x: Inputs, exclusive: bool) -> None:
    counts = _counting(x)
    labels, _ = signed(x.labels, None)
    if labels.dtype != torch.bool:
        low, high = _range_of_channels(labels, counts)
        if (low <= high and not -_EDGE <= low <= high <= 1 + _EDGE) or low != low:
            advice = "If they are a mask of 0 and 255 pass labels > 0. " if x.logits.shape[1] == 1 else ""
            raise ValueError(
                f"one-hot or soft labels must lie in [0, 1]; they range from {low:.7g} to {high:.7g}. {advice}"
                "Class indices go in as integers of shape (N, *spatial)."
            )
    if exclusive and x.logits.shape[1] > 1:
        right, low, high = _sums_to_one(labels, counts)
        if not right:
            raise ValueError(
                "one-hot or soft labels of mutually exclusive classes must sum to 1 at every voxel; the sums range "
                f"from {low:g} to {high:g}. For overlapping classes use activation='sigmoid'; to leave voxels out "
                "pass voxel_weights."
            )


def check_probabilities(x: Inputs, against_rest: bool) -> None:
    """Check what is given instead of logits.

    against_rest  is every channel read against the rest, whatever the activation (A-FL)?
    """
    if x.logits.numel() == 0:
        return
    counts = _counting(x)
    low, high = _range_of_channels(x.logits, counts)
    if (low <= high and not -_SLACK <= low <= high <= 1 + _SLACK) or low != low:
        raise ValueError(
            f"activation='none' takes probabilities in [0, 1]; they range from {low:g} to {high:g}. "
            "For raw network outputs use activation='auto'."
        )
    if not against_rest and x.logits.shape[1] > 1:
        right, low, high = _sums_to_one(x.logits, counts)
        if not right:
            raise ValueError(
                "activation='none' takes probabilities that sum to 1 over the channels; the sums range from "
                f"{low:g} to {high:g}. For multi-label outputs pass logits and activation='sigmoid'."
            )
