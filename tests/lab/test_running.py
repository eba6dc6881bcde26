"""What `compare` does around a comparison: reading, telling, leaving. The comparison itself is a stand-in here."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from rich.table import Table
from test_options import run

from unifocal.lab.errors import Terminated

FAILURE = SimpleNamespace(run=SimpleNamespace(title="dice, fold 0"), failure="out of memory [no room]")


@pytest.fixture
def folders(tmp_path):
    made = [tmp_path / name for name in ("first", "second")]
    for folder in made:
        for part, value in (("images", 100), ("masks", 255)):
            (folder / part).mkdir(parents=True)
            for i in range(2):
                picture = np.zeros((32, 40), np.uint8)
                picture[4 : 12 + i, 6:20] = value
                Image.fromarray(picture).save(folder / part / f"{i}.png")
    return made


@pytest.fixture
def stand_in(monkeypatch):
    """A comparison that notes what it is asked, and does `end` if there is one."""
    asked = SimpleNamespace(calls=[], failures=[], end=None)

    def compare(datasets, settings, out, watcher):
        asked.calls.append((datasets, settings, out))
        if asked.end:
            raise asked.end
        Path(out).mkdir()
        (out / "results.csv").touch()
        experiments = [SimpleNamespace(folder=out)]
        return SimpleNamespace(out=out, experiments=experiments, failures=asked.failures, is_tested=True)

    comparison, report = ModuleType("unifocal.lab.comparison"), ModuleType("unifocal.lab.report")
    vars(comparison).update(compare=compare)
    vars(report).update(
        PAGE="report.html",
        PICTURE="contours.png",
        terminal_tables=lambda _: [Table("DSC", title="first, lesion")],
        write_report=lambda folder, track: (folder / "report.html").touch(),
    )
    for module in (comparison, report):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return asked


def test_the_data_sets_are_read_and_what_was_written_is_told(folders, stand_in, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("compare", *folders, "--layout", "plain", "--losses", "dice", "--out", out) == 0
    [(datasets, settings, where)] = stand_in.calls
    assert [(dataset.name, len(dataset.cases)) for dataset in datasets] == [("first", 2), ("second", 2)]
    assert datasets[0].facts  # every file was looked at
    assert [loss.label for loss in settings.losses] == ["dice"] and where == out
    printed = capsys.readouterr().out
    assert "DSC" in printed and f"table:   {out / 'results.csv'}" in printed
    assert f"report:  {out / 'report.html'}" in printed and "summary" not in printed  # was not written


def test_a_failed_run_is_told_and_gives_code_1(folders, stand_in, tmp_path, capsys):
    stand_in.failures = [FAILURE]
    assert run("compare", folders[0], "--out", tmp_path / "out") == 1
    assert "failed: dice, fold 0: out of memory [no room]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("end", "code", "word"), [(KeyboardInterrupt(), 130, "Stopped."), (Terminated(), 143, "Terminated.")]
)
def test_an_interrupt_says_how_to_go_on(folders, stand_in, tmp_path, capsys, end, code, word):
    stand_in.end = end
    assert run("compare", folders[0], "--out", tmp_path / "out") == code
    error = capsys.readouterr().err
    assert word in error and "same command" in error


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--groups", "groups.csv"], "one DATA with --groups"),
        (["--splits", "splits.json"], "one DATA with --splits"),
        (["--losses", "dice,unifed-focal"], "unified-focal"),
        (["--losses", "tversky:dleta=0.3"], "delta"),
        (["--format", "bussi"], "Did you mean 'busi'"),
    ],
)
def test_mistakes_are_told_before_any_file_is_opened(folders, stand_in, capsys, options, part):
    (folders[1] / "images/0.png").write_bytes(b"broken")
    assert run("compare", *folders, *options) == 2
    error = capsys.readouterr().err
    assert part in error and "Traceback" not in error and not stand_in.calls
    assert run("compare", *folders) == 2  # and without them the file is told
    assert "second" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--patch", "4"], "patch is 4 x 4. Make it larger"),
        (["--crop", "4", "--size", "64"], "crop is 4 x 4. Make it larger"),
        (["--patch", "32,32,32"], "patch: expected one number, or 2"),
        (["--networks", "segresnet:width=12"], "width as a whole number from 8 up"),
        (["--width", "3", "--networks", "attention-unet"], "a multiple of 2; got 3"),
        (["--networks", "unett"], "Did you mean 'unet'"),
        (["--spacing", "1"], "spacing: expected volumes"),
    ],
)
def test_what_a_network_cannot_take_is_told_without_torch(folders, monkeypatch, capsys, options, part):
    (folders[0] / "images/0.png").write_bytes(b"broken")  # is not opened
    for name in ("unifocal.lab.comparison", "unifocal.lab.preparation", "torch", "monai", "lightning"):
        monkeypatch.setitem(sys.modules, name, None)  # cannot be imported
    assert run("compare", *folders, *options) == 2
    assert part in capsys.readouterr().err


def test_a_folder_that_is_none(stand_in, tmp_path, capsys):
    assert run("compare", tmp_path / "nowhere") == 2
    assert "nowhere is none" in capsys.readouterr().err


def test_home_is_expanded(folders, stand_in, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run("compare", "~/first", "--out", tmp_path / "out") == 0
    assert stand_in.calls[0][0][0].root == folders[0].resolve()


def test_a_case_that_is_excluded_is_not_checked(folders, stand_in, tmp_path, capsys):
    (folders[0] / "masks/1.png").write_bytes(b"broken")
    assert run("compare", folders[0], "--out", tmp_path / "out") == 2
    assert "masks/1.png is damaged" in capsys.readouterr().err
    assert run("compare", folders[0], "--exclude", "1", "--out", tmp_path / "out") == 0
    [([dataset], _, _)] = stand_in.calls
    assert [case.id for case in dataset.cases] == ["0"] and dataset.excluded == ("1",)
