"""`unifocal status OUT`: how a comparison stands."""

import time
from collections.abc import Sequence
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
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    from unifocal.lab.grid.status import is_between, read_status, read_to_come, wait_for_plan

    console = Console()
    if not watch:
        runs = read_status(out)
        console.print(render(runs, console))
        for line in words(runs):
            say(console, line)
        return

    def look() -> "RenderableType":
        then = [f"Then: {to_come}."] if to_come else []
        return Group(render(runs, console), *map(Text, [*words(runs), *then]))

    try:
        wait_for_plan(out, lambda text: say(console, text))
        runs, to_come = read_status(out), read_to_come(out)
        with Live(look(), console=console, auto_refresh=False) as live:
            while (states := {run.state for run in runs}) & {"running", "waiting"} or is_between(states, to_come):
                time.sleep(EVERY)
                runs, to_come = read_status(out), read_to_come(out)
                live.update(look(), refresh=True)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


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


def words(runs: Sequence["RunStatus"]) -> list[str]:
    """Why runs failed, and a line that sums up."""
    return [*(f"{run.title}: {run.reason}" for run in runs if run.state == "failed"), summary(runs)]


def summary(runs: Sequence["RunStatus"]) -> str:
    """`7 of 15 runs finished, 2 running, 1 failed; about 2 h left`."""
    from unifocal.lab.grid.status import total_remaining

    count = {state: sum(run.state == state for run in runs) for state in COLOURS}
    parts = [f"{count['finished']} of {counted(len(runs), 'run')} finished"]
    parts += [f"{count[state]} {state}" for state in ("pruned", "running", "failed", "waiting") if count[state]]
    left = total_remaining(runs)
    return ", ".join(parts) + ("" if left is None else f"; about {duration(left)} left")
