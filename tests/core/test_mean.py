"""What the native engine makes of the sums in C++ is what slopes.py makes of them: value and gradient."""

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from cases import ALL, PARAMETERS
from torch import Tensor

import unifocal
from unifocal.losses.base import ENTROPY, REGION, SegmentationLoss
from unifocal.sums import constants, has_memory, mask_sums, native, voxel_sums
from unifocal.terms import ClassSums, Mean, class_mean, overlap_loss, power, tversky_loss, voxel_mean

FORMS = ((1, "sigmoid"), (2, "softmax"), (3, "softmax"), (3, "sigmoid"), (14, "softmax"))
OPTIONS: tuple[dict[str, Any], ...] = (
    *({}, {"absent": "skip"}, {"include_background": False}),
    *({"ignore_index": 255}, {"ignore_index": 255, "absent": "skip", "smooth": 0.3}),
)


@pytest.fixture(params=["native", "aten"])
def engine(request: pytest.FixtureRequest) -> Any:
    """One that has a mean of its own, and one that has not."""
    reason = native.why_not(torch.zeros(1, 2, 1), torch.zeros(1, 1), None, None)
    if request.param == "native" and reason:
        pytest.skip(reason)
    return request.param


def step(loss: SegmentationLoss, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient; of several values each with a factor of its own."""
    x = x.clone().requires_grad_()
    value = loss(x, labels)
    value.backward(torch.linspace(-1, 2, value.numel(), dtype=value.dtype).view_as(value) if value.ndim else None)
    assert x.grad is not None
    return value.detach(), x.grad


def images(k: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Four of them, the second of background only."""
    generator = torch.Generator().manual_seed(k)
    x = torch.randn(4, k, 5, 9, generator=generator, dtype=dtype) * 2
    labels = torch.randint(max(k, 2), (4, 5, 9), generator=generator)
    labels[1] = 0
    return x, labels


def check(dtype: torch.dtype, got: tuple[Tensor, Tensor], want: tuple[Tensor, Tensor], what: object) -> None:
    digits = 1e-11 if dtype == torch.float64 else 2e-6
    for a, b, allowed in zip(got, want, (digits, 2 * digits * float(want[1].abs().max())), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), what
        torch.testing.assert_close(a, b, rtol=digits, atol=allowed, msg=lambda m: f"{what}: {m}")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
@pytest.mark.parametrize(("k", "activation"), FORMS, ids=str)
@pytest.mark.parametrize("name", ALL)
def test_it_is_that_of_the_other_engines(name, k, activation, dtype):
    x, labels = images(k, dtype)
    if reason := native.why_not(x, labels, None, None):
        pytest.skip(reason)
    weights = None, [0.3 + 0.2 * i for i in range(2 if k == 1 else k)]
    for i, (reduction, options) in enumerate(itertools.product(("mean", "sum", "none"), OPTIONS)):
        of_classes = weights[i % 2]
        given = labels.clone()
        if "ignore_index" in options:  # a part of an image, and an image
            given[2, :2], given[3] = 255, 255
        arguments = PARAMETERS[name] | options | {"reduction": reduction, "class_weights": of_classes}
        got, want = (
            step(unifocal.build(name, activation=activation, engine=e, **arguments), x, given)
            for e in ("native", "aten")
        )
        check(dtype, got, want, arguments)


@pytest.mark.parametrize(
    ("wanted", "write"),
    [
        (ENTROPY + REGION, lambda s: class_mean(s, tversky_loss(s, 0.5))),
        (ENTROPY + REGION, voxel_mean),
        (REGION, voxel_mean),
        (ENTROPY, lambda s: class_mean(s, tversky_loss(s, 0.5))),
    ],
    ids=["no entropy", "no region", "entropy for region", "region for entropy"],
)
def test_an_equation_on_other_sums_than_were_asked_for_is_refused(wanted, write, engine):
    class Own(SegmentationLoss):
        wants = wanted

        def equation(self, s: ClassSums) -> Mean:
            mean: Mean = write(s)
            return mean

    with pytest.raises(TypeError, match=r"Own: wants is .* written on .*Set wants to ENTROPY for a voxel_mean"):
        Own(engine=engine)(*images(3, torch.float32))


@pytest.mark.parametrize(
    "combine",
    [
        lambda mean: mean * torch.tensor(2.0),
        lambda mean: torch.nn.Parameter(torch.tensor(2.0)) * mean,
        lambda mean: mean + torch.tensor(2.0),
        lambda mean: torch.tensor(2.0) - mean,
        lambda mean: mean / torch.tensor(2.0),
        lambda mean: mean * "2",
    ],
)
def test_a_mean_says_what_it_is_combined_with(combine):
    with pytest.raises(TypeError, match=r"multiplied by a number, .* got (Tensor|Parameter|str)\..*float\(x\)"):
        combine(Mean(entropy=(1.0, 2.0)))


@pytest.mark.parametrize(
    "make",
    [
        tversky_loss,
        lambda s, x: overlap_loss(s, 1.0, x),
        lambda s, x: power(tversky_loss(s, 0.5), x),
        lambda s, x: power(tversky_loss(s, 0.5), [1.0, x]),
    ],
)
def test_a_region_takes_numbers(make):
    s: Any = SimpleNamespace(smooth=1e-6)
    assert make(s, np.float32(0.5)) == make(s, 0.5)
    with pytest.raises(TypeError, match=r"of a region are numbers; got Parameter"):
        make(s, torch.nn.Parameter(torch.tensor(0.5)))


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_what_an_equation_learns_has_its_gradient(engine, pooled, frozen):
    """As where autograd does all."""
    x, labels = images(3, torch.float64)

    class Learning(SegmentationLoss):
        wants = ENTROPY + REGION
        price: torch.nn.Parameter

        def equation(self, s: ClassSums) -> Tensor:
            entropy, overlap = s.ce.sum((0, 2)) / s.voxels.sum(), (s.tp.sum(0).prod(1) + 1).log()
            value: Tensor = self.price * entropy + self.price.sin() * overlap
            return value

    loss = Learning(engine=engine, batch=pooled)
    loss.price = torch.nn.Parameter(torch.tensor(1.3, dtype=torch.float64))
    logits = x.clone().requires_grad_(not frozen)
    loss(logits, labels).backward()
    with torch.no_grad():
        assert not loss(logits, labels).requires_grad

    z, price = x.clone().requires_grad_(), loss.price.detach().clone().requires_grad_()
    sums = voxel_sums(z, labels, activation="softmax", wanted=("ce", "tp"))
    ce, tp = sums["ce"], sums["tp"].sum(0, keepdim=True) if pooled else sums["tp"]
    values = price * ce.sum(1) / sums.voxels.sum() + price.sin() * (tp.prod(1) + 1).log()
    values.mean().backward()
    torch.testing.assert_close(loss.price.grad, price.grad)
    assert (logits.grad is None) == frozen
    if not frozen:
        torch.testing.assert_close(logits.grad, z.grad)


@pytest.mark.parametrize("returned", [1.0, None, torch.ones(3), torch.ones(4, 1), np.ones(4)])
def test_an_equation_that_returns_something_else_is_refused(returned):
    class Own(SegmentationLoss):
        wants = ENTROPY

        def equation(self, s: ClassSums) -> Any:
            return returned

    with pytest.raises(TypeError, match=r"Own: its equation must return a Mean, or one value for each of 4 images"):
        Own()(*images(3, torch.float32))


def test_there_is_a_factor_for_each_class():
    class Own(SegmentationLoss):
        wants = ENTROPY

        def equation(self, s: ClassSums) -> Mean:
            return voxel_mean(s, [1.0, 2.0])

    with pytest.raises(ValueError, match=r"one factor for each of 3 classes; got 2: \[1.0, 2.0\]"):
        Own()(*images(3, torch.float32))


def test_a_mean_is_combined_with_numbers_of_any_kind():
    two: Any = np.float32(2)
    mean = 1 + two * Mean(0.5, (1.0, 2.0)) - np.int64(1)
    assert mean.constant == 1.0 and mean.entropy == (2.0, 4.0)
    assert (-mean / 4).constant == -0.25 and (-mean / 4).entropy == (-0.5, -1.0)


class Weighed(SegmentationLoss):
    """A loss with factors of its own."""

    wants = ENTROPY + REGION
    factors = torch.tensor([1, 3, 2])
    exponent: tuple[float, ...] = (1.0,)

    def equation(self, s: ClassSums) -> Mean:
        region = power(tversky_loss(s, 0.5), self.exponent * (1 if len(self.exponent) > 1 else 3))
        return voxel_mean(s, self.factors) + Mean(regions=((self.factors, region),))

    def focus(self, x: Any, index: tuple[int, ...]) -> Any:
        return self.exponent


def test_factors_of_any_dtype_are_taken_as_they_are(engine):
    x, labels = images(3, torch.float32)
    loss = Weighed(engine=engine)
    of_integers = step(loss, x, labels)
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8):
        loss.factors = Weighed.factors.to(dtype)
        check(torch.float32, step(loss, x, labels), of_integers, dtype)
    loss.factors = (
        torch.complex(torch.zeros(3), -Weighed.factors.float()).conj().imag
    )  # negated, which is only noted down
    check(torch.float32, step(loss, x, labels), of_integers, "a negative")


