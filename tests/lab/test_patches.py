"""Where patches lie, what is cut, how it is padded."""

import numpy as np
import pytest
import torch
from scipy import stats

from unifocal.lab.errors import LabError
from unifocal.lab.patches import by_class, common_shape, cut, pad, place, unpad
from unifocal.lab.settings import each_axis


def generators(n):
    return [np.random.Generator(np.random.PCG64((0, i))) for i in range(n)]


def test_one_number_stands_for_every_axis():
    assert each_axis("patch", (8,), 3) == (8, 8, 8)
    assert each_axis("spacing", (3.0, 0.5, 0.5), 3) == (3.0, 0.5, 0.5)
    with pytest.raises(LabError, match=r"patch: expected one number, or 3, .* got 2"):
        each_axis("patch", (8, 8), 3)


def test_every_place_comes_equally_often():
    starts = np.array([place((7, 5), (4, 3), [], 1.0, draw) for draw in generators(6000)])
    counts = np.bincount(starts[:, 0] * 3 + starts[:, 1], minlength=12)
    assert counts.size == 12 and stats.chisquare(counts).pvalue > 1e-4


def test_the_share_on_foreground_is_that_asked_for():
    """A lone voxel is seen by chance in 9 of 90 * 90 places, so almost every patch that shows it was put there."""
    lone, n, share = [np.array([[50, 60]])], 3000, 0.4
    starts = np.array([place((92, 92), (3, 3), lone, share, draw) for draw in generators(n)])
    on = int((starts == (49, 59)).all(1).sum())
    low, high = stats.binom.interval(0.9999, n, share + (1 - share) / 90**2)
    assert low <= on <= high


def test_classes_come_evenly_however_rare():
    labels = np.zeros((60, 60), np.uint8)
    labels[:30], labels[45, 50] = 1, 2
    positions = np.argwhere(labels)
    foreground = by_class(positions, labels)
    assert [len(group) for group in foreground] == [1800, 1]
    assert all((labels[tuple(group.T)] == label).all() for label, group in enumerate(foreground, 1))
    starts = np.array([place((60, 60), (5, 5), foreground, 1.0, draw) for draw in generators(2000)])
    low, high = stats.binom.interval(0.9999, 2000, 0.5)
    assert low <= (starts == (43, 48)).all(1).sum() <= high


def test_a_patch_is_centred_on_its_voxel_unless_it_would_leave_the_case():
    def start(*voxel, patch=(4, 5)):
        return place((20, 30), patch, [np.array([voxel])], 1.0, generators(1)[0])

    assert start(10, 12) == (8, 10)  # the voxel is the middle one, or the one after the middle
    assert start(0, 29) == (0, 25) and start(19, 1) == (16, 0)
    assert start(10, 12, patch=(40, 8)) == (0, 8)  # larger than the case


def test_cut_and_fill():
    array = np.arange(2 * 5 * 6).reshape(2, 5, 6)
    assert np.array_equal(cut(array, (1, 2), (3, 4), 9), array[:, 1:4, 2:6])
    surrounded = np.pad(array, ((0, 0), (4, 4), (4, 4)), constant_values=9)
    for start, size in (((-2, 1), (4, 4)), ((3, 4), (6, 3)), ((-1, -3), (9, 11)), ((0, 0), (5, 7))):
        there = tuple(slice(a + 4, a + 4 + side) for a, side in zip(start, size, strict=True))
        assert np.array_equal(cut(array, start, size, 9), surrounded[:, *there])


def test_of_a_memory_map_only_the_patch_is_touched(tmp_path):
    np.save(tmp_path / "image.npy", np.zeros((1, 50, 50), np.float32))
    array = np.load(tmp_path / "image.npy", mmap_mode="r")
    part = cut(array, (10, 10), (5, 5), 0)
    assert isinstance(part, np.memmap) and np.shares_memory(part, array) and part.shape == (1, 5, 5)


def test_padding_is_at_the_end_and_can_be_undone():
    tensor = torch.arange(12.0).reshape(1, 3, 4)
    shape = common_shape([(3, 4), (2, 5)], (4, 2))
    assert shape == (4, 6)
    padded = pad(tensor, shape, 7)
    assert torch.equal(padded[:, :3, :4], tensor) and padded.sum() == tensor.sum() + 7 * 12
    assert torch.equal(unpad(padded, (3, 4)), tensor)
    assert pad(tensor, (3, 4), 7) is tensor
