"""Runs as a job array of SLURM, through submitit: requeued when preempted or out of time, followed while they last."""

import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from unifocal.lab.claims import STALE, owner_of
from unifocal.lab.errors import LabError
from unifocal.lab.grid.cells import Cell, Execute, Record, make_record, perform
from unifocal.lab.grid.following import Following
from unifocal.lab.grid.sbatch import make_executor, submit
from unifocal.lab.grid.signals import postponed
from unifocal.lab.grid.squeue import Queue
from unifocal.lab.grid.threads import use_threads
from unifocal.lab.progress import Watcher
from unifocal.lab.settings import Settings
from unifocal.lab.storage import lock

POLL = 5.0  # seconds between two looks at the files of the jobs


def in_slurm(
    cells: Sequence[Cell], settings: Settings, watcher: Watcher, execute: Execute
) -> Generator[Record, None, None]:
    """Runs as jobs; submitit's files and logs lie in `slurm` of the output folder.

    What is claimed already is not submitted, and what an earlier start has in the queue is waited for. The jobs go on
    when this process ends.
    """
    submitit = _submitit()
    home = cells[0].home
    folder = home / "slurm"
    executor = make_executor(submitit, folder, settings)
    following = Following(watcher)
    for cell in cells:
        following.begin(cell)
    task = Task(execute, settings.threads)
    left: dict[str, Any] = {}  # the jobs that this process waits for
    try:
        with lock(folder, watcher.stage):  # a second start waits here, and then finds the jobs of the first
            queue = Queue(folder, executor.cluster)
            left |= queue.attach(submitit, cells)
            free = [cell for cell in cells if not (cell.name in left or cell.is_finished or owner_of(cell.folder))]
            # SLURM itself lets no more run at a time than it was asked to; here they are held back.
            at_once = settings.workers if settings.workers > 1 and executor.cluster != "slurm" else len(free)
            later = free[at_once:]
            with postponed():  # a job that runs and is recorded nowhere would be started again
                for jobs in submit(executor, free[:at_once], task):
                    left |= jobs
                    queue.record(jobs)
        if left:
            watcher.stage(f"jobs in the queue: {len(left)} ({_ids(left)}); logs in {folder}")
        names = {*left, *(cell.name for cell in later)}
        for cell in cells:
            if cell.name not in names:
                yield make_record(cell, "busy", None)
        by_name = {cell.name: cell for cell in cells}
        while left:
            for cell in [by_name[name] for name in left]:
                following.look(cell)
                if queue.is_over(left[cell.name]):
                    record = _result(left.pop(cell.name), cell)
                    following.end(cell, record)
                    with postponed():
                        for jobs in submit(executor, later[:1], task):
                            left |= jobs
                    later = later[1:]
                    yield record
            if left:
                time.sleep(POLL)
    except BaseException:
        _leave(executor.cluster, left, home, watcher)
        raise


def check_slurm(settings: Settings) -> None:
    """Raise a LabError if nothing can be submitted here, or not with these words."""
    make_executor(_submitit(), Path(), settings)


def _submitit() -> Any:
    """The library, which is an extra; a LabError where it is not installed."""
    try:
        import submitit
    except ModuleNotFoundError:
        raise LabError("--engine slurm needs submitit: pip install 'unifocal[lab,slurm]'") from None
    return submitit


class Task:
    """What a job does, and does again from where it was when it is requeued."""

    def __init__(self, execute: Execute, threads: int | None) -> None:
        self.execute, self.threads = execute, threads

    def __call__(self, cell: Cell) -> Record:
        if self.threads:
            use_threads(self.threads)
        until = time.monotonic() + 1.5 * STALE
        while True:
            record = perform(self.execute, cell)
            # A job that is requeued because its node failed finds its own claim, which is not yet known to be dead.
            if record["status"] != "busy" or time.monotonic() > until:
                return record
            time.sleep(POLL)

    def checkpoint(self, cell: Cell) -> Any:
        """What submitit puts into the queue again: the same, for all that counts is in the run's folder."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, cell)


def _result(job: Any, cell: Cell) -> Record:
    from submitit.core.utils import FailedJobError

    where = f"job {job.job_id}, {job.paths.stderr}"
    if not job.paths.result_pickle.exists():
        return make_record(cell, "lost", f"ended without a result: {_last_words(job.paths.stderr)} ({where})")
    try:
        record: Record = job.result()
        return record
    except FailedJobError as error:  # its text holds a traceback between two lines of dashes
        trace = str(error).split("-" * 22)[1].strip().splitlines()
        return make_record(cell, "failed", f"{trace[-1]} ({where})")


def _last_words(path: Path) -> str:
    """The last error in a log, or its last line."""
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return next((line for line in reversed(lines) if "error" in line.lower()), (lines or ["its log is empty"])[-1])


def _ids(jobs: dict[str, Any]) -> str:
    return " ".join(sorted({job.job_id.split("_")[0] for job in jobs.values()}))


def _leave(cluster: str, jobs: dict[str, Any], home: Path, watcher: Watcher) -> None:
    """Say what becomes of the jobs when this process no longer waits for them."""
    if cluster != "slurm":
        for job in jobs.values():
            job.cancel(check=False)
    elif jobs:
        watcher.stage(
            f"the jobs go on by themselves: `unifocal status {home}` shows how they fare, the same command waits for "
            f"them again, `scancel {_ids(jobs)}` ends them"
        )
