"""Files that are whole or absent, through kills, full disks and losses of power; and the lock of a folder."""

import errno
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from unifocal.lab import claims
from unifocal.lab.errors import LabError

PART = ".part"  # suffix of a file being written
FULL = (errno.ENOSPC, errno.EDQUOT)
UNSETTLED = (errno.EINVAL, errno.ENOTSUP)  # from file systems that cannot be asked to settle
ANEW = "Remove it and repeat the command that made this folder, which writes it anew; or use another --out."
PROBE = bytes(1 << 16)  # bytes that a disk must still take if it is not full


def write_with(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then give it its name in one step.

    It is on the disk, and not only on its way there, before it has its name: two to twelve milliseconds a file, without
    which a loss of power may leave an empty one.

    Raises OSError, naming `path`, if the disk is full, whatever `write` makes of that; and ClaimLost, writing nothing,
    if another process has taken over the folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PART}")
    try:
        try:
            write(part)
            _settle(part)
        except Exception as error:
            told = _told(error, part, path)
            if told is error:
                raise
            raise told from error
        claims.check(path)
        part.replace(path)
        _settle(path.parent)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def is_full(error: BaseException, folder: Path) -> bool:
    """Does an error say that there is no space left in `folder`, or in a place that it does not name?"""
    if not isinstance(error, OSError) or error.errno not in FULL:
        return False
    return error.filename is None or Path(os.fsdecode(error.filename)).is_relative_to(folder)


def write_text(path: Path, text: str) -> None:
    write_with(path, lambda part: part.write_text(text, encoding="utf-8", newline="\n"))


def write_json(path: Path, value: object) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file; a damaged one is a LabError that says what to do."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LabError(f"expected JSON; {path} is damaged ({error}). {ANEW}") from None


@contextmanager
def expecting(what: str, path: Path) -> Iterator[None]:
    """Context in which the content of a file is taken apart: content of another kind is a LabError that says so."""
    try:
        yield
    except LabError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError):
        raise LabError(f"expected {what}; {path} holds something else. {ANEW}") from None


def remove_parts(folder: Path, pattern: str = "**/") -> None:
    """Remove what a killed process left half-written in `folder` and below; only its holder may ask for this."""
    for part in folder.glob(f"{pattern}*{PART}"):
        if part.is_file():
            part.unlink(missing_ok=True)


@contextmanager
def lock(folder: Path, say: Callable[[str], object] = lambda text: None) -> Iterator[None]:
    """Hold `folder` for this process, for something short, once whoever holds it has let go.

    `say` is told whom it waits for. A holder that is dead is not waited for (`claims`), and what it left half-written
    in the folder itself is removed. Raises LabError if this very process holds it.
    """
    is_new = not folder.exists()
    waits_for = None
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(claims.hold(folder, "lock"))
                break
            except claims.Busy as busy:
                if busy.owner.is_this_process:
                    raise
                if busy.owner != waits_for:
                    waits_for = busy.owner
                    say(f"waiting for {waits_for}, which is at work in {folder}")
            time.sleep(0.2)
        try:
            remove_parts(folder, pattern="")
            yield
        finally:
            stack.close()
            if is_new:
                with suppress(OSError):
                    folder.rmdir()  # nothing came of it, unless it is no longer empty


def _settle(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders, and keeps their names by itself
    descriptor = os.open(path, os.O_RDWR if path.is_file() and os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSETTLED:
            raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(descriptor)


def _told(error: Exception, part: Path, path: Path) -> Exception:
    """The error as it is to be told: a full disk is one, though libraries hide it behind errors of their own."""
    if isinstance(error, OSError):
        is_its_own = error.errno and error.filename in (None, part, str(part))
        return OSError(error.errno, error.strerror, str(path)) if is_its_own else error
    try:
        with part.open("ab") as file:
            file.write(PROBE)
            file.flush()
            os.fsync(file.fileno())
    except OSError as full:
        return OSError(full.errno, full.strerror, str(path))
    return error
