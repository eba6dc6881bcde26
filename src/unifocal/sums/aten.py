"""The sums in plain PyTorch, block by block: no compiler and no kernel of its own, so it serves every plain tensor.

It is the arithmetic of README.md on blocks that stay in the cache, in operations that PyTorch does quickly there: labels
as a one-hot of floats, as a mask of bools costs several times as much, and matrix products over the channels. Inside a
block the sums are in the dtype of the arithmetic, across blocks in float64. There are three ways through a block:

    classes   softmax and class indices: beyond the probabilities, all is per voxel rather than per voxel and channel
    sided     sigmoid and labels of 0 or 1: of the two entropies a voxel has one, that of the side it is on
    shared    soft labels, softmax against the rest, and given probabilities: the general formulas
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import threshold

from . import reference
from .form import Form
from .labels import has_memory

_BLOCK = 2**16  # voxel-classes per thread, so that the arrays of a block stay in the cache of its core
_BLOCK_CUDA = 2**22
_TINY = 1e-30  # the logarithm of a probability below comes from the logits, of another from its quotient to the rest
_FAR = 60.0  # safely less than -log(_TINY)

Index = tuple[slice, slice]  # images, voxels
Slopes = dict[str, Tensor]  # dL/d(sum) of all six by name, each (b, K, 1)


class _Block(NamedTuple):
    """Some voxels of some images, in the dtype of the arithmetic."""

    x: Tensor  # (b, K, n), 0 where a voxel does not count
    g: Tensor  # (b, K, n), labels in [0, 1]
    w: Tensor | None  # (b, 1, n), or all 1
    gamma: Tensor | None  # (b, K, 1), or both all 0
    rest_gamma: Tensor | None


def detail() -> str:
    """What it is made of."""
    return "PyTorch in blocks that fit the cache"


def why_not(x: Tensor, labels: Tensor, weights: Tensor | None, form: Form) -> str | None:
    """It serves every call whose tensors hold numbers."""
    if not all(has_memory(t) for t in (x, labels, weights) if t is not None):
        return "it loops over voxels, and a tensor that is traced or under torch.func holds none"
    return None if x.device.type in ("cpu", "cuda") else f"it adds in float64, which {x.device.type} may not have"


@torch.no_grad()
def forward(
    x: Tensor, labels: Tensor, weights: Tensor | None, gamma: Tensor, rest_gamma: Tensor, form: Form
) -> tuple[Tensor, Tensor, Tensor]:
    """`values` (S, N, K), `labelled` (N, K) and `voxels` (N, 1) of `VoxelSums`."""
    n, k, _ = x.shape
    totals = x.new_zeros((len(form.wanted) + 1, n, k), dtype=torch.float64)
    voxels = x.new_zeros((n, 1), dtype=torch.float64)
    sums, _ = _way(labels, form)
    for (images, _), block in _blocks(x, labels, weights, gamma, rest_gamma, form):
        totals[:, images] += torch.stack(sums(block, form))
        voxels[images] += block.x.shape[2] if block.w is None else block.w.sum(2)
    return totals[:-1].to(gamma.dtype), totals[-1].to(gamma.dtype), voxels.to(gamma.dtype)


@torch.no_grad()
def backward(
    upstream: Tensor,
    x: Tensor,
    labels: Tensor,
    weights: Tensor | None,
    gamma: Tensor,
    rest_gamma: Tensor,
    form: Form,
) -> Tensor:
    """The gradient (N, K, V) to x, in its dtype, from that to `values`."""
    gradient = torch.empty_like(x)
    slopes = dict.fromkeys(("tp", "fp", "fn", "tn", "ce", "rest"), torch.zeros_like(upstream[0]).unsqueeze(-1))
    slopes |= zip(form.wanted, upstream.unsqueeze(-1), strict=True)
    _, slope = _way(labels, form)
    for (images, voxels), block in _blocks(x, labels, weights, gamma, rest_gamma, form):
        piece = slope(block, form, {name: a[images] for name, a in slopes.items()})
        if block.w is not None:
            piece *= block.w
        if form.activation == "none":  # 1/p may be beyond float16, see README.md
            piece.clamp_(-torch.finfo(x.dtype).max, torch.finfo(x.dtype).max)
        gradient[images, :, voxels] = piece
    return gradient


Way = tuple[Callable[[_Block, Form], list[Tensor]], Callable[[_Block, Form, Slopes], Tensor]]


def _way(labels: Tensor, form: Form) -> Way:
    """How to compute the sums of a block, `labelled` last, and its gradient apart from the voxel weights."""
    if form.activation == "softmax" and labels.ndim == 2 and not {"tn", "rest"} & {*form.wanted}:
        return _classes_sums, _classes_gradient
    if form.activation == "sigmoid" and (labels.ndim == 2 or not labels.is_floating_point()):
        return _sided_sums, _sided_gradient
    return _shared_sums, _shared_gradient


# --- blocks --------------------------------------------------------------------------------------------------------


def _blocks(
    x: Tensor, labels: Tensor, weights: Tensor | None, gamma: Tensor, rest_gamma: Tensor, form: Form
) -> Iterator[tuple[Index, _Block]]:
    """All voxels, a block at a time."""
    n, k, _ = x.shape
    dtype = gamma.dtype
    exponents = [e for name, e in (("ce", gamma), ("rest", rest_gamma)) if name in form.wanted]
    focused = any(e.is_cuda or e.any() for e in exponents)
    gamma, rest_gamma = gamma.expand(n, k).unsqueeze(-1), rest_gamma.expand(n, k).unsqueeze(-1)
    classes = torch.arange(k, dtype=dtype, device=x.device).add_(k == 1).unsqueeze(-1)
    for images, voxels in _indices(x):
        piece = x[images, :, voxels].to(dtype).contiguous()
        g = labels[images, ..., voxels].to(dtype).contiguous()
        w = None if weights is None else weights[images, None, voxels].to(dtype)
        dense = labels.ndim == x.ndim
        g = g if dense else g.unsqueeze(1)
        if form.ignore_index is not None:
            valid = g.ne(form.ignore_index).to(dtype)
            if dense:
                valid = valid.amin(1, keepdim=True)
            else:
                g = g * valid  # any class: without weight it does not matter, but an empty one-hot is slower
            w = valid if w is None else w * valid
        if not dense:
            g = torch.eq(g, classes, out=torch.empty_like(piece))
        if w is not None:
            piece, g = _counted(piece, w), _counted(g, w) if dense else g
        yield (images, voxels), _Block(piece, g, w, *((gamma[images], rest_gamma[images]) if focused else (None, None)))


def _indices(x: Tensor) -> Iterator[Index]:
    """Blocks that the cache holds, and few enough arrays of which are small beside x: long images are cut up."""
    n, k, v = x.shape
    least = _BLOCK_CUDA if x.is_cuda else _BLOCK
    size = max(min(least * torch.get_num_threads(), x.numel() // 64), least)
    images = max(size // max(k * v, 1), 1)
    pieces = -(-k * v // size)
    for i in range(0, n, images):
        for j in range(pieces):
            yield slice(i, i + images), slice(j * v // pieces, (j + 1) * v // pieces)


def _counted(x: Tensor, w: Tensor) -> Tensor:
    """x, with 0 where w is 0 even if x is not a number there; by its bits, which is quicker than `where`."""
    bits = torch.int64 if x.dtype == torch.float64 else torch.int32
    return x.view(bits).bitwise_and(w.gt(0).to(bits).neg_()).view(x.dtype)


# --- what all ways share -------------------------------------------------------------------------------------------


def _mix(m: Tensor, x: Tensor) -> Tensor:
    """m @ x, (b, R, K) by (b, K, n), in full precision, less of which a user may have allowed to matrix products."""
    if x.dtype == torch.float64 or (not x.is_cuda and _matmul_is_exact()):
        out = x.new_empty((x.shape[0], m.shape[1], x.shape[2]))
        return torch.bmm(m.expand(x.shape[0], -1, -1), x, out=out)  # with `out` autocast leaves it alone
    out = m[:, :, :1] * x[:, :1]
    for c in range(1, x.shape[1]):
        out.addcmul_(m[:, :, c : c + 1], x[:, c : c + 1])
    return out


def _matmul_is_exact() -> bool:
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # precision was set by a newer interface that this function does not report
        return False


def _minus_log(p: Tensor, q: Tensor, rough: Callable[[], Tensor]) -> Tensor:
    """-log p with q = 1 - p: log(1 + q/p), or `rough` from the logits where p is too small for that."""
    log = torch.div(q, p.clamp_min(_TINY)).log1p_()
    if p.is_cuda or p.min() < _TINY:
        log = torch.maximum(log, threshold(rough().clamp_max(torch.finfo(p.dtype).max / 4), _FAR, 0.0))
    return log


def _focused(value: Tensor, q: Tensor, gamma: Tensor | None) -> Tensor:
    """value q^gamma; where q is 0, so is every value."""
    if gamma is None:
        return value
    return q.clamp_min(torch.finfo(q.dtype).tiny).log_().mul_(gamma).exp_().mul_(value)


def _fall(p: Tensor, q: Tensor, log_p: Callable[[], Tensor], gamma: Tensor | None) -> Tensor:
    """How fast q^gamma (-log p) falls with the logit of a sigmoid: q^gamma (gamma p (-log p) + q)."""
    return q if gamma is None else _focused((p * gamma).mul_(log_p()).add_(q), q, gamma)


def _by_side(inside: Tensor, outside: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return (inside * a).addcmul_(outside, b)


def _weighted(inside: Tensor, outside: Tensor, b: _Block) -> tuple[Tensor, Tensor]:
    return (inside, outside) if b.w is None else (inside * b.w, outside * b.w)


# --- softmax and class indices -------------------------------------------------------------------------------------


def _classes(b: _Block) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """p, its parts inside and outside the class of the voxel, and their sums over the channels: p and q of the class."""
    p = torch.softmax(b.x, 1)
    inside = p * b.g
    outside = p - inside  # exact
    return p, inside, outside, inside.sum(1, keepdim=True), outside.sum(1, keepdim=True)


def _classes_sums(b: _Block, form: Form) -> list[Tensor]:
    _, inside, outside, p, q = _classes(b)
    inside, outside = _weighted(inside, outside, b)
    g = b.g if b.w is None else b.g * b.w
    terms = {"tp": lambda: inside, "fp": lambda: outside, "fn": lambda: g * q, "ce": lambda: g * entropy}
    if "ce" in form.wanted:
        lowest = torch.finfo(p.dtype).min / 4  # for a logit of -inf: times 0 it must be 0
        log = _minus_log(p, q, lambda: -(torch.log_softmax(b.x, 1).clamp_min(lowest) * b.g).sum(1, keepdim=True))
        gamma = None if b.gamma is None else _mix(b.gamma.mT, b.g)
        entropy = _focused(log, q, gamma)
    return [terms[name]().sum(2) for name in form.wanted] + [g.sum(2)]


def _classes_gradient(b: _Block, form: Form, a: Slopes) -> Tensor:
    """The slope of the region sums to p is d = a_fp, and d - r in the class t of the voxel, r = a_fp - a_tp + a_fn. So

        dL/dz_k = p_k Σ_c (d_k - d_c) p_c + (p_k - [k = t]) (r_t p_t + a_ce q^γ (γ p_t (-log p_t) / q + 1))

    where p_t - 1 is -q: no digits are lost in a difference, whichever class holds all the probability.
    """
    p_all, _, outside, p, q = _classes(b)
    table = [a["fp"] - a["tp"] + a["fn"], a["ce"]]
    table += [] if b.gamma is None else [b.gamma, b.gamma * a["ce"]]
    r, down, *focus = _mix(torch.cat(table, 2).mT, b.g).split(1, 1)
    if focus:
        gamma, steep = focus
        log_by_q = torch.div(q, p.clamp_min(_TINY)).log1p_().div_(q.clamp_min(_TINY))
        down = _focused(down.addcmul_(steep.mul_(p), log_by_q), q, gamma)
    gradient = outside.addcmul_(b.g, q, value=-1).mul_(r.mul_(p).add_(down))
    if "fp" in form.wanted:
        gradient.addcmul_(p_all, _mix(a["fp"] - a["fp"].mT, p_all))
    return gradient


# --- sigmoid and labels of 0 or 1 ----------------------------------------------------------------------------------


def _sided(b: _Block) -> tuple[Tensor, Tensor, Tensor, Tensor, Callable[[], Tensor], Tensor | None]:
    """The outside, 1 inside and -1 there; p and q of the side that the voxel is on, -log p, and the exponent."""
    outside = 1 - b.g
    sign = b.g - outside
    x = b.x * sign
    p, q = torch.sigmoid(x), torch.sigmoid(x.neg_())
    gamma = None if b.gamma is None or b.rest_gamma is None else _by_side(b.g, outside, b.gamma, b.rest_gamma)
    return outside, sign, p, q, lambda: _minus_log(p, q, lambda: x), gamma


def _sided_sums(b: _Block, form: Form) -> list[Tensor]:
    outside, _, p, q, log, gamma = _sided(b)
    inside, outside = _weighted(b.g, outside, b)
    entropy = _focused(log(), q, gamma) if {"ce", "rest"} & {*form.wanted} else q
    terms = {
        "tp": (inside, p),
        "fp": (outside, q),
        "fn": (inside, q),
        "tn": (outside, p),
        "ce": (inside, entropy),
        "rest": (outside, entropy),
    }
    return [torch.mul(*terms[name]).sum(2) for name in form.wanted] + [inside.sum(2)]


def _sided_gradient(b: _Block, form: Form, a: Slopes) -> Tensor:
    outside, sign, p, q, log, gamma = _sided(b)
    gradient = torch.zeros_like(p)
    if {*form.wanted} - {"ce", "rest"}:
        gradient = _by_side(b.g, outside, a["tp"] - a["fn"], a["tn"] - a["fp"]).mul_(p).mul_(q)
    if {"ce", "rest"} & {*form.wanted}:
        down = _by_side(b.g, outside, a["ce"], a["rest"])
        gradient.addcmul_(down, _fall(p, q, log, gamma), value=-1)
    return gradient.mul_(sign)


# --- the general formulas ------------------------------------------------------------------------------------------


def _others(x: Tensor) -> Tensor:
    """For each channel the sum over all other channels."""
    k = x.shape[1]
    return _mix(1 - torch.eye(k, dtype=x.dtype, device=x.device).unsqueeze(0), x)


def _shared(b: _Block, form: Form) -> tuple[Tensor, Tensor, Callable[[], Tensor], Callable[[], Tensor]]:
    """p, q, -log p and -log q."""
    x = b.x
    if form.activation == "sigmoid":
        p, q = torch.sigmoid(x), torch.sigmoid(-x)
        return p, q, lambda: _minus_log(p, q, lambda: -x), lambda: _minus_log(q, p, lambda: x)
    if form.activation == "none":
        p = x.clamp(reference.CLIP, 1 - reference.CLIP)
        q = 1 - p
        return p, q, lambda: -p.log(), lambda: -q.log()
    p = torch.softmax(x, 1)
    q = _others(p)
    return (
        p,
        q,
        lambda: _minus_log(p, q, lambda: -torch.log_softmax(x, 1)),
        lambda: _minus_log(q, p, lambda: reference.voxels(x, form).log_q),
    )


def _shared_sums(b: _Block, form: Form) -> list[Tensor]:
    p, q, log_p, log_q = _shared(b, form)
    inside, outside = _weighted(b.g, 1 - b.g, b)
    r, s = p, q
    if form.activation == "none" and not form.clip:
        r = b.x.clamp(0, 1)
        s = 1 - r
    terms = {
        "tp": lambda: inside * r,
        "fp": lambda: outside * r,
        "fn": lambda: inside * s,
        "tn": lambda: outside * s,
        "ce": lambda: _focused(log_p(), q, b.gamma) * inside,
        "rest": lambda: _focused(log_q(), p, b.rest_gamma) * outside,
    }
    return [terms[name]().sum(2) for name in form.wanted] + [inside.sum(2)]


def _shared_gradient(b: _Block, form: Form, a: Slopes) -> Tensor:
    """With the slope of a sigmoid, s = f q: that of given probabilities is s / (p q), that of softmax has f = s / q."""
    p, q, log_p, log_q = _shared(b, form)
    outside = 1 - b.g
    slope = torch.zeros_like(p)
    if {*form.wanted} - {"ce", "rest"}:
        slope = _by_side(b.g, outside, a["tp"] - a["fn"], a["fp"] - a["tn"]).mul_(p).mul_(q)
    if "ce" in form.wanted:
        slope.addcmul_(b.g * a["ce"], _fall(p, q, log_p, b.gamma), value=-1)
    if "rest" in form.wanted:
        slope.addcmul_(outside * a["rest"], _fall(q, p, log_q, b.rest_gamma))
    if form.activation == "none":
        return slope.div_(p).div_(q)
    return slope if form.activation == "sigmoid" else slope.addcmul_(p, _others(slope / q.clamp_min(_TINY)), value=-1)
