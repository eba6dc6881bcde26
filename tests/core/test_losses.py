"""Every loss is its equation: the package against the oracle, which shares no code with it."""

import itertools

import numpy as np
import oracle
import pytest
import torch
from cases import (
    ALL,
    COMPOUND,
    PARAMETERS,
    REGION,
    SHAPES,
    USES_RARITY,
    WRITTEN_ON_SUMS,
    expected,
    make,
    volume,
)
from torch import Tensor

import unifocal

# Both sides are float64 sums of at most 60 terms: what is left is rounding, and 1e-7 of clipping that moderate
# probabilities never meet.
RTOL, ATOL = 1e-11, 1e-13

# (channels, activation)
READINGS = [(1, "sigmoid"), (2, "softmax"), (4, "softmax"), (3, "sigmoid")]


def agrees(actual: Tensor, wanted: np.ndarray) -> None:
    assert actual.shape == wanted.shape
    np.testing.assert_allclose(actual.detach().numpy(), wanted, rtol=RTOL, atol=ATOL)


def test_every_name_has_an_oracle_and_parameters():
    assert set(oracle.LOSSES) | {"adaptive-focal"} == set(ALL) == set(PARAMETERS)


@pytest.mark.parametrize(("channels", "activation"), READINGS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", WRITTEN_ON_SUMS)
def test_loss_is_its_equation(name, shape, channels, activation):
    x, labels = volume(channels, SHAPES[shape])
    if (channels, activation) == (3, "sigmoid"):
        labels = multi_label(labels)
    agrees(make(name, activation=activation)(x, labels), expected(name, x, labels, activation))


def multi_label(labels: Tensor) -> Tensor:
    """Three overlapping structures, none of them everywhere or nowhere."""
    return torch.stack([labels == 1, labels != 0, labels % 2 == 0], 1).to(torch.uint8)


@pytest.mark.parametrize("name", WRITTEN_ON_SUMS)
def test_defaults_are_those_of_the_specification(name):
    x, labels = volume(3)
    own = {"generalised-focal": {"gamma": 0.2}}.get(name, {})
    agrees(unifocal.build(name)(x, labels), expected(name, x, labels, "softmax", parameters=own))


@pytest.mark.parametrize("channels", [1, 2])
def test_auto_is_sigmoid_for_one_channel_and_softmax_for_more(channels):
    x, labels = volume(channels)
    agrees(make("unified-focal")(x, labels), expected("unified-focal", x, labels, ["sigmoid", "softmax"][channels - 1]))


@pytest.mark.parametrize("name", WRITTEN_ON_SUMS)
@pytest.mark.parametrize("channels", [1, 3])
def test_given_probabilities_are_used_as_they_are(name, channels):
    x, labels = volume(channels)
    p = torch.sigmoid(x) if channels == 1 else x.softmax(1)
    agrees(make(name, activation="none")(p, labels), expected(name, p, labels, "none"))


@pytest.mark.parametrize("name", WRITTEN_ON_SUMS)
@pytest.mark.parametrize("wrong", [0, 3])
def test_hard_probabilities_are_clipped_where_the_definition_clips(name, wrong):
    """Probabilities of exactly 0 and 1, all right or with three voxels wrong. Section 0: clipped at 1e-7 in all
    entropies and Focal Tversky indices, not in Dice and Tversky."""
    _, labels = volume(2, (8, 8), images=1)
    p = torch.nn.functional.one_hot(labels, 2).movedim(-1, 1).double()
    p.view(1, 2, -1)[..., 10 : 10 + wrong] = 1 - p.view(1, 2, -1)[..., 10 : 10 + wrong]
    # In float64 the oracle's 1 - TI loses 9 of 16 digits where TI is 1 to 1e-7; rtol is the golden data's.
    np.testing.assert_allclose(
        make(name, activation="none")(p, labels).numpy(), expected(name, p, labels, "none"), rtol=1e-6, atol=1e-8
    )


# --- labels in every form ------------------------------------------------------------------------------------------

INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64, torch.uint64]


