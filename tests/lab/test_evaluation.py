"""Tables of an evaluation by hand, on volumes with patients and regions, and the command from end to end."""

import json
import math
from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import ndimage
from tiny import write_data
from volume_files import block, noise, save_volume

from unifocal.lab import cli
from unifocal.lab.data.masks import read_mask
from unifocal.lab.data.predictions import read_predictions
from unifocal.lab.data.reading import read_dataset
from unifocal.lab.data.volumes import read_volume
from unifocal.lab.evaluation import evaluate, recall_by_size, summarise_cases
from unifocal.lab.metrics import METRICS, measure

SPACING = (1.0, 1.0, 3.0)


def run(*arguments):
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code or 0
    return 0


@pytest.fixture
def volumes(tmp_path):
    """Two patients of 6 x 5 x 4 voxels of 3 mm³; the truth is a cube of 2 x 2 x 2, in b besides a single voxel."""
    for name in "ab":
        labels = block()
        labels[5, 4, 3] = name == "b"
        save_volume(tmp_path / "data" / "images" / f"{name}.nii.gz", noise(), SPACING)
        save_volume(tmp_path / "data" / "labels" / f"{name}.nii.gz", labels, SPACING)
        save_volume(tmp_path / "p" / f"{name}.nii.gz", block(at=(slice(1, 3), slice(1, 3), 1)), SPACING)
    (tmp_path / "data" / "groups.csv").write_text("image,patient\na,p1\nb,p2\n")
    return tmp_path


def test_by_hand(volumes):
    dataset = read_dataset(volumes / "data")
    found = evaluate(read_predictions(volumes / "p", dataset), dataset)
    assert list(found.metrics.columns) == ["case", "group", "class", "metric", "value"]
    assert list(found.metrics["metric"]) == 2 * list(METRICS)
    assert set(zip(found.metrics["case"], found.metrics["group"], strict=True)) == {("a", "p1"), ("b", "p2")}
    value = found.metrics.set_index(["case", "metric"])["value"]
    assert value["a", "DSC"] == pytest.approx(2 * 4 / (4 + 8)) and value["b", "DSC"] == pytest.approx(8 / 13)
    # The upper layer of the cube, 3 mm away, is half of its surface.
    assert value["a", "HD95"] == pytest.approx(3)
    assert value["a", "volume error"] == -0.5 and value["b", "volume error"] == pytest.approx(-5 / 9)
    assert value["b", "lesion recall"] == 0.5
    rows = found.lesions.drop(columns="class").values.tolist()
    assert rows == [["a", "p1", 8, 24.0, 0.5, True], ["b", "p2", 8, 24.0, 0.5, True], ["b", "p2", 1, 3.0, 0.0, False]]


def test_classes_and_regions_of_brats_by_stored_values(tmp_path):
    """Stored 1, 2 and 4: three classes, then the whole tumour and its core."""
    labels = np.zeros((6, 5, 4), np.uint8)
    labels[0, 0], labels[1, 0], labels[2, 0] = 1, 2, 4
    name = "BraTS20_Training_001"
    for part in ("t1", "t1ce", "t2", "flair", "seg"):
        save_volume(tmp_path / "data" / name / f"{name}_{part}.nii", labels)
    labels[2, 0] = 1  # the enhancing part called necrotic
    save_volume(tmp_path / "p" / f"{name}.nii.gz", labels)
    dataset = read_dataset(tmp_path / "data")
    table = evaluate(read_predictions(tmp_path / "p", dataset), dataset).metrics
    dsc = table[table["metric"] == "DSC"].set_index("class")["value"]
    assert dsc.to_dict() == pytest.approx(
        {"necrotic core": 2 / 3, "oedema": 1, "enhancing tumour": 0, "whole tumour": 1, "tumour core": 1}
    )


