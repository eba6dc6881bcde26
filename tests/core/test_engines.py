"""What every engine has to keep: the sums and the gradient of sums/README.md, for every call that can be made.

Each test builds a call, gives it to the engine as engines.py says, and compares with `voxel_oracle.py`. An engine that
does not serve a call is skipped with its own reason; those in ON_CPU have to serve them all.
"""

import decimal
import itertools
import math
import warnings
import zlib
from collections.abc import Iterator, Sequence
from decimal import Decimal
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from voxel_oracle import Expected, expected

from unifocal.sums import SumName, VoxelSums, engines, native, ops, voxel_sums
from unifocal.sums.engines import ENGINES
from unifocal.sums.form import Form

ON_CPU = ("reference", "aten", "native")  # those that serve whatever lies in the memory of the CPU

SIX: tuple[SumName, ...] = ("tp", "fp", "fn", "tn", "ce", "rest")
ENTROPY_OF_CLASSES: tuple[SumName, ...] = ("ce", "tp", "fp", "fn")
ACTIVATIONS = ("softmax", "sigmoid", "none")
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
INTEGERS = (
    *(torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16),
    *(torch.uint32, torch.int32, torch.uint64, torch.int64),
)
GAMMAS = (0.0, 0.5, 2.0, 0.1, 1.0, 5.0)

# Relative errors that are allowed: of a sum, and of a gradient measured by the pieces that it is the sum of.
OF_SUMS = {torch.float32: 1e-6, torch.float64: 1e-12}
OF_GRADIENT = {torch.float32: 1e-5, torch.float64: 1e-12}
NOTHING = 1e-30  # slopes below this need no digits


# --- calls -----------------------------------------------------------------------------------------------------------


class Call(NamedTuple):
    """What an engine is called with."""

    x: Tensor
    labels: Tensor
    weights: Tensor | None
    gamma: Tensor
    rest_gamma: Tensor
    form: Form


def generator(*seed: object) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(repr(seed).encode()))


def channels(activation: str, *numbers: int) -> list[int]:
    """Those of the numbers of channels that a loss can have; a softmax over one is refused."""
    return [k for k in numbers if k > 1 or activation != "softmax"]


def probabilities(z: Tensor) -> Tensor:
    return z.softmax(1) if z.shape[1] > 1 else z.sigmoid()


def field(activation: str, n: int, k: int, v: int, dtype: torch.dtype = torch.float32, scale: float = 3.0) -> Tensor:
    """Random logits, or probabilities where the activation is "none"."""
    z = torch.randn(n, k, v, generator=generator("field", activation, n, k, v)) * scale
    return (probabilities(z) if activation == "none" else z).to(dtype)


