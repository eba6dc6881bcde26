"""The sums in plain PyTorch, block by block: no compiler and no kernel of its own, so it serves every plain tensor.

It is the arithmetic of README.md on blocks that stay in the cache, in operations that PyTorch does quickly there:
labels as a one-hot of floats, as a mask of bools costs several times as much, and matrix products over the channels.
Inside a block the sums are in the dtype of the arithmetic, across blocks in float64. There are three ways through one:

    classes   softmax and class indices: beyond the exponentials, all is per voxel rather than per voxel and channel
    sided     sigmoid and labels of 0 or 1: of the two entropies a voxel has one, that of the side it is on
    shared    soft labels, softmax against the rest, and given probabilities: the general formulas
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from . import reference
from .form import Form
from .labels import signed
from .tracing import has_memory

_BLOCK = 2**17  # voxel-classes per thread, so that the arrays of a block stay in the cache of its core
_BLOCK_CUDA = 2**22
_TINY = 1e-30  # a quotient by less is not to be trusted
_FAR = 60.0  # exp of that is far from overflow, and 1 is nothing beside it

Power = Callable[[Tensor, Tensor], Tensor]
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
    for images, _, block in _blocks(x, labels, weights, gamma, rest_gamma, form):
        totals[:, images].add_(torch.stack(sums(block, form)))
        voxels[images].add_(block.x.shape[2] if block.w is None else block.w.sum(2))
    return totals[:-1].to(gamma.dtype, copy=True), totals[-1].to(gamma.dtype, copy=True), voxels.to(gamma.dtype)


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
    for images, voxels, block in _blocks(x, labels, weights, gamma, rest_gamma, form):
        piece = gradient[images, :, voxels]
        direct = piece.dtype == gamma.dtype and piece.stride(2) == 1
        out = piece if direct else torch.empty_like(block.g)
        slope(block, form, {name: a[images] for name, a in slopes.items()}, out)
        if block.w is not None:
            out *= block.w
        if form.activation == "none":  # 1/p may be beyond float16, see README.md
            out.clamp_(-torch.finfo(x.dtype).max, torch.finfo(x.dtype).max)
        if not direct:
            piece.copy_(out)
    return gradient


Way = tuple[Callable[[_Block, Form], list[Tensor]], Callable[[_Block, Form, Slopes, Tensor], object]]


def _way(labels: Tensor, form: Form) -> Way:
    """How to find the sums of a block, with `labelled` last, and how its gradient but for the voxel weights."""
    if form.activation == "softmax" and labels.ndim == 2 and not {"tn", "rest"} & {*form.wanted}:
        return _classes_sums, _classes_gradient
    if form.activation == "sigmoid" and (labels.ndim == 2 or not labels.is_floating_point()):
        return _sided_sums, _sided_gradient
    return _shared_sums, _shared_gradient


# --- blocks --------------------------------------------------------------------------------------------------------


def _blocks(
    x: Tensor, labels: Tensor, weights: Tensor | None, gamma: Tensor, rest_gamma: Tensor, form: Form
) -> Iterator[tuple[slice, slice, _Block]]:
    """All voxels, a block at a time: which images, which of their voxels, and these."""
    n, k, _ = x.shape
    dtype, dense = gamma.dtype, labels.ndim == x.ndim
    labels, ignored = signed(labels, form.ignore_index)
    exponents = [e for name, e in (("ce", gamma), ("rest", rest_gamma)) if name in form.wanted]
    focused = any(e.is_cuda or e.any() for e in exponents)
    gamma, rest_gamma = gamma.expand(n, k).unsqueeze(-1), rest_gamma.expand(n, k).unsqueeze(-1)
    classes = torch.arange(k, dtype=dtype, device=x.device).add_(k == 1).unsqueeze(-1)
    same = not x.is_cuda and torch.equal(gamma, rest_gamma)
    for images, voxels in _indices(x):
        part = _in_rows(x[images, :, voxels], dtype)
        label = labels[images, ..., voxels] if dense else labels[images, None, voxels]
        g = _in_rows(label, dtype)
        w = None if weights is None else weights[images, None, voxels].to(dtype)
        if ignored is not None:
            valid = label.ne(ignored).to(dtype)
            valid = valid.amin(1, keepdim=True) if dense else valid
            g = g if dense else g * valid  # some class: it has no weight, but voxels of no class are slower
            w = valid if w is None else w * valid
        if not dense:
            g = torch.eq(g, classes, out=g.new_empty((g.shape[0], k, g.shape[2])))
        if w is not None:
            part, g = _counted(part, w), _counted(g, w) if dense else g
        inside = gamma[images] if focused else None
        yield images, voxels, _Block(part, g, w, inside, inside if same or not focused else rest_gamma[images])


def _indices(x: Tensor) -> Iterator[tuple[slice, slice]]:
    """Long images are cut up, short ones are put together."""
    n, k, v = x.shape
    least = _BLOCK_CUDA if x.is_cuda else _BLOCK
    small = max(x.numel() // 72, 150_000)  # the dozen arrays of a block must be little beside a large x
    size = max(min(least * torch.get_num_threads(), small), least)
    images, pieces = max(size // max(k * v, 1), 1), -(-k * v // size)
    for i in range(0, n, images):
        for j in range(pieces):
            yield slice(i, i + images), slice(j * v // pieces, (j + 1) * v // pieces)


def _in_rows(x: Tensor, dtype: torch.dtype) -> Tensor:
    x = x.to(dtype)
    return x if x.stride(-1) == 1 else x.contiguous()


def _counted(x: Tensor, w: Tensor) -> Tensor:
    """x, but 0 where w is 0 even if x is not a number there; by its bits, which is quicker than `where`."""
    bits = torch.int64 if x.dtype == torch.float64 else torch.int32
    return x.view(bits).bitwise_and(w.gt(0).to(bits).neg_()).view(x.dtype)


# --- what the ways share -------------------------------------------------------------------------------------------


def _mix(m: Tensor, x: Tensor) -> Tensor:
    """m @ x, (b, R, K) by (b, K, n), in full precision, less of which a user may have allowed to matrix products."""
    if x.dtype == torch.float64 or (not x.is_cuda and _matmul_is_exact()):
        out = x.new_empty((x.shape[0], m.shape[1], x.shape[2]))
        return torch.bmm(m.expand(x.shape[0], -1, -1), x, out=out)  # autocast leaves alone what has an `out`
    out = m[:, :, :1] * x[:, :1]
    for c in range(1, x.shape[1]):
        out.addcmul_(m[:, :, c : c + 1], x[:, c : c + 1])
    return out


def _matmul_is_exact() -> bool:
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # set by a newer interface, which this function does not report
        return False


def _dot(a: Tensor, b: Tensor, spare: Tensor) -> Tensor:
    return torch.mul(a, b, out=spare).sum(2)


def _by_side(inside: Tensor, outside: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return (inside * a).addcmul_(outside, b)


def _focused(value: Tensor, q: Tensor, gamma: Tensor | None, power: Power) -> Tensor:
    """value q^gamma, in place."""
    return value if gamma is None else value.mul_(power(q, gamma))


def _power(q: Tensor, gamma: Tensor) -> Tensor:
    """q^gamma in a third of the time of `pow`, right to gamma |log q| units of the last place; q is not 0."""
    return q.log().mul_(gamma).exp_()


def _power_from_0(q: Tensor, gamma: Tensor) -> Tensor:
    """The same where q may be 0: the entropy is 0 there, so any finite number will do."""
    return q.clamp_min(torch.finfo(q.dtype).tiny).log_().mul_(gamma).exp_()


def _fall(p: Tensor, q: Tensor, log_p: Callable[[], Tensor], gamma: Tensor | None, power: Power) -> Tensor:
    """How fast q^gamma (-log p) falls with the logit of a sigmoid: q^gamma (gamma p (-log p) + q)."""
    return q if gamma is None else _focused((p * gamma).mul_(log_p()).add_(q), q, gamma, power)


def _finite(log: Tensor) -> Tensor:
    """Of a logit of -inf: times no voxel it must be 0."""
    return log.clamp_max_(torch.finfo(log.dtype).max ** 0.7)


def _has_entropy(form: Form) -> bool:
    return not {"ce", "rest"}.isdisjoint(form.wanted)


def _has_region(form: Form) -> bool:
    return not {"ce", "rest"}.issuperset(form.wanted)


# --- softmax and class indices -------------------------------------------------------------------------------------


def _classes(b: _Block) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Multiples of the probabilities: all; those outside the class of the voxel; p and q of the class; 1 / (p + q)."""
    e = (b.x - b.x.amax(1, keepdim=True)).exp_()
    inside = e * b.g
    p = inside.sum(1, keepdim=True)
    outside = torch.sub(e, inside, out=inside)  # exact
    q = outside.sum(1, keepdim=True)
    return e, outside, p, q, (p + q).reciprocal_()


