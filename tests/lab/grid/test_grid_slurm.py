"""The grid on SLURM: submitit's executor for this machine, and a stand-in for the commands of SLURM."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import fake_grid
import pytest
from fake_grid import check_finished, held, make_grid, run_cell, start, wait_until

from unifocal.lab.claims import hold
from unifocal.lab.errors import LabError
from unifocal.lab.grid import run_grid, sbatch, slurm, squeue
from unifocal.lab.grid.cells import read_history
from unifocal.lab.grid.sbatch import make_executor
from unifocal.lab.progress import Watcher
from unifocal.lab.settings import make_settings

submitit = pytest.importorskip("submitit", reason="needs submitit: pip install 'unifocal[lab,slurm]'")


class Said(Watcher):
    def __init__(self):
        self.said, self.epochs = [], []

    def stage(self, text):
        self.said.append(text)

    def epoch_ended(self, name, epoch, validation_loss):
        self.epochs.append((name, epoch))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(slurm, "POLL", 0.05)
    monkeypatch.setattr(squeue, "LOOK", 0.2)
    monkeypatch.setattr(squeue, "LOST", 0.5)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(fake_grid.HERE), os.environ.get("PYTHONPATH", "")]))


def run(cells, watcher=None, **settings):
    asked = make_settings(engine="slurm", device="cpu", threads=1, **settings)
    return {r["name"]: r for r in run_grid(cells, asked, watcher or Watcher(), run_cell)}


# submitit's own executor


def test_jobs_of_submitit_give_the_same_files_and_failures_are_records(out):
    cells, watcher = make_grid(out, runs=3, epochs=10, seconds=0.05, fails=["run1"]), Said()
    records = run(cells, watcher, slurm="cluster=local")
    assert records["run1"]["status"] == "failed"
    assert records["run1"]["reason"] == "ValueError: the gradient went home"
    check_finished([cells[0], cells[2]])
    for cell in (cells[0], cells[2]):
        assert [epoch for name, epoch in watcher.epochs if name == cell.title] == list(range(10))
    [told] = watcher.said
    assert told.startswith("jobs in the queue: 3 (") and str(out / "slurm") in told


def test_workers_limit_how_many_run_at_a_time(out):
    cells, at_work = make_grid(out, runs=5, epochs=20, seconds=0.02), []

    class Counting(Watcher):
        def epoch_ended(self, name, epoch, validation_loss):
            at_work.append(len(fake_grid.workers_of(cells)))

    assert {r["status"] for r in run(cells, Counting(), slurm="cluster=local", workers=2).values()} == {"finished"}
    check_finished(cells)
    assert max(at_work) <= 2


def test_a_job_that_is_told_its_time_is_up_goes_on_where_it_was(out):
    cells = make_grid(out, runs=1, epochs=20, waits_in=10)
    grid = start(out, engine="slurm", slurm="cluster=local")
    wait_until(lambda: len(read_history(cells[0].folder)) > 3)
    first = fake_grid.workers_of(cells)["run0"]
    os.kill(first, signal.SIGUSR2)  # SLURM's word, by way of submitit
    wait_until(lambda: fake_grid.workers_of(cells).get("run0", first) != first)
    held(out).unlink()
    code, records, errors = fake_grid.records_of(grid)
    assert code == 0 and records[0]["status"] == "finished", errors
    check_finished(cells)
    assert fake_grid.repeated_epochs(cells[0]) <= 1


def test_a_job_that_is_killed_is_lost_and_its_log_named(out):
    cells = make_grid(out, runs=2, epochs=3, dies=["run0"])
    records = run(cells, slurm="cluster=local")
    assert records["run0"]["status"] == "lost" and "_log.err" in records["run0"]["reason"]
    check_finished(cells[1:])


# SLURM

COMMANDS = {
    # sbatch FILE: a process for each job of the array, which ends its life with the file of its number in `queue`
    "sbatch": """
import os, pathlib, re, subprocess, sys, time
home = pathlib.Path(os.environ["FAKE_SLURM"])
script = pathlib.Path(sys.argv[-1]).read_text()
(home / "script.sh").write_text(script)
if "partition=none" in script:
    sys.exit("sbatch: error: invalid partition specified: none")