@pytest.mark.parametrize("axis", [False, True], ids=["N*", "N1*"])
@pytest.mark.parametrize("dtype", [*INTEGERS, torch.bool], ids=str)
@pytest.mark.parametrize("channels", [1, 2])
def test_index_labels_of_any_dtype_with_or_without_a_channel_axis(channels, dtype, axis):
    x, labels = volume(channels, (2, 3, 2))
    given = labels.to(dtype)
    given = given[:, None] if axis else given
    activation = "sigmoid" if channels == 1 else "softmax"
    agrees(make("unified-focal")(x, given), expected("unified-focal", x, labels, activation))


@pytest.mark.parametrize("dtype", [*INTEGERS, torch.bool, torch.float16, torch.float32, torch.float64], ids=str)
def test_one_hot_labels_are_index_labels(dtype):
    x, labels = volume(4)
    one_hot = torch.nn.functional.one_hot(labels, 4).movedim(-1, 1)
    agrees(make("unified-focal")(x, one_hot.to(dtype)), expected("unified-focal", x, labels, "softmax"))


def soft(labels: Tensor, channels: int, activation: str) -> Tensor:
    """Labels between 0 and 1; over mutually exclusive classes they sum to 1."""
    rng = np.random.default_rng(5)
    shape = (labels.shape[0], channels, *labels.shape[1:])
    given = torch.tensor(rng.uniform(0.02, 1, size=shape))
    return given / given.sum(1, keepdim=True) if activation == "softmax" else given


@pytest.mark.parametrize(("channels", "activation"), READINGS)
@pytest.mark.parametrize("name", WRITTEN_ON_SUMS)
def test_soft_labels(name, channels, activation):
    x, labels = volume(channels)
    given = soft(labels, channels, activation)
    agrees(make(name, activation=activation)(x, given), expected(name, x, given, activation))


# --- shared arguments ----------------------------------------------------------------------------------------------

WEIGHTS = {1: [0.4, 1.7], 2: [0.4, 1.7], 4: [0.4, 1.7, 0.0, 2.2], 3: [0.4, 1.7, 2.2]}


def ignored(labels: Tensor) -> Tensor:
    """A few voxels of each image marked with 255."""
    marked = labels.clone().view(len(labels), -1)
    marked[:, 5:9] = 255
    return marked.view_as(labels)


def some_weights(labels: Tensor) -> Tensor:
    weights = torch.tensor(np.random.default_rng(6).uniform(0, 3, size=tuple(labels.shape)))
    weights.view(len(labels), -1)[:, -2:] = 0
    return weights


@pytest.mark.parametrize(("channels", "activation"), READINGS)
@pytest.mark.parametrize("name", WRITTEN_ON_SUMS)
def test_class_weights_make_every_mean_the_weighted_mean(name, channels, activation):
    x, labels = volume(channels)
    weights = WEIGHTS[channels]
    given = multi_label(labels) if activation == "sigmoid" and channels > 1 else labels
    agrees(
        make(name, activation=activation, class_weights=weights)(x, given),
        expected(name, x, given, activation, class_weights=weights),
    )


@pytest.mark.parametrize(("channels", "activation"), READINGS)
@pytest.mark.parametrize("name", sorted(REGION | COMPOUND))
@pytest.mark.parametrize(
    "shared",
    [
        {"include_background": False},
        {"batch": True},
        {"absent": "skip"},
        {"smooth": 0.37},
        {"include_background": False, "batch": True, "absent": "skip", "smooth": 0.8},
    ],
    ids="+".join,
)
def test_shared_arguments_of_region_terms(name, shared, channels, activation):
    x, labels = volume(channels, images=3)
    labels[1][labels[1] == 1] = 0  # class 1 (of one channel: the foreground) is absent from image 1
    given = multi_label(labels) if activation == "sigmoid" and channels > 1 else labels
    agrees(make(name, activation=activation, **shared)(x, given), expected(name, x, given, activation, **shared))


def test_region_arguments_leave_entropy_losses_alone():
    x, labels = volume(3)
    shared = {"include_background": False, "batch": True, "absent": "skip", "smooth": 0.8}
    for name in ("cross-entropy", "focal", "symmetric-focal", "asymmetric-focal"):
        agrees(make(name, **shared)(x, labels), expected(name, x, labels, "softmax"))


