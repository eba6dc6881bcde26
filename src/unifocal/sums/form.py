"""What an engine is asked for, apart from the voxels."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

LARGEST_EXPONENT = 1e8  # beyond it every power of a number below 1 is 0 in float32


# Of a region of a mean, see slopes.py: share and exponent, which broadcast to (P, N, K); delta, credit, smooth, sine.
OfRegion = tuple[Tensor, Tensor, float, float, float, bool]


def check_factors(given: Tensor, shape: tuple[int, ...], device: torch.device) -> None:
    """Raise unless the tensor broadcasts to the shape, images and channels last, and lies on the device."""
    fits = given.ndim <= len(shape)
    for size, wanted in zip(reversed(given.shape), reversed(shape), strict=False):
        fits = fits and (size == wanted or size == 1)
    if not fits:
        axes = ("P", "N", "K")[-len(shape) :]
        raise ValueError(
            f"numbers for each image and channel must broadcast to ({', '.join(axes)}) = {shape}; got a tensor of "
            f"shape {tuple(given.shape)}."
        )
    if given.device != device:
        raise ValueError(
            f"numbers for each image and channel must be on the logits' device {device}; got {given.device}."
        )


class Form(NamedTuple):
    """What does not vary from voxel to voxel: how the channels are read, and which sums are wanted."""

    activation: str  # "softmax", "sigmoid" or "none"
    wanted: tuple[str, ...]  # of "tp", "fp", "fn", "tn", "ce", "rest", each at most once
    ignore_index: int | None
    clip: bool


@dataclass(frozen=True, eq=False)
class MaskExponent:
    """A focusing exponent for each image and channel: (size volume + smoothness surface) / voxels + constant.

    Volume, surface and voxels are those of masks.py.
    """

    labels: Tensor  # (N, *spatial) class indices, or dense (N, K, *spatial)
    weights: Tensor | None  # (N, *spatial)
    channels: int
    dense: bool
    ignore_index: int | None
    steps: tuple[float, ...]  # voxels per unit of length along each spatial axis
    size: float = 0.0
    smoothness: float = 0.0
    constant: float = 0.0