number = 100 + len(list(home.glob("array*")))
if number > 100 and (home / "full").exists():
    sys.exit("sbatch: error: submit limit reached")
kept = home / f"array{number}"  # as SLURM keeps the script: submitit renames its file at once
kept.write_text(script)
array = re.search(r"--array=0-(\\d+)", script)
for task in range(int(array[1]) + 1 if array else 1):
    name = f"{number}_{task}" if array else str(number)
    environment = dict(os.environ, SLURM_JOB_ID=str(number), SLURM_JOB_NUM_NODES="1", SLURM_NTASKS="1")
    if array:
        environment |= {"SLURM_ARRAY_JOB_ID": str(number), "SLURM_ARRAY_TASK_ID": str(task)}
    held = f"while [ -e {home}/held ]; do sleep 0.05; done; touch {home}/queue/{name}; bash {kept}; "
    (home / "queue" / name).touch()
    with (home / f"{name}.log").open("w") as log:
        subprocess.Popen(["bash", "-c", held + f"rm -f {home}/queue/{name}"], env=environment, stdout=log,
                         stderr=log, start_new_session=True)
if (home / "slow").exists():
    time.sleep(1)
print(f"Submitted batch job {number}")
""",
    "srun": """
import os, sys
words = sys.argv[1:]
while words[0].startswith("-"):
    words = words[1:] if words[0] == "--unbuffered" else words[2:]
os.execvp(words[0], words)
""",
    "squeue": """
import os, pathlib
print("\\n".join(path.name for path in (pathlib.Path(os.environ["FAKE_SLURM"]) / "queue").iterdir()))
""",
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A stand-in for SLURM; while the file `held` is there, its jobs wait."""
    home = tmp_path / "fake"
    (home / "queue").mkdir(parents=True)
    (home / "bin").mkdir()
    for name, program in COMMANDS.items():
        (home / "bin" / name).write_text(f"#!{sys.executable}\n{program}")
        (home / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(home / "bin"), os.environ["PATH"]]))
    monkeypatch.setenv("FAKE_SLURM", str(home))
    yield home
    (home / "held").unlink(missing_ok=True)
    wait_until(lambda: not any((home / "queue").iterdir()))


def test_the_array_asks_for_what_was_said(out, home):
    cells = make_grid(out, runs=3, epochs=2)
    records = run(cells, slurm="partition=gpu,time=90,mem_gb=16,gres=gpu:a100:1", gpus=2, workers=2)
    assert {r["status"] for r in records.values()} == {"finished"}
    check_finished(cells)
    script = (home / "script.sh").read_text().splitlines()
    asked = {line.removeprefix("#SBATCH --") for line in script if line.startswith("#SBATCH")}
    assert asked >= {
        "array=0-2%2",
        "partition=gpu",
        "time=90",
        "mem=16GB",
        "gres=gpu:a100:1",
        "gpus-per-node=2",
        "cpus-per-task=1",
        "requeue",
        "job-name=unifocal",
    }


def test_a_second_start_waits_for_the_jobs_of_the_first(out, home):
    cells = make_grid(out, runs=3, epochs=5)
    (home / "held").touch()
    first = start(out, engine="slurm")
    wait_until((out / "slurm" / "jobs.json").exists)
    os.killpg(first.pid, signal.SIGINT)
    code, _, errors = fake_grid.records_of(first)
    assert code == 130
    assert "the jobs go on by themselves" in errors
    assert f"`unifocal status {out}`" in errors and "`scancel 100`" in errors
    second = start(out, engine="slurm")
    assert second.stderr.readline().startswith("jobs in the queue: 3 (100);")
    (home / "held").unlink()
    code, records, errors = fake_grid.records_of(second)
    assert code == 0 and {r["status"] for r in records} == {"finished"}, errors
    assert [path.name for path in home.glob("array*")] == ["array100"]
    check_finished(cells)


