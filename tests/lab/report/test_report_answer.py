"""The answer: its numbers by hand and by SciPy, and that it claims no more than the tests allow."""

import re

import numpy as np
import pytest
from folders import rule, write_folder
from scipy import stats

from unifocal.lab.report.analysis import analyse
from unifocal.lab.report.answer import answer, lead_of
from unifocal.lab.report.contents.compared import OPPOSED, p_table, pairs_table
from unifocal.lab.report.numbers import difference, value
from unifocal.lab.report.reading import read_study
from unifocal.lab.report.warnings import _order
from unifocal.lab.statistics.verdict import NETWORKS_DIFFER


def asked(out, metric="DSC"):
    study = read_study(out)
    [block] = analyse(study, metric)
    return answer(block, study)


def steps(*by_loss, jitter=0.0):
    """Losses so far above each other, on cases of their own difficulty; each case adds a little of its own."""

    def score(loss, seed, case):
        return 0.3 + 0.01 * case + by_loss[loss] + jitter * ((7 * case + 5 * loss) % 11 - 5)

    return score


def test_every_number_of_the_first_sentence(tmp_path):
    score = steps(0.0, 0.05, jitter=0.004)
    first, _ = asked(write_folder(tmp_path, "dice,focal", score, cases=30))
    table = np.array([[score(loss, 0, case) for case in range(30)] for loss in (0, 1)])
    folds = [table[1, fold::3].mean() for fold in range(3)]
    half = stats.t.ppf(0.975, 2) * np.std(folds, ddof=1) / np.sqrt(3)
    difference = table[1] - table[0]
    low, high = stats.t.interval(0.95, 29, difference.mean(), stats.sem(difference))
    mean = np.mean(folds)
    assert first == (
        f"focal has the highest mean DSC for lesion in made up, {mean:.3f} (95 % interval {mean - half:.3f} to "
        f"{mean + half:.3f} over 3 folds), {difference.mean():.3f} above dice, the next (30 cases, paired; 95 % "
        f"interval of the difference {low:.3f} to {high:.3f})."
    )


def test_where_groups_weigh_otherwise_both_differences_are_told(tmp_path):
    """The first sentence adds up: two means, their difference, and what is left where a group counts once."""
    groups = [0] * 10 + [*range(1, 21)]  # one patient of ten cases

    def score(loss, seed, case):
        return 0.3 + 0.01 * case + loss * (0.1 if case < 10 else 0.04 + 0.001 * (case % 5))

    out = write_folder(tmp_path, "dice,focal", score, groups=groups)
    first, _ = asked(out)
    [block] = analyse(read_study(out), "DSC")
    means = block.means("DSC")["mean"]
    apart = means["focal"] - means["dice"]
    once = np.mean([0.1, *(0.04 + 0.001 * (case % 5) for case in range(10, 30))])
    assert f"{apart:.3f}" != f"{once:.3f}"
    assert f"{apart:.3f} above dice, the next; counting each group once, {once:.3f} (21 groups, paired; 95" in first


def test_small_differences_have_the_digits_that_tell_them_from_nothing(tmp_path):
    def score(loss, seed, case):
        return 0.99 + 0.0001 * (case % 50) + loss * (0.0002 + 0.0004 * (case % 2 - 0.5))

    out = write_folder(tmp_path, "dice,focal", score)
    first, _ = asked(out)
    assert "0.0002 above dice" in first and "0.000 " not in first
    row = pairs_table(analyse(read_study(out), "DSC")[0], "x").rows[0]
    assert row[2].text == "−0.0002" and "0.000 " not in row[3].text
    assert [difference(number, "DSC") for number in (0.0, -0.0, -1e-20, 0.00051, -3e-5)] == [
        "0.000",
        "0.000",
        "0.000",
        "0.001",
        "−0.00003",
    ]
    assert value(-0.0001, "DSC") == "0.000"


def test_the_losses_differ_where_both_tests_say_so(tmp_path):
    score = steps(0.0, 0.01, 0.1, jitter=0.001)
    first, second = asked(write_folder(tmp_path, "dice,tversky,focal", score, cases=40, folds=5))
    assert first.startswith("focal has the highest mean DSC")
    assert second.startswith("The difference holds for new cases and for new trainings (p < 0.001 over cases; p ")
    assert second.endswith("focal is shown to be better than 2 of the 2 other losses: tversky, dice.")


def test_losses_shown_to_be_worse_are_named_where_the_next_is_not(tmp_path):
    luck = np.random.default_rng(3).normal(0, 0.01, (3, 40))

    def score(loss, seed, case):
        return 0.3 + 0.01 * case + (0.0 if loss == 1 else 0.1) + luck[loss, case]

    study = read_study(write_folder(tmp_path, "dice,tversky,focal", score, cases=40, folds=5))
    [block] = analyse(study, "DSC")
    best, other, last = block.ranked
    _, second = answer(block, study)
    assert last == "tversky" and second.startswith(f"The data cannot tell {best} from {other} (p ")
    assert second.endswith(f"; shown to be worse than {best}: tversky.")


