"""Which losses are drawn in which panels, and what cannot be drawn."""

import pytest

from unifocal.lab.choices import LossChoice
from unifocal.lab.errors import LabError
from unifocal.lab.plots.rows import make_rows


def labels(row):
    return {label: choice.label for label, choice in row.curves.items()}


def test_without_anything_five_of_the_family_share_a_row():
    [row] = make_rows(None, None, None)
    assert list(row.curves) == ["cross-entropy", "focal", "dice", "focal-tversky", "unified-focal"]
    assert not row.title and not row.varies


def test_values_of_gamma_alone_are_the_papers_figure_2():
    first, second = make_rows(None, "0,0.5", None)
    assert (first.title, second.title) == ("asymmetric-focal", "asymmetric-focal-tversky")
    assert labels(first) == {"γ = 0": "asymmetric-focal:gamma=0.0", "γ = 0.5": "asymmetric-focal:gamma=0.5"}
    assert list(second.curves) == list(first.curves) and second.varies


def test_every_pair_is_a_curve():
    [row] = make_rows("unified-focal:lam=0.3", "0,0.5", "0.4,0.6,0.8")
    assert len(row.curves) == 6
    assert row.curves["γ = 0.5, δ = 0.8"] == LossChoice.parse("unified-focal:lam=0.3:gamma=0.5:delta=0.8")


def test_one_value_of_each_is_a_setting_and_the_losses_share_a_row():
    [row] = make_rows("unified-focal,symmetric-unified-focal", "0.3", "0.7")
    assert [choice.label for choice in row.curves.values()] == [
        "unified-focal:delta=0.7:gamma=0.3",
        "symmetric-unified-focal:delta=0.7:gamma=0.3",
    ]


@pytest.mark.parametrize(
    ("losses", "gamma", "delta", "message"),
    [
        ("dice,fcal", None, None, r"no loss named 'fcal'.*'focal'"),
        ("", None, None, "at least one name"),
        ("dice,focal,dice", None, None, "each loss once.*dice"),
        ("tversky:delta=2", None, None, "delta must lie in"),
        ("dice:class_weights=[1,2]", None, None, "Leave out class_weights"),
        ("dice:reduction=sum:activation=none", None, None, "Leave out activation and reduction"),
        ("dice", "0.5", None, "'dice' has none"),
        ("focal-tversky", "0.5,0.6", None, "exponent=0.5"),
        ("focal", None, "0.5", "--delta: expected losses that have a delta"),
        ("focal:gamma=1", "1,2", None, "gamma once"),
        ("unified-focal", "0.5,1", None, r"gamma must lie in \[0, 1\)"),
        ("unified-focal", "0.5,x", None, "--gamma: expected numbers with commas.*'0.5,x'"),
        ("unified-focal", "nan", None, "gamma"),
        ("unified-focal", None, "", "--delta: expected numbers"),
        ("unified-focal", "0.5,0.50", None, "each number once"),
        ("unified-focal", "0,0.1,0.2", "0.4,0.5,0.6", "3 of gamma x 3 of delta = 9"),
        (",".join(f"focal:gamma={n}" for n in range(9)), None, None, "at most 8 losses; got 9"),
        (",".join(f"unified-focal:lam=0.{n}" for n in range(1, 6)), "0,0.1", None, "at most 4 losses.*got 5"),
    ],
)
def test_what_cannot_be_drawn_is_told(losses, gamma, delta, message):
    with pytest.raises(LabError, match=message):
        make_rows(losses, gamma, delta)
