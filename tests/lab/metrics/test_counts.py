"""Overlap and volume error by hand, and against MONAI."""

import warnings

import numpy as np
import pytest
import torch
from masks import blobs, monai, noise

from unifocal.lab.metrics import MAIN, measure

EMPTY = np.zeros((4, 5), np.uint8)
SOME = EMPTY.copy()
SOME[1:3, 1:4] = 1


def test_by_hand():
    prediction = EMPTY.copy()
    prediction[1:3, 3:5] = 1  # 4 pixels, 2 of them right; truth has 6, the image 20
    found = measure(prediction, SOME)
    assert [found[name] for name in MAIN] == pytest.approx([4 / 10, 2 / 8, 2 / 4, 2 / 6, 12 / 14])
    assert found["volume error"] == pytest.approx(-2 / 6)
    assert measure(SOME, prediction)["volume error"] == pytest.approx(2 / 4)


def test_finding_nothing_is_never_precise():
    """Over many images with a lesion, an all-background model must not have the best precision."""
    assert measure(EMPTY, SOME)["precision"] < measure(np.ones_like(EMPTY), SOME)["precision"]


def test_each_class_is_judged_against_all_else():
    truth = np.array([[0, 1, 2, 2]])
    prediction = np.array([[0, 2, 2, 1]])
    assert measure(prediction, truth, 1)["DSC"] == 0
    assert measure(prediction, truth, 2)["DSC"] == 0.5
    assert measure(prediction, truth, 2)["specificity"] == 0.5


@pytest.mark.parametrize(("prediction", "truth"), [noise((17, 23), 0), noise((9, 8, 11), 1), blobs((12, 20, 15), 2)])
def test_agrees_with_monai(prediction, truth):
    y_pred, y = (torch.from_numpy(mask)[None, None].float() for mask in (prediction, truth))
    expected = [np.asarray(monai.DiceMetric()(y_pred, y)).mean(), np.asarray(monai.MeanIoU()(y_pred, y)).mean()]
    for name in ("precision", "sensitivity", "specificity"):
        metric = monai.ConfusionMatrixMetric(metric_name=name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            metric(y_pred, y)
        expected.append(np.asarray(metric.aggregate()[0]).mean())
    found = measure(prediction, truth, spacing=(0.5, 1.0, 3.0)[: truth.ndim])
    assert [found[name] for name in MAIN] == pytest.approx(expected, abs=1e-6)
    difference = float(monai.compute_absolute_volume_difference(y_pred, y, include_background=True))
    assert abs(found["volume error"]) == pytest.approx(difference / int(truth.sum()), abs=1e-6)
