"""Which cases are shown, and what their files hold."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifocal.lab.data.cases import IGNORE, Case, Dataset
from unifocal.lab.data.files import is_volume
from unifocal.lab.data.images import read_image
from unifocal.lab.data.masks import read_mask
from unifocal.lab.data.volumes import read_volume
from unifocal.lab.experiment import Experiment, shares
from unifocal.lab.pictures import case_scores, choose_cases, note_of, scores_by_seed
from unifocal.lab.preparation import read_prediction
from unifocal.lab.report.reading import PlannedRun, Study

Mask = NDArray[np.uint8]


@dataclass(frozen=True)
class Shown:
    """A case with all that is drawn of it; arrays on the grid of its file.

    Attributes:
        why: best, median, worst, most disagreed.
        scores: DSC of each prediction; of losses without one none.
        seeds: of each prediction; empty where all are of one.
    """

    case: str
    why: str
    image: NDArray[np.float32]
    truth: Mask
    predictions: Mapping[str, Mask]
    scores: Mapping[str, float]
    spacing: tuple[float, ...] | None
    seeds: Mapping[str, int] = field(default_factory=dict)

    def note(self, loss: str) -> str:
        """What stands by a prediction."""
        return note_of(self.scores.get(loss, np.nan), self.seeds.get(loss))


def choose(study: Study, experiment: Experiment, network: str) -> list[tuple[str, str]]:
    """(why, case) of at most four cases: by their mean DSC over losses, and by how much the losses disagree."""
    scores = scores_of(study, experiment, network)
    present = {
        case.id for case, share in zip(experiment.dataset.cases, shares(experiment.dataset), strict=True) if share > 0
    }
    chosen = choose_cases(scores, present)
    whole = scores[scores.index.isin(present)].dropna()
    if len(whole) and whole.shape[1] > 1:
        spread = whole.max(axis=1) - whole.min(axis=1)
        most = str(spread.idxmax())
        if spread[most] > 0:
            chosen = [(f"{why}, most disagreed" if case == most else why, case) for why, case in chosen]
            if most not in {case for _, case in chosen}:
                chosen.append(("most disagreed", most))
    return chosen


def scores_of(study: Study, experiment: Experiment, network: str) -> pd.DataFrame:
    """DSC of every case by loss, averaged over classes and seeds; losses that have any."""
    mine = _rows(study, experiment, network)
    if mine.empty:
        return pd.DataFrame()
    scores = case_scores(mine)
    return scores.droplevel("network", axis=1)


def _rows(study: Study, experiment: Experiment, network: str) -> pd.DataFrame:
    rows = study.cases
    return rows[(rows["dataset"] == experiment.dataset.name) & (rows["network"] == network)]


def read(study: Study, experiment: Experiment, network: str, why: str, case_id: str, losses: list[str]) -> Shown:
    """Open the files of a case, of several seeds the first; raises LabError or OSError where they are gone."""
    dataset = experiment.dataset
    i, case = next((i, case) for i, case in enumerate(dataset.cases) if case.id == case_id)
    truth = read_mask(case, dataset)
    truth[truth == IGNORE] = 0
    fold = next(fold for fold, split in enumerate(experiment.splits) if i in split.test)
    scores = scores_by_seed(_rows(study, experiment, network), case_id)
    runs: dict[str, PlannedRun] = {}
    for run in study.runs:
        if (run.dataset, run.network, run.fold) == (dataset.name, network, fold) and run.is_finished:
            runs.setdefault(run.loss, run)
    predictions = {loss: read_prediction(runs[loss].folder / "predictions", case_id) for loss in losses if loss in runs}
    seeds = {loss: runs[loss].seed for loss in predictions}
    found = {loss: float(scores[place]) for loss in seeds if (place := (network, loss, seeds[loss])) in scores}
    several = seeds if len(study.settings.seeds) > 1 else {}
    return Shown(case_id, why, _grey(case, dataset), truth, predictions, found, dataset.facts[i].spacing, several)


def _grey(case: Case, dataset: Dataset) -> NDArray[np.float32]:
    """The first image of a case."""
    if dataset.dimension == 2:
        return read_image(case)
    assert is_volume(case.image)
    return np.asarray(read_volume(case.image).values[0], np.float32)