def indices(n: int, k: int, v: int, dtype: torch.dtype = torch.int64, blobs: bool = False) -> Tensor:
    """Random class indices; in blobs, runs of neighbours have the same."""
    drawn = torch.randint(max(k, 2), (n, -(-v // 29) if blobs else v), generator=generator("indices", n, k, v))
    labels = drawn.repeat_interleave(29, 1)[:, :v] if blobs else drawn
    return (labels % 2 if dtype == torch.bool else labels).to(dtype)


def soft(n: int, k: int, v: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Soft labels whose classes sum to 1, a fifth of them one-hot, or those one-hot in an integer dtype."""
    drawn = torch.rand(n, k, v, generator=generator("soft", n, k, v))
    hot = (drawn == drawn.amax(1, keepdim=True)) & (drawn > 0.3)
    if not dtype.is_floating_point:
        return hot.to(dtype)
    mixed = drawn / drawn.sum(1, keepdim=True) if k > 1 else drawn
    return torch.where(torch.arange(v) % 5 == 0, hot.float(), mixed).to(dtype)


def weighting(n: int, v: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Voxel weights, about a quarter of them 0."""
    drawn = torch.rand(n, v, generator=generator("weights", n, v)) * 4 - 1
    return drawn.clamp_min(0).to(dtype)


def exponents(n: int, k: int, shift: int = 0) -> Tensor:
    """A gamma for every image and class, in turn."""
    return torch.tensor(GAMMAS)[(torch.arange(n * k) + shift) % len(GAMMAS)].view(n, k)


def call(
    activation: str = "softmax",
    k: int = 3,
    v: int = 67,
    n: int = 2,
    *,
    dtype: torch.dtype = torch.float32,
    x: Tensor | None = None,
    labels: Tensor | str = "hard",
    weights: Tensor | None = None,
    gamma: Tensor | None = None,
    rest_gamma: Tensor | None = None,
    wanted: Sequence[str] = SIX,
    ignore_index: int | None = None,
    clip: bool = False,
) -> Call:
    """A call of an engine, random where nothing is said; labels are a tensor, "hard" or "soft"."""
    x = field(activation, n, k, v, dtype) if x is None else x
    n, k, v = x.shape
    if isinstance(labels, str):
        labels = {"hard": indices, "soft": soft}[labels](n, k, v)
    arithmetic = torch.promote_types(x.dtype, torch.float32)
    gamma = exponents(n, k) if gamma is None else gamma
    rest_gamma = exponents(n, k, 2) if rest_gamma is None else rest_gamma
    form = Form(activation, tuple(wanted), ignore_index, clip)
    return Call(x, labels, weights, gamma.to(arithmetic), rest_gamma.to(arithmetic), form)


def random_upstream(c: Call) -> Tensor:
    """dL/d(values) of both signs, in the dtype of the sums."""
    n, k, _ = c.x.shape
    return torch.randn(len(c.form.wanted), n, k, generator=generator("upstream", n, k), dtype=c.gamma.dtype)


# --- what is asked of an engine --------------------------------------------------------------------------------------


def serving(name: str, c: Call) -> ModuleType:
    """The engine if it serves the call; else the test is skipped with its reason, or fails where it must serve."""
    reason = ENGINES[name].why_not(c.x, c.labels, c.weights, c.form)
    if reason and name in ON_CPU and "not compiled" not in reason:
        pytest.fail(f"{name} has to serve every call on the CPU, but: {reason}")
    if reason:
        pytest.skip(f"{name}: {reason}")
    return ENGINES[name]


def results(name: str, c: Call, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Values, labelled, voxels and gradient of an engine."""
    module = serving(name, c)
    soil(c)
    values, labelled, voxels = module.forward(*c)
    soil(c)
    return values, labelled, voxels, module.backward(upstream, *c)


def soil(c: Call) -> None:
    """Leave NaN in memory of the sizes that an engine asks for, for it to find in what it does not write."""
    n, k, _ = c.x.shape
    for size, dtype in ((c.x.numel(), c.x.dtype), (len(c.form.wanted) * n * k, c.gamma.dtype), (n * k, c.gamma.dtype)):
        torch.full((size,), math.nan, dtype=dtype)


def check(name: str, c: Call, upstream: Tensor | None = None) -> None:
    """Run the engine forward and backward, and compare everything that it returns and leaves behind."""
    upstream = random_upstream(c) if upstream is None else upstream
    given = [t for t in (*c[:5], upstream) if t is not None]
    before = [bits(t) for t in given]
    values, labelled, voxels, gradient = results(name, c, upstream)
    assert all(torch.equal(bits(t), b) for t, b in zip(given, before, strict=True)), (
        f"{about(name, c)} an input was written to"
    )

    arithmetic, (n, k, _) = c.gamma.dtype, c.x.shape
    shapes = {"values": (len(c.form.wanted), n, k), "labelled": (n, k), "voxels": (n, 1)}
    for what, got in zip(shapes, (values, labelled, voxels), strict=True):
        assert (tuple(got.shape), got.dtype) == (shapes[what], arithmetic), f"{about(name, c)} {what}"
    assert (gradient.shape, gradient.dtype) == (c.x.shape, c.x.dtype), f"{about(name, c)} gradient"
    assert strides(gradient) == strides(torch.empty_like(c.x)), f"{about(name, c)} strides of the gradient"

    e = expected(*c[:5], *c.form, upstream=upstream)
    compare_sums(name, c, values, labelled, voxels, e)
    compare_gradient(name, c, gradient, e)


def about(name: str, c: Call) -> str:
    """The engine and what is particular about a call, for messages."""
    kind = "hard" if c.labels.ndim == 2 else "dense"
    words = [f"{c.form.activation} of {name_of(c.x.dtype)} {tuple(c.x.shape)} with strides {c.x.stride()}"]
    words += [f"{kind} {name_of(c.labels.dtype)} labels with strides {c.labels.stride()}"]
    if c.weights is not None:
        words += [f"{name_of(c.weights.dtype)} weights with strides {c.weights.stride()}"]
    words += [f"ignore_index {c.form.ignore_index}"] * (c.form.ignore_index is not None)
    return f"{name}: {', '.join(words)}{', clipped' if c.form.clip else ''}:\n "


def compare_sums(name: str, c: Call, values: Tensor, labelled: Tensor, voxels: Tensor, e: Expected) -> None:
    """To OF_SUMS, or where that is more, to what rounding each term makes."""
    arithmetic = c.gamma.dtype
    relative, tiny = OF_SUMS[arithmetic], torch.finfo(arithmetic).tiny * (c.x.shape[2] + 1)
    rounding = 2 * torch.finfo(arithmetic).eps * e.slack
    for i, wanted in enumerate(c.form.wanted):
        tolerance = torch.maximum(relative * e.values[i].abs(), rounding[i]) + tiny
        compare(f"{about(name, c)} {wanted}", values[i], e.values[i], tolerance, "image, class")
    compare(f"{about(name, c)} labelled", labelled, e.labelled, relative * e.labelled, "image, class")
    compare(f"{about(name, c)} voxels", voxels, e.voxels, relative * e.voxels, "image, 0")


def compare_gradient(name: str, c: Call, gradient: Tensor, e: Expected) -> None:
    """To OF_GRADIENT, and to the digits that the dtype of x has."""
    own = torch.finfo(c.x.dtype)
    relative = torch.full_like(e.depth, OF_GRADIENT[c.gamma.dtype])
    if c.form.activation == "softmax" and "rest" in c.form.wanted:
        relative += torch.finfo(c.gamma.dtype).eps * e.depth  # shares of what is left beside a class that is certain
    tolerance = relative * e.strength + max(NOTHING, own.smallest_normal)
    if c.x.dtype.itemsize == 2:
        tolerance = tolerance + own.eps * e.gradient.abs()
    compare(f"{about(name, c)} gradient", gradient, e.gradient, tolerance, "image, channel, voxel")
    uncounted = (e.strength == 0).expand_as(gradient)
    assert not gradient[uncounted].any(), f"{about(name, c)} gradient where nothing counts"


def compare(what: str, got: Tensor, want: Tensor, tolerance: Tensor, axes: str) -> None:
    """Fail with the worst of the differences beyond the tolerance, and where it is."""
    difference = (got.double() - want).abs()
    wrong = ~(difference <= tolerance)
    if not wrong.any():
        return
    excess = (difference / tolerance.clamp_min(1e-300)).where(wrong, 0.0).nan_to_num(math.inf, math.inf)
    at = tuple(int(i) for i in torch.unravel_index(excess.argmax(), excess.shape))
    off, allowed = difference[at].item(), tolerance.expand_as(want)[at].item()
    pytest.fail(
        f"{what}: {int(wrong.sum())} of {wrong.numel()} are wrong; the worst, at ({axes}) = {at}, is "
        f"{got[at].item()!r} for {want[at].item()!r}, off by {off:.2g} where {allowed:.2g} is allowed",
        pytrace=False,
    )


def bits(t: Tensor) -> Tensor:
    """A copy of the tensor as bytes, in which NaN is equal to itself."""
    return t.detach().clone(memory_format=torch.contiguous_format).flatten().view(torch.uint8)


def strides(t: Tensor) -> list[int]:
    """Those that matter."""
    return [stride for size, stride in zip(t.shape, t.stride(), strict=True) if size > 1] if t.numel() else []


def name_of(value: Any) -> str | None:
    """Parameters in the names of tests."""
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, tuple):
        return ",".join(map(str, value)) if value != SIX else "all"
    return None


each_activation = pytest.mark.parametrize("activation", ACTIVATIONS)
each_kind = pytest.mark.parametrize("labels", ["hard", "soft"])
each_float = pytest.mark.parametrize("dtype", FLOATS, ids=name_of)


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> Any:
    """The name of every engine in turn."""
    return request.param


@pytest.fixture
def threads() -> Iterator[None]:
    """Put the number of threads back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", ON_CPU)
def test_it_is_there_and_serves_a_plain_call(name):
    assert name in ENGINES
    serving(name, call())


def test_auto_says_once_that_the_compiled_engine_is_missing(monkeypatch):
    monkeypatch.setattr(native, "_load", lambda: "it was not compiled")
    engines._warn_once.cache_clear()
    c = call()
    with pytest.warns(RuntimeWarning, match=r"several times as slowly .*: it was not compiled\. engine='aten' says"):
        assert engines.select("auto", c.x, c.labels, c.weights, c.form) is ENGINES["aten"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engines.select("auto", c.x, c.labels, c.weights, c.form)
        engines._warn_once.cache_clear()
        engines.select("aten", c.x, c.labels, c.weights, c.form)


def test_auto_has_an_engine_for_every_call():
    assert ENGINES["reference"].why_not(*call()[:3], call().form) is None


# --- the definition --------------------------------------------------------------------------------------------------


def by_decimals(logits: Sequence[Decimal], activation: str, name: str, gamma: Decimal, channel: int, g: int) -> Decimal:
    """One term of one sum to as many digits as the context has."""
    e = [z.exp() for z in logits]
    others = sum((v for j, v in enumerate(e) if j != channel), Decimal(0)) if activation == "softmax" else Decimal(1)
    total = e[channel] + others
    p, q = e[channel] / total, others / total
    if name == "ce":
        return -g * (gamma * q.ln()).exp() * p.ln()
    if name == "rest":
        return -(1 - g) * (gamma * p.ln()).exp() * q.ln()
    return {"tp": g * p, "fn": g * q, "fp": (1 - g) * p, "tn": (1 - g) * q}[name]


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("name", SIX)
@pytest.mark.parametrize("logits", [(0.3, -1.2, 2.0), (40.0, 0.0, 1.0), (0.0, 200.0, -3.0), (-1e4, 1e4, 0.0)], ids=str)
def test_the_oracle_agrees_with_the_equations_in_many_digits(activation, name, logits):
    """Its values, and its gradient with a quotient of differences."""
    step, g = Decimal("1e-60"), int(name in ("tp", "fn", "ce"))
    x = torch.tensor(logits, dtype=torch.float64).view(1, 3, 1)
    for channel, gamma in itertools.product((0, 1), (0.0, 0.1, 2.0) if name in ("ce", "rest") else (0.0,)):
        only = torch.zeros(1, 1, 3, dtype=torch.float64)
        only[..., channel] = 1
        exponent = torch.tensor([gamma], dtype=torch.float64)
        labels = torch.full((1, 3, 1), g)
        e = expected(x, labels, None, exponent, exponent, activation, (name,), None, False, upstream=only)
        with decimal.localcontext(decimal.Context(prec=300, Emin=-(10**7), Emax=10**7)):
            z = [Decimal(v) for v in logits]
            arguments = (activation, name, Decimal(gamma), channel, g)
            value = by_decimals(z, *arguments)
            slopes = []
            for j in range(3):
                up, down = ([v + s * (i == j) for i, v in enumerate(z)] for s in (step, -step))
                slopes.append((by_decimals(up, *arguments) - by_decimals(down, *arguments)) / (2 * step))
        assert float(e.values[0, 0, channel]) == pytest.approx(float(value), rel=1e-13, abs=1e-300)
        assert e.gradient.flatten().tolist() == pytest.approx([float(s) for s in slopes], rel=1e-12, abs=1e-300)


# --- forms -----------------------------------------------------------------------------------------------------------

CHANNELS = (1, 2, 3, 4, 5, 8, 14, 16, 17, 33, 64, 65, 105)
SETS: tuple[tuple[SumName, ...], ...] = (
    *((name,) for name in SIX),
    ("tp", "fp", "fn"),
    ("tp", "fp", "fn", "tn"),
    ENTROPY_OF_CLASSES,
    ("ce", "rest"),
    ("rest", "tn", "fn", "ce", "fp", "tp"),
)


@each_kind
@each_activation
def test_any_number_of_channels(engine, activation, labels):
    for k in channels(activation, *CHANNELS):
        check(engine, call(activation, k, labels=labels))


@each_kind
@each_activation
@pytest.mark.parametrize("wanted", SETS, ids=name_of)
def test_any_set_of_sums(engine, wanted, activation, labels):
    for k in channels(activation, 1, 2, 3, 9):
        check(engine, call(activation, k, v=53, labels=labels, wanted=wanted))


@each_kind
@each_activation
@each_float
@pytest.mark.parametrize("wanted", [SIX, ENTROPY_OF_CLASSES], ids=name_of)
def test_any_float_dtype(engine, wanted, dtype, activation, labels):
    weights = weighting(2, 300)
    check(engine, call(activation, 4, v=300, dtype=dtype, labels=labels, weights=weights, wanted=wanted))


@each_activation
@pytest.mark.parametrize("dtype", INTEGERS, ids=name_of)
def test_hard_labels_of_any_integer(engine, dtype, activation):
    for k in channels(activation, 1, 2, 3, 20):
        check(engine, call(activation, k, labels=indices(2, k, 67, dtype)))


@each_activation
@pytest.mark.parametrize("dtype", [*FLOATS, torch.uint8, torch.int8, torch.int32, torch.int64, torch.bool], ids=name_of)
def test_dense_labels_of_any_dtype(engine, dtype, activation):
    for k in channels(activation, 1, 2, 5):
        check(engine, call(activation, k, labels=soft(2, k, 67, dtype)))


@each_activation
@pytest.mark.parametrize("dtype", FLOATS, ids=name_of)
def test_soft_labels_of_double_precision_beside_any_x(engine, dtype, activation):
    check(engine, call(activation, 3, dtype=dtype, labels=soft(2, 3, 67, torch.float64)))


@each_kind
@each_activation
@pytest.mark.parametrize("value", GAMMAS)
def test_any_gamma(engine, value, activation, labels):
    gamma = torch.tensor([value])
    check(engine, call(activation, 3, labels=labels, gamma=gamma, rest_gamma=gamma))


@each_activation
@pytest.mark.parametrize("shape", ["()", "(1)", "(K)", "(N,1)", "(1,K)", "(N,K)", "(N,K) of strides (1,N)"])
def test_any_shape_of_gamma(engine, shape, activation):
    for k in channels(activation, 1, 2, 4, 11):
        full = exponents(3, k, 1)
        shapes = {
            "()": full[0, 0],
            "(1)": full[0, :1],
            "(K)": full[0],
            "(N,1)": full[:, :1],
            "(1,K)": full[:1],
            "(N,K)": full,
            "(N,K) of strides (1,N)": full.t().contiguous().t(),
        }
        check(engine, call(activation, k, n=3, gamma=shapes[shape], rest_gamma=shapes[shape] + 0.25))
        check(engine, call(activation, k, n=3, gamma=shapes[shape]))


# --- voxels that do not count ----------------------------------------------------------------------------------------


@each_kind
@each_activation
@pytest.mark.parametrize("weights", [None, torch.float32], ids=["unweighted", "weighted"])
def test_ignored_voxels_join_no_sum(engine, weights, activation, labels):
    for k in channels(activation, 1, 2, 3):
        marked = indices(2, k, 67) if labels == "hard" else soft(2, k, 67, torch.int16)
        marked[..., 3::4] = 7  # in every channel of dense labels
        if labels == "soft":
            marked[:, 0, 5] = 7  # or in one alone
        given = None if weights is None else weighting(2, 67)
        check(engine, call(activation, k, labels=marked, weights=given, ignore_index=7))


@pytest.mark.parametrize("labels", [torch.uint8, torch.int8, torch.int32, torch.int64], ids=name_of)
@pytest.mark.parametrize("ignore_index", [0, 1, 2])
@each_activation
def test_a_class_can_be_ignored(engine, activation, ignore_index, labels):
    check(engine, call(activation, 3, labels=indices(2, 3, 67, labels), ignore_index=ignore_index))


@pytest.mark.parametrize(
    ("dtype", "ignore_index"),
    [
        (torch.uint8, 255),
        (torch.int8, -1),
        (torch.uint16, 65535),
        (torch.int16, -100),
        (torch.int32, -(2**31)),
        (torch.uint32, 2**32 - 1),
        (torch.int64, -(2**63)),
        (torch.int64, 2**63 - 1),
        (torch.int64, 2**32 + 1),
    ],
    ids=str,
)
def test_ignored_labels_at_the_ends_of_their_dtype(engine, dtype, ignore_index):
    labels = torch.where(torch.arange(67) % 3 == 0, ignore_index, indices(2, 3, 67)).to(dtype)
    check(engine, call(labels=labels, ignore_index=ignore_index))


@pytest.mark.parametrize(
    ("dtype", "ignore_index"),
    [(torch.uint8, -1), (torch.uint8, 256), (torch.int8, 255), (torch.bool, -1), (torch.int32, 2**32)],
    ids=str,
)
def test_an_ignore_index_beyond_the_dtype_of_the_labels_ignores_nothing(engine, dtype, ignore_index):
    """In particular not the label that it would be if it were cut to that dtype."""
    labels = indices(2, 3, 67).where(torch.arange(67) % 3 > 0, -1 if dtype != torch.bool else 1).to(dtype)
    check(engine, call(labels=labels, ignore_index=ignore_index))


@each_kind
@each_activation
@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int64, torch.bool],
    ids=name_of,
)
def test_weights_of_any_dtype(engine, dtype, activation, labels):
    check(engine, call(activation, 3, labels=labels, weights=weighting(2, 67, dtype)))
    check(engine, call(activation, 3, labels=labels, weights=weighting(2, 67, dtype), dtype=torch.float64))


@each_kind
@each_activation
@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf, 3e4])
def test_what_stands_at_voxels_that_do_not_count_does_not_matter(engine, junk, activation, labels):
    for k in channels(activation, 1, 2, 3, 9):
        x = field(activation, 2, k, 67)
        weights = weighting(2, 67)
        x.masked_fill_((weights == 0)[:, None], junk)
        truth = indices(2, k, 67) if labels == "hard" else soft(2, k, 67)
        if labels == "soft":
            truth.masked_fill_((weights == 0)[:, None], junk)
        else:
            truth.masked_fill_(weights == 0, 255)
        check(engine, call(activation, k, x=x, labels=truth, weights=weights))
        if labels == "hard":
            check(engine, call(activation, k, x=x, labels=truth, ignore_index=255))


@each_activation
def test_an_image_in_which_no_voxel_counts(engine, activation):
    x, weights = field(activation, 2, 3, 67), weighting(2, 67)
    x[1], weights[1] = math.nan, 0
    check(engine, call(activation, 3, x=x, weights=weights))


@each_activation
@pytest.mark.parametrize("name", SIX)
def test_a_voxel_of_nan_that_counts_is_seen(engine, name, activation):
    """A diverged network must not look like a good one."""
    for k in channels(activation, 1, 2, 3, 9):
        x = field(activation, 2, k, 67)
        x[1, :, 33] = math.nan
        c = call(activation, k, x=x, labels=torch.full((2, k, 67), 0.5), wanted=(name,))
        values = results(engine, c, random_upstream(c))[0]
        finite = values.isfinite()[0].tolist()
        assert finite == [[True] * k, [False] * k], f"{about(engine, c)} {values.tolist()}"


# --- labels that name no class ---------------------------------------------------------------------------------------


@each_activation
@pytest.mark.parametrize("dtype", [d for d in INTEGERS if d != torch.bool], ids=name_of)
def test_a_label_that_names_no_class_is_a_voxel_of_none(engine, dtype, activation):
    for k in channels(activation, 1, 2, 3, 9):
        ends = torch.iinfo(dtype)
        foreign = [
            value for value in (-1, -100, k, k + 1, 127, 255, 2**32, 2**32 + 1, 2**40) if ends.min <= value <= ends.max
        ]
        foreign += [ends.min, ends.max]
        labels = indices(2, max(k, 2), 67)
        for i, value in enumerate(foreign):
            labels[i % 2, 5 * i] = value if value < 2**63 else -1  # which is the largest when read as unsigned
        labels = labels.view(torch.uint64) if dtype == torch.uint64 else labels.to(dtype)
        check(engine, call(activation, k, labels=labels))


@each_activation
def test_no_voxel_names_a_class(engine, activation):
    check(engine, call(activation, 3, labels=torch.full((2, 67), 200, dtype=torch.uint8)))


@each_activation
def test_absent_classes(engine, activation):
    check(engine, call(activation, 6, labels=indices(2, 6, 67).clamp_max(2)))


# --- shapes and memory -----------------------------------------------------------------------------------------------

SIZES = (0, 1, 7, 15, 16, 17, 31, 8191, 8192, 8193, 20001)


@each_kind
@each_activation
@pytest.mark.parametrize("v", SIZES)
def test_any_number_of_voxels(engine, v, activation, labels):
    check(engine, call(activation, 2, v, labels=labels, weights=weighting(2, v)))
    check(engine, call(activation, 3, v, labels=labels))


@each_kind
@each_activation
@pytest.mark.parametrize(("n", "v"), [(0, 5), (0, 0), (1, 1), (1, 40), (7, 3)], ids=str)
def test_any_number_of_images(engine, n, v, activation, labels):
    check(engine, call(activation, 3, v, n, labels=labels))


@each_kind
@each_activation
@pytest.mark.parametrize(("v", "k"), [(2048, 9), (1024, 40), pytest.param(16384, 33, marks=pytest.mark.slow)], ids=str)
def test_channels_that_share_the_places_of_a_cache(engine, v, k, activation, labels):
    if engine == "triton":
        pytest.skip("triton: its interpreter takes minutes, and on a GPU no size is special")
    wanted = ("ce", "tp", "fn", "fp")
    for of_x, weights in ((torch.float32, None), (torch.bfloat16, None), (torch.float32, weighting(1, v))):
        check(engine, call(activation, k, v, 1, dtype=of_x, labels=labels, weights=weights, wanted=wanted))


@each_activation
@pytest.mark.parametrize("blobs", [True, False], ids=["blobs", "shuffled"])
def test_blobs_and_shuffled_labels(engine, blobs, activation):
    for k in channels(activation, 1, 2, 3, 14):
        check(engine, call(activation, k, 3001, labels=indices(2, k, 3001, torch.uint8, blobs)))


def contiguous(t: Tensor) -> Tensor:
    return t.clone()


def channels_last(t: Tensor) -> Tensor:
    return t.movedim(1, -1).contiguous().movedim(-1, 1)


def slice_of_channels(t: Tensor) -> Tensor:
    return torch.cat([t[:, :2] * 0, t, t[:, :1] * 0], 1)[:, 2 : 2 + t.shape[1]]


def slice_of_channels_last(t: Tensor) -> Tensor:
    return channels_last(torch.cat([t[:, :1] * 0, t, t[:, :1] * 0], 1))[:, 1 : 1 + t.shape[1]]


def later_images(t: Tensor) -> Tensor:
    return torch.cat([t[:1] * 0, t])[1:]


def every_other_image(t: Tensor) -> Tensor:
    return t.repeat_interleave(2, 0)[::2]


def every_other_voxel(t: Tensor) -> Tensor:
    return t.repeat_interleave(2, -1)[..., ::2]


def slice_of_voxels(t: Tensor) -> Tensor:
    return torch.cat([t[..., :3] * 0, t], -1)[..., 3:]


def images_inside(t: Tensor) -> Tensor:
    return t.movedim(0, 1).contiguous().movedim(1, 0)


def backwards(t: Tensor) -> Tensor:
    axes = tuple(range(t.ndim))[::-1]
    return t.permute(axes).contiguous().permute(axes)


def one_image_for_all(t: Tensor) -> Tensor:
    return t[:1].expand_as(t)


def one_voxel_for_all(t: Tensor) -> Tensor:
    return t[..., :1].expand_as(t)


LAYOUTS = (
    *(contiguous, channels_last, slice_of_channels, slice_of_channels_last, later_images, every_other_image),
    *(every_other_voxel, slice_of_voxels, images_inside, backwards, one_image_for_all, one_voxel_for_all),
)
WITHOUT_CHANNELS = tuple(f for f in LAYOUTS if f not in (channels_last, slice_of_channels, slice_of_channels_last))


def laid_out(layout: Any, t: Tensor) -> Tensor:
    return layout(t) if layout in WITHOUT_CHANNELS or t.ndim == 3 else t


@each_activation
@pytest.mark.parametrize("of_x", LAYOUTS)
def test_any_layout_of_x_and_hard_labels(engine, of_x, activation):
    x = of_x(field(activation, 2, 3, 131))
    for of_labels in WITHOUT_CHANNELS:
        check(engine, call(activation, x=x, labels=of_labels(indices(2, 3, 131, torch.uint8))))


@each_activation
@pytest.mark.parametrize("of_x", LAYOUTS)
def test_any_layout_of_x_and_soft_labels(engine, of_x, activation):
    x = of_x(field(activation, 2, 3, 41))
    for of_labels in LAYOUTS:
        check(engine, call(activation, x=x, labels=of_labels(soft(2, 3, 41))))


@each_kind
@each_activation
@pytest.mark.parametrize("of_weights", WITHOUT_CHANNELS)
def test_any_layout_of_weights(engine, of_weights, activation, labels):
    check(engine, call(activation, labels=labels, weights=of_weights(weighting(2, 67))))


@each_activation
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_of_any_dtype(engine, layout, activation):
    for k, dtype in itertools.product(channels(activation, 1, 2, 17), FLOATS):
        x = layout(field(activation, 2, k, 37, dtype))
        check(engine, call(activation, x=x, labels=laid_out(layout, indices(2, k, 37, torch.int32))))


@pytest.mark.parametrize("upstream", ["one number for all", "transposed", "one image's for all"])
@each_activation
def test_any_layout_of_the_upstream_gradient(engine, activation, upstream):
    c = call(activation, n=3)
    given = random_upstream(c)
    kinds = {
        "one number for all": given[:1, :1, :1].expand_as(given),
        "transposed": given.permute(2, 1, 0).contiguous().permute(2, 1, 0),
        "one image's for all": given[:, :1].expand_as(given),
    }
    check(engine, c, kinds[upstream])


@each_kind
@each_activation
@pytest.mark.parametrize("layout", [contiguous, channels_last, slice_of_channels, one_image_for_all])
def test_every_number_is_written(engine, layout, activation, labels):
    """PyTorch fills with NaN what is allocated empty while it is asked for deterministic algorithms."""
    for k in channels(activation, 1, 2, 3, 14):
        c = call(activation, x=layout(field(activation, 2, k, 67)), labels=labels)
        torch.use_deterministic_algorithms(True)
        try:
            assert torch.empty(3).isnan().all()
            check(engine, c)
        finally:
            torch.use_deterministic_algorithms(False)


# --- numbers at the ends of their range ------------------------------------------------------------------------------


@each_kind
@each_float
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("wanted", [SIX, ENTROPY_OF_CLASSES], ids=name_of)
@pytest.mark.parametrize("size", [100.0, 1e4])
def test_logits_of_any_size(engine, size, wanted, activation, dtype, labels):
    for k in channels(activation, 1, 2, 3, 14):
        choices = torch.tensor([-size, size, 0.0, 3.0, -size / 2, 20.0])
        x = choices[torch.randint(6, (2, k, 167), generator=generator(k))].to(dtype)
        check(engine, call(activation, x=x, labels=labels, wanted=wanted))


@each_float
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("wanted", [SIX, ENTROPY_OF_CLASSES], ids=name_of)
def test_classes_ruled_out_by_minus_infinity(engine, wanted, activation, dtype):
    """A channel whose class the voxel does not have may be -inf: its probability is 0 and all sums are finite."""
    for k in channels(activation, 1, 2, 3, 14):
        x, labels = field(activation, 2, k, 167, dtype), indices(2, k, 167)
        first = 1 if k == 1 else 0
        others = labels[:, None] != torch.arange(first, first + k)[:, None]
        ruled_out = others & (torch.rand(2, k, 167, generator=generator(k)) < 0.5)
        check(engine, call(activation, x=x.masked_fill(ruled_out, -math.inf), labels=labels, wanted=wanted))


@each_float
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("wanted", [("tp", "fp", "fn", "tn"), SIX], ids=name_of)
def test_a_true_class_ruled_out_by_minus_infinity_makes_no_nan(engine, wanted, activation, dtype):
    """The entropy is infinite; it may be so or the largest number, but neither it nor the gradient is NaN."""
    for k in channels(activation, 1, 2, 3, 14):
        x = field(activation, 2, k, 67, dtype)
        x[:, 0, ::3] = -math.inf
        c = call(activation, x=x, labels=torch.full((2, 67), 1 if k == 1 else 0), wanted=wanted)
        values, _, _, gradient = results(engine, c, torch.ones_like(random_upstream(c)))
        assert not values.isnan().any()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("gamma", [0.3, 2.5, 7.5])
@pytest.mark.parametrize("size", [5.1, 17.9, 63.9336, 87.2])
def test_powers_of_what_is_all_but_certainly_wrong(engine, size, gamma):
    """Of a probability of nearly 1, whose logarithm is no difference of two large numbers."""
    x, labels = torch.full((1, 1, 4096), size), torch.zeros(1, 4096, dtype=torch.int64)
    exponent = torch.tensor([gamma])
    check(engine, call("sigmoid", x=x, labels=labels, wanted=("ce", "rest"), gamma=exponent, rest_gamma=exponent))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=name_of)
@pytest.mark.parametrize("low", [(-8261.7, -8262.0), (-math.inf, -math.inf), (-math.inf, -9000.0)], ids=str)
def test_far_behind_the_likeliest_channel_the_others_share_its_gradient(engine, low, dtype):
    """In float32, too, as they do at logits of no size, of which this only differs by a constant beside the first."""
    x = torch.tensor([8261.904296875, *low], dtype=dtype).view(1, 3, 1)
    exponent, labels = torch.tensor([0.4]), torch.ones(1, 1, dtype=torch.int64)
    c = call("softmax", x=x, labels=labels, wanted=("ce", "rest"), gamma=exponent, rest_gamma=exponent)
    upstream = torch.tensor([0.0, 1.0], dtype=c.gamma.dtype).view(2, 1, 1).expand(2, 1, 3)
    gradient = results(engine, c, upstream)[3].flatten()
    share = x[0, 1:, 0].double().clamp_min(-1e30).softmax(0)
    torch.testing.assert_close(gradient.double(), torch.tensor([1.0, *-share]), rtol=1e-5, atol=0, check_dtype=False)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=name_of)
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("name", SIX)
def test_the_gradient_of_saturated_voxels_keeps_its_digits(engine, name, activation, dtype):
    """Each element for itself, however small, right or wrong the voxel: there is nothing in it that has to cancel."""
    for k, gamma in itertools.product(channels(activation, 1, 2, 3, 14), GAMMAS):
        gaps = torch.tensor([5.0, 10.0, 14.0, 17.0, 20.0, 30.0, 60.0, 68.0, 80.0, 100.0, 120.0])
        x = torch.randn(2, k, 2 * len(gaps), generator=generator(k)).to(dtype)
        x[:, -1] = torch.cat([gaps, -gaps]).to(dtype)
        labels = torch.tensor([1 if k == 1 else k - 1, 0])[:, None].expand(2, 2 * len(gaps))
        exponent = torch.tensor([gamma])
        c = call(activation, x=x, labels=labels, wanted=(name,), gamma=exponent, rest_gamma=exponent)
        upstream = 1 + torch.arange(k, dtype=c.gamma.dtype).expand(1, 2, k)
        gradient = results(engine, c, upstream)[3]
        e = expected(*c[:5], *c.form, upstream=upstream)
        relative = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: torch.finfo(torch.bfloat16).eps}[dtype]
        tolerance = relative * e.gradient.abs() + NOTHING
        compare(f"{about(engine, c)} gamma {gamma}", gradient, e.gradient, tolerance, "image, channel, voxel")


