"""Writing a checkpoint: whatever kills it, and whichever file is damaged then, a whole epoch is left."""

import shutil
from pathlib import Path

import pytest
import torch

from unifocal.lab.storage import remove_parts
from unifocal.lab.training.checkpoints import LAST, NEXT, PREVIOUS, Checkpoints, remove_checkpoints
from unifocal.lab.training.fit import usable_checkpoint

SAVE, NAME, KEEP, END = (
    "in the middle of the file",
    "before it has a name",
    "before the last is the previous",
    "at last",
)


class Killed(BaseException):
    pass


def write(folder, *epochs):
    """Checkpoints of so many epochs, one after the other."""
    for n in epochs:
        writer = Checkpoints()
        writer.save_checkpoint({"history": [{"epoch": i} for i in range(n)]}, folder / LAST)
        writer.teardown()


def epochs_of(folder):
    return len(usable_checkpoint(folder)[1])


def kill(monkeypatch, moment):
    """Let the next write end there, with no chance to tidy up."""
    replace, number = Path.replace, [NAME, KEEP, END]

    def cut_short(checkpoint, part):
        part.write_bytes(b"PK")
        raise Killed

    def renamed(path, target):
        if number.pop(0) == moment:
            raise Killed
        return replace(path, target)

    if moment == SAVE:
        monkeypatch.setattr(torch, "save", cut_short)
    monkeypatch.setattr(Path, "replace", renamed)
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: None)


@pytest.mark.parametrize(("moment", "done"), [(SAVE, 2), (NAME, 2), (KEEP, 3), (END, 3), (None, 3)])
def test_a_kill_while_a_checkpoint_is_written_leaves_two_whole_epochs(tmp_path, monkeypatch, moment, done):
    out = tmp_path / "run"
    out.mkdir()
    write(out, 1, 2)
    with monkeypatch.context() as patch:
        if moment is not None:
            kill(patch, moment)
            with pytest.raises(Killed):
                write(out, 3)
        else:
            write(out, 3)
    assert bool(list(out.glob("*.part"))) == (moment in (SAVE, NAME))
    remove_parts(out)
    for damaged in [None, *(path.name for path in out.iterdir())]:
        copy = tmp_path / f"without {damaged}"
        shutil.copytree(out, copy)
        if damaged is not None:
            (copy / damaged).write_bytes(b"damage")
        found = epochs_of(copy)
        assert found == done if damaged is None else found >= done - 1
        write(copy, found + 1, found + 2)
        assert not (copy / NEXT).exists()
        (copy / LAST).write_bytes(b"damage")
        assert epochs_of(copy) == found + 1


def test_damage_in_place_hits_one_epoch_only(tmp_path):
    write(tmp_path, 1, 2)
    assert not (tmp_path / LAST).samefile(tmp_path / PREVIOUS)
    (tmp_path / LAST).write_bytes(b"damage")
    assert epochs_of(tmp_path) == 1
    write(tmp_path, 2)
    assert epochs_of(tmp_path) == 2 and (tmp_path / PREVIOUS).exists()


def test_a_disk_that_fills_up_keeps_both_and_says_so(tmp_path, monkeypatch):
    write(tmp_path, 1, 2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(checkpoint, part):
        part.write_bytes(b"PK")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, 3)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_none_is_left_of_a_run_that_ended(tmp_path):
    write(tmp_path, 1, 2)
    shutil.copy(tmp_path / LAST, tmp_path / NEXT)
    remove_checkpoints(tmp_path)
    assert not list(tmp_path.iterdir())
