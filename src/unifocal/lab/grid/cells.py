"""One run of the grid, and what is told of it."""

import csv
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unifocal.lab import claims
from unifocal.lab.errors import LabError
from unifocal.lab.storage import is_full, read_json

Record = dict[str, Any]  # name; status: finished, failed, busy, lost, or full (the disk); reason, or None; seconds
Execute = Callable[[str, str], Record]  # (out, name): an importable function, so that other processes find it


@dataclass(frozen=True)
class Cell:
    """A run, by the folder of its comparison and its name there."""

    out: str
    name: str
    title: str  # how people are told of it
    epochs: int
    kind: str = ""  # runs of one kind take about as long

    @property
    def folder(self) -> Path:
        return Path(self.out) / "runs" / self.name

    @property
    def home(self) -> Path:
        """The folder of the comparison, in which each of several data sets has a folder of its own."""
        out = Path(self.out)
        return next((folder for folder in (out, *out.parents) if (folder / "experiment.json").is_file()), out)

    @property
    def is_finished(self) -> bool:
        """Is the last file of the run there, and whole?"""
        try:
            return isinstance(read_json(self.folder / "result.json"), dict)
        except (FileNotFoundError, LabError):
            return False


def perform(execute: Execute, cell: Cell) -> Record:
    """Execute a cell under its claim; whatever becomes of it is a record.

    Interrupts and terminations pass through, and leave the claim free.
    """
    started = time.perf_counter()
    try:
        with claims.hold(cell.folder):
            return execute(cell.out, cell.name)
    except claims.Busy as busy:
        status, reason = "busy", str(busy.owner)
    except claims.ClaimLost as lost:
        status, reason = "busy", str(lost)
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        status, reason = "failed", f"{type(error).__name__}: {first}".removesuffix(": ")
        if isinstance(error, OSError) and is_full(error, Path(cell.out)):
            status, reason = "full", f"{error.strerror}: {error.filename or cell.folder} could not be written"
    return make_record(cell, status, reason, time.perf_counter() - started)


def make_record(cell: Cell, status: str, reason: str | None, seconds: float = 0.0) -> Record:
    return {"name": cell.name, "status": status, "reason": reason, "seconds": round(seconds, 3)}


def outcome(record: Record) -> str:
    """How people are told what became of a run: a finished one may say more in its reason."""
    if record["status"] == "finished":
        return str(record["reason"] or "finished")
    if record["status"] == "full":
        return "stopped, as no space is left"
    return f"{record['status']}: {record['reason']}"


def read_history(folder: Path) -> list[dict[str, float]]:
    """A row for each whole epoch of a run, from its `history.csv`."""
    try:
        with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
            return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError):
        return []


def why_set_back(folder: Path) -> str:
    """Why a run could not go on after the last row of its history."""
    damaged = folder / "damaged.ckpt"
    return f"the last checkpoint was damaged, and is now {damaged}" if damaged.exists() else "a checkpoint is missing"
