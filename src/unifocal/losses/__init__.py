"""The family of losses, by the kind of sum they are written on: region, entropy, both, and the adaptive one."""

from .adaptive import AdaptiveFocalLoss
from .base import SegmentationLoss
from .compound import (
    ComboLoss,
    DiceCELoss,
    DiceFocalLoss,
    HybridFocalLoss,
    SymmetricUnifiedFocalLoss,
    UnifiedFocalLoss,
)
from .deep import DeepSupervision
from .entropy import AsymmetricFocalLoss, CrossEntropyLoss, FocalLoss, SymmetricFocalLoss
from .region import (
    AsymmetricFocalTverskyLoss,
    AsymmetricSimilarityLoss,
    CosineTverskyLoss,
    DiceLoss,
    FocalTverskyLoss,
    JaccardLoss,
    SymmetricFocalTverskyLoss,
    TverskyLoss,
)

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
    "JaccardLoss",
    "SegmentationLoss",
    "SymmetricFocalLoss",
    "SymmetricFocalTverskyLoss",
    "SymmetricUnifiedFocalLoss",
    "TverskyLoss",
    "UnifiedFocalLoss",
]
