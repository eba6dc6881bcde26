"""Where a conclusion is not warranted, the page says so; where it is, it says nothing."""

import json
from typing import Any

import pytest
from folders import rule, there, write_folder

from unifocal.lab.report.analysis import analyse
from unifocal.lab.report.answer import answer
from unifocal.lab.report.contents.results import main_table
from unifocal.lab.report.reading import read_study
from unifocal.lab.report.warnings import warnings
from unifocal.lab.results import read_table, write_table

NO_PATIENT = "No patient is named"


def of(out):
    study = read_study(out)
    return warnings(study, analyse(study, "DSC"))


def clear(tmp_path, **changes):
    """A comparison with which nothing is wrong: one loss far ahead, two seeds, five folds, patients known."""
    usual: dict[str, Any] = {"score": rule(step=0.1), "seeds": (0, 1), "folds": 5, "cases": 40}
    out = write_folder(tmp_path, **{"losses": "dice,focal"} | usual | changes)
    path = out / "dataset.json"
    record = json.loads(path.read_text())
    for case in record["dataset"]["cases"]:
        case["group"] = case["id"]
    path.write_text(json.dumps(record))
    return out


def test_nothing_is_wrong(tmp_path):
    assert of(clear(tmp_path)) == []


def empty_the_first_four(out):
    """Four cases whose masks are empty."""
    path = out / "dataset.json"
    record = json.loads(path.read_text())
    for facts in record["dataset"]["facts"][:4]:
        facts["voxels"] = [sum(facts["voxels"]), 0]
    path.write_text(json.dumps(record))


def test_one_loss_under_two_names(tmp_path):
    [told] = of(clear(tmp_path, losses="dice,tversky:delta=0.5"))
    assert told.startswith("dice and tversky:delta=0.5 are the same loss: each has runs of its own")


def test_cases_without_foreground_are_told_apart(tmp_path):
    out = clear(
        tmp_path, score=lambda loss, seed, case: float(case == 1 and loss == 0) if case < 4 else 0.7 - 0.2 * loss
    )
    empty_the_first_four(out)
    [told] = [text for text in of(out) if "show no" in text]
    assert told.startswith(
        "4 cases of 40 show no lesion, and the networks find some in 75 % to 100 % of them, by loss. In DSC, IoU, "
        "precision, NSD such a case counts 1 for a loss that finds nothing and 0 for one that finds any"
    )
    [block] = analyse(read_study(out), "DSC")
    assert block.alarms.loc["dice", ["cases", "share"]].tolist() == [4, 0.75]
    assert block.alarms.loc["focal", "DSC"] == pytest.approx(0.5)


def test_a_false_alarm_of_one_seed_of_two_is_half_a_one(tmp_path):
    out = clear(tmp_path, score=lambda loss, seed, case: float(seed == 0 or loss == 1) if case < 4 else 0.7)
    empty_the_first_four(out)
    [block] = analyse(read_study(out), "DSC")
    assert block.alarms[["cases", "share"]].to_numpy().tolist() == [[4, 0.5], [4, 0]]


def test_that_nothing_is_found_is_told_though_empty_cases_count_1(tmp_path):
    out = clear(tmp_path, score=lambda loss, seed, case: float(case < 4) if loss == 1 else 0.5 + case / 999)
    empty_the_first_four(out)
    [block] = analyse(read_study(out), "recall")
    assert block.means("recall").loc["focal", "mean"] > 0
    assert any("that show it: with focal in 100 % of these cases. Other" in text for text in of(out))


def test_results_that_are_not_there_are_told_and_their_loss_is_not_the_best(tmp_path):
    out = clear(tmp_path, score=lambda loss, seed, case: None if loss == 1 and case % 2 else 0.5 + 0.1 * loss)
    study = read_study(out)
    assert any(text.startswith("40 results of focal on test cases are not there") for text in of(out))
    [block] = analyse(study, "DSC")
    assert block.ranked[0] == "dice" and block.complete == ("dice",)


def without_rows(out, loss, metric, cases):
    """Take the rows of a metric on some cases out of the tables of a loss; the others stay."""
    for folder in out.glob("runs/*"):
        table = read_table(folder / "cases.csv")
        gone = (table["loss"] == loss) & (table["metric"] == metric) & table["case"].isin(cases)
        write_table(folder / "cases.csv", table[~gone])
        result = json.loads((folder / "result.json").read_text())
        result["rows"]["cases"] -= int(gone.sum())
        (folder / "result.json").write_text(json.dumps(result))


