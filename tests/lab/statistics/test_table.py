"""The block of scores is what the tidy table says, and a table that contradicts itself is refused."""

import numpy as np
import pandas as pd
import pytest
from tidy import make_table, scores_of

from unifocal.lab.errors import LabError
from unifocal.lab.statistics.common import common
from unifocal.lab.statistics.datasets import over_datasets
from unifocal.lab.statistics.table import completeness, make_scores

NAN = float("nan")
VALUES = np.arange(24.0).reshape(2, 3, 4) / 100  # 2 losses, 3 seeds, 4 cases


def test_every_number_finds_its_place_in_any_order_of_rows():
    table = make_table(VALUES, folds=2).sample(frac=1, random_state=0)
    scores = make_scores(table, "DSC", "lesion")
    for (n, s, c), value in np.ndenumerate(scores.values):
        loss, case = int(scores.losses[n].split()[1]), int(scores.cases[c].split()[1])
        assert value == VALUES[loss, scores.seeds[s], case]
        assert scores.fold[c] == case % 2
    assert scores.run.all() and not scores.incomplete and not scores.reasons


def test_losses_keep_the_order_of_the_table():
    table = pd.concat([make_table([[1.0]], losses=["tversky"]), make_table([[0.0]], losses=["dice"])])
    assert make_scores(table, "DSC", "lesion").losses == ("tversky", "dice")


def test_not_run_is_not_undefined():
    table = make_table(VALUES, folds=2)
    table.loc[(table["loss"] == "loss 0") & (table["case"] == "case 1"), "value"] = NAN
    table = table[~((table["loss"] == "loss 1") & (table["seed"] == 2) & (table["fold"] == 0))]
    scores = make_scores(table, "DSC", "lesion")
    assert scores.incomplete == ("loss 1",)
    found = completeness(scores).set_index(["loss", "seed", "fold"])
    assert list(found.loc[("loss 1", 2, 0)]) == [2, 2, 0]
    assert list(found.loc[("loss 0", 2, 1)]) == [2, 0, 1]
    assert found[["missing", "undefined"]].to_numpy().sum() == 2 + 3
    assert "Not every result is there: loss 1." in scores.reasons
    assert any("undefined for some losses only, on 1 of 4 cases" in reason for reason in scores.reasons)


def test_a_case_without_a_row_of_the_metric_was_tested_all_the_same():
    table = pd.concat([make_table(VALUES, folds=2, metric=metric) for metric in ("DSC", "IoU")])
    gone = (table["metric"] == "DSC") & (table["case"] == "case 1")
    scores = make_scores(table[~gone], "DSC", "lesion")
    assert len(scores.cases) == 4 and scores.incomplete == ("loss 0", "loss 1")
    assert "Not every result is there: loss 0, loss 1." in scores.reasons


def test_common_takes_complete_losses_on_shared_cells_and_means_over_seeds():
    values = np.array([[[0.1, 0.2, 0.3], [0.3, 0.4, NAN]], [[0.5, NAN, 0.7], [0.7, NAN, 0.9]], [[0, 0, 0], [0, 0, 0]]])
    table = make_table(values, folds=1)
    table = table[~((table["loss"] == "loss 2") & (table["case"] == "case 2"))]
    shared = common(make_scores(table, "DSC", "lesion"))
    assert shared.losses == ("loss 0", "loss 1")
    # Case 0: both seeds; case 1: never both losses; case 2: seed 0 only.
    assert shared.values == pytest.approx(np.array([[0.2, 0.6], [0.3, 0.7]]))
    assert any(reason.startswith("Left out of what follows: loss 2") for reason in shared.reasons)
    assert any(reason.startswith("2 of 3 cases") for reason in shared.reasons)


def test_no_loss_complete_means_all_losses_on_the_cells_they_share():
    table = make_table(VALUES, folds=2)
    table = table[~((table["loss"] == "loss 0") & (table["case"] == "case 0"))]
    table = table[~((table["loss"] == "loss 1") & (table["case"] == "case 3"))]
    shared = common(make_scores(table, "DSC", "lesion"))
    assert shared.losses == ("loss 0", "loss 1")
    assert len(shared.values) == 2


