"""HD95 and NSD by hand, against every pair of surface points, against MONAI and against DeepMind's package."""

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from masks import SPACINGS, blobs, deepmind, monai, noise, shifted
from scipy import ndimage

from unifocal.lab.errors import LabError
from unifocal.lab.metrics import measure

SHAPES = [(15, 18), (9, 10, 8)]
MASKS = [make(shape, seed) for make in (blobs, noise) for shape in SHAPES for seed in range(3)]
CASES = [(*masks, spacing) for masks in MASKS for spacing in (None, SPACINGS[masks[0].ndim])]


def brute_hd95(prediction, truth, spacing):
    """By the definition: surface voxels one by one, all distances, the percentile between the two nearest ranks."""

    def surface(mask):
        inside = {tuple(voxel) for voxel in np.argwhere(mask).tolist()}
        steps = [step for step in itertools.product((-1, 0, 1), repeat=mask.ndim) if sum(map(abs, step)) == 1]
        return [v for v in inside if any(tuple(a + b for a, b in zip(v, s, strict=True)) not in inside for s in steps)]

    def percentile(numbers):
        ranks = sorted(numbers)
        place = 0.95 * (len(ranks) - 1)
        low = math.floor(place)
        high = min(low + 1, len(ranks) - 1)
        return ranks[low] + (place - low) * (ranks[high] - ranks[low])

    def directed(some, others):
        return percentile(
            min(math.dist([a * s for a, s in zip(p, spacing, strict=True)],
                          [b * s for b, s in zip(q, spacing, strict=True)]) for q in others)
            for p in some
        )  # fmt: skip

    a, b = surface(prediction), surface(truth)
    return max(directed(a, b), directed(b, a))


def monai_values(prediction, truth, spacing, tolerance):
    y_pred, y = (torch.from_numpy(mask)[None, None] for mask in (prediction, truth))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        distance = monai.compute_hausdorff_distance(y_pred, y, True, percentile=95, spacing=spacing)
        dice = monai.compute_surface_dice(y_pred, y, [tolerance], True, spacing=spacing, use_subvoxels=True)
    return float(distance), float(dice)


def deepmind_nsd(prediction, truth, spacing, tolerance):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        distances = deepmind.compute_surface_distances(truth == 1, prediction == 1, spacing)
        return deepmind.compute_surface_dice_at_tolerance(distances, tolerance)


@pytest.mark.parametrize(("prediction", "truth", "spacing"), CASES)
def test_three_implementations_agree(prediction, truth, spacing):
    found = measure(prediction, truth, spacing=spacing, tolerance=1.2)
    steps = spacing or (1.0,) * truth.ndim
    hd95, nsd = monai_values(prediction, truth, steps, 1.2)  # in float32
    assert found["HD95"] == pytest.approx(hd95, rel=1e-6)
    assert found["HD95"] == pytest.approx(brute_hd95(prediction, truth, steps), rel=1e-12)
    assert found["NSD"] == pytest.approx(nsd, rel=1e-6)
    assert found["NSD"] == pytest.approx(deepmind_nsd(prediction, truth, steps, 1.2), rel=1e-6)


def test_hd95_by_hand():
    """One pixel against two: distances 0, and 0 and 10 px, whose 95th percentile lies at 0.95 of the way."""
    truth = np.zeros((3, 20), np.uint8)
    truth[1, 2] = 1
    prediction = truth.copy()
    prediction[1, 12] = 1
    for one, other in ((prediction, truth), (truth, prediction)):
        assert measure(one, other)["HD95"] == pytest.approx(9.5)
        assert measure(one, other, spacing=(5, 0.3))["HD95"] == pytest.approx(0.3 * 9.5)


def test_hd95_is_the_greater_direction_and_not_the_percentile_of_both():
    """100 surface voxels meet; one false voxel is 1 % of its surface, but half of a small truth's."""
    truth = np.zeros((40, 40), np.uint8)
    truth[5, 5] = 1
    prediction = np.zeros_like(truth)
    prediction[5, 5:25] = 1  # distances 0 .. 19: 18.05 at 95 %; the way back is 0
    assert measure(prediction, truth)["HD95"] == pytest.approx(0.95 * 19)


@pytest.mark.parametrize(
    ("spacing", "near", "total"),
    [
        # Lines between the pixels, at their corners: a side of 4 pixels has 3 inner corners, one of 10 has 9, and the
        # four outer corners are cut across. After 5 px the long sides meet from 1 px before on; of the short side
        # within, one corner at each end is 1 px from the long sides.
        (None, 2 * 6 + 2 * math.hypot(0.5, 0.5) + 2, 2 * 9 + 2 * 3 + 4 * math.hypot(0.5, 0.5)),
        # Rows 2 mm apart: that corner is too far, and short sides count by their length.
        ((2.0, 1.0), 2 * 6 + 2 * math.hypot(1, 0.5), 2 * 9 + 2 * 3 * 2 + 4 * math.hypot(1, 0.5)),
    ],
)
def test_nsd_by_hand(spacing, near, total):
    truth = np.zeros((8, 24), np.uint8)
    truth[2:6, 3:13] = 1
    found = measure(shifted(truth, (0, 5)), truth, spacing=spacing)
    assert found["NSD"] == pytest.approx(near / total, rel=1e-6)


