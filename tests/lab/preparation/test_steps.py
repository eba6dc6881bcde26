"""A case as the network sees it: the order of the steps, sequences, colours, axes, and real data."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from volume_files import save_volume

from unifocal.lab.data.cases import IGNORE, Case, Dataset
from unifocal.lab.data.images import read_image
from unifocal.lab.data.masks import read_mask
from unifocal.lab.data.reading import read_dataset
from unifocal.lab.data.volumes import read_volume
from unifocal.lab.errors import LabError
from unifocal.lab.fitting import check_preparation
from unifocal.lab.preparation.placement import to_original
from unifocal.lab.preparation.steps import prepare_case, prepare_image
from unifocal.lab.settings import Settings, make_settings


def make_dataset(folder, case, dimension=3, **fields):
    values: dict[str, Any] = {"classes": ("background", "lesion"), "values": {0: 0, 1: 1, 9: IGNORE}} | fields
    return Dataset(folder.name, "plain", folder, (case,), dimension=dimension, **values)


def as_published(image, size=128):
    """Grey pictures of the published comparisons: resized, standardised, brought to [0, 1]; written out once more."""
    grey = F.interpolate(torch.from_numpy(image)[None, None], (size, size), mode="bilinear", antialias=True)[0]
    grey = (grey - grey.mean()) / grey.std()
    return (grey - grey.min()) / (grey.max() - grey.min())


def test_real_ultrasound_is_prepared_as_published(shared):
    dataset = read_dataset(shared / "data" / "busi")
    for case in dataset.cases[::40]:
        prepared, placement = prepare_case(case, dataset, Settings())
        assert torch.equal(prepared.image, as_published(read_image(case)))
        mask = read_mask(case, dataset)
        assert placement.original == mask.shape and prepared.labels.dtype == torch.uint8
        rows, columns = (np.floor((np.arange(128) + 0.5) * n / 128).astype(int) for n in mask.shape)
        np.testing.assert_array_equal(prepared.labels, mask[np.ix_(rows, columns)])


def test_real_retina_in_colour(shared):
    """Red, green and blue of one picture share a scale: their ratios are part of what it shows."""
    dataset = read_dataset(shared / "data" / "chase_db1")
    case = dataset.cases[0]
    image, placement = prepare_image(case, dataset, Settings(size=(64, 96), colour=True))
    assert image.shape == (3, 64, 96) and image.min() == 0 and image.max() == 1
    stored = np.asarray(Image.open(case.image))
    assert placement.original == stored.shape[:2]
    small = np.asarray(Image.fromarray(stored).resize((96, 64), Image.Resampling.BILINEAR, reducing_gap=None), float)
    expected = (small - small.min()) / (small.max() - small.min())
    assert np.abs(image.numpy() - expected.transpose(2, 0, 1)).max() < 0.01  # Pillow rounds to whole values
    assert prepare_image(case, dataset, Settings(size=(64, 96)))[0].shape == (1, 64, 96)


def test_real_brain_tumour_four_sequences_in_one_file(shared):
    """Each of the four is normalised by itself, and comes in the order of dataset.json."""
    dataset = read_dataset(shared / "data" / "msd_brain_tumour_crop")
    case = dataset.cases[0]
    prepared, placement = prepare_case(case, dataset, make_settings(spacing="2", intensity="z-score"))
    assert prepared.image.shape == (4, *placement.size) == (4, 74, 74, 22)
    assert prepared.image.is_contiguous() and prepared.labels.is_contiguous()
    np.testing.assert_allclose(prepared.image.flatten(1).mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(prepared.image.flatten(1).std(1), 1, atol=1e-5)
    stored = np.moveaxis(read_volume(case.image).values.astype(float), 0, -1)
    centre = stored[:, :, 20:24].mean(2)  # two slices become one, and the widened triangle takes some of four
    for channel in range(4):
        halves = centre[:146, :146, channel].reshape(73, 2, 73, 2).mean((1, 3))
        seen = prepared.image[channel, :73, :73, 10:12].mean(-1).numpy()
        assert np.corrcoef(halves.ravel(), seen.ravel())[0, 1] > 0.97
    one = replace(dataset, sequences=("T1gd",), channels=(2,))
    torch.testing.assert_close(prepare_case(case, one, make_settings(spacing="2", intensity="z-score"))[0].image[0],
                               prepared.image[2])  # fmt: skip
    back = to_original(F.one_hot(prepared.labels.long(), 4).movedim(-1, 0).float(), placement)
    truth = read_mask(case, dataset)
    dice = [2 * ((back == c) & (truth == c)).sum() / ((back == c).sum() + (truth == c).sum()) for c in (1, 2, 3)]
    assert min(dice) > 0.85


def test_axes_and_world_positions_are_those_of_the_file(tmp_path):
    """A volume whose values are the millimetres along x: after resampling they still say where a voxel is."""
    shape, spacing, origin = (10, 16, 21), (3.0, 0.8, 1.1), (-5.0, 7.0, 2.0)
    index = np.indices(shape)
    for number, directions in enumerate([(1, 1, 1), (-1, 1, 1)]):
        x = origin[0] + directions[0] * spacing[0] * index[0]
        path = save_volume(tmp_path / f"{number}.nii.gz", x.astype(np.float32), spacing, origin, directions)
        mask = save_volume(tmp_path / f"{number}_mask.nii.gz", np.zeros(shape, np.uint8), spacing, origin, directions)
        case = Case("a", (path,), (mask,))
        dataset = make_dataset(tmp_path, case)
        image, placement = prepare_image(case, dataset, make_settings(spacing="4.6,1.6,1.1", intensity="none"))
        assert placement.size == (7, 8, 21)  # 30 mm in steps of 4.6 are 6.5, of which seven are made
        first = origin[0] - directions[0] * spacing[0] / 2  # where the extent begins
        expected = first + directions[0] * (np.arange(7) + 0.5) * 30 / 7
        np.testing.assert_allclose(image[0, :, 3, 5], expected, atol=1e-4)


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
def test_formats_agree(tmp_path, ending):
    pytest.importorskip("SimpleITK")
    values = np.random.default_rng(0).normal(100, 30, (9, 8, 7)).astype(np.float32)
    mask = (values > 120).astype(np.uint8)
    seen = []
    for suffix in (".nii.gz", ending):
        paths = (save_volume(tmp_path / f"a{part}{suffix}", array, (1, 2, 3))
                 for part, array in (("", values), ("_mask", mask)))  # fmt: skip
        image, label = paths
        case = Case("a", (image,), (label,))
        seen.append(prepare_case(case, make_dataset(tmp_path, case), make_settings(spacing="2"))[0])
    assert torch.equal(seen[0].image, seen[1].image) and torch.equal(seen[0].labels, seen[1].labels)


def test_clip_then_resample_then_normalise(tmp_path):
    """One voxel of metal beside soft tissue is clipped before it is spread; [0, 1] is filled after that."""
    values = np.array([0, 100, 100, 3000], np.int16).reshape(4, 1, 1)
    path = save_volume(tmp_path / "a.nii.gz", values)
    case = Case("a", (path,), ())
    settings = make_settings(size="2,1,1", clip="0,200", intensity="none")
    image, _ = prepare_image(case, make_dataset(tmp_path, case), settings)
    # Clipped to 0, 100, 100, 200. Halved, with weights 3, 3 and 1 (of 7; centre of mass 5/7, tilted to 1/2):
    # variance 24/49, so each weight changes by 1 - (3/14) (x - 5/7) / (24/49): 21/16, 7/8 and 7/16 of 3/7, 3/7, 1/7.
    expected = [100 * (3 / 7 * 7 / 8 + 1 / 7 * 7 / 16), 0]
    expected[1] = 200 - expected[0]
    np.testing.assert_allclose(image.flatten(), expected, atol=1e-3)
    image, _ = prepare_image(case, make_dataset(tmp_path, case), make_settings(size="2,1,1", clip="0,200"))
    np.testing.assert_allclose(image.flatten(), [0, 1], atol=1e-6)


def test_padding_is_zero_and_ignored_and_does_not_count(tmp_path):
    values = np.arange(10, 18, dtype=np.int16).reshape(2, 2, 2)
    image = save_volume(tmp_path / "a.nii.gz", values)
    mask = save_volume(tmp_path / "a_mask.nii.gz", np.full((2, 2, 2), 1, np.uint8))
    case = Case("a", (image,), (mask,))
    prepared, _ = prepare_case(case, make_dataset(tmp_path, case), make_settings(crop="4", intensity="z-score"))
    inside = prepared.image[0, 1:3, 1:3, 1:3]
    np.testing.assert_allclose(inside.mean(), 0, atol=1e-6)
    np.testing.assert_allclose(inside.std(), 1, atol=1e-6)
    assert (prepared.image != 0).sum() == 8
    assert (prepared.labels[1:3, 1:3, 1:3] == 1).all() and (prepared.labels == IGNORE).sum() == 64 - 8


def test_ignored_voxels_are_kept(tmp_path):
    values = np.zeros((8, 8, 8), np.uint8)
    values[2:6], values[:, :2] = 1, 9
    mask = save_volume(tmp_path / "m.nii.gz", values)
    case = Case("a", (save_volume(tmp_path / "a.nii.gz", values),), (mask,))
    for changes in ({}, {"spacing": "2"}, {"size": "5,9,8"}, {"crop": "6,6,6"}):
        labels = prepare_case(case, make_dataset(tmp_path, case), make_settings(**changes))[0].labels.numpy()
        assert set(np.unique(labels)) <= {0, 1, IGNORE} and (labels == IGNORE).any() and (labels == 1).any()


def test_sequences_with_grids_of_their_own(tmp_path):
    """As PI-CAI has them: ADC coarser, shifted and larger than T2W. A lesion lies in one place in both."""
    t2w_grid: dict[str, Any] = {"spacing": (0.5, 0.5, 3.0), "origin": (-10.0, -10.0, -12.0)}
    adc_grid: dict[str, Any] = {"spacing": (2.0, 2.0, 3.6), "origin": (-21.0, -19.0, -17.0)}

    def blob(shape, spacing, origin):
        at = np.indices(shape) * np.reshape(spacing, (3, 1, 1, 1)) + np.reshape(origin, (3, 1, 1, 1))
        distance = ((at - np.array([3.0, -2.0, 1.0]).reshape(3, 1, 1, 1)) ** 2).sum(0)
        return np.exp(-distance / 128).astype(np.float32)

    t2w, adc = blob((40, 40, 9), **t2w_grid), blob((20, 20, 10), **adc_grid)
    paths = (
        save_volume(tmp_path / "t2w.nii.gz", t2w, **t2w_grid),
        save_volume(tmp_path / "adc.nii.gz", 900 * adc, **adc_grid),
    )
    mask = save_volume(tmp_path / "mask.nii.gz", (t2w > 0.5).astype(np.uint8), **t2w_grid)
    case = Case("1", paths, (mask,))
    dataset = make_dataset(tmp_path, case, sequences=("t2w", "adc"), aligned=False)
    for changes in ({}, {"spacing": "1,1,3"}, {"spacing": "1,1,3", "crop": "16,24,8"}):
        prepared, _ = prepare_case(case, dataset, make_settings(**changes))
        assert prepared.image.shape[0] == 2 and prepared.image.shape[1:] == prepared.labels.shape
        # Linear interpolation flattens the bump by up to 0.04; half a voxel of ADC off would make 0.08.
        assert (prepared.image[0] - prepared.image[1]).abs().max() < 0.05
        assert prepared.image[1][prepared.labels == 1].min() > prepared.image[1][prepared.labels == 0].max() - 0.1


def test_what_does_not_fit_is_said(tmp_path):
    volume = save_volume(tmp_path / "a.nii.gz", np.zeros((4, 4, 4), np.int16))
    case = Case("a", (volume,), ())
    dataset = make_dataset(tmp_path, case, sequences=("t1", "t2"))
    with pytest.raises(LabError, match="expected the images t1, t2; case 'a' has 1"):
        prepare_image(case, dataset, Settings())
    with pytest.raises(LabError, match="case 'a' has masks alone"):
        prepare_image(Case("a", (), (volume,)), dataset, Settings())
    with pytest.raises(LabError, match="colour: expected pictures"):
        check_preparation(dataset, Settings(colour=True))
    with pytest.raises(LabError, match=r"size: expected one number, or 3, .*got 8,8"):
        check_preparation(dataset, Settings(size=(8, 8)))
    with pytest.raises(LabError, match="spacing: expected volumes"):
        check_preparation(replace(dataset, dimension=2), Settings(spacing=(1,)))
    with pytest.raises(LabError, match="clip_percentiles: expected two numbers from 0 to 100; got 1,101"):
        check_preparation(dataset, Settings(clip_percentiles=(1, 101)))
    other = Case("a", (volume,), (save_volume(tmp_path / "m.nii.gz", np.zeros((4, 4, 5), np.uint8)),))
    with pytest.raises(LabError, match=r"expected a mask of the image's shape, \(4, 4, 4\); got \(4, 4, 5\)"):
        prepare_case(other, make_dataset(tmp_path, other), Settings())
    nan = np.zeros((4, 4, 4), np.float32)
    nan[1, 2, 3] = np.nan
    broken = Case("b", (save_volume(tmp_path / "b.nii.gz", nan),), ())
    with pytest.raises(LabError, match=r"b.nii.gz holds NaN"):
        prepare_image(broken, make_dataset(tmp_path, broken), Settings())


def test_pictures_of_several_sequences(tmp_path):
    paths = []
    for n in range(2):
        Image.fromarray(np.full((6, 8), 10, np.uint8) + np.arange(8, dtype=np.uint8) * (n + 1)).save(
            tmp_path / f"{n}.png"
        )
        paths.append(tmp_path / f"{n}.png")
    case = Case("a", tuple(paths), ())
    dataset = make_dataset(tmp_path, case, dimension=2, sequences=("one", "two"), values=None)
    image, _ = prepare_image(case, dataset, make_settings(size="6,8"))
    np.testing.assert_allclose(image, np.broadcast_to(np.arange(8) / 7, (2, 6, 8)), atol=1e-6)
    assert prepare_image(case, dataset, make_settings(size="6,8", colour=True))[0].shape == (6, 6, 8)