@each_kind
@each_float
@pytest.mark.parametrize("clip", [False, True], ids=["unclipped", "clipped"])
def test_probabilities_of_0_and_1(engine, clip, dtype, labels):
    choices = torch.tensor([0.0, 1.0, 1e-8, 1e-7, 1e-6, 1 - 1e-6, 1e-3, 0.999, 0.5, -1e-3, 1.004], dtype=torch.float64)
    for k, wanted in itertools.product((1, 2, 3), (SIX, ENTROPY_OF_CLASSES, ("tp", "fp", "fn", "tn"))):
        x = choices[torch.randint(len(choices), (2, k, 167), generator=generator(k))].to(dtype)
        check(engine, call("none", x=x, labels=labels, wanted=wanted, clip=clip))


@pytest.mark.parametrize("clip", [False, True], ids=["unclipped", "clipped"])
@pytest.mark.parametrize("given", [0.0, 1.0])
@each_float
def test_every_probability_is_0_or_1(engine, dtype, given, clip):
    x = torch.full((2, 3, 40), given, dtype=dtype)
    check(engine, call("none", x=x, clip=clip))


@pytest.mark.parametrize("p", [1e-6, 1e-5, 1e-4, 1e-3, 0.9999])
def test_entropies_of_small_given_probabilities(engine, p):
    check(engine, call("none", x=torch.full((2, 1, 500), p)))


