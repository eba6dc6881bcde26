"""The same loss under several names is found, and others are not."""

import pytest
from tiny import make_tiny, read_data

import unifocal
from unifocal.lab.choices import LossChoice
from unifocal.lab.comparison import plan_all
from unifocal.lab.progress import Watcher
from unifocal.lab.twins import same_losses, warnings_of


def of(text, *classes):
    return [tuple(map(str, group)) for group in same_losses(LossChoice.parse_list(text), classes)]


@pytest.mark.parametrize("classes", [2, 3])
def test_one_loss_under_two_names(classes):
    text = "generalised-focal,dice,focal,unified-focal:gamma=0.2,tversky:delta=0.5,tversky:delta=0.51"
    assert of(text, classes) == [("generalised-focal", "unified-focal:gamma=0.2"), ("dice", "tversky:delta=0.5")]


def test_of_all_losses_at_their_defaults_one_pair_is_the_same():
    assert of(",".join(unifocal.available()), 2, 3) == [("mixed-focal", "hybrid-focal")]


def test_losses_may_be_the_same_for_two_classes_alone():
    a, b = "focal:alpha=[0.5,0.5]", "focal:alpha=0.5"
    assert of(f"{a},{b}", 2) == [(a, b)] and of(f"{a},{b}", 2, 3) == []


def test_a_warning_for_each_group():
    losses = LossChoice.parse_list("dice,tversky:delta=0.5,focal")
    assert warnings_of(losses, {2}) == [
        "dice and tversky:delta=0.5 are the same loss: each has runs of its own, and both count in the correction for "
        "many comparisons."
    ]


def test_a_comparison_says_so_before_it_begins(tmp_path):
    told = []

    class Told(Watcher):
        def stage(self, text):
            told.append(text)

    settings = make_tiny("generalised-focal,unified-focal:gamma=0.2")
    plan_all([read_data(tmp_path / "data")], settings, tmp_path / "out", Told())
    assert told[0].startswith("generalised-focal and unified-focal:gamma=0.2 are the same loss: each has runs")
