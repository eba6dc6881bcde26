"""Progress of runs in other processes, read from the files that they write anyway."""

from unifocal.lab.claims import owner_of
from unifocal.lab.grid.cells import Cell, Record, outcome, read_history
from unifocal.lab.progress import Watcher


class Following:
    """Tells a watcher what becomes of the runs that it is given."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self._told: dict[str, int] = {}  # epochs that the watcher knows of
        self._begun: set[str] = set()

    def begin(self, cell: Cell) -> None:
        """The run has been handed over: what it does from now on is news."""
        self._told[cell.name] = len(read_history(cell.folder))

    def look(self, cell: Cell) -> None:
        """Tell what is new."""
        history = read_history(cell.folder)
        told = self._told[cell.name]
        if cell.name not in self._begun and (len(history) != told or owner_of(cell.folder)):
            self._begin(cell)
        for row in history[told:]:
            self.watcher.epoch_ended(cell.title, int(row["epoch"]), row["validation_loss"])
        self._told[cell.name] = len(history)  # fewer than before if the run had to begin again

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
        self.watcher.run_started(cell.title, self._told[cell.name])
