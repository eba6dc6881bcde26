"""What commands print: within every window, with nothing cut off, and without escape codes where none are wanted.

The table of `unifocal status` is looked at in `grid/test_grid_status.py`.
"""

import re
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import pandas as pd
import pytest
from rich.console import Console
from rich.table import Table
from test_options import run
from tiny import write_data

from unifocal.lab.choices import LossChoice
from unifocal.lab.commands import plan, running, tune
from unifocal.lab.commands.tables import fitting
from unifocal.lab.metrics import MAIN
from unifocal.lab.planning import Cost
from unifocal.lab.protocols import PROTOCOLS
from unifocal.lab.settings import make_settings
from unifocal.lab.tuning.recommendation import Recommendation
from unifocal.lab.tuning.sweep import Tuning

LONG = "unified-focal:delta=0.7:gamma=0.2"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("terminal") / "data", 3)


def listed(*words):
    assert run(*words[:-1]) == 0  # the data has no part in it


def described(data):
    assert run("describe", data, "--groups", data / "groups.csv") == 0


def evaluated(data):
    assert run("evaluate", data / "masks", data, "--out", data.parent / "measured") == 0


def planned(data):
    costs = [Cost("kidney", "unet", loss, 5, 1, 0.5, 61.0, 7300.0, 2**30) for loss in ("dice", LONG)]
    plan._print([*costs, Cost("kidney", "vnet", "dice", 5, 0, problem="out of memory (no room)")], make_settings())


def tuned(data):
    rows = [("delta", value, 0.71, 0.02, float("nan"), 0.0, value == 0.4) for value in (0.4, 0.6)]
    columns = ["parameter", "value", "validation", "validation_half_width", "test", "test_half_width", "chosen"]
    found = Recommendation(
        LossChoice.parse(LONG), (f"recommended: {LONG}", "The data cannot tell."), "unifocal compare"
    )
    tune._print_sweep(Tuning(pd.DataFrame(rows, columns=columns), found, ()), Console(), data)


def compared(data):
    settings = make_settings(losses=f"dice,{LONG}", folds=2)
    experiment = SimpleNamespace(
        dataset=SimpleNamespace(name="kidney", classes=("background", "tumour")), splits=[0, 1], folder=data
    )
    outcomes = [
        SimpleNamespace(
            run=SimpleNamespace(network=settings.networks[0], loss=loss, title=f"{loss}, fold 0"),
            failure="OSError: no room" if loss.name == "dice" and fold else None,
            experiment=experiment,
        )
        for loss in settings.losses
        for fold in (0, 1)
    ]
    columns = ["dataset", "network", "loss", "fold", "seed", "case", "class", "metric", "value"]
    rows = [
        ("kidney", "unet", loss.label, fold, 0, f"case {fold}", "tumour", metric, 0.5 + 0.125 * fold)
        for loss in settings.losses
        for fold in (0, 1)
        for metric in MAIN
    ]
    comparison = SimpleNamespace(
        settings=settings,
        experiments=[experiment],
        outcomes=outcomes,
        failures=[outcomes[1]],
        cases=pd.DataFrame(rows, columns=columns),
        is_tested=True,
        out=data,
    )
    running._print(comparison, Console())  # type: ignore[arg-type]


COMMANDS: dict[str, Callable[..., object]] = {
    **{name: partial(listed, name) for name in ("losses", "networks", "layouts", "engines", "protocols")},
    **{f"protocols {name}": partial(listed, "protocols", name) for name in PROTOCOLS},
    "describe": described,
    "evaluate": evaluated,
    "plan": planned,
    "tune": tuned,
    "compare": compared,
}


@pytest.fixture
def printed(data, capsys, monkeypatch):
    """What a command prints in a window of so many columns; the data's groups file lies at a long path."""
    (data / "groups.csv").write_text("image,patient\n0,a\n1,a\n2,b\n")

    def run_(command, width, **environment):
        for name in ("NO_COLOR", "FORCE_COLOR", "TERM", "TTY_COMPATIBLE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {"COLUMNS": str(width), **environment}.items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        COMMANDS[command](data)
        return capsys.readouterr().out

    return run_


def words(text):
    """The words in it, without the lines of tables and the colons of paragraphs."""
    return {word.rstrip(":") for word in re.sub("[\u2500-\u257f]", " ", text).split()}


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_is_cut_off_in_a_narrow_window(printed, command):
    wide = printed(command, 1000)
    whole = wide.splitlines()
    for width in (40, 60, 80):
        narrow = printed(command, width)
        assert "\x1b" not in narrow, "this is a pipe"
        # A line that holds a path or such is left to the terminal, so that it can be copied.
        too_long = [line for line in narrow.splitlines() if len(line) > width and line not in whole]
        assert not too_long
        lost = {word for word in words(wide) if len(word) <= width - 2} - words(narrow)
        assert {word for word in lost if word not in LONG} == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_colours_are_left_out_where_they_are_not_wanted(printed, command):
    assert "\x1b" not in printed(command, 60, FORCE_COLOR="1", TERM="dumb")
    plain = printed(command, 60, FORCE_COLOR="1", TERM="xterm-256color", NO_COLOR="1")
    assert not re.search(r"\x1b\[[\d;]*\b(3[0-7]|38|9[0-7]|4[0-7])\b[\d;]*m", plain)


def test_columns_share_the_window_by_what_they_need():
    table = Table("name", "text", "number")
    table.add_row("alpha", "one two three four five six", "0.123")
    console = Console(width=34)
    fitted = fitting(table, console)
    assert isinstance(fitted, Table)
    assert [column.width for column in fitted.columns] == [5, 13, 6]


def test_a_window_that_is_too_narrow_gets_paragraphs(capsys):
    table = Table("name", "text", "")
    table.add_column("number", justify="right")
    table.add_row("[bold]alpha[/bold]", "one two three", "", "0.123\n± 0.2")
    console = Console(width=15)
    console.print(fitting(table, console))
    assert capsys.readouterr().out.splitlines() == [
        "name: alpha",
        "  text: one two",
        "  three",
        "  number: 0.123",
        "  ± 0.2",
    ]