# --- many voxels -----------------------------------------------------------------------------------------------------


def tiled(activation: str, k: int, pattern: int, times: int, dtype: torch.dtype, constant: bool) -> tuple[Call, Call]:
    """A small call, and the same voxels many times over."""
    x = field(activation, 1, k, pattern, dtype)
    if constant:
        p = torch.tensor([0.1] if k == 1 else [0.1, *[0.9 / (k - 1)] * (k - 1)])
        z = p if activation == "none" else (p / (1 - p)).log() if activation == "sigmoid" else p.log()
        x = z.to(dtype)[None, :, None].expand(1, k, pattern)
    small = call(activation, x=x, labels=indices(1, k, pattern, torch.uint8), gamma=torch.tensor([0.7]))
    return small, small._replace(x=x.repeat(1, 1, times), labels=small.labels.repeat(1, times))


def check_many(name: str, small: Call, large: Call, times: int) -> None:
    """The sums of the large call against those of the small one, which the oracle knows."""
    e = expected(*small[:5], *small.form, upstream=random_upstream(small))
    values, labelled, voxels = serving(name, large).forward(*large)
    for i, wanted in enumerate(large.form.wanted):
        compare(f"{name}: {wanted}", values[i], e.values[i] * times, 1e-6 * e.values[i] * times, "image, class")
    compare(f"{name}: labelled", labelled, e.labelled * times, 1e-6 * e.labelled * times, "image, class")
    compare(f"{name}: voxels", voxels, e.voxels * times, 1e-6 * e.voxels * times, "image, 0")


