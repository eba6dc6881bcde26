"""The loss whose focus depends on the lesion itself: on its size and on the surface that bounds it."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch

from ..sums import MaskExponent, SumName, mask_exponent
from ..terms import ClassSums, Mean, voxel_mean
from .arguments import within
from .base import ENTROPY, ActivationName, SegmentationLoss, loss
from .values import Inputs


@loss
class AdaptiveFocalLoss(SegmentationLoss):
    """Adaptive Focal, A-FL: a focal loss whose weights and exponent come from the size and the surface of the lesion.

        L = mean_{channels c, voxels} w_c (1 - P_c)^γ_c (-log P_c),     P_c = p_c inside class c, 1 - p_c outside
        γ_c = size v_c + smoothness S_c + gamma_0,     v_c = Σ m_c / V,     S_c = mean_voxels |∇ m_c|

    m_c is the mask of class c in the labels (of all foreground for the background channel 0) and V the number of
    voxels of the image; no gradient flows through v and S. Without foreground v = S = 0.

        size        >= 0, weight of the volume share v in [0, 1]
        smoothness  >= 0, weight of S in [0, sqrt(D)], surface per image volume in D dimensions
        gamma_0     >= 0, constant part of the exponent
        order       the weights (background, foreground): "paper" (v, 1-v), the rarer the heavier; "original" (1-v, v),
                    as the authors' training loop applies them; "scalar" 1-v for both
        spacing     size of a voxel along each spatial axis, for ∇; None: 1

    The channels must be mutually exclusive classes with class 0 the background. The default activation is "sigmoid",
    every channel against the rest, as in the original. One channel stands for background and foreground: its weight
    is the mean of theirs. ∇ is `torch.gradient`, central inside and one-sided at the border; an ignored voxel counts
    as outside of the mask, and an axis of length 1 adds nothing. `class_weights` has one weight for each channel.
    With more than 3 spatial axes engine="auto" has v and S from "aten" or "reference", whoever computes the rest.
    Source: Islam et al., arXiv 2407.09828, and the authors' training loop.
    Differs: the original is 3D, batch size 1, two channels, and NaN on an empty mask; here each image has its v and S.
    """

    size: float = within("[0, inf)", default=1.0)
    smoothness: float = within("[0, inf)", default=1.0)
    gamma_0: float = within("[0, inf)", default=0.0)
    order: Literal["paper", "original", "scalar"] = "paper"
    spacing: Sequence[float] | None = within("(0, inf)", default=None)
    activation: ActivationName = "sigmoid"
    wants: ClassVar[tuple[SumName, ...]] = ENTROPY
    against_rest: ClassVar[bool] = True

    def focus(self, x: Inputs, index: tuple[int, ...]) -> MaskExponent:
        _, channels, *spatial = x.logits.shape
        if self.spacing is not None and len(self.spacing) != len(spatial):
            raise ValueError(
                f"AdaptiveFocalLoss: spacing must have one length for each of {len(spatial)} spatial axes; "
                f"got {len(self.spacing)}: {self.spacing}."
            )
        spacing = self.spacing or (1.0,) * len(spatial)
        labels = x.labels, x.voxel_weights, channels, x.ignore_index
        return mask_exponent(*labels, spacing, size=self.size, smoothness=self.smoothness, constant=self.gamma_0)

    def equation(self, s: ClassSums) -> Mean:
        share = s.labelled / s.voxels  # of each channel
        w = share if self.order == "original" else s.number(1.0) - share
        if share.shape[1] == 1:
            w = torch.full_like(w, 0.5) if self.order != "scalar" else w  # (v + (1 - v)) / 2
        elif self.order == "scalar":
            w = torch.cat((share[:, :1], w[:, 1:]), 1)
        return voxel_mean(s, w)
