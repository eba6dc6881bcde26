"""The vocabulary of the equations: means of the sums per image and class, written down here, computed in slopes.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import NamedTuple

from torch import Tensor

from .sums import check_factors, constant

Factors = tuple[float, ...] | Tensor  # one for each class: C numbers, or (P, N, K) or less if they depend on the image


@dataclass(eq=False, slots=True)
class ClassSums:
    """The sums that an equation is written on. N images, K channels, C = P K classes: a channel that is read as "this
    class against the rest" counts as two, P = 2, and first come the rests of all channels, then their classes.

    Sums have a value for every class, (P, N, K), or (P, 1, K) where the batch is pooled; those that a loss did not
    ask for are empty.
    """

    ce: Tensor  # (P, N, K): Σ w g (1-p)^gamma (-log p), focal cross-entropy, gamma as the loss's `focus` says
    tp: Tensor  # (P, N, K): Σ w g p
    fp: Tensor  # (1, N, K): Σ w (1-g) p, false alarms of the first K classes, which are misses of the next K
    fn: Tensor  # (1, N, K): Σ w g (1-p), misses of the first K classes, which are false alarms of the next K
    labelled: Tensor  # (N, K): Σ w g, the voxels labelled with the class of each channel
    voxels: Tensor  # (N, 1): Σ w, the valid voxels; above 0 even where there is none, as it is divided by
    index: tuple[int, ...]  # C label indices: 0, 1, ..., C - 1; or K times 0, K times 1 for channels against the rest
    class_weights: tuple[float, ...]  # C weights of the classes in every mean
    share: Factors  # of each class in the mean over classes
    smooth: float  # added to numerator and denominator of every overlap index

    @property
    def split(self) -> bool:
        """Is a channel two classes?"""
        return len(self.index) > self.labelled.shape[1]

    def tensor(self, per_class: Factors) -> Tensor:
        """One number for each class, as a tensor that broadcasts to (P, N, K); a constant, whatever it is made of."""
        n, k = self.labelled.shape
        if isinstance(per_class, Tensor):
            check_factors(per_class, (2 if self.split else 1, n, k), self.labelled.device)
            return per_class.detach().to(self.labelled.dtype).resolve_neg()
        if len(per_class) != k and len(per_class) != len(self.index):
            raise ValueError(f"there must be one factor for each of {len(self.index)} classes; got {per_class}.")
        return constant(per_class, self.labelled.dtype, self.labelled.device, (len(per_class) // k, 1, k))

    def number(self, x: float) -> Tensor:
        """The same number for all, as a tensor: PyTorch would make one of it each time, as long a step as a product."""
        return constant((x,), self.labelled.dtype, self.labelled.device)


class Region(NamedTuple):
    """(e / (e + credit (TP + smooth)))^exponent of each class, with e = delta FN + (1 - delta) FP."""

    delta: float
    credit: float
    smooth: float
    sine: bool = False  # take the sine of π/2 times the quotient before raising it
    exponent: float | tuple[float, ...] = 1.0  # one, or one for each class


@dataclass(eq=False, slots=True)
class Mean:
    """The value of each image: constant + Σ_c factor_c CE_c / Σ w + Σ_c share_c region_c, for any number of regions."""

    constant: float = 0.0
    entropy: Factors | None = None
    regions: tuple[tuple[Factors, Region], ...] = ()

    def __add__(self, other: "Mean | float") -> "Mean":
        if not isinstance(other, Mean):
            return Mean(self.constant + _number(other), self.entropy, self.regions)
        entropy = _added(self.entropy, other.entropy)
        return Mean(self.constant + other.constant, entropy, self.regions + other.regions)

    def __mul__(self, factor: float) -> "Mean":
        factor = _number(factor)
        return Mean(
            self.constant * factor,
            None if self.entropy is None else scaled(self.entropy, factor),
            tuple([(scaled(share, factor), region) for share, region in self.regions]),
        )

    def __sub__(self, other: "Mean | float") -> "Mean":
        return self + other * -1.0

    def __rsub__(self, other: float) -> "Mean":
        return self * -1.0 + other

    def __neg__(self) -> "Mean":
        return self * -1.0

    def __truediv__(self, divisor: float) -> "Mean":
        return self * (1 / _number(divisor))

    __radd__, __rmul__ = __add__, __mul__


def _number(x: object) -> float:
    """What the words of an equation take: nobody would know the gradient of a tensor."""
    if isinstance(x, (int, float)) or isinstance(x, Real):  # in this order: a compiler knows the first
        return float(x)
    raise TypeError(
        "a Mean is added to a Mean or a number and multiplied by a number, and the parameters of a region are numbers; "
        f"got {type(x).__name__}. Of a tensor take float(x), through which no gradient flows. A weight that is learnt "
        "multiplies the losses themselves, or an equation that PyTorch computes from the sums, such as s.tp."
    )


def _added(one: Factors | None, other: Factors | None) -> Factors | None:
    if one is None or other is None:
        return other if one is None else one
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return one + other  # type: ignore[operator]
    return tuple([a + b for a, b in zip(one, other, strict=True)])


def scaled(factors: Factors, by: float) -> Factors:
    """Each factor times a number."""
    if by == 1.0:
        return factors
    if isinstance(factors, Tensor):
        factors = factors if factors.is_floating_point() else factors.float()
        return factors * constant((by,), factors.dtype, factors.device)  # a number would be made a tensor each time
    return tuple([f * by for f in factors])


def voxel_mean(s: ClassSums, factors: Sequence[float] | Tensor | None = None) -> Mean:
    """Mean over the valid voxels of the cross-entropy of their class, times the factor of that class.

    With class weights it is the weighted mean, a voxel weighing as much as its class; with no valid voxel it is 0.
    Factors in a tensor are constants: no gradient flows to what they are made of.
    """
    weights = s.class_weights
    if factors is None:
        return Mean(entropy=weights)
    if not isinstance(factors, Tensor) and len(factors) != len(weights):
        raise ValueError(f"there must be one factor for each of {len(weights)} classes; got {len(factors)}: {factors}.")
    if isinstance(factors, Tensor):
        return Mean(entropy=factors if {*weights} == {1.0} else factors * s.tensor(weights))
    return Mean(entropy=tuple([w * f for w, f in zip(weights, factors, strict=True)]))


def class_mean(s: ClassSums, region: Region) -> Mean:
    """Mean over the counted classes, weighted by the class weights; 0 if no class counts."""
    return Mean(regions=((s.share, region),))


def overlap_loss(s: ClassSums, fn: float, fp: float) -> Region:
    """1 - (TP + s) / (TP + fn FN + fp FP + s) of each class."""
    fn, fp = _number(fn), _number(fp)
    credit = 1 / (fn + fp)
    return Region(fn * credit, credit, s.smooth)


def tversky_loss(s: ClassSums, delta: float) -> Region:
    """1 - TI of each class, with TI = (TP + s) / (TP + delta FN + (1 - delta) FP + s)."""
    return Region(_number(delta), 1.0, s.smooth)


def sine(x: Region) -> Region:
    """sin(π/2 x)."""
    return Region(x.delta, x.credit, x.smooth, True, x.exponent)


def power(x: Region, exponent: float | Sequence[float]) -> Region:
    """x^exponent, with one exponent or one for each class, and a finite slope at 0: see slopes.py."""
    given = tuple([_number(e) for e in exponent]) if isinstance(exponent, Sequence) else _number(exponent)
    return Region(x.delta, x.credit, x.smooth, x.sine, given)


def blend(lam: float, entropy: Mean, region: Mean) -> Mean:
    """lam entropy + (1 - lam) region."""
    return lam * entropy + (1 - lam) * region
