"""Deep supervision: the weighted sum over scales, the weights by name, and the labels that each scale is given."""

import copy
import pickle
import traceback
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import unifocal
from unifocal import CrossEntropyLoss, DiceCELoss, DiceLoss, UnifiedFocalLoss
from unifocal.losses.deep import DeepSupervision

PACKAGE = Path(unifocal.__file__).parent

# full size, and the sizes of three scales
PYRAMIDS = {
    "1D": [(24,), (12,), (6,)],
    "1D ragged": [(25,), (13,), (6,)],
    "2D": [(12, 16), (6, 8), (3, 4)],
    "2D anisotropic": [(12, 16), (12, 8), (6, 4)],
    "2D ragged": [(13, 18), (7, 9), (3, 5)],
    "3D": [(8, 12, 4), (4, 6, 2), (2, 3, 1)],
    "3D ragged": [(8, 9, 5), (4, 5, 5), (2, 3, 2)],
}


def pyramid(sizes, channels: int = 3, images: int = 2, seed: int = 0) -> tuple[list[Tensor], Tensor]:
    """Random float64 logits at every size, and int64 class indices at the first."""
    g = torch.Generator().manual_seed(seed)
    outputs = [torch.randn(images, channels, *s, generator=g, dtype=torch.float64, requires_grad=True) for s in sizes]
    return outputs, torch.randint(0, max(channels, 2), (images, *sizes[0]), generator=g)