@pytest.mark.parametrize(("activation", "k"), [("sigmoid", 1), ("softmax", 2), ("none", 1)], ids=str)
@pytest.mark.parametrize("constant", [True, False], ids=["constant", "random"])
def test_four_million_voxels_keep_six_digits(engine, constant, k, activation):
    small, large = tiled(activation, k, 2**14, 2**8, torch.float32, constant)
    check_many(engine, small, large, 2**8)


@pytest.mark.slow
@pytest.mark.parametrize(("activation", "k"), [("sigmoid", 1), ("softmax", 2)], ids=str)
@pytest.mark.parametrize("constant", [True, False], ids=["constant", "random"])
def test_a_hundred_million_voxels_keep_six_digits(engine, constant, k, activation):
    if engine == "reference":
        pytest.skip("reference: it would need a dozen arrays of this size")
    if engine == "aten" and constant != (k == 2):
        pytest.skip("aten: adds its blocks in one way, whatever the activation")
    small, large = tiled(activation, k, 10_000, 10_000, torch.float16, constant)
    check_many(engine, small, large, 10_000)


@pytest.mark.slow
@each_kind
@each_activation
@each_float
def test_gradients_of_forty_thousand_voxels(engine, dtype, activation, labels):
    """Several blocks of every engine that has blocks, the last one ragged."""
    if engine == "reference":
        pytest.skip("reference: has no blocks, and so nothing that depends on their number")
    for k in channels(activation, 1, 2, 3, 17):
        voxels = 40_009 if k < 17 else 9_001
        weights = weighting(2, voxels)
        check(engine, call(activation, k, voxels, dtype=dtype, labels=labels, weights=weights))


