"""Intervals of the mean by hand, against published ones, and against a second implementation."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from tidy import make_table, scores_of

from unifocal.lab.results import join_tables
from unifocal.lab.statistics.intervals import bca, case_intervals, half_width, seed_spread, summarise

NAN = float("nan")


def fold_table(values, loss="dice", metric="DSC"):
    """`values[fold]` are the values of that fold's images."""
    rows = [
        (loss, fold, 0, f"case {fold} {n}", "lesion", metric, value)
        for fold, images in enumerate(values)
        for n, value in enumerate(images)
    ]
    return pd.DataFrame(rows, columns=["loss", "fold", "seed", "case", "class", "metric", "value"])


def test_the_interval_by_hand():
    # Mean 0.7, standard deviation 0.1, t(0.975, 2) = 4.30265: 4.30265 * 0.1 / sqrt(3)
    assert half_width([0.6, 0.7, 0.8]) == pytest.approx(0.248414, abs=1e-6)
    # Five folds: the factor 2.77645 / sqrt(5) on the standard deviation
    values = [0.1, 0.2, 0.4, 0.4, 0.9]
    assert half_width(values) == pytest.approx(2.776445 / math.sqrt(5) * np.std(values, ddof=1), rel=1e-6)
    assert math.isnan(half_width([0.5]))


def test_mean_of_fold_means_not_of_images():
    [row] = summarise(fold_table([[0.0, 0.0, 0.0, 0.0], [1.0]])).to_dict("records")
    assert row["mean"] == 0.5
    assert (row["folds"], row["images"], row["undefined"]) == (2, 5, 0)
    assert row["half_width"] == pytest.approx(12.7062 * 0.5, rel=1e-4)


def test_undefined_values_are_left_out_and_counted():
    [row] = summarise(fold_table([[NAN, 0.4], [0.6, 0.8], [NAN, NAN]], metric="recall")).to_dict("records")
    assert row["mean"] == pytest.approx((0.4 + 0.7) / 2)
    assert (row["folds"], row["images"], row["undefined"]) == (2, 6, 3)
    [row] = summarise(fold_table([[NAN], [NAN]])).to_dict("records")
    assert math.isnan(row["mean"]) and row["folds"] == 0


def test_losses_keep_their_order_and_stay_apart():
    table = join_tables([fold_table([[0.5], [0.7]], "tversky"), fold_table([[0.1], [0.3]], "dice")])
    summary = summarise(table)
    assert list(summary["loss"]) == ["tversky", "dice"]
    assert list(summary["mean"]) == pytest.approx([0.6, 0.2])


def test_no_runs_no_rows():
    assert summarise(join_tables([])).empty


def test_seeds_are_averaged_in_their_fold_and_are_no_further_folds():
    one = np.array([[0.1, 0.5, 0.6]])  # a case in each of three folds
    values = np.stack([one + shift for shift in (-0.01, 0.0, 0.01)], axis=1)
    [several] = summarise(make_table(values, folds=3)).to_dict("records")
    [single] = summarise(make_table(one, folds=3)).to_dict("records")
    assert several == pytest.approx({**single, "loss": several["loss"], "values": 9}, nan_ok=True)
    assert several["folds"] == 3 and several["images"] == 3


def test_what_is_undefined_is_counted_in_values_as_it_is_left_out():
    values = np.array([[[0.5, NAN, NAN], [0.7, 0.9, NAN]]])  # two seeds, three cases
    [row] = summarise(make_table(values, folds=1)).to_dict("records")
    assert (row["images"], row["values"], row["undefined"]) == (3, 6, 3)
    assert row["mean"] == pytest.approx((0.5 + 0.8) / 2)  # of the seeds' means, not of the cases'


def test_data_sets_and_networks_stay_apart():
    table = pd.concat(
        make_table([[value, value]], folds=2).assign(dataset=dataset, network="unet")
        for dataset, value in (("a", 0.1), ("b", 0.9))
    )
    assert summarise(table).set_index("dataset")["mean"].to_dict() == pytest.approx({"a": 0.1, "b": 0.9})


