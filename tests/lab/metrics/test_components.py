"""Lesions by hand, against a flood fill, and as rows that a report can sort by size."""

import itertools

import numpy as np
import pytest
from masks import noise

from unifocal.lab.metrics import lesions, measure

LESION_METRICS = ("lesion recall", "lesion precision", "lesion F1", "false lesions")


def flood(mask):
    """The components as sets of voxels, neighbours by corners too."""
    left = {tuple(voxel) for voxel in np.argwhere(mask).tolist()}
    steps = list(itertools.product((-1, 0, 1), repeat=mask.ndim))
    found = []
    while left:
        component, edge = set(), [left.pop()]
        while edge:
            voxel = edge.pop()
            component.add(voxel)
            near = {tuple(a + b for a, b in zip(voxel, step, strict=True)) for step in steps} & left
            left -= near
            edge += near
        found.append(component)
    return found


def test_by_hand():
    truth = np.zeros((8, 12), np.uint8)
    truth[0, 0] = 1  # missed
    truth[3:5, 1:4] = 1  # six pixels, two of them covered
    truth[5, 4] = 1  # joined to these by a corner: seven pixels in all
    truth[1, 8:10] = 1  # covered whole, together with the next one, by one prediction
    truth[1, 11] = 1
    prediction = np.zeros_like(truth)
    prediction[3:5, 1] = 1
    prediction[1, 8:12] = 1
    prediction[7, 11] = prediction[7, 0] = 1  # false, twice
    found = measure(prediction, truth)
    assert [found[name] for name in LESION_METRICS] == pytest.approx([3 / 4, 2 / 4, 3 / (3 + (1 + 2) / 2), 2])
    rows = lesions(prediction, truth, spacing=(2.0, 0.5))
    assert [(row.voxels, row.size, row.overlap, row.found) for row in rows] == [
        (1, 1.0, 0.0, False),
        (2, 2.0, 1.0, True),
        (1, 1.0, 1.0, True),
        (7, 7.0, pytest.approx(2 / 7), True),
    ]


def test_sizes_are_volumes_of_the_spacing_and_counts_without_one():
    truth = np.zeros((4, 4, 4), np.uint8)
    truth[:2, :2, :1] = 3
    assert [(row.voxels, row.size) for row in lesions(truth, truth, 3)] == [(4, 4.0)]
    assert [(row.voxels, row.size) for row in lesions(truth, truth, 3, spacing=(0.5, 0.5, 3))] == [(4, 3.0)]
    assert lesions(truth, truth, 1) == []


def test_one_voxel_is_enough_to_find_a_lesion_and_to_be_no_false_one():
    truth = np.zeros((9, 9, 9), np.uint8)
    truth[:4] = 1
    prediction = np.zeros_like(truth)
    prediction[3, 4, 4] = prediction[4, 4, 4] = 1
    found = measure(prediction, truth)
    assert [found[name] for name in LESION_METRICS] == [1, 1, 1, 0]
    prediction[3, 4, 4] = 0  # beside it is not in it
    found = measure(prediction, truth)
    assert [found[name] for name in LESION_METRICS] == [0, 0, 0, 1]


@pytest.mark.parametrize("shape", [(19, 23), (9, 8, 10)])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_a_flood_fill(shape, seed):
    prediction, truth = noise(shape, seed, share=0.12 if len(shape) == 2 else 0.06)
    wanted, offered = flood(truth), flood(prediction)
    hit = [component for component in wanted if any(prediction[voxel] for voxel in component)]
    false = [component for component in offered if not any(truth[voxel] for voxel in component)]
    assert 0 < len(hit) < len(wanted) and 0 < len(false) < len(offered)
    expected = [
        len(hit) / len(wanted),
        1 - len(false) / len(offered),
        len(hit) / (len(hit) + (len(wanted) - len(hit) + len(false)) / 2),
        len(false),
    ]
    found = measure(prediction, truth)
    assert [found[name] for name in LESION_METRICS] == pytest.approx(expected)
    rows = sorted((row.voxels, row.overlap) for row in lesions(prediction, truth))
    assert rows == sorted((len(c), sum(int(prediction[voxel]) for voxel in c) / len(c)) for c in wanted)
