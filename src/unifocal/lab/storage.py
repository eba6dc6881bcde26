"""Files that are whole or absent: atomic writes, and a lock that keeps two processes out of one folder."""

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unifocal.lab.errors import LabError

PART = ".part"  # suffix of a file being written


def write_with(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then give it its name in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}{PART}")
    try:
        write(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    write_with(path, lambda part: part.write_text(text, encoding="utf-8", newline="\n"))


def write_json(path: Path, value: object) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file; a damaged one is a LabError that says what to do."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LabError(f"expected JSON; {path} is damaged ({error}). Remove it, or use another --out.") from None


def remove_parts(folder: Path) -> None:
    """Remove what a killed process left half-written."""
    for part in folder.glob(f"*{PART}"):
        part.unlink()


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; a lock whose process is dead is taken over.

    Raises LabError while another process holds it. A process on another machine cannot be asked whether it lives,
    so its lock counts until somebody removes the file.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lock.json"
    owner = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    while True:
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            break
        except FileExistsError:
            _remove_if_stale(path)
    with os.fdopen(descriptor, "w") as file:
        json.dump(owner, file)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        if is_new:
            with suppress(OSError):
                folder.rmdir()  # nothing came of it, unless it is no longer empty


def _remove_if_stale(path: Path) -> None:
    try:
        owner = json.loads(path.read_text())
        pid, host = int(owner["pid"]), str(owner["host"])
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError):
        raise LabError(
            f"expected a free folder; {path} is a lock that cannot be read. "
            "If no other process works there, remove that file."
        ) from None
    if host != socket.gethostname():
        raise LabError(
            f"expected a free folder; process {pid} on {host} works in {path.parent} since {owner.get('since')}. "
            f"Wait for it, use another --out, or, if it is dead, remove {path}."
        )
    if _is_alive(pid):
        raise LabError(
            f"expected a free folder; process {pid} works in {path.parent} since {owner.get('since')}. "
            "Wait for it or use another --out."
        )
    path.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it lives and is somebody else's
        return True
    return True
