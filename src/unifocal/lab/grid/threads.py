"""Threads of the CPU, shared out between runs: torch takes all cores for each process if it is not told otherwise."""

import os
import sys

from unifocal.lab.settings import Settings

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def threads_per_run(settings: Settings, cores: int, runs: int) -> int:
    """What is asked for; else an equal share of the cores for each of the runs at the same time."""
    return settings.threads or max(1, cores // runs)


def cores_here() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def variables(threads: int) -> dict[str, str]:
    """The environment of a process that is to use so many threads."""
    return dict.fromkeys(VARIABLES, str(threads))


def use_threads(threads: int) -> None:
    """Let this process use so many threads, whether torch has been imported or not."""
    os.environ.update(variables(threads))
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(threads)
