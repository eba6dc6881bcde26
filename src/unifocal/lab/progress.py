"""What a person sees while a comparison runs: bars on a terminal, one line per run elsewhere, or nothing."""

import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Protocol, Self, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    track,
)


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

    def plan(self, runs: int, finished: int, epochs: int) -> None:
        """So many runs in all, so many of them finished earlier, so many epochs each."""

    def run_started(self, name: str, epochs_done: int) -> None:
        """A run begins, or goes on after `epochs_done` epochs."""

    def epoch_ended(self, epoch: int, validation_loss: float) -> None:
        """One epoch (from 0) of the current run is over."""

    def run_ended(self, name: str, result: str) -> None:
        """The current run is over, well or not."""


class Lines(Watcher):
    """Plain lines, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.runs = self.number = 0

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def stage(self, text: str) -> None:
        self.say(text)

    def plan(self, runs: int, finished: int, epochs: int) -> None:
        self.runs, self.number = runs, finished
        earlier = f", {finished} of them finished earlier" if finished else ""
        self.say(f"{runs} runs of {epochs} epochs{earlier}")

    def run_started(self, name: str, epochs_done: int) -> None:
        self.started = time.perf_counter()
        self.number += 1
        if epochs_done:
            self.say(f"[{self.number}/{self.runs}] {name}: goes on after {epochs_done} epochs")

    def run_ended(self, name: str, result: str) -> None:
        seconds = time.perf_counter() - self.started
        self.say(f"[{self.number}/{self.runs}] {name}: {result} ({seconds:.0f} s)")


class Bars(Lines):
    """Two bars, over all epochs of all runs and over those of the current run, below the lines."""

    def __enter__(self) -> Self:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            speed_estimate_period=3600,  # epochs take long: judge the rest by all of them
        )
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def plan(self, runs: int, finished: int, epochs: int) -> None:
        super().plan(runs, finished, epochs)
        self.epochs = epochs
        self.all = self.progress.add_task("all runs", total=(runs - finished) * epochs)
        self.one = self.progress.add_task("", total=epochs, visible=False)

    def run_started(self, name: str, epochs_done: int) -> None:
        super().run_started(name, epochs_done)
        self.name, self.done = name, epochs_done
        self.progress.update(
            self.all, total=(self.progress.tasks[self.all].total or 0) - epochs_done, description="all runs"
        )
        self.progress.reset(self.one, total=self.epochs, completed=epochs_done, description=name, visible=True)

    def epoch_ended(self, epoch: int, validation_loss: float) -> None:
        self.done = epoch + 1
        text = f"{self.name}, validation loss {validation_loss:.4f}"
        self.progress.update(self.one, completed=self.done, description=text)
        self.progress.advance(self.all)

    def run_ended(self, name: str, result: str) -> None:
        # A run that failed early leaves epochs that will never come.
        left = self.epochs - self.done
        self.progress.update(self.all, total=(self.progress.tasks[self.all].total or 0) - left)
        self.progress.update(self.one, visible=False)
        super().run_ended(name, result)


Item = TypeVar("Item")


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
