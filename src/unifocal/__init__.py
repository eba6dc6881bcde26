"""Losses for class-imbalanced medical image segmentation: every name below is public, everything else is not."""

from .losses import (
    AdaptiveFocalLoss,
    AsymmetricFocalLoss,
    AsymmetricFocalTverskyLoss,
    AsymmetricSimilarityLoss,
    ComboLoss,
    CosineTverskyLoss,
    CrossEntropyLoss,
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

__version__ = "0.1.0"

__all__ = [
    "AdaptiveFocalLoss",
    "AsymmetricFocalLoss",
    "AsymmetricFocalTverskyLoss",
    "AsymmetricSimilarityLoss",
    "ComboLoss",
    "CosineTverskyLoss",
    "CrossEntropyLoss",
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
    "available",
    "build",
]
