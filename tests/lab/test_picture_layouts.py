"""Published sets of pictures other than ultrasound: vessels of the retina, and polyps."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unifocal.lab.data.describe import describe
from unifocal.lab.data.layouts import LAYOUTS
from unifocal.lab.data.masks import read_mask
from unifocal.lab.data.reading import read_dataset
from unifocal.lab.errors import LabError


def save(path: Path, value=0, size=(4, 6)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(size, np.uint8)
    pixels[:2, :3] = value
    Image.fromarray(pixels).save(path)


def test_drive_with_its_parts(tmp_path):
    for part, numbers in (("training", (21, 22)), ("test", (1, 2))):
        for n in numbers:
            save(tmp_path / part / "images" / f"{n:02}_{part}.tif", 90)
            save(tmp_path / part / "1st_manual" / f"{n:02}_manual1.gif", 255)
            save(tmp_path / part / "mask" / f"{n:02}_{part}_mask.gif", 255, (8, 8))
        save(tmp_path / "test" / "2nd_manual" / "01_manual2.gif", 255)
    dataset = read_dataset(tmp_path)
    assert dataset.layout == "retina" and dataset.classes == ("background", "vessel")
    assert {case.id: (case.part, case.masks[0].name) for case in dataset.cases} == {
        "01_test": ("test", "01_manual1.gif"),
        "02_test": ("test", "02_manual1.gif"),
        "21_training": ("train", "21_manual1.gif"),
        "22_training": ("train", "22_manual1.gif"),
    }
    assert dataset.facts[0].voxels == (18, 6)
    assert len(read_dataset(tmp_path / "training").cases) == 2
    assert describe(dataset).parts == {"test": 2, "train": 2}


def test_the_field_of_view_of_hrf_is_not_taken_for_vessels(tmp_path):
    save(tmp_path / "images" / "01_dr.JPG", 90)
    save(tmp_path / "manual1" / "01_dr.tif", 255)
    save(tmp_path / "mask" / "01_dr_mask.tif", 200)
    dataset = read_dataset(tmp_path)  # not "plain", which would find images/ and mask/
    assert dataset.layout == "retina" and dataset.cases[0].masks[0].parent.name == "manual1"


def test_chase_without_its_first_observer(tmp_path):
    save(tmp_path / "Image_01L.jpg")
    save(tmp_path / "Image_01L_2ndHO.png")
    with pytest.raises(LabError, match=r"Image_01L\.jpg has no Image_01L_1stHO"):
        read_dataset(tmp_path)


def test_real_chase(shared):
    """22 images of 11 participants; every retina looks like every other, and that must not join them."""
    dataset = read_dataset(shared / "data" / "chase_db1")
    found = describe(dataset)
    assert (dataset.layout, found.cases, found.given_groups, found.fold_groups) == ("retina", 22, 11, 11)
    assert found.foreground[0].mean_of_all == pytest.approx(6.87, abs=0.005)  # the first observer, by its README
    assert not found.alike
    assert {case.id[:8]: case.group for case in dataset.cases}["Image_01"] == "01"
    assert any("22 masks of the second observer" in note for note in found.notes)


def test_clinicdb(tmp_path):
    for n in (1, 10, 2):
        save(tmp_path / "CVC-ClinicDB" / "Original" / f"{n}.tif", 9)
        save(tmp_path / "CVC-ClinicDB" / "Ground Truth" / f"{n}.tif", 255)
    dataset = read_dataset(tmp_path)
    assert dataset.layout == "polyps" and [case.id for case in dataset.cases] == ["1", "2", "10"]


@pytest.mark.parametrize("names", [("image", "mask"), ("images", "masks")])
def test_the_collection_of_polyps_numbers_each_set_anew(tmp_path, names):
    for place in ("TrainDataset", "TestDataset/Kvasir", "TestDataset/CVC-300"):
        save(tmp_path / place / names[0] / "1.png", 9)
        save(tmp_path / place / names[1] / "1.png", 255)
    dataset = read_dataset(tmp_path)
    assert dataset.layout == "polyps"
    parts = {"CVC-300 1": "test", "Kvasir 1": "test", "train 1": "train"}
    assert {case.id: case.part for case in dataset.cases} == parts


def test_real_kvasir(shared):
    dataset = read_dataset(shared / "data" / "kvasir_seg")
    assert (dataset.layout, len(dataset.cases)) == ("polyps", 760)
    percent = [100 * fact.voxels[1] / sum(fact.voxels) for fact in dataset.facts]
    assert np.mean(percent) == pytest.approx(15.43, abs=0.005)
    assert np.median(percent) == pytest.approx(11.4, abs=0.05)
    assert set(np.unique(read_mask(dataset.cases[0], dataset))) == {0, 1}


def test_every_layout_stands_in_the_documents():
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    assert [name for name in LAYOUTS if f"| `{name}` |" not in text] == []


def test_a_wrong_name_comes_with_the_nearest(tmp_path):
    with pytest.raises(LabError, match="Did you mean 'brats20'"):
        read_dataset(tmp_path, "brats2020")
