"""`unifocal report RUNS`: what came of a comparison, to read and to publish."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unifocal.lab.commands.running import interruptible
from unifocal.lab.commands.tables import say

if TYPE_CHECKING:
    from rich.console import Console

    from unifocal.lab.report.reading import Study

KEPT = "The page shows how far it has come; the same command goes on from there."


def report(
    runs: Annotated[Path, typer.Argument(metavar="RUNS", help="Output folder of compare or tune.", show_default=False)],
    metric: Annotated[str, typer.Option(help="What the losses are ranked and tested by.")] = "DSC",
    live: Annotated[
        bool,
        typer.Option("--live", help="Keep writing, a page that reloads itself, from before it begins to its end."),
    ] = False,
) -> None:
    """Write the report of a comparison: one page for a browser, and its tables and figures as files.

    It may be finished, under way or failed, and its folder may have been copied from elsewhere.
    """
    from rich.console import Console

    shown, errors = Console(), Console(stderr=True)
    begins = False
    if live:
        from unifocal.lab.grid.status import wait_for_plan

        with interruptible(errors, "Nothing has begun there."):
            begins = wait_for_plan(runs, lambda text: say(errors, text))
    with interruptible(errors, KEPT):
        from unifocal.lab.progress import choose_track
        from unifocal.lab.report.writing import FILES, follow, write_report

        if live:
            page = follow(runs, metric, lambda page, study: _tell(page, study, errors), begins)
        else:
            page = write_report(runs, choose_track(errors), metric)
    for name, path in (("report", page), ("files", page.with_name(FILES))):
        say(shown, f"{name + ':':9}{path}")


def _tell(page: Path, study: "Study", console: "Console") -> None:
    from unifocal.lab.report.contents.methods import sentence

    say(console, f"{page}: {sentence(study)}")
