"""A mistake in a call or an argument is an error of ours that says what was expected, what came and what to do."""

import itertools
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import ALL, make, volume
from torch import Tensor

import unifocal
from unifocal import (
    AdaptiveFocalLoss,
    CosineTverskyLoss,
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    FocalTverskyLoss,
    TverskyLoss,
    UnifiedFocalLoss,
)

PACKAGE = Path(unifocal.__file__).parent


def message(call: Callable[[], object], error: type[Exception] = ValueError) -> str:
    """The message of the error, which must be of that type and be raised by a line of the package itself."""
    with pytest.raises(error) as caught:
        call()
    last = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert PACKAGE in Path(last.filename).parents, f"raised in {last.filename}: {caught.value}"
    python = ("not supported between", "unhashable", "is not iterable")
    assert not any(words in str(caught.value) for words in python), f"a message of Python's own: {caught.value}"
    return str(caught.value)


def z(channels: int = 3, *spatial: int) -> Tensor:
    return torch.randn(2, channels, *(spatial or (4, 5)), generator=torch.Generator().manual_seed(0))


def y(classes: int = 3) -> Tensor:
    return (torch.arange(40) % classes).view(2, 4, 5)


def one_hot(classes: int = 3) -> Tensor:
    return torch.nn.functional.one_hot(y(classes), classes).movedim(-1, 1)


