"""The table of the family (`unifocal.identities`): which member becomes which other one, and which does not."""

import re
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import ALL, DEFAULTS_OF_NAME, make, value_and_gradient, volume
from torch import Tensor

import unifocal
from unifocal import Identity, build

DIFFERENT = 1e-3  # further apart than anything but another formula explains
HOLDS = [identity for identity in unifocal.identities() if identity.holds]
FAILS = [identity for identity in unifocal.identities() if not identity.holds]


def sides(identity: Identity, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    other = build(identity.other, **identity.becomes)(z, y)
    return build(identity.one, **identity.given)(z, y), identity.factor * other + identity.constant


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("identity", HOLDS, ids=str)
def test_identity_holds_in_value_and_gradient(identity, channels):
    z, y = volume(channels, (5, 4))
    z.requires_grad_()
    one, other = sides(identity, z, y)
    torch.testing.assert_close(one, other, rtol=0, atol=identity.within)
    gradients = [torch.autograd.grad(side, z) for side in (one, other)]
    torch.testing.assert_close(*gradients, rtol=0, atol=identity.within)
    assert identity.stands(z, y)


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("identity", FAILS, ids=lambda row: f"{row} {row.given}")
def test_identity_does_not_hold(identity, channels):
    z, y = volume(channels, (5, 4))
    one, other = sides(identity, z, y)
    assert abs(one - other) > DIFFERENT
    assert identity.stands(z, y) and identity.why


@pytest.mark.parametrize(
    "change", [{"constant": 1e-4}, {"factor": 1.01}, {"holds": False}, {"becomes": {"gamma": 0.1}}]
)
def test_a_row_that_says_something_else_does_not_stand(change):
    row: dict[str, Any] = {
        "one": "focal",
        "when": "gamma=0",
        "other": "focal",
        "given": {"gamma": 0},
        "becomes": {"gamma": 0},
    }
    z, y = volume(2, (5, 4))
    assert Identity(**row).stands(z, y) and not Identity(**(row | change)).stands(z, y)


def test_the_table_lets_no_looseness_in():
    assert {identity.within for identity in HOLDS} == {1e-13, 1e-6}
    smooth = {"symmetric-unified-focal", "unified-focal", "symmetric-focal-tversky", "hybrid-focal"}
    assert {identity.one for identity in HOLDS if identity.within > 1e-13} == smooth  # two smoothings meet there only


@pytest.mark.parametrize("identity", unifocal.identities(), ids=lambda row: f"{row} {row.given}")
def test_what_a_row_says_is_what_it_computes(identity):
    """Each `name=number` of `when` is the parameter, and each that it does not name is of no distinction."""
    sides = identity.becomes | identity.given
    plain: dict[str, float | tuple[float, ...]] = {
        "delta": 0.62,
        "gamma": (0.35, 1.3, 1.7),
        "lam": 0.3,
        "exponent": 1.3,
        "alpha": 0.62,
        "beta": 1.9,
    }
    plain |= {"dice_weight": 0.4, "focal_weight": 1.3}
    said = dict(part.split("=") for part in re.split(", ", identity.when) if "=" in part)
    for name, value in said.items():
        if re.fullmatch(r"[\d./]+", value):
            assert identity.given[name] == pytest.approx(float(Fraction(value)), rel=1e-15)
        elif value == "None":
            assert identity.given[name] is None
    if identity.holds:
        for name, value in identity.given.items():
            assert name in said or value in np.atleast_1d(plain[name]), name
        for name, expression in said.items():
            if not re.fullmatch(r"[\d./]+|None", expression):
                formula = re.sub(r"(?<=\w)²", "**2", expression)
                assert sides[name] == pytest.approx(eval(formula, {}, sides), rel=1e-15)


def test_every_loss_that_is_one_of_others_is_in_the_table():
    """Jaccard's power of an index, the cosine and A-FL's weights from the image are no special case of anything."""
    named = {name for identity in HOLDS for name in (identity.one, identity.other)}
    assert set(ALL) - named == {"jaccard", "cosine-tversky", "adaptive-focal"}


# --- one channel, two channels -------------------------------------------------------------------------------------


SHARED: list[dict] = [
    {},
    {"ignore_index": 255},
    {"class_weights": [0.4, 1.7]},
    {"batch": True},
    {"absent": "skip"},
    {"include_background": False},
    {"reduction": "none"},
]


# A-FL reads two weights under softmax as weights of two channels, each with both its sides.
@pytest.mark.parametrize(
    ("name", "shared"),
    [(n, s) for n in ALL for s in SHARED if not (n == "adaptive-focal" and "class_weights" in s)],
    ids=str,
)
def test_one_channel_is_softmax_on_zero_and_that_channel(name, shared):
    z, y = volume(1, (5, 4), images=3)
    y[1] = 0
    if shared.get("ignore_index"):
        y[:, 2, 1:3] = 255
    z.requires_grad_()
    one = make(name, activation="sigmoid", **shared)(z, y)
    two = make(name, activation="softmax", **shared)(torch.cat([torch.zeros_like(z), z], 1), y)
    # float64 sums of the same probabilities, computed by two formulas
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-14)
    gradients = [torch.autograd.grad(v.sum(), z)[0] for v in (one, two)]
    torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("name", ALL)
