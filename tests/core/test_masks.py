"""Volume and surface of masks: the engines of the CPU against the definition in float64."""

import math

import pytest
import torch
from torch import Tensor

from unifocal.sums import aten_masks, mask_exponent, mask_sums, of_voxel_sums
from unifocal.sums.engines import ENGINES

SHAPES = [
    (1,),
    (37,),
    (1, 9),
    (33, 6),
    (16, 48),
    (130, 70),
    (1, 1, 5),
    (3, 1, 40),
    (9, 17, 33),
    (5, 21, 96),
    (2, 3, 4, 5),
]
KINDS = ["blob", "shuffled", "empty", "full", "soft", "one-hot"]
DTYPES = {"blob": torch.int64, "shuffled": torch.uint8, "empty": torch.bool, "full": torch.int16}


def of_kind(kind: str, channels: int, shape: tuple[int, ...]) -> Tensor:
    """Labels of two images, (2, *shape) or (2, channels, *shape)."""
    draw = torch.Generator().manual_seed(math.prod(shape) + channels)
    classes = max(channels, 2)
    if kind in ("soft", "one-hot"):
        soft = torch.rand((2, channels, *shape), generator=draw)
        return soft if kind == "soft" else (soft > 0.7).to(torch.uint8)
    labels = torch.zeros((2, *shape), dtype=torch.int64)
    if kind == "shuffled":
        labels = torch.randint(0, classes, (2, *shape), generator=draw)
    elif kind == "full":
        labels += classes - 1
    elif kind == "blob":
        for c in range(1, classes):
            inside = tuple(slice(c * n // (classes + 1), (c * n + n) // (classes + 1) + 1) for n in shape)
            labels[(slice(None), *inside)] = c
    return labels.to(DTYPES[kind] if classes == 2 or kind != "empty" else torch.uint8)


def serving(engine: str, shape: tuple[int, ...]) -> None:
    labels = torch.zeros((1, 1, *shape))
    if reason := ENGINES[engine].why_not(labels, labels, None, None):
        pytest.skip(f"{engine}: {reason}")


@pytest.mark.parametrize("weighting", ["even", "weighted", "ignored"])
@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("engine", ["native", "aten"])
def test_masks_are_those_of_the_definition(engine, shape, kind, channels, weighting):
    serving(engine, shape)
    labels = of_kind(kind, channels, shape)
    dense = kind in ("soft", "one-hot")
    if weighting == "ignored" and (kind == "soft" or labels.dtype == torch.bool):
        pytest.skip("no label is left to mark what is ignored")
    draw = torch.Generator().manual_seed(7)
    weights = torch.rand((2, *shape), generator=draw).mul(3).sub(1).clamp_min(0) if weighting == "weighted" else None
    ignored = 77 if weighting == "ignored" else None
    if ignored:
        hidden = torch.rand((2, *shape), generator=draw) < 0.2
        labels = torch.where(hidden[:, None] if dense else hidden, torch.tensor(ignored, dtype=labels.dtype), labels)
    spacing = (0.7, 1.3, 2.0, 1.0)[: len(shape)]
    for dtype, tolerance in ((torch.float32, 2e-6), (torch.float64, 1e-12)):
        arguments = labels.to(dtype) if kind == "soft" else labels, weights, channels, ignored, spacing, dtype
        double = (labels.double() if kind == "soft" else labels, *arguments[1:5], torch.float64)
        for found, expected in zip(mask_sums(*arguments, engine), mask_sums(*double, "reference"), strict=True):
            assert found.dtype == dtype
            scale = expected.abs().max().item() * 1e-7 if dtype == torch.float32 else 0
            torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=scale)


@pytest.mark.parametrize("engine", ["native", "aten"])
def test_labels_are_read_where_they_lie(engine):
    serving(engine, (4, 4, 4))
    wide = torch.rand(2, 9, 11, 20, 3)
    soft = wide.movedim(-1, 1)[..., 2:18]  # channels last, and cropped
    hard = (wide[..., 0] * 3).to(torch.int32).transpose(1, 3)
    for labels in (soft, hard):
        arguments = (None, 3, None, (1.0, 1.0, 1.0), torch.float32)
        for found, expected in zip(
            mask_sums(labels, *arguments, engine), mask_sums(labels.contiguous(), *arguments, "reference"), strict=True
        ):
            torch.testing.assert_close(found, expected, rtol=2e-6, atol=1e-5)


@pytest.mark.parametrize("kind", ["blob", "soft"])
@pytest.mark.parametrize("shape", [(0,), (4, 0), (0, 3), (2, 0, 3), (2, 3, 0), (3, 3, 3, 0)], ids=str)
@pytest.mark.parametrize("engine", ["native", "aten", "reference"])
def test_no_voxels(engine, shape, kind):
    serving(engine, shape)
    labels = of_kind(kind, 3, shape)
    for found in mask_sums(labels, None, 3, None, (1.0,) * len(shape), torch.float32, engine):
        assert found.shape[0] == 2 and not found.any()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["shuffled", "soft"])