# what is wrong, the call, the type of the error, words its message must contain
WRONG_INPUTS: list[tuple[str, Callable[[], object], type[Exception], list[str]]] = [
    (
        "logits of integers",
        lambda: DiceLoss()(z().long(), y()),
        TypeError,
        ["logits", "floating", "int64", "raw output"],
    ),
    ("logits of numpy", lambda: DiceLoss()(z().numpy(), y()), TypeError, ["logits", "tensor", "ndarray"]),
    ("logits and labels swapped", lambda: DiceLoss()(y(), z()), TypeError, ["logits", "int64", "(2, 4, 5)"]),
    ("complex logits", lambda: DiceLoss()(z() * 1j, y()), TypeError, ["logits", "complex64"]),
    ("logits without channels", lambda: DiceLoss()(z()[0, 0, 0], y()), ValueError, ["(N, C, *spatial)", "(5,)"]),
    ("no channel", lambda: DiceLoss()(z()[:, :0], y()), ValueError, ["at least one channel", "(2, 0, 4, 5)"]),
    ("labels missing", lambda: DiceLoss()(z(), None), TypeError, ["labels", "NoneType"]),
    ("labels of numpy", lambda: DiceLoss()(z(), y().numpy()), TypeError, ["labels", "ndarray"]),
    ("complex labels", lambda: DiceLoss()(z(), y() * 1j), TypeError, ["labels", "complex64"]),
    ("float index labels", lambda: DiceLoss()(z(), y().float()), TypeError, ["integer", "float32", "labels.long()"]),
    (
        "float index labels with a channel axis",
        lambda: DiceLoss()(z(), y()[:, None].float()),
        TypeError,
        ["integer", "float32", "labels.long()"],
    ),
    (
        "float index labels for one channel",
        lambda: DiceLoss()(z(1), y(2).float()),
        TypeError,
        ["integer", "labels.long()", "(2, 1, 4, 5)"],
    ),
    ("labels of another size", lambda: DiceLoss()(z(), y()[:, :3]), ValueError, ["(2, 4, 5)", "(2, 3, 5)", "int64"]),
    (
        "labels with channels last",
        lambda: DiceLoss()(z(), one_hot().movedim(1, -1)),
        ValueError,
        ["(2, 3, 4, 5)", "(2, 4, 5, 3)", "movedim(-1, 1)"],
    ),
    ("labels of one image", lambda: DiceLoss()(z()[:1], y()[0]), ValueError, ["(1, 4, 5)", "(4, 5)", "labels[None]"]),
    ("another batch size", lambda: DiceLoss()(z(), y()[:1]), ValueError, ["(2, 4, 5)", "(1, 4, 5)"]),
    (
        "one-hot labels of too many classes",
        lambda: DiceLoss()(z(), one_hot(4)),
        ValueError,
        ["4 channels", "have 3", "argmax(1)"],
    ),
    ("labels elsewhere", lambda: DiceLoss()(z(), y().to("meta")), ValueError, ["device", "cpu", "meta", "labels.to("]),
    (
        "label 255",
        lambda: DiceLoss()(z(), y().masked_fill(y() == 1, 255)),
        ValueError,
        ["0 to 2", "found 255", "ignore_index=255"],
    ),
    ("label -1", lambda: DiceLoss()(z(), y() - 1), ValueError, ["0 to 2", "found -1", "ignore_index=-1"]),
    (
        "mask of 0 and 255",
        lambda: DiceLoss()(z(1), y(2).to(torch.uint8) * 255),
        ValueError,
        ["0 to 1", "found 255", "labels > 0"],
    ),
    ("several foreign labels", lambda: DiceLoss()(z(), y() * 7), ValueError, ["0 to 2", "found 7, 14"]),
    (
        "foreign label beside the ignored one",
        lambda: DiceLoss(ignore_index=7)(z(), y() * 7),
        ValueError,
        ["found 14", "0 to 2"],
    ),
    ("class 2 for one channel", lambda: DiceLoss()(z(1), y(3)), ValueError, ["0 to 1", "found 2", "1 channel"]),
    (
        "soft labels that do not sum to 1",
        lambda: DiceLoss()(z(), one_hot() * 0.5),
        ValueError,
        ["sum to 1", "0.5", "activation='sigmoid'"],
    ),
    ("soft labels above 1", lambda: DiceLoss()(z(), one_hot() * 1.5), ValueError, ["[0, 1]", "1.5"]),
    ("soft labels below 0", lambda: DiceLoss()(z(), one_hot() - 0.5), ValueError, ["[0, 1]", "-0.5"]),
    (
        "soft labels of NaN",
        lambda: DiceLoss()(z(), one_hot() * float("nan")),
        ValueError,
        ["[0, 1]", "nan"],
    ),
    ("one channel's soft labels above 1", lambda: DiceLoss()(z(1), 2 * y(2)[:, None].float()), ValueError, ["[0, 1]"]),
    (
        "multi-label labels above 1",
        lambda: DiceLoss(activation="sigmoid")(z(), 2 * one_hot()),
        ValueError,
        ["[0, 1]", "2"],
    ),
    (
        "soft labels that want a gradient",
        lambda: DiceLoss()(z(), one_hot().float().requires_grad_()),
        ValueError,
        ["labels", "gradient", "detach"],
    ),
    (
        "ignore_index with soft labels",
        lambda: DiceLoss(ignore_index=255)(z(), one_hot().float()),
        ValueError,
        ["ignore_index=255", "soft", "voxel_weights"],
    ),
    (
        "ignore_index 1 with one-hot labels",
        lambda: DiceLoss(ignore_index=1)(z(), one_hot()),
        ValueError,
        ["ignore_index=1", "one-hot", "voxel_weights"],
    ),
    (
        "softmax over one channel",
        lambda: DiceLoss(activation="softmax")(z(1), y(2)),
        ValueError,
        ["softmax", "one channel", "sigmoid"],
    ),
    (
        "logits for probabilities",
        lambda: DiceLoss(activation="none")(z() * 3, y()),
        ValueError,
        ["probabilities", "[0, 1]", "activation='auto'"],
    ),
    (
        "probabilities that do not sum to 1",
        lambda: DiceLoss(activation="none")(z().sigmoid(), y()),
        ValueError,
        ["sum to 1", "activation='sigmoid'"],
    ),
    (
        "probabilities of NaN",
        lambda: DiceLoss(activation="none")(z() * float("nan"), y()),
        ValueError,
        ["probabilities", "nan"],
    ),
    ("weights of a number", lambda: DiceLoss()(z(), y(), 2.0), TypeError, ["voxel_weights", "tensor", "float"]),
    ("complex weights", lambda: DiceLoss()(z(), y(), y() * 1j), TypeError, ["voxel_weights", "complex64"]),
    (
        "weights per channel",
        lambda: DiceLoss()(z(), y(), torch.ones(2, 3, 4, 5)),
        ValueError,
        ["voxel_weights", "(2, 4, 5)", "(2, 3, 4, 5)"],
    ),
    (
        "negative weights",
        lambda: DiceLoss()(z(), y(), -torch.ones(2, 4, 5)),
        ValueError,
        ["voxel_weights", "negative", "-1"],
    ),
    (
        "weights of NaN",
        lambda: DiceLoss()(z(), y(), torch.full((2, 4, 5), float("nan"))),
        ValueError,
        ["voxel_weights", "finite", "nan"],
    ),
    (
        "infinite weights",
        lambda: DiceLoss()(z(), y(), torch.full((2, 4, 5), float("inf"))),
        ValueError,
        ["voxel_weights", "finite", "inf"],
    ),
    (
        "weights that want a gradient",
        lambda: DiceLoss()(z(), y(), torch.ones(2, 4, 5).requires_grad_()),
        ValueError,
        ["voxel_weights", "gradient", "detach"],
    ),
    (
        "weights elsewhere",
        lambda: DiceLoss()(z(), y(), torch.ones(2, 4, 5, device="meta")),
        ValueError,
        ["voxel_weights", "device", "cpu", "meta"],
    ),
    (
        "too few class weights",
        lambda: DiceLoss(class_weights=[1, 2])(z(), y()),
        ValueError,
        ["class_weights", "each of 3 classes", "got 2"],
    ),
    (
        "too few channel weights",
        lambda: DiceLoss(class_weights=[1, 2], activation="sigmoid")(z(), one_hot()),
        ValueError,
        ["class_weights", "3 channels", "got 2"],
    ),
    ("too few factors", lambda: FocalLoss(alpha=[1, 2])(z(), y()), ValueError, ["alpha", "each of 3 classes", "got 2"]),
    (
        "no such common class",
        lambda: UnifiedFocalLoss(common_class=3)(z(), y()),
        ValueError,
        ["common_class=3", "[0, 1, 2]"],
    ),
    (
        "no such rare class",
        lambda: UnifiedFocalLoss(rare_classes=[3])(z(), y()),
        ValueError,
        ["rare_classes", "[0, 1, 2]"],
    ),
    (
        "common and rare",
        lambda: UnifiedFocalLoss(rare_classes=[0])(z(), y()),
        ValueError,
        ["common_class=0", "rare_classes"],
    ),
    (
        "spacing of another rank",
        lambda: AdaptiveFocalLoss(spacing=[1, 1, 1])(z(), y()),
        ValueError,
        ["spacing", "2 spatial axes", "got 3"],
    ),
    ("sparse logits", lambda: DiceLoss()(z().to_sparse(), y()), TypeError, ["logits", "sparse"]),
    ("sparse labels", lambda: DiceLoss()(z(), y().to_sparse()), TypeError, ["labels", "sparse"]),
    ("eight-bit floats", lambda: DiceLoss()(z().to(torch.float8_e4m3fn), y()), TypeError, ["logits", "float8"]),
]


