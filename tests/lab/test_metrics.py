"""Metrics by hand, the rule for empty masks case by case, and agreement with MONAI where nothing is empty."""

import math
import warnings

import numpy as np
import pytest
import torch

from unifocal.lab.metrics import METRICS, measure

NAN = float("nan")
EMPTY = np.zeros((4, 5), np.uint8)
FULL = np.ones((4, 5), np.uint8)
SOME = EMPTY.copy()
SOME[1:3, 1:4] = 1


def values(prediction, truth):
    found = measure(prediction, truth)
    assert tuple(found) == METRICS
    return list(found.values())


def test_by_hand():
    prediction = EMPTY.copy()
    prediction[1:3, 3:5] = 1  # 4 pixels, 2 of them right; truth has 6, the image 20
    assert values(prediction, SOME) == pytest.approx([4 / 10, 2 / 8, 2 / 4, 2 / 6, 12 / 14])


@pytest.mark.parametrize(
    ("prediction", "truth", "expected"),
    [
        (EMPTY, EMPTY, [1, 1, 1, 1, 1]),
        (SOME, EMPTY, [0, 0, 0, NAN, 14 / 20]),
        (EMPTY, SOME, [0, 0, 0, 0, 1]),
        (FULL, FULL, [1, 1, 1, 1, NAN]),
        (EMPTY, FULL, [0, 0, 0, 0, NAN]),
        (FULL, EMPTY, [0, 0, 0, NAN, 0]),
    ],
)
def test_the_rule_for_empty_masks(prediction, truth, expected):
    assert values(prediction, truth) == pytest.approx(expected, nan_ok=True)


def test_finding_nothing_is_never_precise():
    """Over many images with a lesion, an all-background model must not have the best precision."""
    assert measure(EMPTY, SOME)["precision"] < measure(FULL, SOME)["precision"]


def test_each_class_is_judged_against_all_else():
    truth = np.array([[0, 1, 2, 2]])
    prediction = np.array([[0, 2, 2, 1]])
    assert measure(prediction, truth, 1)["DSC"] == 0
    assert measure(prediction, truth, 2)["DSC"] == 0.5
    assert measure(prediction, truth, 2)["specificity"] == 0.5


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(5, 4\)"):
        measure(EMPTY.T, EMPTY)


def test_agrees_with_monai():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from monai.metrics import ConfusionMatrixMetric, DiceMetric, MeanIoU
    rng = np.random.default_rng(0)
    prediction, truth = (rng.random((2, 17, 23)) < [[[0.3]], [[0.4]]]).astype(np.uint8)
    names = ["precision", "sensitivity", "specificity"]
    pair = [torch.from_numpy(m)[None, None].float() for m in (prediction, truth)]
    expected = [np.asarray(DiceMetric()(*pair)).mean(), np.asarray(MeanIoU()(*pair)).mean()]
    for name in names:
        metric = ConfusionMatrixMetric(metric_name=name)
        metric(*pair)
        expected.append(np.asarray(metric.aggregate()[0]).mean())
    assert values(prediction, truth) == pytest.approx(expected, abs=1e-6)
    assert not any(math.isnan(value) for value in expected)
