"""How a comparison stands, from its files; and the command that shows it."""

import io
import json
import os
import re
import signal
import sys
import threading
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import cast

import fake_grid
import pytest
import typer
from fake_grid import make_grid, start, wait_until
from rich.console import Console
from typer.testing import CliRunner

from unifocal.lab import storage
from unifocal.lab.claims import hold
from unifocal.lab.commands import status as command
from unifocal.lab.errors import LabError
from unifocal.lab.grid import run_grid, status
from unifocal.lab.grid.cells import read_history
from unifocal.lab.grid.status import RunStatus, duration, read_status, total_remaining
from unifocal.lab.settings import make_settings

app = typer.Typer()
app.command()(command.status)


def history(folder, epochs, seconds):
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f"{i},1.0,0.5,0.01,{seconds[i]}" for i in range(epochs)]
    (folder / "history.csv").write_text("\n".join([fake_grid.HEADER, *rows, ""]))


@pytest.fixture
def mixed(out):
    """Five runs of ten epochs: finished, running after 4, failed, interrupted after 3, not begun."""
    cells = make_grid(out, runs=5, epochs=10)
    history(cells[0].folder, 10, [1.0] * 10)
    (cells[0].folder / "result.json").write_text("{}")
    history(cells[1].folder, 4, [50.0, 2.0, 2.0, 3.0])
    history(cells[2].folder, 1, [1.0])
    (cells[2].folder / "failure.json").write_text(json.dumps({"reason": "NotFinite: [loss] became nan"}))
    history(cells[3].folder, 3, [1.0, 1.0, 1.0])
    with hold(cells[1].folder):
        yield out


def test_the_state_of_every_run_is_told_from_its_files(mixed):
    runs = read_status(mixed)
    assert [run.state for run in runs] == ["finished", "running", "failed", "waiting", "waiting"]
    assert [run.epoch for run in runs] == [10, 4, 1, 3, 0]
    assert [run.title for run in runs] == [f"loss {i}, fold 0" for i in range(5)]
    assert all(run.epochs == 10 for run in runs)
    running = runs[1]
    assert running.owner and running.remaining and running.expected_end
    assert running.owner.is_this_process
    assert running.seconds_per_epoch == 2.5  # median of 50, 2, 2, 3: the first epoch of a process is slow
    assert 6 * 2.5 - 2.5 <= running.remaining <= 6 * 2.5
    assert abs(running.expected_end - datetime.now() - timedelta(seconds=running.remaining)).total_seconds() < 1
    assert [run.reason for run in runs] == [None, None, "NotFinite: [loss] became nan", None, None]
    assert [run.remaining for run in runs if run is not running] == [None] * 4


def test_what_remains_is_shared_by_those_who_run(mixed):
    runs = read_status(mixed)
    pace = 1.0  # median over the runs of 1, 2.5, 1 and 1 seconds
    assert total_remaining(runs) == pytest.approx((6 + 7 + 10) * pace)
    two = [replace(run, state="running", remaining=1.0) if run.name == "run3" else run for run in runs]
    assert total_remaining(two) == pytest.approx(max((6 + 7 + 10) * pace / 2, runs[1].remaining or 0))
    assert total_remaining([runs[0], runs[2]]) is None


def test_what_runs_take_beyond_their_epochs_is_that_of_finished_ones(mixed):
    assert status.time_left(read_status(mixed)) == "about 23 s left for the epochs alone"
    last = mixed / "runs" / "run0" / "result.json"
    last.write_text(json.dumps({"seconds_starting": 20.0, "seconds_scoring": 5.0}))
    runs = read_status(mixed)
    # Two runs are yet to start, one of them for the rest of its epochs; three will be scored.
    assert total_remaining(runs) == pytest.approx((6 + 7 + 10) * 1.0 + 2 * 20 + 3 * 5)
    assert status.time_left(runs) == "about 78 s left"
    assert 6 * 2.5 - 2.5 + 5 <= (runs[1].remaining or 0) <= 6 * 2.5 + 5
    history(mixed / "runs" / "run1", 10, [1.0] * 10)  # all epochs done: it is being scored
    assert 0 < (read_status(mixed)[1].remaining or 0) <= 5


