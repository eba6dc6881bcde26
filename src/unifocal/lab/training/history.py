"""What a run has seen of itself, one row for each epoch, and what follows from that alone."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from unifocal.lab.errors import LabError
from unifocal.lab.storage import ANEW, write_text

Row = dict[str, float]  # epoch, train_loss, validation_loss, validation_dice, learning_rate, seconds
Judge = Callable[[Row], object]  # sees the row of each epoch once it is written; what it raises ends the run


def unmoved(row: Row) -> None:
    """Lets every run go on; a function with a name, since the processes of one run are handed it by that."""


def write_history(path: Path, history: Sequence[Row]) -> None:
    write_text(path, pd.DataFrame(history).to_csv(index=False))


def read_history(path: Path) -> list[Row]:
    """The rows so far; none where there is no file."""
    if not path.exists():
        return []
    try:
        return [{str(key): float(value) for key, value in row.items()} for row in pd.read_csv(path).to_dict("records")]
    except ValueError as error:
        raise LabError(f"expected a row for each epoch; {path} is damaged ({error}). {ANEW}") from None


def best_epoch(history: Sequence[Row]) -> Row:
    """The row of the lowest validation loss, the first of equals."""
    return min(history, key=lambda row: row["validation_loss"])


def is_over(history: Sequence[Row], epochs: int, early_stop: int | None) -> bool:
    """Are all epochs done, or the last `early_stop` of them without a better validation loss?"""
    if len(history) >= epochs:
        return True
    if early_stop is None or not history:
        return False
    return history[-1]["epoch"] - best_epoch(history)["epoch"] >= early_stop
