"""`unifocal status OUT`: how a comparison stands."""

import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unifocal.lab.commands.tables import FOLDED, fitting, say
from unifocal.lab.grid.status import duration
from unifocal.lab.words import counted

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from unifocal.lab.grid.status import RunStatus

EVERY = 2.0  # seconds between two looks with --watch
WIDE = 100  # columns of a window in which all columns of the table have room
COLOURS = {"finished": "green", "pruned": "green", "running": "cyan", "failed": "red", "waiting": "dim"}


def status(
    out: Annotated[Path, typer.Argument(help="Output folder of a comparison.", show_default=False)],
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it anew, from before it begins until every run has ended, or Ctrl-C.")
    ] = False,
) -> None:
    """Print which runs are finished, running, failed or waiting, and when they will end."""
    from rich.console import Console

    from unifocal.lab.grid.status import read_status, wait_for_plan

    console, is_stopped = Console(), watch
    if watch:
        try:
            wait_for_plan(out, lambda text: say(console, text))
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        with suppress(KeyboardInterrupt):
            follow(out, console)
            is_stopped = False
    runs = read_status(out)
    console.print(render(runs, console))
    for line in [*reasons(runs), summary(runs)]:
        say(console, line)
    if is_stopped:
        raise typer.Exit(130)


def follow(out: Path, console: "Console") -> None:
    """Tell how it stands until every run has ended: in a window what has room, elsewhere a line at each change."""
    from rich.live import Live

    from unifocal.lab.grid.status import is_between, read_status, read_to_come

    seen: object = None
    with Live(console=console, auto_refresh=False, transient=True) if console.is_interactive else nullcontext() as live:
        while True:
            runs, to_come = read_status(out), read_to_come(out)
            if live is not None:
                live.update(view(runs, to_come, console), refresh=True)
            elif (now := [run.state for run in runs]) != seen:  # an epoch more says nothing new
                say(console, summary(runs))
                seen = now
            states = {run.state for run in runs}
            if not states & {"running", "waiting"} and not is_between(states, to_come):
                return
            time.sleep(EVERY)


def view(runs: Sequence["RunStatus"], to_come: str, console: "Console") -> "RenderableType":
    """As much as the window has room for: the line that sums up, runs at work, runs that failed, then the others."""
    from rich.console import Group
    from rich.text import Text

    first = {"running": 0, "failed": 1}
    ordered = sorted(runs, key=lambda run: first.get(run.state, 2))
    for number in range(min(len(runs), console.height), -1, -1):
        shown, left = ordered[:number], ordered[number:]
        head = [summary(runs), *([f"Then: {to_come}."] if to_come else [])]
        end = [*reasons(shown), *([f"No room in this window for {_states(left)}."] if left else [])]
        parts = [*map(Text, head), _rows(shown, console), *map(Text, end)]
        if len(console.render_lines(Group(*parts), pad=False)) < console.height:
            break
    return Group(*parts)


def _rows(runs: Sequence["RunStatus"], console: "Console") -> "RenderableType":
    """The table, or a line for each run where the window is too narrow."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from unifocal.lab.report.labels import clipped

    table = render(runs, console)
    if isinstance(table, Table):
        return table
    begun = [f"{run.state} {run.epoch}/{run.epochs} " for run in runs]
    lines = [text + clipped(run.title, console.width - len(text)) for text, run in zip(begun, runs, strict=True)]
    return Group(*(Text(line, no_wrap=True, overflow="crop") for line in lines))


def render(runs: Sequence["RunStatus"], console: "Console") -> "RenderableType":
    """A table with a row for each run."""
    from rich.markup import escape
    from rich.table import Table

    is_wide = console.width >= WIDE
    table = Table()
    table.add_column("run", overflow="fold", min_width=FOLDED)
    table.add_column("is")
    table.add_column("epoch", justify="right", no_wrap=True)
    if is_wide:
        table.add_column("an epoch", justify="right", no_wrap=True)
    table.add_column("ends", no_wrap=True)
    if is_wide:
        table.add_column("by")
    for run in runs:
        pace = "" if run.seconds_per_epoch is None else duration(run.seconds_per_epoch)
        cells = [
            escape(run.title),
            f"[{COLOURS[run.state]}]{run.state}[/]",
            f"{run.epoch}/{run.epochs}",
            *([pace] if is_wide else []),
            "" if run.expected_end is None else f"{run.expected_end:%d %b %H:%M}",
            *([escape(f"process {run.owner.pid} on {run.owner.host}" if run.owner else "")] if is_wide else []),
        ]
        table.add_row(*cells)
    return fitting(table, console)


def reasons(runs: Sequence["RunStatus"]) -> list[str]:
    """Why runs failed."""
    return [f"{run.title}: {run.reason}" for run in runs if run.state == "failed"]


def summary(runs: Sequence["RunStatus"]) -> str:
    """`7 of 15 runs finished, 2 running, 1 failed; about 2 h left`."""
    from unifocal.lab.grid.status import time_left

    finished = sum(run.state == "finished" for run in runs)
    others = _states([run for run in runs if run.state != "finished"])
    parts = [f"{finished} of {counted(len(runs), 'run')} finished", *([others] if others else [])]
    return "; ".join([", ".join(parts), *([left] if (left := time_left(runs)) else [])])


def _states(runs: Sequence["RunStatus"]) -> str:
    """`2 running, 1 failed`."""
    count = {state: sum(run.state == state for run in runs) for state in COLOURS}
    return ", ".join(f"{number} {state}" for state, number in count.items() if number)