def interpolated(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """(N, *spatial) at another size, by torch's own resampling of a float copy."""
    return F.interpolate(x[:, None].double(), size=size, mode="nearest-exact")[:, 0].to(x.dtype)


class Recorder(nn.Module):
    """A loss that keeps what it is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Tensor, ...]] = []

    def forward(self, *arguments: Tensor) -> Tensor:
        self.calls.append(arguments)
        return arguments[0].mean()


def given_to_scales(outputs, labels, *rest) -> list[tuple[Tensor, ...]]:
    """Labels, and weights if there are any, that each scale gets."""
    recorder = Recorder()
    DeepSupervision(recorder, [1.0] * len(outputs))(outputs, labels, *rest)
    return [call[1:] for call in recorder.calls]


def gradients(value: Tensor, outputs: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(value, outputs))


# --- the weighted sum ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.int32, torch.int64])
@pytest.mark.parametrize("sizes", PYRAMIDS.values(), ids=PYRAMIDS)
def test_value_and_gradient_are_those_of_the_sum_written_by_hand(sizes, dtype):
    loss, weights = UnifiedFocalLoss(), (0.7, 0.2, 1.9)
    outputs, labels = pyramid(sizes)
    value = DeepSupervision(loss, weights)(outputs, labels.to(dtype))
    by_hand = torch.zeros((), dtype=torch.float64)
    for w, x in zip(weights, outputs, strict=True):
        by_hand = by_hand + w * loss(x, interpolated(labels, tuple(x.shape[2:])))
    torch.testing.assert_close(value, by_hand, rtol=1e-13, atol=0)
    for got, wanted in zip(gradients(value, outputs), gradients(by_hand, outputs), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("sizes", [PYRAMIDS[k] for k in ("1D ragged", "2D", "3D ragged")])
def test_bool_labels_of_one_channel(sizes):
    outputs, labels = pyramid(sizes, channels=1)
    value = DeepSupervision(DiceLoss(), [1, 2, 3])(outputs, labels.bool())
    by_hand = sum((i + 1) * DiceLoss()(x, interpolated(labels, tuple(x.shape[2:]))) for i, x in enumerate(outputs))
    torch.testing.assert_close(value, by_hand, rtol=1e-13, atol=0)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_reduction_is_that_of_the_loss(reduction):
    loss = DiceCELoss(reduction=reduction)
    outputs, labels = pyramid(PYRAMIDS["2D"], images=3)
    value = DeepSupervision(loss, (0.5, 0.25, 0.125))(outputs, labels)
    assert value.shape == ((3,) if reduction == "none" else ())
    each = [loss(x, interpolated(labels, tuple(x.shape[2:]))) for x in outputs]
    torch.testing.assert_close(value, 0.5 * each[0] + 0.25 * each[1] + 0.125 * each[2])


def test_one_scale_in_a_list():
    (x,), labels = pyramid([(6, 4)])
    torch.testing.assert_close(DeepSupervision(DiceLoss(), "nnunet")([x], labels), DiceLoss()(x, labels))
    torch.testing.assert_close(DeepSupervision(DiceLoss())((x,), labels), DiceLoss()(x, labels) / 2)


def test_labels_with_a_channel_axis_are_the_same_labels():
    outputs, labels = pyramid(PYRAMIDS["3D ragged"])
    weights = torch.rand(labels.shape)
    deep = DeepSupervision(UnifiedFocalLoss(), "monai-exp")
    value = deep(outputs, labels, weights)
    assert torch.equal(value, deep(outputs, labels[:, None], weights))
    assert torch.equal(value, deep(outputs, labels[:, None].byte(), weights[:, None]))


def test_a_scale_of_weight_zero_is_not_computed():
    outputs, labels = pyramid(PYRAMIDS["2D"])
    recorder = Recorder()
    DeepSupervision(recorder, [0, 1, 0])(outputs, labels)
    assert [call[0] is outputs[1] for call in recorder.calls] == [True]
    DeepSupervision(DiceLoss(), "nnunet")(outputs, labels).backward()
    assert [x.grad is None for x in outputs] == [False, False, True]


def test_outputs_of_each_scale_may_have_any_float_dtype_and_the_sum_is_in_float32():
    outputs, labels = pyramid(PYRAMIDS["2D"])
    halves = [x.detach().bfloat16().requires_grad_() for x in outputs]
    value = DeepSupervision(DiceCELoss(), "monai-two")(halves, labels)
    assert value.dtype == torch.float32
    assert {g.dtype for g in gradients(value, halves)} == {torch.bfloat16}
    exact = DeepSupervision(DiceCELoss(), "monai-two")([x.detach().double() for x in halves], labels)
    torch.testing.assert_close(value.double(), exact, rtol=1e-6, atol=0)


def test_labels_and_weights_are_left_as_they_were():
    outputs, labels = pyramid(PYRAMIDS["2D ragged"])
    soft = torch.rand(2, 3, 13, 18).softmax(1)
    weights = torch.rand(labels.shape)
    kept = [t.clone() for t in (labels, soft, weights)]
    deep = DeepSupervision(DiceCELoss(), "monai-same")
    deep(outputs, labels, weights)
    deep(outputs, soft, weights)
    for before, after in zip(kept, (labels, soft, weights), strict=True):
        assert torch.equal(before, after)


# --- the stack -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["indices", "channel axis", "soft"])
@pytest.mark.parametrize("size", [(10,), (4, 6), (2, 3, 4)])
def test_a_stack_is_the_list_of_its_scales(size, form):
    outputs, labels = pyramid([size] * 4)
    if form == "channel axis":
        labels = labels[:, None]
    elif form == "soft":
        labels = torch.rand(outputs[0].shape, dtype=torch.float64).softmax(1)
    deep = DeepSupervision(DiceCELoss(), (0.4, 0.3, 0.2, 0.6))
    listed, stacked = deep(outputs, labels), deep(torch.stack(outputs, 1), labels)
    assert torch.equal(listed, stacked)
    for one, other in zip(gradients(listed, outputs), gradients(stacked, outputs), strict=True):
        assert torch.equal(one, other)


def test_a_stack_of_one_channel_takes_labels_with_a_channel_axis():
    outputs, labels = pyramid([(4, 6)] * 3, channels=1)
    deep = DeepSupervision(DiceLoss(), "nnunet")
    assert torch.equal(deep(torch.stack(outputs, 1), labels[:, None]), deep(outputs, labels))


def test_dynunet_trains_as_it_comes():
    nets = pytest.importorskip("monai.networks.nets")
    torch.manual_seed(0)
    network = nets.DynUNet(
        2, 1, 3, [3] * 4, [1, 2, 2, 2], [2] * 3, filters=[2] * 4, deep_supervision=True, deep_supr_num=2
    )
    out = network(torch.rand(2, 1, 16, 16))
    assert out.shape == (2, 3, 3, 16, 16)
    DeepSupervision(UnifiedFocalLoss(), [1, 0.5, 0.25])(out, torch.randint(0, 3, (2, 1, 16, 16))).backward()
    gradient = [p.grad for p in network.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradient)


@pytest.mark.parametrize("spatial", [(8, 8), (4, 8, 8)])
@pytest.mark.parametrize("channel_axis", [False, True])
def test_a_single_output_does_not_pass_as_a_stack(spatial, channel_axis):
    """A network's output in evaluation, with index labels: nothing but the layout tells its classes from scales."""
    x = torch.randn(2, 3, *spatial)
    labels = torch.zeros(2, *([1] if channel_axis else []), *spatial, dtype=torch.uint8)
    text = message(lambda: DeepSupervision(DiceLoss(), [1, 1, 1])(x, labels))
    assert "single output" in text


# --- weights by name -----------------------------------------------------------------------------------------------


def used_weights(weights, sizes) -> list[float]:
    """By what each scale is multiplied: every scale is worth 1 in turn, and the others 0."""
    outputs = [torch.zeros(1, 2, *s) for s in sizes]
    labels = torch.zeros(1, *sizes[0], dtype=torch.long)
    deep = DeepSupervision(lambda x, y: x.double().amax(), weights)
    found = []
    for i in range(len(sizes)):
        outputs[i] += 1
        found.append(float(deep(outputs, labels)))
        outputs[i] -= 1
    return found


HALVED = [(2**k, 2**k) for k in (6, 5, 4, 3, 2, 1)]


@pytest.mark.parametrize(
    ("weights", "sizes", "expected"),
    [
        ("papers", HALVED[:3], [2**-1, 2**-4, 2**-16]),
        ("papers", [(16,), (8,), (4,)], [2**-1, 2**-2, 2**-4]),
        ("papers", [(8, 8, 8), (4, 4, 4), (2, 2, 2)], [2**-1, 2**-8, 2**-64]),
        ("papers", [(4, 8, 8), (4, 4, 4), (2, 2, 2)], [2**-1, 2**-4, 2**-32]),
        ("papers", [(57, 1), (29, 1), (15, 1), (8, 1)], [2**-1, 2**-2, 2**-4, 2**-8]),  # halves rounded up
        ("papers", [(57, 1), (28, 1), (14, 1), (7, 1)], [2**-1, 2**-2, 2**-4, 2**-8]),  # and down
        ("papers", [(8, 8), (8, 8)], [2**-1, 2**-1]),
        ("nnunet", HALVED[:1], [1]),
        ("nnunet", HALVED[:2], [1, 0]),
        ("nnunet", HALVED[:3], [2 / 3, 1 / 3, 0]),
        ("nnunet", HALVED[:5], [8 / 15, 4 / 15, 2 / 15, 1 / 15, 0]),
        ("monai-same", HALVED[:3], [1, 1, 1]),
        ("monai-exp", HALVED, [1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 16]),
        ("monai-two", HALVED[:4], [1, 0.5, 0.5, 0.5]),
        ([3, 0, 0.5], HALVED[:3], [3, 0, 0.5]),
        (np.array([0.5, 0.25]), HALVED[:2], [0.5, 0.25]),
        (torch.tensor([0.5, 0.25]), HALVED[:2], [0.5, 0.25]),
    ],
)
def test_weights_are(weights, sizes, expected):
    assert used_weights(weights, sizes) == pytest.approx(expected, rel=1e-15)


def test_strides_of_the_papers_are_counted_from_the_labels():
    """An output that starts at half resolution has stride 2."""
    outputs = [torch.ones(1, 2, 8, 8), torch.ones(1, 2, 4, 4)]
    labels = torch.zeros(1, 16, 16, dtype=torch.long)
    assert float(DeepSupervision(lambda x, y: x.mean())(outputs, labels)) == 2**-4 + 2**-16


@pytest.mark.parametrize("weights", ["monai-same", "monai-exp", "monai-two"])
@pytest.mark.parametrize("sizes", [PYRAMIDS["2D ragged"], PYRAMIDS["3D"]], ids=["2D ragged", "3D"])
def test_monai_gives_the_same(weights, sizes):
    losses = pytest.importorskip("monai.losses")
    outputs, labels = pyramid(sizes)
    outputs = [x.detach().float() for x in outputs]
    theirs = losses.DeepSupervisionLoss(
        lambda x, y: UnifiedFocalLoss()(x, y.long()), weight_mode=weights.removeprefix("monai-")
    )
    ours = DeepSupervision(UnifiedFocalLoss(), weights)
    torch.testing.assert_close(ours(outputs, labels), theirs(outputs, labels[:, None].float()), rtol=1e-6, atol=0)


# --- hard labels ---------------------------------------------------------------------------------------------------


def chosen(n: int, m: int) -> list[int]:
    """Which of n voxels over m cells are chosen."""
    outputs = [torch.zeros(1, 1, m)]
    ((labels,),) = given_to_scales(outputs, torch.arange(n)[None])
    return [int(i) for i in labels[0]]


@pytest.mark.parametrize(
    ("n", "m", "expected"),
    [
        (6, 6, [0, 1, 2, 3, 4, 5]),
        (6, 3, [1, 3, 5]),
        (6, 2, [1, 4]),
        (8, 2, [2, 6]),
        (5, 2, [1, 3]),
        (5, 3, [0, 2, 4]),
        (7, 3, [1, 3, 5]),
        (7, 1, [3]),
    ],
)
def test_the_voxel_at_the_centre_is_chosen(n, m, expected):
    assert chosen(n, m) == expected


def test_no_other_voxel_is_nearer_and_a_tie_is_the_later_one():
    for n in range(1, 27):
        for m in range(1, n + 1):
            centres = [Fraction(n * (2 * i + 1), 2 * m) for i in range(m)]
            nearest = [max(range(n), key=lambda j: (-abs(c - j - Fraction(1, 2)), j)) for c in centres]
            assert chosen(n, m) == nearest, (n, m)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int16, torch.uint16, torch.int64])
