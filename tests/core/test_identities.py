"""The family tree of the losses as a table: which member becomes which other one, and which does not."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import ALL, DEFAULTS_OF_NAME, PARAMETERS, make, value_and_gradient, volume
from torch import Tensor

import unifocal
from unifocal import build

EXACT = 1e-13  # the same sums in another order of multiplication
SMOOTHING = 1e-6  # 1e-6 and 1e-7 voxels of smoothing, in a power, against classes of about one voxel
DIFFERENT = 1e-3  # further apart than anything but another formula explains

Call = Callable[[Tensor, Tensor], Tensor]


class Row(NamedTuple):
    """One line of the table: two losses, or expressions of them."""

    says: str
    one: Call
    other: Call
    within: float


def loss(name: str, **parameters) -> Call:
    return build(name, **parameters)


def scaled(factor: float, f: Call, constant: float = 0.0) -> Call:
    return lambda z, y: factor * f(z, y) + constant


D, G, L = 0.62, 0.35, 0.3  # delta, gamma, lam, none of them special
BOTH = ("symmetric-unified-focal", "unified-focal")
PARTS = {"symmetric-unified-focal": "symmetric-focal", "unified-focal": "asymmetric-focal"}

HOLDS = [
    *(
        Row(f"{u} lam=1 is {PARTS[u]}", loss(u, lam=1, delta=D, gamma=G), loss(PARTS[u], delta=D, gamma=G), EXACT)
        for u in BOTH
    ),
    *(
        Row(
            f"{u} lam=0 is {PARTS[u]}-tversky",
            loss(u, lam=0, delta=D, gamma=G),
            loss(f"{PARTS[u]}-tversky", delta=D, gamma=G),
            EXACT,
        )
        for u in BOTH
    ),
    Row(
        "asymmetric and symmetric meet at gamma=0",
        loss("unified-focal", lam=L, delta=D, gamma=0),
        loss("symmetric-unified-focal", lam=L, delta=D, gamma=0),
        EXACT,
    ),
    Row(
        "sUF lam=1 delta=1/2 is half of focal",
        loss("symmetric-unified-focal", lam=1, delta=0.5, gamma=G),
        scaled(0.5, loss("focal", gamma=G)),
        EXACT,
    ),
    Row(
        "sUF lam=1 is focal with alpha=delta",
        loss("symmetric-unified-focal", lam=1, delta=D, gamma=G),
        loss("focal", gamma=G, alpha=D),
        EXACT,
    ),
    *(
        Row(
            f"{u} lam=1 delta=1/2 gamma=0 is half of cross-entropy",
            loss(u, lam=1, delta=0.5, gamma=0),
            scaled(0.5, loss("cross-entropy")),
            EXACT,
        )
        for u in BOTH
    ),
    Row(
        "sUF lam=0 gamma=1-g is focal Tversky with exponent g",
        loss("symmetric-unified-focal", lam=0, delta=D, gamma=1 - 0.7),
        loss("focal-tversky", delta=D, exponent=0.7),
        SMOOTHING,
    ),
    *(
        Row(
            f"{u} lam=0 gamma=0 is Tversky",
            loss(u, lam=0, delta=D, gamma=0),
            loss("tversky", delta=D),
            SMOOTHING,
        )
        for u in BOTH
    ),
    *(
        Row(f"{u} lam=0 gamma=0 delta=1/2 is Dice", loss(u, lam=0, delta=0.5, gamma=0), loss("dice"), SMOOTHING)
        for u in BOTH
    ),
    *(
        Row(
            f"{u} lam=1/2 delta=1/2 gamma=0 is Combo(1/2, 1/2) plus 1/2",
            loss(u, lam=0.5, delta=0.5, gamma=0),
            scaled(1, loss("combo", alpha=0.5, beta=0.5), 0.5),
            SMOOTHING,
        )
        for u in BOTH
    ),
    *(
        Row(
            f"3 {u} at lam=2/3 delta=1/2 gamma=0 is CE - DSC plus 1, which is Dice + CE",
            scaled(3, loss(u, lam=2 / 3, delta=0.5, gamma=0)),
            scaled(1, loss("combo", alpha=None, beta=None), 1.0),
            3 * SMOOTHING,
        )
        for u in BOTH
    ),
    *(
        Row(
            f"{u} delta=1/2 gamma=0, any lam, is Combo(lam, 1/2) plus 1-lam",
            loss(u, lam=L, delta=0.5, gamma=0),
            scaled(1, loss("combo", alpha=L, beta=0.5), 1 - L),
            SMOOTHING,
        )
        for u in BOTH
    ),
    Row("Dice + CE is CE - DSC plus 1", loss("dice-ce"), scaled(1, loss("combo", alpha=None, beta=None), 1.0), EXACT),
    Row(
        "Tversky delta=b²/(1+b²) is asymmetric similarity",
        loss("tversky", delta=1.9**2 / (1 + 1.9**2)),
        loss("asymmetric-similarity", beta=1.9),
        EXACT,
    ),
    Row("asymmetric similarity beta=1 is Dice", loss("asymmetric-similarity", beta=1), loss("dice"), EXACT),
    Row(
        "mixed focal is hybrid focal",
        loss("mixed-focal", **PARAMETERS["mixed-focal"]),
        loss("hybrid-focal", **PARAMETERS["mixed-focal"]),
        EXACT,
    ),
    Row(
        "generalised focal is unified focal with gamma 0.2",
        loss("generalised-focal", lam=L, delta=D),
        loss("unified-focal", lam=L, delta=D, gamma=0.2),
        EXACT,
    ),
    Row("focal gamma=0 is cross-entropy", loss("focal", gamma=0), loss("cross-entropy"), EXACT),
    Row(
        "focal Tversky exponent=1 is Tversky",
        loss("focal-tversky", delta=D, exponent=1),
        loss("tversky", delta=D),
        EXACT,
    ),
    Row("Tversky delta=1/2 is Dice", loss("tversky", delta=0.5), loss("dice"), EXACT),
    Row(
        "hybrid lam=1 is focal",
        loss("hybrid-focal", lam=1, gamma=1.7, alpha=D),
        loss("focal", gamma=1.7, alpha=D),
        EXACT,
    ),
    Row(
        "hybrid lam=0 is focal Tversky",
        loss("hybrid-focal", lam=0, delta=D, exponent=1.3),
        loss("focal-tversky", delta=D, exponent=1.3),
        EXACT,
    ),
    Row(
        "hybrid meets sUF where exponent = 1 - gamma and alpha = delta",
        loss("hybrid-focal", lam=L, alpha=D, gamma=G, delta=D, exponent=1 - G),
        loss("symmetric-unified-focal", lam=L, delta=D, gamma=G),
        SMOOTHING,
    ),
    Row("combo alpha=1 beta=None is cross-entropy", loss("combo", alpha=1, beta=None), loss("cross-entropy"), EXACT),
    Row("combo alpha=0 is Dice minus 1", loss("combo", alpha=0), scaled(1, loss("dice"), -1.0), EXACT),
    Row(
        "Dice + focal at gamma=0 is Dice + CE",
        loss("dice-focal", dice_weight=0.4, focal_weight=1.3, gamma=0),
        loss("dice-ce", dice_weight=0.4, ce_weight=1.3),
        EXACT,
    ),
]

FAILS = [
    Row(
        "sUF is not aUF where gamma > 0",
        loss("symmetric-unified-focal", lam=L, delta=D, gamma=G),
        loss("unified-focal", lam=L, delta=D, gamma=G),
        DIFFERENT,
    ),
    Row(
        "sUF lam=1 gamma=0 is not CE, as figure 1 draws it, but CE weighted by [1-delta, delta]",
        loss("symmetric-unified-focal", lam=1, delta=D, gamma=0),
        loss("cross-entropy"),
        DIFFERENT,
    ),
    Row(
        "nor half of it unless delta=1/2",
        loss("symmetric-unified-focal", lam=1, delta=D, gamma=0),
        scaled(0.5, loss("cross-entropy")),
        DIFFERENT,
    ),
    Row(
        "focal Tversky of v2 needs gamma=1, not a small gamma, to be Tversky",
        unifocal.FocalTverskyLoss.from_gamma(0.01, "v2", delta=D),
        loss("tversky", delta=D),
        DIFFERENT,
    ),
    *(
        Row(
            f"sUF gamma={gamma} is not hybrid(gamma=2, exponent=0.75)",
            loss("symmetric-unified-focal", lam=L, delta=D, gamma=gamma),
            loss("hybrid-focal", lam=L, alpha=D, gamma=2, delta=D, exponent=0.75),
            DIFFERENT,
        )
        for gamma in (0.0, 0.25, 0.5, 0.99)
    ),
    *(
        Row(
            f"sUF gamma={gamma} is not half of Dice + focal(gamma=2)",
            loss("symmetric-unified-focal", lam=2 / 3, delta=0.5, gamma=gamma),
            scaled(1 / 3, loss("dice-focal", gamma=2)),
            DIFFERENT,
        )
        for gamma in (0.0, 0.5, 0.99)
    ),
    Row(
        "lam=1 is not the Tversky side of figure 1",
        loss("unified-focal", lam=1),
        loss("asymmetric-focal-tversky"),
        DIFFERENT,
    ),
    Row("delta does not weigh the false alarms", loss("tversky", delta=D), loss("tversky", delta=1 - D), DIFFERENT),
]


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("row", HOLDS, ids=lambda row: row.says)
def test_identity_holds_in_value_and_gradient(row, channels):
    z, y = volume(channels, (5, 4))
    z.requires_grad_()
    one, other = row.one(z, y), row.other(z, y)
    torch.testing.assert_close(one, other, rtol=0, atol=row.within)
    torch.testing.assert_close(torch.autograd.grad(one, z), torch.autograd.grad(other, z), rtol=0, atol=row.within)


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("row", FAILS, ids=lambda row: row.says)
def test_identity_does_not_hold(row, channels):
    z, y = volume(channels, (5, 4))
    assert abs(row.one(z, y) - row.other(z, y)) > row.within


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
