"""The sums as one differentiable function: an autograd function in eager mode, a custom operator under tracing.

The operator is opaque to `torch.compile`, which then captures a loss in one graph; eager mode does without it, as its
dispatch costs more than a small kernel.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from . import native, reference
from .constants import constant
from .engines import select
from .form import Form, MaskExponent
from .labels import flat
from .masks import exponents
from .tracing import has_memory, is_traced

Result = tuple[Tensor, Tensor, Tensor]
Exponents = Tensor | tuple[float, ...]  # that broadcast to (N, K); numbers only while a graph is traced
Slopes = Callable[[Tensor], Tensor]  # from the gradient of a number to that of the sums that it is a function of


def differentiable_sums(
    x: Tensor,
    labels: Tensor,
    weights: Tensor | None,
    gamma: Exponents,
    rest_gamma: Exponents,
    form: Form,
    engine: str,
) -> Result:
    """(values, labelled, voxels) of engines.py, with the gradient of README.md from values to x."""
    result: Result
    if is_traced(x):
        of_form = form.activation, ",".join(form.wanted), form.ignore_index, form.clip
        result = sums(x, labels, weights, *_in_graph(gamma, rest_gamma), *of_form, engine)
        return result
    assert isinstance(gamma, Tensor) and isinstance(rest_gamma, Tensor)
    inputs = (x, labels, weights, gamma, rest_gamma)
    if has_memory(*inputs):
        result = _Sums.apply(*inputs, form, engine)  # type: ignore[no-untyped-call]
    else:
        result = _TransformedSums.apply(*inputs, form, engine)  # type: ignore[no-untyped-call]
    return result


def function_of_sums(
    function: Callable[..., tuple[Tensor, Slopes | None]],
    noticed: list[int],
    x: Tensor,
    labels: Tensor,
    weights: Tensor | None,
    gamma: Exponents | MaskExponent,
    rest_gamma: Exponents | MaskExponent,
    form: Form,
    engine: str,
) -> Tensor:
    """function(values, labelled, voxels)[0], differentiable: by the slopes that it returns, or by autograd.

    function has a fourth argument, the `mean` of the engine or None, where values are plain tensors; see engines.py
    noticed  to it is added what an engine that looks at the labels found odd about them: FOREIGN, UNBALANCED
    x        may have spatial axes: putting its voxels in a row is part of the one step here
    """
    if has_memory(x, labels, weights):
        arguments = (x, labels, weights, gamma, rest_gamma, form, engine)
        with suppress(_Learns):
            result: Tensor = _FunctionOfSums.apply(function, noticed, *arguments)  # type: ignore[no-untyped-call]
            return result
    if isinstance(gamma, MaskExponent):
        gamma = rest_gamma = exponents(gamma, _dtype(x), engine)
    assert not isinstance(rest_gamma, MaskExponent)
    return function(*differentiable_sums(flat(x), labels, weights, gamma, rest_gamma, form, engine))[0]


class _Learns(Exception):
    """A function of the sums is one of something else, too, that receives a gradient."""


class _Sums(torch.autograd.Function):
    """Of plain tensors."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        labels: Tensor,
        weights: Tensor | None,
        gamma: Tensor,
        rest_gamma: Tensor,
        form: Form,
        engine: str,
    ) -> Result:
        ctx.form, ctx.engine = form, select(engine, x, labels, weights, form)
        ctx.save_for_backward(x, labels, weights, gamma, rest_gamma)
        result: Result = ctx.engine.forward(x, labels, weights, gamma, rest_gamma, form)
        ctx.mark_non_differentiable(*result[1:])
        ctx.set_materialize_grads(False)  # zeros for those would be launches for nothing
        return result

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        return None if upstream[0] is None else _gradient(ctx, upstream[0]), None, None, None, None, None, None


class _FunctionOfSums(torch.autograd.Function):
    """Of the sums of plain tensors, in one step: autograd over small tensors costs more than they do."""

    @staticmethod
    def forward(
        ctx: Any,
        function: Callable[..., tuple[Tensor, Slopes | None]],
        noticed: list[int],
        x: Tensor,
        labels: Tensor,
        weights: Tensor | None,
        gamma: Tensor | MaskExponent,
        rest_gamma: Tensor | MaskExponent,
        form: Form,
        engine: str,
    ) -> Tensor:
        ctx.function, ctx.form, ctx.asked = function, form, engine
        row = flat(x)
        ctx.engine = select(engine, row, labels, weights, form)
        more: dict[str, Any] = {"noticed": noticed} if ctx.engine is native else {}
        if isinstance(gamma, MaskExponent):
            if ctx.engine is native and len(gamma.steps) <= native.MOST_AXES:
                more["of_masks"] = gamma
                gamma = rest_gamma = x.new_empty(x.shape[:2], dtype=_dtype(x))
            else:
                gamma = rest_gamma = exponents(gamma, _dtype(x), engine)
        ctx.save_for_backward(x, labels, weights, gamma, rest_gamma)
        values, labelled, voxels = ctx.engine.forward(row, labels, weights, gamma, rest_gamma, form, **more)
        value, ctx.slopes = function(values, labelled, voxels, getattr(ctx.engine, "mean", None))
        if ctx.slopes is None:
            with torch.enable_grad():
                if function(values, labelled, voxels)[0].requires_grad:
                    raise _Learns
                again = function(values.requires_grad_(), labelled, voxels)[0]
            ctx.slopes = lambda upstream: torch.autograd.grad(again, values, upstream, retain_graph=True)[0]
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # the gradient will be differentiated itself
            x, labels, weights, gamma, rest_gamma = ctx.saved_tensors
            sums = differentiable_sums(flat(x), labels, weights, gamma, rest_gamma, ctx.form, ctx.asked)
            gradient = torch.autograd.grad(ctx.function(*sums)[0], x, upstream, create_graph=True)[0]
        else:
            gradient = _gradient(ctx, ctx.slopes(upstream))
        return None, None, gradient, *[None] * 6