@pytest.mark.parametrize(
    ("call", "error", "words"), [row[1:] for row in WRONG_INPUTS], ids=[r[0] for r in WRONG_INPUTS]
)
def test_wrong_input_is_explained(call, error, words):
    text = message(call, error)
    for word in words:
        assert word in text, text


# class or function, argument, value, the type of the error, words its message must contain
WRONG_ARGUMENTS: list[tuple[Callable[..., object], dict, Any, list[str]]] = [
    (DiceLoss, {"reduction": "average"}, ValueError, ["'mean'", "'sum'", "'none'", "'average'"]),
    (DiceLoss, {"reduction": None}, ValueError, ["'none'", "None"]),
    (DiceLoss, {"activation": "softmx"}, ValueError, ["'softmax'", "Did you mean"]),
    (DiceLoss, {"activation": True}, ValueError, ["'auto'", "True"]),
    (DiceLoss, {"absent": "ignore"}, ValueError, ["'count'", "'skip'", "'ignore'"]),
    *((DiceLoss, {"smooth": v}, ValueError, ["smooth", "(0, inf)"]) for v in (0, -1, float("inf"))),
    *((DiceLoss, {"smooth": v}, TypeError, ["smooth", "(0, inf)"]) for v in (None, "1", True, 1j, float("nan"))),
    *((DiceLoss, {"ignore_index": v}, TypeError, ["ignore_index", "integer"]) for v in (255.0, "255", True)),
    *((DiceLoss, {key: "yes"}, TypeError, [key, "True or False", "'yes'"]) for key in ("batch", "include_background")),
    (DiceLoss, {"class_weights": [1, -1]}, ValueError, ["class_weights", "[0, inf)", "-1"]),
    (DiceLoss, {"class_weights": [0, 0]}, ValueError, ["class_weights", "all be 0"]),
    (DiceLoss, {"class_weights": []}, ValueError, ["class_weights"]),
    *(
        (DiceLoss, {"class_weights": v}, TypeError, ["class_weights", "number"])
        for v in (3.0, "12", [1, "a"], [[1], [2]], torch.tensor(1.0), [1, float("nan")])
    ),
    *((TverskyLoss, {"delta": v}, ValueError, ["delta", "(0, 1)"]) for v in (0, 1, -0.1, 1.1)),
    *((TverskyLoss, {"delta": v}, TypeError, ["delta", "(0, 1)"]) for v in (None, "0.5", [0.5], True)),
    *((UnifiedFocalLoss, {"gamma": v}, ValueError, ["gamma", "[0, 1)"]) for v in (1, 2, -0.1)),
    *((UnifiedFocalLoss, {"lam": v}, ValueError, ["lam", "[0, 1]"]) for v in (-0.1, 1.1)),
    (UnifiedFocalLoss, {"common_class": 0.5}, TypeError, ["common_class", "integer"]),
    *((UnifiedFocalLoss, {"rare_classes": v}, TypeError, ["rare_classes"]) for v in (1, "12", [1.5])),
    *((FocalLoss, {"gamma": v}, ValueError, ["gamma", "[0, inf)"]) for v in (-1, float("inf"))),
    (FocalLoss, {"alpha": 1.5}, ValueError, ["alpha", "[0, 1]", "one for each class"]),
    (FocalLoss, {"alpha": -0.5}, ValueError, ["alpha", "-0.5"]),
    (FocalLoss, {"alpha": [1, -2]}, ValueError, ["alpha", "-2"]),
    *((FocalLoss, {"alpha": v}, TypeError, ["alpha", "number"]) for v in ("x", torch.tensor([[0.25]]))),
    (FocalTverskyLoss, {"exponent": 0}, ValueError, ["exponent", "(0, inf)"]),
    (CosineTverskyLoss, {"gamma": 0}, ValueError, ["gamma", "(0, inf)"]),
    (unifocal.AsymmetricSimilarityLoss, {"beta": 0}, ValueError, ["beta", "(0, inf)"]),
    (unifocal.ComboLoss, {"alpha": 1.2}, ValueError, ["alpha", "[0, 1]"]),
    (unifocal.ComboLoss, {"beta": -0.2}, ValueError, ["beta", "[0, 1]"]),
    (unifocal.DiceCELoss, {"ce_weight": -1}, ValueError, ["ce_weight", "[0, inf)"]),
    (unifocal.SymmetricFocalTverskyLoss, {"gamma": 1}, ValueError, ["gamma", "[0, 1)"]),
    (AdaptiveFocalLoss, {"order": "papr"}, ValueError, ["'paper'", "'original'", "'scalar'", "Did you mean"]),
    (AdaptiveFocalLoss, {"size": -1}, ValueError, ["size", "[0, inf)"]),
    (AdaptiveFocalLoss, {"spacing": [1, 0]}, ValueError, ["spacing", "(0, inf)"]),
    (AdaptiveFocalLoss, {"spacing": 1.0}, TypeError, ["spacing", "sequence"]),
    (unifocal.build, {"name": "unifed-focal"}, ValueError, ["unifed-focal", "Did you mean 'unified-focal'", "tversky"]),
    (unifocal.build, {"name": "tversky", "dleta": 1}, TypeError, ["tversky", "dleta", "Did you mean 'delta'"]),
    (unifocal.build, {"name": "generalised-focal", "gama": 1}, TypeError, ["gama", "Did you mean 'gamma'"]),
    (unifocal.build, {"name": "tversky", "delta": 7}, ValueError, ["delta", "(0, 1)", "7"]),
    *((unifocal.build, {"name": v}, (ValueError, TypeError), ["name"]) for v in (None, 3, ["dice"])),
    *(
        (FocalTverskyLoss.from_gamma, {"gamma": v, "convention": "v2"}, TypeError, ["gamma", "number"])
        for v in ("0.5", None, [0.5])
    ),
    (
        FocalTverskyLoss.from_gamma,
        {"gamma": 1.0, "convention": "v3"},
        ValueError,
        ["'v1'", "'v2'", "'unified'", "'v3'"],
    ),
    (
        FocalTverskyLoss.from_gamma,
        {"gamma": 1.0, "convention": ["v1"]},
        (ValueError, TypeError),
        ["convention", "'v1'"],
    ),
]