# --- the same again --------------------------------------------------------------------------------------------------


def same(name: str, first: Sequence[Tensor], second: Sequence[Tensor], when: str) -> None:
    for what, a, b in zip(("values", "labelled", "voxels", "gradient"), first, second, strict=True):
        assert torch.equal(bits(a), bits(b)), f"{name}: {what} differ {when}, by up to {(a - b).abs().max().item():.2g}"


REPEATED = [
    ("softmax", 3, 40_001, torch.float32, contiguous),
    ("softmax", 14, 9_001, torch.float32, contiguous),
    ("softmax", 2, 40_001, torch.bfloat16, channels_last),
    ("sigmoid", 1, 100_003, torch.float16, contiguous),
    ("sigmoid", 3, 40_001, torch.float64, contiguous),
    ("none", 2, 40_001, torch.float32, slice_of_channels),
]
each_repeated = pytest.mark.parametrize(
    ("activation", "k", "v", "dtype", "layout"), REPEATED, ids=[f"{r[0]}-{r[1]}" for r in REPEATED]
)


@each_kind
@each_repeated
def test_a_second_run_gives_the_same_bits(engine, activation, k, v, dtype, layout, labels, threads):
    if engine == "reference":
        pytest.skip("reference: plain operations of PyTorch, and slow")
    torch.set_num_threads(2)
    c = call(activation, x=layout(field(activation, 2, k, v, dtype)), labels=labels)
    upstream = random_upstream(c)
    first = results(engine, c, upstream)
    for _ in range(2):
        same(engine, first, results(engine, c, upstream), "from run to run")


