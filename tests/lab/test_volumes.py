"""Volumes: every format gives the same numbers at the same place, and what is broken is seen without unpacking."""

import gzip
import sys
from dataclasses import replace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from volume_files import noise, save_volume

from unifocal.lab.data.reading import read_dataset
from unifocal.lab.data.volumes import Grid, read_header, read_volume, turn, turned
from unifocal.lab.errors import LabError

FORMATS = ["a.nii", "a.nii.gz", "a.mha", "azip.mha", "a.mhd", "azip.mhd", "a.nrrd", "azip.nrrd"]
PLACE: dict[str, Any] = {"spacing": (0.5, 0.8, 3.0), "origin": (-10.0, 20.5, 7.25), "directions": (-1, -1, 1)}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_array_at_the_same_place(tmp_path, name):
    values = noise((6, 5, 4))
    path = save_volume(tmp_path / name, values, **PLACE)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.values, values[None])  # (channel, i, j, k): nothing is turned
    header = read_header(path)
    assert header.grid == volume.grid and header.channels == 1
    assert volume.grid.shape == (6, 5, 4)
    assert volume.grid.spacing == pytest.approx((0.5, 0.8, 3.0))
    assert volume.grid.origin == pytest.approx((-10, 20.5, 7.25))
    assert volume.grid.axes == "LPS"
    np.testing.assert_allclose(volume.grid.matrix[:3, :3], np.diag([-0.5, -0.8, 3.0]), atol=1e-6)


def test_channels_come_first(tmp_path):
    values = noise((6, 5, 4, 3))
    volume = read_volume(save_volume(tmp_path / "a.nii.gz", values))
    assert volume.values.shape == (3, 6, 5, 4)
    np.testing.assert_array_equal(volume.values[2], values[..., 2])
    assert read_header(tmp_path / "a.nii.gz").channels == 3


@pytest.mark.parametrize("is_vector", [True, False])
def test_channels_of_itk_come_first(tmp_path, is_vector):
    import SimpleITK as sitk

    values = noise((6, 5, 4, 3))  # (i, j, k, channel)
    if is_vector:
        image = sitk.GetImageFromArray(values.transpose(2, 1, 0, 3), isVector=True)
    else:
        image = sitk.GetImageFromArray(values.T, isVector=False)
    sitk.WriteImage(image, str(tmp_path / "a.mha"))
    assert read_header(tmp_path / "a.mha").channels == 3
    np.testing.assert_array_equal(read_volume(tmp_path / "a.mha").values[1], values[..., 1])


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAR", "PIL", "IRP"])
def test_a_turned_volume_lies_where_it_lay(tmp_path, axes):
    volume = read_volume(save_volume(tmp_path / "a.nii.gz", noise((6, 5, 4, 2)), **PLACE))
    other = turned(volume, axes)
    assert other.grid.axes == axes and other.grid.shape == other.values.shape[1:]
    to_other = np.linalg.inv(other.grid.matrix) @ volume.grid.matrix
    for index in ((0, 0, 0), (1, 2, 3), (5, 4, 3)):
        i, j, k = np.rint(to_other @ [*index, 1])[:3].astype(int)
        np.testing.assert_array_equal(other.values[:, i, j, k], volume.values[:, *index])
    np.testing.assert_array_equal(turn(other.values[0], axes, "LPS"), volume.values[0])


def test_a_scaled_file_is_read_in_its_own_units(tmp_path):
    image = nib.Nifti1Image(np.linspace(-1, 1, 24).reshape(4, 3, 2), np.eye(4))
    image.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "a.nii.gz")
    np.testing.assert_allclose(read_volume(tmp_path / "a.nii.gz").values[0], image.get_fdata(), atol=1e-4)


def test_a_single_slice_is_a_volume_of_one(tmp_path):
    assert read_volume(save_volume(tmp_path / "a.nii", noise((6, 5)))).values.shape == (1, 6, 5, 1)


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_cut_short_is_seen_by_its_header_and_size(tmp_path, name):
    path = save_volume(tmp_path / name, noise((30, 30, 30)))
    data = next((p for p in tmp_path.iterdir() if p.suffix in (".raw", ".zraw")), path)
    whole = data.read_bytes()
    data.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(LabError, match=rf"{path.name} is damaged"):
        read_header(path)
    data.write_bytes(whole)
    read_header(path)


def test_a_detached_file_of_voxels_that_is_gone(tmp_path):
    path = save_volume(tmp_path / "a.mhd", noise())
    (tmp_path / "a.raw").unlink()
    with pytest.raises(LabError, match=r"a\.raw is missing"):
        read_header(path)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mha", "a.mhd", "a.nrrd"])
