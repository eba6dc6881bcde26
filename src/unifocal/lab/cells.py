"""One cell of a grid: a planned run, by the folder of its experiment and its name, done wherever it is called."""

import gc
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from unifocal.lab.errors import LabError
from unifocal.lab.experiment import read_run
from unifocal.lab.progress import tell_epoch
from unifocal.lab.results import read_table
from unifocal.lab.storage import is_full, write_json
from unifocal.lab.training.checkpoints import remove_checkpoints
from unifocal.lab.training.execute import choose_device, execute, is_finished
from unifocal.lab.training.history import Judge, unmoved

Record = dict[str, Any]


def run_cell(out: str, name: str, judge: Judge = unmoved) -> Record:
    """Do a run, or what is left of it; a failure is recorded in `failure.json` and tried again by the next call.

    Returns name, status ("finished" or "failed"), reason (why it failed, or its DSC) and seconds. Raises nothing but
    KeyboardInterrupt and Terminated, OSError where no space is left, what `read_run` raises where nothing was planned,
    and what `judge` raises that is no Exception. Tells of its epochs by `progress.tell_epoch`.
    """
    folder = Path(out) / "runs" / name
    record: Record = {"name": name, "status": "finished", "reason": None, "seconds": 0.0}
    if is_finished(folder):
        remove_checkpoints(folder)  # of a process that was killed before it could
        return record | {"reason": _in_short(folder)}
    started = time.perf_counter()
    experiment, run = read_run(Path(out), name)
    if run.settings.threads:
        torch.set_num_threads(run.settings.threads)
    try:
        execute(run, experiment, folder, tell_epoch, judge)
    except Exception as error:
        if is_full(error, folder):
            raise
        reason = explain(error)
        record |= {"status": "failed", "reason": reason}
        when = datetime.now(UTC).isoformat(timespec="seconds")
        failure = {"status": "failed", "reason": reason, "when": when, "traceback": traceback.format_exc()}
        write_json(folder / "failure.json", failure)
    else:
        (folder / "failure.json").unlink(missing_ok=True)
        record["reason"] = _in_short(folder)
    finally:
        gc.collect()
        if choose_device(run.settings.device) == "cuda":
            torch.cuda.empty_cache()
    return record | {"seconds": round(time.perf_counter() - started, 3)}


def _in_short(folder: Path) -> str | None:
    """How well a run did, for the line that tells of its end; nothing where nothing was tested."""
    table = read_table(folder / "cases.csv")
    values = table.loc[table["metric"] == "DSC", "value"] if len(table) else table
    return f"DSC {values.mean():.3f}" if len(values) else None


def explain(error: Exception) -> str:
    """One line that says why a run failed."""
    first = (str(error).strip().splitlines() or [""])[0][:200]
    memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)
    if memory:
        return f"out of memory ({first}); a smaller --batch-size, --width, --size or --patch needs less"
    if isinstance(error, LabError):
        return first
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