@each_kind
@each_repeated
def test_any_number_of_threads_gives_the_same_bits(activation, k, v, dtype, layout, labels, threads):
    if "native" not in ENGINES:
        pytest.skip("there is no native engine")
    c = call(activation, x=layout(field(activation, 2, k, v, dtype)), labels=labels)
    upstream = random_upstream(c)
    torch.set_num_threads(1)
    first = results("native", c, upstream)
    for count in (2, 3):
        torch.set_num_threads(count)
        same("native", first, results("native", c, upstream), f"between 1 and {count} threads")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=name_of)
@pytest.mark.parametrize("v", [5, 8, 203])
def test_numbers_of_two_bytes_are_read_and_written_as_pytorch_does(v, dtype):
    """The sums and the gradient are those of the same numbers in four bytes, the latter rounded."""
    bits_of_numbers = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype)
    numbers = bits_of_numbers[bits_of_numbers.isfinite()]
    drawn = torch.randint(len(numbers), (1, 3, v * 300), generator=generator("bytes", v))
    x = numbers[drawn][..., : v * 300].reshape(300, 3, v)
    c = call("sigmoid", x=x, labels="soft", gamma=torch.zeros(1, 1), rest_gamma=torch.zeros(1, 1))
    upstream = random_upstream(c) * torch.logspace(-12, 12, 300, 2).view(-1, 1)
    *small, rounded = results("native", c, upstream)
    *sums, gradient = results("native", c._replace(x=x.float()), upstream)
    assert all(torch.equal(a, b) for a, b in zip(small, sums, strict=True))
    assert torch.equal(rounded, gradient.to(dtype))


@each_kind
@pytest.mark.parametrize(("activation", "k"), [("softmax", 3), ("softmax", 20), ("sigmoid", 1), ("none", 2)], ids=str)
@pytest.mark.parametrize("instructions", range(3))
def test_every_instruction_set(instructions, activation, k, labels, monkeypatch):
    """The native engine on processors older than this one."""
    if "native" not in ENGINES:
        pytest.skip("there is no native engine")
    native: Any = serving("native", call())
    if instructions > native.instructions():
        pytest.skip(f"this processor has no {native.INSTRUCTIONS[instructions]}")
    monkeypatch.setattr(native, "instructions", lambda: instructions)
    for dtype in FLOATS:
        check("native", call(activation, k, 301, dtype=dtype, labels=labels, weights=weighting(2, 301)))


# --- through the door ------------------------------------------------------------------------------------------------


def through_the_door(z: Tensor, labels: Tensor, engine: Any = "auto", **arguments: Any) -> VoxelSums:
    defaults: dict[str, Any] = {"activation": "softmax", "wanted": SIX, "gamma": [0.0, 0.5, 2.0], "rest_gamma": 0.1}
    return voxel_sums(z, labels, engine=engine, **(defaults | arguments))


def serving_here(engine: str, z: Tensor, labels: Tensor, **arguments: Any) -> None:
    """Skip where the engine does not serve such tensors."""
    activation = arguments.get("activation", "softmax")
    serving(engine, call(activation, x=z.detach().flatten(2), labels=labels.flatten(labels.ndim - z.ndim + 2)))


def weigh(sums: VoxelSums) -> Tensor:
    """A scalar in which every sum has a factor of its own."""
    values = sums.values
    return (values * torch.linspace(-1, 2, values.numel(), dtype=values.dtype).view_as(values)).sum()


IMAGES = {
    "1D": (torch.contiguous_format, (41,)),
    "2D": (torch.contiguous_format, (5, 7)),
    "2D, channels last": (torch.channels_last, (5, 7)),
    "3D": (torch.contiguous_format, (3, 5, 4)),
    "3D, channels last": (torch.channels_last_3d, (3, 5, 4)),
}


@each_kind
@each_activation
@pytest.mark.parametrize("image", IMAGES)
def test_it_can_be_chosen_by_name(engine, image, activation, labels):
    """The door hands on the call, and what comes back, as they are."""
    memory_format, spatial = IMAGES[image]
    c = call(activation, 3, math.prod(spatial), labels=labels, weights=weighting(2, math.prod(spatial)), clip=True)
    upstream = random_upstream(c)
    z = c.x.view(2, 3, *spatial).contiguous(memory_format=memory_format).requires_grad_()
    values, labelled, voxels, gradient = results(engine, c._replace(x=z.detach().flatten(2)), upstream)

    sums = voxel_sums(
        z,
        c.labels.unflatten(-1, spatial),
        activation=activation,
        wanted=SIX,
        gamma=c.gamma,
        rest_gamma=c.rest_gamma,
        voxel_weights=weighting(2, math.prod(spatial)).view(2, *spatial),
        clip=True,
        engine=engine,
    )
    (found,) = torch.autograd.grad(sums.values, z, upstream)
    assert strides(found) == strides(z)
    assert not sums.labelled.requires_grad and not sums.voxels.requires_grad
    same(engine, (values, labelled, voxels, gradient), (sums.values, sums.labelled, sums.voxels, found), "by name")
    assert all(torch.equal(sums[name], sums.values[i]) for i, name in enumerate(SIX))


