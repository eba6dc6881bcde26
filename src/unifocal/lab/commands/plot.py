"""`unifocal plot`: figures of the losses themselves."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from unifocal.lab.plots.writing import Plot

plot = typer.Typer(
    no_args_is_help=True,
    help="Draw the losses themselves: their curves, their gradients, and which becomes which.",
)
Losses = Annotated[
    str | None,
    typer.Option(
        metavar="<name,...>",
        help="Losses, as in focal,unified-focal:gamma=0.2:delta=0.7 (`unifocal losses`). If not given, five of the "
        "family; with --gamma or --delta, the two parts of unified-focal, as in the paper's figure 2.",
        show_default=False,
    ),
]
Gamma = Annotated[
    str | None,
    typer.Option(
        metavar="<number,...>",
        help="Values of gamma for every loss, a curve for each; then every loss has panels of its own.",
        show_default=False,
    ),
]
Delta = Annotated[
    str | None,
    typer.Option(
        metavar="<number,...>",
        help="Values of delta; with --gamma every pair is a curve. What delta does to a loss of regions shows at a "
        "--share other than 0.5, where false alarms and misses balance.",
        show_default=False,
    ),
]
Share = Annotated[float, typer.Option(metavar="<number>", help="How much of the image is lesion, as 0.01.")]
Out = Annotated[
    Path,
    typer.Option(metavar="<file>", help="Where to: .svg, .pdf or .png; made for a column of 3.5 inches."),
]


@plot.command()
def curves(
    losses: Losses = None, gamma: Gamma = None, delta: Delta = None, share: Share = 0.5, out: Out = Path("curves.svg")
) -> None:
    """Draw losses over p_t, the probability of the true class, for lesion and background.

    All voxels of an image have the same p_t. If half of them are lesion, the Tversky index is p_t as well.

    Example: unifocal plot curves --gamma 0,0.2,0.5,0.8 --out figure2.pdf
    """
    _curves("curves", losses, gamma, delta, share, out)


@plot.command()
def gradient(
    losses: Losses = None, gamma: Gamma = None, delta: Delta = None, share: Share = 0.5, out: Out = Path("gradient.svg")
) -> None:
    """Draw how hard a loss pulls on the logit of a voxel, over p_t: what it suppresses, and where it vanishes.

    Example: unifocal plot gradient --losses cross-entropy,dice,unified-focal --share 0.01 --out gradient.png
    """
    _curves("gradient", losses, gamma, delta, share, out)


@plot.command()
def family(out: Out = Path("family.svg")) -> None:
    """Draw which loss becomes which with which parameters, and what is said to and does not.

    Every arrow is verified by the losses themselves while it is drawn. docs/figures.md has the reasons.
    """
    from unifocal.lab.plots.writing import check_ending

    check_ending(out)

    from unifocal.lab.plots.family import draw_family

    _write(draw_family(), out)


def _curves(quantity: str, losses: str | None, gamma: str | None, delta: str | None, share: float, out: Path) -> None:
    from unifocal.lab.plots.rows import make_rows
    from unifocal.lab.plots.writing import check_ending

    check_ending(out)
    rows = make_rows(losses, gamma, delta)

    from unifocal.lab.plots.curves import QUANTITIES, draw_curves

    _write(draw_curves(rows, QUANTITIES[quantity], share), out)


def _write(figure: "Plot", out: Path) -> None:
    from rich.console import Console

    from unifocal.lab.commands.tables import say
    from unifocal.lab.plots.writing import write_plot

    out = out.expanduser()
    write_plot(figure, out)
    console = Console()
    say(console, f"figure: {out}")
    console.print(figure.caption, markup=False, highlight=False)