@pytest.mark.parametrize("shape", [(1, 700, 300), (2, 3, 400, 200)], ids=str)
def test_flat_volumes_are_cut_along_their_longest_axis(shape, kind, weighted, monkeypatch):
    cut: list[int] = []
    slabs = aten_masks._slabs

    def noted(labels, *more):
        cut.append(labels.shape[2])
        return slabs(labels, *more)

    monkeypatch.setattr(aten_masks, "_slabs", noted)
    labels, spacing = of_kind(kind, 2, shape), (2.0, 1.0, 0.5, 0.7)[: len(shape)]
    weights = torch.rand((2, *shape), generator=torch.Generator().manual_seed(1)) if weighted else None
    found = mask_sums(labels, weights, 2, None, spacing, torch.float64, "aten")
    assert cut == [max(shape[:-1])]
    for one, expected in zip(
        found, mask_sums(labels, weights, 2, None, spacing, torch.float64, "reference"), strict=True
    ):
        torch.testing.assert_close(one, expected, rtol=1e-12, atol=0)


def test_the_same_bits_from_any_number_of_threads():
    serving("native", (4, 4, 4))
    before = torch.get_num_threads()
    labels = (torch.randint(0, 3, (2, 40, 50, 60)), torch.rand(2, 3, 40, 50, 60))
    try:
        found = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append([t for y in labels for t in mask_sums(y, None, 3, None, (1.0,) * 3, torch.float32, "native")])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("engine", ["native", "aten", "reference"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(), (37,), (33, 6), (300, 130), (9, 17, 33), (2, 3, 4, 5)], ids=str)
def test_an_exponent_of_masks_is_that_of_their_sums(shape, kind, engine):
    serving(engine, shape or (1,))
    labels, spacing = of_kind(kind, 3, shape), (0.7, 1.3, 2.0, 1.0)[: len(shape)]
    weights = torch.rand((2, *shape), generator=torch.Generator().manual_seed(3)).sub(0.2).clamp_min(0)
    weights[1] = 0  # an image without a voxel that counts
    volume, surface, voxels = mask_sums(labels, weights, 3, None, spacing, torch.float64, "reference")
    gamma = (2 * volume + 0.5 * surface) / voxels.clamp_min(1e-30) + 0.25
    of_masks = mask_exponent(labels, weights, 3, None, spacing, size=2.0, smoothness=0.5, constant=0.25)
    factors, found = torch.rand(2, 1, 3), []
    for exponent in (of_masks, gamma.float()):
        x = torch.randn((2, 3, *shape), generator=torch.Generator().manual_seed(5)).requires_grad_()
        value = of_voxel_sums(
            lambda values, *_: ((values * factors).sum((0, 2)), None),
            x, labels, activation="sigmoid", wanted=("ce", "rest"), gamma=exponent, rest_gamma=exponent,
            voxel_weights=weights, engine=engine, noticed=[],
        )  # fmt: skip
        value.sum().backward()
        found.append((value, x.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
