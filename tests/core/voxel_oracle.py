"""The sums of sums/README.md in float64, and their gradient by plain automatic differentiation; no code of the package.

Each probability is known by its logarithm and by that of its complement, and the smaller of the two is the one that is
computed: nothing cancels and nothing underflows, so that plain differentiation is exact for logits of any size.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

LOW = -1e5  # stands for a logit of -inf: its probability is 0, and its logarithm still a number
HALF = math.log(0.5)


@dataclass
class Expected:
    """What an engine has to return for one call, in float64, and what an error in it is to be measured by."""

    values: Tensor  # (S, N, K)
    labelled: Tensor  # (N, K)
    voxels: Tensor  # (N, 1)
    gradient: Tensor  # (N, K, V)
    slack: Tensor  # (S, N, K): times the relative precision, what rounding each step of each term can make
    strength: Tensor  # like the gradient: the size of the pieces that it is the sum of, which may cancel
    depth: Tensor  # (N, 1, V): minus the logarithm of the smallest probability


def expected(
    x: Tensor,
    labels: Tensor,
    weights: Tensor | None,
    gamma: Tensor,
    rest_gamma: Tensor,
    activation: str,
    wanted: tuple[str, ...],
    ignore_index: int | None,
    clip: bool,
    upstream: Tensor,
) -> Expected:
    """The sums, and the gradient to x of their product with `upstream`; x, labels and weights as an engine has them."""
    g, w = read(labels, weights, x.shape[1], ignore_index)
    counts = w > 0
    g = g.where(counts, 0.0)
    gamma, rest_gamma, upstream = (
        gamma.double()[..., None],
        rest_gamma.double()[..., None],
        upstream.double()[..., None],
    )
    leaf = x.detach().double().where(counts, 0.0).requires_grad_()

    def terms(p: Tensor, q: Tensor, log_p: Tensor, log_q: Tensor) -> list[Tensor]:
        inside, outside = w * g, w * (1 - g)
        every = {
            "tp": lambda: inside * p,
            "fp": lambda: outside * p,
            "fn": lambda: inside * q,
            "tn": lambda: outside * q,
            "ce": lambda: inside * (gamma * log_q).exp() * -log_p,
            "rest": lambda: outside * (rest_gamma * log_p).exp() * -log_q,
        }
        return [every[name]() for name in wanted]

    if activation == "none":
        low, high = clip_bounds(torch.promote_types(x.dtype, torch.float32))
        clipped = straight_through(leaf, low, high)
        p = clipped if clip else straight_through(leaf, 0.0, 1.0)
        parts = terms(p, 1 - p, clipped.log(), torch.log1p(-clipped))
        alone, moved = parts, leaf
        depth = torch.zeros_like(w)
        rounding = {name: torch.zeros_like(p) for name in wanted}
    else:
        z = leaf.clamp_min(LOW)
        log_p, log_q = exclusive(z) if activation == "softmax" else independent(z)
        parts = terms(log_p.exp(), log_q.exp(), log_p, log_q)
        moved = (log_p - log_q).detach().requires_grad_()  # this channel's logit, were all others held
        own_p, own_q = independent(moved)
        alone = terms(own_p.exp(), own_q.exp(), own_p, own_q)
        depth = -torch.minimum(log_p, log_q).amin(1, keepdim=True)
        # an exponential of -20 has lost 20 times the precision
        region = {"tp": -log_p, "fp": -log_p, "fn": -log_q, "tn": -log_q}
        rounding = region | {"ce": (1 + gamma) * -log_q, "rest": (1 + rest_gamma) * -log_p}

    values = torch.stack([part.sum(2) for part in parts])
    slack = torch.stack(
        [
            (part * (2 + 2 * torch.maximum(gamma, rest_gamma) + rounding[name])).sum(2)
            for name, part in zip(wanted, parts, strict=True)
        ]
    )
    (gradient,) = torch.autograd.grad((values * upstream[..., 0]).sum(), leaf, retain_graph=True)
    strength = torch.zeros_like(gradient)
    for part, factor in zip(alone, upstream, strict=True):
        (piece,) = torch.autograd.grad((part * factor).sum(), moved, retain_graph=True)
        strength += piece.abs()
    if activation == "softmax":  # a logit moves every channel, none more than its own
        strength = strength.sum(1, keepdim=True).expand_as(strength)
    if activation == "none":  # saturates, as README.md says
        largest = torch.finfo(x.dtype).max
        gradient = gradient.clamp(-largest, largest)
    return Expected(values.detach(), (w * g).sum(2), w.sum(2), gradient, slack.detach(), strength, depth.detach())


def read(labels: Tensor, weights: Tensor | None, channels: int, ignore_index: int | None) -> tuple[Tensor, Tensor]:
    """Labels (N, K, V) in [0, 1] and the weight (N, 1, V) of each voxel, 0 where it is ignored.

    Integers are compared by NumPy, which knows that 255 in uint8 is not -1, whatever the widths of the two.
    """
    dense = labels.ndim == 3
    index = labels.double().numpy() if labels.is_floating_point() else labels.numpy()
    if index.dtype == np.bool_:
        index = index.astype(np.uint8)
    if dense:
        g = labels.double()
    else:
        names = [1] if channels == 1 else range(channels)
        g = torch.tensor(np.stack([index == name for name in names], 1)).double()
    w = torch.ones(g.shape[0], 1, g.shape[2], dtype=torch.float64) if weights is None else weights.double()[:, None]
    if ignore_index is not None:
        ignored = torch.tensor(np.asarray(index == ignore_index))
        w = w.masked_fill(ignored.any(1, keepdim=True) if dense else ignored[:, None], 0.0)
    return g, w


def clip_bounds(dtype: torch.dtype) -> tuple[float, float]:
    """1e-7 and 1 - 1e-7 as the arithmetic has them: in float32 there is no number between 1 - 1.2e-7 and 1."""
    low, high = torch.tensor([1e-7, 1 - 1e-7], dtype=dtype).tolist()
    return low, high


def straight_through(x: Tensor, low: float, high: float) -> Tensor:
    """Clipped in value, not in slope."""
    return x.detach().clamp(low, high) + (x - x.detach())


def independent(z: Tensor) -> tuple[Tensor, Tensor]:
    """log p and log (1 - p) of every channel for itself."""
    zero = torch.zeros_like(z)
    return -torch.logaddexp(zero, -z), -torch.logaddexp(zero, z)


def exclusive(z: Tensor) -> tuple[Tensor, Tensor]:
    """log p and log (1 - p) of classes that exclude each other: 1 - p is the sum of the other classes."""
    z = z - z.detach().amax(1, keepdim=True)
    log_sum = z.logsumexp(1, keepdim=True)
    log_p = z - log_sum
    channels = z.shape[1]
    others = [z[:, [j for j in range(channels) if j != c]].logsumexp(1) for c in range(channels)]
    log_q = torch.stack(others, 1) - log_sum
    return smaller_one_first(log_p, log_q)


def smaller_one_first(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    """Both again, the logarithm of the larger probability from that of the smaller one."""
    likely = log_q < HALF
    return (
        torch.where(likely, log1m_exp(log_q), log_p),
        torch.where(likely, log_q, log1m_exp(log_p)),
    )


def log1m_exp(x: Tensor) -> Tensor:
    """log (1 - exp x) for x below HALF; elsewhere a number that nobody looks at."""
    return torch.log1p(-x.clamp_max(HALF).exp())
