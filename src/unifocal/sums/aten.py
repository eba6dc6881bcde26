"""The sums in plain PyTorch, block by block: no compiler and no kernel of its own, so it serves every plain tensor.

It is the arithmetic of README.md on blocks that stay in the cache, in operations that PyTorch does quickly there:
labels as a one-hot of floats, as a mask of bools costs several times as much, and matrix products over the channels.
Inside a block the sums are in the dtype of the arithmetic, across blocks in float64. There are four ways through one:

    classes   softmax and class indices: beyond the exponentials, all is per voxel rather than per voxel and channel
    sided     sigmoid and labels of 0 or 1: of the two entropies a voxel has one, that of the side it is on; and softmax
              over two channels, which is the sigmoid of their difference
    entropies sigmoid and soft labels where only entropies are wanted: all from the logarithms of both sides
    shared    soft labels, softmax against the rest, and given probabilities: the general formulas

On a CPU these are tried as if no logit were extreme. Where that matters something becomes infinite or NaN, with it
what they return, and the block is done again with care. To look at the result costs less than to look at the logits.
"""

from collections.abc import Callable, Iterator
from math import isfinite
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from . import reference
from .aten_masks import counted, masks
from .form import Form
from .labels import signed
from .tracing import has_memory

__all__ = ["backward", "detail", "forward", "masks", "why_not"]

_BLOCK = 2**17  # voxel-classes per thread, so that the arrays of a block stay in the cache of its core
_BLOCK_CUDA = 2**22
_TINY = 1e-30  # a quotient by less is not to be trusted
_LOG2_E = 1.4426950408889634
_SIMPLE = (0.0, 0.5, 1.0, 2.0)  # exponents of powers that are quick
_FAR = 60.0  # exp of that is far from overflow, and 1 is nothing beside it
_OF_THE_REST = {"tp": "tn", "fp": "fn", "fn": "fp", "ce": "rest", "tn": "tp", "rest": "ce"}

Exponent = float | tuple[float, ...] | Tensor  # one for all; one for each channel, many of them 0; or (b, K, 1)
Slopes = dict[str, Tensor]  # dL/d(sum) of all six by name, each (b, K, 1)


class _Block(NamedTuple):
    """Some voxels of some images, in the dtype of the arithmetic."""

    x: Tensor  # (b, K, n), 0 where a voxel does not count; perhaps a view of the logits
    g: Tensor  # (b, K, n) labels in [0, 1] if dense, else (b, 1, n) class indices
    dense: bool
    w: Tensor | None  # (b, 1, n), or all 1
    gamma: Exponent
    rest_gamma: Exponent
    careful: bool = False  # expect logits of any size


def detail() -> str:
    """What it is made of."""
    return "PyTorch in blocks that fit the cache"


def why_not(x: Tensor, labels: Tensor, weights: Tensor | None, form: Form | None) -> str | None:
    """It serves every call whose tensors hold numbers."""
    if not has_memory(x, labels, weights):
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
    sums, _ = _way(x, labels, form)
    for images, _, block in _blocks(x, labels, weights, gamma, rest_gamma, form):
        found = torch.stack(sums(block, form))
        if not block.careful and not isfinite(found.sum()):
            found = torch.stack(sums(block._replace(careful=True), form))
        totals[:, images].add_(found)
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
    slopes = dict.fromkeys(_OF_THE_REST, torch.zeros_like(upstream[0]).unsqueeze(-1))
    slopes |= zip(form.wanted, upstream.unsqueeze(-1), strict=True)
    _, slope = _way(x, labels, form)
    for images, voxels, block in _blocks(x, labels, weights, gamma, rest_gamma, form):
        piece = gradient[images, :, voxels]
        direct = piece.dtype == gamma.dtype and piece.stride(2) == 1
        out = piece if direct else block.x.new_empty(block.x.shape)
        a = {name: each[images] for name, each in slopes.items()}
        slope(block, form, a, out)
        if block.w is not None:
            out *= block.w
        if form.activation == "none":  # 1/p may be beyond float16, see README.md
            out.clamp_(-torch.finfo(x.dtype).max, torch.finfo(x.dtype).max)
        if not direct:
            piece.copy_(out)
    return gradient