@pytest.mark.parametrize("name", sorted(REGION | COMPOUND))
def test_absent_classes_cost_under_count_and_nothing_under_skip(name):
    x, labels = volume(3, images=1)
    labels[labels == 2] = 0
    counted, skipped = (make(name, absent=a)(x, labels) for a in ("count", "skip"))
    assert skipped < counted - 0.01


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("name", WRITTEN_ON_SUMS)
def test_reduction_acts_on_one_value_per_image(name, reduction, batch):
    x, labels = volume(3, images=3)
    shared = {"reduction": reduction, "batch": batch}
    agrees(make(name, **shared)(x, labels), expected(name, x, labels, "softmax", **shared))


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("name", WRITTEN_ON_SUMS)
def test_ignored_voxels_join_no_sum_and_no_mean(name, channels):
    x, labels = volume(channels)
    labels = ignored(labels)
    activation = "sigmoid" if channels == 1 else "softmax"
    for dtype in (torch.int64, torch.uint8):
        agrees(
            make(name, ignore_index=255)(x, labels.to(dtype)), expected(name, x, labels, activation, ignore_index=255)
        )


@pytest.mark.parametrize("ignore_index", [0, 1, 2, -1, -100])
def test_any_label_can_be_the_ignored_one(ignore_index):
    x, labels = volume(3)
    if ignore_index < 0:
        labels[:, 1:3] = ignore_index
    agrees(
        make("unified-focal", ignore_index=ignore_index)(x, labels),
        expected("unified-focal", x, labels, "softmax", ignore_index=ignore_index),
    )


@pytest.mark.parametrize(("channels", "activation"), READINGS)
@pytest.mark.parametrize("name", WRITTEN_ON_SUMS)
def test_voxel_weights_weigh_every_sum_and_mean(name, channels, activation):
    x, labels = volume(channels)
    weights = some_weights(labels)
    given = multi_label(labels) if activation == "sigmoid" and channels > 1 else labels
    loss = make(name, activation=activation)
    wanted = expected(name, x, given, activation, voxel_weights=weights)
    agrees(loss(x, given, weights), wanted)
    agrees(loss(x, given, weights[:, None]), wanted)
    agrees(loss(x, given, voxel_weights=weights), wanted)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("name", WRITTEN_ON_SUMS)
def test_all_shared_arguments_at_once(name, reduction):
    x, labels = volume(4, images=3)
    labels = ignored(labels)
    labels[2] = 255
    weights = some_weights(labels)
    shared = {
        "class_weights": [0.4, 1.7, 0.9, 2.2],
        "include_background": False,
        "batch": True,
        "absent": "skip",
        "smooth": 0.2,
        "reduction": reduction,
        "ignore_index": 255,
    }
    agrees(
        make(name, **shared)(x, labels, weights), expected(name, x, labels, "softmax", voxel_weights=weights, **shared)
    )


@pytest.mark.parametrize("name", sorted(USES_RARITY))
@pytest.mark.parametrize(
    "rarity",
    [{"common_class": 2}, {"rare_classes": [1, 3]}, {"common_class": 1, "rare_classes": [0]}, {"rare_classes": []}],
    ids=str,
)
def test_common_and_rare_classes_can_be_any(name, rarity):
    x, labels = volume(4)
    own = PARAMETERS[name] | ({"gamma": 0.2} if name == "generalised-focal" else {}) | rarity
    agrees(make(name, **rarity)(x, labels), expected(name, x, labels, "softmax", parameters=own))


# --- parameters with several forms ---------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [None, 0.0, 0.25, 1.0, [0.2, 1.1, 3.0]], ids=str)
@pytest.mark.parametrize("name", ["focal", "hybrid-focal"])
def test_alpha_is_none_a_balance_or_one_factor_per_class(name, alpha):
    x, labels = volume(3)
    own = PARAMETERS[name] | {"alpha": alpha}
    agrees(unifocal.build(name, **own)(x, labels), expected(name, x, labels, "softmax", parameters=own))


@pytest.mark.parametrize(("alpha", "beta"), list(itertools.product([None, 0.0, 0.35, 1.0], [None, 0.0, 0.8, 1.0])))
def test_combo_weights(alpha, beta):
    x, labels = volume(3)
    own = {"alpha": alpha, "beta": beta}
    agrees(unifocal.ComboLoss(**own)(x, labels), expected("combo", x, labels, "softmax", parameters=own))