def _classes_sums(b: _Block, form: Form) -> list[Tensor]:
    spare, outside, p, q, scale = _classes(b)
    of_class = {"tp": p * scale, "fn": q * scale}
    if "ce" in form.wanted:
        log = torch.div(q, p.clamp_min(_TINY)).log1p_()  # -log p
        if p.is_cuda or p.min() < _TINY:  # p has lost its digits in underflow
            far = _finite(-torch.log_softmax(b.x, 1)).mul_(b.g).sum(1, keepdim=True)
            log = torch.where(p < _TINY, far, log)
        of_class["ce"] = _focused(
            log, of_class["fn"], None if b.gamma is None else _mix(b.gamma.mT, b.g), _power_from_0
        )
    w = b.g if b.w is None else b.g * b.w
    scale = scale if b.w is None else scale * b.w
    products = {name: (w, value) for name, value in of_class.items()} | {"fp": (outside, scale)}
    return [*(_dot(*products[name], spare) for name in form.wanted), w.sum(2)]


def _classes_gradient(b: _Block, form: Form, a: Slopes, out: Tensor) -> None:
    """The slope of the region sums to p is d = a_fp, and d - r in the class t of the voxel, r = a_fp - a_tp + a_fn. So

        dL/dz_k = p_k Σ_c (d_k - d_c) p_c + (p_k - [k = t]) (r_t p_t + a_ce q^γ (γ p_t (-log p_t) / q + 1))

    where p_t - 1 is -q: no digits are lost in a difference, whichever class holds all the probability.
    """
    e, outside, p, q, scale = _classes(b)
    p_class, q_class = p * scale, q * scale
    table = [a["fp"] - a["tp"] + a["fn"], a["ce"]]
    table += [] if b.gamma is None else [b.gamma, b.gamma * a["ce"]]
    force, down, *focus = torch.split(_mix(torch.cat(table, 2).mT, b.g), 1, 1)
    force.mul_(p_class)
    if focus:
        gamma, steep = focus
        log_by_q = torch.div(q, p.clamp_min_(_TINY)).log1p_().div_(q_class.clamp_min(_TINY))
        down = _focused(down.addcmul_(steep.mul_(p_class), log_by_q), q_class, gamma, _power_from_0)
    force.add_(down)
    torch.mul(outside, force * scale, out=out).addcmul_(b.g, force.mul_(q_class), value=-1)
    if "fp" in form.wanted:
        out.addcmul_(_mix(a["fp"] - a["fp"].mT, e).mul_(e), scale.square_())