def test_many_losses_shown_to_be_worse_are_counted(tmp_path):
    losses = ",".join(f"tversky:delta={n / 10}" for n in range(1, 10))
    score = steps(*[0.01 * n for n in range(8)], 0.2, jitter=0.001)
    _, second = asked(write_folder(tmp_path, losses, score, cases=40, folds=5))
    assert "better than 8 of the 8 other losses: delta=0.8, delta=0.7" in second and second.endswith(" and 2 more.")


def test_these_networks_differ_where_only_the_cases_say_so(tmp_path):
    def score(loss, seed, case):  # a few points apart, but by folds of very different size
        return 0.5 + (0.01 + 0.05 * (case % 3 == 0) + 0.001 * (case % 7)) * loss

    study = read_study(write_folder(tmp_path, "dice,focal", score))
    [block] = analyse(study, "DSC")
    lead = lead_of(block, "focal", "dice")
    # The corrected resampled t-test by its equation: three folds, n_test / n_train = 1/2.
    differences = [np.mean([score(1, 0, n) - score(0, 0, n) for n in range(fold, 30, 3)]) for fold in range(3)]
    t = np.mean(differences) / np.sqrt((1 / 3 + 1 / 2) * np.var(differences, ddof=1))
    assert lead.p_folds == pytest.approx(2 * stats.t.sf(t, 2)) and lead.p_folds > 0.05 > lead.p_cases
    _, second = answer(block, study)
    assert second.startswith("The trained networks differ on new cases (p < 0.001 over cases), but the folds do not")
    assert f"p = {lead.p_folds:.3f} over folds" in second


def test_no_difference_shown_tells_what_could_have_been_seen(tmp_path):
    score, losses = rule(step=0.0, seed=1), ["dice", "tversky", "focal"]
    study = read_study(write_folder(tmp_path, ",".join(losses), score, cases=60, folds=5))
    [block] = analyse(study, "DSC")
    _, second = answer(block, study)
    best, other = block.ranked[:2]
    assert second.startswith(f"The data cannot tell {best} from {other} or from 1 other loss (p ")
    lead = lead_of(block, best, other)
    assert f"is about {lead.seen_cases:.3f} over the cases and {lead.seen_folds:.3f} over the folds." in second
    # Three pairs: the normal approximation at 0.05 / 3 and 80 % power is 2.394 + 0.842 standard errors.
    first, next_ = ([score(losses.index(loss), 0, case) for case in range(60)] for loss in (best, other))
    sd = np.std(np.subtract(first, next_), ddof=1)
    assert lead.seen_cases == pytest.approx(3.236 * sd / np.sqrt(60), rel=0.05)


def test_those_that_only_the_cases_tell_apart_are_no_equals(tmp_path):
    def score(loss, seed, case):  # the third far behind, but on one fold of three
        return 0.6 + 0.001 * ((7 * case + 3 * loss) % 11) - (loss == 2) * (0.01 + 0.5 * (case % 3 == 0))

    study = read_study(write_folder(tmp_path, "dice,tversky,focal", score))
    [block] = analyse(study, "DSC")
    assert NETWORKS_DIFFER in set(block.verdicts.rows["verdict"])
    _, second = answer(block, study)
    assert " or from " not in second
    assert second.endswith(
        "; 1 other loss differs from it on new cases with these trained networks, but the folds do not show that "
        "networks trained anew would."
    )


def test_folds_so_few_that_no_difference_would_be_seen(tmp_path):
    def score(loss, seed, case):  # as good as each other, each on other folds
        return 0.5 + 0.01 * (case % 7) + 0.2 * (case % 3 == loss)

    _, second = asked(write_folder(tmp_path, "dice,tversky,focal", score))
    assert re.search(r"\(power 80 %\) is about 0\.\d+ over the cases; over the folds none would have been", second)


def test_the_mean_alone_does_not_win(tmp_path):
    def score(loss, seed, case):  # slightly worse on nearly all cases, far better on two
        return 0.5 + loss * (0.4 if case in (0, 1) else -0.01 - 0.0001 * case)

    first, second = asked(write_folder(tmp_path, "dice,focal", score))
    assert first.startswith("focal has the highest mean DSC")
    assert second.startswith("The tests favour dice where the mean favours focal (p < 0.001 over cases;")
    # The page marks such a pair, and the files have the reason.
    [block] = analyse(read_study(tmp_path), "DSC")
    matrix, pairs = p_table(block, block.pairs, "p"), pairs_table(block, "x")
    assert matrix.rows[0][2].text == "↑ < 0.001 ***‡" and OPPOSED in matrix.notes
    assert pairs.rows[0][2].text.endswith("‡") and OPPOSED in pairs.notes
    assert "The mean favours one loss, the ranks the other" in pairs.data["reasons"][0]


