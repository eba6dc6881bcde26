"""Losses on the overlap of regions: Dice, Jaccard, Tversky and their powers.

Notation, per image and class: TP, FP, FN the sums over the voxels of p y, p (1 - y) and (1 - p) y; s the smoothing;
the mean over the classes, background included unless `include_background=False`.
"""

from typing import Any, ClassVar, Literal, Self

from ..sums import SumName
from ..terms import ClassSums, Mean, class_mean, overlap_loss, power, sine, tversky_loss
from .arguments import check_number, check_option, within
from .base import REGION, RareClassesLoss, SegmentationLoss, loss


@loss
class DiceLoss(SegmentationLoss):
    """Dice: one minus the soft Dice coefficient, with a linear denominator.

        L = mean_c (1 - DSC_c),     DSC = (TP + s) / (TP + FN/2 + FP/2 + s)

    Source: Yeung et al., arXiv 2102.04525v2, eq. (9); s is added after the division by 2.
    """

    wants: ClassVar[tuple[SumName, ...]] = REGION

    def equation(self, s: ClassSums) -> Mean:
        return class_mean(s, tversky_loss(s, 0.5))


@loss
class JaccardLoss(SegmentationLoss):
    """Jaccard: one minus the soft intersection over union.

        L = mean_c (1 - IoU_c),     IoU = (TP + s) / (TP + FN + FP + s)

    Source: Rahman and Wang, ISVC 2016, here averaged over classes.
    """

    wants: ClassVar[tuple[SumName, ...]] = REGION

    def equation(self, s: ClassSums) -> Mean:
        return class_mean(s, overlap_loss(s, fn=1.0, fp=1.0))


@loss
class TverskyLoss(SegmentationLoss):
    """Tversky: Dice with separate prices for misses and false alarms.

        L = mean_c (1 - TI_c),     TI = (TP + s) / (TP + δ FN + (1 - δ) FP + s)

        delta  δ in (0, 1): weight of the misses; above 0.5 favours recall, 0.5 is the Dice loss

    Source: Salehi et al., MLMI 2017, with alpha = 1 - δ on FP and beta = δ on FN;
    Yeung et al., arXiv 2102.04525v2, eq. (11).
    """

    delta: float = within("(0, 1)", default=0.7)
    wants: ClassVar[tuple[SumName, ...]] = REGION

    def equation(self, s: ClassSums) -> Mean:
        return class_mean(s, tversky_loss(s, self.delta))


@loss
class AsymmetricSimilarityLoss(SegmentationLoss):
    """Asymmetric similarity: one minus the soft F_β score, a Tversky loss with δ = β² / (1 + β²).

        L = mean_c (1 - F_c),     F = (TP + s) / (TP + δ FN + (1 - δ) FP + s),     δ = β² / (1 + β²)

        beta  β > 0: how much more recall counts than precision

    Source: Hashemi et al., IEEE Access 7 (2019) 1721, beta = 1.5; as placed in the family by the text of
    Yeung et al., arXiv 2102.04525v2.
    """

    beta: float = within("(0, inf)", default=1.5)
    wants: ClassVar[tuple[SumName, ...]] = REGION

    def equation(self, s: ClassSums) -> Mean:
        return class_mean(s, tversky_loss(s, self.beta**2 / (1 + self.beta**2)))