# --- sigmoid and labels of 0 or 1 ----------------------------------------------------------------------------------


def _sided(b: _Block) -> tuple[Tensor, Tensor, Callable[[], Tensor], Tensor | None, Power]:
    """p and q of the side that the voxel is on, -log p, and the exponent with its power."""
    against = torch.rsub(b.g, 1, alpha=2).mul_(b.x)  # the logit of q
    gamma = b.gamma
    if b.gamma is not None and b.rest_gamma is not None and b.gamma is not b.rest_gamma:
        gamma = (b.g * (b.gamma - b.rest_gamma)).add_(b.rest_gamma)
    if against.is_cuda or not all(abs(end) < _FAR for end in torch.aminmax(against)):
        p, q = torch.sigmoid(-against), torch.sigmoid(against)
        return p, q, lambda: _finite(softplus(against, threshold=_FAR)), gamma, _power_from_0
    ratio = against.exp_()  # q / p
    p = (ratio + 1).reciprocal_()
    return p, ratio * p, ratio.log1p_, gamma, _power


def _sided_sums(b: _Block, form: Form) -> list[Tensor]:
    p, q, log, gamma, power = _sided(b)
    entropy = _focused(log(), q, gamma, power) if _has_entropy(form) else q
    sums, spare = {}, torch.empty_like(p)
    for inside, outside, value in ("tp", "tn", p), ("ce", "rest", entropy), ("fn", "fp", q):
        if inside in form.wanted or outside in form.wanted:
            term = value if b.w is None else value.mul_(b.w)
            sums[inside] = _dot(term, b.g, spare)
            if outside in form.wanted:
                sums[outside] = term.sub_(spare).sum(2)  # exact
    return [*(sums[name] for name in form.wanted), (b.g if b.w is None else b.g * b.w).sum(2)]


