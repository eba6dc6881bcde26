"""What became of a comparison: the end of every run, and where its files lie."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from unifocal.lab.data.cases import Dataset
from unifocal.lab.data.duplicates import Pair
from unifocal.lab.settings import Run, Settings


@dataclass(frozen=True)
class Outcome:
    """How one run ended."""

    run: Run
    folder: Path
    failure: str | None  # the reason; None: finished


@dataclass(frozen=True)
class Comparison:
    """What has become of it; the files lie in `out`."""

    dataset: Dataset
    settings: Settings
    out: Path
    outcomes: list[Outcome]
    pairs: list[Pair]
    table: pd.DataFrame

    @property
    def failures(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.failure is not None]

    @property
    def results_file(self) -> Path:
        return self.out / "results.csv"

    @property
    def summary_file(self) -> Path:
        return self.out / "summary.md"

    @property
    def picture_file(self) -> Path:
        return self.out / "contours.png"
