"""`python -m unifocal.lab.grid.worker MODULE:FUNCTION`, a process that executes the cells it is handed.

Cells come as lines of JSON on the standard input, records go as lines to the standard output, after a first line that
says that all is ready. When the input ends, whoever started the process is done with it or dead, and it ends at once,
whatever it does: everything that counts is on the disk.
"""

import importlib
import json
import os
import queue
import signal
import sys
import threading
from typing import Any, cast

from unifocal.lab.errors import Terminated
from unifocal.lab.grid.cells import Cell, Execute, perform
from unifocal.lab.grid.signals import terminate


def address(function: Execute) -> str:
    """How another process finds a function."""
    return f"{function.__module__}:{function.__qualname__}"


def find(address: str) -> Execute:
    module, _, name = address.partition(":")
    return cast(Execute, getattr(importlib.import_module(module), name))


def main() -> None:
    # Ctrl-C reaches the whole group, and the parent decides what it means. Not SIG_IGN, which the processes of a run on
    # several devices would inherit: SIGINT is what torch ends them by when this one dies.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, terminate)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    execute = find(sys.argv[1])
    tasks: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(tasks,), daemon=True).start()

    def answer(value: object) -> None:
        print(json.dumps(value), file=answers, flush=True)

    answer("ready")
    while True:
        answer(perform(execute, Cell(**tasks.get())))


def _listen(tasks: "queue.SimpleQueue[dict[str, Any]]") -> None:
    for line in sys.stdin:
        tasks.put(json.loads(line))
    os._exit(0)


if __name__ == "__main__":
    try:
        main()
    except Terminated:
        sys.exit(143)