def _sided_gradient(b: _Block, form: Form, a: Slopes, out: Tensor) -> None:
    p, q, log, gamma, power = _sided(b)
    outside = 1 - b.g
    if _has_entropy(form):
        torch.mul(_by_side(b.g, outside, -a["ce"], a["rest"]), _fall(p, q, log, gamma, power), out=out)
    else:
        out.zero_()
    if _has_region(form):
        out.addcmul_(_by_side(b.g, outside, a["tp"] - a["fn"], a["fp"] - a["tn"]), p.mul_(q))


# --- the general formulas ------------------------------------------------------------------------------------------


def _others(x: Tensor) -> Tensor:
    """For each channel the sum over all other channels."""
    k = x.shape[1]
    return _mix(x.new_ones((1, k, k)) - torch.eye(k, dtype=x.dtype, device=x.device), x)


def _shared(b: _Block, form: Form) -> tuple[Tensor, Tensor, Callable[[], Tensor], Callable[[], Tensor], Power]:
    """p, q, -log p and -log q, and how to take powers of p and q."""
    if form.activation == "none":
        p = b.x.clamp(reference.CLIP, 1 - reference.CLIP)
        return p, 1 - p, lambda: p.log().neg_(), lambda: p.neg().log1p_().neg_(), torch.pow
    if form.activation == "sigmoid":
        x = b.x
        p, q = torch.sigmoid(x), torch.sigmoid(-x)
        common = x.abs().neg_().exp_().log1p_() if _has_entropy(form) else x
        return p, q, lambda: _finite(common - x.clamp_max(0)), lambda: _finite(common + x.clamp_min(0)), _power_from_0
    x = b.x - b.x.amax(1, keepdim=True)
    e = x.exp()
    others = _others(e)
    least = others.amin(1, keepdim=True)  # that of the largest e, which is 1
    scale = (e[:, :1] + others[:, :1]).reciprocal_()
    power = _power_from_0 if "rest" in form.wanted or least.is_cuda or least.min() < _TINY else _power
    return (
        e.mul_(scale),
        others.mul_(scale),
        lambda: _finite(least.log1p_() - x),
        lambda: reference.voxels(b.x, form).log_q,
        power,
    )


def _shared_sums(b: _Block, form: Form) -> list[Tensor]:
    p, q, log_p, log_q, power = _shared(b, form)
    inside, outside = b.g, 1 - b.g
    if b.w is not None:
        inside, outside = inside * b.w, outside * b.w
    r = b.x.clamp(0, 1) if form.activation == "none" and not form.clip else p
    s = q if r is p else 1 - r
    terms = {
        "tp": lambda: (inside, r),
        "fp": lambda: (outside, r),
        "fn": lambda: (inside, s),
        "tn": lambda: (outside, s),
        "ce": lambda: (inside, _focused(log_p(), q, b.gamma, power)),
        "rest": lambda: (outside, _focused(log_q(), p, b.rest_gamma, power)),
    }
    spare = torch.empty_like(p)
    return [*(_dot(*terms[name](), spare) for name in form.wanted), inside.sum(2)]


def _shared_gradient(b: _Block, form: Form, a: Slopes, out: Tensor) -> None:
    p, q, log_p, log_q, power = _shared(b, form)
    if form.activation == "softmax" and "rest" in form.wanted and (q.is_cuda or q.min() < _TINY):
        upstream = torch.stack([a[name][..., 0] for name in form.wanted])
        gamma, rest_gamma = (torch.zeros_like(upstream[0]) if e is None else e[..., 0] for e in (b.gamma, b.rest_gamma))
        out.copy_(reference.backward(upstream, b.x, b.g, None, gamma, rest_gamma, form._replace(ignore_index=None)))
        return
    outside = 1 - b.g
    if "ce" in form.wanted:
        torch.mul(_fall(p, q, log_p, b.gamma, power), b.g * -a["ce"], out=out)
    else:
        out.zero_()
    if "rest" in form.wanted:
        out.addcmul_(_fall(q, p, log_q, b.rest_gamma, power), outside * a["rest"])
    if form.activation == "softmax" and _has_entropy(form):
        out.div_(q.clamp_min(_TINY))  # to p dL/dp; the above is the gradient of a sigmoid
    if _has_region(form):
        tilt = _by_side(b.g, outside, a["tp"] - a["fn"], a["fp"] - a["tn"]).mul_(p)
        out.add_(tilt if form.activation == "softmax" else tilt.mul_(q))
    if form.activation == "softmax":
        others = _others(out)
        out.mul_(q).addcmul_(p, others, value=-1)
    elif form.activation == "none":
        out.div_(p).div_(q)
