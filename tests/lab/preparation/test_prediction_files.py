"""Predictions as files: the classes come back, and other programs find them in the place of the image."""

from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from volume_files import noise, save_volume

from unifocal.lab.data.volumes import read_header, read_volume
from unifocal.lab.errors import LabError
from unifocal.lab.preparation.predictions import find_prediction, read_prediction, write_prediction

GEOMETRY: dict[str, Any] = {"spacing": (0.8, 1.5, 3.0), "origin": (-12.5, 30.25, 7.0), "directions": (-1, 1, -1)}


def classes(shape, n=4):
    return np.random.default_rng(0).integers(0, n, shape).astype(np.uint8)


@pytest.mark.parametrize("n", [2, 7, 40, 255])
def test_pictures_show_their_classes(tmp_path, n):
    mask = classes((60, 81), n)
    path = write_prediction(tmp_path, "a", mask, like=tmp_path / "image.jpg")
    assert path == tmp_path / "a.png"
    np.testing.assert_array_equal(read_prediction(tmp_path, "a"), mask)
    with Image.open(path) as image:
        assert image.mode == "P"
        colours = np.asarray(image.convert("RGB"))
    assert len({tuple(colours[mask == c][0]) for c in range(n)}) > 0.9 * n
    assert (colours[mask == 0] == 0).all() and (colours[mask == 1] == 255).all()


@pytest.mark.parametrize(
    ("ending", "shape"),
    [(".nii.gz", (6, 5, 4)), (".nii", (6, 5, 4, 3)), (".mha", (6, 5, 4)), (".mhd", (6, 5, 4)), (".nrrd", (6, 5, 4))],
)
def test_volumes_lie_where_the_image_lies(tmp_path, ending, shape):
    if not ending.startswith(".nii"):
        pytest.importorskip("SimpleITK")
    image = save_volume(tmp_path / f"image{ending}", noise(shape), **GEOMETRY)
    mask = classes((6, 5, 4))
    path = write_prediction(tmp_path / "out", "case 1", mask, like=image)
    assert path.name == "case 1" + {".nii": ".nii.gz", ".mhd": ".mha"}.get(ending, ending)
    np.testing.assert_array_equal(read_prediction(tmp_path / "out", "case 1"), mask)
    assert read_volume(path).values.dtype == np.uint8
    assert read_header(path).grid.mismatch(read_header(image).grid) is None
    np.testing.assert_allclose(read_header(path).grid.matrix, read_header(image).grid.matrix, atol=1e-6)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [path.name]


@pytest.mark.parametrize(("shape", "axes"), [((24, 28), 2), ((24, 28, 1), 3), ((24, 28, 1, 2), 3)])
def test_the_mask_of_a_slice_has_the_axes_of_its_image(tmp_path, shape, axes):
    image, mask = save_volume(tmp_path / "image.nii.gz", noise(shape)), classes((24, 28, 1))
    path = write_prediction(tmp_path / "out", "a", mask, like=image)
    assert nib.nifti1.load(path).shape == shape[:axes]
    np.testing.assert_array_equal(read_prediction(tmp_path / "out", "a"), mask)


def test_the_header_of_nifti_is_kept(tmp_path):
    """Codes, units, an oblique affine and two different transforms; not the scaling of intensities."""
    angle = 0.3
    affine = np.array([[np.cos(angle), -np.sin(angle), 0, -20], [np.sin(angle), np.cos(angle), 0, 11],
                       [0, 0, 2.5, -3], [0, 0, 0, 1]])  # fmt: skip
    image = nib.Nifti1Image(noise((6, 5, 4)), affine)
    image.set_sform(affine, code=4)
    image.set_qform(np.diag([1, 1, 2.5, 1]), code=1)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_slope_inter(2, -1024)
    nib.save(image, tmp_path / "image.nii.gz")
    mask = classes((6, 5, 4))
    path = write_prediction(tmp_path, "a", mask, like=tmp_path / "image.nii.gz")
    written, reference = nib.Nifti1Image.from_filename(path), nib.Nifti1Image.from_filename(tmp_path / "image.nii.gz")
    for name in ("qform_code", "sform_code", "xyzt_units", "quatern_b", "quatern_c", "quatern_d", "srow_x", "srow_y"):
        np.testing.assert_array_equal(written.header[name], reference.header[name], name)
    np.testing.assert_array_equal(written.affine, reference.affine)
    np.testing.assert_array_equal(written.header.get_zooms(), reference.header.get_zooms())
    np.testing.assert_array_equal(np.asarray(written.dataobj), mask)
    assert written.get_data_dtype() == np.uint8


def test_an_image_without_transforms_stays_so(tmp_path):
    image = nib.Nifti1Image(noise((6, 5, 4)), None)
    image.header.set_zooms((1, 2, 3))
    nib.save(image, tmp_path / "image.nii.gz")
    path = write_prediction(tmp_path, "a", classes((6, 5, 4)), like=tmp_path / "image.nii.gz")
    header = nib.Nifti1Image.from_filename(path).header
    assert (header["qform_code"], header["sform_code"]) == (0, 0) and header.get_zooms() == (1, 2, 3)


def test_the_same_mask_makes_the_same_file(tmp_path):
    image = save_volume(tmp_path / "image.nii.gz", noise((6, 5, 4)))
    paths = [write_prediction(tmp_path, name, classes((6, 5, 4)), like=image) for name in "ab"]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_names_stay_in_the_folder_and_apart(tmp_path):
    names = ["../a", "a/b", "a%2Fb", "a.b", "a.b.c", "..", "ä", "benign (1)"]
    for number, name in enumerate(names):
        write_prediction(tmp_path / "out", name, np.full((2, 2), number, np.uint8), like=tmp_path / "a.png")
    assert len(list((tmp_path / "out").iterdir())) == len(names) and not list(tmp_path.glob("*.png"))
    for number, name in enumerate(names):
        assert (read_prediction(tmp_path / "out", name) == number).all()
    assert find_prediction(tmp_path / "out", "benign (1)") == tmp_path / "out" / "benign (1).png"


def test_a_missing_prediction(tmp_path):
    assert find_prediction(tmp_path, "a") is None
    with pytest.raises(LabError, match="none of case 'a'"):
        read_prediction(tmp_path, "a")


def test_half_a_file_is_never_left(tmp_path):
    with pytest.raises(LabError, match=r"gone\.nii\.gz is gone"):
        write_prediction(tmp_path / "out", "a", classes((6, 5, 4)), like=tmp_path / "gone.nii.gz")
    assert not list((tmp_path / "out").iterdir())


def test_real_hippocampus(shared, tmp_path):
    folder = shared / "data" / "msd_hippocampus" / "Task04_Hippocampus"
    image = sorted((folder / "imagesTr").glob("*.nii.gz"))[0]
    truth = read_volume(folder / "labelsTr" / image.name)
    path = write_prediction(tmp_path, "h", truth.values[0].astype(np.uint8), like=image)
    written = read_volume(path)
    np.testing.assert_array_equal(written.values, truth.values)
    assert written.grid == read_header(image).grid
