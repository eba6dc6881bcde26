"""Where a conclusion is not warranted, the page says so; where it is, it says nothing."""

import json

import pytest
from folders import rule, write_folder

from unifocal.lab.report.analysis import analyse
from unifocal.lab.report.reading import read_study
from unifocal.lab.report.warnings import warnings

NO_PATIENT = "No patient is named"


def of(out):
    study = read_study(out)
    return warnings(study, analyse(study, "DSC"))


def clear(tmp_path, **changes):
    """A comparison with which nothing is wrong: one loss far ahead, two seeds, five folds, patients known."""
    out = write_folder(
        tmp_path, "dice,focal", **{"score": rule(step=0.1), "seeds": (0, 1), "folds": 5, "cases": 40} | changes
    )
    path = out / "dataset.json"
    record = json.loads(path.read_text())
    for case in record["dataset"]["cases"]:
        case["group"] = case["id"]
    path.write_text(json.dumps(record))
    return out


def test_nothing_is_wrong(tmp_path):
    assert of(clear(tmp_path)) == []


def test_leakage_stands_first(tmp_path):
    splits = [
        {"train": [*range(10, 40)], "validation": [], "test": [*range(10)]},
        {"train": [*range(10)], "validation": [], "test": [*range(10, 40)]},
    ]
    groups = [*range(9), 9, 9, *range(11, 40)]  # cases 9 and 10 are one patient's, and each split parts them
    found = of(clear(tmp_path, splits=splits, groups=groups))
    assert found[0].startswith("Leakage: of 1 group of cases") and "case 9" in found[0]
    assert "The folds are unequal, 10 to 30 test cases; each counts the same in the means." in found


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ends": {(0, 0): "failed"}}, "2 runs of 20 failed."),
        ({"ends": {(0, 0): "waiting"}}, "2 runs of 20 have not finished"),
        ({"cases": 12, "folds": 5}, "12 cases are too few"),
        ({"folds": 3}, "3 folds: only very large differences"),
        ({"folds": 1}, "One fold: nothing is known of other trainings"),
        ({"seeds": (0,)}, "One seed:"),
        ({"score": rule(step=0.0)}, "the first place is not settled"),
        (
            {"score": lambda loss, seed, case: 0.0 if loss == 1 else 0.5 + 0.01 * loss + case / 999},
            "focal: the trained",
        ),
        (
            {
                "score": lambda loss, seed, case: (
                    float("nan") if case == 3 and loss == 0 else 0.5 + 0.1 * loss + case / 999
                )
            },
            "DSC is undefined for some losses only, on 1 of 40 cases",
        ),
    ],
)
def test_what_is_wrong_is_said(tmp_path, changes, says):
    found = of(clear(tmp_path, **changes))
    assert any(says in text for text in found), found
    assert not any(NO_PATIENT in text for text in found)


def change_results(out, **values):
    for n, path in enumerate(sorted(out.glob("runs/*/result.json"))):
        record = json.loads(path.read_text())
        for key, value in values.items():
            record[key] = value(n) if callable(value) else value
        path.write_text(json.dumps(record))


def test_training_that_was_still_getting_better(tmp_path):
    out = clear(tmp_path)
    change_results(out, best_epoch=3)
    assert any(text.startswith("In 20 of 20 runs the last epoch was the best one") for text in of(out))


def test_runs_of_several_versions(tmp_path):
    out = clear(tmp_path)
    change_results(out, versions=lambda n: {"torch": "2.13.0" if n % 2 else "2.12.0"})
    assert "The runs are not of one kind: torch 2.12.0 and 2.13.0." in of(out)


def test_patients_are_asked_for(tmp_path):
    assert any(text.startswith(NO_PATIENT) for text in of(write_folder(tmp_path)))
