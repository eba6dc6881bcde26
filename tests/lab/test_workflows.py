"""What people do with the command, from end to end: volumes, other people's images, sweeps, plans, shards."""

import json
import os

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tiny import write_data

from unifocal.lab import cli
from unifocal.lab.report.reading import read_study
from unifocal.lab.results import read_table
from unifocal.lab.storage import write_json

TINY = "--epochs 1 --width 4 --batch-size 4 --threads 1 --device cpu".split()
PICTURES = [*TINY, "--size", "32"]
SPACING = np.diag([2.0, 1.0, 1.0, 1.0])


def run(*arguments):
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code
    return 0


def write_volumes(folder, n=8, parts=("images", "masks"), names="{}", first=0):
    """Noise with a bright block of class 1 and one of class 2, of another size each, two files for each case."""
    rng = np.random.default_rng(first)
    for part in parts:
        (folder / part).mkdir(parents=True, exist_ok=True)
    for i in range(first, first + n):
        shape = (12 + i % 3, 24, 20 + i % 2)
        mask = np.zeros(shape, np.uint8)
        mask[3:8, 4:12, 4:12], mask[4:9, 14:20, 10:16] = 1, 2
        image = rng.integers(0, 60, shape) + 80 * mask
        for part, values, name in zip(parts, (image.astype(np.int16), mask), ("{}", names), strict=True):
            nib.save(nib.Nifti1Image(values, SPACING), folder / part / f"{name.format(f'case{i}')}.nii.gz")
    return folder


def test_volumes_are_compared_by_patches_and_sliding_windows(tmp_path, capsys):
    data, out = write_volumes(tmp_path / "data", n=6), tmp_path / "out"
    options = ["--losses", "dice", "--folds", "2", "--patch", "12,16,24", "--networks", "unet,segresnet:width=8"]
    assert run("compare", data, *TINY, *options, "--out", out) == 0, capsys.readouterr()
    table = read_table(out / "results.csv")
    assert set(table["class"]) == {"class 1", "class 2"} and set(table["network"]) == {"unet", "segresnet:width=8"}
    dsc = table[table["metric"] == "DSC"]
    assert len(dsc) == 2 * 6 * 2 and np.isfinite(dsc["value"]).all()
    [prediction] = out.glob("runs/unet-dice-*/predictions/case0.nii.gz")
    written, truth = (nib.nifti1.load(path) for path in (prediction, data / "masks/case0.nii.gz"))
    assert written.shape == truth.shape and np.array_equal(written.affine, truth.affine)
    assert (out / "contours.png").exists() and "unet, dice" in (out / "summary.md").read_text()


def test_train_predict_evaluate(tmp_path, capsys):
    """A network trained on pictures finds masks for others, and they are measured."""
    data, model, masks = write_data(tmp_path / "data"), tmp_path / "model", tmp_path / "masks"
    assert run("train", data, *PICTURES, "--epochs", 6, "--learning-rate", 0.1, "--losses", "dice", "--out", model) == 0
    capsys.readouterr()
    assert run("predict", model, data / "images", "--out", masks) == 0
    assert "12 masks" in capsys.readouterr().out
    with Image.open(masks / "0.png") as mask:
        assert mask.size == (48, 40) and set(np.unique(np.asarray(mask))) <= {0, 1}
    assert run("evaluate", masks, data, "--out", tmp_path / "measured") == 0
    table = pd.read_csv(tmp_path / "measured/metrics.csv")
    assert len(table[table["metric"] == "DSC"]) == 12
    # What is there is not made again, and masks of another model never join it.
    before = {path: path.stat().st_mtime_ns for path in masks.iterdir()}
    assert run("predict", model, data / "images", "--out", masks) == 0
    assert {path: path.stat().st_mtime_ns for path in masks.glob("*.png")}.items() <= before.items()
    # An image that has been replaced is predicted again, though its file be older.
    old, image = (masks / "0.png").stat().st_mtime_ns, data / "images/0.png"
    Image.new("L", (32, 24)).save(image)
    os.utime(image, (0, 0))
    assert run("predict", model, data / "images", "--out", masks) == 0
    with Image.open(masks / "0.png") as mask:
        assert (masks / "0.png").stat().st_mtime_ns > old and mask.size == (32, 24)
    capsys.readouterr()
    assert run("predict", model, data / "images", "--out", data / "images") == 2
    assert "apart from the images" in capsys.readouterr().err
    for name in ("1.png", "2.png"):
        (data / "images" / name).write_bytes(b"none")
    assert run("predict", model, data / "images", "--out", masks) == 2
    error = capsys.readouterr().err
    assert "1.png" in error and "2.png" in error
    assert (
        run("train", write_data(tmp_path / "others"), *PICTURES, "--losses", "focal", "--out", tmp_path / "other") == 0
    )
    capsys.readouterr()
    assert run("predict", tmp_path / "other", tmp_path / "others/images", "--out", masks) == 2
    assert "those of another" in capsys.readouterr().err


