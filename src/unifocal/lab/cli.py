"""The command `unifocal`: its commands, and how mistakes end.

Nothing heavy is imported before a command runs, so that `--help` answers at once.
"""

import os
import sys
from collections.abc import Sequence

import typer

from unifocal.lab.commands.compare import compare
from unifocal.lab.commands.demo import demo
from unifocal.lab.commands.describe import describe
from unifocal.lab.commands.engines import engines
from unifocal.lab.commands.evaluate import evaluate
from unifocal.lab.commands.layouts import layouts
from unifocal.lab.commands.losses import losses
from unifocal.lab.commands.networks import networks
from unifocal.lab.commands.plan import plan
from unifocal.lab.commands.plot import plot
from unifocal.lab.commands.predict import predict
from unifocal.lab.commands.protocols import protocols
from unifocal.lab.commands.report import report
from unifocal.lab.commands.status import status
from unifocal.lab.commands.train import train
from unifocal.lab.commands.tune import tune
from unifocal.lab.errors import LabError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Losses for class-imbalanced medical image segmentation, compared on your own images.",
    # --batch_size is --batch-size, for every option of every command
    context_settings={"token_normalize_func": lambda word: word.replace("_", "-")},
)
COMMANDS = (
    *(compare, train, tune, plan, status, report, predict, evaluate, demo),
    *(describe, protocols, losses, networks, layouts, engines),
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(plot, name="plot")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; mistakes of the user end with their text and exit code 2.

    Idle threads of the CPU spin for a moment only and then sleep. Spinning on, GNU OpenMP's default, saves a fifth of
    the time of the smallest networks on idle cores, and makes training many times slower on cores that are shared.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # read when torch is loaded, which is later
    try:
        app(args=None if arguments is None else list(arguments))
    except LabError as error:
        print(f"unifocal: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        print(
            f"unifocal: {error.strerror or error}{where}\n"
            "Is the folder writable, and the disk not full? What was finished is kept: mend it, and the same command "
            "goes on from there.",
            file=sys.stderr,
        )
        sys.exit(2)