@pytest.mark.parametrize("shape", [(2,), (4,), (2, 1, 3), (4, 2), (1, 1, 1, 3), (0,)], ids=str)
def test_factors_of_another_shape_are_refused(shape, engine):
    loss = Weighed(engine=engine)
    loss.factors = torch.ones(shape)
    with pytest.raises(ValueError, match=r"must broadcast to \(P, N, K\) = \(1, 4, 3\); got a tensor of shape"):
        loss(*images(3, torch.float32))


def test_factors_on_another_device_are_refused(engine):
    loss = Weighed(engine=engine)
    loss.factors = torch.ones(3, device="meta")
    with pytest.raises(ValueError, match="must be on the logits' device cpu; got meta"):
        loss(*images(3, torch.float32))


@pytest.mark.parametrize(
    "exponent", [(0.0, 2.0), (1.0,) * 6, torch.ones(2), torch.ones(1, 4, 3)], ids=["2", "6", "(2,)", "3D"]
)
def test_exponents_for_another_number_of_channels_are_refused(exponent, engine):
    class Focused(SegmentationLoss):
        wants = ENTROPY

        def focus(self, x: Any, index: tuple[int, ...]) -> Any:
            return exponent

        def equation(self, s: ClassSums) -> Mean:
            return voxel_mean(s)

    with pytest.raises(ValueError, match=r"for each of 3 channels|must broadcast to \(N, K\)"):
        Focused(engine=engine)(*images(3, torch.float32))


