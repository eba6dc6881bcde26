"""Losses that are one and the same under several names, as generalised-focal is unified-focal at gamma 0.2.

Their parameters do not show it, so they are tried: the same value and the same gradient on a random batch.
"""

from collections.abc import Iterable, Sequence
from functools import cache

import torch

from unifocal.lab.choices import LossChoice
from unifocal.lab.errors import LabError

SIDE, SEED = 6, 0
TOLERANCE = 1e-9  # relative; what rounding leaves of equal formulas in float64 is smaller by far

Tried = list[torch.Tensor]


def same_losses(losses: Sequence[LossChoice], classes: Iterable[int]) -> list[tuple[LossChoice, ...]]:
    """Groups of losses that are the same with each of these numbers of classes."""
    numbers = tuple(sorted(set(classes)))
    groups: list[tuple[Tried, list[LossChoice]]] = []
    for loss in losses:
        tried = [part for number in numbers for part in _tried(loss.label, number)]
        if not tried:
            continue
        group = next((members for known, members in groups if _alike(known, tried)), None)
        if group is None:
            groups.append((tried, [loss]))
        else:
            group.append(loss)
    return [tuple(members) for _, members in groups if len(members) > 1]


def warnings_of(losses: Sequence[LossChoice], classes: Iterable[int]) -> list[str]:
    """A sentence for each such group; a comparison of a loss with itself may be meant."""
    return [
        f"{', '.join(loss.label for loss in first)} and {last.label} are the same loss: each has runs of its own, and "
        f"{'all' if len(first) > 1 else 'both'} count in the correction for many comparisons."
        for *first, last in same_losses(losses, classes)
    ]


@cache
def _tried(label: str, classes: int) -> Tried:
    """Value and gradient on the batch; nothing of a loss that cannot be built or does not fit, which others tell."""
    draw = torch.Generator().manual_seed(SEED)
    logits = torch.randn(2, classes, SIDE, SIDE, generator=draw, dtype=torch.float64).mul(2).requires_grad_()
    labels = torch.randint(classes, (2, SIDE, SIDE), generator=draw)
    try:
        value = LossChoice.parse(label).build()(logits, labels)
        value.backward()
    except (LabError, TypeError, ValueError, RuntimeError):
        return []
    assert logits.grad is not None
    return [value.detach(), logits.grad]


def _alike(some: Tried, others: Tried) -> bool:
    return len(some) == len(others) and all(
        torch.allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE * float(one.abs().max()))
        for one, other in zip(some, others, strict=True)
    )
