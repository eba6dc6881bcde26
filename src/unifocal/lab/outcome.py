"""What became of a comparison: the end of every run, and its tables."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from unifocal.lab.experiment import Experiment
from unifocal.lab.runs import Run
from unifocal.lab.settings import Settings


@dataclass(frozen=True)
class Outcome:
    """How one run ended."""

    run: Run
    experiment: Experiment
    failure: str | None  # the reason; None: finished, or not yet begun

    @property
    def folder(self) -> Path:
        return self.experiment.run_folder(self.run.name)


@dataclass(frozen=True)
class Comparison:
    """What has become of it; the files lie in `out`.

    Attributes:
        cases: metrics of the test cases, one row for each data set, network, loss, fold, seed, case, class and metric.
        lesions: every lesion of the test cases, and whether it was found.
        validation: as `cases`, of those that chose the epoch.
    """

    experiments: list[Experiment]
    settings: Settings
    out: Path
    outcomes: list[Outcome]
    cases: pd.DataFrame
    lesions: pd.DataFrame
    validation: pd.DataFrame

    @property
    def is_tested(self) -> bool:
        """Is there a test in any split?"""
        return any(split.test for experiment in self.experiments for split in experiment.splits)

    @property
    def elsewhere(self) -> int:
        """Number of runs that belong to other shards."""
        settings = self.settings
        each = len(settings.seeds) * len(settings.networks) * len(settings.losses)
        return each * sum(len(experiment.splits) for experiment in self.experiments) - len(self.outcomes)

    @property
    def failures(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.failure is not None]