def test_no_gradient_flows_through_factors_however_it_is_found(engine):
    class Shared(SegmentationLoss):
        wants = REGION

        def equation(self, s: ClassSums) -> Mean:
            return Mean(regions=((s.fp / (s.fp + s.tp), tversky_loss(s, 0.5)),))

    x, labels = images(3, torch.float64)
    loss = Shared(engine=engine)
    _, gradient = step(loss, x, labels)
    x.requires_grad_()
    (again,) = torch.autograd.grad(loss(x, labels), x, create_graph=True)
    torch.testing.assert_close(again, gradient)


def test_what_torch_func_was_used_on_first_serves_training(engine):
    """Small constant tensors are made once, but not of what stands for another tensor."""
    x, labels = images(3, torch.float32)
    odd = 0.123 + 0.001 * len(engine)  # no other test has made constants of it
    first = torch.func.grad(unifocal.UnifiedFocalLoss(gamma=odd, delta=odd))(x, labels)
    assert all(has_memory(made) for made in constants._made.values())
    _, gradient = step(unifocal.UnifiedFocalLoss(gamma=odd, delta=odd, engine=engine), x, labels)
    torch.testing.assert_close(first, gradient)


def test_masks_lie_where_the_labels_do(engine):
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    with torch.device("meta"):
        volume, *_ = mask_sums(labels, None, 2, None, (1.0, 1.0), torch.float32, engine)
    assert volume.tolist() == [[0.0, 0.0]]
