"""One training, and its identity: the hash of everything that its numbers depend on.

Number of threads, engine and whatever else the section Machine holds are left out, but several devices to a run: they
change rounding and time, not the experiment, and a run begun on one machine may be finished on another.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from unifocal.lab.choices import LossChoice, NetworkChoice
from unifocal.lab.settings import Settings

FORMAT = 2  # of the run folders; raise it when old ones can no longer be read
TRAINING = ("Preparation", "Patches", "Network", "Training")


@dataclass(frozen=True)
class Run:
    """A loss on a network, on a fold, from a seed."""

    loss: LossChoice
    network: NetworkChoice
    fold: int
    seed: int
    settings: Settings
    data: str  # fingerprint of images, masks and classes
    split: str  # fingerprint of this fold's train, validation and test cases

    def identity(self) -> dict[str, Any]:
        """Everything the numbers of this run depend on."""
        return {
            "format": FORMAT,
            "loss": self.loss.model_dump(mode="json"),
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

    @property
    def name(self) -> str:
        """Name of the run's folder: readable, and different whenever the identity is."""
        network, loss = (re.sub(r"[^A-Za-z0-9.=-]+", "_", c.label)[:50] for c in (self.network, self.loss))
        return f"{network}-{loss}-fold{self.fold}-seed{self.seed}-{fingerprint(self.identity())[:8]}"

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
