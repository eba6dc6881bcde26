"""The vocabulary of the equations: pure functions of a few sums per image and class."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .sums import SumName

TAU = 1e-12  # below it a fractional power is replaced by its secant


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
    class_weights: Tensor  # (C,): weight of each class in every mean
    counted: Tensor  # (N, C) or (1, C): weight of each class in the mean over classes

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

    def tensor(self, per_class: list[float]) -> Tensor:
        """One number for each class as a tensor, (C,)."""
        return self.labelled.new_tensor(per_class)


def voxel_mean(s: ClassSums, per_class: Tensor) -> Tensor:
    """Mean over the valid voxels of a sum that is summed over the classes, (N, C) -> (N,).

    With class weights it is the weighted mean, a voxel weighing as much as its class; with no valid voxel it is 0.
    """
    total = (s.class_weights * s.labelled).sum(-1)
    return (s.class_weights * per_class).sum(-1) / torch.where(total > 0, total, 1)


def class_mean(s: ClassSums, per_class: Tensor) -> Tensor:
    """Mean over the counted classes, (N, C) -> (N,), weighted by the class weights; 0 if no class counts."""
    total = s.counted.sum(-1)
    return (s.counted * per_class).sum(-1) / torch.where(total > 0, total, 1)


def overlap_loss(s: ClassSums, miss: float, alarm: float, smooth: float) -> Tensor:
    """1 - (TP + s) / (TP + miss FN + alarm FP + s), (N, C), written so that nothing cancels close to 0."""
    errors = miss * s.fn + alarm * s.fp
    return errors / (s.tp + errors + smooth)


def tversky_loss(s: ClassSums, delta: float, smooth: float) -> Tensor:
    """1 - TI, (N, C), with TI = (TP + s) / (TP + delta FN + (1 - delta) FP + s)."""
    return overlap_loss(s, delta, 1 - delta, smooth)


def power(x: Tensor, exponent: float | Tensor) -> Tensor:
    """x^exponent for x >= 0, with a finite slope at 0: below TAU the secant through 0 takes over."""
    return torch.where(x < TAU, x * TAU ** (exponent - 1), x.clamp_min(TAU) ** exponent)