@pytest.mark.parametrize(
    ("make_it", "arguments", "error", "words"),
    WRONG_ARGUMENTS,
    ids=[f"{row[0].__qualname__}({', '.join(f'{k}={v!r}' for k, v in row[1].items())})" for row in WRONG_ARGUMENTS],
)
def test_wrong_argument_is_explained(make_it, arguments, error, words):
    text = message(lambda: make_it(**arguments), error)
    for word in words:
        assert word in text, text


@pytest.mark.parametrize("name", ALL)
def test_unknown_and_positional_arguments_are_refused(name):
    cls: Any = type(unifocal.build(name))
    with pytest.raises(TypeError, match="smoth"):
        cls(smoth=1.0)
    with pytest.raises(TypeError, match="positional"):
        cls(0.5)


def test_an_abstract_loss_cannot_be_made():
    with pytest.raises(TypeError, match="abstract"):
        unifocal.SegmentationLoss()  # type: ignore[abstract]


@pytest.mark.parametrize("name", ALL)
def test_numbers_of_numpy_and_lists_of_any_kind_are_taken(name):
    x, labels = volume(3)
    plain = unifocal.build(name, class_weights=[0.5, 1.0, 2.0], smooth=0.25)(x, labels)
    for weights in (np.array([0.5, 1, 2]), torch.tensor([0.5, 1, 2]), (0.5, 1, 2)):
        assert torch.equal(unifocal.build(name, class_weights=weights, smooth=np.float64(0.25))(x, labels), plain)