@pytest.mark.parametrize("content", [b"", b"no volume at all"])
def test_files_that_are_no_volumes(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    for read in (read_header, read_volume):
        with pytest.raises(LabError, match="damaged"):
            read(tmp_path / name)


def test_damage_that_unpacks_to_the_right_length_is_noticed(tmp_path):
    path = save_volume(tmp_path / "a.nii.gz", np.zeros((8, 8, 8)))
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 0))  # stored as it is
    read_volume(path)
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(LabError, match=r"a\.nii\.gz.*CRC"):
        read_volume(path)


def test_gzip_in_several_parts_is_whole(tmp_path):
    """bgzip and parallel packers write such files; their last length is not that of the whole."""
    path = save_volume(tmp_path / "a.nii", noise())
    whole = path.read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(whole[:300]) + gzip.compress(whole[300:]))
    read_header(tmp_path / "b.nii.gz")
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(whole[:300]) + gzip.compress(whole[300:-2]))
    with pytest.raises(LabError, match="unpacks to"):
        read_header(tmp_path / "b.nii.gz")


def test_a_header_without_a_place_in_space(tmp_path):
    image = nib.Nifti1Image(noise(), None)
    image.header.set_sform(np.diag([1.0, 1.0, 0.0, 1.0]), code=1)
    nib.save(image, tmp_path / "a.nii")
    with pytest.raises(LabError, match="place"):
        read_header(tmp_path / "a.nii")


@pytest.mark.parametrize(
    ("name", "values", "holds"),
    [
        ("a.nii.gz", np.zeros((6, 5, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "colours (R, G, B)"),
        ("a.nii", np.ones((6, 5, 4), np.complex64), "complex numbers"),
        ("a.nrrd", np.ones((6, 5, 4), np.complex64), "complex numbers"),
    ],
)
@pytest.mark.parametrize("part", ["images", "masks"])
def test_voxels_that_are_no_real_numbers_are_told_before_anything_starts(tmp_path, name, values, holds, part):
    for n in (1, 2):
        for folder in ("images", "masks"):
            save_volume(tmp_path / folder / f"{n}{name[1:]}", np.ones((6, 5, 4), np.uint8))
        save_volume(tmp_path / part / f"{n}{name[1:]}", values)
    with pytest.raises(LabError) as caught:
        read_dataset(tmp_path)
    assert "2 problems" in str(caught.value)
    for n in (1, 2):
        path = tmp_path / part / f"{n}{name[1:]}"
        assert f"{n}: expected one real number in each voxel; {path} holds {holds}" in str(caught.value)


def grid(shape=(10, 10, 10), **place) -> Grid:
    values: dict[str, Any] = {"spacing": (1.0, 1.0, 2.0), "origin": (0.0, 0.0, 0.0), "turn": 0.0} | place
    c, s = np.cos(values["turn"]), np.sin(values["turn"])
    rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag(values["spacing"])
    rows = np.column_stack([rotation, values["origin"]])
    return Grid(shape, tuple(tuple(map(float, row)) for row in rows))


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (grid(), None),
        (grid(spacing=(1.0001, 1, 2)), None),  # rounding of texts
        (grid(origin=(0.05, 0, 0)), None),
        (grid(shape=(10, 10, 11)), "shapes differ: 10 x 10 x 10 and 10 x 10 x 11"),
        (grid(spacing=(1, 1, 2.5)), "spacings differ: 1 x 1 x 2 and 1 x 1 x 2.5 mm"),
        (grid(origin=(0.5, 0, 0)), "origins differ"),
        (grid(turn=0.05), "directions differ"),
    ],
)
def test_grids_fit_up_to_rounding(other, says):
    found = grid().mismatch(other)
    assert found == says if says is None else says in (found or "")


def test_without_simpleitk_the_message_says_what_to_install(tmp_path, monkeypatch):
    path = save_volume(tmp_path / "a.mha", noise())
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(LabError, match=r"unifocal\[lab,io\]"):
        read_header(path)


def test_real_volumes_agree_with_simpleitk(shared):
    """Two libraries, two conventions of space: one volume."""
    import SimpleITK as sitk

    folder = shared / "data" / "picai_labels" / "csPCa_lesion_delineations" / "human_expert" / "resampled"
    for path in sorted(folder.iterdir())[:3]:
        volume, image = read_volume(path), sitk.ReadImage(str(path))
        np.testing.assert_array_equal(volume.values[0], sitk.GetArrayFromImage(image).T)
        point = image.TransformIndexToPhysicalPoint((3, 5, 7))
        ours = volume.grid.matrix @ [3, 5, 7, 1]
        assert ours[:3] == pytest.approx((-point[0], -point[1], point[2]), abs=1e-3)
        assert volume.grid.mismatch(replace(volume.grid)) is None
