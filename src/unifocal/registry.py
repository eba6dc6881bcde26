"""Losses by name: the table behind `build` and `available`."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from . import losses
from .losses.arguments import nearest
from .losses.base import SegmentationLoss

_FAMILY: dict[str, Callable[..., SegmentationLoss]] = {
    "cross-entropy": losses.CrossEntropyLoss,
    "focal": losses.FocalLoss,
    "dice": losses.DiceLoss,
    "jaccard": losses.JaccardLoss,
    "tversky": losses.TverskyLoss,
    "asymmetric-similarity": losses.AsymmetricSimilarityLoss,
    "focal-tversky": losses.FocalTverskyLoss,
    "cosine-tversky": losses.CosineTverskyLoss,
    "combo": losses.ComboLoss,
    "dice-ce": losses.DiceCELoss,
    "dice-focal": losses.DiceFocalLoss,
    "mixed-focal": losses.HybridFocalLoss,
    "hybrid-focal": losses.HybridFocalLoss,
    "symmetric-focal": losses.SymmetricFocalLoss,
    "asymmetric-focal": losses.AsymmetricFocalLoss,
    "symmetric-focal-tversky": losses.SymmetricFocalTverskyLoss,
    "asymmetric-focal-tversky": losses.AsymmetricFocalTverskyLoss,
    "symmetric-unified-focal": losses.SymmetricUnifiedFocalLoss,
    "unified-focal": losses.UnifiedFocalLoss,
    "generalised-focal": partial(losses.UnifiedFocalLoss, gamma=0.2),  # the v2 paper's optimum
    "adaptive-focal": losses.AdaptiveFocalLoss,
}


def available() -> list[str]:
    """The names that `build` knows, plain losses first."""
    return list(_FAMILY)


def build(name: str, **arguments: Any) -> SegmentationLoss:
    """The loss of that name, e.g. `build("unified-focal", delta=0.7)`.

    arguments  keyword arguments of its class

    Raises ValueError for an unknown name and TypeError for an unknown argument, with the nearest known one.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a loss must be a string such as 'unified-focal'; got {name!r}.")
    if name not in _FAMILY:
        raise ValueError(f"There is no loss named {name!r}.{nearest(name, _FAMILY)} Known: {', '.join(_FAMILY)}.")
    known = inspect.signature(_FAMILY[name]).parameters
    for argument in arguments:
        if argument not in known:
            raise TypeError(
                f"{name!r} has no argument {argument!r}.{nearest(argument, known)} It takes: {', '.join(known)}."
            )
    return _FAMILY[name](**arguments)
