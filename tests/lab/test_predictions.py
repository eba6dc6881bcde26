"""A folder of predictions: who is whose, how values are read, and everything that is wrong told at once."""

import json

import numpy as np
import pytest
from PIL import Image
from tiny import write_data
from volume_files import block, noise, save_volume

from unifocal.lab.data.predictions import read_predictions
from unifocal.lab.data.reading import read_dataset
from unifocal.lab.errors import LabError


def write_png(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


@pytest.fixture
def pictures(tmp_path):
    return read_dataset(write_data(tmp_path / "data", 3))


def write_decathlon(folder, labels, values):
    """Three cases whose masks hold `values`, one of each case."""
    entries = []
    for name in "abc":
        volume = block()
        for n, value in enumerate(values):
            volume[n, 0, 0] = value
        save_volume(folder / "imagesTr" / f"{name}.nii.gz", noise())
        save_volume(folder / "labelsTr" / f"{name}.nii.gz", volume)
        entries.append({"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"})
    content = {"modality": {"0": "MRI"}, "labels": labels, "training": entries}
    (folder / "dataset.json").write_text(json.dumps(content))
    return read_dataset(folder)


@pytest.fixture
def volumes(tmp_path):
    """Classes 0, 1, 2 stored as 0, 1, 4."""
    return write_decathlon(tmp_path / "data", {"0": "background", "1": "core", "4": "rim"}, (1, 4))


def told(folder, dataset):
    with pytest.raises(LabError) as caught:
        read_predictions(folder, dataset)
    return str(caught.value)


@pytest.mark.parametrize("top", [1, 255])
def test_pictures_by_the_name_of_the_case(tmp_path, pictures, top):
    mask = np.zeros((40, 48), np.uint8)
    mask[:5] = top
    for case in pictures.cases:
        write_png(tmp_path / "p" / f"{case.id}.png", mask)
    (tmp_path / "p" / "plans.json").write_text("{}")  # no label file, and so no matter
    found = read_predictions(tmp_path / "p", pictures)
    assert [found.read(case).sum() for case in pictures.cases] == [5 * 48] * 3
    assert found.read(pictures.cases[0]).max() == 1


def test_files_may_be_called_as_the_image_or_a_mask_and_have_another_format(tmp_path):
    for name in "ab":
        write_png(tmp_path / "benign" / f"benign ({name}).png", np.arange(80).reshape(8, 10))
        for part in ("_mask", "_mask_1"):
            write_png(tmp_path / "benign" / f"benign ({name}){part}.png", 255 * np.eye(8, 10))
    dataset = read_dataset(tmp_path)
    write_png(tmp_path / "p" / "benign (a).bmp", np.eye(8, 10))
    write_png(tmp_path / "p" / "benign (b)_mask.tif", np.eye(8, 10))
    found = read_predictions(tmp_path / "p", dataset)
    assert {case: path.name for case, path in found.files.items()} == {
        "benign (a)": "benign (a).bmp",
        "benign (b)": "benign (b)_mask.tif",
    }
    write_png(tmp_path / "p" / "benign (b)_mask_1.png", np.eye(8, 10))
    assert "benign (b): several predictions: benign (b)_mask.tif, benign (b)_mask_1.png" in told(
        tmp_path / "p", dataset
    )


@pytest.mark.parametrize(("rim", "reading"), [(4, "values of the data set's own masks"), (2, "class indices")])
def test_stored_values_or_class_indices_for_the_whole_folder(tmp_path, volumes, rim, reading):
    for n, case in enumerate(volumes.cases):
        labels = block()
        labels[0, 0, 0] = rim if n else 0  # the first file alone would not tell
        save_volume(tmp_path / "p" / f"{case.id}.nii", labels.astype(np.float32))
    found = read_predictions(tmp_path / "p", volumes)
    assert found.reading == reading
    assert [found.read(case)[0, 0, 0] for case in volumes.cases] == [0, 2, 2]


def test_a_class_of_several_values_is_one_class(tmp_path):
    """PI-CAI's masks hold grades: a prediction may hold them, or 1."""
    folder = tmp_path / "data" / "csPCa_lesion_delineations" / "human_expert" / "resampled"
    for n in range(2):
        save_volume(folder / f"1000{n}_100000{n}.nii.gz", block(value=3))
    dataset = read_dataset(tmp_path / "data")
    for case, value in zip(dataset.cases, (1, 5), strict=True):
        save_volume(tmp_path / "p" / f"{case.id}.mha", block(value=value))
    found = read_predictions(tmp_path / "p", dataset)
    assert [np.unique(found.read(case)).tolist() for case in dataset.cases] == [[0, 1]] * 2


def test_everything_wrong_is_told_at_once(tmp_path, volumes):
    folder = tmp_path / "p"
    save_volume(folder / "a.nii.gz", block(), spacing=(1, 1, 2))
    labels = block()
    labels[0, 0, :2] = 2, 4  # neither class indices alone nor stored values alone
    save_volume(folder / "b.nii.gz", labels)
    save_volume(folder / "cc.nii.gz", block())
    message = told(folder, volumes)
    assert "4 problems" in message and str(volumes.root) in message
    for part in (
        "no prediction for 1 case: c",
        "1 file of no case: cc.nii.gz",
        "a: p/a.nii.gz does not fit labelsTr/a.nii.gz: spacings differ: 1 x 1 x 1 and 1 x 1 x 2 mm",
        "p/b.nii.gz holds 2; expected 0, 1, 4 (values of the data set's own masks) or 0, 1, 2 (class indices)",
    ):
        assert part in message


def test_wrong_grids_broken_files_and_channels(tmp_path, volumes):
    folder = tmp_path / "p"
    save_volume(folder / "a.nii.gz", block(), origin=(5, 0, 0))
    save_volume(folder / "b.nii.gz", np.stack([block()] * 2, -1))
    write_png(folder / "c.png", np.eye(8))
    message = told(folder, volumes)
    assert "origins differ" in message and "one is a picture, one a volume" in message
    assert "b.nii.gz has 2" in message  # channels
    (folder / "a.nii.gz").write_bytes((folder / "b.nii.gz").read_bytes()[:60])
    assert "a: expected a readable volume" in told(folder, volumes)


def test_pictures_of_another_size_or_of_probabilities(tmp_path, pictures):
    write_png(tmp_path / "p" / "0.png", np.zeros((48, 40)))
    write_png(tmp_path / "p" / "1.png", np.arange(40 * 48).reshape(40, 48) % 256)
    write_png(tmp_path / "p" / "2.png", 7 * np.ones((40, 48)))
    message = told(tmp_path / "p", pictures)
    assert "0: sizes differ: masks/0.png is 48x40, p/0.png is 40x48" in message
    assert "p/1.png holds 2, 3, 4, 5, 6, 7 and 247 more; expected 0, 1, 255 (0 and 1, or 0 and 255)" in message
    assert "p/2.png holds 7" in message


def test_a_name_that_several_cases_share_needs_the_id(tmp_path):
    for n in range(2):
        for name in ("imaging", "segmentation"):
            save_volume(tmp_path / "data" / f"case_0000{n}" / f"{name}.nii.gz", block())
    dataset = read_dataset(tmp_path / "data")
    save_volume(tmp_path / "p" / "segmentation.nii.gz", block())
    message = told(tmp_path / "p", dataset)
    assert "segmentation.nii.gz: 2 cases have a file of this name; call it case_00000.nii.gz or so" in message
    assert "no prediction for 2 cases: case_00000, case_00001" in message


def test_the_nearest_case_without_a_prediction_is_suggested(tmp_path, pictures):
    for name in ("0", "1", "2a"):
        write_png(tmp_path / "p" / f"{name}.png", np.zeros((40, 48)))
    assert "1 file of no case: 2a.png. Did you mean '2'?" in told(tmp_path / "p", pictures)


@pytest.mark.parametrize("inside", [None, "notes.txt"])
def test_a_folder_without_label_files(tmp_path, pictures, inside):
    folder = tmp_path / "p"
    assert "does not exist" in told(folder, pictures)
    folder.mkdir()
    if inside:
        (folder / inside).write_text("")
    assert f"holds {inside or 'nothing'}" in told(folder, pictures)
