"""Clipping and normalising, computed by hand."""

import numpy as np
import pytest
import torch

from unifocal.lab.preparation.intensity import clip, normalise
from unifocal.lab.settings import Settings


def image(*values):
    return torch.tensor(values, dtype=torch.float32).reshape(1, 1, -1)


def test_clip_to_values():
    values = np.array([-1000, -79, 0, 304, 2000], np.float32)
    clip(values, Settings(clip=(-79, 304)))
    assert values.tolist() == [-79, -79, 0, 304, 304]


@pytest.mark.parametrize("order", ["C", "F"])
def test_clip_to_percentiles_of_the_image(order):
    """Of 0 to 200 the percentiles 0.5 and 99.5 are 1 and 199."""
    values = np.asarray(np.random.default_rng(0).permutation(201).reshape(3, 67).astype(np.float32), order=order)
    before = values.copy()
    clip(values, Settings(clip_percentiles=(0.5, 99.5)))
    np.testing.assert_array_equal(values, np.clip(before, 1, 199))


def test_no_clip():
    values = np.array([-1e6, 1e6], np.float32)
    clip(values, Settings())
    assert values.tolist() == [-1e6, 1e6]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("none", [1, 2, 3, 6]),
        ("01", [0, 0.2, 0.4, 1]),
        ("z-score-01", [0, 0.2, 0.4, 1]),
        # mean 3; squares 4, 1, 0, 9 over n - 1 = 3 make the deviation sqrt(14 / 3)
        ("z-score", [-2 / np.sqrt(14 / 3), -1 / np.sqrt(14 / 3), 0, 3 / np.sqrt(14 / 3)]),
    ],
)
def test_normalise(how, expected):
    np.testing.assert_allclose(normalise(image(1, 2, 3, 6), how).flatten(), expected, atol=1e-6)


@pytest.mark.parametrize("how", ["01", "z-score-01", "z-score"])
def test_an_even_image_becomes_zero(how):
    for value in (0.0, 7.0, -1e6):
        assert (normalise(image(value, value, value * (1 + 1e-7)), how) == 0).all()


def test_values_far_from_zero_are_not_even():
    assert normalise(image(1000, 1001, 1004), "01").flatten().tolist() == [0, 0.25, 1]
