"""Short names, numbers, and thirds by size, by hand."""

import numpy as np
import pandas as pd
import pytest
from folders import there, write_folder
from hypothesis import given
from hypothesis import strategies as st

from unifocal.lab.report.analysis import analyse
from unifocal.lab.report.figures.ranks import critical_difference
from unifocal.lab.report.labels import clipped, short_names
from unifocal.lab.report.numbers import heading, interval, mean_span, notes_on, p_value, span, stars, value
from unifocal.lab.report.reading import read_study
from unifocal.lab.report.sizes import by_lesion_size, thirds

NAN = float("nan")


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["dice", "tversky:delta=0.7"], ["dice", "tversky"]),
        (["dice", "tversky:delta=0.7", "tversky:delta=0.3"], ["dice", "tversky delta=0.7", "tversky delta=0.3"]),
        (["focal:alpha=[0.25,0.75]:gamma=2", "focal:alpha=[0.25,0.75]:gamma=1"], ["gamma=2", "gamma=1"]),
        (["focal", "focal:gamma=1"], ["focal", "gamma=1"]),
        (["dice"], ["dice"]),
    ],
)
def test_short_names(labels, names):
    assert list(short_names(labels).values()) == names


argument = st.tuples(st.sampled_from(["delta", "gamma"]), st.sampled_from(["0.1", "0.2", "[1,2]", "x"]))
label = st.builds(
    lambda name, arguments: ":".join([name, *(f"{k}={v}" for k, v in sorted(arguments.items()))]),
    st.sampled_from(["dice", "focal", "tversky"]),
    st.lists(argument, max_size=2).map(dict),
)


@given(st.lists(label, min_size=1, max_size=8, unique=True))
def test_no_two_losses_are_called_the_same(labels):
    names = short_names(labels)
    assert list(names) == labels and len(set(names.values())) == len(labels)


def test_a_long_name_keeps_both_ends():
    assert clipped("a" * 30 + "b" * 30, 11) == "aaaaa…bbbbb" and clipped("abc") == "abc"


def test_numbers():
    assert value(0.12345, "DSC") == "0.123" and value(-1.5, "HD95") == "−1.50" and value(NAN, "DSC") == "–"
    assert interval(0.5, NAN, "DSC") == "0.500" and interval(0.5, 0.25, "DSC") == "0.500 ± 0.250"
    assert span(-0.1, 0.1, "DSC") == "−0.100 to 0.100" and span(NAN, 1, "DSC") == "–"
    assert [p_value(p) for p in (0.0004, 0.0504, 1, NAN)] == ["< 0.001", "0.050", "1.000", "–"]
    assert [stars(p) for p in (0.0511, 0.05, 0.01, 0.001, NAN)] == ["", "*", "**", "***", ""]
    assert heading("HD95", None) == "HD95 [px]" and heading("HD95", (1.0, 1.0, 3.0)) == "HD95 [mm]"
    assert heading("volume error", None) == "absolute volume error"
    assert heading("DSC", None) == "DSC" and heading("false lesions", None) == "false lesions"


def test_an_interval_is_cut_where_nothing_is_possible():
    assert mean_span(0.9, 0.2, "DSC") == "0.700 to 1.000" and mean_span(0.1, 0.2, "DSC") == "0.000 to 0.300"
    assert mean_span(0.9, 0.2, "volume error") == "0.700 to 1.100" and mean_span(3, 5, "HD95") == "0.00 to 8.00"
    assert mean_span(0.9, NAN, "DSC") == "–"
    possible = [(0.5, 0.5, "DSC"), (0.9, NAN, "DSC"), (0.9, 0.2, "volume error")]
    assert notes_on(possible) == [] and all(notes_on([row]) for row in ((0.9, 0.2, "DSC"), (3, 5, "HD95")))


def test_thirds_keep_equal_sizes_together():
    assert thirds(pd.Series([1, 2, 3, 4, 5, 6])).tolist() == [0, 0, 1, 1, 2, 2]
    assert thirds(pd.Series([5, 5, 5, 5])).tolist() == [0, 0, 0, 0]
    assert thirds(pd.Series([1, 1, 1, 1, 1, 9])).tolist() == [0, 0, 0, 0, 0, 2]
    assert thirds(pd.Series([], dtype=float)).empty


def test_results_by_size(tmp_path):
    # The truth of case n is a block of side 6 + n % 9, so nine sizes; the score is the side over 20.
    score = lambda loss, seed, case: (6 + case % 9) / 20  # noqa: E731
    [block] = analyse(read_study(write_folder(tmp_path, "dice,focal", score, cases=27)), "DSC")
    small, medium, large = block.case_thirds
    assert [(t.smallest, t.largest, t.number) for t in (small, medium, large)] == [
        (36, 64, 9),
        (81, 121, 9),
        (144, 196, 9),
    ]
    means = [third.rows.set_index("loss")["mean"]["dice"] for third in (small, medium, large)]
    assert means == pytest.approx([7 / 20, 10 / 20, 13 / 20])
    # A lesion of each case, of size 50 + 9 n, is missed by loss l where (n + l) % 3 = 0.
    found = [third.rows.set_index("loss")["mean"] for third in block.lesion_thirds]
    assert [third.number for third in block.lesion_thirds] == [9, 9, 9]
    assert np.array([[part["dice"], part["focal"]] for part in found]) == pytest.approx(2 / 3)
    # One lesion a case, so the interval is that of the mean over cases.
    for third in block.lesion_thirds:
        low, high = third.rows[["low", "high"]].to_numpy().T
        assert (0.1 < low).all() and (low < 2 / 3).all() and (2 / 3 < high).all() and (high <= 1).all()


def test_the_interval_of_lesions_draws_groups_whole():
    found = [True, True, False, False] * 50
    lesions = pd.DataFrame({"loss": "dice", "case": [f"case {n}" for n in range(200)], "number": 0, "size": 9.0})
    lesions["found"] = found
    widths = []
    for unit in (range(200), [n // 2 for n in range(200)]):  # pairs of cases that are found or missed together
        [third] = by_lesion_size(lesions, dict(zip(lesions["case"], unit, strict=True)))
        widths.append(float((third.rows["high"] - third.rows["low"]).iloc[0]))
    assert widths[1] / widths[0] == pytest.approx(2**0.5, rel=0.15)


def test_one_case_is_no_cases(tmp_path):
    [block] = analyse(read_study(write_folder(tmp_path, cases=1, folds=1)), "DSC")
    diagram = there(critical_difference(block.friedman, dict(block.names), "x"))
    assert diagram.caption.startswith("Mean ranks over 1 case, 1 is best.")
    told = " ".join([*block.friedman.reasons, *block.pairs.reasons, *block.pairs.rows["reasons"].sum()])
    assert "1 case is too few" in told and "1 case that differs: no result" in told and "1 cases" not in told
