"""How a comparison stands, from its files alone: whoever executes it, wherever."""

import statistics
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from unifocal.lab.claims import Owner, file_system_time, owner_of
from unifocal.lab.errors import LabError
from unifocal.lab.grid.cells import Cell, read_history
from unifocal.lab.storage import ANEW, expecting, read_json

State = Literal["finished", "pruned", "running", "failed", "waiting"]
EVERY = 2.0  # seconds between two looks at what may have changed
DAMAGED = "result.json is damaged; the command that made this folder measures the run again"


@dataclass(frozen=True)
class RunStatus:
    """A planned run as it stands."""

    name: str
    title: str
    state: State
    epoch: int  # whole epochs
    epochs: int
    seconds_per_epoch: float | None  # median of the last ten
    remaining: float | None  # seconds that a running one will need, if it keeps its pace
    starting: float | None  # seconds that a finished one took beyond its epochs before their end
    scoring: float | None  # and after it, for predictions and metrics
    owner: Owner | None  # of a running one
    reason: str | None  # of a failed one

    @property
    def expected_end(self) -> datetime | None:
        return None if self.remaining is None else datetime.now() + timedelta(seconds=self.remaining)


def read_status(out: Path) -> list[RunStatus]:
    """Every run that was asked for last in `out`, in the planned order. Leaves nothing there.

    Raises LabError if there is no comparison.
    """
    out = _folder(out)
    try:
        planned = read_json(out / "experiment.json")["runs"]
    except FileNotFoundError:
        raise LabError(f"expected the output folder of a comparison; {out} holds no experiment.json.") from None
    except (KeyError, TypeError):
        raise LabError(f"expected planned runs in {out / 'experiment.json'}; it names none. {ANEW}") from None
    with expecting("planned runs", out / "experiment.json"):
        cells = [
            Cell(str(out / run.get("folder", "")), run["name"], _title(run, out), int(run["epochs"])) for run in planned
        ]
    now, ends = file_system_time(out), [_end(cell) for cell in cells]
    scoring = _median([_number(end, "seconds_scoring") for end in ends]) or 0.0
    return [_status(cell, end, now, scoring) for cell, end in zip(cells, ends, strict=True)]


def _folder(out: Path) -> Path:
    out = Path(out).expanduser()
    if out.is_file():
        raise LabError(f"expected the output folder of a comparison; {out} is a file, not a folder.")
    return out


def read_to_come(out: Path) -> str:
    """What will be planned in `out` when all that is planned has ended; empty if that is all."""
    record = read_json(Path(out).expanduser() / "experiment.json")
    return str(record.get("to_come", ""))


def is_between(states: Collection[str], to_come: str) -> bool:
    """Has all that was planned ended, and something of it so well that more will come?"""
    return bool(to_come) and not {"running", "waiting"} & {*states} and bool({"finished", "pruned"} & {*states})


def wait_for_plan(out: Path, tell: Callable[[str], object]) -> bool:
    """Wait until runs are planned in `out`, and `tell` so; False if there was nothing to wait for."""
    record = _folder(out) / "experiment.json"
    if record.is_file():
        return False
    tell(f"waiting for a comparison to begin in {out} (Ctrl-C ends this)")
    while not record.is_file():
        time.sleep(EVERY)
    return True


def total_remaining(runs: Sequence[RunStatus]) -> float | None:
    """Seconds until all runs are finished, if as many as now go on at the same pace; None if nothing tells.

    What a run takes beyond its epochs is that of the finished ones; without any it is left out.
    """
    pace = _median([run.seconds_per_epoch for run in runs])
    running = [run for run in runs if run.state == "running"]
    if pace is None or not running:
        return None
    left = [run for run in runs if run.state in ("running", "waiting")]
    starting, scoring = (_median([getattr(run, name) for run in runs]) or 0.0 for name in ("starting", "scoring"))
    to_start = sum(run.state == "waiting" or not run.epoch for run in left)
    whole = sum(run.epochs - run.epoch for run in left) * pace + to_start * starting + len(left) * scoring
    return max(whole / len(running), *(run.remaining or 0.0 for run in running), 0.0)


def time_left(runs: Sequence[RunStatus]) -> str:
    """`about 2 h left`, with a word if that is the epochs alone; empty if nothing tells."""
    left = total_remaining(runs)
    if left is None:
        return ""
    is_whole = any(run.starting is not None and run.scoring is not None for run in runs)
    return f"about {duration(left)} left" + ("" if is_whole else " for the epochs alone")


def duration(seconds: float) -> str:
    """Two digits' worth of a duration: 0.4 s, 35 s, 12 min, 3.5 h, 2.1 d."""
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 36 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} d"


def _title(run: dict[str, Any], out: Path) -> str:
    """Of a trial of a search with the loss that it tries, once that is known."""
    if run.get("part") not in ("default", "trial"):
        return str(run["title"])
    try:
        tried = read_json(out / run["folder"] / "runs" / run["name"] / "trial.json")
        return f"{run['title']}, {tried['loss']}"
    except (FileNotFoundError, LabError, KeyError, TypeError):
        return str(run["title"])


def _status(cell: Cell, end: dict[str, Any] | None, now: float, scoring: float) -> RunStatus:
    history = read_history(cell.folder)
    owner = owner_of(cell.folder, now=now)
    reason = _reason(cell.folder / "failure.json")
    pace = statistics.median(row["seconds"] for row in history[-10:]) if history and "seconds" in history[-1] else None
    remaining = None
    state: State
    if end:
        state, owner, reason = "pruned" if end.get("status") == "pruned" else "finished", None, None
    elif owner:
        state, reason = "running", None
        if pace is not None:
            since = max(0.0, now - (cell.folder / "history.csv").stat().st_mtime)
            left = cell.epochs - len(history)
            remaining = max(0.0, left * pace + scoring - min(since, pace if left else scoring))
    else:
        reason = DAMAGED if end is not None else reason
        state = "failed" if reason else "waiting"
    beyond = _number(end, "seconds_starting"), _number(end, "seconds_scoring")
    return RunStatus(cell.name, cell.title, state, len(history), cell.epochs, pace, remaining, *beyond, owner, reason)


def _end(cell: Cell) -> dict[str, Any] | None:
    """The last file of a run; None if it has not ended, and empty if the file is damaged."""
    try:
        result = read_json(cell.folder / "result.json")
    except FileNotFoundError:
        return None
    except LabError:
        return {}
    return {"status": "finished", **result} if isinstance(result, dict) else {}


def _number(end: dict[str, Any] | None, name: str) -> float | None:
    """A number of a run's last file, if that has it: earlier versions wrote fewer."""
    value = (end or {}).get(name)
    return float(value) if isinstance(value, int | float) else None


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _reason(path: Path) -> str | None:
    try:
        failure: Any = read_json(path)
        return str(failure["reason"])
    except FileNotFoundError:
        return None
    except (LabError, KeyError, TypeError, OSError):
        return "unknown"
