"""One mask of another kind changes no other: it is told, by the name of its case."""

import json

import numpy as np
import pytest
from PIL import Image
from test_options import run
from volume_files import block, save_volume

from unifocal.lab.data.masks import read_mask
from unifocal.lab.data.reading import read_dataset
from unifocal.lab.errors import LabError

LABELS = np.repeat([0, 1, 2, 7], 8)[:, None] * np.ones((1, 40), int)
LESION = block((32, 40), at=(slice(4, 12), slice(6, 20)))


def make_pictures(root, *masks, ending=".png", **options):
    for n, mask in enumerate(masks):
        for part, values in (("images", LESION * 90), ("masks", mask)):
            path = root / part / f"c{n}{ending if part == 'masks' else '.png'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(values, np.uint8)).save(path, **options)
    return root


def make_volumes(root, *masks):
    for n, mask in enumerate(masks):
        save_volume(root / "images" / f"v{n}.nii", np.arange(120, dtype=np.float32).reshape(6, 5, 4))
        save_volume(root / "masks" / f"v{n}.nii", mask)
    return root


def stray(value=3):
    mask = block()
    mask[5, 4, 3] = value
    return mask


def problems(root):
    with pytest.raises(LabError) as caught:
        read_dataset(root)
    return str(caught.value).splitlines()[1:]


def test_a_picture_of_labels_among_masks_of_one_lesion(tmp_path):
    make_pictures(tmp_path, LESION * 255, LABELS, LESION * 255)
    [problem] = problems(tmp_path)
    assert problem == (
        "  c1: masks/c1.png holds 1, 2, 7: expected 0 and one value for the lesion, as most masks (255). "
        "Mend the file, or leave the case out: --exclude c1"
    )


def test_a_layout_of_one_lesion_refuses_labels_too(tmp_path):
    for name, mask in (("benign (1)", LESION * 255), ("benign (2)", LABELS)):
        for ending, values in (("", LESION * 90), ("_mask", mask)):
            path = tmp_path / "benign" / f"{name}{ending}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(np.asarray(values, np.uint8)).save(path)
    [problem] = problems(tmp_path)
    assert "benign (2): benign/benign (2)_mask.png holds 1, 2, 7" in problem and "--exclude 'benign (2)'" in problem


def test_a_stray_voxel_in_a_volume_where_another_mask_says_no_classes(tmp_path):
    make_volumes(tmp_path, block(), stray(), block(dtype=np.float32) * 0.5, block())
    [problem] = problems(tmp_path)
    assert problem.startswith(
        "  v1: masks/v1.nii holds 1, 3: expected 0 and one value for the lesion, as most masks (1)"
    )


def test_a_mask_of_one_lesion_among_labels_is_the_one_that_is_told(tmp_path):
    make_pictures(tmp_path, LABELS, LESION * 255, LABELS)
    [problem] = problems(tmp_path)
    assert "c1: masks/c1.png holds 255: expected class indices up to 15, as in most masks (1, 2, 7)" in problem


def test_smoothed_masks_are_soft_as_before(tmp_path):
    small = Image.fromarray(LESION * 255).resize((20, 16), Image.Resampling.LANCZOS)
    soft = small.resize((40, 32), Image.Resampling.BILINEAR)
    dataset = read_dataset(make_pictures(tmp_path, LESION * 255, soft))
    [note] = dataset.notes
    assert "1 of 2 masks hold others, too" in note and "masks/c1.png" in note
    assert abs(int(read_mask(dataset.cases[1], dataset).sum()) - int(LESION.sum())) < 0.1 * LESION.sum()


def test_jpeg_may_hold_anything(tmp_path):
    """Of an empty mask it leaves a few small numbers."""
    faint = block((32, 40), value=3, at=(slice(4, 12), slice(6, 20)))
    [note] = read_dataset(make_pictures(tmp_path, LESION * 255, faint, ending=".jpg", quality=60)).notes
    assert "as JPEG and smoothing leave them" in note


@pytest.mark.parametrize(("value", "is_told"), [(0.5, True), (2.5, True), (255, False)])
def test_another_value_for_the_lesion_is_a_note(tmp_path, value, is_told):
    make_volumes(tmp_path, block(), block(dtype=np.float32) * value, block(), block())
    dataset = read_dataset(tmp_path)
    told = f"the lesion is 1 in 3 masks, but {value:g} in masks/v1.nii. Each of these values is lesion."
    assert dataset.classes == ("background", "lesion")
    assert dataset.notes == ((told,) if is_told else ())
    assert {fact.voxels[1] for fact in dataset.facts} == {8}


def test_classes_that_a_single_voxel_makes_are_told(tmp_path, capsys):
    make_volumes(tmp_path, *[block()] * 3, stray(), *[block()] * 2)
    notes = read_dataset(tmp_path).notes
    assert notes == (
        "no mask holds class 2: classes are counted up to the greatest value, 3.",
        "class 3 is in one case only, v3 (1 voxel), while class 1 is in 6. If this is a mistake, mend masks/v3.nii, "
        "or leave the case out: --exclude v3",
    )
    assert run("describe", tmp_path) == 0
    assert "class 3 is in one case only" in " ".join(capsys.readouterr().out.split())


def test_classes_that_are_there_are_not_told(tmp_path):
    assert not read_dataset(make_volumes(tmp_path, *[stray(2)] * 2, block())).notes


def test_describe_leaves_out_what_it_named(tmp_path, capsys):
    make_pictures(tmp_path, LESION * 255, LABELS, LESION * 255, LABELS, LESION * 255)
    assert run("describe", tmp_path) == 2
    assert "--exclude c1" in capsys.readouterr().err
    assert run("describe", tmp_path, "--json", "--exclude", "c1, c3") == 0
    assert "left out by request: c1, c3." in json.loads(capsys.readouterr().out)["notes"]
