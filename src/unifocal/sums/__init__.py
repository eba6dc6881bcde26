"""The only door between voxels and losses: logits and labels go in, sums per image and channel come out.

Every loss of this package is algebra on these sums. README.md beside this file derives their gradients.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from .constants import constant
from .form import LARGEST_EXPONENT, Form, MaskExponent, check_factors
from .labels import FOREIGN, UNBALANCED, flat, signed
from .masks import exponents, mask_exponent, mask_sums
from .ops import Slopes, differentiable_sums, function_of_sums
from .tracing import has_memory, tracing

__all__ = [
    "FOREIGN",
    "UNBALANCED",
    "Activation",
    "Engine",
    "MaskExponent",
    "Slopes",
    "SumName",
    "VoxelSums",
    "check_factors",
    "constant",
    "has_memory",
    "mask_exponent",
    "mask_sums",
    "of_voxel_sums",
    "signed",
    "tracing",
    "voxel_sums",
]

Activation = Literal["softmax", "sigmoid", "none"]
SumName = Literal["tp", "fp", "fn", "tn", "ce", "rest"]
Exponent = float | Sequence[float] | Tensor | MaskExponent
Engine = Literal["auto", "reference", "aten", "native", "triton"]


@dataclass(frozen=True)
class VoxelSums:
    """Sums over the valid voxels of each image, per channel, each channel read as "this class against the rest".

    With p the probability of the channel, g its label (1 inside the class, 0 outside) and w the voxel's weight:

        tp = Σ w g p      fp = Σ w (1-g) p      fn = Σ w g (1-p)      tn = Σ w (1-g) (1-p)
        ce   = Σ w g     (1-p)^gamma   (-log p)
        rest = Σ w (1-g) p^rest_gamma  (-log (1-p))

    The sums are additive: those of two parts of a volume add up to those of the whole.
    """

    values: Tensor  # (S, N, K), one slice for each name in `wanted`, differentiable
    wanted: tuple[SumName, ...]
    labelled: Tensor  # (N, K), Σ w g
    voxels: Tensor  # (N, 1), Σ w

    def __getitem__(self, name: SumName) -> Tensor:
        """One of the sums, (N, K)."""
        return self.values[self.wanted.index(name)]


def voxel_sums(
    logits: Tensor,
    labels: Tensor,
    *,
    activation: Activation,
    wanted: Sequence[SumName],
    gamma: Exponent = 0.0,
    rest_gamma: Exponent = 0.0,
    voxel_weights: Tensor | None = None,
    ignore_index: int | None = None,
    clip: bool = False,
    engine: Engine = "auto",
) -> VoxelSums:
    """Compute the wanted sums in one pass, with an analytic gradient to the logits.

    logits         (N, K, *spatial), any float dtype; probabilities where activation is "none"
    labels         (N, *spatial) class indices of any integer or bool dtype, where with K = 1 the index 1 is the
                   channel's class; or (N, K, *spatial) one-hot or soft labels
    activation     "softmax" over the channels, "sigmoid" of each, or "none"
    gamma          focusing exponent of `ce`, 0 or more: a number, K numbers, a tensor that broadcasts to (N, K), or
                   what `mask_exponent` returns, which is then that of `rest`, too
    rest_gamma     focusing exponent of `rest`, likewise
    voxel_weights  (N, *spatial), 0 or more; no gradient flows to them
    ignore_index   label of voxels that join no sum; what stands at them and at weight 0 does not matter, not even NaN
    clip           with activation "none", let tp, fp, fn and tn see the probabilities clipped to
                   [1e-7, 1 - 1e-7]; ce and rest always do
    engine         which engine computes them; "auto" takes the fastest that can, another name that one or raises

    Arithmetic is in float32 (float64 for float64 logits), also under autocast; the gradient has the dtype of the
    logits. The inputs are not checked: that is done once, where a loss receives them.
    """
    wanted = tuple(dict.fromkeys(wanted))  # each once: the slices of the values are found by name
    form = Form(activation, wanted, ignore_index, clip)
    if isinstance(gamma, MaskExponent):
        gamma = rest_gamma = exponents(gamma, torch.promote_types(logits.dtype, torch.float32), engine)
    x, *others = _arguments(logits, labels, form, gamma, rest_gamma, voxel_weights, engine)
    values, labelled, voxels = differentiable_sums(flat(x), *others)
    return VoxelSums(values, wanted, labelled, voxels)


def of_voxel_sums(
    function: Callable[..., tuple[Tensor, Slopes | None]],
    logits: Tensor,
    labels: Tensor,
    *,
    activation: Activation,
    wanted: tuple[SumName, ...],
    gamma: Exponent = 0.0,
    rest_gamma: Exponent = 0.0,
    voxel_weights: Tensor | None = None,
    ignore_index: int | None = None,
    clip: bool = False,
    engine: Engine = "auto",
    noticed: list[int],
) -> Tensor:
    """A function of values, labelled and voxels of `voxel_sums`, which has the other arguments.

    function  returns its value and, as a function of the gradient to that, the gradient to `values`; None for the
              latter leaves it to autograd. It may have a fourth argument, the `mean` of an engine, see engines.py
    noticed   to it is added what was odd about the labels, FOREIGN and UNBALANCED, if the engine looked at them
    """
    form = Form(activation, wanted, ignore_index, clip)
    arguments = _arguments(logits, labels, form, gamma, rest_gamma, voxel_weights, engine)
    return function_of_sums(function, noticed, *arguments)


def _arguments(
    logits: Tensor,
    labels: Tensor,
    form: Form,
    gamma: Exponent,
    rest_gamma: Exponent,
    voxel_weights: Tensor | None,
    engine: Engine,
) -> tuple[Any, ...]:
    """What ops.py takes: labels and weights in a row, exponents as tensors."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    dense = labels.ndim == logits.ndim
    labels, ignore_index = signed(labels, form.ignore_index)
    exponent = _exponent(gamma, dtype, logits)
    return (
        logits,
        flat(labels) if dense else _row(labels),
        None if voxel_weights is None else _row(voxel_weights),
        exponent,
        exponent if rest_gamma is gamma else _exponent(rest_gamma, dtype, logits),
        form if ignore_index == form.ignore_index else form._replace(ignore_index=ignore_index),
        engine,
    )


def _row(x: Tensor) -> Tensor:
    """(N, *spatial) -> (N, V)."""
    return x.flatten(1) if x.ndim > 1 else x.unsqueeze(1)


def _exponent(gamma: Exponent, dtype: torch.dtype, x: Tensor) -> Tensor | tuple[float, ...] | MaskExponent:
    """An exponent as a tensor that broadcasts to (N, K), in a graph as the numbers of that tensor."""
    if isinstance(gamma, MaskExponent):
        return gamma
    n, k = x.shape[:2]
    if isinstance(gamma, Tensor):
        gamma = gamma.to(dtype=dtype, device=x.device).resolve_neg()
        check_factors(gamma, (n, k), x.device)
        return gamma
    given = (gamma,) if isinstance(gamma, float) else gamma
    if len(given) != 1 and len(given) != k:  # a compiler cannot look a size up in a tuple
        raise ValueError(
            f"there must be one focusing exponent or one for each of {k} channels; got {len(given)}: {given}."
        )
    numbers = tuple([min(g, LARGEST_EXPONENT) for g in given])
    return numbers if tracing() else constant(numbers, dtype, x.device)
