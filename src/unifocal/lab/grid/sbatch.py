"""How runs are handed to SLURM: what is asked for each, in words of sbatch, and their submission."""

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unifocal.lab.choices import plain_value
from unifocal.lab.data.problems import listed, suggest
from unifocal.lab.errors import LabError
from unifocal.lab.grid.cells import Cell, Record
from unifocal.lab.settings import Settings

ARRAY = 1000  # jobs of an array: SLURM refuses more unless told otherwise
MINUTES = 240  # of a job, unless asked for otherwise; longer runs are requeued
TIMEOUTS = 50  # times that a job is requeued because its time was up
CLUSTERS = ("slurm", "local")
OWN = ("time", "cluster", "max_num_timeout")  # words that are no parameters of submitit, or not as they are
COMMON = ("name", "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "stderr_to_stdout")


def make_executor(submitit: Any, folder: Path, settings: Settings) -> Any:
    """submitit's executor for `settings.slurm`.

    Its words are options of sbatch, `time` in minutes (240 if not given), and parameters of submitit: `mem_gb`,
    `timeout_min`, `cluster`. CPUs are `settings.threads`, GPUs `settings.gpus` (one for each device with device cuda),
    and with more than one worker so many jobs run at a time.
    """
    words = dict(_word(text) for text in settings.slurm)
    _check_words(words, submitit.SlurmExecutor._valid_parameters())
    cluster = words.pop("cluster", "slurm")
    if cluster == "slurm" and not shutil.which("sbatch"):
        raise LabError(
            "expected SLURM; there is no sbatch here. Start --engine slurm on a node from which jobs are submitted, or "
            "use --workers, or --shard i/n with another scheduler."
        )
    gpus = settings.gpus if settings.gpus is not None else settings.devices if settings.device == "cuda" else 0
    if gpus != int(gpus):
        raise LabError(f"expected whole GPUs: SLURM does not share one between jobs; got --gpus {gpus:g}.")
    timeouts = words.pop("max_num_timeout", TIMEOUTS)
    asked = {
        "name": "unifocal",
        "timeout_min": words.pop("time", MINUTES),
        "cpus_per_task": settings.threads,
        "gpus_per_node": int(gpus) or None,
        "slurm_array_parallelism": settings.workers if settings.workers > 1 else None,
        "slurm_additional_parameters": {"requeue": True},
    } | {name if name in COMMON else f"slurm_{name}": value for name, value in words.items()}
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster, slurm_max_num_timeout=timeouts)
        executor.update_parameters(**{name: value for name, value in asked.items() if value is not None})
    except (NameError, AssertionError, TypeError, ValueError, RuntimeError) as error:
        raise LabError(f"--slurm {','.join(settings.slurm)}: {str(error).splitlines()[0]}") from error
    return executor


def _check_words(words: Mapping[str, Any], sbatch: Collection[str]) -> None:
    known = {*OWN, *COMMON, *sbatch}
    problems = [f"there is no {name!r}.{suggest(name, known)}" for name in words if name not in known]
    cluster = words.get("cluster", "slurm")
    if cluster not in CLUSTERS:
        near = suggest(str(cluster), CLUSTERS)
        problems.append(f"expected cluster={' or cluster='.join(CLUSTERS)}; got cluster={cluster}.{near}")
    if problems:
        raise LabError(listed("expected words of sbatch or submitit in --slurm", problems))


def submit(executor: Any, cells: Sequence[Cell], task: Callable[[Cell], Record]) -> Iterator[dict[str, Any]]:
    """A job of submitit for each cell, by its name; array by array, as the next one may be refused."""
    for start in range(0, len(cells), ARRAY):
        part = cells[start : start + ARRAY]
        try:
            submitted = executor.map_array(task, part)
        except Exception as error:  # several kinds, and what sbatch said in their text
            raise LabError(f"the jobs were refused: {' '.join(str(error).split())}") from error
        yield {cell.name: job for cell, job in zip(part, submitted, strict=True)}


def _word(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip() or not value.strip():
        raise LabError(
            f"expected --slurm name=value,name=value; got {text!r}. Example: partition=gpu,time=600,mem_gb=16"
        )
    return name.strip().replace("-", "_"), plain_value(value.strip())