def test_runs_of_several_data_sets_lie_in_folders_of_their_own(mixed):
    record = json.loads((mixed / "experiment.json").read_text())
    for run in record["runs"][:2]:
        run["folder"] = "kidney"
    (mixed / "experiment.json").write_text(json.dumps(record))
    (mixed / "kidney").mkdir()
    (mixed / "kidney" / "runs").symlink_to(mixed / "runs")
    assert [run.state for run in read_status(mixed)] == ["finished", "running", "failed", "waiting", "waiting"]
    (mixed / "kidney" / "runs").unlink()
    assert [run.state for run in read_status(mixed)] == ["waiting", "waiting", "failed", "waiting", "waiting"]


def test_a_failed_run_that_is_tried_again_runs(mixed):
    folder = mixed / "runs" / "run2"
    with hold(folder):
        assert read_status(mixed)[2].state == "running"


def test_nothing_is_left_in_the_folder_by_looking(mixed):
    before = sorted(mixed.rglob("*"))
    read_status(mixed)
    assert sorted(mixed.rglob("*")) == before


def test_a_folder_without_a_comparison_is_refused(tmp_path):
    with pytest.raises(LabError, match=r"no experiment\.json"):
        read_status(tmp_path)
    (tmp_path / "experiment.json").write_text("{}")
    with pytest.raises(LabError, match="names none"):
        read_status(tmp_path)


def test_a_grid_at_work_is_seen_from_outside(out):
    cells = make_grid(out, runs=3, epochs=20, waits_in=10)
    grid = start(out, workers=2)
    wait_until(lambda: all(read_history(cell.folder) for cell in cells[:2]))
    runs = read_status(out)
    assert [run.state for run in runs] == ["running", "running", "waiting"]
    assert {run.owner.pid for run in runs[:2] if run.owner} <= fake_grid.descendants(grid.pid)
    os.killpg(grid.pid, signal.SIGKILL)
    fake_grid.records_of(grid)
    wait_until(lambda: [run.state for run in read_status(out)] == ["waiting"] * 3)
    assert read_status(out)[0].epoch >= 1


# The command


def printed(out, width, *words):
    return CliRunner().invoke(app, [str(out), *words], env={"COLUMNS": str(width), "NO_COLOR": "1", "TERM": "xterm"})


@pytest.mark.parametrize("width", [40, 60, 80, 140])
def test_the_table_fits_the_window_and_has_no_colours_where_none_are_wanted(mixed, width):
    result = printed(mixed, width)
    assert result.exit_code == 0, result.output
    told = [
        *command.reasons(runs := read_status(mixed)),
        command.summary(runs),
    ]  # lines that the terminal breaks, for what is in them may be copied
    assert all(len(line) <= width or line in told for line in result.output.splitlines())
    assert "\x1b" not in result.output
    text = " ".join(result.output.split())
    for part in ("finished", "running", "failed", "waiting", "4/10", "3/10"):
        assert part in text
    assert "1 of 5 runs finished, 1 running, 1 failed, 2 waiting; about 23 s left for the epochs alone" in text
    assert "NotFinite: [loss] became nan" in text
    assert (f"process {os.getpid()} on" in text) == (width >= 100)


@pytest.fixture
def many():
    """35 runs with long names, of which the last but some are at work."""
    long = "hybrid-focal:alpha=[0.25,0.25]:delta=0.7:exponent=0.75:gamma=2:lam=0.5"
    states = ["finished"] * 28 + ["failed"] + ["running"] * 2 + ["waiting"] * 4
    run = RunStatus("", "", "finished", 3, 15, 1.0, None, None, None, None, None)
    return [
        replace(
            run,
            title=f"{long}, fold {n}",
            state=cast("status.State", state),
            reason="it broke" if state == "failed" else None,
        )
        for n, state in enumerate(states)
    ]