def test_bca_of_a_published_variance():
    # Efron and Tibshirani, An Introduction to the Bootstrap (1993), Table 14.2: spatial test data A, 90 % interval of
    # the plug-in variance 171.5 from 2000 resamples; the percentile interval is (100.8, 233.9).
    a = [48, 36, 20, 29, 42, 42, 20, 42, 22, 41, 45, 14, 6, 0, 33, 28, 34, 4, 32, 24, 47, 41, 24, 26, 30, 41]
    assert np.var(a) == pytest.approx(171.5, abs=0.05)
    low, high = bca((np.array(a, float),), np.var, level=0.9, resamples=20_000, seed=0)
    # Their 2000 resamples leave an uncertainty of about 2 % in the ends.
    assert (low, high) == pytest.approx((115.8, 259.6), rel=0.02)


def bca_by_the_book(total, count, level, resamples, rng):
    """BCa of sum(total) / sum(count), unit by unit, after Efron and Tibshirani's equations (14.10) to (14.15)."""
    n = len(total)
    estimate = total.sum() / count.sum()
    draws = [rng.integers(n, size=n) for _ in range(resamples)]
    values = np.sort([total[draw].sum() / count[draw].sum() for draw in draws])
    z0 = stats.norm.ppf(np.mean(values < estimate))
    left = np.array([np.delete(total, i).sum() / np.delete(count, i).sum() for i in range(n)])
    d = left.mean() - left
    a = (d**3).sum() / (6 * (d**2).sum() ** 1.5)
    ends = []
    for z in stats.norm.ppf([(1 - level) / 2, (1 + level) / 2]):
        ends.append(np.quantile(values, stats.norm.cdf(z0 + (z0 + z) / (1 - a * (z0 + z)))))
    return ends


def test_whole_groups_are_drawn():
    rng = np.random.default_rng(3)
    sizes = rng.integers(1, 6, 30)
    groups = np.repeat(np.arange(30), sizes)
    values = rng.exponential(size=30)[groups] + 0.1 * rng.normal(size=len(groups))
    [row] = case_intervals(scores_of(values[None], groups=list(groups)), resamples=20_000).to_dict("records")
    total, count = np.bincount(groups, values), np.bincount(groups)
    expected = bca_by_the_book(total, count, 0.95, 20_000, np.random.default_rng(4))
    assert row["mean"] == pytest.approx(values.mean())
    assert (row["cases"], row["units"]) == (len(values), 30)
    # Quantiles of 20 000 resamples are good to about 1.5 % of the width.
    assert (row["low"], row["high"]) == pytest.approx(expected, abs=0.015 * (expected[1] - expected[0]))
    [naive] = case_intervals(scores_of(values[None])).to_dict("records")
    assert naive["high"] - naive["low"] < 0.75 * (row["high"] - row["low"])


def test_case_interval_averages_seeds_first():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(1, 4, 50))
    pd.testing.assert_frame_equal(case_intervals(scores_of(values)), case_intervals(scores_of(values.mean(1))))


def test_case_interval_is_the_same_for_the_same_seed():
    scores = scores_of(np.random.default_rng(0).random((1, 30)))
    assert case_intervals(scores).equals(case_intervals(scores))
    assert not case_intervals(scores).equals(case_intervals(scores, seed=1))


@pytest.mark.parametrize(
    ("values", "low", "reason"),
    [([0.5], NAN, "Fewer than two"), ([NAN, NAN], NAN, "Fewer than two"), ([0.3] * 7, 0.3, "same value")],
)
def test_nothing_to_draw_from(values, low, reason):
    [row] = case_intervals(scores_of([values])).to_dict("records")
    assert row["low"] == pytest.approx(low, nan_ok=True)
    assert reason in row["reasons"][0]


def test_few_cases_are_told():
    rng = np.random.default_rng(0)
    assert case_intervals(scores_of(rng.random((1, 19))))["reasons"][0] == (
        "19 cases, fewer than 20: a bootstrap interval is then too narrow.",
    )
    assert case_intervals(scores_of(rng.random((1, 20))))["reasons"][0] == ()


def test_spread_between_seeds_by_hand():
    values = np.array([[[0.1, 0.3, NAN], [0.3, 0.5, 0.9]], [[0.2, 0.2, 0.2], [0.2, 0.2, 0.2]]])
    rows = seed_spread(scores_of(values)).to_dict("records")
    assert rows[0] == pytest.approx({"loss": "loss 0", "seeds": 2, "cases": 2, "sd": 0.2 / math.sqrt(2)})
    assert rows[1]["sd"] == 0
    assert math.isnan(seed_spread(scores_of(values[:, :1]))["sd"][0])