@loss
class FocalTverskyLoss(SegmentationLoss):
    """Focal Tversky: a power of the Tversky loss of each class.

        L = mean_c (1 - TI_c)^k,     TI = (TP + s) / (TP + δ FN + (1 - δ) FP + s)

        delta     δ in (0, 1): weight of the misses
        exponent  k > 0: above 1 concentrates on badly segmented classes, below 1 on nearly right ones; 1 is Tversky

    The literature calls three different things gamma: see `from_gamma`.
    Source: Abraham and Khan, ISBI 2019, k = 1/γ with γ = 4/3; Yeung et al., arXiv 2102.04525v2, eq. (12).
    Differs: v1 of that paper, eq. (14), prints k = γ; the authors' code has k = 0.75, which is followed here.
    """

    delta: float = within("(0, 1)", default=0.7)
    exponent: float = within("(0, inf)", default=0.75)
    wants: ClassVar[tuple[SumName, ...]] = REGION
    clips_regions: ClassVar[bool] = True

    @classmethod
    def from_gamma(cls, gamma: float, convention: Literal["v1", "v2", "unified"], **arguments: Any) -> Self:
        """The loss from a gamma as a source means it: "v1" k = γ, "v2" k = 1/γ, "unified" k = 1 - γ."""
        check_option("from_gamma: convention", ("v1", "v2", "unified"), convention)
        g = check_number("from_gamma: gamma", float, "[0, 1)" if convention == "unified" else "(0, inf)", gamma)
        return cls(exponent={"v1": g, "v2": 1 / g if g else 0.0, "unified": 1 - g}[convention], **arguments)

    def equation(self, s: ClassSums) -> Mean:
        return class_mean(s, power(tversky_loss(s, self.delta), self.exponent))


@loss
class CosineTverskyLoss(SegmentationLoss):
    """Cosine Tversky: a power of the cosine of the Tversky index.

        L = mean_c cos^γ(π/2 TI_c),     TI = (TP + s) / (TP + δ FN + (1 - δ) FP + s)

        delta  δ in (0, 1): weight of the misses
        gamma  γ > 0

    Source: Yeung et al., arXiv 2102.04525v1, eq. (15).
    Differs: the code of v1 computes 1 - cos^γ(π TI), which for γ = 1 grows with the overlap; it is not followed.
    """

    delta: float = within("(0, 1)", default=0.7)
    gamma: float = within("(0, inf)", default=1.0)
    wants: ClassVar[tuple[SumName, ...]] = REGION

    def equation(self, s: ClassSums) -> Mean:
        cosine = sine(tversky_loss(s, self.delta))  # cos(π/2 TI) = sin(π/2 (1 - TI))
        return class_mean(s, power(cosine, self.gamma))


@loss
class SymmetricFocalTverskyLoss(SegmentationLoss):
    """Symmetric focal Tversky: the region part of the symmetric Unified Focal loss.

        L = mean_c (1 - TI_c)^(1-γ),     TI = (TP + s) / (TP + δ FN + (1 - δ) FP + s)

        delta  δ in (0, 1): weight of the misses
        gamma  γ in [0, 1): enhancement of nearly right classes; 0 is Tversky

    Source: Yeung et al., Comput. Med. Imaging Graph. 95 (2022) 102026, the authors' code.
    """

    delta: float = within("(0, 1)", default=0.6)
    gamma: float = within("[0, 1)", default=0.5)
    smooth: float = within("(0, inf)", default=1e-7)
    wants: ClassVar[tuple[SumName, ...]] = REGION
    clips_regions: ClassVar[bool] = True

    def equation(self, s: ClassSums) -> Mean:
        return class_mean(s, power(tversky_loss(s, self.delta), 1 - self.gamma))


@loss
class AsymmetricFocalTverskyLoss(RareClassesLoss):
    """Asymmetric focal Tversky: enhances the rare classes only.

        L = mean_c { 1 - TI_c if c is common;  (1 - TI_c)^(1-γ) if c is rare },     TI as for Tversky, δ on FN

        delta  δ in (0, 1): weight of the misses
        gamma  γ in [0, 1): enhancement of the rare classes; 0 is Tversky

    Source: Yeung et al., arXiv 2102.04525v2, eq. (18) and (19).
    Differs: eq. (18) prints δ on the false positives; text and every version of the code mean the false negatives.
    """

    delta: float = within("(0, 1)", default=0.6)
    gamma: float = within("[0, 1)", default=0.5)
    smooth: float = within("(0, inf)", default=1e-7)
    wants: ClassVar[tuple[SumName, ...]] = REGION
    clips_regions: ClassVar[bool] = True

    def equation(self, s: ClassSums) -> Mean:
        exponent = self.by_rarity(s.index, rare=1 - self.gamma, common=1.0)
        return class_mean(s, power(tversky_loss(s, self.delta), exponent))
