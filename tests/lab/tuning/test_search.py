"""A search on real, tiny trainings: interrupted, gone on with, cut short, shown, and reported."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from tiny import make_tiny, read_data, run, write_data

from unifocal.lab.cells import run_cell
from unifocal.lab.errors import LabError
from unifocal.lab.grid.status import read_status, read_to_come
from unifocal.lab.progress import Watcher
from unifocal.lab.report import write_report
from unifocal.lab.tuning import study
from unifocal.lab.tuning.search import search
from unifocal.lab.tuning.space import parse_space

SPACE, TRIALS = "tversky:delta=0.2..0.9,dice", 3
FILES = ("run.json", "trial.json", "history.csv", "cases.csv", "validation.csv")


class Log(Watcher):
    """Keeps what it is told; presses Ctrl-C after so many epochs."""

    def __init__(self, stop_after=None):
        self.epochs, self.stop_after, self.ended = 0, stop_after, []

    def epoch_ended(self, name, epoch, validation_loss):
        self.epochs += 1
        if self.epochs == self.stop_after:
            raise KeyboardInterrupt

    def run_ended(self, name, result):
        self.ended.append((name, result))


def searched(*arguments):
    """The judgement of a search without failures."""
    found = search(*arguments)
    assert not found.failures
    assert found.judgement is not None
    return found.judgement


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    log = Log()
    dataset = read_data(folder / "data")
    return folder, dataset, searched(dataset, make_tiny(), parse_space(SPACE), TRIALS, folder / "out", log), log


def contents(out):
    """What must not depend on when and by whom a trial was done."""
    found = {}
    for folder in sorted((out / "runs").iterdir()):
        for name in FILES:
            path = folder / name
            if path.exists():
                text = path.read_text()
                if name == "history.csv":
                    text = pd.read_csv(path).drop(columns="seconds").to_csv()
                found[folder.name, name] = text
    return found


def test_every_trial_is_there_and_the_defaults_come_first(done):
    folder, _, _, log = done
    table = pd.read_csv(folder / "out/search.csv")
    assert len(table) == 2 * TRIALS
    for _, fold in table.groupby("fold"):
        assert list(fold["loss"][:2]) == ["tversky", "dice"] and list(fold["is_default"]) == [True] * 2 + [False] * (
            TRIALS - 2
        )
        assert fold["chosen"].sum() == 1
    assert set(table["state"]) <= {"finished", "repeated"}
    of_trials = [result for name, result in log.ended if "trial" in name]
    assert len(of_trials) == 2 * TRIALS and all("validation DSC" in result for result in of_trials)
    for row in table[table["state"] == "finished"].itertuples():
        [place] = folder.glob(f"out/runs/search-*-fold{row.fold}-trial{row.trial:03d}")
        assert json.loads((place / "run.json").read_text())["loss"] == row.loss
        scores = pd.read_csv(place / "validation.csv")
        assert row.validation == pytest.approx(scores[scores["metric"] == "DSC"]["value"].mean())


def test_a_second_start_repeats_nothing_and_more_trials_go_on(done, tmp_path):
    folder, dataset, judgement, _ = done
    out = shutil.copytree(folder / "out", tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*") if path.is_file()}
    log = Log()
    again = searched(dataset, make_tiny(), parse_space(SPACE), TRIALS, out, log)
    assert log.epochs == 0 and again.loss == judgement.loss
    assert [gain.difference for gain in again.gains] == [gain.difference for gain in judgement.gains]
    assert before == {path: path.stat().st_mtime_ns for path in before}
    journal = next(out.glob("search/*.journal"))
    known = journal.read_bytes()
    search(dataset, make_tiny(), parse_space(SPACE), TRIALS + 1, out, log)
    assert len([name for name, _ in log.ended if "trial" in name]) == 2
    assert len(pd.read_csv(out / "search.csv")) == 2 * TRIALS + 2
    assert journal.read_bytes().startswith(known)  # what was told is not told again


@pytest.mark.slow
def test_interrupted_anywhere_it_ends_as_if_it_never_was(done, tmp_path):
    folder, dataset, _, _ = done
    for after in (1, 4, 3):
        with pytest.raises(KeyboardInterrupt):
            search(dataset, make_tiny(), parse_space(SPACE), TRIALS, tmp_path / "out", Log(after))
        study._storage.cache_clear()
    search(dataset, make_tiny(), parse_space(SPACE), TRIALS, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(folder / "out")
    assert (tmp_path / "out/search.csv").read_bytes() == (folder / "out/search.csv").read_bytes()


@pytest.mark.slow
def test_trials_that_lag_behind_are_cut_short_keep_their_history_and_are_no_failures(tmp_path, monkeypatch):
    """A planted case: with one of two weights the network learns nothing."""
    monkeypatch.setattr(study, "STARTUP", 1)
    monkeypatch.setattr(study, "WARM_UP", 0)
    dataset, out, log = read_data(tmp_path / "data"), tmp_path / "out", Log()
    space = parse_space("dice-ce:ce_weight=0:dice_weight=0.00001/10")
    settings = make_tiny(epochs=6, learning_rate=0.02, augment=False)
    judgement = searched(dataset, settings, space, 5, out, log)
    assert judgement.loss.label == "dice-ce:ce_weight=0:dice_weight=10"
    table = pd.read_csv(out / "search.csv")
    pruned = table[table["state"] == "pruned"]
    assert len(pruned) and set(pruned["dice_weight"]) == {0.00001} and not pruned["is_default"].any()
    for row in pruned.itertuples():
        [place] = out.glob(f"runs/search-*-fold{row.fold}-trial{row.trial:03d}")
        assert not list(place.glob("*.ckpt")) and 0 < len(pd.read_csv(place / "history.csv")) == row.epochs < 6
    assert any("pruned after" in result for _, result in log.ended)
    states = {run.title: run.state for run in read_status(out)}
    assert list(states.values()).count("pruned") == len(pruned)
    first = pruned.iloc[0]
    assert states[f"fold {first['fold']}, trial {first['trial']}, {first['loss']}"] == "pruned"
    # A second start leaves them as they are.
    again = Log()
    search(dataset, settings, space, 5, out, again)
    assert again.epochs == 0


@pytest.mark.slow
def test_a_trial_that_fails_is_told_and_tried_again(tmp_path, monkeypatch, capsys):
    data, out = write_data(tmp_path / "data"), tmp_path / "out"
    options = ["--epochs", 1, "--width", 4, "--batch-size", 4, "--threads", 1, "--device", "cpu", "--size", 32]
    arguments = [
        "tune",
        data,
        *options,
        "--folds",
        2,
        "--search",
        "tversky:delta=0.2..0.9",
        "--trials",
        2,
        "--out",
        out,
    ]

    def failing(out, name, judge):
        if name.endswith("fold1-trial001"):
            return {"name": name, "status": "failed", "reason": "out of luck", "seconds": 0.0}
        return run_cell(out, name, judge)

    monkeypatch.setattr("unifocal.lab.tuning.trials.run_cell", failing)
    assert run(*arguments) == 1
    printed = capsys.readouterr().out
    assert "failed: fold 1, trial 1: tversky:delta=" in printed and "out of luck" in printed
    tried = json.loads(next(out.glob("runs/*fold1-trial001/trial.json")).read_text())
    monkeypatch.setattr("unifocal.lab.tuning.trials.run_cell", run_cell)
    assert run(*arguments) == 0
    assert json.loads(next(out.glob("runs/*fold1-trial001/trial.json")).read_text()) == tried
    printed = capsys.readouterr().out
    assert "recommended: tversky" in printed


def test_the_report_shows_the_search_and_compares_the_defaults(done):
    folder, _, judgement, _ = done
    page = write_report(folder / "out").read_text()
    assert f"unifocal tune {folder / 'data'} --search {SPACE} --trials {TRIALS} " in page
    assert "Search for a loss" in page and f"recommended: {judgement.loss.label}" in page
    assert read_to_come(folder / "out") == ""
    table = pd.read_csv(folder / "out/report/tables/search.csv")
    assert len(table) == 2 * TRIALS
    runs = pd.read_csv(folder / "out/report/tables/runs.csv")
    assert set(runs["loss"]) == {"tversky", "dice"} and len(runs) == 4


@pytest.mark.parametrize(
    ("changes", "space", "trials", "says"),
    [
        ({"seeds": (0, 1)}, SPACE, 5, "one seed"),
        ({"networks": "unet,segresnet"}, SPACE, 5, "one network"),
        ({"division": "whole"}, SPACE, 5, "tests nothing"),
        ({}, SPACE, 2, "at least 3 trials"),
        ({}, "tversky:delta=0.5..1", 5, "must lie in"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(tmp_path, changes, space, trials, says):
    dataset = read_data(tmp_path / "data")
    with pytest.raises(LabError, match=says):
        search(dataset, make_tiny(**changes), parse_space(space), trials, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--sweep", "delta=0.4,0.6", "--search", SPACE], "a sweep or a search"),
        (["--sweep", "delta=0.4,0.6", "--trials", "5"], "--trials with --search"),
        (["--sweep", "delta=0.4,0.6", "--no-prune"], "--no-prune with --search"),
        (["--losses", "dice", "--search", SPACE], "--losses, too"),
        (["--search", "tversky:delta=0.9..0.1"], "the lower number first"),
        ([], "neither --search"),
    ],
)
def test_commands_that_cannot_be(tmp_path, capsys, options, says):
    data = write_data(tmp_path / "data")
    assert run("tune", data, *options, "--out", tmp_path / "out") == 2
    assert says in " ".join(capsys.readouterr().err.split()) and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_kill_9_with_workers_and_going_on(tmp_path):
    data, out = write_data(tmp_path / "data"), tmp_path / "out"
    options = "--epochs 4 --width 4 --batch-size 4 --threads 1 --device cpu --size 32 --folds 2 --trials 5 --workers 2"
    command = [sys.executable, "-m", "unifocal.lab", "tune", str(data), *options.split(), "--search", SPACE]
    command += ["--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    first = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
    end = time.monotonic() + 240
    while len(list(out.glob("runs/*/result.json"))) < 3 and time.monotonic() < end and first.poll() is None:
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    kept = {path: path.read_bytes() for path in out.glob("runs/*/result.json")}
    tried = {path: path.read_bytes() for path in out.glob("runs/*/trial.json")}
    assert 3 <= len(kept) < 10
    assert subprocess.run(command, env=environment, check=False, capture_output=True).returncode == 0
    assert all(path.read_bytes() == content for path, content in (kept | tried).items())
    table = pd.read_csv(out / "search.csv")
    assert len(table) == 10 and set(table["state"]) <= {"finished", "repeated"}
