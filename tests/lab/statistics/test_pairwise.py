"""Tests of pairs: published examples, SciPy, statsmodels, enumeration, and hand-computed effects."""

from itertools import product

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from tidy import demsar, scores_of

from unifocal.lab.statistics.pairwise import EFFECTS, LABELS, holm, pairwise
from unifocal.lab.statistics.signedrank import signed_rank

NAN = float("nan")


def test_demsar_wilcoxon():
    # JMLR 7 (2006), Table 2 and section 3.1.3: C4.5+m against C4.5 on 14 data sets. R+ = 93 and R- = 12, where the
    # two zeros have given half of their ranks 1.5 + 1.5 to each; T = 12 is below the critical value 21 for 0.05.
    [row] = pairwise(demsar(("C4.5+m", "C4.5"))).rows.to_dict("records")
    assert (row["units"], row["wins"], row["ties"], row["defeats"]) == (14, 10, 2, 2)
    assert row["effect"] == pytest.approx((93 - 12) / (14 * 15 / 2))
    assert row["p"] < 0.05 and row["better"] == "C4.5+m"
    differences = np.array([5, -8, 17, 33, 6, -5, 7, 0, 63, 0, 22, 47, 9, 21], float)
    result = signed_rank(differences)
    assert (result.plus + 1.5, result.minus + 1.5) == (93, 12)
    assert result.p == row["p"]


def test_hollander_and_wolfe():
    # Nonparametric Statistical Methods (1973), p. 29f.; the example of R's wilcox.test: V = 40, two-sided p = 20 / 512.
    first = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
    second = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]
    result = signed_rank(np.subtract(first, second))
    assert (result.plus, result.minus) == (40, 5)
    assert result.p == pytest.approx(20 / 512)