Way = tuple[Callable[[_Block, Form], list[Tensor]], Callable[[_Block, Form, Slopes, Tensor], object]]


def _way(x: Tensor, labels: Tensor, form: Form) -> Way:
    """How to find the sums of a block, with `labelled` last, and how its gradient but for the voxel weights."""
    if form.activation == "softmax" and labels.ndim == 2 and not {"tn", "rest"} & {*form.wanted}:
        return (_classes_sums, _classes_gradient) if x.shape[1] != 2 or x.is_cuda else (_pair_sums, _pair_gradient)
    if form.activation == "sigmoid" and (labels.ndim == 2 or not labels.is_floating_point()):
        return _sided_sums, _sided_gradient
    if form.activation == "sigmoid" and not _has_region(form):
        return _entropies_sums, _entropies_gradient
    return _shared_sums, _shared_gradient


# --- blocks --------------------------------------------------------------------------------------------------------


def _blocks(
    x: Tensor, labels: Tensor, weights: Tensor | None, gamma: Tensor, rest_gamma: Tensor, form: Form
) -> Iterator[tuple[slice, slice, _Block]]:
    """All voxels, a block at a time: which images, which of their voxels, and these."""
    dtype, dense = gamma.dtype, labels.ndim == x.ndim
    labels, ignored = signed(labels, form.ignore_index)
    labels = labels if dense else labels.unsqueeze(1)
    exponents = _exponents(gamma, rest_gamma, form, x)
    for images, voxels in _indices(x):
        part = _in_rows(x[images, :, voxels], dtype)
        label = labels[images, :, voxels]
        g = _in_rows(label, dtype)
        w = None if weights is None else weights[images, None, voxels].to(dtype)
        if ignored is not None:
            valid = label.ne(ignored).to(dtype)
            valid = valid.amin(1, keepdim=True) if dense else valid
            if valid.is_cuda or not valid.amin():
                g = g if dense else g * valid  # some class: it has no weight, but voxels of no class are slower
                w = valid if w is None else w * valid
        if w is not None:
            part, g = counted(part, w), counted(g, w)
        inside, outside = _of(images, exponents)
        yield images, voxels, _Block(part, g, dense, w, inside, outside, x.is_cuda)


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


def _exponents(gamma: Tensor, rest_gamma: Tensor, form: Form, x: Tensor) -> list[Exponent]:
    """gamma and rest_gamma of all images, (N, K, 1) if tensors; one object where equal or where one is not in use."""
    used = [e for name, e in (("ce", gamma), ("rest", rest_gamma)) if name in form.wanted]
    if len(used) == 2 and not used[0].is_cuda and torch.equal(*used):
        used.pop()
    found = [_exponent(e, x) for e in used] or [0.0]
    return found if len(found) == 2 else found * 2


def _exponent(gamma: Tensor, x: Tensor) -> Exponent:
    gamma = gamma.expand(x.shape[:2])
    if not gamma.is_cuda and gamma.numel():
        row, *others = {tuple(row) for row in gamma.tolist()}
        if not others and len({*row}) == 1:
            return float(row[0])
        if not others and 2 * row.count(0.0) >= len(row):
            return row
    return gamma.unsqueeze(-1)


def _of(images: slice, exponents: list[Exponent]) -> list[Exponent]:
    if exponents[0] is exponents[1] and isinstance(exponents[0], Tensor):
        return [exponents[0][images]] * 2
    return [e[images] if isinstance(e, Tensor) else e for e in exponents]


# --- what the ways share -------------------------------------------------------------------------------------------


def _one_hot(b: _Block) -> Tensor:
    """Labels of each channel, (b, K, n); with one channel, index 1 is its class."""
    if b.dense:
        return b.g
    n, k, v = b.x.shape
    classes = torch.arange(k, dtype=b.g.dtype, device=b.g.device).add_(k == 1).unsqueeze(-1)
    return torch.eq(b.g, classes, out=b.g.new_empty((n, k, v)))


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