def test_auto_is_sigmoid_on_one_channel(name):
    z, y = volume(1)
    assert make(name, activation="auto")(z, y) == make(name, activation="sigmoid")(z, y)


@pytest.mark.parametrize("name", [n for n in ALL if n != "adaptive-focal"])
def test_several_sigmoid_channels_are_the_mean_of_single_ones(name):
    """Each channel its own problem: the classes of all channels in one mean."""
    z, _ = volume(3)
    y = (torch.rand(z.shape, generator=torch.Generator().manual_seed(3)) < 0.4).long()
    together = make(name, activation="sigmoid")(z, y)
    alone = [make(name)(z[:, k : k + 1], y[:, k]) for k in range(3)]
    torch.testing.assert_close(together, torch.stack(alone).mean(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ALL)
def test_probabilities_give_what_their_logits_give(name):
    for channels in (1, 3):
        z, y = volume(channels)
        p = torch.sigmoid(z) if channels == 1 else z.softmax(1)
        activation = "softmax" if name == "adaptive-focal" and channels > 1 else "auto"
        torch.testing.assert_close(make(name, activation="none")(p, y), make(name, activation=activation)(z, y))


# --- constructors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("convention", "exponent"), [("v1", 0.8), ("v2", 1.25), ("unified", 0.2)])
def test_exponent_from_gamma_by_convention(convention, exponent):
    built = unifocal.FocalTverskyLoss.from_gamma(0.8, convention, delta=0.62, smooth=0.1)
    assert built.exponent == pytest.approx(exponent, rel=1e-15)
    assert (built.delta, built.smooth) == (0.62, 0.1)


def test_exponent_of_the_paper_and_of_the_code_is_the_default():
    assert unifocal.FocalTverskyLoss.from_gamma(4 / 3, "v2").exponent == pytest.approx(0.75)
    assert unifocal.FocalTverskyLoss.from_gamma(0.75, "v1").exponent == unifocal.FocalTverskyLoss().exponent == 0.75


@pytest.mark.parametrize(
    ("gamma", "convention"), [(0.0, "v2"), (0.0, "v1"), (1.0, "unified"), (-1.0, "v1"), (2.0, "unified"), (0.5, "v3")]
)
def test_gamma_without_an_exponent_is_refused(gamma, convention):
    with pytest.raises(ValueError, match=r"gamma|convention"):
        unifocal.FocalTverskyLoss.from_gamma(gamma, convention)


def test_unified_convention_allows_gamma_zero():
    """1 - gamma = 1 is a plain Tversky loss, and gamma = 0 lies in the [0, 1) of the unified losses."""
    assert unifocal.FocalTverskyLoss.from_gamma(0.0, "unified").exponent == 1


@pytest.mark.parametrize("name", ALL)
def test_a_name_builds_its_class_with_the_specified_defaults(name):
    built = build(name)
    defaults: dict[str, dict[str, object]] = {
        "focal": {"gamma": 2, "alpha": None},
        "tversky": {"delta": 0.7},
        "asymmetric-similarity": {"beta": 1.5},
        "focal-tversky": {"delta": 0.7, "exponent": 0.75},
        "cosine-tversky": {"delta": 0.7, "gamma": 1},
        "combo": {"alpha": 0.5, "beta": 0.5},
        "dice-ce": {"dice_weight": 1, "ce_weight": 1},
        "dice-focal": {"dice_weight": 1, "focal_weight": 1, "gamma": 2},
        "mixed-focal": {"lam": 0.5, "alpha": None, "gamma": 2, "delta": 0.7, "exponent": 0.75},
        "hybrid-focal": {"lam": 0.5, "alpha": None, "gamma": 2, "delta": 0.7, "exponent": 0.75},
        "symmetric-focal": {"delta": 0.6, "gamma": 0.5},
        "asymmetric-focal": {"delta": 0.6, "gamma": 0.5},
        "symmetric-focal-tversky": {"delta": 0.6, "gamma": 0.5, "smooth": 1e-7},
        "asymmetric-focal-tversky": {"delta": 0.6, "gamma": 0.5, "smooth": 1e-7},
        "symmetric-unified-focal": {"lam": 0.5, "delta": 0.6, "gamma": 0.5, "smooth": 1e-7},
        "unified-focal": {"lam": 0.5, "delta": 0.6, "gamma": 0.5, "smooth": 1e-7, "common_class": 0},
        "generalised-focal": {"lam": 0.5, "delta": 0.6, "smooth": 1e-7, **DEFAULTS_OF_NAME["generalised-focal"]},
        "adaptive-focal": {"size": 1, "smoothness": 1, "gamma_0": 0, "order": "paper", "spacing": None},
    }
    shared: dict[str, object] = {
        "ignore_index": None,
        "class_weights": None,
        "include_background": True,
        "batch": False,
    }
    shared |= {"absent": "count", "smooth": 1e-6, "reduction": "mean", "activation": "auto"}
    shared |= {"activation": "sigmoid"} if name == "adaptive-focal" else {}
    for argument, value in (shared | defaults.get(name, {})).items():
        assert getattr(built, argument) == value, argument


# --- PyTorch's own cross-entropy -----------------------------------------------------------------------------------


def matches_torch(loss: unifocal.SegmentationLoss, z: Tensor, y: Tensor, **theirs) -> None:
    value, gradient = value_and_gradient(loss, z, y)
    x = z.detach().requires_grad_()
    wanted = F.cross_entropy(x, y, **theirs)
    (wanted_gradient,) = torch.autograd.grad(wanted, x)
    # two float64 sums over 40 voxels
    torch.testing.assert_close(value, wanted.detach(), rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-12, atol=1e-15)


def test_cross_entropy_is_that_of_torch():
    matches_torch(unifocal.CrossEntropyLoss(), *volume(4, (5, 4)))


def test_cross_entropy_with_class_weights_is_that_of_torch_on_one_image():
    weights = [0.4, 1.7, 0.9, 2.2]
    z, y = volume(4, (5, 4), images=1)
    matches_torch(unifocal.CrossEntropyLoss(class_weights=weights), z, y, weight=z.new_tensor(weights))


def test_cross_entropy_with_ignored_voxels_is_that_of_torch_on_one_image():
    z, y = volume(4, (5, 4), images=1)
    y[0, 2] = 3
    y[0, 3] = -100
    matches_torch(unifocal.CrossEntropyLoss(ignore_index=-100), z, y, ignore_index=-100)


def test_cross_entropy_with_soft_labels_is_that_of_torch():
    z, _ = volume(4, (5, 4))
    y = torch.tensor(np.random.default_rng(8).dirichlet([1.0] * 4, size=(2, 5, 4))).movedim(-1, 1).contiguous()
    matches_torch(unifocal.CrossEntropyLoss(), z, y)


def test_cross_entropy_of_one_channel_is_the_binary_one_of_torch():
    z, y = volume(1, (5, 4))
    wanted = F.binary_cross_entropy_with_logits(z[:, 0], y.double())
    torch.testing.assert_close(unifocal.CrossEntropyLoss()(z, y), wanted, rtol=1e-13, atol=0)