def _gradient(ctx: Any, slopes: Tensor) -> Tensor:
    """From that of the sums to that of x.

    Where it will be differentiated itself, or many are wanted at once, the definition computes it.
    """
    x, labels, weights, *exponents = ctx.saved_tensors
    readable = not torch.is_grad_enabled() and has_memory(x, labels, weights, slopes)
    engine = ctx.engine if readable else reference
    gradient: Tensor = engine.backward(slopes, flat(x), labels, weights, *exponents, ctx.form)
    return gradient.view(x.shape)


class _TransformedSums(torch.autograd.Function):
    """Under `torch.func`, which wants the context set up apart; binding arguments so costs more than a small kernel."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        labels: Tensor,
        weights: Tensor | None,
        gamma: Tensor,
        rest_gamma: Tensor,
        form: Form,
        engine: str,
    ) -> Result:
        result: Result = select(engine, x, labels, weights, form).forward(x, labels, weights, gamma, rest_gamma, form)
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Result) -> None:
        ctx.save_for_backward(*inputs[:5])
        ctx.form, ctx.engine = inputs[5], reference
        ctx.mark_non_differentiable(*output[1:])

    backward = staticmethod(_Sums.backward)


# --- under tracing -----------------------------------------------------------------------------------------------


def _in_graph(*exponents: Exponents) -> tuple[Any, ...]:
    """Each as a tensor or None; each as numbers, none if it is a tensor."""
    tensors = tuple([e if isinstance(e, Tensor) else None for e in exponents])
    return tensors + tuple([[] if isinstance(e, Tensor) else list(e) for e in exponents])


# Exponents that are known when the graph is made are numbers in it, since tensors would have to be made in each step,
# in each direction; those that depend on the labels are tensors. The schema is spelt out because older versions of
# PyTorch cannot read it from the annotations.
_INPUTS = (
    "Tensor x, Tensor labels, Tensor? weights, Tensor? gamma, Tensor? rest_gamma, float[] known, float[] rest_known, "
    "str activation, str wanted, SymInt? ignore_index, bool clip, str engine"
)


@torch.library.custom_op(
    "unifocal::sums", mutates_args=(), schema=f"({_INPUTS}) -> (Tensor values, Tensor labelled, Tensor voxels)"
)
def sums(
    x: Tensor,
    labels: Tensor,
    weights: Tensor | None,
    gamma: Tensor | None,
    rest_gamma: Tensor | None,
    known: Sequence[float],
    rest_known: Sequence[float],
    activation: str,
    wanted: str,
    ignore_index: int | None,
    clip: bool,
    engine: str,
) -> Result:
    """`differentiable_sums`, the form taken apart into what an operator can be called with."""
    form = Form(activation, tuple(wanted.split(",")), ignore_index, clip)
    exponents = _exponent(gamma, known, x), _exponent(rest_gamma, rest_known, x)
    result: Result = select(engine, x, labels, weights, form).forward(x, labels, weights, *exponents, form)
    return result


@torch.library.custom_op("unifocal::sums_backward", mutates_args=(), schema=f"(Tensor upstream, {_INPUTS}) -> Tensor")
def sums_backward(
    upstream: Tensor,
    x: Tensor,
    labels: Tensor,
    weights: Tensor | None,
    gamma: Tensor | None,
    rest_gamma: Tensor | None,
    known: Sequence[float],
    rest_known: Sequence[float],
    activation: str,
    wanted: str,
    ignore_index: int | None,
    clip: bool,
    engine: str,
) -> Tensor:
    """Gradient of `sums` to x."""
    form = Form(activation, tuple(wanted.split(",")), ignore_index, clip)
    exponents = _exponent(gamma, known, x), _exponent(rest_gamma, rest_known, x)
    chosen = select(engine, x, labels, weights, form)
    with torch.no_grad():
        gradient: Tensor = chosen.backward(upstream, x, labels, weights, *exponents, form)
    return gradient


def _dtype(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _exponent(given: Tensor | None, known: Sequence[float], x: Tensor) -> Tensor:
    return constant(tuple(known), _dtype(x), x.device) if given is None else given


@sums.register_fake
def _(x: Tensor, *rest: Any, **more: Any) -> Result:
    n, k, _ = x.shape
    wanted: str = rest[7]
    kept: dict[str, Any] = {"dtype": _dtype(x)}
    return x.new_empty((wanted.count(",") + 1, n, k), **kept), x.new_empty((n, k), **kept), x.new_empty((n, 1), **kept)


@sums_backward.register_fake
def _(upstream: Tensor, x: Tensor, *rest: Any, **more: Any) -> Tensor:
    return torch.empty_like(x)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Result) -> None:
    ctx.save_for_backward(*inputs[:5])
    ctx.form = inputs[5:]
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
    return sums_backward(upstream[0], *ctx.saved_tensors, *ctx.form), *[None] * 11


sums.register_autograd(_backward, setup_context=_setup_context)