@pytest.mark.parametrize(("width", "height"), [(140, 30), (80, 24), (60, 24), (40, 24), (40, 14)])
def test_a_window_shows_first_what_a_watcher_looks_for(many, width, height):
    console = Console(width=width, height=height, file=io.StringIO(), force_terminal=True, no_color=True)
    lines = ["".join(part.text for part in line) for line in console.render_lines(command.view(many, "more", console))]
    assert len(lines) < height
    text = " ".join(" ".join(lines).split())
    head, rows = text.split("Then: more.")
    rows, left = rows.split("No room in this window for ")
    assert head.startswith("28 of 35 runs finished, 2 running, 1 failed, 4 waiting; about")
    shown = re.findall("running|failed|finished|waiting", rows)
    assert shown[:4] == ["running", "running", "failed", "finished"] and "it broke" in rows
    assert len(shown) + sum(map(int, re.findall(r"(\d+) ", left))) == 35


def test_in_a_pipe_there_is_a_line_for_each_change_and_the_table_at_the_end(mixed, monkeypatch):
    monkeypatch.setattr(command, "EVERY", 0.05)
    steps = [
        partial(history, mixed / "runs" / "run1", 5, [1.0] * 5),
        *(
            partial(storage.write_json, mixed / "runs" / name / "result.json", {"status": "finished"})
            for name in ("run1", "run3", "run4")
        ),
    ]
    timers = [threading.Timer(0.3 * n, step) for n, step in enumerate(steps, start=1)]
    for timer in timers:
        timer.start()
    result = printed(mixed, 100, "--watch")
    for timer in timers:
        timer.join()
    before, table = result.output.split("┏")
    told = [line.split(" ")[0] for line in before.splitlines()]
    assert told == ["1", "2", "3", "4"]  # none for an epoch more
    assert table.endswith("4 of 5 runs finished, 1 failed\n") and table.count("\n│") == 5


def test_watching_ends_when_every_run_has_ended(mixed, monkeypatch):
    """Between two runs nothing may be running, and that is no end."""
    monkeypatch.setattr(command, "EVERY", 0.05)
    last = [mixed / "runs" / f"run{n}" / "result.json" for n in (1, 3, 4)]
    last[-1].parent.mkdir(parents=True, exist_ok=True)
    timers = [threading.Timer(0.3 * n, path.write_text, ["{}"]) for n, path in enumerate(last, start=1)]
    for timer in timers:
        timer.start()
    result = printed(mixed, 100, "--watch")
    for timer in timers:
        timer.join()
    assert result.exit_code == 0 and "4 of 5 runs finished, 1 failed" in result.output


def test_watching_begins_before_anything_is_planned(mixed, monkeypatch):
    monkeypatch.setattr(command, "EVERY", 0.05)
    monkeypatch.setattr(status, "EVERY", 0.05)
    for n in (1, 3, 4):
        (mixed / "runs" / f"run{n}").mkdir(exist_ok=True)
        (mixed / "runs" / f"run{n}" / "result.json").write_text("{}")
    planned = (mixed / "experiment.json").rename(mixed / "later.json")
    timer = threading.Timer(0.3, planned.rename, [mixed / "experiment.json"])
    timer.start()
    result = printed(mixed, 100, "--watch")
    timer.join()
    assert result.exit_code == 0 and "4 of 5 runs finished, 1 failed" in result.output
    assert "waiting for a comparison to begin in" in result.output and "Ctrl-C ends" in result.output


def test_watching_goes_on_between_the_stages_of_a_sweep(mixed, monkeypatch):
    monkeypatch.setattr(command, "EVERY", 0.05)
    for n in (1, 3, 4):
        (mixed / "runs" / f"run{n}").mkdir(exist_ok=True)
        (mixed / "runs" / f"run{n}" / "result.json").write_text("{}")
    record = json.loads((mixed / "experiment.json").read_text())
    storage.write_json(mixed / "experiment.json", record | {"to_come": "stage 2 of 2"})
    last = record | {"runs": record["runs"][:2], "to_come": ""}
    timer = threading.Timer(0.5, storage.write_json, [mixed / "experiment.json", last])
    timer.start()
    result = printed(mixed, 100, "--watch")
    timer.join()
    assert result.exit_code == 0 and "2 of 2 runs finished" in result.output


