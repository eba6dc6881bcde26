"""A network as the settings of a comparison ask for it: its name, its arguments, and the width that all share."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unifocal.lab.choices import NetworkChoice
from unifocal.lab.errors import LabError
from unifocal.lab.networks.building import build
from unifocal.lab.networks.catalogue import NETWORKS, check_network, check_width, divisor, smallest

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Chosen:
    """`width` is None where the network has none, or is to have its own."""

    name: str
    dimension: int
    width: int | None
    arguments: dict[str, Any]

    @classmethod
    def of(cls, choice: NetworkChoice, dimension: int, width: int | None) -> "Chosen":
        """Its own `width=` goes before the shared one, which means nothing to a network of fixed width."""
        arguments = dict(choice.arguments)
        shared = width if choice.name in NETWORKS and NETWORKS[choice.name].width else None
        return cls(choice.name, dimension, arguments.pop("width", shared), arguments)

    def check(self, deep_supervision: bool) -> None:
        """Raise LabError if there is no such network, or if it does not take this."""
        check_network(self.name, self.dimension, self.arguments, deep_supervision)
        check_width(self.name, self.width)

    def build(self, channels: int, classes: int, seed: int, deep_supervision: bool) -> "nn.Module":
        return build(
            self.name,
            dimension=self.dimension,
            channels=channels,
            classes=classes,
            seed=seed,
            width=self.width,
            deep_supervision=deep_supervision,
            **self.arguments,
        )

    @property
    def divisor(self) -> tuple[int, ...]:
        return divisor(self.name, self.dimension, **self.arguments)

    def check_size(self, size: Sequence[int], what: str) -> None:
        """Raise LabError if images of this size, padded to the divisor, are too small to train on."""
        padded = [math.ceil(side / step) * step for side, step in zip(size, self.divisor, strict=True)]
        needed = smallest(self.name, self.dimension, **self.arguments)
        if math.prod(padded) < math.prod(needed):
            raise LabError(
                f"network {self.name!r} needs images of {' x '.join(map(str, needed))} or more, along whichever axis; "
                f"{what} is {' x '.join(map(str, size))}. Make it larger."
            )