def _exp_(x: Tensor) -> Tensor:
    """e^x in place; PyTorch's own takes twice as long on a CPU."""
    return x.mul_(_LOG2_E).exp2_()


def _by_side(g: Tensor, inside: Tensor, outside: Tensor) -> Tensor:
    """One number where g is 1 and another where it is 0; `lerp` takes much longer."""
    return (g * inside).addcmul_(1 - g, outside)


def _raised(q: Tensor, gamma: float | Tensor, log_q: Tensor | None = None, exact: bool = False) -> Tensor:
    """q^gamma, unless exact in a fifth of the time of `pow` to gamma |log q| units of the last place; log_q is -log q.

    Where q is 0 and gamma is not: something finite, as it has a factor of 0 there.
    """
    if isinstance(gamma, float) and gamma in _SIMPLE:
        return torch.ones_like(q) if gamma == 0 else q if gamma == 1 else q.sqrt() if gamma == 0.5 else q * q
    if exact:
        return torch.pow(q, gamma)
    if log_q is not None:
        return (log_q * (gamma * -_LOG2_E)).exp2_()
    return q.clamp_min(torch.finfo(q.dtype).tiny).log2_().mul_(gamma).exp2_()


def _of_class(gamma: Exponent, g: Tensor, q: Tensor) -> tuple[float | Tensor, Tensor]:
    """The exponent of the class of each voxel, (b, 1, n), and the power of its q."""
    if isinstance(gamma, float):
        return gamma, _raised(q, gamma)
    if isinstance(gamma, Tensor):
        gamma = _mix(gamma.mT, g)
        return gamma, _raised(q, gamma)
    exponent, power = torch.zeros_like(q), torch.ones_like(q)
    for c, value in enumerate(gamma):
        if value:
            own = g[:, c : c + 1]
            exponent.add_(own, alpha=value)
            power.sub_(own).addcmul_(own, _raised(q, value))  # exact
    return exponent, power


def _of_side(b: _Block, g: Tensor, q: Tensor) -> tuple[float | Tensor, Tensor]:
    """The exponent of the side that each voxel is on, and the power of its q."""
    own, rest = b.gamma, b.rest_gamma
    if isinstance(own, float) and isinstance(rest, float):
        if own == rest:
            return own, _raised(q, own)
        gamma = (g * (own - rest)).add_(rest)
    else:
        inside, outside = (e if isinstance(e, Tensor) else g.new_tensor(e).view(-1, 1) for e in (own, rest))
        gamma = inside if own is rest else _by_side(g, inside, outside)
    return gamma, _raised(q, gamma)


def _is_0(gamma: Exponent) -> bool:
    return isinstance(gamma, float) and gamma == 0


def _is_focused(b: _Block) -> bool:
    return not (_is_0(b.gamma) and _is_0(b.rest_gamma))


def _soft(x: Tensor) -> Tensor:
    """log(1 + e^x)."""
    return _finite(softplus(x, threshold=_FAR))


def _finite(log: Tensor) -> Tensor:
    """Of a logit of -inf: times no voxel it must be 0."""
    return log.clamp_max_(torch.finfo(log.dtype).max ** 0.7)


def _has_entropy(form: Form) -> bool:
    return not {"ce", "rest"}.isdisjoint(form.wanted)


def _has_region(form: Form) -> bool:
    return not {"ce", "rest"}.issuperset(form.wanted)


# --- softmax and class indices -------------------------------------------------------------------------------------


