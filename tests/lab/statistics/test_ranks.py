"""Four ways to rank, by hand; ranks under bootstraps, against resampling one case at a time."""

import numpy as np
import pytest
from scipy import stats
from tidy import demsar, scores_of

from unifocal.lab.statistics import stability as module
from unifocal.lab.statistics.common import common
from unifocal.lab.statistics.pairwise import holm, pairwise
from unifocal.lab.statistics.ranks import METHODS, rankings
from unifocal.lab.statistics.stability import stability

# One disaster, otherwise the best: mean 0.66, 0.7, 0.6; median 0.8, 0.7, 0.6.
DISASTER = np.array([[0.8, 0.8, 0.8, 0.8, 0.1], [0.7] * 5, [0.6] * 5])


def of(rankings, method, column="rank"):
    rows = rankings.rows
    return list(rows[rows["method"] == method][column])


def test_mean_median_and_mean_rank_by_hand():
    result = rankings(scores_of(DISASTER))
    assert of(result, "mean", "value") == pytest.approx([0.66, 0.7, 0.6]) and of(result, "mean") == [2, 1, 3]
    assert of(result, "median", "value") == pytest.approx([0.8, 0.7, 0.6]) and of(result, "median") == [1, 2, 3]
    # Case ranks (1, 2, 3) four times and (3, 1, 2): sums 7, 9, 14
    assert of(result, "mean rank", "value") == pytest.approx([7 / 5, 9 / 5, 14 / 5])
    assert of(result, "mean rank") == [1, 2, 3]
    assert any("disagree about the first place" in reason for reason in result.reasons)


def test_a_loss_without_any_value_leaves_the_others_their_ranks():
    ranks = rankings(scores_of(np.array([[np.nan] * 5, [0.7] * 5, [0.6] * 5])))
    assert of(ranks, "mean") == [1, 2] and "Left out of what follows: loss 0." in ranks.reasons


def test_rank_by_test_counts_the_losses_beaten():
    # As in challengeR's tests: of two losses apart on every case one is first; without significance both are.
    cases = np.linspace(0, 0.1, 10)
    result = rankings(scores_of([cases + 0.2, cases + 0.9, cases + 0.2]))
    assert of(result, "test", "value") == [0, 2, 0] and of(result, "test") == [2, 1, 2]
    assert of(rankings(scores_of([cases[:3] + 0.2, cases[:3] + 0.9])), "test") == [1, 1]


def test_rank_by_test_is_what_the_table_of_pairs_says():
    rng = np.random.default_rng(0)
    scores = scores_of(rng.random((6, 40)) + 0.1 * np.arange(6)[:, None])
    significant = pairwise(scores).rows.query("p_holm <= 0.05")
    beaten = [int((significant["better"] == loss).sum()) for loss in scores.losses]
    assert of(rankings(scores), "test", "value") == beaten and max(beaten) > 2


def test_lower_is_better_for_every_method():
    values = np.random.default_rng(1).random((4, 30)) + 0.3 * np.arange(4)[:, None]
    for lower, expected in ((False, [4, 3, 2, 1]), (True, [1, 2, 3, 4])):
        result = rankings(scores_of(values, lower_is_better=lower))
        drawn = stability(scores_of(values, lower_is_better=lower), resamples=50)
        for method in METHODS:
            assert of(result, method) == expected
            assert of(drawn, method, "median") == expected


def test_demsar_mean_ranks():
    values = dict(zip(demsar().losses, of(rankings(demsar()), "mean rank", "value"), strict=True))
    assert (values["C4.5"], values["C4.5+m"]) == (pytest.approx(3.143, abs=5e-4), 2)


def test_ties_share_the_lowest_rank_and_agreement_is_kendalls():
    result = rankings(scores_of([[0.5, 0.5], [0.7, 0.7], [0.7, 0.7], [0.1, 0.1]]))
    assert of(result, "mean") == [3, 1, 1, 4]
    assert result.matrix().loc["loss 3"].to_list() == [4, 4, 4, 1]
    assert np.isnan(result.agreement.loc["mean", "test"])  # the test ties all losses
    agreement = rankings(scores_of(DISASTER)).agreement
    assert agreement.loc["mean", "median"] == pytest.approx(stats.kendalltau([2, 1, 3], [1, 2, 3]).statistic)