def test_more_comes_only_after_something_that_went_well():
    assert status.is_between({"finished", "failed"}, "stage 2 of 2")
    assert not status.is_between({"finished"}, "")
    assert not any(status.is_between(states, "more") for states in ({"failed"}, {"finished", "waiting"}, {"running"}))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.04 s"), (9.94, "9.9 s"), (35.2, "35 s"), (89, "89 s"), (600, "10 min"), (9000, "2.5 h"), (2e5, "2.3 d")],
)
def test_durations_are_short(seconds, text):
    assert duration(seconds) == text


# Bars and lines


def test_bars_of_several_runs(out):
    from unifocal.lab.progress import Bars, Lines

    cells = make_grid(out, runs=3, epochs=6, fails=["run1"])
    console = Console(file=sys.stderr, force_terminal=True, width=100)
    with console.capture() as captured, Bars(console) as bars:
        list(run_grid(cells, make_settings(device="cpu", workers=3), bars, fake_grid.run_cell))
        total = next(task for task in bars.progress.tasks if task.description == "all runs")
        assert (total.completed, total.total) == (12, 12)  # the epochs of the failed one never come
        assert len(bars.progress.tasks) == 1
    assert "failed: ValueError: the gradient went home" in captured.get()
    console = Console(file=sys.stderr, width=100)
    with console.capture() as captured:
        list(run_grid(cells, make_settings(device="cpu"), Lines(console), fake_grid.run_cell))
    lines = captured.get().splitlines()
    assert lines[0] == "3 runs of 6 epochs, 2 of them finished earlier"
    assert re.fullmatch(r"\[3/3\] loss 1, fold 0: failed: ValueError: the gradient went home \(\d+ s\)", lines[1])


def test_epochs_of_runs_at_the_same_time_do_not_mix():
    from unifocal.lab.progress import Bars

    console = Console(file=sys.stderr, force_terminal=True, width=100)
    with console.capture(), Bars(console) as bars:
        bars.plan(4, 1, 10)

        def total():
            task = next(task for task in bars.progress.tasks if task.id == bars.all)
            return task.completed, task.total

        assert total() == (0, 30)
        bars.run_started("a", 0)
        bars.run_started("b", 4)
        assert total() == (0, 26)
        bars.epoch_ended("b", 4, 0.5)
        bars.epoch_ended("a", 0, 0.5)
        bars.epoch_ended("b", 5, 0.5)
        assert total() == (3, 26)
        bars.run_set_back("b", 2, 4, "a checkpoint is missing")
        assert total() == (3, 30)
        bars.epoch_ended("b", 2, 0.5)
        bars.epoch_ended("b", 3, 0.5)
        bars.epoch_ended("b", 4, 0.5)
        bars.epoch_ended("b", 5, 0.5)
        assert total() == (7, 30)
        bars.run_ended("a", "failed: x")
        assert total() == (7, 21)
        bars.run_ended("b", "finished")  # it stopped early
        assert total() == (7, 17)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_starts_again_says_so_and_why(out, workers):
    from unifocal.lab.progress import Lines

    [cell] = make_grid(out, runs=1, epochs=6)
    cell.folder.mkdir(parents=True)
    rows = "".join(f"{epoch},1.0,0.5,0.01,9.0\n" for epoch in range(3))
    (cell.folder / "history.csv").write_text(f"{fake_grid.HEADER}\n{rows}")
    (cell.folder / "damaged.ckpt").touch()
    console = Console(file=sys.stderr, width=500)
    with console.capture() as captured:
        list(run_grid([cell], make_settings(device="cpu", workers=workers), Lines(console), fake_grid.run_cell))
    lines = captured.get().splitlines()
    why = f"the last checkpoint was damaged, and is now {cell.folder / 'damaged.ckpt'}"
    assert f"[1/1] loss 0, fold 0: starts again after 3 epochs: {why}" in lines
    if workers == 1:
        assert "goes on" not in captured.get()
