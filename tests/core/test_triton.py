"""The Triton engine against the definition: in Triton's interpreter on a CPU, and compiled where there is a GPU.

The interpreter must be chosen before Triton is first imported, so those tests run in a process of their own, which is
`TRITON_INTERPRET=1 pytest tests/core/test_triton.py`.
"""

import importlib.util
import itertools
import math
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from unifocal.sums import engines, mask_sums, reference
from unifocal.sums import triton as engine
from unifocal.sums.form import Form
from unifocal.sums.labels import signed

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
INSTALLED = importlib.util.find_spec("triton") is not None
ALL = ("tp", "fp", "fn", "tn", "ce", "rest")
ACTIVATIONS = ("softmax", "sigmoid", "none")

FORMS = ("hard", "soft", "one-hot")
LEFT_OUT = ("", "weights", "ignore", "weights ignore")


def together(third: tuple[Any, ...]) -> Any:
    """(form, masks, one of `third`): all of them where there is a GPU; the interpreter takes its time, and is given so
    many that each two values meet."""
    every = list(itertools.product(FORMS, LEFT_OUT, third))
    numbered = itertools.product(enumerate(FORMS), enumerate(LEFT_OUT))
    paired = [(form, masks, third[(i + j) % len(third)]) for (i, form), (j, masks) in numbered]
    return paired if INTERPRETED else every


needs_triton = pytest.mark.skipif(not INSTALLED, reason="the package triton is not installed")


