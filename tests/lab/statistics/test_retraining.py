"""The test over folds by hand and in its other published form, and what both tests warrant together."""

import math

import numpy as np
import pytest
from scipy import stats
from tidy import make_table, scores_of

from unifocal.lab.statistics.pairwise import pairwise
from unifocal.lab.statistics.retraining import over_folds
from unifocal.lab.statistics.table import make_scores
from unifocal.lab.statistics.verdict import LOSSES_DIFFER, MEANING, NETWORKS_DIFFER, NOT_SHOWN, NOT_TESTED, verdicts

NAN = float("nan")


def test_by_hand():
    # One case a fold: differences 0.1, 0.2, 0.3; mean 0.2, s = 0.1, n_test / n_train = 1 / 2
    result = over_folds(scores_of([[0.5, 0.7, 0.9], [0.4, 0.5, 0.6]], folds=3))
    [row] = result.rows.to_dict("records")
    error = 0.1 * math.sqrt(1 / 3 + 1 / 2)
    assert result.ratio == pytest.approx(0.5)
    assert (row["folds"], row["difference"], row["spread"]) == (3, pytest.approx(0.2), pytest.approx(0.1))
    assert row["p"] == pytest.approx(2 * stats.t.sf(0.2 / error, 2))
    assert (row["low"], row["high"]) == pytest.approx((0.2 - 4.302653 * error, 0.2 + 4.302653 * error), rel=1e-6)


def test_the_ratio_may_be_given():
    values = [[0.5, 0.7, 0.9], [0.4, 0.5, 0.6]]
    [row] = over_folds(scores_of(values, folds=3), ratio=0.25).rows.to_dict("records")
    assert row["p"] == pytest.approx(2 * stats.t.sf(0.2 / (0.1 * math.sqrt(1 / 3 + 1 / 4)), 2))


def test_the_variance_factor_of_cross_validation():
    # Written for k folds (as in the R package MachineShop): t = m / sqrt(F s² / k), F = 1 + k / (k - 1)
    values = np.random.default_rng(0).random((2, 50))
    [row] = over_folds(scores_of(values, folds=5)).rows.to_dict("records")
    d = np.array([(values[0] - values[1])[n::5].mean() for n in range(5)])
    t = d.mean() / math.sqrt((1 + 5 / 4) * d.var(ddof=1) / 5)
    assert row["p"] == pytest.approx(2 * stats.t.sf(abs(t), 4))
    assert row["p"] > stats.ttest_1samp(d, 0).pvalue


def test_seeds_are_no_further_folds():
    values = np.random.default_rng(1).random((2, 4, 20))
    several, once = over_folds(scores_of(values)).rows, over_folds(scores_of(values.mean(1))).rows
    assert several["folds"][0] == 5
    assert several["p"][0] == pytest.approx(once["p"][0])


def test_a_failed_fold_is_left_out_and_told():
    table = make_table(np.random.default_rng(2).random((3, 20)))
    table = table[~((table["loss"] == "loss 1") & (table["fold"] == 2))]
    rows = over_folds(make_scores(table, "DSC", "lesion")).rows
    assert list(rows["folds"]) == [4, 5, 4]
    assert rows["reasons"][0] == ("4 of 5 folds have both.",)
    assert rows["reasons"][1] == ()


def test_one_fold_says_nothing_of_trainings():
    result = over_folds(scores_of(np.random.default_rng(3).random((2, 20)), folds=1))
    assert np.isnan(result.rows["p"][0]) and np.isnan(result.rows["p_holm"][0])
    assert "One fold: nothing is known of other trainings." in result.reasons


def test_no_spread_is_no_proof():
    same = over_folds(scores_of(np.repeat([[0.5], [0.5]], 10, axis=1))).rows
    assert same["p"][0] == 1 and same["reasons"][0] == ("Equal on all folds.",)
    shifted = over_folds(scores_of(np.repeat([[0.5], [0.4]], 10, axis=1))).rows
    assert np.isnan(shifted["p"][0]) and "no spread" in shifted["reasons"][0][0]


def verdict_of(values, alpha=0.05, **options):
    scores = scores_of(values, **options)
    return verdicts(pairwise(scores), over_folds(scores), alpha).rows


def test_verdicts():
    rng = np.random.default_rng(4)
    cases, noise = rng.random(60), 0.01 * rng.normal(size=60)
    luck = np.tile([0.3, 0.3, -0.05, 0.02, 0.01], 12)  # of the networks of each fold: not what a loss can rely on
    values = np.stack([cases, cases + 0.1 + noise, cases + luck + noise, cases + 0.001 * rng.normal(size=60)])
    rows = verdict_of(values).set_index(["loss", "other"])
    assert rows.loc[("loss 0", "loss 1"), "verdict"] == LOSSES_DIFFER
    assert rows.loc[("loss 0", "loss 1"), "better"] == "loss 1"
    assert rows.loc[("loss 0", "loss 2"), "verdict"] == NETWORKS_DIFFER
    assert rows.loc[("loss 0", "loss 3"), "verdict"] == NOT_SHOWN
    assert rows.loc[("loss 0", "loss 3"), "better"] == ""
    assert set(rows["verdict"]) <= set(MEANING)


def test_folds_that_point_the_other_way_do_not_confirm():
    # In every fold eleven small wins and one large defeat: ranks favour the first, every fold mean the second.
    wins, defeats = np.full((11, 5), 0.01), np.linspace(-0.50, -0.52, 5)[None]
    d = np.concatenate([wins, defeats]).ravel()
    d += 1e-5 * np.random.default_rng(0).normal(size=len(d))
    scores = scores_of(np.stack([0.5 + d, np.full(len(d), 0.5)]))
    assert over_folds(scores).rows["p"][0] < 0.01
    assert pairwise(scores).rows["p"][0] < 0.01 and pairwise(scores).rows["better"][0] == "loss 0"
    assert verdicts(pairwise(scores), over_folds(scores)).rows["verdict"][0] == NETWORKS_DIFFER


def test_not_tested():
    assert verdict_of([[NAN, 0.1], [0.2, NAN]])["verdict"][0] == NOT_TESTED
