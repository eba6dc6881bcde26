"""Which jobs are in the queue still, asked of SLURM itself: not every cluster keeps the accounts that sacct reads."""

import getpass
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unifocal.lab.errors import LabError
from unifocal.lab.grid.cells import Cell
from unifocal.lab.storage import read_json, write_json

LOOK = 15.0  # seconds between two questions to SLURM
LOST = 45.0  # seconds after which a job that is neither in the queue nor has a result is lost


class Queue:
    """The jobs of a comparison; those given to each run are kept in `jobs.json`."""

    def __init__(self, folder: Path, cluster: str) -> None:
        self.file = folder / "jobs.json"
        self.is_slurm = cluster == "slurm"
        self._looked = float("-inf")
        self._ids: set[str] = set()
        self._missed: dict[str, float] = {}  # when a job was first found to be gone

    def attach(self, submitit: Any, cells: Sequence[Cell]) -> dict[str, Any]:
        """The jobs of an earlier start that are still in the queue, or at work, by the name of their run."""
        if not self.is_slurm:
            return {}
        self._look()
        given = self._given()
        jobs = {
            cell.name: submitit.SlurmJob(self.file.parent, given[cell.name]) for cell in cells if cell.name in given
        }
        return {name: job for name, job in jobs.items() if job.job_id in self._ids and not _has_result(job)}

    def record(self, jobs: dict[str, Any]) -> None:
        """Keep which job each run was given to."""
        write_json(self.file, self._given() | {name: job.job_id for name, job in jobs.items()})
        self._looked = float("-inf")  # what was last seen is older than these

    def is_over(self, job: Any) -> bool:
        """Has it a result, or will it never have one?"""
        if _has_result(job):
            return True
        if not self.is_slurm:
            return bool(job.done())
        now = time.monotonic()
        if now > self._looked + LOOK:
            self._look()
        if job.job_id in self._ids:
            self._missed.pop(job.job_id, None)
            return False
        return now - self._missed.setdefault(job.job_id, now) > LOST  # a result may take time to be seen from here

    def _given(self) -> dict[str, str]:
        try:
            given: dict[str, str] = read_json(self.file)
        except (FileNotFoundError, LabError):
            return {}
        return given

    def _look(self) -> None:
        """Ask once for all jobs; without an answer, nothing has changed."""
        self._looked = time.monotonic()
        command = ["squeue", "--noheader", "--array", "--format=%i", f"--user={getpass.getuser()}"]
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        if asked.returncode == 0:
            self._ids = set(asked.stdout.split())


def _has_result(job: Any) -> bool:
    return bool(job.paths.result_pickle.exists())
