"""The smallest detectable difference: against statsmodels' own power, and found as often as it says."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower
from tidy import scores_of

from unifocal.lab.statistics.pairwise import pairwise
from unifocal.lab.statistics.power import detectable, noncentrality

NAN = float("nan")


@pytest.mark.parametrize("n", [3, 4, 5, 20, 300, 5000])
@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
def test_noncentrality_gives_the_power_by_statsmodels(n, power):
    assert TTestPower().power(noncentrality(n, 0.05, power) / np.sqrt(n), n, 0.05) == pytest.approx(power, abs=1e-5)


@pytest.mark.parametrize("n", [3, 5, 20, 300, 5000])
@pytest.mark.parametrize("alpha", [0.05 / 45, 0.05 / 4950])
def test_noncentrality_where_statsmodels_has_none(n, alpha):
    # Its noncentral t is NaN for some of these. The power as an integral over the standard deviation S / sigma:
    nu, t, df = noncentrality(n, alpha, 0.8), stats.t.isf(alpha / 2, n - 1), n - 1
    density = stats.chi(df, scale=1 / np.sqrt(df))
    found = density.expect(lambda s: stats.norm.sf(t * s - nu) + stats.norm.cdf(-t * s - nu), limit=200)
    assert found == pytest.approx(0.8, abs=1e-5)


def test_noncentrality_of_two_cases_by_simulation():
    rng = np.random.default_rng(0)
    nu, t = noncentrality(2, 0.05, 0.8), stats.t.isf(0.025, 1)
    found = np.abs((rng.normal(size=200_000) + nu) / np.abs(rng.normal(size=200_000))) > t
    assert found.mean() == pytest.approx(0.8, abs=0.004)  # 4 standard errors
    assert np.isnan(noncentrality(1, 0.05, 0.8))


def test_cohens_table():
    # Cohen (1988), as in every textbook: a paired effect of 0.5 needs 34 pairs for 80 % power at 0.05.
    assert noncentrality(34, 0.05, 0.8) / np.sqrt(34) < 0.5 < noncentrality(33, 0.05, 0.8) / np.sqrt(33)


def test_every_column():
    values = np.random.default_rng(0).random((3, 40))
    result = detectable(scores_of(values))
    d = values[0] - values[1]
    row = result.rows.iloc[0]
    assert (row["units"], row["folds"]) == (40, 5)
    assert row["sd"] == pytest.approx(d.std(ddof=1))
    solver = TTestPower()
    assert solver.power(row["detectable"] / row["sd"], 40, 0.05) == pytest.approx(0.8, abs=1e-5)
    assert solver.power(row["detectable_holm"] / row["sd"], 40, 0.05 / 3) == pytest.approx(0.8, abs=1e-5)
    spread = np.std([d[n::5].mean() for n in range(5)], ddof=1)
    error = spread * np.sqrt(1 / 5 + 1 / 4)
    assert row["detectable_folds"] == pytest.approx(noncentrality(5, 0.05, 0.8) * error)
    assert row["detectable_folds_holm"] == pytest.approx(noncentrality(5, 0.05 / 3, 0.8) * error)
    assert result.typical["detectable"] == result.rows["detectable"].median()


@pytest.mark.slow
def test_a_difference_of_that_size_is_found_as_often_as_it_says():
    rng = np.random.default_rng(1)
    size = noncentrality(30, 0.05, 0.8) / np.sqrt(30)  # for differences with standard deviation 1
    noise = rng.normal(size=(600, 30))
    t_test = (stats.ttest_1samp(noise + size, 0, axis=1).pvalue <= 0.05).mean()
    ranks = np.mean([pairwise(scores_of([row + size, 0 * row])).rows["p"][0] <= 0.05 for row in noise])
    # 600 trials: 0.8 within 4 standard errors of 0.016; the signed-rank test needs 1 / 0.955 as many cases.
    assert t_test == pytest.approx(0.8, abs=0.065)
    assert ranks == pytest.approx(0.785, abs=0.065)


def test_groups_leave_fewer_units():
    values = np.random.default_rng(2).normal(size=(2, 60))
    alone = detectable(scores_of(values)).rows.iloc[0]
    grouped = detectable(scores_of(values, groups=[n % 10 for n in range(60)])).rows.iloc[0]
    assert (alone["units"], grouped["units"]) == (60, 10)


def test_one_case_cannot_say():
    result = detectable(scores_of([[0.1], [0.2]]))
    assert result.rows["detectable"].isna().all()
    assert "Too few cases to say what could have been seen." in result.reasons
