"""The predictions of a run on the grid of the original images, and their metrics."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from unifocal.lab.data.masks import read_mask
from unifocal.lab.experiment import Experiment
from unifocal.lab.inference import predict
from unifocal.lab.metrics import Lesion, lesions, measure
from unifocal.lab.preparation import to_original, write_prediction
from unifocal.lab.results import COLUMNS
from unifocal.lab.runs import Run


class Scores:
    """Rows of the two tidy tables of a run: metrics by case and class, and lesions one by one."""

    def __init__(self, run: Run, experiment: Experiment) -> None:
        self.key = {
            "dataset": experiment.dataset.name,
            "network": run.network.label,
            "loss": run.loss.label,
            "fold": run.fold,
            "seed": run.seed,
        }
        self.experiment = experiment
        self.metrics: list[dict[str, Any]] = []
        self.lesions: list[dict[str, Any]] = []

    def add(self, case: int, prediction: NDArray[np.uint8]) -> None:
        """Compare the prediction of a case with its truth, class by class."""
        dataset = self.experiment.dataset
        truth = read_mask(dataset.cases[case], dataset)
        spacing = dataset.facts[case].spacing
        for index, name in enumerate(dataset.classes[1:], start=1):
            key = {**self.key, "case": dataset.cases[case].id, "class": name}
            for metric, value in measure(prediction, truth, index, spacing).items():
                self.metrics.append({**key, "metric": metric, "value": value})
            for lesion in lesions(prediction, truth, index, spacing):
                self.lesions.append({**key, **asdict(lesion)})

    def tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Metrics and lesions; where there are none, their columns still are."""
        of_lesion = [*self.key, "case", "class", *(field.name for field in fields(Lesion))]
        return pd.DataFrame(self.metrics, columns=list(COLUMNS)), pd.DataFrame(self.lesions, columns=of_lesion)


def score(
    run: Run,
    experiment: Experiment,
    network: nn.Module,
    divisor: tuple[int, ...],
    cases: Sequence[int],
    device: torch.device,
    folder: Path | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The metrics and the lesions of `cases`; the predictions are written to `folder`, if one is given."""
    scores, data = Scores(run, experiment), experiment.cases
    network = network.to(device).eval()
    for case in cases:
        probabilities = predict(network, data[case].image, run.settings, device, divisor)
        prediction = to_original(probabilities, data.placement(case))
        scores.add(case, prediction)
        if folder is not None:
            reference = experiment.dataset.cases[case]
            write_prediction(folder, reference.id, prediction, like=reference.masks[0])
    return scores.tables()
