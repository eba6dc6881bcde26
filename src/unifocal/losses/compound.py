"""Losses with an entropy part and a region part, from one pass over the voxels.

Notation as in entropy.py and region.py. `lam` always weighs the entropy ("focal", "distribution") part.
"""

from typing import ClassVar

from ..sums import SumName
from ..terms import ClassSums, Mean, blend, class_mean, power, tversky_loss, voxel_mean
from .arguments import within
from .base import ENTROPY, REGION, RareClassesLoss, SegmentationLoss, loss
from .entropy import BalancedFocal
from .values import Inputs


@loss
class ComboLoss(RareClassesLoss):
    """Combo: weighted cross-entropy minus the Dice coefficient (negative where segmentation is good).

        L = α mean_voxels Σ_c -w_c y_c log p_c  -  (1 - α) mean_c DSC_c,     w_c = β if c is rare, 1 - β if common

        alpha  α in [0, 1]: share of the cross-entropy; None: both parts with weight 1 (v1, eq. 18)
        beta   β in [0, 1]: weight of the rare classes; None: w_c = 1

    With the default β = 0.5 the cross-entropy is halved: L = CE / 4 - DSC / 2.
    Source: Taghanaki et al., Comput. Med. Imaging Graph. 75 (2019) 24; Yeung et al., arXiv 2102.04525v2, eq. (14).
    Differs: eq. (14) prints β (y - log p) for β y log p; the authors' code gives β to the background.
    """

    alpha: float | None = within("[0, 1]", default=0.5)
    beta: float | None = within("[0, 1]", default=0.5)
    wants: ClassVar[tuple[SumName, ...]] = ENTROPY + REGION

    def equation(self, s: ClassSums) -> Mean:
        entropy, region = (1.0, 1.0) if self.alpha is None else (self.alpha, 1 - self.alpha)
        rare, common = (1.0, 1.0) if self.beta is None else (self.beta, 1 - self.beta)
        w = self.by_rarity(s.index, rare=rare, common=common)
        dsc = 1 - class_mean(s, tversky_loss(s, 0.5))
        return entropy * voxel_mean(s, w) - region * dsc


@loss
class DiceCELoss(SegmentationLoss):
    """Dice plus cross-entropy.

        L = dice_weight mean_c (1 - DSC_c)  +  ce_weight mean_voxels Σ_c -y_c log p_c

        dice_weight, ce_weight  weights >= 0 of the two parts

    Source: the sum that nnU-Net made common, Isensee et al., Nature Methods 18 (2021) 203.
    """

    dice_weight: float = within("[0, inf)", default=1.0)
    ce_weight: float = within("[0, inf)", default=1.0)
    wants: ClassVar[tuple[SumName, ...]] = ENTROPY + REGION

    def equation(self, s: ClassSums) -> Mean:
        dice = class_mean(s, tversky_loss(s, 0.5))
        return self.dice_weight * dice + self.ce_weight * voxel_mean(s)


@loss
class DiceFocalLoss(SegmentationLoss):
    """Dice plus focal.

        L = dice_weight mean_c (1 - DSC_c)  +  focal_weight mean_voxels Σ_c -(1 - p_c)^γ y_c log p_c

        dice_weight, focal_weight  weights >= 0 of the two parts
        gamma                      γ >= 0, focusing; 0 is Dice plus cross-entropy

    Source: Zhu et al., AnatomyNet, Med. Phys. 46 (2019) 576, with the linear Dice denominator.
    """

    dice_weight: float = within("[0, inf)", default=1.0)
    focal_weight: float = within("[0, inf)", default=1.0)
    gamma: float = within("[0, inf)", default=2.0)
    wants: ClassVar[tuple[SumName, ...]] = ENTROPY + REGION

    def focus(self, x: Inputs, index: tuple[int, ...]) -> float:
        return self.gamma

    def equation(self, s: ClassSums) -> Mean:
        dice = class_mean(s, tversky_loss(s, 0.5))
        return self.dice_weight * dice + self.focal_weight * voxel_mean(s)