def hard(channels: int, voxels: int, images: int = 2, dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.randint(0, max(channels, 2), (images, voxels)).to(dtype)


def soft(channels: int, voxels: int, images: int = 2) -> Tensor:
    return torch.rand(images, channels, voxels)


def logits(channels: int, voxels: int, images: int = 2, scale: float = 3.0) -> Tensor:
    return torch.randn(images, channels, voxels) * scale


class Cases:
    """Every case, on whatever device; collected by the two classes below."""

    device = "cpu"
    digits = 3e-6  # relative, of sums; the gradient has about a third of this precision

    @pytest.fixture(autouse=True)
    def small_tiles(self, monkeypatch):
        """Several tiles and programs, ragged ends and few numbers, and whatever the kernels do not write is NaN."""
        torch.manual_seed(0)
        monkeypatch.setattr(engine, "FORWARD", (4, 4, 1))
        monkeypatch.setattr(engine, "BACKWARD", (4, 2, 1))
        monkeypatch.setattr(engine, "BACKWARD_OF_ALL", (2, 4, 1))
        monkeypatch.setattr(engine, "MASK_CHANNELS", 8)
        monkeypatch.setattr(engine, "PROGRAMS", 3)
        monkeypatch.setattr(engine, "MASK_PROGRAMS", 3)
        monkeypatch.setattr(engine, "WIDTH", 2)
        monkeypatch.setattr(engine, "FOLDED", 1)
        monkeypatch.setattr(engine, "MASK_VOXELS", 32)
        monkeypatch.setattr(engine, "MASK_NUMBERS", 128)
        monkeypatch.setattr(engine, "MASK_NUMBERS_DENSE", 64)
        empty, empty_like = torch.empty, torch.empty_like
        monkeypatch.setattr(torch, "empty", lambda *a, **k: empty(*a, **k).fill_(torch.nan))
        monkeypatch.setattr(torch, "empty_like", lambda *a, **k: empty_like(*a, **k).fill_(torch.nan))

    def put(self, *tensors: Tensor) -> list[Tensor]:
        return [t.to(self.device) for t in tensors]

    def run(
        self,
        x: Tensor,
        labels: Tensor,
        weights: Tensor | None = None,
        *,
        gamma: object = 0.7,
        rest_gamma: object = 1.6,
        activation: str = "softmax",
        wanted: tuple[str, ...] = ALL,
        ignore_index: int | None = None,
        clip: bool = False,
        upstream: Tensor | None = None,
        cancels: bool = False,
    ) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """The engine's sums and gradient, after comparing both with the definition in float64.

        cancels  are there voxels whose slopes are but a difference of much larger ones?
        """
        form = Form(activation, wanted, ignore_index, clip)
        dtype = torch.promote_types(x.dtype, torch.float32)
        g, h = torch.as_tensor(gamma, dtype=dtype), torch.as_tensor(rest_gamma, dtype=dtype)
        if upstream is None:  # as of a loss: with signs at random some voxels would be nothing but cancellation
            signs = torch.tensor([-1.0 if name in ("tp", "tn") else 1.0 for name in wanted], dtype=dtype)
            upstream = torch.rand(len(wanted), *x.shape[:2], dtype=dtype) * signs[:, None, None]
        z, y, a, g_, h_ = self.put(x, labels, upstream, g, h)
        w = None if weights is None else self.put(weights)[0]
        assert engine.why_not(z, y, w, form) is None
        sums = engine.forward(z, y, w, g_, h_, form)
        gradient = engine.backward(a, z, y, w, g_, h_, form)
        assert gradient.dtype == x.dtype
        assert gradient.stride() == torch.empty_like(z).stride()
        gradient = gradient.cpu()

        double = (x.double(), labels, weights, g.double(), h.double(), form)
        for found, expected in zip(sums, reference.forward(*double), strict=True):
            assert found.dtype == dtype
            torch.testing.assert_close(found.cpu().double(), expected, rtol=self.digits, atol=1e-12)
        slope = reference.backward(upstream.double(), *double)
        if activation == "none":
            slope = slope.clamp(-torch.finfo(x.dtype).max, torch.finfo(x.dtype).max)
        # to the largest slope of the voxel, however small all of them are, and to the rounding of the dtype; a voxel's
        # slopes may cancel in part, and the interpreter's exponentials are NumPy's, which differ between processors
        near = 5 * self.digits * slope.abs().amax(1, keepdim=True) + torch.finfo(x.dtype).eps * slope.abs()
        if cancels:
            near = near + self.digits * slope.abs().max()
        near = near + {torch.float16: 6e-8, torch.float32: 1e-37}.get(x.dtype, 0.0)  # below which it knows no numbers
        assert ((gradient.double() - slope).abs() <= near).all(), ((gradient.double() - slope).abs() / near).max()
        return sums, gradient

    @staticmethod
    def suited(x: Tensor, activation: str) -> Tensor:
        """Probabilities where the activation asks for them, none at the ends, which depend on the dtype."""
        return x.clamp(-4, 4).sigmoid() if activation == "none" else x

    @pytest.mark.parametrize(("form", "masks", "activation"), together(ACTIVATIONS))
    def test_labels_of_each_form_with_voxels_left_out(self, form, masks, activation):
        x, labels = self.suited(logits(3, 45), activation), hard(3, 45, dtype=torch.int16)
        if form == "soft":
            labels = soft(3, 45)
        elif form == "one-hot":
            labels = torch.nn.functional.one_hot(labels.long(), 3).movedim(2, 1).to(torch.uint8)
        weights = torch.rand(2, 45) if "weights" in masks else None
        ignore = 255 if "ignore" in masks else None
        out = torch.rand(2, 45) < 0.3
        if weights is not None:
            weights[0, :10] = 0.0
            x[0, :, :10] = torch.nan
            if form == "soft":
                labels[0, :, :10] = torch.nan
        if ignore is not None:
            if form == "hard":
                labels[out] = 255
            else:
                labels[:, 1][out] = 255  # in any one channel
            x.movedim(1, 2)[out] = torch.inf
        self.run(x, labels, weights, activation=activation, ignore_index=ignore)

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
    def test_class_indices_of_each_dtype(self, dtype, channels):
        activation = "sigmoid" if channels == 1 else "softmax"
        self.run(logits(channels, 20), hard(channels, 20, dtype=dtype), activation=activation)

    @pytest.mark.parametrize(
        "dtype", [torch.bool, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float64]
    )
    def test_dense_labels_of_each_dtype(self, dtype):
        self.run(logits(3, 20), soft(3, 20).round().to(dtype))

    @pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.bfloat16, torch.float64])
    def test_weights_of_each_dtype(self, dtype):
        self.run(logits(2, 20), hard(2, 20), (torch.rand(2, 20) * 2).to(dtype), wanted=("tp", "ce"))

    @pytest.mark.parametrize(
        ("dtype", "index"), [(torch.uint8, -1), (torch.int8, 255), (torch.bool, 1), (torch.int64, -(2**40))]
    )
    def test_ignore_index_is_read_as_the_labels_are(self, dtype, index):
        labels = hard(2, 20, dtype=dtype)
        if dtype != torch.bool:
            labels[:, 3:7] = torch.tensor(index).to(dtype)
        self.run(logits(2, 20), labels, ignore_index=index, wanted=("fn", "ce"))

    @pytest.mark.parametrize("index", [-1, 0])
    def test_dense_float_labels_can_be_ignored(self, index):
        labels = soft(3, 20)
        labels[:, 1, 4:9] = index
        self.run(logits(3, 20), labels, ignore_index=index, wanted=("tp", "ce"))

    def test_labels_that_name_no_channel_are_in_no_class(self):
        labels = hard(3, 30)
        labels[0, :4] = torch.tensor([-1, 3, 2**32, -(2**32) + 1])
        sums, _ = self.run(logits(3, 30), labels)
        assert sums[1][0].sum() == 26
        assert sums[2][0] == 30

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    @pytest.mark.parametrize(
        "wanted",
        [("ce",), ("rest",), ("tp",), ("fn", "fp"), ("tn", "tp"), ("rest", "ce", "fp"), ("fp", "tp", "fn", "ce")],
        ids="+".join,
    )
    def test_any_sums_in_any_order(self, wanted, activation):
        self.run(self.suited(logits(3, 12), activation), hard(3, 12), activation=activation, wanted=wanted)

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    @pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 1), (1, 3), (2, 3)], ids=str)
    def test_exponents_of_each_shape(self, shape, activation):
        gamma = torch.rand(shape) * 2
        rest_gamma = torch.rand(3)
        rest_gamma[1] = 0.0  # 0 ** 0 is 1
        x = self.suited(logits(3, 12, scale=20.0), activation)
        self.run(x, hard(3, 12), activation=activation, gamma=gamma, rest_gamma=rest_gamma, wanted=("rest", "ce"))

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_logits_of_each_dtype(self, dtype, activation):
        x = self.suited(logits(3, 30), activation).to(dtype)
        self.run(x, hard(3, 30), activation=activation, clip=dtype == torch.float64)

    @pytest.mark.parametrize(
        ("channels", "activation"),
        [
            *itertools.product((1, 2, 5, 8, 9), ACTIVATIONS),
            # the same walk, one step longer: for all activations where there is a GPU
            *((17, activation) for activation in (ACTIVATIONS[:1] if INTERPRETED else ACTIVATIONS)),
        ],
    )
    def test_number_of_channels(self, channels, activation):
        """More than 8 are walked through 4 at a time."""
        x = self.suited(logits(channels, 40 if channels > 8 else 20), activation)
        labels = hard(channels, x.shape[2])
        labels[0, 3:6] = 99
        x[1, :, -2] = torch.nan
        labels[1, -2] = -7
        if activation == "softmax" and channels == 1:
            self.run(x, labels, ignore_index=-7, activation=activation, wanted=("tp", "fp", "fn", "ce"))
        else:
            self.run(x, labels, ignore_index=-7, activation=activation)
        if activation == "softmax" and channels > 1:  # where no entropy but the label's is wanted
            self.run(x, labels, ignore_index=-7, wanted=("tp", "fp", "fn", "ce"))

    def test_many_channels_with_dense_labels_weights_and_ignored_voxels(self):
        labels = (soft(11, 40) * 3).to(torch.int32)
        labels[0, 10, 5:9] = 77
        self.run(logits(11, 40), labels.clamp_max(77), torch.rand(2, 40), ignore_index=77)

    def test_as_many_channels_as_organs_in_a_body(self, monkeypatch):
        monkeypatch.undo()
        self.run(logits(105, 70, images=1), hard(105, 70, images=1), wanted=("fn", "tn", "rest"))
        self.run(logits(64, 40, images=1), hard(64, 40, images=1), wanted=("tp", "fp", "ce"))

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    def test_a_single_voxel(self, activation):
        self.run(self.suited(logits(3, 1, images=1), activation), hard(3, 1, images=1), activation=activation)

    @pytest.mark.parametrize("channels", [3, 9])
    @pytest.mark.parametrize("case", ["channels last", "slice", "step", "broadcast", "turned"])
    def test_memory_formats(self, case, channels):
        labels, weights = hard(channels, 20), torch.rand(2, 20)
        dense = soft(channels, 20)
        x = logits(channels, 20)
        upstream = None
        if case == "channels last":
            x, dense = (t.mT.contiguous().mT for t in (x, dense))
            assert x.stride()[1:] == (1, channels)
        elif case == "slice":
            x, dense = logits(channels + 2, 20)[:, 1:-1], soft(channels + 3, 20)[:, 2:-1]
        elif case == "step":
            x, dense = logits(channels, 40)[..., ::2], soft(channels, 60)[..., 1::3]
            labels, weights = hard(channels, 40)[:, ::2], torch.rand(2, 40)[:, 1::2]
        elif case == "broadcast":
            labels, weights = labels[:1].expand(2, -1), weights[:, :1].expand(-1, 20)
            dense = dense[:, :, :1].expand(-1, -1, 20)
            upstream = torch.tensor(0.3).expand(2, 2, channels)
        else:
            labels, weights = hard(channels, 2, images=20).mT, torch.rand(20, 2).mT
        self.run(x, labels, weights, upstream=upstream, wanted=("tp", "ce"))
        self.run(x, dense, weights, upstream=upstream, wanted=("fp", "rest"))

    @pytest.mark.parametrize("channels", [3, 9])
    @pytest.mark.parametrize("size", [20.0, 60.0])
    def test_saturated_voxels_keep_their_digits(self, size, channels):
        """One class holds nearly all the probability, rightly or wrongly; what the others have left is all there is."""
        labels = hard(channels, 15)
        x = logits(channels, 15, scale=1.0)
        wrong = torch.rand(2, 1, 15) < 0.2
        x.scatter_add_(1, (labels[:, None] + wrong) % channels, torch.full((2, 1, 15), size))
        self.run(x, labels, gamma=0.0, wanted=("fp", "fn", "ce"))
        self.run(x, labels, gamma=0.5, rest_gamma=0.5)
        right = logits(channels, 15, scale=1.0).scatter_(1, labels[:, None], size)
        self.run(right, labels, gamma=0.5, wanted=("fp", "fn", "ce"))

    @pytest.mark.parametrize("channels", [3, 9])
    def test_logits_of_ten_thousand(self, channels):
        x, labels = logits(channels, 15).round() * 1e4, hard(channels, 15)
        self.run(x, labels, wanted=("tp", "fp", "fn", "tn", "ce"))
        self.run(x, labels, activation="sigmoid")

    @pytest.mark.parametrize("channels", [2, 9])
    def test_a_false_class_that_holds_everything_is_told_to_go(self, channels):
        """-log(1 - p) of a logit of 1e4 is 1e4, with slope 1; the others share the opposite."""
        x = torch.zeros(1, channels, 3)
        x[:, 0] = 1e4
        upstream = torch.zeros(1, 1, channels)
        upstream[..., 0] = 1.0
        form = Form("softmax", ("rest",), None, False)
        z, y, a, zero = self.put(x, torch.ones(1, 3, dtype=torch.int64), upstream, torch.zeros(()))
        value = engine.forward(z, y, None, zero, zero, form)[0][0, 0, 0]
        torch.testing.assert_close(value.item(), 3 * (1e4 - math.log(channels - 1)))
        expected = torch.full((1, channels, 3), -1.0 / (channels - 1))
        expected[:, 0] = 1.0
        torch.testing.assert_close(engine.backward(a, z, y, None, zero, zero, form).cpu(), expected)

    @pytest.mark.parametrize("channels", [3, 9])
    def test_classes_that_are_ruled_out(self, channels):
        x, labels = logits(channels, 15), hard(channels, 15)
        x.scatter_(1, ((labels[:, None] + 1) % channels), -torch.inf)
        x[:, 0, :5] = -torch.inf
        labels[:, :5] = channels - 2
        x.scatter_(1, labels[:, None], 1.0)
        self.run(x, labels)
        self.run(x, labels, wanted=("tp", "fp", "fn", "ce"))

    @pytest.mark.parametrize("channels", [2, 3, 9])
    def test_equal_logits(self, channels):
        x = logits(channels, 15).round()
        x[:, :, :5] = 0.0
        self.run(x, hard(channels, 15))
        self.run(x, hard(channels, 15), wanted=("fn", "ce"))

    @pytest.mark.parametrize("channels", [3, 9])
    @pytest.mark.parametrize("place", [0, 1, 2])
    @pytest.mark.parametrize("bad", [torch.nan, torch.inf])
    def test_what_is_no_number_is_not_hidden(self, bad, place, channels):
        x, labels = logits(channels, 12, images=1), torch.zeros(1, 12, dtype=torch.int64)
        x[0, place, 5] = bad
        form = Form("softmax", ("ce",), None, False)
        z, y, gamma = self.put(x, labels, torch.tensor(0.5))
        assert engine.forward(z, y, None, gamma, gamma, form)[0][0, 0, 0].isnan()

    @pytest.mark.parametrize("clip", [False, True])
    def test_given_probabilities_at_the_ends_of_their_range(self, clip):
        x = torch.tensor([0.0, 1.0, 1e-9, 1e-5, 0.5, -0.01, 1.01, 1 - 2**-24, 1 - 2**-20]).repeat(2, 2, 1)
        for dtype in (torch.float64, torch.float32) if clip else (torch.float64,):
            labels = torch.stack([torch.zeros(9), torch.ones(9)]).long()
            form = Form("none", ALL, None, clip)
            z, y, gamma = self.put(x.to(dtype), labels, torch.tensor(0.5, dtype=dtype))
            upstream = torch.randn(6, 2, 2, dtype=dtype)
            for found, expected in zip(
                engine.forward(z, y, None, gamma, gamma, form),
                reference.forward(z.cpu(), labels, None, gamma.cpu(), gamma.cpu(), form),
                strict=True,
            ):
                torch.testing.assert_close(found.cpu(), expected)
            found = engine.backward(upstream.to(self.device), z, y, None, gamma, gamma, form).cpu()
            expected = reference.backward(upstream, z.cpu(), labels, None, gamma.cpu(), gamma.cpu(), form)
            torch.testing.assert_close(found, expected)

    def test_slopes_beyond_float16_stop_at_its_largest_number(self):
        x, labels = torch.tensor([[[0.0, 0.5], [1.0, 0.5]]], dtype=torch.float16), torch.tensor([[0, 1]])
        _, gradient = self.run(x, labels, activation="none", wanted=("ce",), upstream=torch.ones(1, 1, 2))
        assert gradient.isfinite().all()
        assert gradient.abs().max() == torch.finfo(torch.float16).max

    def test_two_runs_give_the_same_bits(self):
        x, labels, gamma = self.put(logits(3, 100), hard(3, 100), torch.rand(3))
        form = Form("softmax", ALL, None, False)
        first, second = (engine.forward(x, labels, None, gamma, gamma, form)[0] for _ in range(2))
        assert torch.equal(first, second)

    # --- masks -----------------------------------------------------------------------------------------------------

    def run_masks(
        self,
        labels: Tensor,
        channels: int,
        weights: Tensor | None = None,
        *,
        ignore_index: int | None = None,
        steps: tuple[float, ...] = (1.0, 0.5, 1 / 3),
        dtype: torch.dtype = torch.float32,
        dense: bool = False,
    ) -> list[Tensor]:
        """The engine's volume, surface and voxels, after comparing them with the definition in float64."""
        of_axes = steps[: labels.ndim - 1 - dense]
        labels, ignore_index = signed(labels, ignore_index)  # as the door does
        y = self.put(labels)[0]
        w = None if weights is None else self.put(weights)[0]
        chosen = engines.select_for_masks("triton", y, w, dense)
        sums = chosen.masks(y, w, channels, dense, ignore_index, of_axes, dtype)
        wanted = reference.masks(labels, weights, channels, dense, ignore_index, of_axes, torch.float64)
        digits = {torch.float32: 1e-6, torch.float64: 1e-13}[dtype]
        for found, expected in zip(sums, wanted, strict=True):
            assert found.dtype == dtype
            torch.testing.assert_close(found.cpu().double(), expected, rtol=digits, atol=1e-30)
        return [found.cpu() for found in sums]

    def left_out(self, *shape: int) -> Tensor:
        return torch.rand(shape) * (torch.rand(shape) < 0.7)

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize(
        "sizes",
        [
            "1",
            "2",
            "37",
            "1 1",
            "1 9",
            "9 1",
            "2 2",
            "5 19",
            "1 1 1",
            "1 5 7",
            "5 1 7",
            "5 7 1",
            "1 6 1",
            "2 2 2",
            "3 5 9",
        ],
    )
    def test_masks_of_each_shape(self, sizes, channels):
        shape = tuple(map(int, sizes.split()))
        labels = torch.randint(0, max(channels, 2), (2, *shape), dtype=torch.uint8)
        self.run_masks(labels, channels, self.left_out(2, *shape))
        self.run_masks(torch.rand(2, channels, *shape), channels, dense=True)

    @pytest.mark.parametrize(("form", "masks", "channels"), together((1, 3)))
    def test_masks_with_voxels_left_out(self, form, masks, channels):
        shape = (2, 2, 3, 4)
        labels = torch.randint(0, 2 if channels == 1 else 3, shape, dtype=torch.int16)
        if form == "soft":
            labels = torch.rand(2, channels, *shape[1:])
        elif form == "one-hot":
            labels = torch.nn.functional.one_hot(labels.long(), 3).movedim(-1, 1)[:, -channels:].to(torch.uint8)
        weights = self.left_out(*shape) if "weights" in masks else None
        ignore = 255 if "ignore" in masks else None
        if weights is not None and form == "soft":
            labels[:, -1][weights == 0] = torch.nan
        if ignore is not None:
            out = torch.rand(shape) < 0.3
            (labels if form == "hard" else labels[:, -1])[out] = 255
        self.run_masks(labels, channels, weights, ignore_index=ignore, dense=form != "hard")

    @pytest.mark.parametrize("index", [0, 1, 2, -1, 300])
    def test_masks_without_any_one_label(self, index):
        self.run_masks(torch.randint(0, 3, (1, 4, 5), dtype=torch.uint8), 3, ignore_index=index)
        self.run_masks(torch.randint(-1, 3, (1, 4, 5)), 3, ignore_index=index)
        self.run_masks(torch.randint(-1, 3, (1, 3, 4, 5)).float(), 3, ignore_index=index, dense=True)

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("dtype", ["bool", *(f"{u}int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64))])
    def test_masks_of_class_indices_of_each_dtype(self, dtype, channels):
        labels = torch.randint(0, max(channels, 2), (1, 3, 7)).to(getattr(torch, dtype))
        self.run_masks(labels, channels)
        if dtype != "bool":
            self.run_masks(labels, channels, ignore_index=1)

    @pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float16, torch.bfloat16, torch.float64])
    def test_masks_of_dense_labels_and_weights_of_each_dtype(self, dtype):
        soft = (torch.rand(2, 3, 5, 9) + 0.25 * (not dtype.is_floating_point)).to(dtype)
        self.run_masks(soft, 3, dense=True)
        self.run_masks(torch.randint(0, 3, (2, 5, 9)), 3, (torch.rand(2, 5, 9) * 2).to(dtype))

    @pytest.mark.parametrize("channels", [1, 2, 4, 5, 8, 17])
    def test_masks_of_any_number_of_channels(self, channels):
        labels = torch.randint(0, channels + 1, (2, 3, 7))
        labels[0, 0, :6] = torch.tensor([-1, channels, 2**32, 2**32 + 1, -(2**32) + 1, -(2**63)])
        self.run_masks(labels, channels)
        self.run_masks(labels, channels, self.left_out(2, 3, 7), ignore_index=1)
        soft = torch.rand(2, channels, 3, 7)
        soft[1, -1, 2:4] = -1.0
        self.run_masks(soft, channels, self.left_out(2, 3, 7), ignore_index=-1, dense=True)

    @pytest.mark.parametrize("channels", [3, 32, 40])
    def test_masks_in_tiles_as_they_are(self, channels, monkeypatch):
        monkeypatch.undo()
        labels = torch.randint(0, channels, (1, 2, 3, 70))
        labels[:, :, :, 30:] = channels - 1  # a tile within one class
        self.run_masks(labels, channels, self.left_out(1, 2, 3, 70))
        self.run_masks(torch.rand(1, channels, 2, 40), channels, dense=True)
        self.run_masks(labels, channels, dtype=torch.float64)

    @pytest.mark.parametrize("fill", [0, 1, 2])
    def test_masks_that_are_empty_or_full_have_no_surface(self, fill):
        volume, surface, voxels = self.run_masks(torch.full((2, 4, 5), fill), 3)
        assert not surface.any() and (voxels == 20).all()
        assert volume[0].tolist() == [20.0 * (fill > 0), 20.0 * (fill == 1), 20.0 * (fill == 2)]

    @pytest.mark.parametrize("dense", [False, True])
    @pytest.mark.parametrize(
        "case", ["turned", "slice", "step", "broadcast", "channels last", "one image", "far apart"]
    )
    def test_masks_in_any_memory(self, case, dense):
        shape = (2, 4, 5, 6)

        def new(*shape: int, channels: bool = dense) -> Tensor:
            n, *spatial = shape
            return torch.rand(n, 3, *spatial) if channels else torch.randint(0, 3, shape)

        labels, weights = new(*shape), self.left_out(*shape)
        if case == "turned":
            labels, weights = new(2, 6, 5, 4).transpose(-1, -3), self.left_out(6, 5, 4, 2).permute(3, 2, 1, 0)
        elif case == "slice":
            labels, weights = new(4, 9, 9, 9)[1:3, ..., 2:6, 1:6, 3:], self.left_out(3, 5, 6, 7)[1:, 1:, :5, 1:]
        elif case == "step":
            labels, weights = new(4, 8, 15, 12)[::2, ..., ::2, ::3, 1::2], self.left_out(2, 4, 5, 18)[..., ::3]
        elif case == "broadcast":
            labels, weights = labels[:1, ..., :1].expand_as(labels), weights[:, :, :1].expand(shape)
        elif case == "channels last" and dense:
            labels = labels.movedim(1, -1).contiguous().movedim(-1, 1)
        elif case == "one image":
            labels, weights = labels[1:], weights[1:]
        elif case == "far apart":  # of these pages none is touched but a few
            plane = 2**30 if INTERPRETED else 2**10
            far = labels.new_empty(3 * plane + 2**10, dtype=torch.uint8)
            strides = (120, *([40] if dense else []), plane, 7, 1)
            labels = far.as_strided(labels.shape, strides).copy_(torch.randint(0, 3 - dense, labels.shape))
        self.run_masks(labels, 3, weights, dense=dense)

    def test_masks_to_full_precision(self):
        labels, weights, soft = torch.randint(0, 4, (2, 3, 4, 8)), self.left_out(2, 3, 4, 8), torch.rand(2, 3, 3, 4, 8)
        for steps in ((0.1, 1 / 3, 1e-3), (1e-12, 1.0, 1e9)):
            self.run_masks(labels, 3, weights.double(), steps=steps, dtype=torch.float64)
            self.run_masks(labels, 3, weights, steps=steps)
            self.run_masks(soft, 3, steps=steps, dtype=torch.float64, dense=True)

    def test_masks_of_many_voxels_keep_their_digits(self, monkeypatch):
        """A program takes no more than here however large the volume is; the rest is added in float64."""
        monkeypatch.undo()
        monkeypatch.setattr(engine, "MASK_PROGRAMS", 1)
        labels, weights = torch.randint(0, 2, (1, 9, 32, 32), dtype=torch.uint8), torch.full((1, 9, 32, 32), 0.1)
        assert engine._cut(1, 2, (9, 32, 32), engine.MASK_NUMBERS).steps == engine.STEPS
        self.run_masks(labels, 2, weights)
        self.run_masks(labels[:, None] * 0.3, 1, weights, dense=True)

    @pytest.mark.parametrize("dense", [False, True])
    @pytest.mark.parametrize("shape", [(0, 4, 5), (2, 0, 5), (2, 4, 0), (0, 0), (2, 0, 4, 5)], ids=str)
    def test_masks_without_voxels(self, shape, dense):
        labels = torch.zeros(shape[0], 3, *shape[1:]) if dense else torch.zeros(shape, dtype=torch.uint8)
        for weights in (None, torch.ones(shape)):
            assert not any(found.any() for found in self.run_masks(labels, 3, weights, dense=dense))

    def test_masks_twice_are_the_same_bits(self):
        labels, weights = self.put(torch.rand(2, 3, 9, 10), torch.rand(2, 9, 10))
        first, second = (engine.masks(labels, weights, 3, True, None, [1.0, 1.0], torch.float32) for _ in range(2))
        assert all(map(torch.equal, first, second))


@needs_triton
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter computes both sides of every `where`
class TestInterpreted(Cases):
    __test__ = INTERPRETED

    @pytest.mark.parametrize("size", [0.5, 4.0, 20.0])
    @pytest.mark.parametrize("channels", [1, 3, 9])
    def test_what_goes_with_the_instructions_of_a_gpu(self, channels, size, monkeypatch):
        """They stand for functions here, but the series and the branches that only they need are as on a GPU."""
        from unifocal.sums import triton_kernels

        tl = importlib.import_module("triton.language")
        asked = []

        def fast_dividef(x, y):
            asked.append("quotient")
            return x / y

        def fast_log2f(x):
            asked.append("logarithm")
            return tl.log2(x)

        instructions = SimpleNamespace(fast_dividef=fast_dividef, fast_log2f=fast_log2f)
        monkeypatch.setattr(triton_kernels, "_FAST", tl.constexpr(True))
        monkeypatch.setattr(triton_kernels, "libdevice", instructions)
        labels = hard(channels, 20)
        x = logits(channels, 20, scale=1.0)
        if channels == 1:
            self.run(x * size, labels, activation="sigmoid")
        else:
            x.scatter_add_(1, labels[:, None], torch.full((2, 1, 20), size))
            self.run(x, labels, gamma=0.0, wanted=("fp", "fn", "ce"))
            self.run(x, labels, wanted=("rest", "ce"))
        assert {*asked} == {"quotient", "logarithm"}


@needs_triton
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
class TestOnTheGpu(Cases):
    __test__ = not INTERPRETED
    device = "cuda"
    digits = 1e-5  # its exp errs in proportion to its argument

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    @pytest.mark.parametrize("channels", [2, 3, 4, 5, 8, 14, 105])
    def test_tiles_as_they_are(self, channels, activation, monkeypatch):
        monkeypatch.undo()
        x = self.suited(logits(channels, 9001), activation)
        self.run(x, hard(channels, 9001, dtype=torch.uint8), activation=activation)
        self.run(x, soft(channels, 9001), activation=activation, wanted=("fp", "fn", "tp", "ce"), cancels=True)


def child(*command: str, **environment: str) -> None:
    """Run Python in a process of its own, which must end well."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "TRITON_"))}
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, env={**inherited, **environment}
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
@pytest.mark.slow
def test_the_definition_in_the_interpreter():
    child("-m", "pytest", "-q", "-p", "no:cacheprovider", f"{__file__}::TestInterpreted", TRITON_INTERPRET="1")


COMPILE = """
import subprocess, tempfile
from types import SimpleNamespace
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction
from unifocal.sums import triton as engine
from unifocal.sums.form import Form

run, made = JITFunction.run, []
JITFunction.run = lambda self, *a, grid, warmup, **k: made.append(run(self, *a, grid=grid, warmup=True, **k))
target = GPUTarget("cuda", 90, 32)
triton.runtime.driver.set_active(SimpleNamespace(
    get_current_device=lambda: 0, get_current_stream=lambda device: 0, get_current_target=lambda: target))

def compile(x, labels, weights, activation, wanted, ignore):
    gamma = torch.ones((), dtype=torch.promote_types(x.dtype, torch.float32))
    form = Form(activation, wanted, ignore, False)
    values, _, _ = engine.forward(x, labels, weights, gamma, gamma, form)
    engine.backward(values, x, labels, weights, gamma, gamma, form)

def new(dtype, *shape):
    return torch.zeros(shape, dtype=getattr(torch, dtype))

FOUR, ALL = ("tp", "fp", "fn", "ce"), ("tp", "fp", "fn", "tn", "ce", "rest")
compile(new("float32", 2, 3, 64), new("uint8", 2, 64), None, "softmax", FOUR, None)
compile(new("bfloat16", 2, 14, 65), new("int64", 2, 65), new("float32", 2, 65), "softmax", ALL, 255)
compile(new("float16", 1, 105, 65), new("int8", 1, 105, 65), None, "softmax", ALL, 99)
compile(new("float32", 2, 64, 3).mT, new("float32", 2, 3, 64), None, "softmax", FOUR, None)
compile(new("float32", 2, 1, 64), new("bool", 2, 64), new("bool", 2, 64), "sigmoid", ALL, None)
compile(new("float64", 2, 2, 64), new("float32", 2, 2, 64), None, "none", ALL, -1)
assert len(made) == 18 and all(kernel.asm["cubin"] for kernel in made)
"""
COMPILE_MASKS = """
def masks(labels, weights, channels, dense, ignore, dtype=torch.float32):
    steps = [1.0] * (labels.ndim - 1 - dense)
    engine.masks(labels, weights, channels, dense, ignore, steps, dtype)

made.clear()
masks(new("uint8", 1, 96, 96, 96), None, 3, False, None)
masks(new("int64", 1, 33, 35, 37), new("float32", 1, 33, 35, 37), 2, False, 255)
masks(new("int8", 4, 128, 128), None, 1, False, None)
masks(new("uint8", 1, 32, 32, 32), None, 105, False, 255)
masks(new("int32", 2, 5000), new("float16", 2, 5000), 14, False, -1)
masks(new("float32", 1, 3, 32, 32, 32), None, 3, True, None)
masks(new("float16", 1, 14, 32, 32, 32), new("float32", 1, 32, 32, 32), 14, True, 255)
masks(new("uint8", 2, 3, 64, 64), new("bool", 2, 64, 64), 3, True, 255)
masks(new("uint8", 1, 32, 32, 32), new("float64", 1, 32, 32, 32), 8, False, 255, torch.float64)
masks(new("float64", 1, 3, 32, 32, 32), None, 3, True, None, torch.float64)
masks(new("uint8", 1, 1, 1), None, 3, False, None)
masks(new("uint8", 1, 1).expand(2, 2**32), None, 2, False, None)
masks(new("uint8", 1, 1, 1).expand(2, 2**33, 3), None, 2, False, None)
assert len(made) == 26 + 2  # the sums of the last two are added up in two steps
for kernel in made:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        used = subprocess.run([triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name], capture_output=True)
    assert b"STACK:0 " in used.stdout + used.stderr, used  # no register is spilled
"""


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")
@pytest.mark.slow
def test_the_kernels_compile_for_a_gpu_that_is_not_there(tmp_path):
    child("-c", COMPILE + COMPILE_MASKS, TRITON_CACHE_DIR=str(tmp_path))


@pytest.mark.skipif(INTERPRETED, reason="the interpreter serves the CPU")
def test_it_serves_no_cpu():
    form = Form("softmax", ("tp",), None, False)
    assert "cpu" in (engine.why_not(logits(2, 3), hard(2, 3), None, form) or "")


def test_it_says_what_it_cannot_serve(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    form = Form("softmax", ("tp",), None, False)
    x, labels = logits(2, 3), hard(2, 3)
    monkeypatch.setattr(engine, "_is_installed", lambda: False)
    assert "not installed" in (engine.why_not(x, labels, None, form) or "")
    monkeypatch.setattr(engine, "_is_installed", lambda: True)
    for old in ("3.2.0", "2.1.0+git1"):
        monkeypatch.setattr(engine, "_version", lambda old=old: old)
        assert f"Triton {old} is too old" in (engine.why_not(x, labels, None, form) or "")
    monkeypatch.setattr(engine, "_version", lambda: "3.10.0")
    assert engine.why_not(x, labels, None, form) is None
    assert "int32" in (engine.why_not(x.int(), labels, None, form) or "")
    assert "float32" in (engine.why_not(x, labels.float(), None, form) or "")
    assert "complex" in (engine.why_not(x, labels, torch.ones(2, 3, dtype=torch.complex64), form) or "")
    assert "no voxels" in (engine.why_not(x[..., :0], labels[..., :0], None, form) or "")
    assert "different devices" in (engine.why_not(x, labels.to("meta"), None, form) or "")
    reasons = []

    def inside(z):
        reasons.append(engine.why_not(z[None], labels[:1], None, form))
        return z

    torch.func.vmap(inside)(x)
    assert "torch.func" in (reasons[0] or "")
    assert engine.why_not(labels[:, None], labels, None, None) is None
    assert "float32" in (engine.why_not(x[:, :1], x[:, 0], None, None) or "")


def test_what_was_asked_for_computes_the_masks_or_says_why_not():
    labels = torch.randint(0, 3, (2, 3, 4, 3, 4))
    arguments = (labels, None, 3, None, (1.0, 2.0, 1.0, 0.5), torch.float64)
    for name in ("triton", "native"):
        with pytest.raises(RuntimeError, match=f"engine='{name}' .* up to 3 spatial axes, and the labels have 4"):
            mask_sums(*arguments, name)
    for found, expected in zip(mask_sums(*arguments, "auto"), mask_sums(*arguments, "reference"), strict=True):
        torch.testing.assert_close(found, expected)


def test_it_can_be_imported_without_triton():
    child("-c", "import sys; sys.modules['triton'] = None; import unifocal.sums.triton")
