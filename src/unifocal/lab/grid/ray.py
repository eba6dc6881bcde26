"""Runs on a Ray cluster, or on a small one that is started here: fractions of GPUs, and lost nodes made good."""

import os
import socket
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from unifocal.lab.errors import LabError, Terminated
from unifocal.lab.grid.cells import Cell, Execute, Record, make_record, perform
from unifocal.lab.grid.following import Following
from unifocal.lab.grid.signals import terminable
from unifocal.lab.grid.threads import threads_per_run, use_threads
from unifocal.lab.progress import Watcher
from unifocal.lab.settings import Settings

POLL = 1.0  # seconds between two looks at the files of the runs
RETRIES = 3  # of a run whose node or process is lost
PATIENCE = 10.0  # seconds to wait for an answer of a cluster
STORE = 80 * 2**20  # bytes for objects of Ray: no run has any


def in_ray(
    cells: Sequence[Cell], settings: Settings, watcher: Watcher, execute: Execute
) -> Generator[Record, None, None]:
    """Runs as Ray tasks; all nodes must see the output folder under the same path.

    A run takes `settings.gpus` (one, if not given and there are any and the device may be one) and `settings.threads`
    CPUs (if not given, a node's, shared by as many runs as its GPUs hold or `settings.workers` says). Tasks of a lost
    node are retried on another. If the grid is left, its tasks are cancelled.
    """
    try:
        import ray
    except ModuleNotFoundError:
        raise LabError("--engine ray needs Ray: pip install 'unifocal[lab,ray]'") from None
    following = Following(watcher)
    with cluster(ray, settings.address):
        cpus, gpus = resources(ray.nodes(), settings)
        if not any(fits(node, cpus, gpus) for node in ray.nodes()):
            watcher.stage(f"no node of the Ray cluster has {cpus} CPUs and {gpus:g} GPUs for a run; waiting for one")
        task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(on_node)
        left: dict[Any, Cell] = {}
        try:
            for cell in cells:
                cell.folder.mkdir(parents=True, exist_ok=True)  # by which a node knows that it sees the same disk
                following.begin(cell)
                left[task.remote(execute, cell, cpus)] = cell
            while left:
                for reference in ray.wait(list(left), timeout=POLL)[0]:
                    cell = left.pop(reference)
                    record = _result(ray, reference, cell)
                    following.end(cell, record)
                    yield record
                for cell in left.values():
                    following.look(cell)
        finally:
            for reference in left:
                with suppress(ray.exceptions.RayError):  # the cluster may be gone
                    ray.cancel(reference, force=True)


@contextmanager
def cluster(ray: Any, address: str | None) -> Iterator[None]:
    """A connection to Ray; one that was there before is used, and left as it is."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports to its makers otherwise
    os.environ.setdefault("RAY_task_oom_retries", str(RETRIES))  # of what Ray kills as memory runs out; else for ever
    # "local": without a word Ray joins a cluster that runs here, or that RAY_ADDRESS names.
    own = {"address": "local", "include_dashboard": False, "object_store_memory": STORE}
    start: dict[str, Any] = own if address is None else {"address": address}
    with terminable():  # Ray puts a handler of its own in its place and leaves it there; this takes it away again
        try:
            _knock(address)
            ray.init(log_to_driver=False, logging_level="ERROR", **start)
        except Exception as error:  # Ray raises a dozen kinds
            where = "a Ray cluster here" if address is None else f"the Ray cluster at {address}"
            raise LabError(
                f"expected {where}; {_line(error)} "
                "Is it up (`ray status`), of the same Ray version, and RAY_AUTH_MODE the same on all nodes?"
            ) from error
        try:
            with terminable():  # and this makes it ours in between
                yield
        except SystemError as error:  # what becomes of an exception that a signal raises within Ray's own code
            raise (error.__cause__ if isinstance(error.__cause__, Terminated) else error) from None
        finally:
            ray.shutdown()


def _knock(address: str | None) -> None:
    """Is somebody there? Ray itself asks for minutes."""
    if address is not None and address not in ("auto", "local"):
        host, _, port = address.removeprefix("ray://").rpartition(":")
        if not port.isdigit():
            raise ValueError("an address is host:port.")
        with socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE):
            pass


def resources(nodes: Sequence[dict[str, Any]], settings: Settings) -> tuple[int, float]:
    """(CPUs, GPUs) of a run."""
    here = [node["Resources"] for node in nodes if node["Alive"]]
    has_gpus = max((node.get("GPU", 0) for node in here), default=0)
    cores = int(max((node.get("CPU", 1) for node in here), default=1))
    gpus = settings.gpus
    if gpus is None:
        gpus = float(settings.devices) if has_gpus and settings.device != "cpu" else 0.0
    runs = max(settings.workers, int(has_gpus / gpus) if gpus else 1)
    return threads_per_run(settings, cores, runs), gpus


def fits(node: dict[str, Any], cpus: int, gpus: float) -> bool:
    has = node["Resources"]
    return bool(node["Alive"] and has.get("CPU", 0) >= cpus and has.get("GPU", 0) >= gpus)


def on_node(execute: Execute, cell: Cell, threads: int) -> Record:
    """What a node does."""
    if not cell.folder.is_dir():
        reason = (
            f"node {socket.gethostname()} does not see {cell.out}. All nodes must share the file system of --out, "
            "under the same path"
        )
        return make_record(cell, "failed", reason)
    use_threads(threads)
    return perform(execute, cell)


def _result(ray: Any, reference: Any, cell: Cell) -> Record:
    try:
        record: Record = ray.get(reference)
        return record
    except ray.exceptions.RayTaskError as error:
        return make_record(cell, "failed", _line(error.cause or error))
    except ray.exceptions.RayError as error:
        return make_record(cell, "lost", _line(error))


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