def test_the_command_of_the_a_fl_authors_works_as_they_wrote_it(tmp_path, capsys):
    """Their layout, their spelling, their parts: the second is tested on and chooses nothing."""
    data = tmp_path / "data"
    write_volumes(data, 6, ("TrainImage", "TrainLabel"), "{}_gt")
    write_volumes(data, 3, ("ValidImage", "ValidLabel"), "{}_gt", first=6)
    for part in ("TrainImage", "ValidImage"):  # three sequences, of one grid
        for path in list((data / part).iterdir()):
            for name in ("t2w", "adc", "hbv"):
                (data / part / path.name.replace(".nii.gz", f"_{name}.nii.gz")).write_bytes(path.read_bytes())
            path.unlink()
    for path in data.glob("*Label/*"):
        mask = nib.nifti1.load(path)
        nib.save(nib.Nifti1Image((np.asarray(mask.dataobj) > 0).astype(np.uint8), SPACING), path)
    options = ["--patch", "12,16,24", "--width", 4, "--batch_size", 4, "--losses", "adaptive-focal", "--device", "cpu"]
    options += ["--division", "published", "--threads", 1]
    arguments = ["--data_dir", data, "--model_dir", tmp_path / "model", "--epochs", 1]
    assert run("train", *arguments, *options) == 0, capsys.readouterr()
    table = read_table(tmp_path / "model/results.csv")
    assert set(table["case"]) == {"case6", "case7", "case8"}
    with (tmp_path / "model/folds.json").open() as file:
        [fold] = json.load(file)["folds"]
    assert len(fold["train"]) + len(fold["validation"]) == 6 and fold["validation"]


def test_predict_takes_the_last_training_alone_and_never_masks_of_other_images(tmp_path, capsys):
    data, model, masks = write_data(tmp_path / "data"), tmp_path / "model", tmp_path / "masks"
    for epochs in (1, 2):
        assert run("train", data, *PICTURES, "--epochs", epochs, "--losses", "dice", "--out", model) == 0
    capsys.readouterr()
    assert run("predict", model, data / "images", "--out", masks) == 0
    assert "unet, dice, 1 run\n" in capsys.readouterr().err
    assert json.loads((masks / "prediction.json").read_text())["runs"] == [
        entry["name"] for entry in json.loads((model / "experiment.json").read_text())["runs"]
    ]
    others = write_data(tmp_path / "others")
    assert run("predict", model, others / "images", "--out", masks) == 2
    assert "the same images" in capsys.readouterr().err


@pytest.mark.slow
def test_predict_says_what_there_is_to_choose_from(tmp_path, capsys):
    data, out = write_data(tmp_path / "data"), tmp_path / "out"
    assert run("compare", data, *PICTURES, "--folds", 2, "--losses", "dice,focal", "--out", out) == 0
    capsys.readouterr()
    assert run("predict", out, data / "images", "--out", tmp_path / "masks") == 2
    assert "--network unet --loss focal" in capsys.readouterr().err
    assert run("predict", out, data / "images", "--loss", "focal", "--out", tmp_path / "masks") == 0
    assert "2 runs" in capsys.readouterr().err  # of both folds, averaged
    for folder, says in ((tmp_path / "data", "train"), (tmp_path / "nowhere", "nowhere")):
        assert run("predict", folder, data / "images", "--out", tmp_path / "more") == 2
        assert says in capsys.readouterr().err


