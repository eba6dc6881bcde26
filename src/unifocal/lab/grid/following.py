"""Progress of runs in other processes, read from the files that they write anyway."""

from itertools import takewhile

from unifocal.lab.claims import owner_of
from unifocal.lab.grid.cells import Cell, Record, outcome, read_history, why_set_back
from unifocal.lab.progress import Watcher


class Following:
    """Tells a watcher what becomes of the runs that it is given."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self._told: dict[str, list[str]] = {}  # rows that the watcher knows of
        self._begun: set[str] = set()

    def begin(self, cell: Cell) -> None:
        """The run has been handed over: what it does from now on is news."""
        self._told[cell.name] = [str(row) for row in read_history(cell.folder)]

    def look(self, cell: Cell) -> None:
        """Tell what is new."""
        history = read_history(cell.folder)
        told, rows = self._told[cell.name], [str(row) for row in history]
        if cell.name not in self._begun and (rows != told or owner_of(cell.folder)):
            self._begin(cell)
        kept = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(told, rows, strict=False)))
        if kept < len(told):  # it had to begin again, or do the last epoch again
            self.watcher.run_set_back(cell.title, kept, len(told) - kept, why_set_back(cell.folder))
        for row in history[kept:]:
            self.watcher.epoch_ended(cell.title, int(row["epoch"]), row["validation_loss"])
        self._told[cell.name] = rows

    def end(self, cell: Cell, record: Record) -> None:
        """The run is over."""
        if cell.name not in self._begun:
            if record["status"] == "busy":
                return  # others work on it, and it never began here
            self._begin(cell)
        self.look(cell)
        self._begun.discard(cell.name)
        self.watcher.run_ended(cell.title, outcome(record))

    def _begin(self, cell: Cell) -> None:
        self._begun.add(cell.name)
        self.watcher.run_started(cell.title, len(self._told[cell.name]))