def test_what_nnunet_ignores_is_left_out_of_classes_and_regions(tmp_path):
    """A label `ignore`, and a region of the classes 1 and 2; all that is wrong lies where there is no truth."""
    truth = np.zeros((6, 5, 4), np.uint8)
    truth[1, :2], truth[2, :2], truth[5] = 1, 2, 3
    save_volume(tmp_path / "data" / "imagesTr" / "a_0000.nii.gz", noise())
    save_volume(tmp_path / "data" / "labelsTr" / "a.nii.gz", truth)
    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    content = {"channel_names": {"0": "T2"}, "labels": labels, "file_ending": ".nii.gz", "numTraining": 1}
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(content))
    prediction = np.where(truth == 3, 2, truth)
    save_volume(tmp_path / "p" / "a.nii.gz", prediction)
    dataset = read_dataset(tmp_path / "data")
    found = evaluate(read_predictions(tmp_path / "p", dataset), dataset)
    perfect = found.metrics[found.metrics["metric"].isin(("DSC", "specificity", "lesion precision"))]
    assert set(perfect["class"]) == {"label 1", "core", "whole"} and perfect["value"].eq(1).all()
    assert found.lesions[["class", "voxels"]].values.tolist() == [["label 1", 8], ["core", 8], ["whole", 16]]


def test_the_summary_takes_errors_by_their_size_and_counts_what_is_undefined():
    rows = [("c", metric, value) for metric, values in
            {"volume error": (-0.5, 0.1, math.nan), "DSC": (0.2, 0.4, 0.9)}.items() for value in values]  # fmt: skip
    found = summarise_cases(pd.DataFrame(rows, columns=["class", "metric", "value"])).set_index("metric")
    assert found.loc["volume error", ["mean", "median", "cases", "undefined"]].tolist() == pytest.approx(
        [0.3, 0.3, 2, 1]
    )
    assert found.loc["DSC", ["mean", "median", "cases", "undefined"]].tolist() == pytest.approx([0.5, 0.4, 3, 0])


def test_recall_by_thirds_of_the_size():
    sizes, found = [1, 2, 2, 3, 5, 8, 13, 21, 34], [0, 0, 1, 1, 1, 0, 1, 1, 1]
    table = pd.DataFrame({"class": "c", "size": sizes, "found": np.array(found, bool)})
    rows = recall_by_size(table.sample(frac=1, random_state=0)).values.tolist()
    # The bounds are 3 - 1/3 and 8 + 5/3.
    assert rows == [
        ["c", "small", 1, 2, 3, 1, pytest.approx(1 / 3)],
        ["c", "medium", 3, 8, 3, 2, pytest.approx(2 / 3)],
        ["c", "large", 13, 34, 3, 3, 1],
    ]
    alike = pd.DataFrame({"class": "c", "size": [4.0] * 5, "found": True})
    assert recall_by_size(alike).values.tolist() == [["c", "small", 4, 4, 5, 5, 1]]
    assert recall_by_size(alike[:0]).empty


def test_the_command_from_end_to_end(volumes, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run("evaluate", volumes / "p", volumes / "data", "--out", volumes / "out") == 0
    printed = capsys.readouterr()
    lines = {line.split("  ")[1].strip(): line.split() for line in printed.out.splitlines() if line.startswith("  ")}
    assert lines["HD95"][1] == "mm" and lines["DSC"][-4:] == ["0.641", "0.641", "2", "0"]
    assert lines["volume error, absolute"][-4] == "0.528"
    assert lines["small"][-3:] == ["1", "0", "0.000"] and lines["medium"][-3:] == ["2", "2", "1.000"]
    assert printed.err == ""
    metrics = pd.read_csv(volumes / "out" / "metrics.csv")
    assert len(metrics) == 2 * len(METRICS) and f"{volumes / 'out' / 'metrics.csv'}" in printed.out
    assert len(pd.read_csv(volumes / "out" / "lesions.csv")) == 3
    before = {path.name for path in volumes.iterdir()}
    assert run("evaluate", volumes / "p", volumes / "data") == 0
    assert {path.name for path in volumes.iterdir()} == before


def test_pictures_are_measured_in_pixels(tmp_path, capsys):
    data = write_data(tmp_path / "data", 3)
    (tmp_path / "p").mkdir()
    for path in (data / "masks").iterdir():
        (tmp_path / "p" / path.name).write_bytes(path.read_bytes())
    assert run("evaluate", tmp_path / "p", data) == 0
    out = capsys.readouterr().out
    assert "px" in out and "mm" not in out
    # The third picture has no lesion, and none was found: all is well but HD95, which is undefined.
    [row] = [line.split() for line in out.splitlines() if "HD95" in line]
    assert row[-4:] == ["0.000", "0.000", "2", "1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "data"], "nowhere does not exist"),
        (["empty", "data"], "holds nothing"),
        (["p/a.nii.gz", "data"], "is a file"),
        (["p", "nowhere"], "nowhere does not exist"),
        (["p", "data", "--layout", "plan"], "Did you mean 'plain'"),
        (["p", "data", "--otu", "x"], "--otu"),
        (["p", "data", "--groups", "nowhere.csv"], "nowhere.csv"),
        (["p", "data", "--out", "p/a.nii.gz"], "p/a.nii.gz cannot be one"),
        (["p"], "data"),
    ],
)
def test_mistakes_end_with_their_text_and_code_2(volumes, capsys, monkeypatch, arguments, message):
    (volumes / "empty").mkdir()
    monkeypatch.chdir(volumes)
    assert run("evaluate", *arguments) == 2
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err


