"""Who works in a folder: claims that one process holds, that end with it, and that exactly one other takes over.

A claim on `folder` is a directory `folder/claim` that holds one file, named after host, process and a random word:

- It is taken by renaming a directory, filled beforehand, to `claim`. File systems do this in one step, NFS included,
  and refuse it while there is a `claim` that is not empty. Whoever takes it removes what others had made ready, as
  they may have been killed; those who were not make it ready again.
- It is ended by removing that one file. Its name is used once, so whoever comes too late to end a dead claim finds
  nothing to remove, and never removes the claim of a successor.
- Its holder touches the file every `BEAT` seconds, and before it writes anything there (`check`): if the file is gone,
  the claim is lost, and nothing more is written.

A claim is dead when its process is, on the same machine; elsewhere, when it has not been touched for `STALE` seconds,
by the clock of the file system and no other.
"""

import errno
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from unifocal.lab.errors import LabError

BEAT = 10.0  # seconds between two signs of life
STALE = 60.0  # seconds without one after which a process on another machine is taken for dead
ASIDE = ".part"  # suffix of a claim that is not yet one
GONE = (errno.ENOENT, errno.ESTALE)  # what is said of a file that another process has removed
ATTEMPTS = 100  # to take a claim that seems free: each fails only where another process was faster


class ClaimLost(BaseException):
    """Another process has taken over what this one worked on: no failure of the run, which goes on there."""


class Busy(LabError):
    """Another process holds the claim."""

    def __init__(self, folder: Path, owner: "Owner") -> None:
        super().__init__(f"expected a free folder; {owner} works in {folder}.")
        self.owner = owner


@dataclass(frozen=True)
class Owner:
    """The process that holds a claim."""

    host: str
    pid: int
    since: str  # UTC
    machine: str  # within which the pid means something
    started: str  # when the process began, in words of that machine: a reused pid is no owner

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} (since {self.since})"

    @property
    def is_here(self) -> bool:
        """Does it run on this machine, under this kernel, among the processes that can be seen here?"""
        return self.machine == _machine()

    @property
    def is_this_process(self) -> bool:
        return self.is_here and self.pid == os.getpid()


class Claim:
    """A claim of this process on the folder of `place`, and the thread that keeps it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.folder = place.parent.resolve()
        self.word = secrets.token_hex(4)
        host = re.sub("[^A-Za-z0-9.-]", "_", socket.gethostname())
        self.file = place / f"{host}-{os.getpid()}-{self.word}.json"
        self.is_lost = False
        self._ended = threading.Event()

    def take(self) -> None:
        """Raises Busy while another process holds it."""
        aside = self.place.with_name(f"{self.place.name}.{self.word}{ASIDE}")
        owner = json.dumps(asdict(this_process()), indent=2) + "\n"
        for attempt in range(ATTEMPTS):
            try:
                aside.mkdir(parents=True, exist_ok=True)
                file = aside / self.file.name
                file.write_text(owner, encoding="utf-8")
                os.utime(file)  # by the server's clock, where there is a server
                _rename(aside, self.place, file.stat().st_mtime)
                os.utime(self.file)
                break
            except OSError as error:
                if error.errno not in GONE or attempt == ATTEMPTS - 1:
                    raise
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        _held.append(self)
        threading.Thread(target=self._keep, name=f"claim on {self.folder.name}", daemon=True).start()
        _remove_leftovers(self.place)

    def touch(self) -> bool:
        """Give a sign of life; False if the claim is lost."""
        try:
            os.utime(self.file)
        except FileNotFoundError:
            self.is_lost = True
        except OSError as error:  # a disk that hiccups takes nobody's claim away
            self.is_lost = self.is_lost or error.errno == errno.ESTALE
        return not self.is_lost

    def end(self) -> None:
        """Leave the claim, whether it was taken or not: no other has a file of this name."""
        self._ended.set()
        if self in _held:
            _held.remove(self)
        with suppress(OSError):
            self.file.unlink(missing_ok=True)
            self.place.rmdir()  # unless the next holder is already in

    def _keep(self) -> None:
        while not self._ended.wait(BEAT) and self.touch():
            pass


_held: list[Claim] = []


@contextmanager
def hold(folder: Path, name: str = "claim") -> Iterator[None]:
    """Hold `folder` for this process; raises Busy while another one does."""
    claim = Claim(folder / name)
    try:  # from here on, for a signal may come as soon as the claim is taken
        claim.take()
        yield
    finally:
        claim.end()


def check(path: Path) -> None:
    """Raise ClaimLost if `path` lies in a folder whose claim this process has lost."""
    place = path.resolve()
    for claim in _held:
        if claim.folder in place.parents and not claim.touch():
            raise ClaimLost(f"another process has taken over {claim.folder}")


def owner_of(folder: Path, name: str = "claim", now: float | None = None) -> Owner | None:
    """Who holds `folder`, if anybody alive does; `now` is the time of its file system, asked for if not given."""
    for file in _files(folder / name):
        owner = _living(file, file_system_time(folder) if now is None else now)
        if owner is not None:
            return owner
    return None


def clear(folder: Path, name: str = "claim") -> None:
    """Remove what a dead holder of `folder` has left, if anything."""
    with suppress(Busy):
        if (folder / name).exists():
            _clear(folder / name, file_system_time(folder))
        _remove_leftovers(folder / name)


def file_system_time(folder: Path) -> float:
    """The clock that the times of files in `folder` are read from; this machine's where nothing can be written."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.utime(file.fileno())
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return datetime.now().timestamp()


