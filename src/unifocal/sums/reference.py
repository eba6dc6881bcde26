"""The definition of the sums and of their gradient in plain PyTorch: no loops, any device, float64 included.

It is written to be checked by eye against README.md and is what every faster engine has to agree with.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .form import Form
from .labels import flat, targets
from .tracing import has_memory

CLIP = 1e-7  # the original implementation's epsilon: probabilities that are given, not computed, are clipped here
_TINY = 1e-30  # keeps a quotient finite whose numerator vanishes with it


def detail() -> str:
    """What it is for."""
    return "the definition in plain PyTorch; torch.func, double backward"


def why_not(x: Tensor, labels: Tensor, weights: Tensor | None, form: Form | None) -> None:
    """It serves every call."""


class Voxels(NamedTuple):
    """Per voxel and channel, each (N, K, V): the probability, its complement, and minus the logarithm of both.

    Each is computed on its own, so that none loses its digits where another is close to 0 or 1.
    """

    p: Tensor
    q: Tensor
    log_p: Tensor  # -log p
    log_q: Tensor  # -log (1 - p)


def _read(x: Tensor, labels: Tensor, weights: Tensor | None, form: Form) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The input with 0 wherever a voxel does not count, w g, w (1 - g), and w."""
    g, w = targets(labels, x.shape[1], labels.ndim == x.ndim, weights, form.ignore_index, x.dtype)
    if weights is not None or form.ignore_index is not None:
        x = x.where(w > 0, 0.0)
    return x, w * g, w * (1 - g), w


def voxels(x: Tensor, form: Form) -> Voxels:
    """The probabilities of every voxel from logits, or from probabilities where the activation is "none"."""
    if form.activation == "sigmoid":
        return Voxels(torch.sigmoid(x), torch.sigmoid(-x), _finite(-F.logsigmoid(x)), _finite(-F.logsigmoid(-x)))
    if form.activation == "none":
        p = x.clamp(CLIP, 1 - CLIP)
        return Voxels(p, 1 - p, -p.log(), -torch.log1p(-p))
    log_p = torch.log_softmax(x, 1)
    p = log_p.exp()
    q = _sum_of_others(p)
    wants_log_q = "rest" in form.wanted
    log_q = _minus_log(p, -_logsumexp_of_others(log_p)) if wants_log_q else torch.full_like(q, torch.nan)
    return Voxels(p, q, _minus_log(q, -log_p), log_q)


def _minus_log(complement: Tensor, rough: Tensor) -> Tensor:
    """-log of a probability, from its complement where that is small and `rough` has no digits left."""
    return torch.where(complement < 0.5, -torch.log1p(-complement.clamp_max(0.5)), _finite(rough))


def _finite(log: Tensor) -> Tensor:
    """Of a logit of -inf: times no voxel, or any exponent, it must not become NaN."""
    return log.clamp_max(torch.finfo(log.dtype).max ** 0.7)


def _sum_of_others(x: Tensor) -> Tensor:
    """For each channel the sum over all other channels, without the cancellation of total minus own."""
    before = F.pad(x, (0, 0, 1, 0))[:, :-1].cumsum(1)
    after = F.pad(x, (0, 0, 0, 1))[:, 1:].flip(1).cumsum(1).flip(1)
    return before + after


def _logsumexp_of_others(x: Tensor) -> Tensor:
    lowest = torch.finfo(x.dtype).min
    before = F.pad(x, (0, 0, 1, 0), value=lowest)[:, :-1].logcumsumexp(1)
    after = F.pad(x, (0, 0, 0, 1), value=lowest)[:, 1:].flip(1).logcumsumexp(1).flip(1)
    return torch.logaddexp(before, after)


