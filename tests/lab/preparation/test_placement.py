"""From the grid of the file to the training grid and back; by slicing and by SciPy."""

import json

import numpy as np
import pytest
import torch
from scipy.ndimage import zoom

from unifocal.lab.errors import LabError
from unifocal.lab.preparation import placement as module
from unifocal.lab.preparation.placement import Placement, to_original
from unifocal.lab.settings import Settings, make_settings


def one_hot(labels, classes):
    return torch.stack([torch.from_numpy((labels == c).astype(np.float32)) for c in range(classes)])


@pytest.mark.parametrize(
    ("settings", "shape", "spacing", "resampled", "start", "size"),
    [
        ({}, (30, 40, 50), (1.0, 1, 1), (30, 40, 50), (0, 0, 0), (30, 40, 50)),
        ({}, (300, 400), None, (128, 128), (0, 0), (128, 128)),
        ({"patch": (48,)}, (300, 400), None, (300, 400), (0, 0), (300, 400)),
        ({"crop": (100, 500)}, (300, 400), None, (300, 400), (100, -50), (100, 500)),
        ({"size": (64, 96)}, (300, 400), None, (64, 96), (0, 0), (64, 96)),
        # KiTS19 of the papers, slices first: 611 of 0.5 mm, 512 of 0.919922 mm
        ({"spacing": (3.22, 1.62, 1.62)}, (611, 512, 512), (0.5, 0.919922, 0.919922), (95, 291, 291), *[(0, 0, 0)],
         (95, 291, 291)),
        # PI-CAI's baseline: 3 x 0.5 x 0.5 mm, cut to 20 x 256 x 256, which pads one slice
        ({"spacing": (0.5, 0.5, 3), "crop": (256, 256, 20)}, (640, 640, 19), (0.3, 0.3, 3.0), (384, 384, 19),
         (64, 64, -1), (256, 256, 20)),
        ({"spacing": (5,)}, (4, 9, 1), (1.0, 1.0, 1.0), (1, 2, 1), (0, 0, 0), (1, 2, 1)),
    ],
)  # fmt: skip
def test_where_the_training_grid_lies(settings, shape, spacing, resampled, start, size):
    found = Placement.of(shape, spacing, make_settings(**settings))
    assert found == Placement(shape, resampled, start, size)
    assert Placement.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize("name", ["size", "spacing", "crop"])
def test_one_number_or_one_for_each_axis(name):
    with pytest.raises(LabError, match=f"{name}: expected one number, or 3, .*got 8,8"):
        Placement.of((10, 10, 10), (1.0, 1.0, 1.0), make_settings(**{name: (8, 8)}))


def test_cut_takes_the_centre_and_fills_up():
    array = np.arange(1, 7, dtype=np.float32)[None, :, None, None] * np.ones((2, 1, 3, 4), np.float32)
    cut = Placement.of((6, 3, 4), None, Settings(crop=(4, 5, 4))).cut(array, fill=0)
    assert cut.shape == (2, 4, 5, 4)
    np.testing.assert_array_equal(cut[1, :, :, 0], [[0, n, n, n, 0] for n in (2, 3, 4, 5)])
    cut = Placement.of((6, 3, 4), None, Settings(crop=(9, 3, 1))).cut(array, fill=0)
    # six slices in nine: the odd one out comes first
    assert cut[0, :, 0, 0].tolist() == [0, 0, 1, 2, 3, 4, 5, 6, 0]


@pytest.mark.parametrize("crop", [(4, 5, 7), (9, 3, 7), (12, 12, 12), (1, 1, 1)])
def test_the_way_back_undoes_the_cut(crop):
    labels = np.random.default_rng(0).integers(0, 3, (6, 5, 7)).astype(np.uint8)
    placement = Placement.of(labels.shape, None, Settings(crop=crop))
    back = to_original(one_hot(placement.cut(labels, fill=0), 3), placement)
    inside = np.zeros(labels.shape, bool)
    inside[tuple(slice(max(s, 0), s + n) for s, n in zip(placement.start, crop, strict=True))] = True
    np.testing.assert_array_equal(back[inside], labels[inside])
    assert (back[~inside] == 0).all() and back.dtype == np.uint8


@pytest.mark.parametrize("block", [1, 500, 1 << 24])
@pytest.mark.parametrize("size", [(5, 8, 9), (12, 5, 6), (17, 23, 9)])
def test_the_way_back_is_linear_and_then_the_most_probable(monkeypatch, block, size):
    """Against SciPy where the file is finer; whatever the blocks."""
    original = (20, 23, 11)
    monkeypatch.setattr(module, "BLOCK", block)
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), size).astype(np.float32).transpose(3, 0, 1, 2)
    factors = [o / n for o, n in zip(original, size, strict=True)]
    expected = np.stack([zoom(p, factors, order=1, mode="nearest", grid_mode=True) for p in probabilities]).argmax(0)
    placement = Placement(original, size, (0, 0, 0), size)
    found = to_original(torch.from_numpy(probabilities.copy()), placement)
    assert (found == expected).mean() > 0.999  # equal but for ties in the last bit


def test_the_way_back_from_a_finer_grid():
    labels = np.zeros((6, 8, 4), np.uint8)
    labels[2:4, 1:7, 1:] = 2
    fine = labels.repeat(3, 0).repeat(2, 1).repeat(2, 2)
    placement = Placement(labels.shape, fine.shape, (0, 0, 0), fine.shape)
    np.testing.assert_array_equal(to_original(one_hot(fine, 3), placement), labels)


def test_the_way_back_after_resampling_and_cutting():
    """A ball that the crop holds comes back as a ball; where the crop did not reach is background."""
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in (40, 44, 30)), indexing="ij"))
    ball = (((grid - np.array([22, 20, 15])[:, None, None, None]) ** 2).sum(0) < 64).astype(np.uint8)
    placement = Placement.of(ball.shape, (1.0, 1.0, 2.0), Settings(spacing=(2,), crop=(16, 30, 30)))
    assert placement.resampled == (20, 22, 30)
    halved = ball.reshape(20, 2, 22, 2, 30).mean((1, 3))
    foreground = torch.from_numpy(placement.cut(halved.astype(np.float32), fill=0))
    back = to_original(torch.stack([1 - foreground, foreground]), placement)
    assert back.shape == ball.shape
    assert 2 * (back & ball).sum() / (back.sum() + ball.sum()) > 0.95
    outside = to_original(torch.stack([0 * foreground, foreground + 1]), placement)
    rows = np.flatnonzero(outside.any((1, 2)))
    assert (rows.min(), rows.max()) == (4, 35)  # 16 of 20, from 2 on, two old slices each


def test_pictures_come_back():
    mask = np.zeros((60, 90), np.uint8)
    mask[10:40, 50:80] = 1
    placement = Placement(mask.shape, (30, 45), (0, 0), (30, 45))
    np.testing.assert_array_equal(to_original(one_hot(mask[::2, ::2], 2), placement), mask)


def test_probabilities_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="expected probabilities of shape"):
        to_original(torch.zeros(2, 4, 4), Placement((8, 8), (5, 4), (0, 0), (5, 4)))