def test_the_tolerance_of_nsd_includes_its_end_and_is_one_by_default():
    truth = np.zeros((9, 9, 9), np.uint8)
    truth[3:6, 3:6, 3:6] = 1
    prediction = shifted(truth, (1, 0, 0))
    assert measure(prediction, truth)["NSD"] == measure(prediction, truth, spacing=(1, 1, 1))["NSD"] == 1
    for rounded in (0.9999999, 1.0000001):  # as float32 keeps 1 mm of a turned volume
        assert measure(prediction, truth, spacing=(rounded,) * 3)["NSD"] == 1
    assert measure(prediction, truth, spacing=(1.01, 1, 1))["NSD"] < 1
    assert measure(prediction, truth, spacing=(1.01, 1, 1), tolerance=1.01)["NSD"] == 1


@pytest.mark.parametrize("tolerance", [0, -1, math.nan, math.inf])
def test_a_tolerance_must_be_positive(tolerance):
    with pytest.raises(LabError, match="positive tolerance"):
        measure(np.eye(3, dtype=np.uint8), np.eye(3, dtype=np.uint8), tolerance=tolerance)


@pytest.mark.parametrize(("prediction", "truth"), MASKS[:6])
def test_turned_axes_and_mirrored_ones_change_nothing(prediction, truth):
    spacing = SPACINGS[truth.ndim]
    expected = pytest.approx(measure(prediction, truth, spacing=spacing), rel=1e-6)  # the table of areas is in float32
    for order in itertools.permutations(range(truth.ndim)):
        steps = [spacing[axis] for axis in order]
        assert measure(prediction.transpose(order), truth.transpose(order), spacing=steps) == expected
    assert measure(prediction[::-1], truth[::-1], spacing=spacing) == expected


@pytest.mark.parametrize(("prediction", "truth"), MASKS[:6])
def test_twice_the_spacing_is_twice_the_distance(prediction, truth):
    spacing = SPACINGS[truth.ndim]
    once = measure(prediction, truth, spacing=spacing, tolerance=1.2)
    twice = measure(prediction, truth, spacing=[2 * step for step in spacing], tolerance=2.4)
    assert twice["HD95"] == pytest.approx(2 * once["HD95"])
    assert twice["NSD"] == pytest.approx(once["NSD"])


def label_of(shared, name):
    """(labels, class, spacing) of one real case."""
    from unifocal.lab.data.masks import read_values
    from unifocal.lab.data.volumes import read_header

    if name == "BUSI":
        path = shared / "data/busi/Dataset_BUSI_with_GT/malignant/malignant (1)_mask.png"
        return read_values(path), int(read_values(path).max()), (1.0, 1.0)
    if name == "KiTS19":
        path, value = shared / "data/kits19_labels/data/case_00004/segmentation.nii.gz", 1
    else:
        folder = shared / "data/picai_labels/csPCa_lesion_delineations/human_expert/resampled"
        path = next(p for p in sorted(folder.iterdir()) if read_values(p).any())
        value = int(read_values(path).max())
    return read_values(path), value, read_header(path).grid.spacing


TOLERANCE = 2.1  # no distance between voxels of these spacings, which are rounded in each library's own way


@pytest.mark.parametrize("name", ["BUSI", "KiTS19", "PI-CAI"])
def test_real_labels_against_distance_transforms_monai_and_deepmind(shared, name):
    labels, value, spacing = label_of(shared, name)
    truth = np.asarray(labels == value).astype(np.uint8)
    prediction = shifted(truth, (1, 4, 2)[: truth.ndim])
    found = measure(prediction, truth, spacing=spacing, tolerance=TOLERANCE)
    around = tuple(slice(max(p.start - 2, 0), p.stop + 2) for p in ndimage.find_objects(truth | prediction)[0])
    prediction, truth = prediction[around], truth[around]
    hd95, nsd = monai_values(prediction, truth, spacing, TOLERANCE)
    assert (found["HD95"], found["NSD"]) == pytest.approx((hd95, nsd), rel=1e-5)
    assert found["NSD"] == pytest.approx(deepmind_nsd(prediction, truth, spacing, TOLERANCE), rel=1e-5)
    edges = [mask.astype(bool) & ~ndimage.binary_erosion(mask) for mask in (prediction, truth)]
    far = [ndimage.distance_transform_edt(~edge, sampling=spacing) for edge in edges]
    expected = max(np.percentile(far[1][edges[0]], 95), np.percentile(far[0][edges[1]], 95))
    assert found["HD95"] == pytest.approx(expected)
    assert 0.2 < found["NSD"] < 1 and found["HD95"] > min(spacing)