def bootstrap_ranks(values, method, resamples, rng):
    """Ranks as above, from cases drawn one by one and each method written out anew."""
    found = []
    for _ in range(resamples):
        drawn = values[:, rng.integers(values.shape[1], size=values.shape[1])]
        if method == "mean":
            number = -drawn.mean(1)
        elif method == "median":
            number = -np.median(drawn, axis=1)
        elif method == "mean rank":
            number = stats.rankdata(-drawn, axis=0).mean(1)
        else:
            pairs = [(a, b) for a in range(len(drawn)) for b in range(a)]
            p = [stats.wilcoxon(drawn[a] - drawn[b], zero_method="pratt", method="asymptotic").pvalue for a, b in pairs]
            significant = holm(np.array(p)) <= 0.05
            number = np.zeros(len(drawn))
            for (a, b), is_significant in zip(pairs, significant, strict=True):
                if is_significant:
                    number[
                        a if stats.rankdata(np.abs(drawn[a] - drawn[b])) @ np.sign(drawn[a] - drawn[b]) > 0 else b
                    ] -= 1
        found.append(stats.rankdata(number.round(12), method="min"))
    return np.array(found)


@pytest.mark.parametrize("method", METHODS)
def test_bootstraps_are_those_of_a_plain_loop(method):
    rng = np.random.default_rng(2)
    values = (rng.random((4, 30)) + 0.1 * np.arange(4)[:, None]).round(1)  # with ties
    plain = bootstrap_ranks(values, method, 400, np.random.default_rng(3))
    result = stability(scores_of(values), methods=[method], resamples=4000)
    # The share of 400 plain bootstraps is uncertain by 0.025 at most; 4 of these.
    for n in range(4):
        shares = result.frequencies.query(f"loss == 'loss {n}'").set_index("rank")["share"]
        for rank in range(1, 5):
            assert shares.get(rank, 0) == pytest.approx(np.mean(plain[:, n] == rank), abs=0.1)
        assert shares.sum() == pytest.approx(1)
    assert of(result, method, "first") == pytest.approx(list((plain == 1).mean(0)), abs=0.1)


@pytest.mark.parametrize("seed", range(4))
def test_the_weighted_signed_rank_is_that_of_the_drawn_units(seed):
    rng = np.random.default_rng(seed)
    differences = rng.integers(-4, 6, 40) / 10 if seed % 2 else rng.normal(size=40)
    counts = rng.multinomial(40, np.full(40, 1 / 40), size=10)
    z = module._signed_rank_z(differences, counts.T.astype(np.float32))
    for row, found in zip(counts, z, strict=True):
        drawn = np.repeat(differences, row)
        expected = stats.wilcoxon(drawn, zero_method="pratt", method="asymptotic").pvalue
        assert 2 * stats.norm.sf(abs(found)) == pytest.approx(expected, rel=1e-4)  # single precision


def test_the_weighted_median_is_that_of_the_drawn_cases():
    rng = np.random.default_rng(4)
    values = rng.integers(0, 5, (3, 11)).astype(float)
    shared = common(scores_of(values))
    counts = rng.multinomial(11, np.full(11, 1 / 11), size=50).astype(float)
    expected = [[np.median(np.repeat(loss, row.astype(int))) for loss in values] for row in counts]
    assert module._median(shared, counts, 0.05).tolist() == expected


def test_holms_decisions_column_by_column():
    p = np.random.default_rng(5).random((15, 200)) ** 4
    expected = np.stack([holm(column) <= 0.05 for column in p.T], axis=1)
    assert (module._holm_rejects(p, 0.05) == expected).all() and 0 < expected.mean() < 0.5


def test_a_clear_winner_is_stable_and_a_coin_toss_is_not():
    rng = np.random.default_rng(6)
    clear = stability(scores_of(np.stack([rng.random(50) + 2, rng.random(50)])))
    assert of(clear, "mean", "first") == [1, 0] and of(clear, "mean", "high") == [1, 2]
    assert clear.kendall.set_index("method").loc["mean"].tolist() == [1, 1, 1]
    assert not clear.reasons
    toss = stability(scores_of(rng.random((2, 50))))
    assert 0.02 < min(of(toss, "mean", "first")) and any("not settled" in reason for reason in toss.reasons)


def test_groups_are_drawn_whole():
    rng = np.random.default_rng(7)
    groups = [n % 10 for n in range(100)]
    shift = np.where(np.arange(10) < 6, 0.1, -0.1)  # six patients for the one, four for the other
    values = np.stack([0.5 + shift[groups] + 0.01 * rng.normal(size=100), np.full(100, 0.5)])
    alone = of(stability(scores_of(values), methods=["mean"]), "mean", "first")
    whole = of(stability(scores_of(values, groups=groups), methods=["mean"]), "mean", "first")
    assert alone[0] > 0.95
    # Of ten draws with P = 0.6 more than half: 0.633, and half of the cases with five (0.201) by the noise
    assert whole[0] == pytest.approx(0.633 + 0.1, abs=0.12)


def test_the_same_seed_gives_the_same_ranks():
    scores = scores_of(np.random.default_rng(8).random((3, 20)))
    assert stability(scores, resamples=100).rows.equals(stability(scores, resamples=100).rows)
    assert not stability(scores, resamples=100).rows.equals(stability(scores, resamples=100, seed=1).rows)