def test_a_row_that_is_gone_is_a_result_that_is_gone(tmp_path):
    """The worst cases of the worse loss, of one metric alone: by what is left it would be the best."""
    out = clear(tmp_path, score=lambda loss, seed, case: 0.0 if loss and case < 20 else 0.5 + 0.2 * loss + case / 999)
    without_rows(out, "focal", "DSC", [f"case {n}" for n in range(20)])
    study = read_study(out)
    [block] = analyse(study, "DSC")
    assert block.means("DSC")["mean"].idxmax() == "focal" and block.complete == ("dice",)
    assert answer(block, study)[0].startswith("Of the losses with every result, dice has the highest mean DSC")
    assert any(text.startswith("40 results of focal on test cases are not there") for text in of(out))
    scores = there(block.scores)
    assert len(scores.cases) == 40 and scores.incomplete == ("focal",)
    table = there(main_table(block, study, "x"))
    assert not table.data.loc[table.data["metric"] == "DSC", "best"].any()
    assert "DSC: focal 40" in " ".join(table.notes) and "runs" not in table.columns
    # By the other metrics nothing is gone.
    [block] = analyse(study, "IoU")
    assert block.complete == ("dice", "focal")
    assert any(text.startswith("Results in DSC are not there for some losses") for text in warnings(study, [block]))


def test_rows_that_are_gone_from_all_losses_leave_none_to_call_the_best(tmp_path):
    out = clear(tmp_path)
    for loss in ("dice", "focal"):
        without_rows(out, loss, "DSC", ["case 3"])
    study = read_study(out)
    [block] = analyse(study, "DSC")
    assert answer(block, study) == (
        "No loss has a result of every case for lesion in made up, so none can be called the best.",
        "The numbers below are means of the results that are there.",
    )


def test_leakage_stands_first(tmp_path):
    splits = [
        {"train": [*range(10, 40)], "validation": [], "test": [*range(10)]},
        {"train": [*range(10)], "validation": [], "test": [*range(10, 40)]},
    ]
    groups = [*range(9), 9, 9, *range(11, 40)]  # cases 9 and 10 are one patient's, and each split parts them
    found = of(clear(tmp_path, splits=splits, groups=groups))
    assert found[0].startswith("Leakage: of 1 group of cases") and "case 9" in found[0]
    assert "The folds are unequal, 10 to 30 test cases; each counts the same in the means." in found


def undefined_once(loss, seed, case):
    return float("nan") if (loss, case) == (0, 3) else 0.5 + 0.1 * loss + case / 999


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"ends": {(0, 0): "failed", (0, 1): "waiting"}, "folds": 3, "seeds": (0,)},
            ["1 run of 6 failed.", "1 run of 6 has not finished", "3 folds: only very large", "One seed:"],
        ),
        ({"folds": 1, "cases": 12}, ["12 cases are too few", "One fold: nothing is known of other trainings"]),
        ({"score": rule(step=0.0)}, ["the first place is not settled"]),
        (
            {"score": lambda loss, seed, case: (1 - loss) * (0.5 + case / 999)},
            ["less than 1 % of lesion in many cases that show it: with focal in 100 % of these cases"],
        ),
        ({"score": undefined_once}, ["DSC is undefined for some losses only, on 1 of 40 cases"]),
    ],
)
def test_what_is_wrong_is_said(tmp_path, changes, says):
    found = of(clear(tmp_path, **changes))
    for words in says:
        assert any(words in text for text in found), found
    assert not any(text.startswith(NO_PATIENT) for text in found)


def test_runs_of_several_versions_that_were_still_getting_better(tmp_path):
    out = clear(tmp_path)
    for n, path in enumerate(sorted(out.glob("runs/*/result.json"))):
        record = json.loads(path.read_text()) | {"best_epoch": 3, "versions": {"torch": f"2.{12 + n % 2}.0"}}
        path.write_text(json.dumps(record))
    found = of(out)
    assert any(text.startswith("In 20 of 20 runs the last epoch was the best one") for text in found)
    assert "The runs are not of one kind: torch 2.12.0 and 2.13.0." in found


def test_a_run_that_lost_its_record_is_of_no_other_kind(tmp_path):
    out = clear(tmp_path)
    path = sorted(out.glob("runs/*/result.json"))[0]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"device": "unknown", "versions": {}}))
    assert not any(text.startswith("The runs are not of one kind") for text in of(out))


def test_patients_are_asked_for(tmp_path):
    assert any(text.startswith(NO_PATIENT) for text in of(write_folder(tmp_path, with_runs=False)))
