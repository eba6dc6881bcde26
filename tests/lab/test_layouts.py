"""Folders are read as their authors meant them, and what is wrong with a folder is said in full."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unifocal.lab.data.masks import read_mask
from unifocal.lab.data.reading import read_dataset
from unifocal.lab.errors import LabError


def save(path: Path, values=0, size=(4, 6)) -> None:
    """Write a grey image of (height, width), filled with a value or holding an array."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.asarray(values, np.uint8)
    Image.fromarray(array if array.ndim == 2 else np.full(size, array, np.uint8)).save(path)


def make_plain(root: Path, names=("a", "b"), mask="masks", suffix=".png") -> Path:
    for name in names:
        save(root / "images" / f"{name}.png", 90)
        save(root / mask / f"{name}{suffix}", 255)
    return root


def test_real_busi_from_the_parent_and_from_inside(shared):
    root = shared / "data" / "busi"
    dataset = read_dataset(root)
    assert (dataset.layout, len(dataset.cases)) == ("busi", 280)
    assert dataset.classes == ("background", "lesion")
    assert dataset.groups_file == (root / "groups.csv").resolve()
    assert len({case.group for case in dataset.cases}) == 227
    assert sum(len(case.masks) > 1 for case in dataset.cases) == 13
    labels = [case.label for case in dataset.cases]
    assert [labels.count(name) for name in ("benign", "malignant", "normal")] == [155, 90, 35]
    ids = [case.id for case in dataset.cases]
    assert ids[:3] == ["benign (1)", "benign (2)", "benign (4)"]  # by number, not benign (100) second

    inside = read_dataset(root / "Dataset_BUSI_with_GT")
    assert [case.id for case in inside.cases] == ids
    assert inside.groups_file is None
    given = read_dataset(root / "Dataset_BUSI_with_GT", groups_file=root / "groups.csv")
    assert [case.group for case in given.cases] == [case.group for case in dataset.cases]


def test_masks_with_more_than_two_greys_are_told_of_once(tmp_path):
    for n, greys in enumerate(([0, 255], [0, 3, 250, 255], [0, 3, 7, 255])):
        save(tmp_path / "benign" / f"benign ({n}).png", np.zeros((1, len(greys))))
        save(tmp_path / "benign" / f"benign ({n})_mask.png", [greys])
    dataset = read_dataset(tmp_path)
    assert [facts.voxels for facts in dataset.facts] == [(1, 1), (2, 2), (3, 1)]
    [note] = dataset.notes
    assert "2 of 3 masks hold others, too (3, 7, 250), as JPEG" in note
    assert "benign/benign (1)_mask.png, benign/benign (2)_mask.png. Half of" in note
    assert not read_dataset(make_plain(tmp_path / "a plain")).notes


def test_busi_masks_belong_to_their_image_alone(tmp_path):
    for name in ("benign (1)", "benign (10)"):
        save(tmp_path / "benign" / f"{name}.png")
        save(tmp_path / "benign" / f"{name}_mask.png")
    for n in (1, 2, 10):
        save(tmp_path / "benign" / f"benign (10)_mask_{n}.png")
    first, second = read_dataset(tmp_path).cases
    assert [path.name for path in first.masks] == ["benign (1)_mask.png"]
    assert [path.stem.removeprefix("benign (10)") for path in second.masks] == [
        "_mask",
        "_mask_1",
        "_mask_2",
        "_mask_10",
    ]


@pytest.mark.parametrize("mask_folder", ["GT", "gt"])
@pytest.mark.parametrize("above", ["", "BUS"])
def test_bus2017(tmp_path, mask_folder, above):
    for n in (1, 2):
        save(tmp_path / above / "original" / f"{n:06}.png")
        save(tmp_path / above / mask_folder / f"{n:06}.png", 3)
    dataset = read_dataset(tmp_path)
    assert dataset.layout == "bus2017"
    assert [case.id for case in dataset.cases] == ["000001", "000002"]
    assert dataset.cases[0].masks[0].parent.name == mask_folder
    assert len(dataset.classes) == 2


@pytest.mark.parametrize("mask_folder", ["masks", "mask", "labels", "Masks"])
@pytest.mark.parametrize("suffix", [".png", "_mask.png", "_segmentation.bmp", ".tif", ".JPG", "_mask_1.png"])
def test_plain_names(tmp_path, mask_folder, suffix):
    dataset = read_dataset(make_plain(tmp_path, mask=mask_folder, suffix=suffix))
    assert [(case.id, case.masks[0].name) for case in dataset.cases] == [("a", f"a{suffix}"), ("b", f"b{suffix}")]
    assert dataset.layout == "plain"


def test_an_image_whose_name_looks_like_a_mask_keeps_its_own(tmp_path):
    make_plain(tmp_path, ("a", "a_mask"))
    assert [(case.id, [m.name for m in case.masks]) for case in read_dataset(tmp_path).cases] == [
        ("a", ["a.png"]),
        ("a_mask", ["a_mask.png"]),
    ]


