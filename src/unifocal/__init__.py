"""Losses for class-imbalanced medical image segmentation: the names in `__all__` are public, everything else is not.

They are imported when first used, so that the command `unifocal` answers before torch is loaded.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .family import Identity, identities
    from .losses import (
        AdaptiveFocalLoss,
        AsymmetricFocalLoss,
        AsymmetricFocalTverskyLoss,
        AsymmetricSimilarityLoss,
        ComboLoss,
        CosineTverskyLoss,
        CrossEntropyLoss,
        DeepSupervision,
        DiceCELoss,
        DiceFocalLoss,
        DiceLoss,
        FocalLoss,
        FocalTverskyLoss,
        HybridFocalLoss,
        JaccardLoss,
        SegmentationLoss,
        SymmetricFocalLoss,
        SymmetricFocalTverskyLoss,
        SymmetricUnifiedFocalLoss,
        TverskyLoss,
        UnifiedFocalLoss,
    )
    from .registry import available, build
    from .sums.engines import engines

__version__ = "0.1.0"

__all__ = [
    "AdaptiveFocalLoss",
    "AsymmetricFocalLoss",
    "AsymmetricFocalTverskyLoss",
    "AsymmetricSimilarityLoss",
    "ComboLoss",
    "CosineTverskyLoss",
    "CrossEntropyLoss",
    "DeepSupervision",
    "DiceCELoss",
    "DiceFocalLoss",
    "DiceLoss",
    "FocalLoss",
    "FocalTverskyLoss",
    "HybridFocalLoss",
    "Identity",
    "JaccardLoss",
    "SegmentationLoss",
    "SymmetricFocalLoss",
    "SymmetricFocalTverskyLoss",
    "SymmetricUnifiedFocalLoss",
    "TverskyLoss",
    "UnifiedFocalLoss",
    "available",
    "build",
    "engines",
    "identities",
]

_ELSEWHERE = {
    "available": ".registry",
    "build": ".registry",
    "engines": ".sums.engines",
    "Identity": ".family",
    "identities": ".family",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(_ELSEWHERE.get(name, ".losses"), __name__)
    globals()[name] = getattr(module, name)
    return globals()[name]


def __dir__() -> list[str]:
    return [*globals(), *__all__]
