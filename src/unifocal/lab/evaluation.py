"""Predictions that lie in a folder, measured against the truth of a data set, case by case and lesion by lesion."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifocal.lab.data.cases import IGNORE, Dataset
from unifocal.lab.data.masks import read_mask
from unifocal.lab.data.predictions import Predictions
from unifocal.lab.metrics import METRICS, lesions, measure
from unifocal.lab.progress import Track, silent
from unifocal.lab.results import without_signs

METRIC_COLUMNS = ("case", "group", "class", "metric", "value")
LESION_COLUMNS = ("case", "group", "class", "voxels", "size", "overlap", "found")
SIZES = ("small", "medium", "large")


@dataclass(frozen=True)
class Evaluation:
    """What came of it.

    Attributes:
        metrics: a row for each case, class or region, and metric: case, group, class, metric, value; NaN where
            undefined. The group is the patient, empty where unknown.
        lesions: a row for each lesion of the truth: case, group, class, voxels, size, overlap, found. The size is in
            mm³, of pictures in pixels; the overlap is the share of the lesion that the prediction covers.
    """

    metrics: pd.DataFrame
    lesions: pd.DataFrame


def evaluate(predictions: Predictions, dataset: Dataset, track: Track = silent) -> Evaluation:
    """Measure predictions that `read_predictions` has checked against the truth of their data set.

    Args:
        predictions: a label file for each case.
        dataset: as `read_dataset` returns it, with facts. Its regions are measured like classes.
        track: shows how far it has come.
    """
    values: list[tuple[object, ...]] = []
    components: list[tuple[object, ...]] = []
    for case, facts in track(list(zip(dataset.cases, dataset.facts, strict=True)), "measuring"):
        for name, prediction, truth, index in _judged(predictions.read(case), read_mask(case, dataset), dataset):
            key = (case.id, case.group, name)
            measured = measure(prediction, truth, index, facts.spacing)
            values += [(*key, metric, measured[metric]) for metric in METRICS]
            for lesion in lesions(prediction, truth, index, facts.spacing):
                components.append((*key, lesion.voxels, lesion.size, lesion.overlap, lesion.found))
    return Evaluation(
        pd.DataFrame(values, columns=list(METRIC_COLUMNS)),
        pd.DataFrame(components, columns=list(LESION_COLUMNS)),
    )


def _judged(
    prediction: NDArray[np.uint8], truth: NDArray[np.uint8], dataset: Dataset
) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.uint8], int]]:
    """(name, prediction, truth, index) of every class but the background, then of the regions."""
    for index, name in enumerate(dataset.classes[1:], start=1):
        yield name, prediction, truth, index
    for name, classes in dataset.regions.items():
        within = np.zeros(IGNORE + 1, np.uint8)
        within[list(classes)] = 1
        within[IGNORE] = IGNORE
        yield name, within[prediction], within[truth], 1


def summarise_cases(metrics: pd.DataFrame) -> pd.DataFrame:
    """One row per (class, metric): mean and median over the cases where it is defined, their number, and the others'.

    Of metrics with a sign the absolute values are taken.
    """
    by_metric = without_signs(metrics).groupby(["class", "metric"], sort=False)["value"]
    summary = by_metric.agg(mean="mean", median="median", cases="count", undefined=lambda v: int(v.isna().sum()))
    return summary.reset_index()


def recall_by_size(lesions: pd.DataFrame) -> pd.DataFrame:
    """One row per class and size: smallest, largest, lesions, found, recall.

    Small, medium and large are the thirds of the class's lesions by size, over all cases. Lesions of one size stay
    together, so the thirds need not be equal, and one of them may be missing.
    """
    rows: list[tuple[object, ...]] = []
    for name, of_class in lesions.groupby("class", sort=False):
        bounds = np.quantile(of_class["size"], (1 / 3, 2 / 3))
        which = np.searchsorted(bounds, of_class["size"])  # a lesion as large as a bound is below it
        for n, size in enumerate(SIZES):
            part = of_class[which == n]
            if len(part):
                found = int(part["found"].sum())
                sizes = (float(part["size"].min()), float(part["size"].max()))
                rows.append((name, size, *sizes, len(part), found, found / len(part)))
    return pd.DataFrame(rows, columns=["class", "size", "smallest", "largest", "lesions", "found", "recall"])
