"""What the native engine makes of the sums in C++ is what slopes.py makes of them: value and gradient."""

import itertools
from typing import Any

import pytest
import torch
from cases import ALL, PARAMETERS
from torch import Tensor

import unifocal
from unifocal.losses.base import ENTROPY, REGION, SegmentationLoss
from unifocal.sums import native
from unifocal.terms import ClassSums, Mean, class_mean, tversky_loss, voxel_mean

FORMS = ((1, "sigmoid"), (2, "softmax"), (3, "softmax"), (3, "sigmoid"), (14, "softmax"))
OPTIONS: tuple[dict[str, Any], ...] = (
    *({}, {"absent": "skip"}, {"include_background": False}, {"batch": True}),
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
    for reduction, options, of_classes in itertools.product(("mean", "sum", "none"), OPTIONS, weights):
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

    with pytest.raises(TypeError, match=r"Own: wants asks for the sums .*Set wants to ENTROPY for a voxel_mean"):
        Own(engine=engine)(*images(3, torch.float32))


def test_factors_of_any_dtype_are_taken_as_they_are(engine):
    class Own(SegmentationLoss):
        wants = ENTROPY
        factors = torch.tensor([1, 3, 2])

        def equation(self, s: ClassSums) -> Mean:
            return voxel_mean(s, self.factors)

    x, labels = images(3, torch.float32)
    loss = Own(engine=engine)
    of_integers = step(loss, x, labels)
    for dtype in (torch.float32, torch.float64, torch.float16):
        loss.factors = Own.factors.to(dtype)
        check(torch.float32, step(loss, x, labels), of_integers, dtype)
