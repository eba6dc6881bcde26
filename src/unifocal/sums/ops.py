"""The sums as one differentiable function: an autograd function in eager mode, a custom operator under tracing.

Both have the same forward, context and backward. The operator is opaque to `torch.compile`, which then captures a
loss in one graph; eager mode does without it, as its dispatch costs more than a small kernel.
"""

from typing import Any

import torch
from torch import Tensor

from . import reference
from .engines import select
from .form import Form

Result = tuple[Tensor, Tensor, Tensor]


def _forward(
    x: Tensor,
    labels: Tensor,
    weights: Tensor | None,
    gamma: Tensor,
    rest_gamma: Tensor,
    activation: str,
    wanted: str,
    ignore_index: int | None,
    clip: bool,
    engine: str,
) -> Result:
    form = Form(activation, tuple(wanted.split(",")), ignore_index, clip)
    values, labelled, voxels = select(engine, x, labels, weights, form).forward(
        x, labels, weights, gamma, rest_gamma, form
    )
    return values, labelled, voxels


def _backward(
    upstream: Tensor,
    x: Tensor,
    labels: Tensor,
    weights: Tensor | None,
    gamma: Tensor,
    rest_gamma: Tensor,
    activation: str,
    wanted: str,
    ignore_index: int | None,
    clip: bool,
    engine: str,
) -> Tensor:
    form = Form(activation, tuple(wanted.split(",")), ignore_index, clip)
    gradient: Tensor = select(engine, x, labels, weights, form).backward(
        upstream, x, labels, weights, gamma, rest_gamma, form
    )
    return gradient


class _Sums(torch.autograd.Function):
    """`differentiable_sums` in eager mode and under `torch.func`."""

    generate_vmap_rule = True

    forward = staticmethod(_forward)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Result) -> None:
        ctx.save_for_backward(*inputs[:5])
        ctx.form = inputs[5:]
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        x, labels, weights, gamma, rest_gamma = ctx.saved_tensors
        rest = (labels, weights, gamma, rest_gamma)
        if _is_traced(x):
            gradient: Tensor = sums_backward(upstream[0], x, *rest, *ctx.form)
        elif torch.is_grad_enabled():  # the gradient will be differentiated itself
            activation, wanted, ignore_index, clip, _ = ctx.form
            form = Form(activation, tuple(wanted.split(",")), ignore_index, clip)
            gradient = reference.backward(upstream[0], x, *rest, form)
        else:
            gradient = _backward(upstream[0], x, *rest, *ctx.form)
        return gradient, *[None] * 9


sums = torch.library.custom_op("unifocal::sums", _forward, mutates_args=())
sums_backward = torch.library.custom_op("unifocal::sums_backward", _backward, mutates_args=())
sums.register_autograd(_Sums.backward, setup_context=_Sums.setup_context)


@sums.register_fake
def _(
    x: Tensor,
    labels: Tensor,
    weights: Tensor | None,
    gamma: Tensor,
    rest_gamma: Tensor,
    activation: str,
    wanted: str,
    ignore_index: int | None,
    clip: bool,
    engine: str,
) -> Result:
    n, k, _ = x.shape
    values = gamma.new_empty((wanted.count(",") + 1, n, k))
    return values, gamma.new_empty((n, k)), gamma.new_empty((n, 1))


@sums_backward.register_fake
def _(upstream: Tensor, x: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(x)


def differentiable_sums(*arguments: Any) -> Result:
    """(values, labelled, voxels) of x, with the gradient of README.md; see `_forward` for the arguments."""
    traced = torch.compiler.is_compiling() or _is_traced(arguments[0])
    result: Result = sums(*arguments) if traced else _Sums.apply(*arguments)  # type: ignore[no-untyped-call]
    return result


def _is_traced(x: Tensor) -> bool:
    return type(x).__torch_dispatch__ is not Tensor.__torch_dispatch__
