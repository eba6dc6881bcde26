"""Every setting is an option; layers meet in one `Settings`; help loads nothing heavy."""

import subprocess
import sys

import pytest
import typer
from other_values import BESIDE, OTHERS

from unifocal.lab import cli
from unifocal.lab.commands import compare, train
from unifocal.lab.commands.options import with_settings
from unifocal.lab.configuration import option_of, settings_from
from unifocal.lab.settings import SECTIONS, Settings, make_settings, names_of

HEAVY = ("torch", "lightning", "monai", "pandas", "numpy", "scipy", "matplotlib")


@pytest.fixture
def asked(monkeypatch):
    """What compare and train were asked for: a list of (folders, settings, out)."""
    calls = []
    for module in (compare, train):
        monkeypatch.setattr(module, "compare_aloud", lambda *call: calls.append(call))
    return calls


def run(*arguments):
    """Exit code of the command line."""
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code or 0
    return 0


def settings_of(asked, *arguments):
    assert run("compare", "DATA", *arguments) == 0
    return asked.pop()[1]


def test_without_options_the_settings_are_the_defaults(asked):
    assert settings_of(asked) == Settings()


FLAGS = [name for name, field in Settings.model_fields.items() if field.annotation is bool]


@pytest.mark.parametrize("name", [name for name in Settings.model_fields if name not in FLAGS])
def test_every_setting_is_an_option(asked, name):
    beside = BESIDE.get(name, {})
    more = [f"{option_of(key)}={value}" for key, value in beside.items()]
    expected = settings_from({name: OTHERS[name]} | beside)
    assert settings_of(asked, *more, option_of(name), OTHERS[name]) == expected
    assert settings_of(asked, *more, f"--{name}={OTHERS[name]}") == expected  # with underscores, too
    assert settings_of(asked, *more, "--set", f"{name}={OTHERS[name]}") == expected


@pytest.mark.parametrize("name", FLAGS)
@pytest.mark.parametrize("value", [True, False])
def test_every_flag_has_its_opposite(asked, name, value):
    option = option_of(name)
    flag = option if value else f"--no-{option[2:]}"
    assert settings_of(asked, flag) == make_settings(**{name: value})
    assert settings_of(asked, "--set", f"{name}={value}") == make_settings(**{name: value})


OLD = """--losses dice,focal --folds 3 --epochs 2 --seed 4 --size 64 --width 8 --batch-size 4 --learning-rate 0.02
    --validation 0.3 --groups g.csv --format busi --device cpu --threads 1 --no-augment"""


def test_the_old_spellings(asked):
    settings = settings_of(asked, *OLD.split())
    assert settings == make_settings(
        losses="dice,focal", folds=3, epochs=2, seeds=(4,), size=(64,), width=8, batch_size=4, learning_rate=0.02,
        validation=0.3, groups="g.csv", layout="busi", device="cpu", threads=1, augment=False,
    )  # fmt: skip


def test_layers_from_the_command_line(asked, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("protocol: generalised-focal/kits19\nepochs: 7\nfolds: 3\n")
    settings = settings_of(asked, "--config", file, "--folds", "4", "--set", "batch_size=3", "--set", "workers=2")
    assert (settings.epochs, settings.folds, settings.batch_size, settings.workers) == (7, 4, 3, 2)
    assert settings.spacing == (3.22, 1.62, 1.62)
    assert settings_of(asked, "--protocol", "a-fl/picai").learning_rate == 0.1
    # An option with its default's value is given, too.
    assert settings_of(asked, "--protocol", "a-fl/picai", "--learning-rate", "0.01").learning_rate == 0.01


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--epoch", "3"], ["--epochs"]),
        (["--patch-overlp", "0.3"], ["--patch-overlap"]),
        (["--epochs", "3", "--set", "epochs=4"], ["--epochs and --set epochs"]),
        (["--set", "epoch=3"], ["  --set epoch: there is no such setting", "Did you mean 'epochs'"]),
        (["--set", "epochs"], ["name=value"]),
        (["--epochs", "many"], ["--epochs: expected a whole number", "got 'many'"]),
        (["--config", "nowhere.yaml"], ["nowhere.yaml cannot be read"]),
        (["--protocol", "kits19"], ["expected a protocol"]),
        (
            ["--protocol", "a-fl/picai", "--spacing", "1,1,1"],
            ["size from protocol a-fl/picai", "spacing from --spacing"],
        ),
    ],
)
def test_mistakes_are_told_with_the_nearest_word(asked, capsys, options, parts):
    assert run("compare", "DATA", *options) == 2
    error = capsys.readouterr().err
    assert all(part in error for part in parts), error
    assert not asked and "Traceback" not in error