# --- A-FL ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "activation"), [(1, "sigmoid"), (2, "sigmoid"), (2, "softmax"), (4, "sigmoid")])
@pytest.mark.parametrize("order", ["paper", "original", "scalar"])
@pytest.mark.parametrize("shape", SHAPES)
def test_adaptive_focal_is_its_definition(shape, order, channels, activation):
    x, labels = volume(channels, SHAPES[shape], images=3)
    labels[1] = 0  # an empty mask
    own = PARAMETERS["adaptive-focal"] | {"order": order}
    loss = unifocal.AdaptiveFocalLoss(activation=activation, reduction="none", **own)
    agrees(loss(x, labels), np.array(oracle.adaptive_focal(x.numpy(), labels.numpy(), activation, **own)))


@pytest.mark.parametrize("order", ["paper", "original", "scalar"])
@pytest.mark.parametrize("fill", [0, 1])
def test_adaptive_focal_is_defined_on_empty_and_full_masks(fill, order):
    x, labels = volume(2, (4, 3, 2))
    labels[:] = fill
    wanted = np.mean(oracle.adaptive_focal(x.numpy(), labels.numpy(), "sigmoid", order=order))
    agrees(unifocal.AdaptiveFocalLoss(order=order)(x, labels), np.array(wanted))


def test_adaptive_focal_measures_the_surface_in_units_of_the_spacing():
    x, labels = volume(2, (3, 4, 1, 2))
    for spacing in ([0.5, 2.0, 7.0, 3.0], None):
        wanted = np.mean(oracle.adaptive_focal(x.numpy(), labels.numpy(), "sigmoid", spacing=spacing))
        agrees(unifocal.AdaptiveFocalLoss(spacing=spacing)(x, labels), np.array(wanted))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_adaptive_focal_takes_an_ignored_voxel_for_outside_of_the_mask(channels):
    """Its own statement: v and S are those of the mask without the ignored voxels, which join no mean either."""
    x, labels = volume(channels, (4, 4, 3), images=1)
    labels = ignored(labels)
    valid = (labels != 255).double()
    ignoring = unifocal.AdaptiveFocalLoss(ignore_index=255)(x, labels)
    rng = np.random.default_rng(7)
    elsewhere = torch.tensor(rng.normal(size=tuple(x.shape)))
    other = torch.where(valid.bool()[:, None], x, elsewhere)
    agrees(unifocal.AdaptiveFocalLoss(ignore_index=255)(other, labels), ignoring.numpy())
    as_background = unifocal.AdaptiveFocalLoss()(x, labels.where(labels != 255, 0), valid)
    agrees(as_background, ignoring.numpy())


def test_adaptive_focal_gives_one_channel_the_value_of_two_under_voxel_weights():
    """Weights are no part of the mask: with some of them 0 both readings still see one and the same mask."""
    x, labels = volume(1, (4, 4), images=1)
    weights = (torch.arange(16).view(1, 4, 4) % 3 > 0).double()
    assert labels[weights == 0].sum() > 0
    one = unifocal.AdaptiveFocalLoss(activation="sigmoid")(x, labels, weights)
    two = unifocal.AdaptiveFocalLoss(activation="softmax")(torch.cat([torch.zeros_like(x), x], 1), labels, weights)
    agrees(one, two.numpy())


@pytest.mark.parametrize("engine", ["auto", "aten", "reference"])
@pytest.mark.parametrize("seed", range(6))
def test_a_class_that_no_voxel_has_is_skipped_whatever_the_weights(engine, seed):
    """Not by a difference of sums, which rounding leaves at something else than 0."""
    draw = torch.Generator().manual_seed(seed)
    weights = torch.rand((64, 3), generator=draw).t()
    labels, logits = torch.ones((3, 64), dtype=torch.long), torch.randn((3, 2, 64), generator=draw)
    loss = unifocal.DiceLoss(activation="sigmoid", absent="skip", engine=engine)
    double = unifocal.DiceLoss(activation="sigmoid", absent="skip", engine="reference")
    expected = double(logits.double(), labels, weights.double())
    torch.testing.assert_close(loss(logits, labels, weights).double(), expected, rtol=1e-5, atol=0)


def test_one_voxel_of_background_in_a_huge_image_is_a_class():
    labels = torch.ones((1, 2**25 + 2), dtype=torch.uint8)
    labels[0, 5] = 0
    value = unifocal.DiceLoss(absent="skip")(torch.zeros(1, 1, labels.shape[1]), labels)
    assert value.item() == pytest.approx((1 / 3 + 1) / 2, rel=1e-4)