@loss
class HybridFocalLoss(BalancedFocal):
    """Hybrid Focal (v2), the same as Mixed Focal (v1): focal plus focal Tversky.

        L = λ mean_voxels Σ_c -α_c (1 - p_c)^γ y_c log p_c  +  (1 - λ) mean_c (1 - TI_c)^k

        lam       λ in [0, 1]: weight of the focal part
        gamma     γ >= 0, focusing of the entropy part
        alpha     α: None for 1; a number a in [0, 1] for [1-a, a, ..., a]; or one factor for each class
        delta     δ in (0, 1): weight of the misses in TI
        exponent  k > 0 of the Tversky part

    Source: Yeung et al., arXiv 2102.04525v1, eq. (23); v2, eq. (15).
    Differs: the authors' code has the weight on the Tversky part, lam = 1 - weight; its weight=None is twice lam = 0.5.
    """

    lam: float = within("[0, 1]", default=0.5)
    delta: float = within("(0, 1)", default=0.7)
    exponent: float = within("(0, inf)", default=0.75)
    wants: ClassVar[tuple[SumName, ...]] = ENTROPY + REGION
    clips_regions: ClassVar[bool] = True

    def equation(self, s: ClassSums) -> Mean:
        region = class_mean(s, power(tversky_loss(s, self.delta), self.exponent))
        return blend(self.lam, self.focal_mean(s), region)


@loss
class SymmetricUnifiedFocalLoss(RareClassesLoss):
    """Symmetric Unified Focal: one γ and one δ for both parts, every class alike.

        L = λ mean_voxels Σ_c -w_c (1 - p_c)^γ y_c log p_c  +  (1 - λ) mean_c (1 - TI_c)^(1-γ)
        w_c = δ if c is rare, 1 - δ if common

        lam    λ in [0, 1]: weight of the focal part
        delta  δ in (0, 1): weight of the rare classes, and of the misses in TI
        gamma  γ in [0, 1): focusing of the entropy, enhancement of the region part

    Source: Yeung et al., Comput. Med. Imaging Graph. 95 (2022) 102026, the authors' code.
    Differs: the code has the weight on the Tversky part, lam = 1 - weight.
    """

    lam: float = within("[0, 1]", default=0.5)
    delta: float = within("(0, 1)", default=0.6)
    gamma: float = within("[0, 1)", default=0.5)
    smooth: float = within("(0, inf)", default=1e-7)
    wants: ClassVar[tuple[SumName, ...]] = ENTROPY + REGION
    clips_regions: ClassVar[bool] = True

    def focus(self, x: Inputs, index: tuple[int, ...]) -> float:
        return self.gamma

    def equation(self, s: ClassSums) -> Mean:
        w = self.balance(s, self.delta)
        region = class_mean(s, power(tversky_loss(s, self.delta), 1 - self.gamma))
        return blend(self.lam, voxel_mean(s, w), region)


@loss
class UnifiedFocalLoss(RareClassesLoss):
    """Unified Focal (asymmetric; v2 calls it Generalised Focal): suppresses the common, enhances the rare classes.

        L = λ mean_voxels [ -(1-δ) (1 - p_0)^γ y_0 log p_0 - δ Σ_{c rare} y_c log p_c ]
          + (1 - λ) mean_c { 1 - TI_c if c is common;  (1 - TI_c)^(1-γ) if c is rare }

        lam    λ in [0, 1]: weight of the focal part
        delta  δ in (0, 1): weight of the rare classes, and of the misses in TI
        gamma  γ in [0, 1): suppression of the common class 0 in the first, enhancement of the rare in the second part

    The v2 paper's optimum is gamma = 0.2, which is what the name "generalised-focal" builds.
    Source: Yeung et al., arXiv 2102.04525v2, eq. (20), and Comput. Med. Imaging Graph. 95 (2022) 102026.
    Differs: the authors' code and figure 1 have the weight on the Tversky part, lam = 1 - weight.
    """

    lam: float = within("[0, 1]", default=0.5)
    delta: float = within("(0, 1)", default=0.6)
    gamma: float = within("[0, 1)", default=0.5)
    smooth: float = within("(0, inf)", default=1e-7)
    wants: ClassVar[tuple[SumName, ...]] = ENTROPY + REGION
    clips_regions: ClassVar[bool] = True

    def focus(self, x: Inputs, index: tuple[int, ...]) -> tuple[float, ...]:
        return self.by_rarity(index, rare=0.0, common=self.gamma)

    def equation(self, s: ClassSums) -> Mean:
        w = self.balance(s, self.delta)
        exponent = self.by_rarity(s.index, rare=1 - self.gamma, common=1.0)
        region = class_mean(s, power(tversky_loss(s, self.delta), exponent))
        return blend(self.lam, voxel_mean(s, w), region)
