"""What holds for all metrics: names, the rule for empty masks, voxels left out, and laws that random masks obey."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from masks import pairs

from unifocal.lab.errors import LabError
from unifocal.lab.metrics import EMPTY_RULE, LOWER_IS_BETTER, MAIN, METRICS, SIGNED, UNITS, lesions, measure, unit

NAN = float("nan")
EMPTY = np.zeros((4, 5), np.uint8)
FULL = np.ones((4, 5), np.uint8)
SOME = EMPTY.copy()
SOME[1:3, 1:4] = 1


def test_names():
    assert tuple(measure(SOME, SOME)) == METRICS and METRICS[: len(MAIN)] == MAIN
    assert set(UNITS) == set(METRICS) and LOWER_IS_BETTER | SIGNED < set(METRICS)
    assert [unit(name, None) for name in ("DSC", "HD95")] == ["fraction", "px"]
    assert [unit(name, (1, 1, 2)) for name in ("DSC", "HD95")] == ["fraction", "mm"]


@pytest.mark.parametrize("stack", [1, 3])
@pytest.mark.parametrize(
    ("prediction", "truth", "expected"),
    [
        # DSC, IoU, precision, recall, specificity, HD95, NSD, volume, lesion recall, precision, F1, false lesions
        (EMPTY, EMPTY, [1, 1, 1, 1, 1, NAN, 1, 0, 1, 1, 1, 0]),
        (SOME, EMPTY, [0, 0, 0, NAN, 14 / 20, NAN, 0, NAN, NAN, 0, 0, 1]),
        (EMPTY, SOME, [0, 0, 0, 0, 1, NAN, 0, -1, 0, 0, 0, 0]),
        (FULL, FULL, [1, 1, 1, 1, NAN, 0, 1, 0, 1, 1, 1, 0]),
        (EMPTY, FULL, [0, 0, 0, 0, NAN, NAN, 0, -1, 0, 0, 0, 0]),
        (FULL, EMPTY, [0, 0, 0, NAN, 0, NAN, 0, NAN, NAN, 0, 0, 1]),
    ],
)
def test_the_rule_for_empty_masks(prediction, truth, expected, stack):
    masks = (prediction, truth) if stack == 1 else (np.stack([m] * stack, -1) for m in (prediction, truth))
    assert list(measure(*masks).values()) == pytest.approx(expected, nan_ok=True)


def test_the_rule_is_written_once_and_read_by_users():
    page = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()
    assert EMPTY_RULE in page
    assert all(f"| {name} |" in page for name in METRICS)


def test_voxels_without_truth_count_nowhere():
    truth = np.zeros((6, 8), np.uint8)
    truth[1:3, 1:4] = 1
    prediction = np.zeros_like(truth)
    prediction[1:3, 1:4] = prediction[5, 6] = 1
    assert measure(prediction, truth)["DSC"] == pytest.approx(12 / 13)
    truth[5, 5:] = 255
    perfect = measure(prediction, truth)
    assert perfect == measure(truth, truth) and perfect["DSC"] == perfect["NSD"] == perfect["lesion precision"] == 1
    assert perfect["HD95"] == perfect["false lesions"] == 0
    prediction[0, 0] = 1  # 48 pixels, 3 left out, 6 of the lesion
    assert measure(prediction, truth)["specificity"] == pytest.approx(38 / 39)
    assert measure(prediction, np.where(truth == 255, 7, truth), ignore=7) == measure(prediction, truth)


def test_a_prediction_that_says_nothing_is_wrong_where_there_is_truth():
    assert measure(np.where(SOME, 255, 0), SOME) == pytest.approx(measure(EMPTY, SOME), nan_ok=True)


@given(pairs(values=(0, 1, 2, 255)))
@settings(deadline=None, max_examples=60)
def test_left_out_is_background_that_is_not_counted(case):
    prediction, truth, spacing = case
    prediction = prediction % 3
    found = measure(prediction, truth, 1, spacing)
    out = truth == 255
    again = measure(np.where(out, 0, prediction), np.where(out, 0, truth), 1, spacing)
    del found["specificity"], again["specificity"]
    assert found == pytest.approx(again, nan_ok=True)


@given(pairs())
@settings(deadline=None, max_examples=150)
def test_laws(case):
    prediction, truth, spacing = case
    found = measure(prediction, truth, spacing=spacing)
    back = measure(truth, prediction, spacing=spacing)
    for name, value in found.items():
        if UNITS[name] == "fraction" and name not in SIGNED and not math.isnan(value):
            assert 0 <= value <= 1, name
    for name in ("DSC", "IoU", "HD95", "NSD"):
        assert found[name] == pytest.approx(back[name], nan_ok=True)
    assert found["DSC"] == pytest.approx(2 * found["IoU"] / (1 + found["IoU"]))
    if prediction.any() and truth.any():
        assert found["precision"] == back["recall"] and found["lesion precision"] == back["lesion recall"]
        # The surface within a tolerance grows with it, and is all of it at the size of the image.
        wider = [measure(prediction, truth, spacing=spacing, tolerance=t)["NSD"] for t in (0.4, 1.0, 2.5, 99.0)]
        assert wider == sorted(wider) and wider[-1] == 1
        assert math.isclose(found["volume error"], prediction.sum() / truth.sum() - 1, abs_tol=1e-12)
    rows = lesions(prediction, truth, spacing=spacing)
    assert sum(row.voxels for row in rows) == truth.sum()
    assert sum(row.size for row in rows) == pytest.approx(truth.sum() * math.prod(spacing))
    assert sum(row.voxels * row.overlap for row in rows) == pytest.approx((prediction & truth).sum())
    if rows:
        assert found["lesion recall"] == pytest.approx(np.mean([row.found for row in rows]))
    perfect = measure(truth, truth, spacing=spacing)
    assert perfect["DSC"] == perfect["NSD"] == perfect["lesion F1"] == 1
    assert perfect["HD95"] == 0 if truth.any() else math.isnan(perfect["HD95"])


@given(pairs())
@settings(deadline=None, max_examples=60)
def test_background_around_changes_the_specificity_alone(case):
    prediction, truth, spacing = case
    found = measure(prediction, truth, spacing=spacing)
    wide = measure(np.pad(prediction, 3), np.pad(truth, 3), spacing=spacing)
    assert wide.pop("specificity") >= (0 if math.isnan(value := found.pop("specificity")) else value)
    assert wide == pytest.approx(found, nan_ok=True)


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int64, np.uint16])
def test_any_integer_type_and_any_order_in_memory(dtype):
    prediction, truth = SOME.astype(dtype), np.asfortranarray(np.roll(SOME, 1, 1)).astype(dtype)
    assert measure(prediction, truth) == measure(SOME, np.roll(SOME, 1, 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prediction": EMPTY.T}, r"one shape; got \(5, 4\) and \(4, 5\)"),
        ({"prediction": EMPTY[0], "truth": EMPTY[0]}, r"\(H, W\) or \(i, j, k\)"),
        ({"prediction": EMPTY.astype(np.float32)}, "integer type; the prediction is float32"),
        ({"truth": EMPTY.astype(float)}, "integer type; the truth is float64"),
        ({"index": 255}, "255 is the value that leaves voxels out"),
        ({"spacing": (1.0,)}, "positive spacing for each of 2 axes"),
        ({"spacing": (1.0, 0.0)}, "positive spacing"),
        ({"spacing": (1.0, NAN)}, "positive spacing"),
    ],
)
@pytest.mark.parametrize("function", [measure, lesions])
def test_mistakes_are_told(arguments, message, function):
    with pytest.raises(LabError, match=message):
        function(**{"prediction": SOME, "truth": SOME} | arguments)