@pytest.mark.parametrize("name", ALL)
def test_no_voxels_cost_nothing(name):
    value = make(name)(torch.zeros(2, 3, 0, 4), torch.zeros(2, 0, 4, dtype=torch.long))
    assert value == 0


@pytest.mark.parametrize("name", ALL)
def test_rounded_probabilities_and_soft_labels_are_taken(name):
    """Softmax in bfloat16 misses a sum of 1 by up to a hundredth; the value is that of the exact one to as much."""
    x, labels = volume(3, (6, 6))
    exact = make(name, activation="none")(x.softmax(1), labels)
    rounded = make(name, activation="none")(x.softmax(1).bfloat16(), labels)
    assert abs(exact - rounded) < 0.02 * (1 + abs(exact))
    soft = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1) * 0.91 + 0.03
    torch.testing.assert_close(make(name)(x, soft.bfloat16()), make(name)(x, soft), rtol=0.02, atol=0.01)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("p", [-0.009, 1.009])
def test_probabilities_beyond_0_and_1_that_are_let_in_do_not_break_a_power(name, p):
    """What is within the slack of the check counts as 0 or 1: no loss falls below its least value."""
    labels = torch.full((1, 4), round(p))
    loss = unifocal.build(name, activation="none", **({"gamma": 0.5} if name == "cosine-tversky" else {}))
    least = loss(torch.full((1, 1, 4), float(round(p))), labels)
    value = loss(torch.full((1, 1, 4), p), labels)
    # Dice takes probabilities unclipped: a hundredth too much of one class may show as a hundredth of loss
    assert value >= least - 0.02


# --- fuzzing -------------------------------------------------------------------------------------------------------