def test_clutter_is_ignored(tmp_path):
    make_plain(tmp_path / "set")
    for junk in ("set/images/.DS_Store", "set/images/Thumbs.db", "set/images/._a.png", "__MACOSX/images/a.png"):
        (tmp_path / junk).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / junk).write_bytes(b"junk")
    (tmp_path / "__MACOSX" / "masks").mkdir()
    assert len(read_dataset(tmp_path).cases) == 2


@pytest.mark.parametrize(
    ("masks", "names"),
    [
        ([[[0, 1]], [[0, 2]]], ("background", "class 1", "class 2")),
        ([[[0, 3]], [[1, 0]]], ("background", "class 1", "class 2", "class 3")),
        ([[[0, 1]], [[0, 1]]], ("background", "lesion")),
        ([[[0, 2]], [[0, 0]]], ("background", "lesion")),  # one positive value: nothing tells two classes
        ([[[0, 1]], [[0, 255]]], ("background", "lesion")),  # two habits of writing a binary mask
        ([[[0, 2]], [[0, 16]]], ("background", "lesion")),
    ],
)
def test_classes_are_decided_over_the_whole_set(tmp_path, masks, names):
    for n, mask in enumerate(masks):
        save(tmp_path / "images" / f"{n}.png", 9, size=(1, 2))
        save(tmp_path / "masks" / f"{n}.png", np.array(mask))
    dataset = read_dataset(tmp_path)
    assert dataset.classes == names
    if len(names) > 2:
        assert [read_mask(case, dataset).tolist() for case in dataset.cases] == masks


def test_all_problems_are_told_at_once(tmp_path):
    make_plain(tmp_path, ("good", "broken", "cut", "wide"))
    save(tmp_path / "images" / "alone.png")
    save(tmp_path / "masks" / "orphan.png")
    save(tmp_path / "masks" / "wide.png", size=(6, 4))
    (tmp_path / "images" / "broken.png").write_bytes(b"no image at all")
    whole = (tmp_path / "masks" / "cut.png").read_bytes()
    (tmp_path / "masks" / "cut.png").write_bytes(whole[:50])
    with pytest.raises(LabError) as caught:
        read_dataset(tmp_path)
    text = str(caught.value)
    assert "5 problems" in text
    for part in (
        "image without mask: images/alone.png",
        "mask without image: masks/orphan.png",
        "images/wide.png is 6x4, masks/wide.png is 4x6",
        "broken.png is damaged",
        "cut.png is damaged",
    ):
        assert part in text
    assert "good" not in text


def test_long_lists_are_cut_with_a_count(tmp_path):
    make_plain(tmp_path)
    for n in range(33):
        save(tmp_path / "images" / f"lost{n}.png")
    with pytest.raises(LabError, match=r"33 problems(?s:.)*and 13 more") as caught:
        read_dataset(tmp_path)
    assert str(caught.value).count("without mask") == 20


def test_two_images_with_one_id(tmp_path):
    make_plain(tmp_path)
    save(tmp_path / "images" / "a.bmp")
    with pytest.raises(LabError, match="2 images are called 'a'"):
        read_dataset(tmp_path)


