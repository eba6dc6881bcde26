"""The means of terms.py as numbers, with their slopes: written out, they take half the steps of autograd's.

A mean is a sum of products over the classes: of the price of its cross-entropy and that, and of what its region is
worth and a quotient of its sums. Tensors are (P, N, K) as in `ClassSums`, and the slope of a quotient of linear forms
a / b of the sums v is (da/dv - a/b db/dv) / b.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .sums import Slopes, constant
from .terms import ClassSums, Factors, Mean, Region, scaled

TAU = 1e-12  # below it a fractional power is replaced by its secant through 0
_NOTHING = 1e-30  # stands for the weight of no voxel: whatever is divided by it is 0


def evaluate(mean: Mean, s: ClassSums, total: bool = False, by: float = 1.0) -> tuple[Tensor, Slopes]:
    """`by` times the mean of each image, (N,), or the total of all, (); and from the gradient to it that to the sums.

    The latter has the rows of ce, tp, fp and fn, one above the other, as far as the equation has them.
    """
    n = s.voxels.shape[0]
    parts: Tensor | None = None
    price: Tensor | None = None
    slopes_of_regions: list[Callable[[], Tensor]] = []
    if mean.entropy is not None:
        price = _price(mean.entropy, s, by)
        parts = price * s.ce
    for share, region in mean.regions:
        worth, x, slopes = _region(scaled(share, by), region, s)
        parts = worth * x if parts is None else torch.addcmul(parts, worth, x)
        slopes_of_regions.append(slopes)
    assert parts is not None, "an equation has at least one mean"
    pooled = len(slopes_of_regions) > 0 and s.tp.shape[1] < n
    if pooled:
        parts = parts.expand(-1, n, -1)
    value = parts.sum() if total else parts.sum((0, 2))
    if mean.constant:
        value = value + mean.constant * (by * n if total else by)

    def slopes_of_sums(upstream: Tensor) -> Tensor:
        if not total:
            upstream = upstream.unsqueeze(1)
        rows = [] if price is None else [price.expand_as(s.ce)]
        if slopes_of_regions:
            region = sum((slopes() for slopes in slopes_of_regions[1:]), slopes_of_regions[0]())
            if pooled:  # each image is part of the value of all others
                region = (region * (upstream * n if total else upstream.sum())).expand(-1, n, -1)
                return torch.cat([*(row * upstream for row in rows), region])
            rows.append(region)
        return (torch.cat(rows) if len(rows) > 1 else rows[0]) * upstream

    return value, slopes_of_sums


def evaluate_by(
    engine: Callable[..., tuple[Tensor, Tensor]], mean: Mean, s: ClassSums, *more: Any
) -> tuple[Tensor, Slopes]:
    """The reduced value and its slopes by the `mean` of an engine, see engines.py; of a batch that is not pooled.

    more  the sums as the engine returned them, and the reduction
    """
    exponents = [r.exponent if isinstance(r.exponent, tuple) else (r.exponent,) * len(s.index) for _, r in mean.regions]
    regions = [
        (s.tensor(share), s.tensor(exponent), r.delta, r.credit, r.smooth, r.sine)
        for (share, r), exponent in zip(mean.regions, exponents, strict=True)
    ]
    entropy = None if mean.entropy is None else s.tensor(mean.entropy)
    value, slopes = engine(*more, s.tensor(s.class_weights), mean.constant, entropy, regions)
    return value, lambda upstream: slopes * (upstream.unsqueeze(1) if upstream.ndim else upstream)


def _price(factors: Factors, s: ClassSums, by: float) -> Tensor:
    """by factor_c / Σ_c w_c labelled_c."""
    k = s.labelled.shape[1]
    rest, own = s.class_weights[:k], s.class_weights[-k:]
    if not s.split:
        weighed = s.labelled if {*own} == {1.0} else s.labelled * constant(own, s.labelled.dtype, s.labelled.device)
        weight = weighed.sum(1, keepdim=True)
    elif rest == own:  # what is labelled with the rest or the class is all
        return s.tensor(scaled(factors, by / sum(own))) / s.voxels
    else:
        weight = ((s.voxels - s.labelled) * s.tensor(rest) + s.labelled * s.tensor(own)).sum(-1, keepdim=True)
    return s.tensor(scaled(factors, by)) / weight.clamp_min(_NOTHING)


def _region(share: Factors, region: Region, s: ClassSums) -> tuple[Tensor, Tensor, Callable[[], Tensor]]:
    """Two factors of the share of every class in the mean, and the slopes of their product, (P + 2, N, K)."""
    delta, credit, smooth, sine, exponent = region
    like = s.tp.dtype, s.tp.device
    errors = torch.lerp(s.fp, s.fn, constant((delta, 1 - delta), *like, (2, 1, 1)) if s.split else delta)
    whole = torch.add(errors, s.tp, alpha=credit) + s.number(credit * smooth)
    quotient = errors / whole
    angle = s.number(math.pi / 2) * quotient if sine else quotient
    x = torch.sin(angle) if sine else quotient
    worth = s.tensor(share)
    if exponent != 1.0:
        less = s.tensor(tuple([k - 1 for k in exponent])) if isinstance(exponent, tuple) else exponent - 1
        worth = worth * x.clamp_min(TAU) ** less

    def slopes() -> Tensor:
        slope = worth
        if exponent != 1.0:
            k = s.tensor(exponent) if isinstance(exponent, tuple) else s.number(exponent)
            slope = torch.where(x > s.number(TAU), k * worth, worth)
        above, below = _forms(region, s.split)
        if sine:
            slope = slope * torch.cos(angle)
            above, below = (tuple([math.pi / 2 * factor for factor in form]) for form in (above, below))
        classes = 2 if s.split else 1
        shape = len(above) // classes, classes, 1, 1
        rows = torch.addcmul(constant(above, *like, shape), quotient, constant(below, *like, shape), value=-1)
        rows = rows * (slope / whole)
        return rows.sum(1) if s.split else rows.squeeze(1)

    return worth, x, slopes


def _forms(region: Region, split: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Numerator and denominator of the quotient as linear forms of tp, fp and fn, class by class."""
    delta, credit = region.delta, region.credit
    if not split:
        return (0.0, 1 - delta, delta), (credit, 1 - delta, delta)
    errors = (1 - delta, delta, delta, 1 - delta)
    return (0.0, 0.0, 0.0, 0.0, *errors), (credit, 0.0, 0.0, credit, *errors)
