"""What is read from the files of a comparison: finished, half-finished, copied in parts, or none at all."""

import json

import pandas as pd
import pytest
from folders import rule, write_folder

from unifocal.lab.claims import hold
from unifocal.lab.errors import LabError
from unifocal.lab.report.analysis import analyse
from unifocal.lab.report.contents.methods import methods
from unifocal.lab.report.parts import Code, every
from unifocal.lab.report.reading import read_study
from unifocal.lab.results import read_table, write_table


def test_a_finished_comparison(tmp_path):
    study = read_study(write_folder(tmp_path, seeds=(0, 1), cases=7))
    assert study.losses == ("dice", "tversky:delta=0.7", "focal")
    assert len(study.runs) == 3 * 3 * 2 and all(run.is_finished for run in study.runs)
    assert len(study.cases) == 3 * 2 * 7 * 12  # losses, seeds, cases, metrics
    assert {len(run.history) for run in study.runs} == {4}
    row = study.cases[(study.cases["loss"] == "dice") & (study.cases["case"] == "case 4") & (study.cases["seed"] == 1)]
    dsc = rule()(0, 1, 4)
    assert row.set_index("metric")["value"]["DSC"] == pytest.approx(dsc)
    # Of a metric with a sign the size counts: errors must not cancel.
    assert row.set_index("metric")["value"]["volume error"] == pytest.approx(1 - dsc)


def test_a_half_finished_comparison(tmp_path):
    out = write_folder(tmp_path, ends={(0, 0): "failed", (1, 1): "waiting", (2, 2): "running"})
    with hold(out / "runs" / "unet-2-fold2-seed0"):
        study = read_study(out)
    states = {(run.loss, run.fold): run.state for run in study.runs if not run.is_finished}
    assert states == {("dice", 0): "failed", ("tversky:delta=0.7", 1): "waiting", ("focal", 2): "running"}
    assert study.is_under_way and study.time_left == "about 9 s left for the epochs alone"  # six epochs, at 1.5 s
    failed = next(run for run in study.runs if run.state == "failed")
    assert failed.reason == "RuntimeError: <b>it</b> broke & $fell$"
    assert len(study.cases) == 12 * (3 * 30 - 3 * 10)
    assert not read_study(out).is_under_way


def test_without_the_folders_of_the_runs_the_joined_table_stands_in(tmp_path):
    whole = read_study(write_folder(tmp_path / "a"))
    copied = read_study(write_folder(tmp_path / "b", with_runs=False))
    assert all(run.is_finished for run in copied.runs)
    keys = ["loss", "fold", "seed", "case", "metric"]
    pd.testing.assert_frame_equal(
        whole.cases.sort_values(keys, ignore_index=True), copied.cases.sort_values(keys, ignore_index=True)
    )
    assert len(whole.lesions) == len(copied.lesions)


def test_rows_of_another_comparison_in_the_same_table_do_not_count(tmp_path):
    out = write_folder(tmp_path, "dice,focal,tversky", with_runs=False)
    record = json.loads((out / "experiment.json").read_text())
    record["runs"] = [run for run in record["runs"] if run["loss"] != "tversky"]
    record["settings"]["losses"] = record["settings"]["losses"][:2]
    (out / "experiment.json").write_text(json.dumps(record))
    study = read_study(out)
    assert set(study.cases["loss"]) == set(study.lesions["loss"]) == {"dice", "focal"}
    assert study.damaged == (
        "Left out: 360 rows of results.csv, of losses that this comparison has not: tversky.",  # 30 cases, 12 metrics
    )


@pytest.mark.parametrize(
    ("metric", "value", "says"),
    [
        ("DSC", 2.0, "expected a DSC between 0 and 1; .* has 2 for case 'case 3' of 'focal', fold 0, seed 0"),
        ("HD95", -1, "at least 0"),
    ],
)
def test_a_value_that_cannot_be_is_refused(tmp_path, metric, value, says):
    out = write_folder(tmp_path, "dice,focal", with_runs=False)
    table = read_table(out / "results.csv")
    table.loc[(table["loss"] == "focal") & (table["case"] == "case 3") & (table["metric"] == metric), "value"] = value
    write_table(out / "results.csv", table)
    with pytest.raises(LabError, match=says):
        read_study(out)


def test_several_data_sets_have_a_folder_each(tmp_path):
    write_folder(tmp_path, cases=6, dataset="first", place="first")
    study = read_study(write_folder(tmp_path, cases=9, dataset="second", place="second"))
    assert {name: len(dataset.cases) for name, dataset in study.datasets.items()} == {"first": 6, "second": 9}
    assert study.cases.groupby("dataset")["case"].nunique().to_dict() == {"first": 6, "second": 9}


def test_a_sweep_may_try_words(tmp_path):
    out = write_folder(tmp_path)
    (out / "tuning.csv").write_text(
        "parameter,value,loss,validation,validation_half_width,test,test_half_width,stage,chosen\n"
        "order,none,dice:order=none,0.5,0.1,0.4,,1,True\norder,other,dice:order=other,,,0.3,0.1,1,False\n"
    )
    sweep = read_study(out).sweep
    assert sweep["value"].tolist() == ["none", "other"]
    assert sweep["validation"].isna().tolist() == [False, True] and sweep["chosen"].tolist() == [True, False]


def test_the_command_that_made_the_folder_is_told(tmp_path):
    out = write_folder(tmp_path, "dice:smooth=1,dice:smooth=2", cases=4, folds=2, with_runs=False)

    def told():
        study = read_study(out)
        [code] = every(Code, [methods(study, analyse(study, "DSC"))])
        return code.text

    assert told().startswith(f"unifocal compare {out}/data --losses dice:smooth=1,dice:smooth=2 --folds 2")
    record = json.loads((out / "experiment.json").read_text())
    record["tune"] = ["--losses", "dice", "--sweep", "smooth=1,2"]
    (out / "experiment.json").write_text(json.dumps(record))
    assert told().startswith(f"unifocal tune {out}/data --losses dice --sweep smooth=1,2 --folds 2")


@pytest.mark.parametrize("gone", ["experiment.json", "dataset.json", "folds.json"])
def test_what_is_missing_is_named(tmp_path, gone):
    out = write_folder(tmp_path)
    (out / gone).unlink()
    with pytest.raises(LabError, match=gone):
        read_study(out)


def test_a_run_that_only_began_to_write_is_not_read(tmp_path):
    out = write_folder(tmp_path)
    run = out / "runs" / "unet-0-fold0-seed0"
    (run / "result.json").unlink()
    (run / "history.csv").write_text("")
    study = read_study(out)
    assert study.runs[0].state == "waiting" and study.runs[0].history.empty
    assert len(study.cases) == 12 * 80