def this_process() -> Owner:
    """This process, as the owner of a claim that begins now."""
    return Owner(
        host=socket.gethostname(),
        pid=os.getpid(),
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=_machine(),
        started=_started(os.getpid()) or "",
    )


def _rename(aside: Path, place: Path, now: float) -> None:
    """Make `aside` the claim; raises Busy before a living one."""
    for attempt in range(ATTEMPTS):
        try:
            aside.rename(place)
            return
        except OSError as error:
            _clear(place, now)
            if attempt == ATTEMPTS - 1 or error.errno in GONE:
                raise OSError(error.errno, error.strerror, str(place)) from None


def _clear(place: Path, now: float) -> None:
    """Make room where a dead claim stands; raises Busy before a living one."""
    for file in _files(place):
        owner = _living(file, now)
        if owner is not None:
            raise Busy(place.parent, owner)
        file.unlink(missing_ok=True)
    with suppress(OSError):  # some file systems rename to no directory at all, not even an empty one
        place.rmdir()


def _files(place: Path) -> list[Path]:
    try:
        return [file for file in place.iterdir() if file.suffix == ".json"]
    except OSError:
        return []


def _living(file: Path, now: float) -> Owner | None:
    """The owner of a claim, if it is alive."""
    try:
        with file.open(encoding="utf-8") as stream:  # opening asks a server, where a look might be answered from memory
            modified = os.fstat(stream.fileno()).st_mtime
            owner = Owner(**json.load(stream))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):  # a loss of power, or somebody's hand
        owner = Owner("an unknown host", 0, "an unknown time", "", "")
    is_alive = _started(owner.pid) == owner.started if owner.is_here else abs(now - modified) <= STALE
    return owner if is_alive else None


def _remove_leftovers(place: Path) -> None:
    """Remove what was made ready by processes that were killed before they could take the claim.

    A living one that is just about to try makes it ready again. Everything is removed by its path, so that nothing is
    that has become the claim meanwhile.
    """
    for aside in place.parent.glob(f"{place.name}.*{ASIDE}"):
        with suppress(OSError):
            for file in aside.iterdir():
                file.unlink(missing_ok=True)
            aside.rmdir()


@cache
def _machine() -> str:
    """Name of the host, its boot and its namespace of processes, as far as they can be told.

    Where processes cannot be asked for their start, a name that nobody else has: their signs of life decide.
    """
    if _started(os.getpid()) is None:
        return secrets.token_hex(8)
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(Path("/proc/self/ns/pid").readlink().name)
    return " ".join(parts)


def _started(pid: int) -> str | None:
    """When a process of this machine began; None if it has ended, collected by its parent or not."""
    if Path("/proc/self/stat").exists():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else fields[19]
    with suppress(OSError):
        asked = subprocess.run(
            ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        state, _, start = asked.stdout.strip().partition(" ")
        return None if state.startswith("Z") or not start else start.strip()
    return None