@pytest.mark.parametrize("sizes", PYRAMIDS.values(), ids=PYRAMIDS)
def test_hard_labels_keep_their_dtype_and_are_views_where_the_sizes_divide(sizes, dtype):
    outputs, labels = pyramid(sizes, channels=1)
    labels = labels.to(dtype)
    for x, (y,) in zip(outputs, given_to_scales(outputs, labels), strict=True):
        assert y.dtype == dtype
        assert y.shape == (2, *x.shape[2:])
        divides = all(n % m == 0 for n, m in zip(labels.shape[1:], x.shape[2:], strict=True))
        assert (y.untyped_storage().data_ptr() == labels.untyped_storage().data_ptr()) == divides


@pytest.mark.parametrize("form", ["hard", "soft"])
def test_labels_are_made_once_for_each_size(form):
    outputs, labels = pyramid([(13, 9), (7, 5), (7, 5), (4, 3), (4, 3), (4, 3)])
    if form == "soft":
        labels = F.one_hot(labels, 3).movedim(-1, 1).double()
    targets = given_to_scales(outputs, labels, torch.rand(2, 13, 9))
    for i, j in [(1, 2), (3, 4), (3, 5)]:
        assert targets[i][0] is targets[j][0]
        assert targets[i][1] is targets[j][1]
    assert targets[2][0].shape[-2:] == (7, 5)
    assert targets[3][0].shape[-2:] == (4, 3)