@pytest.mark.parametrize("n", [1, 2, 5, 9, 25, 50, 51, 200])
def test_signed_rank_is_scipys_without_ties(n):
    differences = np.random.default_rng(n).normal(0.3, 1, n)
    expected = stats.wilcoxon(differences, method="exact" if n <= 50 else "asymptotic")
    result = signed_rank(differences)
    assert min(result.plus, result.minus) == expected.statistic
    assert result.p == pytest.approx(expected.pvalue, rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_signed_rank_is_exact_with_ties_and_zeros(seed):
    differences = np.random.default_rng(seed).integers(-2, 4, 11).astype(float)
    ranks = stats.rankdata(np.abs(differences))
    sums = [
        sum(rank for rank, sign in zip(ranks[differences != 0], signs, strict=True) if sign)
        for signs in product([0, 1], repeat=int((differences != 0).sum()))
    ]
    result = signed_rank(differences)
    extreme = max(result.plus, result.minus)
    assert result.p == pytest.approx(min(1, 2 * np.mean(np.array(sums) >= extreme)))


def test_signed_rank_with_many_ties_is_pratts():
    differences = np.random.default_rng(0).integers(-3, 5, 300).astype(float)
    expected = stats.wilcoxon(differences, zero_method="pratt", method="asymptotic")
    assert signed_rank(differences).p == pytest.approx(expected.pvalue, rel=1e-9)


def test_nothing_but_zeros_is_no_evidence():
    assert signed_rank(np.zeros(20)).p == 1
    assert np.isnan(signed_rank(np.empty(0)).p)


def test_holm_by_demsar():
    # Section 3.2.2: z = 2.416, 2.342, 0.512 against C4.5; p = 0.016, 0.019, 0.607 against 0.017, 0.025, 0.05: the
    # first two are rejected. With Bonferroni's 0.017 the second is not.
    p = 2 * stats.norm.sf([2.416, 0.512, 2.342])
    assert p == pytest.approx([0.016, 0.609, 0.019], abs=5e-4)
    assert list(holm(p) <= 0.05) == [True, False, True]
    assert 3 * p[2] > 0.05


def test_holm_by_hand_and_without_the_untested():
    # Ordered 0.01, 0.02, 0.04 times 3, 2, 1, never falling: 0.03, 0.04, 0.04
    assert holm(np.array([0.04, NAN, 0.01, 0.02])) == pytest.approx([0.04, NAN, 0.03, 0.04], nan_ok=True)
    p = np.random.default_rng(0).random(40) ** 3
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert np.isnan(holm(np.array([NAN, NAN]))).all() and not len(holm(np.empty(0)))


def test_every_column_by_hand():
    values = np.array([[0.9, 0.8, 0.7, 0.5], [0.6, 0.7, 0.7, 0.7]])  # differences 0.3, 0.1, 0, -0.2
    [row] = pairwise(scores_of(values)).rows.to_dict("records")
    differences = np.array([0.3, 0.1, 0, -0.2])
    low, high = stats.ttest_1samp(differences, 0).confidence_interval()
    assert row["difference"] == pytest.approx(0.05)
    assert (row["low"], row["high"]) == pytest.approx((low, high))
    assert (row["wins"], row["ties"], row["defeats"]) == (2, 1, 1)
    # |d| ranks 4, 2, 1, 3: R+ = 6, R- = 3; effect 3 / 10
    assert row["effect"] == pytest.approx(0.3)
    assert row["standardised"] == pytest.approx(0.05 / np.std(differences, ddof=1))
    assert row["p"] == row["p_holm"] == pytest.approx(6 / 8)  # sums of {2, 3, 4} of 6 or more: 6, 7, 9
    assert row["better"] == "loss 0"


def test_lower_is_better_turns_effects_and_winner_but_not_the_difference():
    values = np.random.default_rng(1).random((3, 30))
    up, down = pairwise(scores_of(values)), pairwise(scores_of(values, lower_is_better=True))
    for column in ("difference", "low", "high", "p", "p_holm"):
        assert list(up.rows[column]) == list(down.rows[column])
    assert list(up.rows["effect"]) == list(-down.rows["effect"])
    assert list(up.rows["wins"]) == list(down.rows["defeats"])
    assert all(up.rows["better"] != down.rows["better"])


def test_rank_sum_is_the_papers_test():
    rng = np.random.default_rng(2)
    values = np.stack([rng.random(40), rng.random(40) + 0.2])
    result = pairwise(scores_of(values), "rank-sum")
    [row] = result.rows.to_dict("records")
    assert row["p"] == pytest.approx(stats.ranksums(*values).pvalue, rel=1e-9)
    greater = np.mean(values[0][:, None] > values[1]) - np.mean(values[0][:, None] < values[1])
    assert row["effect"] == pytest.approx(greater)
    assert (result.test, result.effect) == (LABELS["rank-sum"], EFFECTS["rank-sum"])
    assert "unpaired" in result.test
    paired = pairwise(scores_of(values))
    assert "paired" in paired.test and paired.rows["p"][0] != row["p"]


def test_pairing_finds_what_the_rank_sum_misses():
    rng = np.random.default_rng(3)
    cases = rng.random(40)  # hard and easy cases differ far more than the losses
    values = np.stack([cases + 0.02, cases + 0.01 * rng.normal(size=40)])
    assert pairwise(scores_of(values)).rows["p"][0] < 1e-6
    assert pairwise(scores_of(values), "rank-sum").rows["p"][0] > 0.3


def test_ties_do_not_depend_on_the_last_bits():
    # 0.768 - 0.763 and 0.936 - 0.931 are different floating-point numbers, and one difference.
    values = np.array([[0.768, 0.931, 0.5], [0.763, 0.936, 0.4]])
    assert pairwise(scores_of(values)).rows["effect"][0] == pytest.approx((1.5 + 3 - 1.5) / 6)


def test_seeds_are_averaged_before_the_test():
    values = np.random.default_rng(4).random((2, 5, 30))
    once = pairwise(scores_of(values.mean(1))).rows
    several = pairwise(scores_of(values)).rows
    assert several["units"][0] == 30
    assert several["p"][0] == once["p"][0]


def test_a_missing_seed_is_left_out_of_both():
    values = np.random.default_rng(5).random((2, 2, 12))
    values[0, 1, 3] = NAN
    [row] = pairwise(scores_of(values)).rows.to_dict("records")
    differences = (values[0] - values[1]).mean(0)
    differences[3] = values[0, 0, 3] - values[1, 0, 3]
    assert row["difference"] == pytest.approx(differences.mean())


def test_groups_enter_by_their_mean():
    values = np.random.default_rng(6).random((2, 12))
    groups = [0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 7]
    result = pairwise(scores_of(values, groups=groups))
    d = values[0] - values[1]
    means = np.array([d[np.array(groups) == g].mean() for g in range(8)])
    assert result.unit_name == "group"
    assert result.rows["units"][0] == 8
    assert result.rows["p"][0] == pytest.approx(stats.wilcoxon(means).pvalue)


def test_the_matrix_is_symmetric():
    result = pairwise(scores_of(np.random.default_rng(7).random((3, 20))))
    matrix = result.matrix("p_holm")
    assert matrix.equals(matrix.T) and np.isnan(np.diag(matrix)).all()
    assert matrix.loc["loss 2", "loss 1"] == result.rows.set_index(["loss", "other"])["p_holm"]["loss 1", "loss 2"]


def test_holm_spans_all_pairs():
    result = pairwise(scores_of(np.random.default_rng(8).random((6, 20))))
    assert len(result.rows) == 15
    assert list(result.rows["p_holm"]) == list(holm(result.rows["p"].to_numpy()))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([[0.1] * 5, [0.2, 0.3, 0.4, 0.5, 0.6]], "5 cases that differ: no result can reach p ≤ 0.05."),
        ([[0.1] * 30, [0.1] * 29 + [0.2]], "29 of 30 cases are tied."),
        ([[0.1] * 30, [0.1] * 30], "Equal on all 30 cases."),
        ([[NAN, 0.1], [0.2, NAN]], "No case has a value from both."),
        # 19 small wins and one large defeat
        ([[0.51] * 19 + [0.0], [0.5] * 19 + [1.0]], "The mean favours one loss, the ranks the other"),
    ],
)
def test_reasons(values, words):
    [reasons] = pairwise(scores_of(values)).rows["reasons"]
    assert any(words in reason for reason in reasons)


def test_too_few_for_holm_is_told_exactly_when_it_is_so():
    # Eight wins in eight cases: p = 2 / 256; times 6 pairs 0.047, times 10 pairs 0.078.
    values = np.arange(5)[:, None] + 0.01 * np.arange(8)
    assert pairwise(scores_of(values[:4])).rows["p_holm"].max() <= 0.05
    assert not any(pairwise(scores_of(values[:4])).rows["reasons"])
    assert pairwise(scores_of(values)).rows["p_holm"].min() > 0.05
    assert all("too few for Holm's correction of 10 pairs" in r[0] for r in pairwise(scores_of(values)).rows["reasons"])
