"""The grid on one machine: the same files from every executor, and what is told while they are made."""

import gc
import json
import os
import sys
from contextlib import closing
from dataclasses import asdict

import fake_grid
import pytest
from fake_grid import check_finished, make_grid, run_cell

from unifocal.lab.claims import this_process
from unifocal.lab.errors import LabError
from unifocal.lab.grid import run_grid
from unifocal.lab.grid.local import environment
from unifocal.lab.grid.shard import part_of
from unifocal.lab.progress import Watcher
from unifocal.lab.settings import make_settings


class Log(Watcher):
    def __init__(self):
        self.planned, self.events, self.said = None, [], []

    def stage(self, text):
        self.said.append(text)

    def plan(self, runs, finished, epochs):
        self.planned = runs, finished, epochs

    def run_started(self, name, epochs_done):
        self.events.append((name, "begins", epochs_done))

    def epoch_ended(self, name, epoch, validation_loss):
        assert validation_loss == 1 / (epoch + 1)
        self.events.append((name, "epoch", epoch))

    def run_ended(self, name, result):
        self.events.append((name, "ends", result))

    def of(self, title):
        return [event[1:] for event in self.events if event[0] == title]


def run(cells, log=None, execute=run_cell, **settings):
    asked = make_settings(device="cpu", **settings)
    return list(run_grid(cells, asked, log or Log(), execute))


