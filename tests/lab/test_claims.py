"""Claims: one holder at a time, however many want it, whoever dies; and the holder knows when it is one no more."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from unifocal.lab import claims
from unifocal.lab.claims import Busy, ClaimLost, hold, owner_of, this_process
from unifocal.lab.storage import write_text


def plant(folder, age=0.0, **owner):
    """A claim of somebody else, last touched `age` seconds ago."""
    (folder / "claim").mkdir(parents=True, exist_ok=True)
    file = folder / "claim" / "somebody.json"
    file.write_text(json.dumps(asdict(replace(this_process(), **owner))))
    then = claims.file_system_time(folder) - age
    os.utime(file, (then, then))
    return file


def dead_pid():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def is_free(folder):
    try:
        with hold(folder):
            return True
    except Busy:
        return False


def test_a_claim_tells_its_holder_and_leaves_nothing(tmp_path):
    with hold(tmp_path / "run"):
        [file] = (tmp_path / "run" / "claim").iterdir()
        assert json.loads(file.read_text())["pid"] == os.getpid()
        owner = owner_of(tmp_path / "run")
        assert owner is not None and owner.is_this_process
        with pytest.raises(Busy, match=f"process {os.getpid()} on"), hold(tmp_path / "run"):
            pass
    assert list((tmp_path / "run").iterdir()) == [] and owner_of(tmp_path / "run") is None


def test_the_claim_is_free_after_an_error(tmp_path):
    with pytest.raises(KeyboardInterrupt), hold(tmp_path):
        raise KeyboardInterrupt
    assert is_free(tmp_path)


def test_a_signal_that_comes_with_the_claim_leaves_it_free(tmp_path, monkeypatch):
    """As soon as it is taken, the process may be told to end."""

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    for moment in ("threading.Thread", "unifocal.lab.claims._remove_leftovers", "shutil.rmtree"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(moment, interrupt)
            with hold(tmp_path):
                pass
        assert not (tmp_path / "claim").exists() and claims._held == []


def test_a_dead_process_holds_nothing(tmp_path):
    plant(tmp_path, pid=dead_pid())
    assert owner_of(tmp_path) is None and is_free(tmp_path)


def test_a_process_that_nobody_has_collected_yet_is_dead(tmp_path):
    process = subprocess.Popen(["true"])
    plant(tmp_path, pid=process.pid, started=claims._started(process.pid) or "")
    while claims._started(process.pid):
        time.sleep(0.01)
    assert process.returncode is None  # a zombie
    assert is_free(tmp_path)
    process.wait()


def test_a_living_process_holds_its_claim_however_long_it_is_silent(tmp_path):
    process = subprocess.Popen(["sleep", "60"])
    plant(tmp_path, age=3600, pid=process.pid, started=claims._started(process.pid))
    owner = owner_of(tmp_path)
    assert not is_free(tmp_path) and owner is not None and owner.pid == process.pid
    process.kill()
    process.wait()
    assert is_free(tmp_path)


def test_a_process_number_that_was_given_anew_is_no_owner(tmp_path):
    plant(tmp_path, started="long ago")
    assert is_free(tmp_path)


@pytest.mark.parametrize(("age", "free"), [(0, False), (50, False), (70, True), (-50, False), (-3600, True)])
def test_elsewhere_signs_of_life_decide(tmp_path, age, free, monkeypatch):
    """-3600: the server's clock was set back by an hour; its holder would have touched it since."""
    monkeypatch.setattr(time, "time", lambda: 0.0)  # the clock of this machine is of no account
    plant(tmp_path, age, machine="elsewhere", host="node7", pid=1)
    assert (owner_of(tmp_path) is None) == free
    assert is_free(tmp_path) == free


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 3}'])
def test_a_claim_that_cannot_be_read_counts_as_one_from_elsewhere(tmp_path, content):
    file = plant(tmp_path)
    file.write_text(content)
    assert not is_free(tmp_path)
    os.utime(file, (1, 1))
    assert is_free(tmp_path)


