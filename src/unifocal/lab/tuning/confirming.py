"""The comparison that would confirm what tuning found: on other folds, from other seeds."""

from collections.abc import Sequence
from pathlib import Path

from unifocal.lab.choices import LossChoice
from unifocal.lab.report.summary import command_of
from unifocal.lab.settings import Settings

SEEDS = 3
CONFIRM = "to confirm it on other folds, from other seeds"
FRESH = "These folds hold the same cases, on which the loss was chosen; cases that are new altogether prove more."


def confirming(settings: Settings, losses: Sequence[LossChoice], root: Path, out: Path, seed: int) -> str:
    """Its command; `settings` are those of the tuning in `out`, `seed` the first that has trained nothing there."""
    changes = {
        "losses": tuple({loss.plain().label: loss for loss in losses}.values()),
        "seeds": tuple(range(seed, seed + SEEDS)),
        "split_seed": settings.split_seed + 1,
        "division": "dealt" if settings.division == "whole" else settings.division,  # the whole has no test
    }
    return command_of(settings.model_copy(update=changes), [root], out.with_name(f"{out.name}-confirmed"))