def test_an_interrupt_writes_nothing(volumes, capsys, monkeypatch):
    from unifocal.lab import evaluation

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation, "measure", stop)
    assert run("evaluate", volumes / "p", volumes / "data", "--out", volumes / "out") == 130
    assert "Nothing was written" in capsys.readouterr().err
    assert not list((volumes / "out").iterdir())


def every(step, dataset):
    """A part of a data set, for the time it takes."""
    return replace(dataset, cases=dataset.cases[::step], facts=dataset.facts[::step])


def test_real_pictures_with_eroded_masks(shared, tmp_path, capsys):
    """BUSI: a prediction inside the truth is precise, and its recall is the share that is left."""
    dataset = every(5, read_dataset(shared / "data" / "busi"))
    left = []
    for case in dataset.cases:
        truth = read_mask(case, dataset)
        mask = ndimage.binary_erosion(truth, iterations=3)
        left.append(mask.sum() / truth.sum() if truth.any() else 1)
        Image.fromarray((255 * mask).astype(np.uint8)).save(tmp_path / f"{case.id}.png")
    found = evaluate(read_predictions(tmp_path, dataset), dataset)
    value = found.metrics.pivot(index="case", columns="metric", values="value").loc[[c.id for c in dataset.cases]]
    assert value["recall"].tolist() == pytest.approx(left)
    assert value["precision"].eq(1).all() and value["false lesions"].eq(0).all()
    gone = [facts.voxels[1] == 0 or not share for facts, share in zip(dataset.facts, left, strict=True)]
    assert value["HD95"].isna().tolist() == gone and 0 < sum(gone) < 20 and value["HD95"].min() >= 3


def test_real_volumes_shifted_by_a_voxel(shared, tmp_path):
    """Hippocampus, isotropic 1 mm: the surfaces are 1 mm apart, the volume is kept."""
    dataset = every(10, read_dataset(shared / "data" / "msd_hippocampus"))
    for case in dataset.cases:
        volume = read_volume(case.masks[0])
        image = nib.Nifti1Image(np.roll(volume.values[0], 1, axis=0).astype(np.uint8), volume.grid.matrix)
        nib.save(image, tmp_path / case.masks[0].name)
    found = evaluate(read_predictions(tmp_path, dataset), dataset).metrics
    value = found.pivot(index=["case", "class"], columns="metric", values="value")
    assert len(value) == 2 * 20 and set(value["HD95"]) == {1.0} and value["NSD"].eq(1).all()
    assert value["volume error"].eq(0).all() and value["DSC"].between(0.75, 0.97).all()
    case = dataset.cases[0]
    truth = read_mask(case, dataset)
    assert value.loc[(case.id, "Anterior"), "DSC"] == measure(np.roll(truth, 1, 0), truth)["DSC"]