def test_a_sign_of_life_is_given_again_and_again(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT", 0.02)
    with hold(tmp_path):
        [file] = (tmp_path / "claim").iterdir()
        for _ in range(3):
            os.utime(file, (1, 1))
            end = time.monotonic() + 5
            while file.stat().st_mtime == 1:
                assert time.monotonic() < end
                time.sleep(0.005)


def test_who_has_lost_the_claim_writes_nothing_and_leaves_the_next_alone(tmp_path):
    with hold(tmp_path):
        [file] = (tmp_path / "claim").iterdir()
        write_text(tmp_path / "sub" / "file", "mine")
        file.unlink()  # as one does who takes this process for dead
        theirs = plant(tmp_path, machine="elsewhere")
        with pytest.raises(ClaimLost):
            write_text(tmp_path / "sub" / "file", "still mine")
        assert (tmp_path / "sub" / "file").read_text() == "mine"
        write_text(tmp_path.with_name("other"), "not in that folder")
    assert theirs.exists() and not is_free(tmp_path)


def test_a_loss_is_noticed_without_writing(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT", 0.02)
    with hold(tmp_path):
        [claim] = claims._held
        claim.file.unlink()
        end = time.monotonic() + 5
        while not claim.is_lost:
            assert time.monotonic() < end
            time.sleep(0.005)


@pytest.mark.parametrize("step", ["pathlib.Path.write_text", "os.utime", "pathlib.Path.rename", "pathlib.Path.rmdir"])
@pytest.mark.parametrize("by", ["the next holder", "clearing"])
def test_what_a_kill_leaves_before_or_after_the_claim_is_removed(tmp_path, step, by):
    kill = (
        "import os, signal, sys, pathlib, unittest.mock\n"
        "from unifocal.lab.claims import hold\n"
        f"with unittest.mock.patch('{step}', lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)):\n"
        "    with hold(pathlib.Path(sys.argv[1])): pass\n"
    )
    run = tmp_path / "run"
    assert subprocess.run([sys.executable, "-c", kill, run], check=False).returncode == -signal.SIGKILL
    assert len(list(run.iterdir())) == 1
    if by == "clearing":
        claims.clear(run)
    else:
        assert is_free(run)
    assert list(run.iterdir()) == []


@pytest.mark.parametrize("step", ["pathlib.Path.write_text", "os.utime", "pathlib.Path.rename"])
def test_what_another_removes_is_made_ready_again(tmp_path, step, monkeypatch):
    """Whoever takes a claim cannot tell those who are about to try from those who were killed while they did."""
    owner, name = Path if step.startswith("pathlib") else os, step.rpartition(".")[2]
    do = getattr(owner, name)
    removed: list[Path] = []

    def after_another(path, *args, **more):
        if len(removed) < 3 and ".part" in str(path):
            removed.append(path)
            claims._remove_leftovers(tmp_path / "claim")
        return do(path, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, after_another)
        with hold(tmp_path):
            assert owner_of(tmp_path) is not None and not is_free(tmp_path)
            assert len(list(tmp_path.iterdir())) == 1
    assert len(removed) == 3 and list(tmp_path.iterdir()) == []


def test_dead_claims_are_cleared_and_others_are_not(tmp_path):
    claims.clear(tmp_path)
    plant(tmp_path, pid=dead_pid())
    claims.clear(tmp_path)
    assert list(tmp_path.iterdir()) == []
    file = plant(tmp_path, machine="elsewhere")
    claims.clear(tmp_path)
    assert file.exists()


# Many at once


def race(folder, barrier, results, rounds):
    """In each round, try once to take what a dead process holds; keep it until all have tried."""
    for i in range(rounds):
        barrier.wait()
        try:
            with hold(folder / str(i)):
                results.put((i, os.getpid()))
                barrier.wait()
        except Busy:
            barrier.wait()


def test_of_many_who_take_over_exactly_one_wins(tmp_path):
    takers, rounds = 8, 60
    pid = dead_pid()
    for i in range(rounds):
        if i % 3 == 0:
            plant(tmp_path / str(i), pid=pid)
        elif i % 3 == 1:
            plant(tmp_path / str(i), age=100, machine="elsewhere")
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(takers), context.SimpleQueue()
    processes = [context.Process(target=race, args=(tmp_path, barrier, results, rounds)) for _ in range(takers)]
    for process in processes:
        process.start()
    winners = [results.get() for _ in range(rounds)]
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert results.empty()
    assert sorted(i for i, _ in winners) == list(range(rounds))


CRASH = """
import os, random, sys, time
from pathlib import Path
from unifocal.lab.claims import Busy, hold
folder, seed = Path(sys.argv[1]), int(sys.argv[2])
chance = random.Random(seed)
end = time.monotonic() + 1.5
count = 0
while time.monotonic() < end:
    try:
        with hold(folder):
            os.mkdir(folder / "inside")  # fails if somebody else is in
            if chance.random() < 0.5:
                time.sleep(chance.random() * 0.002)
            os.rmdir(folder / "inside")
            count += 1
            if chance.random() < 0.05:
                os._exit(100 + min(count, 100))  # dies while it holds the claim
    except Busy:
        time.sleep(0.001)
print(count)
"""


def test_never_two_hold_while_holders_die(tmp_path):
    chance, seeds, codes = random.Random(0), iter(range(10**6)), []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def begin():
        return subprocess.Popen([sys.executable, "-c", CRASH, str(tmp_path), str(next(seeds))], env=environment)

    processes = [begin() for _ in range(5)]
    end = time.monotonic() + 3
    while processes:
        process = chance.choice(processes)
        if process.poll() is None:
            time.sleep(0.005)
            continue
        processes.remove(process)
        codes.append(process.returncode)
        if time.monotonic() < end:
            processes.append(begin())
    assert set(codes) <= {0, *range(101, 201)}, "two were inside at once, or one failed"
    assert sum(code > 100 for code in codes) >= 3
    assert not Path(tmp_path / "inside").exists() and is_free(tmp_path)