@pytest.mark.slow
def test_tune_fixes_each_parameter_at_its_best_on_validation_cases(tmp_path, capsys, monkeypatch):
    data, out = write_data(tmp_path / "data"), tmp_path / "out"
    sweep = ["--losses", "unified-focal:gamma=0", "--sweep", "delta=0.4,0.7;gamma=0.1,0", "--folds", 2]
    planned = []

    def keep(path, record):
        planned.append(record)
        write_json(path, record)

    monkeypatch.setattr("unifocal.lab.comparison.write_json", keep)
    assert run("tune", data, *PICTURES, *sweep, "--out", out) == 0, capsys.readouterr()
    table = pd.read_csv(out / "tuning.csv")
    assert list(table["parameter"]) == ["delta", "delta", "gamma", "gamma"]
    for _, stage in table.groupby("stage"):
        chosen = stage[stage["chosen"]]
        assert len(chosen) == 1 and chosen["validation"].item() == stage["validation"].max()
    first = table[table["chosen"] & (table["stage"] == 1)].iloc[0]
    assert table[table["stage"] == 2]["loss"].str.contains(f"delta={first['value']}").all()
    printed = capsys.readouterr()
    assert f"recommended: {table[table['chosen']].iloc[-1]['loss']}" in printed.out
    assert "4 runs of 1 epoch, 2 of them finished earlier" in printed.err  # gamma was 0 in the first stage
    assert read_study(out).recommended["told"][0] in (out / "summary.md").read_text()
    words = ("--losses", "unified-focal:gamma=0", "--sweep", "delta=0.4,0.7;gamma=0.1,0")
    assert [stage["to_come"] for stage in planned] == ["stage 2 of 2", ""]  # what followers wait for
    assert read_study(out).tune == words  # what the report says to have made it
    # A second run finds everything done.
    assert run("tune", data, *PICTURES, *sweep, "--out", out) == 0
    assert "4 of them finished earlier" in capsys.readouterr().err


@pytest.mark.parametrize("sweep", ["delta", "delta=", "delta=0.4", "delta=0.4,0.4", "dleta=0.4,0.6", "delta=0.4,2"])
def test_a_sweep_that_cannot_be_is_refused_before_anything_starts(tmp_path, capsys, sweep):
    data = write_data(tmp_path / "data")
    assert run("tune", data, *PICTURES, "--sweep", sweep, "--out", tmp_path / "out") == 2
    assert "delta" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_plan_measures_and_compare_goes_on_from_there(tmp_path, capsys):
    data, out = write_data(tmp_path / "data"), tmp_path / "out"
    options = [*PICTURES, "--folds", 2, "--losses", "dice,focal", "--out", out]
    assert run("plan", data, *options) == 0
    printed = capsys.readouterr().out
    assert "dice" in printed and "left to do" in printed and "GiB" in printed
    assert not list(out.glob("runs/*/history.csv"))
    assert run("compare", data, *options) == 0
    capsys.readouterr()
    assert run("plan", data, *options) == 0
    assert "2 done" in capsys.readouterr().out.replace("2,", "2")


@pytest.mark.slow
def test_shards_together_make_the_whole(tmp_path, capsys):
    data = write_data(tmp_path / "data")
    options = [*PICTURES, "--folds", 2, "--losses", "dice,focal"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run("compare", data, *options, "--out", whole) == 0
    for shard in ("2/3", "1/3", "3/3", "1/3"):
        assert run("compare", data, *options, "--shard", shard, "--out", parts) == 0
        mine = 2 if shard == "1/3" else 1
        printed = capsys.readouterr().out
        assert f"shard {shard}: {mine} of 4 runs; {4 - mine} belong to other shards" in printed
        assert f"`unifocal status {parts}`" in printed
    assert not (parts / "results.csv").exists()
    capsys.readouterr()
    assert run("compare", data, *options, "--out", parts) == 0
    assert "4 of them finished earlier" in capsys.readouterr().err
    assert (parts / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()


@pytest.mark.slow
def test_several_data_sets_have_a_folder_each_and_a_table_together(tmp_path):
    one, two, out = write_data(tmp_path / "one"), write_data(tmp_path / "two", n=13), tmp_path / "out"
    assert run("compare", one, two, *PICTURES, "--folds", 2, "--losses", "dice,focal", "--out", out) == 0
    table = read_table(out / "results.csv")
    counts = table[(table["metric"] == "DSC") & (table["loss"] == "dice")].groupby("dataset").size()
    assert counts.to_dict() == {"one": 12, "two": 13}
    assert (out / "one/folds.json").exists() and (out / "two/contours.png").exists()
    assert "two, lesion" in (out / "summary.md").read_text()


@pytest.mark.slow
def test_workers_give_the_same_table_to_the_bit(tmp_path):
    data = write_data(tmp_path / "data")
    options = [*PICTURES, "--folds", 2, "--losses", "dice", "--seeds", "0,1"]
    assert run("compare", data, *options, "--out", tmp_path / "one") == 0
    assert run("compare", data, *options, "--workers", 2, "--out", tmp_path / "two") == 0
    assert (tmp_path / "one/results.csv").read_bytes() == (tmp_path / "two/results.csv").read_bytes()
