"""The tidy table survives a round trip, and its statistics agree with a calculation by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from unifocal.lab.results import COLUMNS, half_width, join_tables, read_table, summarise, write_table


def make_table(values, loss="dice", metric="DSC"):
    """`values[fold]` are the values of that fold's images."""
    rows = [
        (loss, fold, 0, f"case {fold} {n}", "lesion", metric, value)
        for fold, images in enumerate(values)
        for n, value in enumerate(images)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def test_the_interval_by_hand():
    # Mean 0.7, standard deviation 0.1, t(0.975, 2) = 4.30265: 4.30265 * 0.1 / sqrt(3)
    assert half_width([0.6, 0.7, 0.8]) == pytest.approx(0.248414, abs=1e-6)
    # Five folds: the factor 2.77645 / sqrt(5) on the standard deviation
    values = [0.1, 0.2, 0.4, 0.4, 0.9]
    assert half_width(values) == pytest.approx(2.776445 / math.sqrt(5) * np.std(values, ddof=1), rel=1e-6)
    assert math.isnan(half_width([0.5]))


def test_mean_of_fold_means_not_of_images():
    [row] = summarise(make_table([[0.0, 0.0, 0.0, 0.0], [1.0]])).to_dict("records")
    assert row["mean"] == 0.5
    assert (row["folds"], row["images"], row["undefined"]) == (2, 5, 0)
    assert row["half_width"] == pytest.approx(12.7062 * 0.5, rel=1e-4)


def test_undefined_values_are_left_out_and_counted():
    nan = float("nan")
    [row] = summarise(make_table([[nan, 0.4], [0.6, 0.8], [nan, nan]], metric="recall")).to_dict("records")
    assert row["mean"] == pytest.approx((0.4 + 0.7) / 2)
    assert (row["folds"], row["images"], row["undefined"]) == (2, 6, 3)
    [row] = summarise(make_table([[nan], [nan]])).to_dict("records")
    assert math.isnan(row["mean"]) and row["folds"] == 0


def test_losses_keep_their_order_and_stay_apart():
    table = join_tables([make_table([[0.5], [0.7]], "tversky"), make_table([[0.1], [0.3]], "dice")])
    summary = summarise(table)
    assert list(summary["loss"]) == ["tversky", "dice"]
    assert list(summary["mean"]) == pytest.approx([0.6, 0.2])


def test_round_trip(tmp_path):
    table = make_table([[1 / 3, float("nan")], [0.1 + 0.2, 1.0]], loss="focal:alpha=[0.25,0.75]")
    table.loc[0, "case"] = "NA"  # a name, not a missing value
    write_table(tmp_path / "results.csv", table)
    pd.testing.assert_frame_equal(read_table(tmp_path / "results.csv"), table)
    assert (tmp_path / "results.csv").read_text().splitlines()[0] == "loss,fold,seed,case,class,metric,value"


def test_no_runs_no_rows():
    assert summarise(join_tables([])).empty
