"""Losses that are means over voxels: cross-entropy and its focal forms.

Notation: p_c probability and y_c label of class c at a voxel, the mean over the valid voxels of an image.
"""

from collections.abc import Sequence
from typing import ClassVar

from ..sums import SumName
from ..terms import ClassSums, Mean, voxel_mean
from .arguments import within
from .base import ENTROPY, RareClassesLoss, SegmentationLoss, loss
from .values import Inputs


@loss
class CrossEntropyLoss(SegmentationLoss):
    """Cross-entropy: the mean surprise of the labels.

        L = mean_voxels Σ_c -y_c log p_c

    Equals `torch.nn.functional.cross_entropy` on one image, class weights included.
    Source: Yeung et al., arXiv 2102.04525v2, eq. (2).
    """

    wants: ClassVar[tuple[SumName, ...]] = ENTROPY

    def equation(self, s: ClassSums) -> Mean:
        return voxel_mean(s)


@loss
class BalancedFocal(SegmentationLoss):
    """The two arguments of a focal term.

    gamma  γ >= 0, focusing; 0 is cross-entropy
    alpha  α: None for 1; a number a in [0, 1] for [1-a, a, ..., a]; or one factor for each class (with "sigmoid":
           [background, foreground], the same for every channel)
    """

    gamma: float = within("[0, inf)", default=2.0)
    alpha: float | Sequence[float] | None = within("[0, inf)", default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.alpha, float) and self.alpha > 1:
            raise ValueError(
                f"{type(self).__name__}: a single alpha must lie in [0, 1], as it stands for [1 - alpha, alpha, ...]; "
                f"got {self.alpha!r}. For free factors pass one for each class."
            )

    def focus(self, x: Inputs, index: tuple[int, ...]) -> float:
        return self.gamma

    def focal_mean(self, s: ClassSums) -> Mean:
        """mean_voxels Σ_c -α_c (1 - p_c)^γ y_c log p_c, (N,)."""
        return voxel_mean(s, None if self.alpha is None else self._factors(s.index, self.alpha))

    def _factors(self, index: tuple[int, ...], alpha: float | Sequence[float]) -> list[float]:
        if isinstance(alpha, float):
            return [alpha if i else 1 - alpha for i in index]
        if len(alpha) != len(set(index)):
            raise ValueError(
                f"{type(self).__name__}: alpha must be one number, or one for each of {len(set(index))} classes; "
                f"got {len(alpha)}: {alpha}."
            )
        return [alpha[i] for i in index]


@loss
class FocalLoss(BalancedFocal):
    """Focal: cross-entropy that plays down voxels already classified well.

        L = mean_voxels Σ_c -α_c (1 - p_c)^γ y_c log p_c

        gamma  γ >= 0, focusing; 0 is cross-entropy
        alpha  α: None for 1; a number a in [0, 1] for [1-a, a, ..., a]; or one factor for each class (with "sigmoid":
               [background, foreground], the same for every channel)

    Source: Lin et al., ICCV 2017, eq. (5); categorical form: Yeung et al., arXiv 2102.04525v2, eq. (6).
    Differs: the authors' code multiplies all classes by a scalar alpha; `alpha=[a] * C` does the same.
    """

    wants: ClassVar[tuple[SumName, ...]] = ENTROPY

    def equation(self, s: ClassSums) -> Mean:
        return self.focal_mean(s)


@loss
class SymmetricFocalLoss(RareClassesLoss):
    """Symmetric focal: the entropy part of the symmetric Unified Focal loss.

        L = mean_voxels Σ_c -w_c (1 - p_c)^γ y_c log p_c,     w_c = δ if c is rare, 1 - δ if common

        delta  δ in (0, 1): weight of the rare classes
        gamma  γ >= 0: focusing of every class

    Source: Yeung et al., Comput. Med. Imaging Graph. 95 (2022) 102026, the authors' code (`symmetric_focal_loss`).
    Differs: the code covers two classes in 2D; here w_c covers any number, in any dimension.
    """

    delta: float = within("(0, 1)", default=0.6)
    gamma: float = within("[0, inf)", default=0.5)
    wants: ClassVar[tuple[SumName, ...]] = ENTROPY

    def focus(self, x: Inputs, index: tuple[int, ...]) -> float:
        return self.gamma

    def equation(self, s: ClassSums) -> Mean:
        w = self.balance(s, self.delta)
        return voxel_mean(s, w)


@loss
class AsymmetricFocalLoss(RareClassesLoss):
    """Asymmetric focal: plays down easy voxels of the common class only.

        L = mean_voxels [ -(1-δ) (1 - p_0)^γ y_0 log p_0  -  δ Σ_{c rare} y_c log p_c ]

        delta  δ in (0, 1): weight of the rare classes
        gamma  γ >= 0: focusing of the common class 0; the rare classes keep their full cross-entropy

    Source: Yeung et al., arXiv 2102.04525v2, eq. (16) and (17).
    Differs: both equations print log p_{t,r} in the second sum where log p_{t,c} is meant, as the authors confirm.
    """

    delta: float = within("(0, 1)", default=0.6)
    gamma: float = within("[0, inf)", default=0.5)
    wants: ClassVar[tuple[SumName, ...]] = ENTROPY

    def focus(self, x: Inputs, index: tuple[int, ...]) -> tuple[float, ...]:
        return self.by_rarity(index, rare=0.0, common=self.gamma)

    def equation(self, s: ClassSums) -> Mean:
        w = self.balance(s, self.delta)
        return voxel_mean(s, w)
