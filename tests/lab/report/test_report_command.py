"""`unifocal report`: on a comparison that ran, on a copy without its images, and while one runs."""

import json
import shutil
import threading
import time

import pytest
from folders import write_folder

from unifocal.lab import cli
from unifocal.lab.claims import hold
from unifocal.lab.comparison import compare
from unifocal.lab.data.reading import read_dataset
from unifocal.lab.grid import status
from unifocal.lab.report import writing
from unifocal.lab.report.reading import read_study


def run(*arguments):
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code or 0
    return 0


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A real comparison of two losses."""
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tiny import make_tiny, write_data

    folder = tmp_path_factory.mktemp("real")
    compare([read_dataset(write_data(folder / "data", n=10))], make_tiny("dice,focal"), folder / "out")
    return folder


def test_a_comparison_that_ran(compared, capsys):
    out = compared / "out"
    assert run("report", out) == 0
    shown = capsys.readouterr().out
    assert str(out / "report.html") in shown and str(out / "report") in shown
    text = (out / "report.html").read_text(encoding="utf-8")
    assert "4 of 4 runs finished." in text and "Best" in text and "base64," in text
    assert "torch 2." in text and "unifocal compare" in text
    assert "All cases on one sheet" in text
    for ending in ("svg", "pdf"):
        [sheet] = (out / "report" / "figures").glob(f"pictures-*.{ending}")
        assert sheet.stat().st_size > 10_000
    study = read_study(out)
    assert {run.result["parameters"] for run in study.runs} and all(len(run.history) == 2 for run in study.runs)


def test_a_copy_without_data_and_weights(compared, tmp_path):
    wanted = shutil.ignore_patterns("prepared", "*.ckpt", "report*")
    shutil.copytree(compared / "out", tmp_path / "copy", ignore=wanted)
    shutil.move(compared / "data", compared / "moved")
    try:
        assert run("report", tmp_path / "copy") == 0
    finally:
        shutil.move(compared / "moved", compared / "data")
    text = (tmp_path / "copy" / "report.html").read_text(encoding="utf-8")
    assert "No pictures: the images, masks or predictions are not where" in text and "4 of 4 runs finished." in text


def test_mistakes(tmp_path, capsys):
    assert run("report", tmp_path) == 2
    assert "holds no experiment.json" in capsys.readouterr().err
    out = write_folder(tmp_path / "out", cases=3, with_runs=False)
    assert run("report", out, "--metric", "Dice") == 2
    assert "expected a metric: DSC, IoU" in capsys.readouterr().err
    assert not (out / "report.html").exists()


@pytest.fixture
def hurried(monkeypatch):
    monkeypatch.setattr(writing, "PAUSE", 0.05)
    monkeypatch.setattr(writing, "LEISURE", 0.0)
    monkeypatch.setattr(writing, "MOMENT", 0.05)


def test_following_a_grid_to_its_end(tmp_path, capsys, hurried):
    """A live page while a run is held, one more for its next epoch, and the report when it is let go."""
    out = write_folder(tmp_path, "dice,focal", cases=6, ends={(1, 2): "running"})
    folder, live = out / "runs" / "unet-1-fold2-seed0", []
    ends = threading.Event()
    claimed = threading.Event()

    def work():
        with hold(folder):
            claimed.set()
            ends.wait(60)

    worker = threading.Thread(target=work)
    worker.start()
    claimed.wait()

    def tell(page, study):
        live.append((page.read_text(encoding="utf-8"), [run.epoch for run in study.runs]))
        if len(live) == 1:
            history = (folder / "history.csv").read_text()
            (folder / "history.csv").write_text(history + history.splitlines()[-1].replace("1,", "2,", 1) + "\n")
        else:
            ends.set()
            worker.join()

    page = writing.follow(out, "DSC", tell)
    assert len(live) == 2
    assert ["epoch 2 of 4" in text for text, _ in live] == [True, False] and "epoch 3 of 4" in live[1][0]
    assert all("location.reload" in text and "1 running" in text for text, _ in live)
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text and "stopped at 3" in text and (out / "report" / "tables").is_dir()


def test_following_a_grid_that_is_yet_to_begin(tmp_path, hurried, monkeypatch, capsys):
    """It waits for the plan, then for the first run, and ends with the last one."""
    monkeypatch.setattr(status, "EVERY", 0.05)
    out = write_folder(tmp_path, "dice", cases=4, folds=2, ends={(0, 0): "waiting", (0, 1): "waiting"})
    planned = (out / "experiment.json").rename(out / "later.json")
    folders = [out / "runs" / f"unet-0-fold{fold}-seed0" for fold in (0, 1)]

    def work():
        time.sleep(1.5)
        planned.rename(out / "experiment.json")
        time.sleep(0.8)
        for folder in folders:
            (folder / "failure.json").write_text('{"reason": "a bolt from the blue"}')

    worker = threading.Thread(target=work)
    worker.start()
    assert run("report", out, "--live") == 0
    worker.join()
    told = capsys.readouterr().err
    assert told.startswith("waiting for a comparison to begin in") and "2 failed" in told
    assert "a bolt from the blue" in (out / "report.html").read_text(encoding="utf-8")


def test_following_goes_on_between_the_stages_of_a_sweep(tmp_path):
    out = write_folder(tmp_path, "dice", cases=4, folds=2)
    record = json.loads((out / "experiment.json").read_text())
    assert not read_study(out).is_under_way
    (out / "experiment.json").write_text(json.dumps(record | {"to_come": "stage 2 of 2"}))
    assert read_study(out).is_under_way


def test_an_interrupt_leaves_an_ordinary_page(tmp_path, hurried):
    out = write_folder(tmp_path, "dice,focal", cases=6, ends={(1, 2): "running"})

    def interrupt(page, study):
        raise KeyboardInterrupt

    with hold(out / "runs" / "unet-1-fold2-seed0"), pytest.raises(KeyboardInterrupt):
        writing.follow(out, "DSC", interrupt)
    assert "<script" not in (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_live_without_anything_under_way_is_the_report(tmp_path, hurried, capsys):
    out = write_folder(tmp_path, "dice,focal", cases=6)
    old, mine = out / "report" / "tables" / "old.csv", out / "report" / "notes.txt"
    old.parent.mkdir(parents=True)
    old.write_text("of an earlier report")
    mine.write_text("of the user")
    assert run("report", out, "--live") == 0
    assert str(out / "report.html") in capsys.readouterr().out
    assert "<script" not in (out / "report.html").read_text(encoding="utf-8")
    assert not old.exists() and mine.exists() and not list(out.rglob("*.part"))
    tables, figures = out / "report" / "tables", out / "report" / "figures"
    assert {path.suffix for path in tables.iterdir()} == {".csv", ".parquet", ".md", ".tex"}
    assert {path.suffix for path in figures.iterdir()} == {".svg", ".pdf"}
    assert len({path.stem for path in figures.iterdir()}) >= 7
