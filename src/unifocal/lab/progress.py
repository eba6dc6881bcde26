"""What a person sees while a comparison runs: bars on a terminal, one line per run elsewhere, or nothing."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Protocol, Self, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    track,
)

from unifocal.lab.words import counted

Item = TypeVar("Item")


class Watcher:
    """Is told how a comparison goes on; this one keeps it to itself."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def stage(self, text: str) -> None:
        """Something other than training has begun."""

    def track(self, items: Sequence[Item], what: str) -> Iterable[Item]:
        """A `Track`: passes items on, one by one."""
        return items

    def plan(self, runs: int, finished: int, epochs: int) -> None:
        """So many runs in all, so many of them finished earlier, so many epochs each."""

    def run_started(self, name: str, epochs_done: int) -> None:
        """A run begins, or goes on after `epochs_done` epochs; others may be under way."""

    def run_set_back(self, name: str, epochs_done: int, lost: int, why: str) -> None:
        """A run that has begun goes on after `epochs_done` epochs, and does the `lost` ones after them again."""

    def epoch_ended(self, name: str, epoch: int, validation_loss: float) -> None:
        """One epoch (from 0) of a run is over."""

    def run_ended(self, name: str, result: str) -> None:
        """A run is over, well or not."""


class Lines(Watcher):
    """Plain lines, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.runs = self.number = 0
        self.under_way: dict[str, tuple[int, float]] = {}  # number of each run, and when it began

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def stage(self, text: str) -> None:
        self.say(text)

    def plan(self, runs: int, finished: int, epochs: int) -> None:
        self.runs, self.number = runs, finished
        earlier = f", {finished} of them finished earlier" if finished else ""
        self.say(f"{counted(runs, 'run')} of {counted(epochs, 'epoch')}{earlier}")

    def run_started(self, name: str, epochs_done: int) -> None:
        self.number += 1
        self.under_way[name] = self.number, time.perf_counter()
        if epochs_done:
            self.say(f"[{self.number}/{self.runs}] {name}: goes on after {counted(epochs_done, 'epoch')}")

    def run_set_back(self, name: str, epochs_done: int, lost: int, why: str) -> None:
        what = f"repeats {counted(lost, 'epoch')}" if epochs_done else f"starts again after {counted(lost, 'epoch')}"
        self.say(f"[{self.under_way[name][0]}/{self.runs}] {name}: {what}: {why}")

    def run_ended(self, name: str, result: str) -> None:
        number, started = self.under_way.pop(name)
        self.say(f"[{number}/{self.runs}] {name}: {result} ({time.perf_counter() - started:.0f} s)")


class Bars(Lines):
    """Bars below the lines: one over all epochs of all runs, and one for each run under way."""

    def __enter__(self) -> Self:
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("for the epochs left"),
            console=self.console,
            transient=True,
            speed_estimate_period=3600,  # epochs take long: judge the rest by all of them
        )
        self.all = self.progress.add_task("all runs", visible=False)
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def track(self, items: Sequence[Item], what: str) -> Iterable[Item]:
        task = self.progress.add_task(what, total=len(items))
        for item in items:
            yield item
            self.progress.advance(task)
        self.progress.remove_task(task)

    def plan(self, runs: int, finished: int, epochs: int) -> None:
        super().plan(runs, finished, epochs)
        self.epochs = epochs
        self.progress.reset(self.all, total=(runs - finished) * epochs, visible=True)
        self.bars: dict[str, TaskID] = {}
        self.done: dict[str, int] = {}

    def run_started(self, name: str, epochs_done: int) -> None:
        super().run_started(name, epochs_done)
        self._expect_less(epochs_done)
        self.bars[name] = self.progress.add_task(name, total=self.epochs, completed=epochs_done)
        self.done[name] = epochs_done

    def run_set_back(self, name: str, epochs_done: int, lost: int, why: str) -> None:
        super().run_set_back(name, epochs_done, lost, why)
        self._expect_less(epochs_done - self.done[name])
        self.progress.update(self.bars[name], completed=epochs_done)
        self.done[name] = epochs_done

    def epoch_ended(self, name: str, epoch: int, validation_loss: float) -> None:
        text = f"{name}, validation loss {validation_loss:.4f}"
        self.progress.update(self.bars[name], completed=epoch + 1, description=text)
        self.progress.advance(self.all, epoch + 1 - self.done[name])
        self.done[name] = epoch + 1

    def run_ended(self, name: str, result: str) -> None:
        # A run that failed or stopped early leaves epochs that will never come.
        self._expect_less(self.epochs - self.done.pop(name))
        self.progress.remove_task(self.bars.pop(name))
        super().run_ended(name, result)

    def _expect_less(self, epochs: int) -> None:
        total = next(task.total or 0 for task in self.progress.tasks if task.id == self.all)
        self.progress.update(self.all, total=total - epochs)


class Listener(Protocol):
    """Hears what a run in this process tells of itself."""

    def start(self, epochs_done: int) -> object: ...

    def epoch_ended(self, epoch: int, validation_loss: float) -> object: ...


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def tell_start(epochs_done: int) -> None:
    """To be called by a run when it knows after how many epochs it goes on: whoever executes it here hears of it."""
    listener = _listener.get()
    if listener is not None:
        listener.start(epochs_done)


def tell_epoch(epoch: int, validation_loss: float) -> None:
    """To be called by a run after each epoch (from 0)."""
    listener = _listener.get()
    if listener is not None:
        listener.epoch_ended(epoch, validation_loss)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Let `listener` hear what is told in this block."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


class Track(Protocol):
    """Passes items on, one by one, and may show how many are done."""

    def __call__(self, items: Sequence[Item], what: str) -> Iterable[Item]: ...


def silent(items: Sequence[Item], what: str) -> Iterable[Item]:
    """A `Track` that shows nothing."""
    return items


def choose_track(console: Console) -> Track:
    """A bar that goes when it is done, on a terminal; elsewhere nothing."""

    def bar(items: Sequence[Item], what: str) -> Iterable[Item]:
        return track(items, what, console=console, transient=True)

    return bar if console.is_terminal else silent


def choose_watcher(console: Console) -> Watcher:
    return Bars(console) if console.is_terminal else Lines(console)
