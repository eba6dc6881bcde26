"""Runs as a job array of SLURM, through submitit: requeued when preempted or out of time, followed while they last."""

import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from unifocal.lab.choices import plain_value
from unifocal.lab.claims import STALE, owner_of
from unifocal.lab.errors import LabError
from unifocal.lab.grid.cells import Cell, Execute, Record, make_record, perform
from unifocal.lab.grid.following import Following
from unifocal.lab.grid.threads import use_threads
from unifocal.lab.progress import Watcher
from unifocal.lab.settings import Settings
from unifocal.lab.storage import read_json, write_json

POLL = 2.0  # seconds between two looks at the jobs
ARRAY = 1000  # jobs of an array: one more than SLURM's default allows is refused
MINUTES = 240  # of a job, unless asked for otherwise; longer runs are requeued
TIMEOUTS = 50  # times that a job is requeued because its time was up
COMMON = ("name", "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "stderr_to_stdout")
AT_WORK = ("PENDING", "RUNNING", "REQUEUED", "COMPLETING", "PREEMPTED", "SUSPENDED", "CONFIGURING")


def in_slurm(cells: Sequence[Cell], settings: Settings, watcher: Watcher, execute: Execute) -> Iterator[Record]:
    """Runs as jobs; files and logs of submitit lie in `slurm` of the output folder.

    What is claimed already is not submitted, and what an earlier start has in the queue is waited for. Jobs go on when
    this process ends.
    """
    try:
        import submitit
    except ModuleNotFoundError:
        raise LabError("--engine slurm needs submitit: pip install 'unifocal[slurm]'") from None
    folder = Path(cells[0].out) / "slurm"
    executor = make_executor(submitit, folder, settings)
    following = Following(watcher)
    for cell in cells:
        following.begin(cell)
    jobs = _queued(submitit, executor, folder, cells)
    free = [cell for cell in cells if cell.name not in jobs and not owner_of(cell.folder)]
    jobs |= _submit(executor, free, Task(execute, settings.threads))
    write_json(folder / "jobs.json", _read_jobs(folder) | {name: job.job_id for name, job in jobs.items()})
    if jobs:
        watcher.stage(f"{len(jobs)} jobs of {executor.cluster}: {_ids(jobs)}; logs in {folder}")
    for cell in cells:
        if cell.name not in jobs:
            yield make_record(cell, "busy", str(owner_of(cell.folder)))
    left = {cell.name: cell for cell in cells if cell.name in jobs}
    try:
        while left:
            for cell in [cell for name, cell in left.items() if jobs[name].done()]:
                record = _result(submitit, jobs[cell.name], cell)
                following.end(left.pop(cell.name), record)
                yield record
            for cell in left.values():
                following.look(cell)
            if left:
                time.sleep(POLL)
    except BaseException:
        _leave(executor, {name: jobs[name] for name in left}, cells[0].out, watcher)
        raise


class Task:
    """What a job does, and does again where it was when it is requeued."""

    def __init__(self, execute: Execute, threads: int | None) -> None:
        self.execute, self.threads = execute, threads

    def __call__(self, cell: Cell) -> Record:
        if self.threads:
            use_threads(self.threads)
        record = perform(self.execute, cell)
        until = time.monotonic() + STALE * 1.5
        while record["status"] == "busy" and time.monotonic() < until:  # by this very job, on a node that failed?
            time.sleep(POLL)
            record = perform(self.execute, cell)
        return record

    def checkpoint(self, cell: Cell) -> Any:
        """The same again: everything that counts is in the run's folder."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, cell)


def make_executor(submitit: Any, folder: Path, settings: Settings) -> Any:
    """submitit's executor for `settings.slurm`: words of sbatch, but for `time` in minutes, and of submitit."""
    words = dict(_word(word) for word in settings.slurm)
    cluster = words.pop("cluster", "slurm")
    if cluster == "slurm" and not shutil.which("sbatch"):
        raise LabError(
            "expected SLURM; there is no sbatch here. Start --engine slurm on a node from which jobs are submitted, or "
            "use --workers, or --shard i/n with another scheduler."
        )
    asked: dict[str, Any] = {"name": "unifocal", "timeout_min": words.pop("time", MINUTES)}
    if settings.threads:
        asked["cpus_per_task"] = settings.threads
    gpus = settings.gpus if settings.gpus is not None else settings.devices if settings.device == "cuda" else 0
    if gpus != int(gpus):
        raise LabError(f"expected whole GPUs: SLURM does not share one between jobs; got --gpus {gpus:g}.")
    if gpus:
        asked["gpus_per_node"] = int(gpus)
    if settings.workers > 1:
        asked["slurm_array_parallelism"] = settings.workers
    asked["slurm_additional_parameters"] = {"requeue": True}
    timeouts = words.pop("max_num_timeout", TIMEOUTS)
    asked |= {name if name in COMMON else f"slurm_{name}": value for name, value in words.items()}
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster, slurm_max_num_timeout=timeouts)
        executor.update_parameters(**asked)
    except (NameError, AssertionError, ValueError, RuntimeError) as error:
        raise LabError(f"--slurm {','.join(settings.slurm)}: {str(error).splitlines()[0]}") from error
    return executor