@pytest.mark.parametrize("sizes", [PYRAMIDS["2D"], PYRAMIDS["3D ragged"]], ids=["2D", "3D ragged"])
def test_one_hot_integers_are_the_class_indices_they_stand_for(sizes):
    outputs, labels = pyramid(sizes)
    labels[:, 2:4] = 7
    one_hot = F.one_hot(labels.where(labels != 7, 0), 3).movedim(-1, 1)
    one_hot[(labels == 7)[:, None].expand_as(one_hot)] = 7
    deep = DeepSupervision(UnifiedFocalLoss(ignore_index=7), "monai-same")
    wanted = deep(outputs, labels)
    torch.testing.assert_close(deep(outputs, one_hot), wanted, rtol=1e-13, atol=0)
    torch.testing.assert_close(deep(outputs, one_hot.byte()), wanted, rtol=1e-13, atol=0)


@pytest.mark.parametrize("sizes", [PYRAMIDS["2D"], PYRAMIDS["2D ragged"]], ids=["2D", "2D ragged"])
def test_labels_to_ignore_stay_and_weight_zero_leaves_out_the_same_voxels(sizes):
    outputs, labels = pyramid(sizes)
    labels[:, 5:10, 3:9] = 255
    ignored = DeepSupervision(DiceCELoss(ignore_index=255), "monai-same")(outputs, labels.byte())
    targets = given_to_scales(outputs, labels.byte())
    assert all(0 < (y == 255).sum() < y.numel() for (y,) in targets)
    assert all(set(y.unique().tolist()) <= {0, 1, 2, 255} for (y,) in targets)
    weighted = DeepSupervision(DiceCELoss(), "monai-same")(outputs, labels, (labels != 255).float())
    torch.testing.assert_close(weighted, ignored, rtol=1e-13, atol=0)


def test_the_weight_of_a_hard_label_is_that_of_its_voxel():
    outputs, _ = pyramid(PYRAMIDS["3D ragged"])
    numbers = torch.arange(2 * 8 * 9 * 5).view(2, 8, 9, 5)
    for labels, weights in given_to_scales(outputs, numbers, numbers.double()):
        assert torch.equal(labels, weights.long())


def test_class_indices_in_floats_are_never_averaged():
    """Other libraries' losses take them: the mean of class 0 and class 2 is no class 1."""
    outputs, labels = pyramid(PYRAMIDS["2D ragged"])
    for form in (labels.float(), labels[:, None].float()):
        for y, *_ in given_to_scales(outputs, form):
            assert set(y.unique().tolist()) <= {0.0, 1.0, 2.0}
            assert y.dtype == torch.float32