FUZZED_DTYPES = [torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int64, torch.uint64]
FUZZED_DTYPES += [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64]
FUZZED_SHAPES = [
    (),
    (2,),
    (2, 1),
    (2, 2),
    (2, 3),
    (2, 2, 2),
    (2, 1, 2),
    (2, 3, 2),
    (2, 2, 3),
    (2, 3, 2, 2),
    (1, 3, 1, 1),
]
FUZZED_SHAPES += [(2, 1, 2, 2), (2, 2, 1, 2), (2, 0), (2, 2, 0), (0, 2, 2)]


def explained(call: Callable[[], Tensor], what: str) -> None:
    """A call gives a finite number, or an error that a line of the package raises on purpose."""
    try:
        value = call()
    except (ValueError, TypeError) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        assert PACKAGE in Path(last.filename).parents, f"{what}: {type(error).__name__} in {last.filename}: {error}"
    except Exception as error:
        pytest.fail(f"{what}: {type(error).__name__}: {error}")
    else:
        assert value.isfinite().all(), what


@pytest.mark.parametrize("activation", ["auto", "softmax", "sigmoid", "none"])
@pytest.mark.parametrize("name", ["unified-focal", "adaptive-focal"])
def test_no_shape_fails_inside_torch(name, activation):
    loss = make(name, activation=activation, ignore_index=255)
    for one, two in itertools.product(FUZZED_SHAPES, FUZZED_SHAPES):
        for labels in (torch.ones(two, dtype=torch.long), torch.full(two, 0.5)):
            explained(partial(loss, torch.full(one, 0.5), labels), f"logits {one}, labels {two} {labels.dtype}")


@pytest.mark.parametrize("shape", [(2, 4), (2, 1, 4), (2, 3, 4)], ids=str)
def test_no_dtype_fails_inside_torch(shape):
    for name, channels in itertools.product(["unified-focal", "adaptive-focal"], [1, 3]):
        for one, two in itertools.product(FUZZED_DTYPES, FUZZED_DTYPES):
            logits, labels = torch.ones(2, channels, 4).to(one), torch.zeros(shape).to(two)
            explained(partial(make(name), logits, labels), f"{name}, logits {one}, labels {two} {shape}")


def test_no_dtype_of_weights_fails_inside_torch():
    for name, dtype in itertools.product(["unified-focal", "adaptive-focal"], FUZZED_DTYPES):
        weights = torch.ones(2, 4, 5).to(dtype)
        explained(partial(make(name), z(), y(), weights), f"{name}, weights {dtype}")


def test_meta_tensors_give_shape_and_dtype():
    """On a device without values there are none to check; what is left works, or says that it does not."""
    logits, labels = z().to("meta"), y().to("meta")
    explained(lambda: torch.zeros(CrossEntropyLoss(reduction="none")(logits, labels).shape), "meta")


def test_soft_labels_that_were_resampled_may_lie_an_ulp_outside():
    loss = unifocal.DiceCELoss()
    labels = torch.tensor([[[1.0000001, -1e-9], [-1e-7, 1.0]]])
    assert loss(torch.zeros(1, 2, 2), labels).isfinite()
    with pytest.raises(ValueError, match=r"they range from -1e-07 to 1\.0001"):
        loss(torch.zeros(1, 2, 2), torch.tensor([[[1.0001, 0.0], [-1e-7, 1.0]]]))


def test_numbers_that_no_float32_holds_are_refused():
    with pytest.raises(ValueError, match="within the range of float32"):
        unifocal.DiceLoss()(
            torch.zeros(1, 2, 1), torch.zeros(1, 1, dtype=torch.long), torch.tensor([[1e39]], dtype=torch.float64)
        )
    with pytest.raises(TypeError, match="voxel_weights must be a dense tensor of real numbers"):
        weights = torch.ones(1, 1).to(torch.float8_e4m3fn)
        unifocal.DiceLoss()(torch.zeros(1, 2, 1), torch.zeros(1, 1, dtype=torch.long), weights)
    assert unifocal.FocalLoss(gamma=1e39)(torch.zeros(1, 2, 1), torch.zeros(1, 1, dtype=torch.long)).item() == 0
