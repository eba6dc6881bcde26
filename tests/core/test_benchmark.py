"""The benchmark itself: its rows and columns, its goals, and what it does when it is stopped or misspelt."""

import csv
import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
TINY = "--shapes 1x2x6^2 --losses dice --dtypes float32 --heaps warm --threads 1 --peers none --rounds 2".split()


@pytest.fixture
def losses(monkeypatch) -> Any:
    """The module benchmarks/losses.py."""
    monkeypatch.syspath_prepend(FOLDER)
    for name in ("losses", "report"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("losses")


@pytest.fixture
def report(losses) -> Any:
    """The module benchmarks/report.py."""
    return sys.modules["report"]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as f:
        return list(csv.DictReader(f))


def test_a_tiny_run_writes_its_rows_and_says_how_the_goals_stand(losses, tmp_path):
    out = tmp_path / "new" / "tiny.csv"
    command = [sys.executable, FOLDER / "losses.py", *TINY, "--labels", "blob-uint8", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = rows_of(out)
    assert list(rows[0]) == list(losses.COLUMNS)
    base, *own = rows
    assert (base["contender"], base["kind"]) == ("F.cross_entropy", "floor")
    assert own and {(r["contender"], r["kind"], r["shape"]) for r in own} == {("dice", "ours", "1x2x6^2")}
    measured = [r for r in rows if not r["skipped"]]  # an engine may be missing where there is no compiler
    assert base in measured and any(r in measured for r in own)
    for r in measured:
        assert float(r["ratio"]) > 0 and float(r["time_ms"]) > 0 and r["clock"] == "cpu" and r["rounds"] == "2"
        assert float(r["peak"]) >= 1 > 0 <= int(r["kept_tensors"])  # the gradient itself is 1
    assert float(base["kept"]) > 1 and int(base["kept_tensors"]) == 2  # log-probabilities, and labels as int64
    assert "goals met" in done.stdout and "Time / floor" in done.stdout
    assert "1/1" in done.stderr


@pytest.mark.slow
def test_a_stopped_run_keeps_the_cells_that_were_finished(losses, tmp_path):
    labels = ["--labels", *losses.LABELS]
    command = [sys.executable, FOLDER / "losses.py", *TINY, *labels, "--rounds", "100", "--out", tmp_path / "all.csv"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        first = process.stderr.readline()
        os.kill(process.pid, signal.SIGINT)
        rest = process.stderr.read()
    assert "[  1/5]" in first and "Stopped" in rest and process.returncode == 130
    assert not (tmp_path / "all.csv").exists()
    assert {r["labels"] for r in rows_of(tmp_path / "all-stopped.csv")} >= {"blob-uint8"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--losses", "dicee"], "Did you mean 'dice'?"),
        (["--engines", "natve"], "there is no engine named 'natve'"),
        (["--shapes", "2x3x96^"], "such as 2x3x96^3"),
        (["--shapes", "2x3"], "such as 2x3x96^3"),
        (["--labels", "blob"], "blob-int64"),
        (["--quick", "--full"], "exclude each other"),
        (["--threads", "0"], "from 1 on"),
    ],
)
def test_a_wrong_option_is_answered_with_the_right_ones(losses, capsys, arguments, words):
    with pytest.raises(SystemExit, match="2"):
        losses.options(arguments)
    assert words in capsys.readouterr().err


def test_shapes_are_read_as_they_are_written(report):
    assert report.shape_of("2x3x96^3") == (2, 3, 96, 96, 96)
    assert report.shape_of("2x3x80x160x160") == (2, 3, 80, 160, 160)
    assert report.shape_of("32x2x128^2") == (32, 2, 128, 128)


def test_the_plan_covers_every_kind_of_input_that_has_a_goal(losses):
    a = losses.options([])
    cells = [c for process in losses.plan(a) for c in process]
    for threads in (1, 2):
        warm = [c for c in cells if (c["heap"], c["threads"]) == ("warm", threads)]
        assert {c["name"] for c in warm} == set(losses.SHAPES)
        assert {c["dtype"] for c in warm} == set(losses.DTYPES)
        assert {c["labels"] for c in warm} == (
            set(losses.LABELS) if threads == 1 else {"blob-uint8", "shuffled-int64", "soft"}
        )
        assert any(c["losses"] == a.every for c in warm)
    assert sum(c["peers"] == "all" for c in cells) == 1
    assert any(c["heap"] == "default" for c in cells)
    assert sum(c["compiled"] for c in cells) == 1


def test_full_takes_everything_everywhere(losses):
    a = losses.options(["--full"])
    cells = [c for process in losses.plan(a) for c in process]
    combinations = len(losses.SHAPES) * len(losses.DTYPES) * len(losses.LABELS)
    assert len(cells) == combinations * 4  # two heaps, one and two threads
    assert all(c["losses"] == a.every and c["peers"] == "all" for c in cells)


CELL = {"device": "cpu", "heap": "warm", "threads": 1, "shape": "2x3x96^3", "dtype": "float32", "labels": "blob-uint8"}
OURS = {**CELL, "kind": "ours", "engine": "native", "mode": "eager", "contender": "dice"}
MONAI = {**CELL, "kind": "peer", "engine": "monai 1", "mode": "eager", "contender": "MONAI DiceCELoss", "ratio": 2.5}


def own(**changed: Any) -> dict[str, Any]:
    return {**OURS, "ratio": 0.5, "peak": 1.0, "kept_tensors": 0, **changed}


def verdicts(report: Any, *rows: dict[str, Any]) -> dict[tuple[str, str], tuple[float, str]]:
    return {(v.engine, v.goal): (round(v.value, 6), v.verdict) for v in report.judge(list(rows))}


@pytest.mark.parametrize(
    ("changed", "goal", "value", "verdict"),
    [
        ({"ratio": 0.59}, "time / floor", 0.59, "aim"),
        ({"ratio": 0.61}, "time / floor", 0.61, "pass"),
        ({"ratio": 1.01}, "time / floor", 1.01, "FAIL"),
        ({"ratio": 2.9, "engine": "aten"}, "time / floor", 2.9, "pass"),
        ({"ratio": 3.1, "engine": "aten"}, "time / floor", 3.1, "FAIL"),
        ({"ratio": 3.1, "engine": "reference"}, "time / floor", 3.1, ""),
        ({"ratio": 0.45}, "time / MONAI DiceCE", 0.18, "aim"),
        ({"ratio": 0.75}, "time / MONAI DiceCE", 0.30, "pass"),
        ({"ratio": 0.90}, "time / MONAI DiceCE", 0.36, "FAIL"),
        ({"peak": 1.2}, "peak / logits", 1.2, "FAIL"),
        ({"kept_tensors": 1}, "tensors kept", 1, "FAIL"),
        ({"ratio": 0.4, "heap": "default"}, "default heap, 4 M up", 0.4, "pass"),
    ],
)
def test_a_goal_is_judged_by_its_bounds(report, changed, goal, value, verdict):
    row = own(**changed)
    assert verdicts(report, row, MONAI)[row["engine"], goal] == (value, verdict)


def test_small_inputs_are_judged_against_monai_alone(report):
    small = {"shape": "2x2x64^2"}
    found = verdicts(report, own(ratio=2.6, **small), {**MONAI, **small})
    assert found == {("native", "below 0.1 M / DiceCE"): (1.04, "FAIL")}


def test_the_worst_case_counts_and_every_loss_that_fails_is_named(report):
    rows = [own(contender="focal", ratio=1.2), own(ratio=1.5, threads=2), own(contender="combo"), own(ratio=1.1)]
    (worst,) = [v for v in report.judge(rows) if v.goal == "time / floor"]
    assert (worst.value, worst.verdict, worst.row["threads"]) == (1.5, "FAIL", 2)
    assert worst.failing == {"focal": 1.2, "dice": 1.5}
    assert "focal 1.20" in report.goals(rows)


def test_a_loss_that_could_not_be_measured_is_no_success(report):
    broken = {**OURS, "contender": "combo", "skipped": "RuntimeError: no"}
    assert "combo with native" in report.goals([own(), broken])
    assert "not measured" not in report.goals([own()])