@each_kind
@each_activation
def test_the_gradient_is_that_of_the_values_and_so_is_the_gradient_of_the_gradient(engine, activation, labels):
    z = field(activation, 2, 3, 4, torch.float64, scale=1.0).requires_grad_()
    truth = indices(2, 3, 4) if labels == "hard" else soft(2, 3, 4)
    serving_here(engine, z, truth, activation=activation)

    def values(z: Tensor) -> Tensor:
        return through_the_door(z, truth, engine, activation=activation).values

    assert torch.autograd.gradcheck(values, z)
    assert torch.autograd.gradgradcheck(values, z)


def test_a_gradient_that_will_be_differentiated_is_the_same_gradient(engine):
    z, labels = field("softmax", 2, 3, 41).requires_grad_(), indices(2, 3, 41)
    serving_here(engine, z, labels)
    plain, differentiable = (
        torch.autograd.grad(weigh(through_the_door(z, labels, engine)), z, create_graph=create_graph)[0]
        for create_graph in (False, True)
    )
    assert differentiable.requires_grad and not plain.requires_grad
    torch.testing.assert_close(plain, differentiable.detach(), rtol=1e-5, atol=2e-6)


@each_activation
@each_kind
def test_torch_func_goes_through(activation, labels):
    z = field(activation, 4, 3, 11).view(4, 1, 3, 11)
    truth = (indices(4, 3, 11) if labels == "hard" else soft(4, 3, 11)).unsqueeze(1)

    def loss(z: Tensor, labels: Tensor) -> Tensor:
        return weigh(through_the_door(z, labels, activation=activation))

    together = torch.func.vmap(torch.func.grad(loss))(z, truth)
    one_by_one = torch.stack([torch.func.grad(loss)(z[i], truth[i]) for i in range(4)])
    leaf = z.clone().requires_grad_()
    plain = torch.autograd.grad(sum((loss(leaf[i], truth[i]) for i in range(4)), torch.zeros(())), leaf)[0]
    torch.testing.assert_close(together, one_by_one, rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(one_by_one, plain, rtol=1e-5, atol=2e-6)


@each_activation
@pytest.mark.parametrize("k", [2, 6])
def test_validating_first_does_not_spoil_training(engine, k, activation):
    """What an engine keeps from a call in inference mode, autograd must not refuse later."""
    z, labels = field(activation, 2, k, 61).requires_grad_(), indices(2, k, 61)
    serving_here(engine, z, labels, activation=activation)
    gamma = [0.3 + i for i in range(k)]  # used nowhere else
    with torch.inference_mode():
        validated = through_the_door(z, labels, engine, activation=activation, gamma=gamma)
    sums = through_the_door(z, labels, engine, activation=activation, gamma=gamma)
    weigh(sums).backward()
    assert z.grad is not None and z.grad.isfinite().all()
    torch.testing.assert_close(validated.values, sums.values.detach(), rtol=0, atol=0)


@each_kind
def test_autocast_changes_nothing(engine, labels):
    z, truth = field("softmax", 2, 3, 67).requires_grad_(), indices(2, 3, 67) if labels == "hard" else soft(2, 3, 67)
    serving_here(engine, z, truth)
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            sums = through_the_door(z, truth, engine)
            found.append((sums.values.detach(), torch.autograd.grad(weigh(sums), z)[0]))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


OPERATOR: dict[str, dict[str, Any]] = {
    "softmax, hard": {},
    "softmax, soft, weighted, channels last": {"labels": "soft", "layout": channels_last, "weighted": True},
    "sigmoid, one channel, bfloat16": {"activation": "sigmoid", "k": 1, "dtype": torch.bfloat16},
    "none, slice of channels, ignore_index": {"activation": "none", "layout": slice_of_channels, "ignore_index": 2},
}


def operator_arguments(engine: str, arguments: dict[str, Any]) -> tuple[Call, tuple[Any, ...]]:
    given: dict[str, Any] = {"activation": "softmax", "k": 3, "labels": "hard", "layout": contiguous} | arguments
    activation, k, layout = given["activation"], given["k"], given["layout"]
    x = layout(field(activation, 2, k, 10, given.get("dtype", torch.float32)))
    weights = weighting(2, 10) if "weighted" in given else None
    c = call(activation, x=x, labels=given["labels"], weights=weights, ignore_index=given.get("ignore_index"))
    serving(engine, c)
    return c, (*c[:5], [], [], activation, ",".join(c.form.wanted), c.form.ignore_index, c.form.clip, engine)


@pytest.mark.parametrize("form", OPERATOR)
def test_the_operator_keeps_the_rules_of_operators(engine, form):
    _, (x, *rest) = operator_arguments(engine, OPERATOR[form])
    torch.library.opcheck(ops.sums, (x.detach().requires_grad_(), *rest))


@pytest.mark.parametrize("form", OPERATOR)
def test_the_operator_of_the_gradient_keeps_them_too(engine, form):
    c, arguments = operator_arguments(engine, OPERATOR[form])
    torch.library.opcheck(ops.sums_backward, (random_upstream(c), *arguments))


@each_activation
def test_it_is_compiled_as_one_graph(engine, activation):
    z, labels = field(activation, 2, 3, 40), indices(2, 3, 40)
    serving_here(engine, z, labels, activation=activation)
    torch._dynamo.reset()

    def loss(z: Tensor, labels: Tensor) -> Tensor:
        return weigh(through_the_door(z, labels, engine, activation=activation))

    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend="aot_eager")
    for v in (40, 53):
        z, labels = field(activation, 2, 3, v).requires_grad_(), indices(2, 3, v)
        value, plain = compiled(z, labels), loss(z, labels)
        torch.testing.assert_close(value, plain, rtol=1e-6, atol=1e-6)
        (found,), (wanted,) = torch.autograd.grad(value, z), torch.autograd.grad(plain, z)
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


def test_one_that_cannot_serve_says_why(monkeypatch):
    class Refuses(ModuleType):
        @staticmethod
        def why_not(*_: object) -> str:
            return "it serves on Sundays only"

    monkeypatch.setitem(ENGINES, "native", Refuses("native"))
    z, labels = field("softmax", 2, 3, 41), indices(2, 3, 41)
    with pytest.raises(RuntimeError, match=r"engine='native' cannot serve this call: it serves on Sundays only"):
        through_the_door(z, labels, "native")
    through_the_door(z, labels)  # another one does


def test_its_own_reason_is_told(engine):
    z, labels = field("softmax", 2, 3, 41), indices(2, 3, 41)
    reason = ENGINES[engine].why_not(z, labels, None, Form("softmax", SIX, None, False))
    if reason is None:
        pytest.skip(f"{engine} serves this call")
    with pytest.raises(RuntimeError) as caught:
        through_the_door(z, labels, engine)
    assert f"engine={engine!r}" in str(caught.value) and reason in str(caught.value)
