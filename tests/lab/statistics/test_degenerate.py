"""Whatever the table looks like, every statistic of a page comes out, says what is wrong, and invents nothing."""

import time
import warnings

import numpy as np
import pytest
from tidy import make_table

from unifocal.lab.statistics.datasets import over_datasets
from unifocal.lab.statistics.friedman import friedman
from unifocal.lab.statistics.intervals import case_intervals, seed_spread, summarise
from unifocal.lab.statistics.pairwise import pairwise
from unifocal.lab.statistics.power import detectable
from unifocal.lab.statistics.ranks import METHODS, rankings
from unifocal.lab.statistics.retraining import over_folds
from unifocal.lab.statistics.stability import stability
from unifocal.lab.statistics.table import completeness, make_scores
from unifocal.lab.statistics.verdict import NOT_SHOWN, NOT_TESTED, verdicts

NAN = float("nan")
RANDOM = np.random.default_rng(0).random((3, 2, 20))


def page(table, groups=None, resamples=50):
    """Everything that a report asks for."""
    scores = make_scores(table, "DSC", "lesion", groups=groups)
    cases, folds = pairwise(scores), over_folds(scores)
    return {
        "summary": summarise(table),
        "completeness": completeness(scores),
        "intervals": case_intervals(scores, resamples=200),
        "seeds": seed_spread(scores),
        "pairs": cases,
        "rank sums": pairwise(scores, "rank-sum"),
        "folds": folds,
        "verdicts": verdicts(cases, folds),
        "friedman": friedman(scores),
        "ranks": rankings(scores),
        "stability": stability(scores, resamples=resamples),
        "power": detectable(scores),
    }


def reasons(page):
    found = [reason for result in page.values() for reason in getattr(result, "reasons", ())]
    found += [reason for row in page["pairs"].rows["reasons"] for reason in row]
    return found + [reason for row in page["intervals"]["reasons"] for reason in row]


def without(values, where):
    values = values.copy()
    values[where] = NAN
    return values


FAILED = make_table(RANDOM)
TABLES = {
    "a failed fold": FAILED[~((FAILED["loss"] == "loss 1") & (FAILED["fold"] == 3))],
    "a failed loss": FAILED[(FAILED["loss"] != "loss 1") | ((FAILED["seed"] == 0) & (FAILED["fold"] == 0))],
    "every loss failed somewhere": FAILED[FAILED["fold"] != FAILED["loss"].str[-1].astype(int)],
    "no common cell": FAILED[FAILED["fold"] % 3 == FAILED["loss"].str[-1].astype(int)],
    "one fold": make_table(RANDOM, folds=1),
    "one case": make_table(RANDOM[..., :1]),
    "two cases": make_table(RANDOM[..., :2]),
    "one loss": make_table(RANDOM[:1]),
    "one number": make_table([[0.5]]),
    "ties everywhere": make_table(np.ones((4, 2, 20))),
    "two values": make_table(RANDOM.round(0)),
    "undefined everywhere": make_table(np.full((3, 1, 10), NAN)),
    "one loss undefined": make_table(without(RANDOM, np.s_[1])),
    "undefined here and there": make_table(without(RANDOM, RANDOM < 0.3)),
    "one case defined": make_table(without(RANDOM, np.s_[:, :, 1:])),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("grouped", [False, True])
def test_a_page_of_anything(name, grouped):
    table = TABLES[name]
    groups = {case: case[-1] for case in table["case"]} if grouped else None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = page(table, groups)
    assert reasons(found), "a table like this needs a word of warning"
    pairs = found["pairs"].rows
    for column in ("p", "p_holm"):
        assert pairs[column].dropna().between(0, 1).all()
    assert (pairs["p"].isna() == (pairs["units"] == 0)).all()
    assert pairs["effect"].dropna().between(-1, 1).all()
    intervals = found["intervals"].dropna()
    assert (intervals["low"] <= intervals["mean"] + 1e-12).all() and (
        intervals["mean"] <= intervals["high"] + 1e-12
    ).all()
    ranks = found["ranks"].rows
    assert set(ranks["method"]) == set(METHODS) and len(found["stability"].rows) == len(ranks)
    assert ranks["rank"].dropna().between(1, len(ranks)).all()


def test_nothing_is_claimed_where_nothing_is_known():
    for name in ("one case", "ties everywhere", "undefined everywhere", "no common cell"):
        assert set(page(TABLES[name])["verdicts"].rows["verdict"]) <= {NOT_SHOWN, NOT_TESTED}


def test_all_ties_share_the_first_rank():
    found = page(TABLES["ties everywhere"])
    assert (found["ranks"].rows["rank"] == 1).all()
    assert (found["stability"].rows["first"] == 1).all()
    assert any("shared by" in reason for reason in found["stability"].reasons)


def test_a_failed_fold_takes_its_loss_out_of_the_ranking_only():
    found = page(TABLES["a failed fold"])
    assert set(found["ranks"].rows["loss"]) == {"loss 0", "loss 2"}
    assert list(found["pairs"].rows["units"]) == [16, 20, 16]
    assert list(found["folds"].rows["folds"]) == [4, 5, 4]


def test_means_are_those_of_the_values_that_exist():
    values = without(RANDOM, RANDOM < 0.3)
    by_case = [[row[np.isfinite(row)].mean() for row in loss.T if np.isfinite(row).any()] for loss in values]
    assert list(page(make_table(values))["intervals"]["mean"]) == pytest.approx([np.mean(means) for means in by_case])


def test_data_sets_with_gaps():
    parts = {name: make_scores(table, "DSC", "lesion") for name, table in TABLES.items()}
    over = over_datasets(parts)
    assert len(over.cases) == len(TABLES)
    for result in (pairwise(over), friedman(over), rankings(over), stability(over, resamples=20), detectable(over)):
        assert result.reasons
    assert "One fold" in over_folds(over).reasons[-1]


@pytest.mark.slow
def test_a_hundred_losses():
    rng = np.random.default_rng(1)
    values = rng.normal(0.7, 0.1, 300) + rng.normal(0, 0.05, (100, 300)) + np.linspace(0, 0.02, 100)[:, None]
    scores = make_scores(make_table(values), "DSC", "lesion")
    start = time.process_time()
    result = stability(scores, methods=("mean", "median", "mean rank"), resamples=1000)
    assert time.process_time() - start < 5
    assert len(result.rows) == 300
    assert result.frequencies.groupby(["method", "loss"])["share"].sum().to_numpy() == pytest.approx(1)
    pairs = pairwise(scores)
    assert len(pairs.rows) == 4950 and (pairs.rows["p_holm"] >= pairs.rows["p"]).all()
    assert len(friedman(scores).mean_ranks) == 100