# --- soft labels ---------------------------------------------------------------------------------------------------


def blocks(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Mean over the cells of a grid; a cell that cuts a voxel takes the whole of it, as adaptive pooling does."""
    a = x.detach().numpy()
    for axis, m in enumerate(size, a.ndim - len(size)):
        n = a.shape[axis]
        cells = [a.take(range(i * n // m, -(-(i + 1) * n // m)), axis).mean(axis, keepdims=True) for i in range(m)]
        a = np.concatenate(cells, axis)
    return torch.from_numpy(a)


@pytest.mark.parametrize("sizes", PYRAMIDS.values(), ids=PYRAMIDS)
def test_soft_labels_are_averaged(sizes):
    outputs, _ = pyramid(sizes)
    soft = torch.rand(outputs[0].shape, dtype=torch.float64).softmax(1)
    for x, (y,) in zip(outputs, given_to_scales(outputs, soft), strict=True):
        torch.testing.assert_close(y, blocks(soft, tuple(x.shape[2:])))
        torch.testing.assert_close(y.sum(1), torch.ones_like(y[:, 0]))
    loss, weights = DiceCELoss(), (0.5, 0.3, 0.2)
    value = DeepSupervision(loss, weights)(outputs, soft)
    by_hand = torch.zeros((), dtype=torch.float64)
    for w, x in zip(weights, outputs, strict=True):
        by_hand = by_hand + w * loss(x, blocks(soft, tuple(x.shape[2:])))
    torch.testing.assert_close(value, by_hand, rtol=1e-12, atol=0)
    for got, wanted in zip(gradients(value, outputs), gradients(by_hand, outputs), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("channel_axis", [False, True])
def test_weighted_soft_labels_keep_the_weighted_volume_of_every_class(channel_axis):
    outputs, _ = pyramid(PYRAMIDS["2D"])
    soft = torch.rand(outputs[0].shape, dtype=torch.float64).softmax(1)
    weights = torch.rand(2, 12, 16, dtype=torch.float64)
    weights[0, :5, :7] = 0  # whole cells and parts of cells
    soft[0, :, :5, :7] = torch.nan  # what stands at weight 0 does not matter
    wanted = (weights[:, None] * soft).nansum((2, 3))
    for x, (y, w) in zip(
        outputs, given_to_scales(outputs, soft, weights[:, None] if channel_axis else weights), strict=True
    ):
        assert w.shape == (2, *([1] if channel_axis else []), *x.shape[2:])
        cell = soft[0, 0].numel() / x[0, 0].numel()
        each = w if channel_axis else w[:, None]
        torch.testing.assert_close(cell * (each * y).nansum((2, 3)), wanted)
        assert y.isfinite().all() or x is outputs[0]  # full resolution comes as it is
        shares = y.sum(1)[each[:, 0] > 0]
        torch.testing.assert_close(shares, torch.ones_like(shares))
    value = DeepSupervision(DiceCELoss(), "monai-same")(outputs, soft, weights)
    assert value.isfinite()
    assert all(g.isfinite().all() for g in gradients(value, outputs))


def test_equal_weights_are_no_weights():
    outputs, _ = pyramid(PYRAMIDS["3D ragged"])
    soft = torch.rand(outputs[0].shape, dtype=torch.float64).softmax(1)
    deep = DeepSupervision(DiceCELoss(), "monai-same")
    for ones in (torch.ones(2, 8, 9, 5), torch.ones(2, 8, 9, 5, dtype=torch.uint8)):
        torch.testing.assert_close(deep(outputs, soft, ones), deep(outputs, soft), rtol=1e-12, atol=0)


def test_soft_labels_of_one_channel_are_averaged():
    outputs, _ = pyramid([(4, 4), (2, 2)], channels=1)
    soft = torch.rand(2, 1, 4, 4)
    _, (y,) = given_to_scales(outputs, soft)
    torch.testing.assert_close(y, blocks(soft, (2, 2)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_soft_labels_of_16_bits_are_averaged_in_32(dtype):
    outputs, _ = pyramid([(8, 8), (2, 2)])
    soft = torch.rand(2, 3, 8, 8).softmax(1).to(dtype)
    weights = torch.full((2, 8, 8), 1e5)  # beyond float16
    for _, (y, *_) in (given_to_scales(outputs, soft), given_to_scales(outputs, soft, weights)):
        torch.testing.assert_close(y, blocks(soft.float(), (2, 2)))


# --- labels of the data loader -------------------------------------------------------------------------------------


def test_labels_that_come_for_every_scale_are_used_as_they_are():
    outputs, _ = pyramid(PYRAMIDS["2D ragged"])
    labels = [torch.randint(0, 3, (2, 1, *x.shape[2:]), dtype=torch.int16) for x in outputs]
    weights = [torch.rand(2, *x.shape[2:]) for x in outputs]
    loss, numbers = UnifiedFocalLoss(), (0.3, 0.0, 0.9)
    wanted = 0.3 * loss(outputs[0], labels[0]) + 0.9 * loss(outputs[2], labels[2])
    torch.testing.assert_close(DeepSupervision(loss, numbers)(outputs, labels), wanted)
    wanted = 0.3 * loss(outputs[0], labels[0], weights[0]) + 0.9 * loss(outputs[2], labels[2], weights[2])
    torch.testing.assert_close(DeepSupervision(loss, numbers)(tuple(outputs), tuple(labels), weights), wanted)
    for (y, w), label, weight in zip(given_to_scales(outputs, labels, weights), labels, weights, strict=True):
        assert y is label
        assert w is weight


# --- mistakes ------------------------------------------------------------------------------------------------------


def message(call: Callable[[], object], error: type[Exception] = ValueError) -> str:
    """The message of the error, which must be of that type and be raised by a line of the package itself."""
    with pytest.raises(error) as caught:
        call()
    last = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert PACKAGE in Path(last.filename).parents, f"raised in {last.filename}: {caught.value}"
    return str(caught.value)


def z(*sizes: int, channels: int = 3, images: int = 2) -> list[Tensor]:
    return [torch.zeros(images, channels, s, s) for s in sizes]


def y(size: int, images: int = 2) -> Tensor:
    return torch.zeros(images, size, size, dtype=torch.long)


deep = DeepSupervision(DiceLoss(), "monai-same")

WRONG: list[tuple[str, Callable[[], object], type[Exception], list[str]]] = [
    ("a class for a loss", lambda: DeepSupervision(DiceLoss), TypeError, ["UnifiedFocalLoss()", "DiceLoss"]),  # type: ignore[arg-type]
    ("a name for a loss", lambda: DeepSupervision("dice"), TypeError, ["loss", "'dice'"]),  # type: ignore[arg-type]
    ("unknown name", lambda: DeepSupervision(DiceLoss(), "nnUNet"), ValueError, ["'papers'", "Did you mean 'nnunet'"]),  # type: ignore[arg-type]
    ("weights of None", lambda: DeepSupervision(DiceLoss(), None), TypeError, ["sequence of numbers", "None"]),  # type: ignore[arg-type]
    ("one number", lambda: DeepSupervision(DiceLoss(), 0.5), TypeError, ["sequence of numbers", "0.5"]),  # type: ignore[arg-type]
    ("negative weight", lambda: DeepSupervision(DiceLoss(), [1, -0.5]), ValueError, ["[0, inf)", "-0.5"]),
    ("infinite weight", lambda: DeepSupervision(DiceLoss(), [1, float("inf")]), ValueError, ["[0, inf)", "inf"]),
    ("nan weight", lambda: DeepSupervision(DiceLoss(), [1, float("nan")]), TypeError, ["a number", "nan"]),
    ("weights of text", lambda: DeepSupervision(DiceLoss(), ["1"]), TypeError, ["a number", "'1'"]),  # type: ignore[list-item]
    ("all weights 0", lambda: DeepSupervision(DiceLoss(), [0, 0]), ValueError, ["above 0", "0.0"]),
    ("no weights", lambda: DeepSupervision(DiceLoss(), []), ValueError, ["above 0", "()"]),
    ("no scales", lambda: deep([], y(8)), ValueError, ["at least one scale", "empty"]),
    ("outputs of None", lambda: deep(None, y(8)), TypeError, ["list or tuple", "NoneType"]),
    ("outputs in a dict", lambda: deep({"out": z(8)[0]}, y(8)), TypeError, ["list or tuple", "dict"]),
    ("an output of None", lambda: deep([z(8)[0], None], y(8)), TypeError, ["NoneType", "scale 1"]),
    (
        "one weight missing",
        lambda: DeepSupervision(DiceLoss(), [1, 2])(z(8, 4, 2), y(8)),
        ValueError,
        ["3 scales", "2"],
    ),
    ("one weight too many", lambda: DeepSupervision(DiceLoss(), [1, 2])(z(8), y(8)), ValueError, ["1 scales", "got 2"]),
    ("coarse first", lambda: deep(z(2, 4, 8), y(8)), ValueError, ["full resolution first", "scale 1", "logits[::-1]"]),
    ("larger than labels", lambda: deep(z(8, 4), y(4)), ValueError, ["(8, 8)", "labels (4, 4)"]),
    ("an empty scale", lambda: deep(z(8, 0), y(8)), ValueError, ["empty", "(0, 0)"]),
    (
        "one axis grows",
        lambda: deep([torch.zeros(2, 3, 8, 4), torch.zeros(2, 3, 4, 8)], y(8)),
        ValueError,
        ["scale 1", "(4, 8)", "(8, 4)"],
    ),
    ("other batch", lambda: deep([*z(8), *z(4, images=3)], y(8)), ValueError, ["scale 1", "(3, 3, 4, 4)"]),
    ("other channels", lambda: deep([*z(8), *z(4, channels=2)], y(8)), ValueError, ["scale 1", "(2, 2, 4, 4)"]),
    ("other rank", lambda: deep([*z(8), torch.zeros(2, 3, 4)], y(8)), ValueError, ["scale 1", "(2, 3, 4)"]),
    ("labels of another batch", lambda: deep(z(8, 4), y(8, images=3)), ValueError, ["N = 2", "(3, 8, 8)"]),
    ("labels without batch", lambda: deep(z(8, 4), y(8)[0]), ValueError, ["2 spatial axes", "(8, 8)"]),
    ("labels of an array", lambda: deep(z(8, 4), y(8).numpy()), TypeError, ["labels", "ndarray"]),
    ("labels of None", lambda: deep(z(8, 4), None), TypeError, ["labels", "NoneType"]),
    ("list too short", lambda: deep(z(8, 4), [y(8)]), ValueError, ["labels", "2 scales", "1 of them"]),
    ("list of the full size", lambda: deep(z(8, 4), [y(8), y(8)]), ValueError, ["scale 1", "(2, 8, 8)"]),
    ("list of None", lambda: deep(z(8, 4), [y(8), None]), TypeError, ["scale 1", "NoneType"]),
    (
        "list of labels, one of weights",
        lambda: deep(z(8, 4), [y(8), y(4)], torch.ones(2, 8, 8)),
        ValueError,
        ["voxel_weights", "list", "(2, 8, 8)"],
    ),
    (
        "list of weights, one of labels",
        lambda: deep(z(8, 4), y(8), [torch.ones(2, 8, 8), torch.ones(2, 4, 4)]),
        TypeError,
        ["voxel_weights", "tensor", "list"],
    ),
    ("weights of another size", lambda: deep(z(8, 4), y(8), torch.ones(2, 4, 4)), ValueError, ["voxel_w", "(2, 8, 8)"]),
    (
        "papers' weights of a stack",
        lambda: DeepSupervision(DiceLoss())(torch.zeros(2, 3, 2, 8, 8), y(8)),
        ValueError,
        ["'papers'", "3", "(8, 8)", "2**-4"],
    ),
    ("a stack of nothing", lambda: deep(torch.zeros(2, 0, 3, 8, 8), y(8)), ValueError, ["stack", "(2, 0, 3, 8, 8)"]),
    ("too few axes", lambda: deep(torch.zeros(2, 3), torch.zeros(2)), ValueError, ["stack", "(2, 3)"]),
    (
        "soft labels of four axes",
        lambda: deep([torch.zeros(1, 2, 4, 4, 4, 4), torch.zeros(1, 2, 2, 2, 2, 2)], torch.zeros(1, 2, 4, 4, 4, 4)),
        ValueError,
        ["soft labels", "at most 3", "4"],
    ),
    # what only the loss can know is left to the loss
    ("labels of no class", lambda: deep(z(8, 4), y(8) + 3), ValueError, ["class indices from 0 to 2", "found 3"]),
    ("float class indices", lambda: deep(z(8, 4), y(8).float()), TypeError, ["labels.long()"]),
]


@pytest.mark.parametrize(("call", "error", "words"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_a_mistake_is_told(call, error, words):
    text = message(call, error)
    for word in words:
        assert word in text, text


# --- being a good module -------------------------------------------------------------------------------------------


def plain_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels)


def test_any_callable_is_a_loss():
    outputs, labels = pyramid(PYRAMIDS["2D"])
    value = DeepSupervision(plain_loss, "monai-two")(outputs, labels)
    torch.testing.assert_close(value, DeepSupervision(CrossEntropyLoss(), "monai-two")(outputs, labels))
    assert "plain_loss" in repr(DeepSupervision(plain_loss))


def test_it_shows_its_loss_and_weights():
    shown = repr(DeepSupervision(UnifiedFocalLoss(delta=0.7)))
    assert "weights='papers'" in shown
    assert "UnifiedFocalLoss" in shown
    assert "delta=0.7" in shown
    assert "weights=(1.0, 0.5)" in repr(DeepSupervision(DiceLoss(), [1, 0.5]))


def test_docstring_states_the_equation_the_arguments_and_the_sources():
    lines = [line.strip() for line in (DeepSupervision.__doc__ or "").splitlines()]
    assert any(line.startswith("L = ") for line in lines)
    assert any(line.startswith("Source: ") for line in lines)
    for name in ("loss", "weights", '"papers"', '"nnunet"', '"monai-same"', '"monai-exp"', '"monai-two"'):
        assert any(line.startswith(name) for line in lines), name


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))], ids=["copy", "pickle"])
def test_a_copy_gives_the_same(duplicate):
    outputs, labels = pyramid(PYRAMIDS["2D"])
    original = DeepSupervision(UnifiedFocalLoss(delta=0.7), [1, 0.5, 0.1])
    assert repr(duplicate(original)) == repr(original)
    assert torch.equal(duplicate(original)(outputs, labels), original(outputs, labels))


def test_it_has_no_state_and_passes_modes_on():
    loss = DiceLoss()
    wrapped = DeepSupervision(loss)
    assert not wrapped.state_dict()
    assert not list(wrapped.parameters())
    assert not wrapped.eval().loss.training  # type: ignore[attr-defined]
    assert wrapped.train().loss.training  # type: ignore[attr-defined]
    assert wrapped.to(torch.float64).loss is loss


def test_a_loss_with_parameters_keeps_them():
    class Learned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
            return self.scale * logits.mean()

    outputs, labels = pyramid([(4,), (2,)])
    wrapped = DeepSupervision(Learned(), [1, 1])
    wrapped(outputs, labels).backward()
    assert list(wrapped.state_dict()) == ["loss.scale"]
    (scale,) = wrapped.parameters()
    torch.testing.assert_close(scale.grad, (outputs[0].mean() + outputs[1].mean()).detach().float())


def test_tensors_that_carry_notes_are_read_as_plain_ones():
    data = pytest.importorskip("monai.data")
    outputs, labels = pyramid(PYRAMIDS["2D ragged"])
    wanted = deep(outputs, labels)
    value = deep([data.MetaTensor(x) for x in outputs], data.MetaTensor(labels[:, None]))
    assert type(value) is Tensor
    assert torch.equal(value, wanted)
    for scales in ([data.MetaTensor(outputs[0])], data.MetaTensor(outputs[0][:, None])):
        recorder = Recorder()
        DeepSupervision(recorder, [1])(scales, data.MetaTensor(labels), data.MetaTensor(torch.ones(labels.shape)))
        DeepSupervision(recorder, [1])(scales, data.MetaTensor(labels))
        assert [[type(t) for t in call] for call in recorder.calls] == [[Tensor] * 3, [Tensor] * 2]


# torch's own tracer instantiates every custom Function and warns itself that this is deprecated
@pytest.mark.filterwarnings("ignore:.*Function.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize(("weights", "form"), [("papers", "hard"), ("nnunet", "soft"), ((1.0, 0.5, 0.2), "stacked")])
def test_compiled_in_one_graph_it_gives_the_same(weights, form):
    torch.compiler.reset()
    eager = DeepSupervision(DiceCELoss(), weights)
    compiled = torch.compile(eager, backend="aot_eager", fullgraph=True)
    sizes = [(13, 12)] * 3 if form == "stacked" else [(13, 12), (7, 6), (4, 3)]
    outputs, labels = pyramid(sizes)
    labels = labels.byte() if form != "soft" else torch.rand(2, 3, 13, 12, dtype=torch.float64).softmax(1)
    voxel_weights = torch.rand(2, 13, 12, dtype=torch.float64)
    used = outputs[:-1] if weights == "nnunet" else outputs
    logits: Tensor | list[Tensor] = outputs
    if form == "stacked":
        logits = torch.stack(outputs, 1).detach().requires_grad_()
        used = [logits]
    got, wanted = compiled(logits, labels, voxel_weights), eager(logits, labels, voxel_weights)
    torch.testing.assert_close(got, wanted, rtol=1e-13, atol=0)
    for one, other in zip(gradients(got, used), gradients(wanted, used), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-16)