def test_groups_become_units_and_an_unknown_group_stands_for_itself():
    scores = scores_of([[0.0, 1.0, 2.0, 3.0]], groups=["p", None, "p", None])
    assert scores.unit_name == "group"
    assert list(scores.unit) == [0, 1, 0, 2]
    assert common(scores).unit_means[:, 0] == pytest.approx([1.0, 1.0, 3.0])
    # A group called like a case is not that case.
    assert scores_of([[0.0, 1.0]], groups=[None, "case 0"]).unit_name == "case"


def test_data_sets_are_units_of_the_mean_over_their_cases():
    first, second = scores_of([[0.1, 0.3], [0.2, 0.2]]), scores_of([[0.5], [0.9]])
    over = over_datasets({"a": first, "b": second})
    assert (over.unit_name, over.cases) == ("data set", ("a", "b"))
    assert over.values[:, 0] == pytest.approx(np.array([[0.2, 0.5], [0.2, 0.9]]))
    # However many cases a data set has, it counts once.
    larger = over_datasets({"a": scores_of(np.repeat([[0.1], [0.2]], 1000, axis=1)), "b": second})
    assert common(larger).values.mean(0) == pytest.approx([0.3, 0.55])


def test_a_loss_incomplete_on_a_data_set_has_no_value_there():
    table = make_table([[0.1, 0.3], [0.2, 0.2], [0.9, 0.9]], folds=2)
    table = table[~((table["loss"] == "loss 2") & (table["fold"] == 1))]
    over = over_datasets({"a": make_scores(table, "DSC", "lesion"), "b": scores_of([[0.5], [0.6], [0.7]])})
    assert np.isnan(over.values[2, 0, 0]) and over.values[2, 0, 1] == 0.7
    assert over.incomplete == ("loss 2",)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda t: t.drop(columns="seed"), "seed is not there"),
        (lambda t: pd.concat([t, t.iloc[[3]]]), "case 'case 3' of 'loss 0', seed 0, has several"),
        (lambda t: t.assign(fold=np.arange(len(t)) % 5), "expected each case in one fold"),
        (lambda t: t.assign(value=np.inf), "infinite"),
        (lambda t: t.assign(dataset=["a", "b"] * (len(t) // 2)), "one dataset at a time; got a, b"),
        (lambda t: t.assign(network=["a", "b"] * (len(t) // 2)), "one network at a time; got a, b"),
        (lambda t: t.assign(metric="DSE"), "Did you mean 'DSE'"),
        (lambda t: t.iloc[:0], "it is empty"),
        (lambda t: t.assign(**{"class": ["lesion"] * 12 + ["x"] * 12, "metric": ["IoU"] * 12 + ["DSC"] * 12}), "none"),
    ],
)
def test_a_table_that_cannot_be_right_is_refused(spoil, words):
    with pytest.raises(LabError, match="expected") as error:
        make_scores(spoil(make_table(VALUES, folds=2)), "DSC", "lesion")
    assert words in str(error.value)


def test_constant_data_set_and_network_are_welcome():
    table = make_table(VALUES).assign(dataset="busi", network="unet")
    assert make_scores(table, "DSC", "lesion").values.shape == VALUES.shape


def test_a_case_without_its_group_is_refused():
    with pytest.raises(LabError, match="nothing for case 1"):
        make_scores(make_table([[0.1, 0.2]]), "DSC", "lesion", groups={"case 0": "p"})


def test_data_sets_of_different_metrics_do_not_mix():
    other = make_scores(make_table([[0.1]], metric="HD95"), "HD95", "lesion", lower_is_better=True)
    with pytest.raises(LabError, match="one metric on all data sets; got DSC, HD95"):
        over_datasets({"a": scores_of([[0.1]]), "b": other})
    with pytest.raises(LabError, match="got none"):
        over_datasets({})