def forward(
    x: Tensor, labels: Tensor, weights: Tensor | None, gamma: Tensor, rest_gamma: Tensor, form: Form
) -> tuple[Tensor, Tensor, Tensor]:
    """`values` (S, N, K), `labelled` (N, K) and `voxels` (N, 1) of `VoxelSums`."""
    gamma, rest_gamma = gamma[..., None], rest_gamma[..., None]
    x, inside, outside, w = _read(x.to(gamma.dtype), labels, weights, form)
    v = voxels(x, form)
    p, q = (x.clamp(0, 1), 1 - x.clamp(0, 1)) if form.activation == "none" and not form.clip else (v.p, v.q)
    terms = {
        "tp": lambda: inside * p,
        "fp": lambda: outside * p,
        "fn": lambda: inside * q,
        "tn": lambda: outside * q,
        "ce": lambda: inside * v.q**gamma * v.log_p,
        "rest": lambda: outside * v.p**rest_gamma * v.log_q,
    }
    values = torch.stack([terms[name]().sum(2) for name in form.wanted])
    return values, inside.sum(2), w.sum(2)


def backward(
    upstream: Tensor,
    x: Tensor,
    labels: Tensor,
    weights: Tensor | None,
    gamma: Tensor,
    rest_gamma: Tensor,
    form: Form,
) -> Tensor:
    """The gradient (N, K, V) to x, in its dtype, from that to `values`; differentiable in `upstream` and x."""
    gamma, rest_gamma, given, dtype = gamma[..., None], rest_gamma[..., None], x, x.dtype
    x, inside, outside, _ = _read(x.to(gamma.dtype), labels, weights, form)
    a = {name: upstream[i][..., None] for i, name in enumerate(form.wanted)}  # dL/d(sum), (N, K, 1)
    zero = torch.zeros((), dtype=x.dtype, device=x.device)

    # dL/dp of the region sums, and the slopes of the two entropies in the variable of the activation
    tilt = inside * (a.get("tp", zero) - a.get("fn", zero)) + outside * (a.get("fp", zero) - a.get("tn", zero))
    p, q, log_p, log_q = voxels(x, form)
    down = inside * a["ce"] * q**gamma if "ce" in a else zero
    up = outside * a["rest"] * p**rest_gamma if "rest" in a else zero
    if form.activation == "sigmoid":
        grad = tilt * p * q - down * (gamma * p * log_p + q) + up * (rest_gamma * q * log_q + p)
    elif form.activation == "none":
        grad = tilt - down * (gamma * log_p / q + 1 / p) + up * (rest_gamma * log_q / p + 1 / q)
        # 1/p may be beyond float16; inf would become NaN in the activation behind it, whose slope is 0 there
        largest = torch.finfo(dtype).max
        grad = grad.clamp(-largest, largest)
    else:
        grad, small = zero, q.clamp_min(_TINY)
        force = tilt * p - down * (gamma * p * (log_p / small) + 1)  # p dL/dp
        if "rest" in a:
            # Of a channel close to 1 the part up p / q is kept apart: there p_k / q, the share of channel k among the
            # others, must not be lost where q is 0.
            close, info = p > 0.5, torch.finfo(x.dtype)
            force = force + up * (rest_gamma * log_q + torch.where(close, 0.0, p / q.clamp_min(0.5)))
            odds = torch.where(close, up * p, 0.0)
            share = torch.softmax(x.clamp_min(-(info.max**0.7)).masked_fill(close, info.min), 1)
            grad = odds - share * odds.sum(1, keepdim=True)
        grad = grad + force * q - p * _sum_of_others(force)
    grad = grad.to(dtype)
    if not has_memory(grad) or not has_memory(given):
        return grad
    alike = torch.empty_like(given)  # in memory as the other engines lay it out
    return grad if grad.stride() == alike.stride() else alike.copy_(grad)


def masks(
    labels: Tensor,
    weights: Tensor | None,
    channels: int,
    dense: bool,
    ignore_index: int | None,
    steps: Sequence[float],
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """Volume (N, K) and surface (N, K) of the masks of masks.py, and `voxels` (N, 1)."""
    m, w = targets(labels, channels, dense, weights, ignore_index, dtype)
    if channels > 1:
        m = torch.cat((1 - m[:, :1], m[:, 1:]), 1).where(w > 0, 0.0)
    squares = torch.zeros_like(m)
    for axis, step in enumerate(steps, start=2):
        if m.shape[axis] > 1:
            squares = squares + torch.gradient(m, spacing=1 / step, dim=axis)[0] ** 2
    return flat(w * m).sum(2), flat(w * squares.sqrt()).sum(2), flat(w).sum(2)
