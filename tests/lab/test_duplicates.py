"""What the eye takes for one image is found, what only looks alike in kind is not."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from unifocal.lab.data.duplicates import find_near_duplicates
from unifocal.lab.data.images import read_image
from unifocal.lab.data.reading import read_dataset
from unifocal.lab.errors import LabError
from unifocal.lab.synthetic import draw_case


@pytest.fixture(scope="module")
def busi(shared):
    dataset = read_dataset(shared / "data" / "busi")
    return dataset, find_near_duplicates(read_image(case) for case in dataset.cases)


def test_busi_groups_are_found_as_by_eye(busi):
    """The folder's own list was checked by eye; the lab finds exactly its 60 pairs, hence its 227 groups."""
    dataset, found = busi
    listed = [case.group for case in dataset.cases]
    truth = {(i, j) for j in range(280) for i in range(j) if listed[i] == listed[j]}
    pairs = {(pair.i, pair.j) for pair in found.pairs}
    assert len(truth) == 60
    assert pairs == truth
    assert len(set(found.groups)) == 227
    # A margin on both sides, so that another build of the resampling does not flip a pair.
    assert min(pair.similarity for pair in found.pairs) > 0.75


def test_busi_identical_pixels_cross_the_classes(busi):
    dataset, found = busi
    identical = [(dataset.cases[p.i].id, dataset.cases[p.j].id) for p in found.pairs if p.identical]
    assert identical == [("benign (433)", "malignant (145)")]
    assert found.pairs[0].identical
    assert [p.similarity for p in found.pairs] == sorted((p.similarity for p in found.pairs), reverse=True)


def edit(pixels, how):
    height, width = pixels.shape
    match how:
        case "brighter":
            return pixels * 0.6 + 70
        case "gamma":
            return 255 * (pixels / 255) ** 1.4
        case "jpeg":
            buffer = io.BytesIO()
            Image.fromarray(pixels.astype(np.uint8)).save(buffer, "JPEG", quality=40)
            return np.asarray(Image.open(buffer), np.float32)
        case "smaller":
            return np.asarray(Image.fromarray(pixels).resize((width // 2, height // 2)))
        case "cropped":
            return pixels[2:, 1:-1]
        case "mirrored":
            return pixels[:, ::-1]
        case "marked":  # burnt-in calipers
            marked = pixels.copy()
            marked[60, 40:90] = marked[40:90, 70] = 255
            return marked
    raise AssertionError(how)


@pytest.fixture(scope="module")
def scans():
    return [draw_case(n, seed=3)[0].astype(np.float32) for n in (0, 2, 3, 4)]


@pytest.mark.parametrize("how", ["brighter", "gamma", "jpeg", "smaller", "cropped", "mirrored", "marked"])
def test_an_edited_copy_is_found_and_nothing_else(scans, how):
    found = find_near_duplicates([*scans, edit(scans[1], how)])
    assert [(pair.i, pair.j, pair.identical) for pair in found.pairs] == [(1, 4, False)]
    assert found.groups == [0, 1, 2, 3, 1]


def test_identical_means_every_pixel_and_the_shape(scans):
    other = scans[0].copy()
    other[5, 5] += 1
    found = find_near_duplicates([scans[0], other, scans[0].copy()])
    assert [(p.i, p.j, p.identical) for p in found.pairs] == [(0, 2, True), (0, 1, False), (1, 2, False)]
    assert found.pairs[0].similarity == 1
    assert found.groups == [0, 0, 0]
    flat = find_near_duplicates([np.zeros((4, 8)), np.zeros((8, 4)), np.zeros((4, 8)), np.full((4, 8), 7.0)])
    assert [(p.i, p.j, p.identical) for p in flat.pairs] == [(0, 2, True)]  # even images resemble none


def test_unrelated_speckle_is_not_alike():
    rng = np.random.default_rng(0)
    speckle = [np.abs(ndimage.gaussian_filter(rng.normal(size=(90, 110)), 1.5)) for _ in range(150)]
    assert find_near_duplicates(speckle).pairs == []


def test_groups_join_by_way_of_others_and_across_blocks(monkeypatch):
    monkeypatch.setattr("unifocal.lab.data.duplicates.BLOCK", 3)
    rng = np.random.default_rng(0)
    pictures = [ndimage.gaussian_filter(rng.normal(size=(64, 64)), 2) for _ in range(8)]
    pictures[6] = pictures[1] * 3
    mixed = pictures[1] / pictures[1].std() + pictures[7] / pictures[7].std()  # correlates 0.71 with both
    found = find_near_duplicates([*pictures[:4], mixed, *pictures[5:]], threshold=0.6)
    assert {(p.i, p.j) for p in found.pairs} == {(1, 4), (1, 6), (4, 6), (4, 7)}
    assert found.groups == [0, 1, 2, 3, 1, 4, 1, 1]


def test_edges_of_use():
    assert find_near_duplicates([]).groups == []
    assert find_near_duplicates([np.eye(5)]).groups == [0]
    with pytest.raises(LabError, match=r"\(H, W\); got shape \(2, 3, 3\)"):
        find_near_duplicates([np.zeros((2, 3, 3))])
    with pytest.raises(LabError, match=r"got 1\.5"):
        find_near_duplicates([], threshold=1.5)
