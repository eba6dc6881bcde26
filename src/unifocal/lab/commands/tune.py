"""`unifocal tune`: the parameters of a loss, one after the other."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unifocal.lab.commands.options import Data, with_settings
from unifocal.lab.commands.running import interruptible, read_folders
from unifocal.lab.settings import SECTIONS, Settings

if TYPE_CHECKING:
    from unifocal.lab.tuning import Tuning


@with_settings(*SECTIONS, proposed=True, losses="unified-focal")
def tune(
    settings: Settings,
    data: Data,
    sweep: Annotated[
        str | None,
        typer.Option(
            metavar="<name=value,...;...>",
            help="What to try, stage by stage, as in delta=0.4,0.6;gamma=0.1,0.5; the protocol's if not given.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Output folder; runs/<name of DATA> if not given.", show_default=False)
    ] = None,
) -> None:
    """Sweep the parameters of a loss: each is fixed at its best before the next.

    The best is chosen by the cases that choose the epochs, never by those tested on. `--protocol
    generalised-focal/tuning` is the papers' sweep. The same command again continues what was interrupted.
    """
    from rich.console import Console

    from unifocal.lab.errors import LabError
    from unifocal.lab.protocols import load
    from unifocal.lab.tuning import parse_sweep

    if sweep is None:
        sweep = load(settings.protocol).sweep_text if settings.protocol else ""
        if not sweep:
            raise LabError(
                "expected something to sweep; got neither --sweep nor a protocol that has one. "
                "Example: --sweep 'delta=0.4,0.6,0.8;gamma=0.1,0.5', or --protocol generalised-focal/tuning"
            )
    stages = parse_sweep(sweep)
    shown, errors = Console(), Console(stderr=True)
    with interruptible(errors):
        (dataset,) = read_folders([data], settings, errors)

        from unifocal.lab.progress import choose_watcher
        from unifocal.lab.tuning import tune as sweep_all

        folder = out or Path("runs") / dataset.name
        tuning = sweep_all(dataset, settings, stages, folder, choose_watcher(errors))
    _print(tuning, shown, folder)
    if tuning.failures:
        raise typer.Exit(1)


def _print(tuning: "Tuning", console: object, folder: Path) -> None:
    from unifocal.lab.commands.tables import plain, print_table

    def score(mean: float, half: float) -> str:
        if mean != mean:
            return "–"
        return f"{mean:.3f}" if half != half else f"{mean:.3f} ± {half:.3f}"

    rows = [
        (
            plain(f"{row.parameter} = {row.value}"),
            score(row.validation, row.validation_half_width),
            score(row.test, row.test_half_width),
            "[bold]chosen[/bold]" if row.chosen else "",
        )
        for row in tuning.table.itertuples()
    ]
    print_table(("value", "DSC, validation", "DSC, test", ""), rows)
    print(f"best: {tuning.best.label}\ntable: {folder / 'tuning.csv'}")
