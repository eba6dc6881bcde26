"""Worker processes that execute cells, and that may die: a death costs its run an epoch, and the others nothing."""

import json
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from typing import Any

from unifocal.lab.errors import LabError
from unifocal.lab.grid.cells import Cell, Execute, Record, make_record, read_history
from unifocal.lab.grid.worker import address

GRACE = 3.0  # seconds that a process has to end before it is killed
TRIES = 3  # of a run whose process dies again and again within one epoch


class Died(Exception):
    """The process has ended by itself; the text says how."""


class Stopped(Exception):
    """Nothing more is to begin."""


class Process:
    """A worker process, as its parent sees it."""

    def __init__(self, execute: Execute, environment: Mapping[str, str]) -> None:
        with ExitStack() as stack:
            self.errors = stack.enter_context(tempfile.TemporaryFile())
            self.popen = subprocess.Popen(
                [sys.executable, "-P", "-m", "unifocal.lab.grid.worker", address(execute)],
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.errors,
                text=True,
                encoding="utf-8",
            )
            stack.pop_all()  # `close` closes it

    def perform(self, cell: Cell) -> Record:
        """The record of a cell, when it is done; raises Died."""
        assert self.popen.stdin is not None
        try:
            print(json.dumps(asdict(cell)), file=self.popen.stdin, flush=True)
        except OSError:
            raise Died(self._how()) from None
        record: Record = self.read()
        return record

    def read(self) -> Any:
        """What the process says next; raises Died."""
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        if not line.endswith("\n"):
            raise Died(self._how())
        return json.loads(line)

    def close(self) -> None:
        """Let the process end, and collect it."""
        for pipe in (self.popen.stdin, self.popen.stdout):
            assert pipe is not None
            with suppress(OSError):  # it was dead already, and what was written last never left
                pipe.close()
        self.popen.wait()
        self.errors.close()

    def _how(self) -> str:
        code = self.popen.wait()
        self.errors.seek(0)
        said = self.errors.read().decode(errors="replace").strip().splitlines()[-1:]
        self.close()
        if code < 0:
            return f"its process was killed by {signal.Signals(-code).name}"
        return ": ".join([f"its process ended with code {code}", *said])


class Pool:
    """A process for each environment, each served by a thread that hands it cells and hears what becomes of them."""

    def __init__(self, cells: Sequence[Cell], execute: Execute, environments: Sequence[Mapping[str, str]]) -> None:
        # None: it begins. A text: it has lost its process, and goes on in another. A record: it is done. An error:
        # nothing can go on.
        self.news: queue.SimpleQueue[tuple[Cell, Record | str | Exception | None]] = queue.SimpleQueue()
        self._todo = deque(cells)
        self._execute = execute
        self._processes: list[Process] = []
        self._is_stopped = False
        self._lock = threading.Lock()  # no process begins once the pool is stopped
        self._threads = [threading.Thread(target=self._serve, args=(e,), daemon=True) for e in environments]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End all processes, by force where they do not end by themselves."""
        with self._lock:
            self._is_stopped = True
        for process in self._processes:
            process.popen.terminate()
        deadline = time.monotonic() + GRACE
        try:
            while any(thread.is_alive() for thread in self._threads) and time.monotonic() < deadline:
                time.sleep(0.02)
        finally:  # also when somebody presses Ctrl-C once more
            for process in self._processes:
                process.popen.kill()
        for thread in self._threads:
            thread.join()
        for process in self._processes:
            process.close()

    def _serve(self, environment: Mapping[str, str]) -> None:
        process: Process | None = None
        while self._todo and not self._is_stopped:
            try:
                cell = self._todo.popleft()
            except IndexError:
                break
            self.news.put((cell, None))
            try:
                process = self._execute_in(process, environment, cell)
            except Stopped:
                return
            except Exception as error:
                self.news.put((cell, error))
                return
        if process:
            process.close()  # its memory may be needed by the others

    def _execute_in(self, process: Process | None, environment: Mapping[str, str], cell: Cell) -> Process | None:
        """Execute a cell, in another process should one die; returns the one that is left."""
        deaths, epochs = 0, len(read_history(cell.folder))
        while True:
            try:
                process = process or self._start(environment)
                record = process.perform(cell)
                if record["status"] == "full":
                    self._todo.clear()  # another run would not fit either, and would begin an epoch for nothing
                self.news.put((cell, record))
                return process
            except Died as died:
                process = None
                done = len(read_history(cell.folder))
                deaths, epochs = (deaths + 1 if done == epochs else 1), done
                if deaths == TRIES:
                    reason = f"{died}, {deaths} times within one epoch. Is there enough memory?"
                    self.news.put((cell, make_record(cell, "lost", reason)))
                    return None
                self.news.put((cell, str(died)))

    def _start(self, environment: Mapping[str, str]) -> Process:
        """A process that is ready; raises Stopped, or LabError if none can be started."""
        how: Died | None = None
        for _ in range(TRIES):
            with self._lock:
                if self._is_stopped:
                    raise Stopped
                process = Process(self._execute, environment)
                self._processes.append(process)
            try:
                process.read()
                return process
            except Died as died:
                how = died
        raise LabError(f"no worker process can be started: {how}.")
