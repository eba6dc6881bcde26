"""What happens to machines happens to real comparisons: kills, Ctrl-C, a full disk, the same command started twice;
and whatever executes the runs.

Whatever it is, the same command brings the comparison to the very table that nothing disturbed.
"""

import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from tiny import write_data

pytestmark = pytest.mark.slow

EPOCHS = 6
OPTIONS = f"--losses dice,focal --folds 2 --epochs {EPOCHS} --size 32 --width 4 --batch-size 2 --threads 1 --device cpu"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The data, and the table of a comparison that nothing disturbed."""
    folder = tmp_path_factory.mktemp("straight")
    data = write_data(folder / "data")
    process = start(data, folder / "out")
    text = said(process)
    assert process.returncode == 0, text
    return data, (folder / "out/results.csv").read_bytes()


def start(data: Path, out: Path, *more: str, **arguments):
    command = [sys.executable, "-m", "unifocal.lab", "compare", str(data), *OPTIONS.split(), "--out", str(out), *more]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT, **arguments
    )


def said(process: subprocess.Popen[str]) -> str:
    return process.communicate()[0]


def epochs(out: Path) -> dict[str, int]:
    """Rows of each run's history, as they are on the disk at this moment."""
    return {path.parent.name: len(pd.read_csv(path)) for path in out.glob("runs/*/history.csv")}


def wait_for(out: Path, rows: int, process: subprocess.Popen[str]) -> None:
    """Wait until so many epochs have been written down in all, or until it is over."""
    deadline = time.monotonic() + 120
    while sum(epochs(out).values()) < rows and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


def test_kill_9_at_random_moments_costs_an_epoch_at_most(straight, tmp_path):
    data, expected = straight
    out, draw = tmp_path / "out", random.Random(1)
    goals = [3, 13]  # epochs of 24, after which it is killed
    for goal in goals:
        process = start(data, out)
        wait_for(out, goal, process)
        time.sleep(draw.random() * 0.1)
        process.kill()
        said(process)
        before = epochs(out)
    process = start(data, out)
    text = said(process)
    assert process.returncode == 0, text
    assert (out / "results.csv").read_bytes() == expected
    for title, done in re.findall(r"\] (.*?): goes on after (\d+) epochs?", text):
        loss, fold = re.fullmatch(r"(\w+), fold (\d)", title).groups()  # type: ignore[union-attr]
        [rows] = [n for name, n in before.items() if name.startswith(f"unet-{loss}-fold{fold}-")]
        assert int(done) >= rows - 1
    assert not list(out.rglob("*.part"))


def test_ctrl_c_ends_with_130_and_a_word_and_goes_on(straight, tmp_path):
    data, expected = straight
    process = start(data, tmp_path / "out")
    wait_for(tmp_path / "out", 8, process)
    process.send_signal(signal.SIGINT)
    text = said(process)
    assert process.returncode == 130 and "the same command goes on from there" in text and "Traceback" not in text
    process = start(data, tmp_path / "out")
    text = said(process)
    assert process.returncode == 0 and "finished earlier" in text
    assert (tmp_path / "out/results.csv").read_bytes() == expected


def test_the_same_command_started_twice_by_mistake(straight, tmp_path):
    """Both end well, or the second says who is there; no run is done twice, and the table is the same."""
    data, expected = straight
    first, second = (start(data, tmp_path / "out") for _ in range(2))
    texts = said(first), said(second)
    codes = first.returncode, second.returncode
    assert 0 in codes and set(codes) <= {0, 2}, texts
    for code, text in zip(codes, texts, strict=True):
        assert code == 0 or "works" in text
        assert "Traceback" not in text
    assert (tmp_path / "out/results.csv").read_bytes() == expected


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="this system cannot limit the size of files")
def test_a_full_disk_is_told_and_nothing_is_lost(straight, tmp_path):
    """Files cannot grow beyond 100 kB: checkpoints do not fit."""
    data, expected = straight
    out = tmp_path / "out"

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    process = start(data, out, preexec_fn=fill)
    text = said(process)
    assert process.returncode == 1 and "Traceback" not in text
    assert ".ckpt" in text, text
    assert not list(out.rglob("*.ckpt")) and not list(out.rglob("*.part"))
    process = start(data, out)
    text = said(process)
    assert process.returncode == 0, text
    assert (out / "results.csv").read_bytes() == expected


def test_two_workers_one_of_them_killed(straight, tmp_path):
    data, expected = straight
    out = tmp_path / "out"
    process = start(data, out, "--workers", "2")
    wait_for(out, 4, process)
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False
    ).stdout.split()
    assert children
    os.kill(int(children[-1]), signal.SIGKILL)
    text = said(process)
    assert process.returncode == 0, text
    assert (out / "results.csv").read_bytes() == expected


@pytest.mark.parametrize(
    ("package", "options"),
    [
        ("ray", ["--engine", "ray", "--workers", "2"]),
        ("submitit", ["--engine", "slurm", "--slurm", "cluster=local"]),
    ],
)
def test_every_engine_gives_the_same_table_to_the_bit(straight, tmp_path, package, options):
    pytest.importorskip(package)
    data, expected = straight
    process = start(data, tmp_path / "out", *options)
    text = said(process)
    assert process.returncode == 0, text
    assert (tmp_path / "out/results.csv").read_bytes() == expected
