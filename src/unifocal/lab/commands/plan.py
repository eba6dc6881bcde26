"""`unifocal plan`: what a comparison would take."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unifocal.lab.commands.options import with_settings
from unifocal.lab.commands.running import interruptible, read_folders
from unifocal.lab.settings import SECTIONS, Settings

if TYPE_CHECKING:
    from unifocal.lab.planning import Cost


@with_settings(*SECTIONS)
def plan(
    settings: Settings,
    data: Annotated[list[Path], typer.Argument(help="Folders of images and masks, 2D or 3D.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(help="Output folder; runs/<names of DATA> if not given.", show_default=False),
    ] = None,
) -> None:
    """Print what `compare` with the same options would run, with memory and hours measured by a few real steps.

    Folds and prepared cases are left in the output folder: `compare` goes on from there.
    """
    from rich.console import Console

    errors = Console(stderr=True)
    with interruptible(errors):
        datasets = read_folders(data, settings, errors)

        from unifocal.lab.planning import plan_costs
        from unifocal.lab.progress import choose_watcher

        name = "-".join(dataset.name for dataset in datasets)
        costs = plan_costs(datasets, settings, out or Path("runs") / name, choose_watcher(errors))
    _print(costs, settings)
    if any(cost.problem for cost in costs):
        raise typer.Exit(1)


def _print(costs: Sequence["Cost"], settings: Settings) -> None:
    from unifocal.lab.commands.tables import plain, print_table

    rows = []
    for cost in costs:
        runs = f"{cost.runs}" + (f", {cost.finished} done" if cost.finished else "")
        numbers = (
            (f"[red]{plain(cost.problem)}[/red]", "", "", "")
            if cost.problem
            else (_time(cost.step), _time(cost.epoch), _time(cost.run), _memory(cost.memory))
        )
        rows.append((plain(cost.dataset), plain(cost.network), plain(cost.loss), runs, *numbers))
    print_table(("data", "network", "loss", "runs", "step", "epoch", "run", "memory"), rows, folded=("network", "loss"))
    left = sum(cost.left for cost in costs if cost.problem is None)
    print(f"left to do, one run after the other: {_time(left)}" + (_shared(left, settings)))


def _shared(seconds: float, settings: Settings) -> str:
    if settings.workers == 1:
        return ""
    return f"; with {settings.workers} workers {_time(seconds / settings.workers)} at best, if they do not share cores"


def _time(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _memory(size: int | None) -> str:
    return "" if size is None else f"{size / 2**30:.2f} GiB"
