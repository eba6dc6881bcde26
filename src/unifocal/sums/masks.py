"""Volume and surface of the mask of each channel, for the loss whose focus depends on them; no gradient.

The mask of a channel is its label; of channel 0 of several it is everything but that label: all foreground. With the
weight w of a voxel, image by image and channel by channel:

    volume = Σ w m      surface = Σ w |∇ m|      voxels = Σ w

∇ is `torch.gradient`: central differences inside, one-sided ones at the border. A voxel that is ignored or weighs
nothing counts as outside of the mask.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .engines import select_for_masks
from .form import LARGEST_EXPONENT, MaskExponent
from .labels import signed
from .tracing import is_traced

Sums = tuple[Tensor, Tensor, Tensor]  # volume (N, K), surface (N, K), voxels (N, 1)


def mask_sums(
    labels: Tensor,
    weights: Tensor | None,
    channels: int,
    ignore_index: int | None,
    spacing: Sequence[float],
    dtype: torch.dtype,
    engine: str,
) -> Sums:
    """(volume, surface, voxels) of labels (N, *spatial) or dense (N, K, *spatial), computed in dtype.

    spacing  size of a voxel along each spatial axis, in the unit that |∇ m| is wanted per
    """
    return _sums(mask_exponent(labels, weights, channels, ignore_index, spacing), dtype, engine)


def mask_exponent(
    labels: Tensor,
    weights: Tensor | None,
    channels: int,
    ignore_index: int | None,
    spacing: Sequence[float],
    size: float = 0.0,
    smoothness: float = 0.0,
    constant: float = 0.0,
) -> MaskExponent:
    """What a focusing exponent is to be computed from, once the engine is known; the first arguments as above."""
    labels, ignore_index = signed(labels, ignore_index)
    if not spacing:  # no spatial axis: one voxel, without surface
        labels, weights, spacing = labels[..., None], None if weights is None else weights[..., None], (1.0,)
    steps = tuple([1 / length for length in spacing])
    dense = labels.ndim == len(steps) + 2
    factors = [min(factor, LARGEST_EXPONENT) for factor in (size, smoothness, constant)]
    return MaskExponent(labels, weights, channels, dense, ignore_index, steps, *factors)


def exponents(e: MaskExponent, dtype: torch.dtype, engine: str) -> Tensor:
    """The exponents themselves, (N, K), by whichever engine finds the masks."""
    volume, surface, voxels = _sums(e, dtype, engine)
    shares = torch.add(e.size * volume, surface, alpha=e.smoothness) / voxels.clamp_min(1e-30)
    return shares + e.constant if e.constant else shares


def _sums(e: MaskExponent, dtype: torch.dtype, engine: str) -> Sums:
    arguments = (e.labels, e.weights, e.channels, e.ignore_index, e.steps, dtype, engine)
    result: Sums = masks(*arguments) if is_traced(e.labels) else _masks(*arguments)
    return result


def _masks(
    labels: Tensor,
    weights: Tensor | None,
    channels: int,
    ignore_index: int | None,
    steps: Sequence[float],
    dtype: torch.dtype,
    engine: str,
) -> Sums:
    dense = labels.ndim == len(steps) + 2
    chosen = select_for_masks(engine, labels, weights, dense)
    with torch.no_grad():
        result: Sums = chosen.masks(labels, weights, channels, dense, ignore_index, steps, dtype)
    return result


@torch.library.custom_op(
    "unifocal::masks",
    mutates_args=(),
    schema="(Tensor labels, Tensor? weights, SymInt channels, SymInt? ignore_index, float[] steps, ScalarType dtype, "
    "str engine) -> (Tensor, Tensor, Tensor)",  # as older versions do not read it from the annotations
)
def masks(
    labels: Tensor,
    weights: Tensor | None,
    channels: int,
    ignore_index: int | None,
    steps: Sequence[float],
    dtype: torch.dtype,
    engine: str,
) -> Sums:
    """`mask_sums` as an operator that tracing does not look into."""
    volume, surface, voxels = _masks(labels, weights, channels, ignore_index, steps, dtype, engine)
    return _alone(volume), _alone(surface), _alone(voxels)


def _alone(x: Tensor) -> Tensor:
    """Not a view of a tensor that holds more: an operator returns none of those."""
    return x if x.untyped_storage().nbytes() == x.nbytes else x.clone()


@masks.register_fake
def _(labels: Tensor, weights: Tensor | None, channels: int, *rest: object, **more: object) -> Sums:
    n = labels.shape[0]
    dtype = rest[2]
    assert isinstance(dtype, torch.dtype)
    new = labels.new_empty
    return new((n, channels), dtype=dtype), new((n, channels), dtype=dtype), new((n, 1), dtype=dtype)
