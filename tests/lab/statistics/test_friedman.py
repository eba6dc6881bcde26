"""Friedman, Iman and Davenport, Nemenyi: Demšar's worked example and tables, SciPy, scikit-posthocs."""

import numpy as np
import pytest
import scikit_posthocs
from scipy import stats
from tidy import demsar, scores_of

from unifocal.lab.statistics.friedman import critical_difference, friedman

NAN = float("nan")


def test_demsar_ranks_and_statistic():
    result = friedman(demsar())
    assert (result.unit_name, result.units) == ("data set", 14)
    # Table 6; he ranks 0.975 and 0.975 (voting) as 2 and 3, from digits that he does not print. Tied, both get 2.5.
    expected = {"C4.5+m+cf": 1.964, "C4.5+m": 2.000, "C4.5+cf": 2.893, "C4.5": 3.143}
    ranks = {name: rank * 14 for name, rank in result.mean_ranks.items()}
    ranks["C4.5+cf"], ranks["C4.5+m+cf"] = ranks["C4.5+cf"] - 0.5, ranks["C4.5+m+cf"] + 0.5
    assert {name: rank / 14 for name, rank in ranks.items()} == pytest.approx(expected, abs=5e-4)


def test_demsar_chi_squared_and_f():
    # His table with the digits that break the tie in voting; his χ² = 9.28 and F = 3.69 have no correction for ties.
    scores = demsar()
    values = scores.values.copy()
    values[scores.losses.index("C4.5+m+cf"), 0, scores.cases.index("voting")] -= 1e-6
    result = friedman(scores_of(values))
    chi2 = result.chi2 * result.tie_correction
    assert result.mean_ranks.to_numpy() == pytest.approx([1.964, 2.000, 2.893, 3.143], abs=5e-4)
    assert chi2 == pytest.approx(9.28, abs=0.005)
    assert 13 * chi2 / (14 * 3 - chi2) == pytest.approx(3.69, abs=0.005)
    # Ties: pairs in iris, lung cancer and primary tumor, all four in mushroom
    assert result.tie_correction == pytest.approx(1 - (3 * 6 + 60) / (14 * 4 * 15))
    assert result.f == pytest.approx(13 * result.chi2 / (14 * 3 - result.chi2))
    assert result.p == pytest.approx(stats.f.sf(result.f, 3, 39))


def test_demsar_critical_differences():
    result = friedman(demsar())
    assert result.critical_difference == pytest.approx(1.25, abs=0.005)
    # "Even the difference between the best and the worst is already smaller": one bar over all four.
    assert [len(bar) for bar in result.bars] == [4]
    # At 0.10 it is 1.12: C4.5 is worse than C4.5+m and C4.5+m+cf, and C4.5+cf cannot be told from either.
    result = friedman(demsar(), alpha=0.10)
    assert result.critical_difference == pytest.approx(1.12, abs=0.005)
    assert [set(bar) for bar in result.bars] == [{"C4.5+m+cf", "C4.5+m", "C4.5+cf"}, {"C4.5+cf", "C4.5"}]


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        (0.05, [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]),
        (0.10, [1.645, 2.052, 2.291, 2.459, 2.589, 2.693, 2.780, 2.855, 2.920]),
    ],
)
def test_demsar_critical_values(alpha, expected):
    # His Table 5(a), two to ten classifiers; its last digit is cut or rounded.
    found = [critical_difference(n, 100, alpha) / np.sqrt(n * (n + 1) / 600) for n in range(2, 11)]
    assert found == pytest.approx(expected, abs=1.1e-3)


def test_no_ties_is_the_formula():
    values = np.random.default_rng(0).random((5, 20))
    result = friedman(scores_of(values))
    ranks = stats.rankdata(-values, axis=0).mean(1)
    chi2 = 12 * 20 / (5 * 6) * ((ranks**2).sum() - 5 * 36 / 4)
    assert result.tie_correction == 1
    assert result.chi2 == pytest.approx(chi2)
    assert list(result.mean_ranks[[f"loss {n}" for n in range(5)]]) == pytest.approx(list(ranks))


def test_ties_are_scipys_and_nemenyi_is_scikit_posthocs():
    values = np.random.default_rng(1).integers(0, 4, (4, 30)).astype(float)
    result = friedman(scores_of(values))
    assert result.chi2 == pytest.approx(stats.friedmanchisquare(*values).statistic)
    expected = scikit_posthocs.posthoc_nemenyi_friedman(values.T)
    assert result.nemenyi.to_numpy() == pytest.approx(expected.to_numpy())
    assert list(result.nemenyi) == [f"loss {n}" for n in range(4)]


def test_bars_and_nemenyi_agree():
    rng = np.random.default_rng(2)
    result = friedman(scores_of(rng.random((6, 40)) + 0.12 * np.arange(6)[:, None]))
    together = {frozenset((a, b)) for bar in result.bars for a in bar for b in bar if a != b}
    for a in result.mean_ranks.index:
        for b in result.mean_ranks.index:
            if a != b:
                assert (frozenset((a, b)) in together) == (result.nemenyi.loc[a, b] > 0.05)


def test_lower_is_better():
    values = np.random.default_rng(3).random((3, 10))
    up, down = friedman(scores_of(values)).mean_ranks, friedman(scores_of(values, lower_is_better=True)).mean_ranks
    assert list(up.index) == list(down.index[::-1])


def test_groups_count_once():
    values = np.random.default_rng(4).random((3, 12))
    groups = [n // 2 for n in range(12)]
    expected = friedman(scores_of(values.reshape(3, 6, 2).mean(2)))
    result = friedman(scores_of(values, groups=groups))
    assert (result.units, result.unit_name) == (6, "group")
    assert result.chi2 == expected.chi2


def test_perfect_order_and_perfect_ties():
    ordered = friedman(scores_of(np.arange(4)[:, None] + np.zeros((4, 10))))
    assert ordered.f == float("inf") and ordered.p == pytest.approx(24**-9)  # of 24 orders, ten times the same
    assert friedman(scores_of(np.arange(3)[:, None] + np.zeros((3, 2)))).p == pytest.approx(1 / 6)
    tied = friedman(scores_of(np.ones((4, 10))))
    assert (tied.chi2, tied.tie_correction, tied.p) == (0, 0, 1)
    assert [len(bar) for bar in tied.bars] == [4]


def test_reasons():
    rng = np.random.default_rng(5)
    assert any("Two losses" in reason for reason in friedman(scores_of(rng.random((2, 10)))).reasons)
    few = friedman(scores_of(rng.random((10, 2))))  # CD 9.6, ranks 1 to 10
    assert any("2 cases are too few" in reason for reason in few.reasons)
    equal = friedman(scores_of(rng.random((3, 10))))
    assert any("finds no difference" in reason for reason in equal.reasons)
    assert not friedman(scores_of(rng.random((3, 30)) + np.arange(3)[:, None])).reasons
