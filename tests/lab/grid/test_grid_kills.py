"""Whatever is killed, whenever, however often: nothing finished is lost, and an epoch at most is done twice."""

import errno
import os
import random
import re
import signal
import subprocess
import time

import fake_grid
import pytest
from fake_grid import check_finished, check_whole, held, make_grid, repeated_epochs, run_cell, start, wait_until

from unifocal.lab.errors import LabError
from unifocal.lab.grid import run_grid
from unifocal.lab.grid.cells import read_history
from unifocal.lab.progress import Watcher
from unifocal.lab.settings import make_settings


def test_kill_9_of_the_grid_at_random_moments(out):
    cells = make_grid(out, runs=5, epochs=60)
    chance, kills = random.Random(1), 0
    while True:
        grid = start(out)
        begun = fake_grid.begun_epochs(cells)
        wait_until(lambda: fake_grid.begun_epochs(cells) > begun or grid.poll() is not None)  # noqa: B023
        end = time.monotonic() + chance.uniform(0.0, 0.4)
        while time.monotonic() < end and grid.poll() is None:
            check_whole(cells)
        if grid.poll() is not None:
            break
        finished = {cell.name: (cell.folder / "result.json").read_bytes() for cell in cells if cell.is_finished}
        os.killpg(grid.pid, signal.SIGKILL)
        fake_grid.records_of(grid)
        kills += 1
        check_whole(cells)
        assert all((out / "runs" / name / "result.json").read_bytes() == text for name, text in finished.items())
    code, records, errors = fake_grid.records_of(grid)
    assert code == 0 and [r["status"] for r in records] == ["finished"] * 5, errors
    check_finished(cells)
    assert kills >= 3
    assert sum(map(repeated_epochs, cells)) <= kills


@pytest.mark.slow
def test_kill_9_of_workers_at_random_moments(out):
    cells = make_grid(out, runs=6, epochs=80)
    grid = start(out, workers=3)
    chance, kills = random.Random(2), dict.fromkeys((cell.name for cell in cells), 0)
    epochs = dict.fromkeys(kills, -1)  # of a run when it was last killed: a next kill waits for progress
    while grid.poll() is None and sum(kills.values()) < 12:
        check_whole(cells)
        done = {cell.name: len(read_history(cell.folder)) for cell in cells}
        targets = {n: pid for n, pid in fake_grid.workers_of(cells).items() if pid != grid.pid and done[n] > epochs[n]}
        if targets:
            name = chance.choice(sorted(targets))
            os.kill(targets[name], signal.SIGKILL)
            kills[name] += 1
            epochs[name] = done[name]
        time.sleep(chance.uniform(0.0, 0.2))
    code, records, errors = fake_grid.records_of(grid)
    assert code == 0 and sorted(r["name"] for r in records) == sorted(kills), errors
    assert all(r["status"] == "finished" for r in records)
    assert errors.count("SIGKILL; it goes on in another process") >= 3
    check_finished(cells)
    for cell in cells:  # a kill costs its own run an epoch, and the others nothing
        assert repeated_epochs(cell) <= kills[cell.name]


