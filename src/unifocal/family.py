"""Which loss becomes which: the table that the tests check and that `unifocal plot family` draws.

Parameters that are not named in `when` have values of no distinction, so that a row says what holds for all of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .registry import build

EXACT = 1e-13  # the same sums in another order of multiplication
SMOOTHING = 1e-6  # 1e-6 and 1e-7 voxels of smoothing, in a power, against classes of about one voxel
DIFFERENT = 1e-3  # further apart than anything but another formula explains

D, G, L, K, B = 0.62, 0.35, 0.3, 1.3, 1.9  # delta, gamma, lam, exponent and beta, none of them special


class Gap(NamedTuple):
    """How far the sides of an identity are apart on some images, at most."""

    value: float
    gradient: float


@dataclass(frozen=True)
class Identity:
    """`one` is `factor` times `other` plus `constant`; or it is not, though it might seem so, or a paper says so.

    Attributes:
        one, other: names of losses, as `unifocal.build` knows them.
        when: what makes one the other, to be read: `lam=1`, `exponent=1-gamma`; empty where they are synonyms.
        given, becomes: the parameters of one and of other.
        within: how far apart they may be in float64, value or gradient: a few roundings, or what `smooth` explains.
        holds: is it so?
        why: what is wrong where it is not.
        claim: where it is said all the same; empty if nobody does.
        follows: do other rows say it together? It is checked like any other, and not drawn.
    """

    one: str
    when: str
    other: str
    given: dict[str, Any] = field(default_factory=dict)
    becomes: dict[str, Any] = field(default_factory=dict)
    factor: float = 1.0
    constant: float = 0.0
    within: float = EXACT
    holds: bool = True
    why: str = ""
    claim: str = ""
    follows: bool = False

    def __str__(self) -> str:
        verb = "is" if self.holds else "is not"
        return f"{self.one} ({self.when}) {verb} {self.other}" if self.when else f"{self.one} {verb} {self.other}"

    def gap(self, logits: Tensor, labels: Tensor) -> Gap:
        """How far the two sides are apart on these images."""
        z = logits.detach().requires_grad_()
        left = build(self.one, **self.given)(z, labels)
        right = self.factor * build(self.other, **self.becomes)(z, labels) + self.constant
        slopes = [torch.autograd.grad(side, z)[0] for side in (left, right)]
        return Gap(float((left - right).detach().abs()), float((slopes[0] - slopes[1]).abs().max()))

    def stands(self, logits: Tensor, labels: Tensor) -> bool:
        """Is it on these images, in float64, as the row says?"""
        value, gradient = self.gap(logits, labels)
        return max(value, gradient) <= self.within if self.holds else value > DIFFERENT


def identities() -> tuple[Identity, ...]:
    """What equals what in the family, and what does not although it might seem so or is said to."""
    return (*_unified(), *_PARTS, *_OTHERS, *_NOT_SO)


def _unified() -> Iterator[Identity]:
    """What both unified losses become. Those of the asymmetric one at gamma=0 pass through the symmetric one."""
    for name, part in (("unified-focal", "asymmetric-focal"), ("symmetric-unified-focal", "symmetric-focal")):
        own = {"delta": D, "gamma": G}
        plain = {"delta": 0.5, "gamma": 0}
        yield Identity(name, "lam=1", part, {"lam": 1, **own}, own)
        yield Identity(name, "lam=0", f"{part}-tversky", {"lam": 0, **own}, own)
        yield Identity(
            name, "lam=1, delta=1/2, gamma=0", "cross-entropy", {"lam": 1, **plain}, factor=0.5, follows=True
        )
        yield Identity(
            name, "lam=0, gamma=0", "tversky", {"lam": 0, "delta": D, "gamma": 0}, {"delta": D}, within=SMOOTHING,
            follows=True,
        )  # fmt: skip
        yield Identity(name, "lam=0, delta=1/2, gamma=0", "dice", {"lam": 0, **plain}, within=SMOOTHING, follows=True)
        yield Identity(
            name, "delta=1/2, gamma=0", "combo", {"lam": L, **plain}, {"alpha": L, "beta": 0.5}, constant=1 - L,
            within=SMOOTHING, follows=name == "unified-focal",
        )  # fmt: skip
        yield Identity(
            name, "lam=1/2, delta=1/2, gamma=0", "combo", {"lam": 0.5, **plain}, {"alpha": 0.5, "beta": 0.5},
            constant=0.5, within=SMOOTHING, follows=True,
        )  # fmt: skip
        yield Identity(
            name, "lam=2/3, delta=1/2, gamma=0", "dice-ce", {"lam": 2 / 3, **plain}, factor=1 / 3, within=SMOOTHING,
            follows=True,
        )  # fmt: skip
        yield Identity(
            name, "lam=2/3, delta=1/2, gamma=0", "combo", {"lam": 2 / 3, **plain}, {"alpha": None, "beta": None},
            factor=1 / 3, constant=1 / 3, within=SMOOTHING, follows=True,
        )  # fmt: skip
    yield Identity(
        "unified-focal", "gamma=0", "symmetric-unified-focal", {"lam": L, "delta": D, "gamma": 0},
        {"lam": L, "delta": D, "gamma": 0},
    )  # fmt: skip
    yield Identity(
        "unified-focal", "gamma=0.2", "generalised-focal", {"lam": L, "delta": D, "gamma": 0.2}, {"lam": L, "delta": D}
    )
    yield Identity(
        "symmetric-unified-focal", "lam=1, delta=1/2", "focal", {"lam": 1, "delta": 0.5, "gamma": G}, {"gamma": G},
        factor=0.5, follows=True,
    )  # fmt: skip
    yield Identity(
        "symmetric-unified-focal", "lam=1, alpha=delta", "focal", {"lam": 1, "delta": D, "gamma": G},
        {"gamma": G, "alpha": D}, follows=True,
    )  # fmt: skip
    yield Identity(
        "symmetric-unified-focal", "lam=0, exponent=1-gamma", "focal-tversky", {"lam": 0, "delta": D, "gamma": G},
        {"delta": D, "exponent": 1 - G}, within=SMOOTHING, follows=True,
    )  # fmt: skip


_PARTS = (
    Identity(
        "asymmetric-focal", "gamma=0", "symmetric-focal", {"delta": D, "gamma": 0}, {"delta": D, "gamma": 0}
    ),
    Identity(
        "asymmetric-focal-tversky", "gamma=0", "symmetric-focal-tversky", {"delta": D, "gamma": 0},
        {"delta": D, "gamma": 0},
    ),
    Identity("symmetric-focal", "alpha=delta", "focal", {"delta": D, "gamma": K}, {"alpha": D, "gamma": K}),
    Identity(
        "symmetric-focal", "delta=1/2, gamma=0", "cross-entropy", {"delta": 0.5, "gamma": 0}, factor=0.5, follows=True
    ),
    Identity(
        "symmetric-focal-tversky", "exponent=1-gamma", "focal-tversky", {"delta": D, "gamma": G},
        {"delta": D, "exponent": 1 - G}, within=SMOOTHING,
    ),
    Identity("focal", "gamma=0", "cross-entropy", {"gamma": 0}),
    Identity("focal-tversky", "exponent=1", "tversky", {"delta": D, "exponent": 1}, {"delta": D}),
    Identity("tversky", "delta=1/2", "dice", {"delta": 0.5}),
    Identity(
        "tversky", "delta=beta²/(1+beta²)", "asymmetric-similarity", {"delta": B**2 / (1 + B**2)}, {"beta": B}
    ),
    Identity("asymmetric-similarity", "beta=1", "dice", {"beta": 1}),
)  # fmt: skip

_HYBRID = {"lam": L, "alpha": D, "gamma": 1.7, "delta": D, "exponent": K}
_OTHERS = (
    Identity("mixed-focal", "", "hybrid-focal", _HYBRID, _HYBRID),
    Identity("hybrid-focal", "lam=1", "focal", {**_HYBRID, "lam": 1}, {"alpha": D, "gamma": 1.7}),
    Identity("hybrid-focal", "lam=0", "focal-tversky", {**_HYBRID, "lam": 0}, {"delta": D, "exponent": K}),
    Identity(
        "hybrid-focal", "alpha=delta, exponent=1-gamma", "symmetric-unified-focal",
        {**_HYBRID, "gamma": G, "exponent": 1 - G}, {"lam": L, "delta": D, "gamma": G}, within=SMOOTHING,
    ),
    Identity("combo", "alpha=1, beta=None", "cross-entropy", {"alpha": 1, "beta": None}),
    Identity("combo", "alpha=0", "dice", {"alpha": 0}, constant=-1.0),
    Identity("combo", "alpha=None, beta=None", "dice-ce", {"alpha": None, "beta": None}, constant=-1.0),
    Identity(
        "dice-focal", "gamma=0", "dice-ce", {"dice_weight": 0.4, "focal_weight": 1.3, "gamma": 0},
        {"dice_weight": 0.4, "ce_weight": 1.3},
    ),
)  # fmt: skip

_NOT_SO = (
    Identity(
        "unified-focal", "lam=1", "asymmetric-focal-tversky", {"lam": 1, "delta": D, "gamma": G},
        {"delta": D, "gamma": G}, holds=False, claim="v2, figure 1",
        why="lam weighs the entropy part, as in eq. (20); the figure has it on the Tversky part, as the authors' code",
    ),
    Identity(
        "symmetric-focal", "gamma=0", "cross-entropy", {"delta": D, "gamma": 0}, holds=False, claim="v2, figure 1",
        why="the classes keep their weights 1-delta and delta; with delta=1/2 it is half of cross-entropy",
    ),
    Identity(
        "focal-tversky", "exponent=1/gamma, gamma→0", "tversky", {"delta": D, "exponent": 1 / 0.01}, {"delta": D},
        holds=False, claim="v2, figure 1",
        why="the exponent 1/gamma of eq. (12) grows without bound; it is Tversky at gamma=1",
    ),
    *(
        Identity(
            "symmetric-unified-focal", "any gamma", "hybrid-focal", {"lam": L, "delta": D, "gamma": gamma},
            {"lam": L, "alpha": D, "gamma": 2, "delta": D, "exponent": 0.75}, holds=False, claim="v2, figure 1",
            why="one gamma cannot be the focusing 2 of the one part and give the exponent 0.75 of the other",
            follows=gamma != 0.5,
        )
        for gamma in (0.0, 0.25, 0.5, 0.99)
    ),
    *(
        Identity(
            "symmetric-unified-focal", "any gamma", "dice-focal", {"lam": 2 / 3, "delta": 0.5, "gamma": gamma},
            {"gamma": 2}, factor=1 / 3, holds=False, claim="v2, discussion",
            why="one gamma cannot be 2 in the entropy part and 0 in the region part",
            follows=gamma != 0.5,
        )
        for gamma in (0.0, 0.5, 0.99)
    ),
    Identity(
        "tversky", "delta=1-delta", "tversky", {"delta": D}, {"delta": 1 - D}, holds=False, claim="v2, eq. (18)",
        why="delta weighs the misses; the equation prints it on the false alarms, against its text and the code",
    ),
    Identity(
        "symmetric-unified-focal", "gamma>0", "unified-focal", {"lam": L, "delta": D, "gamma": G},
        {"lam": L, "delta": D, "gamma": G}, holds=False,
        why="one focuses every class, the other plays down the common class and enhances the rare ones",
    ),
    Identity(
        "symmetric-unified-focal", "lam=1, gamma=0", "cross-entropy", {"lam": 1, "delta": D, "gamma": 0},
        holds=False, claim="v2, figure 1", why="the classes keep their weights 1-delta and delta", follows=True,
    ),
    Identity(
        "symmetric-unified-focal", "lam=1, gamma=0", "cross-entropy", {"lam": 1, "delta": D, "gamma": 0}, factor=0.5,
        holds=False, why="nor is it half of cross-entropy, unless delta=1/2",
    ),
)  # fmt: skip