def _word(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip() or not value.strip():
        raise LabError(
            f"expected --slurm name=value,name=value; got {text!r}. Example: partition=gpu,time=600,mem_gb=16"
        )
    return name.strip().replace("-", "_"), plain_value(value.strip())


def _submit(executor: Any, cells: Sequence[Cell], task: Task) -> dict[str, Any]:
    jobs: dict[str, Any] = {}
    for start in range(0, len(cells), ARRAY):
        part = cells[start : start + ARRAY]
        try:
            submitted = executor.map_array(task, part)
        except Exception as error:  # CalledProcessError, FailedSubmissionError, FailedJobError: what sbatch said
            raise LabError(f"SLURM refuses the jobs: {' '.join(str(error).split())}") from error
        jobs |= {cell.name: job for cell, job in zip(part, submitted, strict=True)}
    return jobs


def _read_jobs(folder: Path) -> dict[str, str]:
    """Which job each run was last given to."""
    try:
        jobs: dict[str, str] = read_json(folder / "jobs.json")
    except (FileNotFoundError, LabError):
        return {}
    return jobs


def _queued(submitit: Any, executor: Any, folder: Path, cells: Sequence[Cell]) -> dict[str, Any]:
    """The jobs of an earlier start that are still in the queue, or at work."""
    if executor.cluster != "slurm":
        return {}
    ids = _read_jobs(folder)
    jobs = {cell.name: submitit.SlurmJob(folder, ids[cell.name]) for cell in cells if cell.name in ids}
    return {
        name: job
        for name, job in jobs.items()
        if not job.paths.result_pickle.exists() and job.state.split(" ")[0].upper() in AT_WORK
    }


def _result(submitit: Any, job: Any, cell: Cell) -> Record:
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        record: Record = job.result()
        return record
    except FailedJobError as error:  # its text holds the traceback between two lines of dashes
        trace = str(error).split("-" * 22)[1].strip().splitlines()
        return make_record(cell, "failed", f"{trace[-1]} (job {job.job_id}, {job.paths.stderr})")
    except UncompletedJobError:
        return make_record(
            cell, "lost", f"job {job.job_id} ended without a result ({job.state}); see {job.paths.stderr}"
        )


def _ids(jobs: dict[str, Any]) -> str:
    return " ".join(sorted({job.job_id.split("_")[0] for job in jobs.values()}))


def _leave(executor: Any, jobs: dict[str, Any], out: str, watcher: Watcher) -> None:
    """Say what becomes of the jobs when this process no longer waits for them."""
    if executor.cluster != "slurm":
        for job in jobs.values():
            job.cancel(check=False)
    elif jobs:
        watcher.stage(
            f"{len(jobs)} jobs go on by themselves. `unifocal status {out}` shows how they fare, the same command "
            f"waits for them again, `scancel {_ids(jobs)}` ends them."
        )
