"""The command: help without torch, mistakes told in words, and the front door from end to end."""

import json
import subprocess
import sys

import pytest
from tiny import write_data

from unifocal.lab import cli
from unifocal.lab.commands import demo
from unifocal.lab.commands.losses import described
from unifocal.lab.metrics import METRICS
from unifocal.lab.results import read_table

TINY = "--folds 2 --epochs 1 --size 32 --width 4 --batch-size 4 --threads 1 --device cpu".split()


def run(*arguments):
    """Exit code of the command line."""
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code or 0
    return 0


def test_importing_the_command_imports_nothing_heavy():
    heavy = ("torch", "lightning", "monai", "pandas")
    code = f"import sys, unifocal.lab.cli; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["compare", "--help"], ["describe", "--help"], ["evaluate", "--help"], ["demo", "--help"]]
)
def test_help(arguments, capsys):
    assert run(*arguments) == 0
    assert "Usage" in capsys.readouterr().out


def test_losses_prints_the_family_with_equation_and_paper(capsys, monkeypatch):
    import unifocal

    monkeypatch.setenv("COLUMNS", "200")
    assert run("losses") == 0
    out = capsys.readouterr().out
    assert all(name in out for name in unifocal.available())
    assert "L = mean_c (1 - DSC_c)" in out and "Salehi" in out


def test_every_loss_has_its_equation_and_its_source():
    import unifocal

    for name in unifocal.available():
        what, equation, source = described(type(unifocal.build(name)).__doc__ or "")
        assert what and equation.startswith("L =") and source, name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--losses", "dice,unifed-focal"], "unified-focal"),
        (["--losses", "tversky:dleta=0.3"], "delta"),
        (["--losses", "tversky:delta=3"], "delta"),
        (["--losses", ","], "at least one name"),
        (["--folds", "1"], "folds"),
        (["--folds", "13"], "13"),
        (["--validation", "2"], "validation"),
        (["--layout", "voc"], "layout"),
        (["--format", "bussi"], "Did you mean 'busi'"),
        (["--device", "tpu"], "device"),
        (["--groups", "nowhere.csv"], "nowhere.csv"),
        (["--speed", "9"], "--speed"),
    ],
)
def test_mistakes_end_with_their_text_and_code_2(tmp_path, capsys, options, message):
    data = write_data(tmp_path / "data")
    code = run("compare", data, *TINY, "--out", tmp_path / "out", *options)
    err = capsys.readouterr().err
    assert code == 2 and message in err and "Traceback" not in err
    assert not list(tmp_path.glob("out/runs/*"))


@pytest.mark.parametrize("folder", ["missing", "empty", "data/images/0.png"])
def test_a_folder_that_is_no_data_set(tmp_path, capsys, folder):
    write_data(tmp_path / "data")
    (tmp_path / "empty").mkdir()
    for arguments in (
        ["compare", tmp_path / folder, *TINY, "--out", tmp_path / "out"],
        ["describe", tmp_path / folder],
    ):
        assert run(*arguments) == 2
        err = capsys.readouterr().err
        assert folder in err and "Traceback" not in err


def test_compare_from_end_to_end(tmp_path, capsys, monkeypatch):
    data, out = write_data(tmp_path / "data"), tmp_path / "out"
    monkeypatch.setenv("COLUMNS", "80")
    losses = "dice,unified-focal:gamma=0.2:delta=0.7"
    assert run("compare", data, *TINY, "--losses", losses, "--out", out) == 0
    printed = capsys.readouterr()
    for name in ("results.csv", "summary.md", "report.html", "contours.png"):
        assert str(out / name) in printed.out and (out / name).exists()
    assert set(read_table(out / "results.csv")["loss"]) == {"dice", "unified-focal:delta=0.7:gamma=0.2"}
    assert "dice" in printed.out and "DSC" in printed.out
    # Plain lines without a terminal: one per run.
    assert sum(line.startswith("[") for line in printed.err.splitlines()) == 4
    assert printed.err.count("GPU available") == 0

    # The command in the summary is the same comparison: nothing is left to run.
    import shlex

    [line] = [line for line in (out / "summary.md").read_text().splitlines() if line.startswith("unifocal compare")]
    assert run(*shlex.split(line)[1:]) == 0
    assert "4 of them finished earlier" in capsys.readouterr().err


def test_a_failed_run_gives_exit_code_1(tmp_path, capsys, monkeypatch):
    from unifocal.lab import cells

    def fail(*_):
        raise MemoryError("no room")

    monkeypatch.setattr(cells, "execute", fail)
    assert run("compare", write_data(tmp_path / "data"), *TINY, "--losses", "dice", "--out", tmp_path / "out") == 1
    assert "out of memory" in capsys.readouterr().out


def test_ctrl_c_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    from unifocal.lab import cells

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cells, "execute", stop)
    assert run("compare", write_data(tmp_path / "data"), *TINY, "--losses", "dice", "--out", tmp_path / "out") == 130
    assert "same command" in capsys.readouterr().err
    assert not (tmp_path / "out/lock.json").exists()


def test_describe(tmp_path, capsys):
    data = write_data(tmp_path / "data")
    assert run("describe", data, "--json") == 0
    description = json.loads(capsys.readouterr().out)
    assert description["cases"] == 12 and description["empty"] == 1
    assert run("describe", data) == 0
    assert "12" in capsys.readouterr().out


def test_layouts_prints_each_by_name(capsys, monkeypatch):
    from unifocal.lab.data.layouts import LAYOUTS

    monkeypatch.setenv("COLUMNS", "200")
    assert run("layouts") == 0
    out = capsys.readouterr().out
    assert all(name in out for name in LAYOUTS)


@pytest.mark.slow
def test_the_demo_is_the_same_comparison_on_made_up_images(tmp_path, monkeypatch):
    """The wiring only; that the networks learn is the business of `make demo`."""
    monkeypatch.setattr(demo, "CASES", 9)
    monkeypatch.setattr(demo, "SETTINGS", demo.SETTINGS | {"folds": 2, "epochs": 1, "size": 32, "width": 4})
    assert run("demo", "--out", tmp_path / "demo") == 0
    assert len(read_table(tmp_path / "demo/results.csv")) == 3 * 9 * len(METRICS)
    assert (tmp_path / "demo/contours.png").exists()


def test_an_output_folder_that_cannot_be_made_is_told_without_a_traceback(tmp_path, capsys):
    data = write_data(tmp_path / "data")
    (tmp_path / "file").write_text("in the way")
    assert run("compare", data, *TINY, "--out", tmp_path / "file") == 2
    err = capsys.readouterr().err
    assert "file" in err and "same command" in err and "Traceback" not in err


@pytest.mark.slow
def test_home_is_expanded(tmp_path, capsys, monkeypatch):
    write_data(tmp_path / "data")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run("compare", "~/data", *TINY, "--losses", "dice", "--out", tmp_path / "out") == 0