def test_workers_end_with_a_grid_that_is_killed(out):
    cells = make_grid(out, runs=3, epochs=9999)
    grid = start(out, workers=3)
    wait_until(lambda: len(fake_grid.workers_of(cells)) == 3)
    children = fake_grid.descendants(grid.pid)
    assert len(children) == 3
    grid.kill()
    fake_grid.records_of(grid)
    wait_until(lambda: not any(map(fake_grid.is_alive, children)))
    assert fake_grid.workers_of(cells) == {}


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(("word", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupts_leave_no_process_and_no_claim(out, workers, word, code):
    cells = make_grid(out, runs=3, epochs=20, waits_in=10)
    grid = start(out, workers=workers)
    wait_until(lambda: len(fake_grid.workers_of(cells)) == min(workers, 3))
    wait_until(lambda: read_history(cells[0].folder))
    children = fake_grid.descendants(grid.pid)
    if word == signal.SIGINT:
        os.killpg(grid.pid, word)  # a terminal sends Ctrl-C to all
    else:
        grid.send_signal(word)
    assert fake_grid.records_of(grid)[0] == code  # though no run would ever end
    assert not any(map(fake_grid.is_alive, children))
    assert not any((cell.folder / "claim").exists() for cell in cells)
    held(out).unlink()
    grid = start(out, workers=workers)
    assert fake_grid.records_of(grid)[0] == 0
    check_finished(cells)
    assert all(repeated_epochs(cell) <= 1 for cell in cells)


def test_a_worker_that_is_deaf_to_words_is_killed(out):
    cells = make_grid(out, runs=2, epochs=9999, deaf=True)
    grid = start(out, workers=2)
    wait_until(lambda: all(read_history(cell.folder) for cell in cells))
    children = fake_grid.descendants(grid.pid)
    grid.send_signal(signal.SIGTERM)
    assert fake_grid.records_of(grid)[0] == 143
    assert len(children) == 2 and not any(map(fake_grid.is_alive, children))


def test_two_grids_on_one_folder_share_the_runs(out):
    cells = make_grid(out, runs=6, epochs=40)
    grids = [start(out), start(out, workers=2)]
    for grid in grids:
        code, records, errors = fake_grid.records_of(grid)
        assert code == 0, errors
        assert sorted(r["name"] for r in records) == [cell.name for cell in cells]
        assert {r["status"] for r in records} == {"finished"}
    check_finished(cells)
    assert sum(map(repeated_epochs, cells)) == 0


def test_a_grid_waits_for_the_other_says_so_and_takes_over_when_that_is_killed(out):
    cells = make_grid(out, runs=1, epochs=20, waits_in=10)
    first = start(out)
    wait_until(lambda: read_history(cells[0].folder))
    second = start(out)
    assert second.stderr.readline().startswith(f"waiting for what others work on: process {first.pid} on ")
    first.kill()
    fake_grid.records_of(first)
    held(out).unlink()
    code, records, errors = fake_grid.records_of(second)
    assert code == 0 and records[0]["status"] == "finished", errors
    check_finished(cells)
    assert repeated_epochs(cells[0]) <= 1


@pytest.mark.slow
def test_a_disk_that_is_full_now_and_then(out, monkeypatch):
    cells = make_grid(out, runs=3, epochs=30, seconds=0)
    chance, failures = random.Random(3), []
    fsync = os.fsync

    def full(descriptor):
        if chance.random() < 0.02:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    for _ in range(60):
        try:
            list(run_grid(cells, make_settings(device="cpu"), Watcher(), run_cell))
        except LabError as error:
            failures.append(str(error))
            check_whole(cells)
        else:
            break
    check_finished(cells)
    assert len(failures) >= 3
    for reason in failures:
        assert reason.startswith(f"No space left on device: {out}") and "the same command goes on" in reason
    assert sum(map(repeated_epochs, cells)) <= len(failures)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of ten blocks in memory."""
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "x", tmp_path], check=False).returncode
    ):
        pytest.skip("nothing can be mounted here")
    yield tmp_path
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_stops_the_grid_with_one_reason_and_nothing_is_lost(small_disk, workers):
    cells = make_grid(small_disk, runs=6, epochs=20)
    code, records, errors = fake_grid.records_of(start(small_disk, workers=workers))
    assert code == 1 and {r["status"] for r in records} <= {"finished"}
    assert re.fullmatch(
        rf"unifocal: No space left on device: {small_disk}/\S+ could not be written; 0\.\d MB are free without it\. "
        r"Finished runs and whole epochs are kept: make room, and the same command goes on from there\.\n",
        errors,
    )
    assert not list(small_disk.rglob("*.part")) and not list(small_disk.rglob("failure.json"))
    check_whole(cells)
    done = {cell.name: len(read_history(cell.folder)) for cell in cells}
    assert 0 < sum(done.values()) < 120
    subprocess.run(["mount", "-o", "remount,size=400k", small_disk], check=True)
    code, records, errors = fake_grid.records_of(start(small_disk, workers=workers))
    assert code == 0 and len(records) == 6, errors
    check_finished(cells)
    assert sum(map(repeated_epochs, cells)) <= workers


@pytest.mark.parametrize("damage", [b"", b"\x80\x02}q", b'{"value": "run0", "rows"'])
def test_a_damaged_checkpoint_costs_its_run_a_fresh_start(out, damage):
    cells = make_grid(out, runs=2, epochs=40)
    grid = start(out)
    wait_until(lambda: len(read_history(cells[0].folder)) > 5)
    grid.kill()
    fake_grid.records_of(grid)
    (cells[0].folder / "last.ckpt").write_bytes(damage)
    assert [r["status"] for r in run_grid(cells, make_settings(device="cpu"), Watcher(), run_cell)] == ["finished"] * 2
    check_finished(cells)


def test_the_fake_would_notice():
    """An epoch done twice in the weights, not only in time, is another value."""
    once = fake_grid.next_value("run0", 0)
    assert once == fake_grid.expected_value("run0", 1) != fake_grid.next_value(once, 0)
