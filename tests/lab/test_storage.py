"""Files are whole or absent, whatever ends the writing of one; a folder is locked by one process at a time."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from unifocal.lab import storage
from unifocal.lab.claims import hold
from unifocal.lab.errors import LabError


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_file_is_whole_or_absent(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("before")

    def fail(part):
        part.write_text("half")
        raise error

    with pytest.raises(error):
        storage.write_with(path, fail)
    assert path.read_text() == "before" and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_json_comes_back(tmp_path):
    value = {"name": "größe", "values": [1, 0.1, None]}
    storage.write_json(tmp_path / "a" / "b.json", value)
    assert storage.read_json(tmp_path / "a" / "b.json") == value
    (tmp_path / "a" / "b.json").write_text('{"na')
    with pytest.raises(LabError, match=r"b\.json is damaged"):
        storage.read_json(tmp_path / "a" / "b.json")


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def settle(descriptor):
        events.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    def name(part, path):
        events.append("named")
        return replace(part, path)

    monkeypatch.setattr(os, "fsync", settle)
    monkeypatch.setattr(Path, "replace", name)
    storage.write_text(tmp_path / "file", "text")
    assert events[0].endswith(".part") and events[1:] == ["named", str(tmp_path)]


@pytest.mark.parametrize("kind", ["text", "torch", "hidden"])
def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path, kind):
    """A limit on the size of files stands for a full disk; libraries hide it behind errors of their own."""
    program = f"""
import resource, sys
from pathlib import Path
from unifocal.lab import storage
path = Path(sys.argv[1])
def hidden(part):
    try:
        part.write_bytes(bytes(10**6))
    except OSError:
        raise RuntimeError("unexpected pos 704 vs 598") from None
def torch_save(part):
    import torch
    torch.save(torch.zeros(10**6), part)
write = {{"text": lambda part: part.write_text("x" * 10**6), "torch": torch_save, "hidden": hidden}}[{kind!r}]
if {kind!r} == "torch":
    import torch
resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, 10**5))
try:
    storage.write_with(path, write)
except OSError as error:
    print(error.errno, error.filename)
"""
    path = tmp_path / "last.ckpt"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["27", str(path)]  # EFBIG
    assert list(tmp_path.iterdir()) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_an_error_that_is_no_full_disk_stays_what_it_is(tmp_path):
    def fail(part):
        part.write_text("half")
        raise RuntimeError("of another kind")

    with pytest.raises(RuntimeError, match="of another kind"):
        storage.write_with(tmp_path / "file", fail)


def test_half_written_files_are_removed_wherever_they_are(tmp_path):
    (tmp_path / "predictions").mkdir()
    for name in ("best.ckpt.0a1b.part", "predictions/3.png.0a1b.part", "keep.csv"):
        (tmp_path / name).touch()
    with hold(tmp_path):
        storage.remove_parts(tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["keep.csv", "predictions"]


def test_an_error_of_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        storage.write_with(tmp_path / "copy", lambda part: shutil.copy(tmp_path / "source", part))
    assert Path(error.value.filename).name == "source"


# The lock

HOLD = """
import sys, time
from pathlib import Path
from unifocal.lab.storage import lock
with lock(Path(sys.argv[1])):
    print("in", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def other(tmp_path):
    """Another process, which holds the lock until it is told something."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "in\n"
    yield process
    process.kill()
    process.communicate()


def test_a_locked_folder_is_waited_for_and_the_holder_named(tmp_path, other):
    said: list[str] = []
    timer = threading.Timer(0.5, lambda: (other.stdin.write("\n"), other.stdin.flush()))
    started = time.monotonic()
    timer.start()
    with storage.lock(tmp_path, said.append):
        waited = time.monotonic() - started
    timer.join()
    assert waited >= 0.5
    assert len(said) == 1 and f"process {other.pid} on " in said[0] and str(tmp_path) in said[0]


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path, other):
    other.send_signal(signal.SIGKILL)
    other.wait()
    (tmp_path / "runs").mkdir()
    for name in ("results.csv.0a1b.part", "runs/of_somebody_else.part"):
        (tmp_path / name).touch()
    said: list[str] = []
    with storage.lock(tmp_path, said.append):
        assert json.loads(next((tmp_path / "lock").iterdir()).read_text())["pid"] == os.getpid()
    assert said == []
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["of_somebody_else.part", "runs"]


def test_nobody_waits_for_oneself(tmp_path):
    with storage.lock(tmp_path), pytest.raises(LabError, match=str(os.getpid())), storage.lock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_which_nothing_came_to_be_is_not_left(tmp_path):
    with pytest.raises(LabError), storage.lock(tmp_path / "new"):
        raise LabError("impossible")
    assert not (tmp_path / "new").exists()
    with storage.lock(tmp_path / "new"):
        (tmp_path / "new" / "file").touch()
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["file"]
