"""The tidy table survives a round trip."""

import pandas as pd

from unifocal.lab.results import COLUMNS, join_tables, read_table, write_table


def make_table(values, loss="dice", metric="DSC"):
    """`values[fold]` are the values of that fold's images."""
    rows = [
        ("data", "unet", loss, fold, 0, f"case {fold} {n}", "lesion", metric, value)
        for fold, images in enumerate(values)
        for n, value in enumerate(images)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def test_round_trip(tmp_path):
    table = make_table([[1 / 3, float("nan")], [0.1 + 0.2, 1.0]], loss="focal:alpha=[0.25,0.75]")
    table.loc[0, "case"] = "NA"  # a name, not a missing value
    write_table(tmp_path / "results.csv", table)
    pd.testing.assert_frame_equal(read_table(tmp_path / "results.csv"), table)
    assert (tmp_path / "results.csv").read_text().splitlines()[0] == ",".join(COLUMNS)


def test_no_runs_no_rows():
    table = join_tables([])
    assert table.empty and tuple(table) == COLUMNS
