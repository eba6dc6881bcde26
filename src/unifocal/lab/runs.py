"""One training, and its identity: the hash of everything that its numbers depend on.

Number of threads, engine and whatever else the section Machine holds are left out, but several devices to a run: they
change rounding and time, not the experiment, and a run begun on one machine may be finished on another.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from unifocal.lab.choices import LossChoice, NetworkChoice
from unifocal.lab.settings import Settings

FORMAT = 2  # of the run folders; raise it when old ones can no longer be read
TRAINING = ("Preparation", "Patches", "Network", "Training")


@dataclass(frozen=True)
class Run:
    """A loss on a network, on a fold, from a seed.

    Attributes:
        data: fingerprint of images, masks and classes.
        split: fingerprint of this fold's train, validation and test cases.
        folder: name of the folder that it was found in, where that is another than its own.
    """

    loss: LossChoice
    network: NetworkChoice
    fold: int
    seed: int
    settings: Settings
    data: str
    split: str
    folder: str | None = field(default=None, compare=False)

    def identity(self) -> dict[str, Any]:
        """Everything the numbers of this run depend on; the same whether or not a default is written out."""
        return self._identity(self._plain)

    @cached_property
    def name(self) -> str:
        """Name of the run's folder: readable, and different whenever the identity is."""
        return self.folder or self._name(self._plain)

    @property
    def earlier_name(self) -> str:
        """What earlier versions called the folder, which told apart losses that are written differently."""
        return self._name(self.loss)

    @cached_property
    def _plain(self) -> LossChoice:
        return self.loss.plain()

    def _identity(self, loss: LossChoice) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "loss": loss.model_dump(mode="json"),
            "network": self.network.model_dump(mode="json"),
            "fold": self.fold,
            "seed": self.seed,
            **{key: value for section in TRAINING for key, value in self.settings.section(section).items()},
            "colour": self.settings.colour,
            "data": self.data,
            "split": self.split,
            # Shared by several devices a batch is averaged in parts, of which the last may be uneven.
            **({"devices": self.settings.devices} if self.settings.devices > 1 else {}),
        }

    def _name(self, of: LossChoice) -> str:
        network, loss = (re.sub(r"[^A-Za-z0-9.=-]+", "_", c.label)[:50] for c in (self.network, of))
        return f"{network}-{loss}-fold{self.fold}-seed{self.seed}-{fingerprint(self._identity(of))[:8]}"

    @property
    def title(self) -> str:
        """How people are told of it, with no more than what may vary."""
        network = f"{self.network.label}, " if len(self.settings.networks) > 1 else ""
        seed = f", seed {self.seed}" if len(self.settings.seeds) > 1 else ""
        return f"{network}{self.loss.label}, fold {self.fold}{seed}"


def fingerprint(value: object) -> str:
    """SHA-256 of the canonical JSON of `value`."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