def test_compare_takes_several_folders(asked, tmp_path):
    assert run("compare", tmp_path / "a", tmp_path / "b") == 0
    folders, _, out = asked.pop()
    assert folders == [tmp_path / "a", tmp_path / "b"] and str(out) == "runs/a-b"
    assert run("compare", tmp_path / "a", "--out", tmp_path / "out") == 0
    assert asked.pop()[2] == tmp_path / "out"
    assert run("compare") == 2


def test_a_fl_s_own_command_line(asked):
    """python main.py --data_dir "./PICAI_dataset/" --model_dir "./picai/trained_model/" --epochs 200"""
    own = "--data_dir ./PICAI_dataset/ --model_dir ./picai/trained_model/ --epochs 200".split()
    assert run("train", *own, "--protocol", "a-fl/picai") == 0
    [folder], settings, out = asked.pop()
    assert (str(folder), str(out), settings.epochs) == ("PICAI_dataset", "picai/trained_model", 200)
    assert [loss.label for loss in settings.losses] == ["adaptive-focal:order=original"]
    assert settings.division == "published"


def test_train_has_defaults_of_its_own(asked):
    assert run("train", "DATA") == 0
    _, settings, out = asked.pop()
    assert [loss.label for loss in settings.losses] == ["unified-focal"] and settings.division == "whole"
    assert str(out) == "runs/DATA"
    assert run("train", "DATA", "--protocol", "generalised-focal/kits19", "--losses", "dice") == 0
    settings = asked.pop()[1]
    assert [loss.label for loss in settings.losses] == ["dice"] and settings.division == "whole"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "got none"),
        (["A", "--data-dir", "B"], "A and B"),
        (["A", "--losses", "dice,focal"], "--losses focal; got 2 losses"),
        (["A", "--networks", "unet,vnet"], "--networks vnet; got 2 networks"),
    ],
)
def test_train_takes_one_of_each(asked, capsys, arguments, part):
    assert run("train", *arguments) == 2
    assert part in capsys.readouterr().err and not asked


def test_a_command_shows_the_sections_it_names_and_takes_the_others_by_set(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    app, seen = typer.Typer(), []

    @app.command()
    @with_settings("Patches", "Machine", workers="3")
    def only(settings: Settings, data: str) -> None:
        seen.append((settings, data))

    def call(*arguments):
        with pytest.raises(SystemExit) as stop:
            app(list(arguments))
        return stop.value.code

    assert call("here", "--patch", "8,8", "--set", "epochs=3") == 0
    assert seen == [(make_settings(patch=(8, 8), epochs=3, workers=3), "here")]
    assert call("here", "--epochs", "3") == 2
    capsys.readouterr()
    assert call("--help") == 0
    shown = capsys.readouterr().out
    listed = {name for name in Settings.model_fields if f" {option_of(name)} " in shown}
    assert listed == {"protocol", *names_of("Patches"), *names_of("Machine")}
    assert "[default: 3]" in shown


@pytest.mark.parametrize("command", ["compare", "train"])
def test_help_has_common_options_first_and_every_setting(capsys, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "200")
    assert run(command, "--help") == 0
    shown = capsys.readouterr().out
    order = [shown.index(f"─ {panel} ─") for panel in ("Options", *SECTIONS)]
    assert order == sorted(order)
    assert shown.index("--out") < shown.index("--protocol") < shown.index("--config") < shown.index("─ Comparison ─")
    for name, field in Settings.model_fields.items():
        assert option_of(name) in shown
        assert (field.description or "")[:60] in shown  # the rest may stand on the next line


def test_every_command_s_help_loads_nothing_heavy():
    """Half a second is the aim: what is loaded decides it, and can be asserted on any machine."""
    names = [[command.callback.__name__] for command in cli.app.registered_commands if command.callback]
    names += [["plot", figure] for figure in ("curves", "gradient", "family")]
    code = f"""
import sys
from unifocal.lab.cli import main
for name in [[], *{names}]:
    try:
        main([*name, "--help"])
    except SystemExit as stop:
        assert not stop.code, stop.code
print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stderr.strip() == "[]"
    assert found.stdout.count("Usage") == len(names) + 1
