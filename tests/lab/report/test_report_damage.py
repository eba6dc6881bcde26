"""Damaged files: named, with what to do, and left out where the rest can be reported."""

import itertools
import re

import pytest
from folders import write_folder
from test_report_command import run
from test_report_warnings import of

from unifocal.lab.errors import LabError
from unifocal.lab.grid.status import read_status, wait_for_plan
from unifocal.lab.progress import silent
from unifocal.lab.report.analysis import analyse
from unifocal.lab.report.parts import Text, every
from unifocal.lab.report.pictures.gallery import pictures
from unifocal.lab.report.reading import read_study
from unifocal.lab.training.history import read_history
from unifocal.lab.tuning.trials import Plan, Tried

DAMAGES = {
    "cut": lambda whole: whole[: len(whole) // 2],
    "wrong": lambda whole: whole[:20] + b"\xff\x00\xfe" + whole[23:],
    "empty": lambda whole: b"",
}
OTHERS = {"list": lambda whole: b"[]", "object": lambda whole: b"{}", "null": lambda whole: b"null"}
SHORT = {"short": lambda whole: whole[: whole.rindex(b"\n", 0, -1) + 1]}  # by its last line
RUN = "runs/unet-0-fold0-seed0"


def damage(path, how):
    path.write_bytes({**DAMAGES, **OTHERS, **SHORT}[how](path.read_bytes()))


@pytest.mark.parametrize("how", [*DAMAGES, *OTHERS])
@pytest.mark.parametrize("name", ["experiment.json", "dataset.json", "folds.json"])
def test_what_everything_hangs_on_is_named(tmp_path, name, how):
    out = write_folder(tmp_path, cases=4, folds=2)
    damage(out / name, how)
    with pytest.raises(LabError, match=rf"{re.escape(str(out / name))}.*Remove it and repeat the command"):
        read_study(out)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *itertools.product(["cases.csv", "lesions.csv", "result.json"], DAMAGES),
        ("cases.csv", "short"),
        ("lesions.csv", "short"),
    ],
)
def test_a_run_with_a_damaged_file_counts_as_failed(tmp_path, name, how):
    out = write_folder(tmp_path, cases=8, folds=2)
    damage(out / RUN / name, how)
    first, *others = read_study(out).runs
    assert first.state == "failed"
    assert re.search(rf"{name} is (damaged|cut short).*(repeat the command|measures the run again)", first.reason or "")
    assert all(run.is_finished for run in others)
    assert any(text.startswith("1 run of 6 failed") for text in of(out))


def test_an_infinite_value_is_named_by_file_loss_and_case(tmp_path):
    out = write_folder(tmp_path, cases=8, folds=2)
    path = out / RUN / "cases.csv"
    path.write_text(re.sub(r"(case 2,lesion,DSC,)[\d.]+", r"\1inf", path.read_text()))
    first, *_ = read_study(out).runs
    assert first.state == "failed"
    assert f"{path} has an infinite value (loss dice, case case 2, metric DSC)" in (first.reason or "")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "report.html").write_text("x")
    with pytest.raises(LabError, match=r"report\.html is a file, not a folder"):
        read_study(tmp_path / "report.html")
    with pytest.raises(LabError, match="not a folder"):  # nor is it waited for
        wait_for_plan(tmp_path / "report.html", print)


@pytest.mark.parametrize("how", ["cut", "list"])
def test_a_damaged_end_is_no_end(tmp_path, how):
    """The grid does such a run again."""
    out = write_folder(tmp_path, cases=4, folds=2)
    damage(out / RUN / "result.json", how)
    first, *others = read_status(out)
    assert first.state == "failed" and "result.json is damaged" in (first.reason or "")
    assert all(run.state == "finished" for run in others)


@pytest.mark.parametrize("how", ["cut", "wrong", "short"])
def test_a_damaged_learning_curve_is_left_out_with_a_word(tmp_path, how):
    out = write_folder(tmp_path, cases=8, folds=2)
    damage(out / RUN / "history.csv", how)
    study = read_study(out)
    assert study.runs[0].is_finished and study.runs[0].history.empty and len(study.runs[1].history) == 4
    assert any(f"{RUN}/history.csv is damaged" in text for text in of(out))


@pytest.mark.parametrize("name", ["tuning.csv", "search.csv", "search.json"])
def test_damaged_tables_of_tuning_are_left_out_with_a_word(tmp_path, name):
    out = write_folder(tmp_path, cases=8, folds=2)
    (out / name).write_bytes(b"loss,st\xff")
    study = read_study(out)
    assert study.sweep.empty and study.search.empty and not study.outcome
    assert any(text.startswith("Left out") and name in text for text in of(out))


def test_a_damaged_prediction_costs_the_pictures_alone(tmp_path):
    out = write_folder(tmp_path, cases=4, folds=2, with_images=True)
    for path in out.glob("runs/*/predictions/*.png"):
        damage(path, "cut")
    study = read_study(out)
    section = pictures(study, analyse(study, "DSC"), silent)
    assert section is not None
    [text] = every(Text, [section])
    assert re.search(r"No pictures: .*predictions/case.*png is damaged.*cases.csv of their run is removed", text.text)


def test_the_commands_end_with_a_message(tmp_path, capsys):
    out = write_folder(tmp_path, cases=4, folds=2)
    damage(out / "experiment.json", "cut")
    for command in ("report", "status"):
        assert run(command, out) == 2
        assert "experiment.json is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"[]", b'{"loss": "dice"}', b'{"lo', b"\xff"])
def test_readers_of_records_name_the_file(tmp_path, content):
    (tmp_path / "search").mkdir()
    for path, read in {
        tmp_path / "trial.json": Tried.read,
        tmp_path / "search" / "x.json": lambda folder: Plan.read(folder, "x"),
        tmp_path / "history.csv": lambda folder: read_history(folder / "history.csv"),
    }.items():
        path.write_bytes(b"epoch\n\xff" if path.suffix == ".csv" else content)
        with pytest.raises(LabError, match=rf"{path.name}.*Remove .* and repeat the command"):
            read(tmp_path)


def test_a_damaged_joined_table_is_named(tmp_path):
    out = write_folder(tmp_path, cases=4, folds=2, with_runs=False)
    damage(out / "results.csv", "cut")
    with pytest.raises(LabError, match=r"results\.csv is cut short"):
        read_study(out)