def test_ranks_may_differ_where_the_means_do_not(tmp_path):
    def score(loss, seed, case):  # better on nearly all cases, far worse on three
        return 0.5 + loss * (-0.2 if case < 3 else 0.025 + 0.0001 * case)

    first, second = asked(write_folder(tmp_path, "dice,focal", score))
    assert first.startswith("focal has the highest mean DSC") and "the difference −0.0" in first
    assert "over cases by ranks, though the interval of the mean difference holds 0; p" in second
    assert second.endswith("and focal is shown to be the better of the two.")


def test_equal_everywhere(tmp_path):
    first, second = asked(write_folder(tmp_path, score=lambda loss, seed, case: 0.5))
    assert first.endswith(
        "0.500 (95 % interval 0.500 to 0.500 over 3 folds), and so have tversky, focal: the same on every case."
    )
    assert second == "In these data there is no difference between them to be found."


def test_of_distances_the_lowest_is_best(tmp_path):
    first, _ = asked(write_folder(tmp_path, "dice,focal", steps(0.1, 0.0, jitter=0.001)), "HD95")
    # HD95 is 20 (1 - DSC), so 0.1 in DSC are 2 pixels.
    assert first.startswith("dice has the lowest mean HD95 for lesion in made up, ") and "2.00 below focal" in first


def test_none_is_best_where_some_have_fewer_values(tmp_path):
    def score(loss, seed, case):
        return float("nan") if (loss, case) == (0, 3) else 0.5 + 0.1 * (loss == 0) + case / 999

    first, second = asked(write_folder(tmp_path, "dice,focal", score))
    assert first.startswith("None can be called the best by mean DSC for lesion in made up: it is undefined on more")
    assert "dice is the highest, 0.6" in second


def test_folds_and_cases_that_disagree(tmp_path):
    """Two small folds favour the one loss, a large one, with most of the cases, the other."""
    tests = [[*range(4)], [*range(4, 8)], [*range(8, 30)]]
    splits = [{"train": [0], "validation": [1], "test": test} for test in tests]

    def score(loss, seed, case):
        return 0.5 + case / 999 + ((0.1 if case < 8 else -0.05) if loss == 0 else 0)

    out = write_folder(tmp_path, "dice,focal", score, splits=splits)
    first, _ = asked(out)
    assert "dice has the highest mean DSC" in first
    assert "but over all cases alike focal, the next, is ahead by 0.010 (30 cases" in first
    [block] = analyse(read_study(out), "DSC")
    assert [*_order(block)] == ["The mean over folds puts dice first, the mean over cases focal: neither is settled."]


def test_a_loss_without_every_run_is_not_the_best(tmp_path):
    out = write_folder(tmp_path, "dice,tversky,focal", steps(0.0, 0.01, 0.3, jitter=0.002), ends={(2, 1): "failed"})
    first, _ = asked(out)
    assert first.startswith("Of the losses that finished, tversky has the highest mean DSC") and "above dice" in first


def test_only_one_has_every_run(tmp_path):
    first, second = asked(write_folder(tmp_path, ends={(0, 0): "waiting", (1, 1): "waiting"}))
    assert first.startswith("So far focal has the highest mean DSC")
    assert second == "Not one of the 2 other losses has every run: there is nothing to compare it with."


def test_one_loss(tmp_path):
    assert asked(write_folder(tmp_path, "dice"))[1] == "It is the only loss: there is nothing to compare it with."


def test_nothing_to_say(tmp_path):
    ends = {(loss, fold): "failed" for loss in range(3) for fold in range(3)}
    first, second = asked(write_folder(tmp_path / "failed", ends=ends))
    assert first == "All 9 runs for lesion in made up failed."
    assert second == "The first: RuntimeError: <b>it</b> broke & $fell$."
    first, _ = asked(write_folder(tmp_path / "waiting", ends=dict.fromkeys(ends, "waiting")))
    assert first == "No run for lesion in made up has finished yet."
    one_each = {(loss, loss): "waiting" for loss in range(3)}
    assert asked(write_folder(tmp_path / "parts", ends=one_each))[0].startswith("No loss has finished every run")
    nan = float("nan")
    first, _ = asked(write_folder(tmp_path / "nan", score=lambda loss, seed, case: nan))
    assert first == "No test case has a DSC for lesion in made up, though 9 runs finished."


@pytest.mark.slow
def test_no_folder_of_made_up_noise_is_called_a_finding(tmp_path):
    """Twenty comparisons of equal losses: at the level of 5 % both tests together reject at most now and then."""
    found = 0
    for seed in range(20):
        draws = rule(step=0.0, seed=seed)
        found += (
            "new trainings (p"
            in asked(write_folder(tmp_path / str(seed), "dice,focal", draws, folds=5, with_runs=False))[1]
        )
    assert found <= 3
