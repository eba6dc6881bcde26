"""`unifocal tune`: the parameters of a loss, one after the other, or a free search over losses and parameters."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unifocal.lab.commands.options import Data, with_settings
from unifocal.lab.commands.running import interruptible, read_folders
from unifocal.lab.settings import SECTIONS, Settings

if TYPE_CHECKING:
    from rich.console import Console

    from unifocal.lab.tuning.search import Search
    from unifocal.lab.tuning.sweep import Tuning

LOSS = "unified-focal"  # that is swept if none is given
TRIALS = 30


@with_settings(*SECTIONS, proposed=True, losses=LOSS)
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
    search: Annotated[
        str | None,
        typer.Option(
            metavar="<loss:name=low..high,...>",
            help="Losses and ranges to search freely, as in unified-focal:gamma=0.1..0.9,dice; gamma=0.1..10:log for "
            "a logarithmic scale, order=paper/scalar for a choice. A loss alone has ranges of its own.",
            show_default=False,
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help=f"Of a search, on each fold; {TRIALS} if not given.", show_default=False)
    ] = None,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune/--no-prune", help="Of a search: cut short what lags behind half of the trials before it."
        ),
    ] = True,
    out: Annotated[
        Path | None, typer.Option(help="Output folder; runs/<name of DATA> if not given.", show_default=False)
    ] = None,
) -> None:
    """Tune a loss: sweep its parameters one after the other, or search losses and parameters freely.

    A sweep fixes each parameter at its best before the next. `--protocol generalised-focal/tuning` is the papers'.
    A search is one by Optuna on each fold, whose first trials are the losses at their defaults.
    Both choose by the cases that choose the epochs, and end in a recommendation, whether the data can tell it from
    others, and the line that would confirm it. A search also says what it gained on cases that chose nothing; a sweep
    chooses for all folds together, which leaves few such cases or none.
    The same command again continues what was interrupted; with more --trials a search goes on further.
    """
    from rich.console import Console

    from unifocal.lab.errors import LabError

    if sweep is not None and search is not None:
        raise LabError("expected a sweep or a search; got both. Leave out --sweep or --search.")
    if search is None and (trials is not None or not prune):
        what = "--trials" if trials is not None else "--no-prune"
        raise LabError(f"expected {what} with --search; got none. A sweep tries every value, each to its end.")
    folder = out or Path("runs") / data.expanduser().resolve().name
    shown, errors = Console(), Console(stderr=True)
    if search is None:
        _sweep(settings, data, sweep, folder, shown, errors)
        return
    from unifocal.lab.tuning.space import parse_space

    if settings.protocol is None and [loss.label for loss in settings.losses] != [LOSS]:
        raise LabError("expected the losses of a search in --search; got --losses, too. Leave one of them out.")
    space = parse_space(search)
    with interruptible(errors):
        (dataset,) = read_folders([data], settings.model_copy(update={"losses": space.bases}), errors)

        from unifocal.lab.progress import choose_watcher
        from unifocal.lab.tuning.search import search as search_all

        found = search_all(dataset, settings, space, trials or TRIALS, folder, choose_watcher(errors), prune)
    _print_search(found, shown, folder)
    if found.failures:
        raise typer.Exit(1)


def _sweep(
    settings: Settings, data: Path, sweep: str | None, folder: Path, shown: "Console", errors: "Console"
) -> None:
    from unifocal.lab.errors import LabError
    from unifocal.lab.protocols import load
    from unifocal.lab.tuning.sweep import parse_sweep

    if sweep is None:
        sweep = load(settings.protocol).sweep_text if settings.protocol else ""
        if not sweep:
            raise LabError(
                "expected something to tune; got neither --search, nor --sweep, nor a protocol that has a sweep. "
                "Example: --search unified-focal, --sweep 'delta=0.4,0.6,0.8;gamma=0.1,0.5', or "
                "--protocol generalised-focal/tuning"
            )
    stages = parse_sweep(sweep)
    with interruptible(errors):
        (dataset,) = read_folders([data], settings, errors)

        from unifocal.lab.progress import choose_watcher
        from unifocal.lab.tuning.sweep import tune as sweep_all

        tuning = sweep_all(dataset, settings, stages, folder, choose_watcher(errors))
    _print_sweep(tuning, shown, folder)
    if tuning.failures:
        raise typer.Exit(1)


def _print_sweep(tuning: "Tuning", console: "Console", folder: Path) -> None:
    from unifocal.lab.commands.tables import plain, print_table, say
    from unifocal.lab.tuning.recommendation import HEADINGS, rows_of

    print_table(HEADINGS, [[plain(cell) for cell in row] for row in rows_of(tuning.table)])
    for line in (*tuning.found.lines, *(f"failed: {failure}" for failure in tuning.failures)):
        say(console, line)
    say(console, f"table:   {folder / 'tuning.csv'}\nsummary: {folder / 'summary.md'}")


def _print_search(found: "Search", console: "Console", folder: Path) -> None:
    from unifocal.lab.commands.tables import plain, print_table, say
    from unifocal.lab.tuning.words import HEADINGS, lines, rows

    if found.judgement:
        print_table(HEADINGS, [[plain(cell) for cell in row] for row in rows(found.judgement)])
        for line in lines(found.judgement, folder):
            say(console, line)
    for title, reason in found.failures:
        say(console, f"failed: {title}: {reason}")
    if found.judgement:
        say(console, f"table:   {folder / 'search.csv'}\nsummary: {folder / 'search.md'}")