def files(cells):
    names = ("result.json", "history.csv")
    return {(cell.name, name): (cell.folder / name).read_bytes() for cell in cells for name in names}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A grid that nothing disturbed, one run after another."""
    cells = make_grid(tmp_path_factory.mktemp("alone"), runs=5, epochs=12)
    log = Log()
    records = run(cells, log)
    check_finished(cells)
    return cells, log, records


EXPECTED = [("begins", 0), *(("epoch", i) for i in range(12)), ("ends", "finished")]


def test_one_after_another_in_order(alone):
    cells, log, records = alone
    assert [(r["name"], r["status"], r["reason"]) for r in records] == [(c.name, "finished", None) for c in cells]
    assert log.planned == (5, 0, 12)
    assert log.events == [(cell.title, *event) for cell in cells for event in EXPECTED]


@pytest.mark.parametrize("settings", [{"workers": 3}, {"workers": 8}])
def test_workers_write_the_same_files_and_tell_the_same(alone, out, settings):
    cells, log = make_grid(out, runs=5, epochs=12), Log()
    records = run(cells, log, **settings)
    assert sorted(r["name"] for r in records) == [c.name for c in cells]
    assert all(r["status"] == "finished" for r in records)
    check_finished(cells)
    assert list(files(cells).values()) == list(files(alone[0]).values())
    for cell in cells:
        assert log.of(cell.title) == EXPECTED


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_finished_is_not_touched(alone, workers):
    cells, _, _ = alone
    runs = cells[0].folder.parent
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    log = Log()
    assert [r["status"] for r in run(cells, log, workers=workers)] == ["finished"] * 5
    assert log.planned == (5, 5, 12) and log.events == []
    assert before == {path: path.stat().st_mtime_ns for path in runs.rglob("*")}


@pytest.mark.parametrize("damage", ["", '{"status": "fini', "[]"])
def test_a_run_whose_result_is_damaged_is_not_counted_as_finished_earlier(out, damage):
    cells, log = make_grid(out, runs=3, epochs=2), Log()
    run(cells)
    (cells[1].folder / "result.json").write_text(damage)
    run(cells, log)
    assert log.planned == (3, 2, 2) and {title for title, *_ in log.events} == {cells[1].title}


def test_the_claim_that_a_process_left_at_the_very_end_is_removed(out):
    [cell] = cells = make_grid(out, runs=1, epochs=2)
    run(cells)
    (cell.folder / "claim").mkdir()
    owner = {**asdict(this_process()), "started": "long ago"}
    (cell.folder / "claim" / "dead.json").write_text(json.dumps(owner))
    assert [r["status"] for r in run(cells)] == ["finished"]
    check_finished(cells)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_goes_on_after_its_last_epoch(out, workers):
    [cell, _] = cells = make_grid(out, runs=2, epochs=8)

    class Stop(Log):
        def epoch_ended(self, name, epoch, validation_loss):
            super().epoch_ended(name, epoch, validation_loss)
            if epoch == 4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(cells, Stop())
    assert not (cell.folder / "claim").exists()
    log = Log()
    run(cells, log, workers=workers)
    check_finished(cells)
    assert log.of(cell.title) == [("begins", 5), *(("epoch", i) for i in range(5, 8)), ("ends", "finished")]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_is_a_record_and_stops_nothing(out, workers):
    cells, log = make_grid(out, runs=3, epochs=3, fails=["run1"]), Log()
    records = {r["name"]: r for r in run(cells, log, workers=workers)}
    assert records["run1"]["status"] == "failed"
    assert records["run1"]["reason"] == "ValueError: the gradient went home"
    check_finished([cells[0], cells[2]])
    assert log.of(cells[1].title)[-1] == ("ends", "failed: ValueError: the gradient went home")
    assert not (cells[1].folder / "claim").exists()


def test_a_run_that_kills_its_process_each_time_is_given_up_and_the_rest_go_on(out):
    cells, log = make_grid(out, runs=3, epochs=3, dies=["run1"]), Log()
    records = {r["name"]: r for r in run(cells, log, workers=2)}
    assert records["run1"]["status"] == "lost"
    assert "SIGKILL, 3 times within one epoch" in records["run1"]["reason"]
    assert len([text for text in log.said if "killed by SIGKILL; it goes on in another process" in text]) == 2
    check_finished([cells[0], cells[2]])


def test_workers_that_cannot_start_end_the_grid_with_their_last_words(out):
    def nowhere(out, name):
        raise AssertionError

    with pytest.raises(LabError, match=r"no worker process can be started.*has no attribute"):
        run(make_grid(out), execute=nowhere, workers=2)


def test_workers_are_collected_when_the_grid_is_left(out):
    cells = make_grid(out, runs=4, epochs=30, seconds=0.02)

    class Stop(Log):
        def epoch_ended(self, name, epoch, validation_loss):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(cells, Stop(), workers=2)
    gc.collect()  # what was left open would be told of
    with closing(run_grid(cells, make_settings(device="cpu", workers=2), Log(), run_cell)) as records:
        next(records)
    gc.collect()
    assert not fake_grid.descendants(os.getpid())
    run(cells)
    check_finished(cells)


def test_a_system_without_room_for_a_process_ends_the_grid(out, monkeypatch):
    def no_room(*arguments, **named):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("subprocess.Popen", no_room)
    with pytest.raises(BlockingIOError):
        run(make_grid(out), workers=2)


def test_what_a_run_prints_is_no_record(out):
    cells = make_grid(out, runs=2, epochs=1)
    records = run(cells, execute=chatty, workers=2)
    assert [r["status"] for r in records] == ["finished"] * 2


def chatty(out, name):
    print("epoch 1 of 1")
    os.system("echo from a library")
    return run_cell(out, name)


def test_threads_and_gpus_are_shared_out(monkeypatch):
    import torch

    from unifocal.lab.grid import local

    monkeypatch.setattr(local, "cores_here", lambda: 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def given(number, workers, **settings):
        found = environment(make_settings(**settings), number, workers)
        return found["OMP_NUM_THREADS"], found.get("CUDA_VISIBLE_DEVICES")

    assert [given(i, 3) for i in range(3)] == [("2", "0"), ("2", "1"), ("2", "2")]
    assert given(5, 6) == ("1", "1")
    assert given(1, 16) == ("1", "1")
    assert given(1, 2, threads=5, devices=2) == ("5", "2,3")
    assert given(2, 3, devices=2) == ("2", "0,1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,5,3,1")
    assert given(1, 2)[1] == "5"
    assert given(0, 2, device="cpu")[1] == "7,5,3,1"


@pytest.mark.parametrize(("engine", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_an_engine_that_is_not_installed_says_what_to_install(out, monkeypatch, engine, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(LabError, match=rf"pip install 'unifocal\[lab,{engine}\]'"):
        run(make_grid(out), engine=engine)


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 20])
def test_shards_are_equal_parts(parts):
    items = list(range(17))
    shards = [part_of(items, f"{i}/{parts}") for i in range(1, parts + 1)]
    assert sorted(item for shard in shards for item in shard) == items
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    assert part_of(items, None) == items


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_shards_get_equal_shares_of_each_kind(parts):
    items = [f"{data}/{network}/{fold}" for data in "ab" for fold in range(5) for network in ("u", "v")]
    shards = [part_of(items, f"{i}/{parts}", lambda item: item[:3]) for i in range(1, parts + 1)]
    assert sorted(item for shard in shards for item in shard) == sorted(items)
    assert shards[0] == sorted(shards[0], key=items.index)
    for kind in ("a/u", "a/v", "b/u", "b/v", "a/", "b/"):
        shares = [sum(item.startswith(kind) for item in shard) for shard in shards]
        assert max(shares) - min(shares) <= 1


def test_an_impossible_shard_is_refused():
    with pytest.raises(LabError, match="3/2"):
        part_of([1, 2], "3/2")


def test_shards_started_together_and_twice_make_the_grid(out):
    cells = make_grid(out, runs=5, epochs=10)
    grids = [fake_grid.start(out, shard=shard) for shard in ("1/2", "2/2", "2/2")]
    names = []
    for grid in grids:
        code, records, errors = fake_grid.records_of(grid)
        assert code == 0, errors
        names.append([r["name"] for r in records])
    assert sorted(names[0]) == ["run0", "run2", "run4"] and sorted(names[1]) == sorted(names[2]) == ["run1", "run3"]
    check_finished(cells)
    assert sum(map(fake_grid.repeated_epochs, cells)) == 0


def test_records_are_plain(alone):
    _, _, records = alone
    assert json.loads(json.dumps(records)) == records