def test_folders_that_hold_no_data_set(tmp_path):
    with pytest.raises(LabError, match="does not exist"):
        read_dataset(tmp_path / "nowhere")
    with pytest.raises(LabError, match="holds nothing"):
        read_dataset(tmp_path)
    (tmp_path / "holiday").mkdir()
    with pytest.raises(LabError, match="holds holiday"):
        read_dataset(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    with pytest.raises(LabError, match="no image"):
        read_dataset(tmp_path)
    with pytest.raises(LabError, match="Did you mean 'plain'"):
        read_dataset(tmp_path, layout="plane")
    with pytest.raises(LabError, match="layouts busi; "):
        read_dataset(make_plain(tmp_path), layout="busi")


def test_two_layouts_in_one_folder_need_a_choice(tmp_path):
    make_plain(tmp_path)
    save(tmp_path / "original" / "x.png")
    save(tmp_path / "GT" / "x.png")
    with pytest.raises(LabError, match="Name the folder, or the layout"):
        read_dataset(tmp_path)
    assert [case.id for case in read_dataset(tmp_path, layout="bus2017").cases] == ["x"]


def test_several_data_sets_below_one_folder_need_a_choice_at_any_depth(tmp_path):
    make_plain(tmp_path / "near")
    make_plain(tmp_path / "far" / "away")
    with pytest.raises(LabError, match=r"plain in .*near; plain in .*away\. Name the folder"):
        read_dataset(tmp_path)
    assert len(read_dataset(tmp_path / "far").cases) == 2


def test_a_folder_that_may_not_be_read_is_passed_over(tmp_path, monkeypatch):
    make_plain(tmp_path / "set")
    make_plain(tmp_path / "private")
    monkeypatch.setattr("os.access", lambda path, mode: path.name != "private")
    assert read_dataset(tmp_path).cases[0].image.parts[-3] == "set"


class TestGroupsFile:
    @pytest.mark.parametrize("names", [("images/a.png", "images/b.png"), ("a.png", "b.png"), ("b", "a")])
    @pytest.mark.parametrize("column", ["group", "Patient", "near_duplicate_group"])
    def test_names_and_columns(self, tmp_path, names, column):
        make_plain(tmp_path)
        lines = [f"image,age,{column}", f"{names[0]},50,p {names[0][-5:]}", f"{names[1]},60,p {names[1][-5:]}"]
        (tmp_path / "groups.csv").write_text("\n".join(lines), encoding="utf-8-sig")
        dataset = read_dataset(tmp_path)
        expected = {name.removeprefix("images/")[:1]: f"p {name[-5:]}" for name in names}
        assert {case.id: case.group for case in dataset.cases} == expected
        assert dataset.groups_file == tmp_path / "groups.csv"

    def test_an_empty_cell_is_an_unknown_group(self, tmp_path):
        make_plain(tmp_path)
        (tmp_path / "groups.csv").write_text("image,group\na,7\nb,\n")
        assert [case.group for case in read_dataset(tmp_path).cases] == ["7", None]

    def test_the_file_of_a_larger_set_serves_a_part_of_it(self, tmp_path):
        make_plain(tmp_path)
        (tmp_path / "groups.csv").write_text("image,group\na,7\nb,8\nnot here,9\n")
        assert [case.group for case in read_dataset(tmp_path).cases] == ["7", "8"]

    def test_semicolons_will_do(self, tmp_path):
        make_plain(tmp_path)
        (tmp_path / "groups.csv").write_text("image;patient\na;7\nb;8\n")
        assert [case.group for case in read_dataset(tmp_path).cases] == ["7", "8"]

    def test_two_columns_join_by_either(self, tmp_path):
        make_plain(tmp_path, "abcde")
        (tmp_path / "g.csv").write_text("image,patient,group\na,1,\nb,1,x\nc,2,x\nd,3,y\ne,,\n")
        groups = [case.group for case in read_dataset(tmp_path, groups_file=tmp_path / "g.csv").cases]
        assert groups[0] == groups[1] == groups[2] != groups[3]
        assert groups[4] is None

    def test_wrong_names_come_with_the_nearest(self, tmp_path):
        make_plain(tmp_path, ("patient_1", "patient_2"))
        path = tmp_path / "groups.csv"
        path.write_text("image,group\npatient_1,1\npatiant_2,1\n")
        with pytest.raises(LabError) as caught:
            read_dataset(tmp_path)
        assert "row 3: no case 'patiant_2' in the folder. Did you mean 'patient_2'?" in str(caught.value)
        assert "no row for the case 'patient_2'" in str(caught.value)
        path.write_text("image,pateint\npatient_1,1\n")
        with pytest.raises(LabError, match=r"columns image, pateint\. Did you mean 'patient'"):
            read_dataset(tmp_path)
        path.write_text("image,group\npatient_1,1\npatient_1,2\npatient_2,2\n")
        with pytest.raises(LabError, match="listed twice"):
            read_dataset(tmp_path)
        with pytest.raises(LabError, match="does not exist"):
            read_dataset(tmp_path, groups_file=tmp_path / "none.csv")


@pytest.mark.parametrize("values", [(1, 2, 255), (85, 170, 255), (128, 255)])
def test_a_few_values_that_are_no_class_indices_are_refused_by_name(tmp_path, values):
    """Several labels drawn as greys, or a void label: read as binary they would be a wrong truth."""
    make_plain(tmp_path)
    mask = np.zeros((4, 6), np.uint8)
    for row, value in enumerate(values):
        mask[row, :3] = value
    Image.fromarray(mask).save(tmp_path / "masks" / "b.png")
    with pytest.raises(LabError, match=r"masks/b.png holds 0, .*255: .*class indices"):
        read_dataset(tmp_path)


def test_a_case_that_the_splits_name_and_the_folder_lacks_is_told(tmp_path):
    make_plain(tmp_path / "data", ("x_000", "x_001"))
    path = tmp_path / "folds.json"
    path.write_text(
        '[{"train": ["x_000"], "val": ["x_001", "x_002"]}, {"train": ["x_001", "x_002"], "val": ["x_000"]}]'
    )
    dataset = read_dataset(tmp_path / "data", splits_file=path)
    assert dataset.notes == ("folds.json names 1 case that the folder lacks: x_002. Did you mean 'x_001'?",)
    assert dataset.splits[0].validation == ("x_001",)