def _classes(x: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Multiples of the probabilities: all; those outside the class of the voxel; p and q of the class; 1 / (p + q)."""
    e = _exp_(x - x.amax(1, keepdim=True))
    inside = e * g
    p = inside.sum(1, keepdim=True)
    outside = torch.sub(e, inside, out=inside)  # exact
    q = outside.sum(1, keepdim=True)
    return e, outside, p, q, (p + q).reciprocal_()


def _classes_sums(b: _Block, form: Form) -> list[Tensor]:
    g = _one_hot(b)
    spare, outside, p, q, scale = _classes(b.x, g)
    of_class = {"tp": p * scale, "fn": q * scale}
    if "ce" in form.wanted:
        if b.careful:  # p may have lost its digits in underflow
            log = (q / p.clamp_min(_TINY)).log1p_()
            far = _finite(-torch.log_softmax(b.x, 1)).mul_(g).sum(1, keepdim=True)
            log = torch.where(p < _TINY, far, log)
        else:
            log = (q / p).log1p_()  # -log p
        of_class["ce"] = log.mul_(_of_class(b.gamma, g, of_class["fn"])[1]) if not _is_0(b.gamma) else log
    w = g if b.w is None else g * b.w
    scale = scale if b.w is None else scale.mul_(b.w)
    products = {name: (w, value) for name, value in of_class.items()} | {"fp": (outside, scale)}
    return [*(_dot(*products[name], spare) for name in form.wanted), w.sum(2)]


def _classes_gradient(b: _Block, form: Form, a: Slopes, out: Tensor) -> None:
    """The slope of the region sums to p is d = a_fp, and d - r in the class t of the voxel, r = a_fp - a_tp + a_fn. So

        dL/dz_k = p_k Σ_c (d_k - d_c) p_c + (p_k - [k = t]) (r_t p_t + a_ce q^γ (γ p_t (-log p_t) / q + 1))

    where p_t - 1 is -q: no digits are lost in a difference, whichever class holds all the probability.
    """
    g = _one_hot(b)
    e, outside, p, q, scale = _classes(b.x, g)
    p_class, q_class = p * scale, q * scale
    table = [a["ce"]] * ("ce" in form.wanted) + [a["fp"] - a["tp"] + a["fn"]] * _has_region(form)
    parts = torch.split(_mix(torch.cat(table, 2).mT, g), 1, 1)
    force = parts[0]
    if not _is_0(b.gamma):
        gamma, power = _of_class(b.gamma, g, q_class)
        log_by_q = (q / p.clamp_min_(_TINY)).log1p_().div_(q_class.clamp_min(_TINY))
        force.mul_(log_by_q.mul_(p_class).mul_(gamma).add_(1).mul_(power))
    if "ce" not in form.wanted:
        force.mul_(p_class)
    elif len(parts) == 2:
        force.addcmul_(parts[1], p_class)
    torch.mul(outside, force * scale, out=out).addcmul_(g, force.mul_(q_class), value=-1)
    if "fp" in form.wanted:
        out.addcmul_(_mix(a["fp"] - a["fp"].mT, e).mul_(e), scale.square_())


# --- sigmoid and labels of 0 or 1 ----------------------------------------------------------------------------------


def _sided(b: _Block, g: Tensor) -> tuple[Tensor, Tensor, Callable[[], Tensor]]:
    """p and q of the side that the voxel is on, and to be called once -log p."""
    against = torch.rsub(g, 1, alpha=2).mul_(b.x)  # the logit of q
    if b.careful:
        p, q = torch.sigmoid(-against), torch.sigmoid(against)
        return p, q, lambda: _soft(against)
    ratio = (against * _LOG2_E).exp2_()  # q / p
    p = (ratio + 1).reciprocal_()
    return p, ratio * p, ratio.log1p_


def _sided_sums(b: _Block, form: Form) -> list[Tensor]:
    g = _one_hot(b)
    p, q, log_p = _sided(b, g)
    entropy = log_p() if _has_entropy(form) else q
    if _is_focused(b):
        entropy.mul_(_of_side(b, g, q)[1])
    sums, spare = {}, torch.empty_like(p)
    for inside, outside, value in ("tp", "tn", p), ("ce", "rest", entropy), ("fn", "fp", q):
        if inside in form.wanted or outside in form.wanted:
            term = value if b.w is None else value.mul_(b.w)
            sums[inside] = _dot(term, g, spare)
            if outside in form.wanted:
                sums[outside] = term.sub_(spare).sum(2)  # exact
    return [*(sums[name] for name in form.wanted), (g if b.w is None else g * b.w).sum(2)]


def _sided_gradient(b: _Block, form: Form, a: Slopes, out: Tensor) -> None:
    g = _one_hot(b)
    p, q, log_p = _sided(b, g)
    if _has_entropy(form):
        fall = q  # of q^γ (-log p) with the logit: q^γ (γ p (-log p) + q)
        if _is_focused(b):
            entropy = log_p()
            gamma, power = _of_side(b, g, q)
            fall = entropy.mul_(p).mul_(gamma).add_(q).mul_(power)
        torch.mul(_by_side(g, -a["ce"], a["rest"]), fall, out=out)
    if _has_region(form):
        tilt = _by_side(g, a["tp"] - a["fn"], a["fp"] - a["tn"])
        if _has_entropy(form):
            out.addcmul_(tilt, p.mul_(q))
        else:
            torch.mul(tilt, p.mul_(q), out=out)
    if not b.careful and not isfinite(out.sum()):
        _sided_gradient(b._replace(careful=True), form, a, out)


def _pair(b: _Block) -> _Block | None:
    """Softmax over two channels as the sigmoid of the second's lead, if every voxel is of one of the two classes."""
    low, high = torch.aminmax(b.g)
    if not (low >= 0 and high <= 1):
        return None
    gamma = rest_gamma = b.gamma
    if isinstance(gamma, Tensor):
        rest_gamma, gamma = gamma[:, :1], gamma[:, 1:]
    elif isinstance(gamma, tuple):
        rest_gamma, gamma = gamma
    return b._replace(x=b.x[:, 1:] - b.x[:, :1], gamma=gamma, rest_gamma=rest_gamma)


def _pair_sums(b: _Block, form: Form) -> list[Tensor]:
    pair = _pair(b)
    if pair is None:
        return _classes_sums(b, form)
    names = dict.fromkeys(form.wanted) | dict.fromkeys(_OF_THE_REST[name] for name in form.wanted)
    *found, labelled = _sided_sums(pair, form._replace(wanted=tuple(names)))
    sums = dict(zip(names, found, strict=True))
    other = (1 - b.g if b.w is None else torch.rsub(b.g, 1).mul_(b.w)).sum(2)
    both = [*((sums[_OF_THE_REST[name]], sums[name]) for name in form.wanted), (other, labelled)]
    return [torch.cat(each, 1) for each in both]


def _pair_gradient(b: _Block, form: Form, a: Slopes, out: Tensor) -> None:
    pair = _pair(b)
    if pair is None:
        _classes_gradient(b, form, a, out)
        return
    of_pair = {name: a[name][:, 1:] + a[_OF_THE_REST[name]][:, :1] for name in a}
    _sided_gradient(pair, form, of_pair, out[:, 1:])
    torch.neg(out[:, 1:], out=out[:, :1])


# --- sigmoid, soft labels and entropies alone ---------------------------------------------------------------------


def _logs(x: Tensor) -> tuple[Tensor, Tensor]:
    """-log p and -log q of a sigmoid; finite where x is not, as times no voxel they must be 0."""
    most = torch.finfo(x.dtype).max ** 0.7
    below, above = x.clamp(-most, 0), x.clamp(0, most)
    common = _exp_(torch.sub(below, above)).log1p_()  # that of the likelier side
    return torch.sub(common, below, out=below), above.add_(common)


def _in_a_column(gamma: Exponent, x: Tensor) -> float | Tensor:
    return x.new_tensor(gamma).unsqueeze(-1) if isinstance(gamma, tuple) else gamma


def _entropies_sums(b: _Block, form: Form) -> list[Tensor]:
    log_p, log_q = _logs(b.x)
    if _is_focused(b):
        inside = (log_q * (_in_a_column(b.gamma, b.x) * -_LOG2_E)).exp2_().mul_(log_p)
        outside = log_p.mul_(_in_a_column(b.rest_gamma, b.x) * -_LOG2_E).exp2_().mul_(log_q)
    else:
        inside, outside = log_p, log_q.clone()
    if b.w is not None:
        inside, outside = inside.mul_(b.w), outside.mul_(b.w)
    rest = torch.sub(1, b.g, out=log_q)
    sums = {"ce": inside.mul_(b.g).sum(2), "rest": outside.mul_(rest).sum(2)}
    return [*(sums[name] for name in form.wanted), (b.g if b.w is None else b.g * b.w).sum(2)]


def _entropies_gradient(b: _Block, form: Form, a: Slopes, out: Tensor) -> None:
    if not _is_focused(b):
        _shared_gradient(b, form, a, out)
        return
    log_p, log_q = _logs(b.x)
    p, q = (log_p * -_LOG2_E).exp2_(), (log_q * -_LOG2_E).exp2_()
    gamma, rest_gamma = _in_a_column(b.gamma, b.x), _in_a_column(b.rest_gamma, b.x)
    torch.mul(log_p, p, out=out).mul_(gamma).add_(q)
    log_p.mul_(rest_gamma * -_LOG2_E).exp2_()
    q.mul_(log_q).mul_(rest_gamma).add_(p).mul_(log_p)  # how fast -log q rises
    out.mul_(log_q.mul_(gamma * -_LOG2_E).exp2_()).mul_(b.g).mul_(-a["ce"])  # how fast -log p does
    out.addcmul_(torch.sub(1, b.g, out=p).mul_(a["rest"]), q)


# --- the general formulas ------------------------------------------------------------------------------------------


class _Shared(NamedTuple):
    """The probability of each channel, its complement, and minus the logarithms of both where they were asked for."""

    p: Tensor
    q: Tensor
    log_p: Tensor | None = None
    log_q: Tensor | None = None


def _others(x: Tensor) -> Tensor:
    """For each channel the sum over all other channels."""
    k = x.shape[1]
    return _mix(x.new_ones((k, k)).fill_diagonal_(0).unsqueeze(0), x)


def _is_pair(b: _Block, form: Form) -> bool:
    return form.activation == "softmax" and b.x.shape[1] == 2 and "rest" not in form.wanted


def _shared(b: _Block, form: Form, logs: bool) -> _Shared:
    if form.activation == "none":
        p = b.x.clamp(reference.CLIP, 1 - reference.CLIP)
        return _Shared(p, 1 - p, *((p.log().neg_(), p.neg().log1p_().neg_()) if logs else ()))
    if form.activation == "sigmoid":
        return _Shared(*_odds(b.x, b.careful), *(_logs(b.x) if logs else ()))
    if _is_pair(b, form):  # each is the complement of the other
        lead = b.x[:, 1:] - b.x[:, :1]
        found = [_odds(lead, b.careful)[::-1]] + ([_logs(lead)[::-1]] if logs else [])
        rows = [torch.cat((first, second, first), 1) for first, second in found]
        return _Shared(*(part for row in rows for part in (row[:, :2], row[:, 1:])))
    x = b.x - b.x.amax(1, keepdim=True)
    e = (x * _LOG2_E).exp2_()
    others = _others(e)
    least = others.amin(1, keepdim=True)  # that of the largest e, which is 1
    scale = (e[:, :1] + others[:, :1]).reciprocal_()
    log_p = torch.sub(least.log1p_(), x, out=x) if logs else None
    if log_p is not None and b.careful:
        _finite(log_p)
    log_q = reference.voxels(b.x, form).log_q if logs and "rest" in form.wanted else None
    return _Shared(e.mul_(scale), others.mul_(scale), log_p, log_q)


def _odds(x: Tensor, careful: bool) -> tuple[Tensor, Tensor]:
    """p and q of a sigmoid."""
    if careful:
        return torch.sigmoid(x), torch.sigmoid(-x)
    ratio = (x * _LOG2_E).exp2_()  # p / q
    q = (ratio + 1).reciprocal_()
    return ratio.mul_(q), q


def _focused(log_p: Tensor | None, q: Tensor, log_q: Tensor | None, gamma: Exponent, form: Form) -> Tensor:
    """q^gamma (-log p)."""
    assert log_p is not None
    if isinstance(gamma, tuple):
        log_p = log_p.clone()
        for c, value in enumerate(gamma):
            if value:
                log_p[:, c].mul_(_raised(q[:, c], value, exact=form.activation == "none"))
        return log_p
    return log_p if _is_0(gamma) else _raised(q, gamma, log_q, form.activation == "none").mul(log_p)


def _times_fall(
    x: Tensor, p: Tensor, q: Tensor, log_p: Tensor | None, log_q: Tensor | None, gamma: Exponent, form: Form
) -> Tensor:
    """x times how fast q^gamma (-log p) falls with the logit of a sigmoid, q^gamma (gamma p (-log p) + q), in place.

    For softmax without `rest` by q of that.
    """
    by_q = form.activation == "softmax" and "rest" not in form.wanted
    if isinstance(gamma, tuple):
        for c, value in enumerate(gamma):
            s = slice(c, c + 1)
            _times_fall(x[:, s], p[:, s], q[:, s], None if log_p is None else log_p[:, s], None, value, form)
        return x
    if log_p is not None and not _is_0(gamma):
        if isinstance(gamma, float):
            x.mul_(torch.addcmul(q, p, log_p, value=gamma))
        else:
            x.mul_((p * log_p).mul_(gamma).add_(q))
        if by_q and isinstance(gamma, float) and gamma in (1.0, 2.0):
            return x if gamma == 1 else x.mul_(q)
        x.mul_(_raised(q, gamma, log_q, form.activation == "none"))
        return x.div_(q.clamp_min(_TINY)) if by_q else x
    return x if by_q else x.mul_(q)


def _shared_sums(b: _Block, form: Form) -> list[Tensor]:
    p, q, log_p, log_q = _shared(b, form, _has_entropy(form))
    inside = _one_hot(b)
    outside = 1 - inside
    if b.w is not None:
        inside, outside = inside * b.w, outside.mul_(b.w)
    r = b.x.clamp(0, 1) if form.activation == "none" and not form.clip else p
    s = q if r is p else 1 - r
    terms = {
        "tp": lambda: (inside, r),
        "fp": lambda: (outside, r),
        "fn": lambda: (inside, s),
        "tn": lambda: (outside, s),
        "ce": lambda: (inside, _focused(log_p, q, log_q, b.gamma, form)),
        "rest": lambda: (outside, _focused(log_q, p, log_p, b.rest_gamma, form)),
    }
    spare = torch.empty_like(p)
    return [*(_dot(*terms[name](), spare) for name in form.wanted), inside.sum(2)]


def _shared_gradient(b: _Block, form: Form, a: Slopes, out: Tensor) -> None:
    g = _one_hot(b)
    softmax, down, up = form.activation == "softmax", "ce" in form.wanted, "rest" in form.wanted
    p, q, log_p, log_q = _shared(b, form, _is_focused(b))
    if softmax and up and (q.is_cuda or q.min() < _TINY):
        upstream = torch.stack([a[name][..., 0] for name in form.wanted])
        gamma, rest_gamma = (
            e[..., 0] if isinstance(e, Tensor) else p.new_tensor(e).view(1, -1) for e in (b.gamma, b.rest_gamma)
        )
        out.copy_(reference.backward(upstream, b.x, g, None, gamma, rest_gamma, form._replace(ignore_index=None)))
        return
    if down:
        _times_fall(torch.mul(g, -a["ce"], out=out), p, q, log_p, log_q, b.gamma, form)
    else:
        out.zero_()
    if up:
        out.add_(_times_fall((1 - g).mul_(a["rest"]), q, p, log_q, log_p, b.rest_gamma, form))
        if softmax:
            out.div_(q.clamp_min(_TINY))  # to p dL/dp; the above is the gradient of a sigmoid
    if _has_region(form):
        tilt = _by_side(g, a["tp"] - a["fn"], a["fp"] - a["tn"])
        out.addcmul_(tilt if softmax else tilt.mul_(q), p)
    if _is_pair(b, form):
        torch.mul(out[:, 1:], q[:, 1:], out=out[:, 1:]).addcmul_(p[:, 1:], out[:, :1], value=-1)
        torch.neg(out[:, 1:], out=out[:, :1])
    elif softmax:
        others = _others(out)
        out.mul_(q).addcmul_(p, others, value=-1)
    elif form.activation == "none":
        out.div_(p).div_(q)
    if not b.careful and not isfinite(out.sum()):
        _shared_gradient(b._replace(careful=True), form, a, out)
