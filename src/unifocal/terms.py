"""The vocabulary of the equations: pure functions of a few sums per image and class."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .sums import SumName, constant

TAU = 1e-12  # below it a fractional power is replaced by its secant
_NOTHING = 1e-30  # stands for the weight of no voxel: whatever is divided by it is 0


@dataclass(frozen=True)
class ClassSums:
    """The sums that an equation is written on. N images, C classes; a channel that is read as "this class against
    the rest" counts as two classes, the rest and the class.

    Sums that a loss did not ask for are absent, and reading one is an error.
    """

    sums: dict[SumName, Tensor]
    labelled: Tensor  # (N, C): Σ w g, the voxels labelled with each class
    voxels: Tensor  # (N, 1): Σ w, the valid voxels
    index: tuple[int, ...]  # C label indices: 0, 1, ..., C - 1; or 0, 1, 0, 1, ... for channels against the rest
    class_weights: tuple[float, ...]  # C weights of the classes in every mean
    share: Tensor  # (C,), or (N, C) where it depends on the image: of each class in the mean over classes
    smooth: float  # added to numerator and denominator of every overlap index

    @property
    def tp(self) -> Tensor:
        """Σ w g p, (N, C), or (1, C) where the batch is pooled."""
        return self.sums["tp"]

    @property
    def fp(self) -> Tensor:
        """Σ w (1-g) p: false alarms."""
        return self.sums["fp"]

    @property
    def fn(self) -> Tensor:
        """Σ w g (1-p): misses."""
        return self.sums["fn"]

    @property
    def ce(self) -> Tensor:
        """Σ w g (1-p)^gamma (-log p), (N, C): focal cross-entropy, gamma as the loss's `focus` says."""
        return self.sums["ce"]

    def tensor(self, per_class: Sequence[float]) -> Tensor:
        """One number for each class as a tensor, (C,)."""
        return constant(per_class, self.labelled.dtype, self.labelled.device)


def voxel_mean(s: ClassSums, per_class: Tensor, factors: Sequence[float] | None = None) -> Tensor:
    """Mean over the valid voxels of a sum that is summed over the classes, (N, C) -> (N,), each times its factor.

    With class weights it is the weighted mean, a voxel weighing as much as its class; with no valid voxel it is 0.
    """
    weighted = s.class_weights if factors is None else [w * f for w, f in zip(s.class_weights, factors, strict=True)]
    return (per_class @ s.tensor(weighted)) / (s.labelled @ s.tensor(s.class_weights)).clamp_min(_NOTHING)


def class_mean(s: ClassSums, per_class: Tensor) -> Tensor:
    """Mean over the counted classes, (N, C) -> (N,), weighted by the class weights; 0 if no class counts."""
    return per_class @ s.share if s.share.ndim == 1 else (per_class * s.share).sum(-1)


def overlap_loss(s: ClassSums, errors: Tensor) -> Tensor:
    """1 - (TP + s) / (TP + errors + s), (N, C), written so that nothing cancels close to 0."""
    return errors / (s.tp + errors + s.smooth)


def tversky_loss(s: ClassSums, delta: float) -> Tensor:
    """1 - TI, (N, C), with TI = (TP + s) / (TP + delta FN + (1 - delta) FP + s)."""
    return overlap_loss(s, torch.lerp(s.fp, s.fn, delta))


def power(x: Tensor, exponent: float | Tensor) -> Tensor:
    """x^exponent for x >= 0, with a finite slope at 0: below TAU the secant through 0 takes over."""
    return x * x.clamp_min(TAU) ** (exponent - 1)


def blend(lam: float, entropy: Tensor, region: Tensor) -> Tensor:
    """lam entropy + (1 - lam) region."""
    return torch.lerp(region, entropy, lam)