@pytest.mark.parametrize("moment", ["sbatch at work", "jobs recorded"])
def test_an_interruption_while_jobs_are_submitted_loses_none(out, home, moment):
    cells = make_grid(out, runs=3, epochs=5)
    (home / "held").touch()
    (home / "slow").touch()
    first = start(out, engine="slurm")
    wait_until((home / "array100" if moment == "sbatch at work" else out / "slurm" / "jobs.json").exists)
    os.kill(first.pid, signal.SIGINT)
    code, _, errors = fake_grid.records_of(first)
    assert code == 130
    assert "the jobs go on by themselves" in errors and "`scancel 100`" in errors
    (home / "held").unlink()
    code, records, errors = fake_grid.records_of(start(out, engine="slurm"))
    assert code == 0 and {r["status"] for r in records} == {"finished"}, errors
    assert [path.name for path in home.glob("array*")] == ["array100"]
    check_finished(cells)


def test_an_array_that_is_refused_does_not_lose_those_before(out, home, monkeypatch):
    monkeypatch.setattr(sbatch, "ARRAY", 2)
    cells, watcher = make_grid(out, runs=3, epochs=5), Said()
    (home / "held").touch()
    (home / "full").touch()
    with pytest.raises(LabError, match=r"the jobs were refused: .*submit limit"):
        run(cells, watcher)
    assert "`scancel 100` ends them" in watcher.said[-1]
    (home / "held").unlink()
    (home / "full").unlink()
    assert {r["status"] for r in run(cells).values()} == {"finished"}
    assert sorted(path.name for path in home.glob("array*")) == ["array100", "array101"]
    check_finished(cells)


def test_two_starts_at_once_submit_once(out, home):
    cells = make_grid(out, runs=3, epochs=5)
    grids = [start(out, engine="slurm") for _ in range(3)]
    for grid in grids:
        code, records, errors = fake_grid.records_of(grid)
        assert code == 0 and {r["status"] for r in records} == {"finished"}, errors
    assert [path.name for path in home.glob("array*")] == ["array100"]
    check_finished(cells)


def test_what_is_claimed_is_not_submitted(out, home):
    cells = make_grid(out, runs=3, epochs=3)
    with hold(cells[1].folder):
        settings = make_settings(engine="slurm", device="cpu")
        grid = run_grid(cells, settings, Watcher(), run_cell)
        assert {next(grid)["name"], next(grid)["name"]} == {"run0", "run2"}
        assert "array=0-1%" in (home / "script.sh").read_text()
    assert next(grid)["status"] == "finished"
    check_finished(cells)


def test_a_job_that_leaves_the_queue_without_a_result_is_lost(out, home):
    cells = make_grid(out, runs=2, epochs=3, dies=["run0"])
    records = run(cells)
    assert records["run0"]["status"] == "lost" and "ended without a result" in records["run0"]["reason"]
    assert records["run1"]["status"] == "finished", records
    check_finished(cells[1:])


def test_what_sbatch_refuses_is_told(out, home):
    with pytest.raises(LabError, match="invalid partition specified: none"):
        run(make_grid(out), slurm="partition=none")


def test_a_requeued_job_waits_until_its_own_claim_is_dead(out, monkeypatch):
    """Its node failed a moment ago: the claim is from elsewhere, and not yet old."""
    [cell] = make_grid(out, runs=1, epochs=3)
    place = cell.folder / "claim"
    place.mkdir(parents=True)
    (place / "node7-1.json").write_text(json.dumps({"host": "node7"}))
    monkeypatch.setattr("unifocal.lab.claims.STALE", 1.0)
    monkeypatch.setattr(slurm, "STALE", 1.0)
    started = time.monotonic()
    assert slurm.Task(run_cell, None)(cell)["status"] == "finished"
    assert 0.8 < time.monotonic() - started < 30  # where `STALE` seconds would be 60
    check_finished([cell])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"slurm": "partition"}, "expected --slurm name=value"),
        ({"slurm": "patrition=gpu"}, "no 'patrition'. Did you mean 'partition'"),
        ({"slurm": "cluster=locall,partion=x"}, r"(?s)no 'partion'.*'partition'.*cluster=locall. Did you mean 'local'"),
        ({"slurm": "time=1-00:00:00"}, "timeout_min"),
        ({"gpus": 0.5}, "whole GPUs"),
    ],
)
def test_impossible_words_are_refused(out, home, settings, says):
    with pytest.raises(LabError, match=says):
        make_executor(submitit, out / "slurm", make_settings(engine="slurm", **settings))


def test_without_slurm_it_is_said_what_to_do(out, monkeypatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    with pytest.raises(LabError, match="no sbatch here"):
        run(make_grid(out))
