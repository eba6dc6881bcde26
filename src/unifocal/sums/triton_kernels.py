# mypy: ignore-errors
# ruff: noqa: RUF005
# Kernels are written in Triton's language, which has the grammar of Python but neither its types nor starred tuples.
"""The kernels of the Triton engine. This is the only file that needs the package triton; it is imported on first use.

A program owns a tile of voxels of one image, LANES groups of VEC neighbours, and walks through the channels, STEP at a
time: so a thread has all of a voxel, nothing is exchanged between threads before the sums are, and what is read a
second time is still in the cache. All offsets are 64-bit: a volume can exceed 2**31 numbers.

Where README.md sums "the other channels" this is done without scans. The first walk finds of each voxel m, the largest
logit, and `others`, the sum of e = exp(z - m) over all channels but one with z = m. Then

    q = others / (1 + others) on top (z = m), else (1 + others - e) / (1 + others)   no cancellation: there e <= others
    -log p = log1p(others) + (m - z)                                                 both >= 0

With hard labels, and no entropy of the other channels, what a channel's slope B has in common with that of the top
moves nothing, and the entropy has one slope h for all channels but the label's, so that

    dL/dz_k = p_k (B_k - T + h) - [k = label] h,   T = Σ p B       both relative to B_top; p - 1 is -q

Otherwise, with F the force f of README.md off the top and f q on top, which stays bounded as q -> 0,

    dL/dz_k = F_k - p_k Σ_rest F - e_k / others (Σ_top F - F_k [k on top])

With a single channel on top the bracket is exactly 0 for it.
"""

import os

import torch
import triton
import triton.language as tl
from triton.language.extra import libdevice

# Single instructions of a GPU, good to 2 units of the last place (of 1, for the logarithm), in place of functions that
# are good to the last: not in the interpreter, which knows functions only.
_FAST = tl.constexpr(os.environ.get("TRITON_INTERPRET") != "1" and torch.version.hip is None)
_CLIP = tl.constexpr(1e-7)
_UPPER = tl.constexpr(1 - 1e-7)
_LOG2E = tl.constexpr(1.4426950408889634)
_LN2 = tl.constexpr(0.6931471805599453)
_TINY = tl.constexpr(1e-37)  # keeps a quotient finite whose numerator vanishes with it
_BIG = tl.constexpr(8.5e37)  # stands for the entropy of a logit of -inf: times no voxel it must be 0
_LOW = tl.constexpr(-3.0e38)  # below every logit; finite, so that -inf minus it is -inf


# --- numbers ---------------------------------------------------------------------------------------------------------


@triton.jit
def _like(x, value):
    """A constant in the dtype of x: as an argument of `where` it would be rounded to float32."""
    return tl.zeros_like(x) + value


@triton.jit
def _exp(x):
    if x.dtype == tl.float64:
        return tl.exp(x)
    else:
        return tl.exp2(x * _LOG2E)


@triton.jit
def _exp_minus(x):
    """e to the power of -|x|."""
    if x.dtype == tl.float64:
        return tl.exp(-tl.abs(x))
    else:
        return tl.exp2(tl.abs(x) * -_LOG2E)


@triton.jit
def _quotient(x, y):
    if _FAST and y.dtype == tl.float32:
        return libdevice.fast_dividef(x, y)
    else:
        return x / y


@triton.jit
def _log2(x):
    if _FAST and x.dtype == tl.float32:
        return libdevice.fast_log2f(x)
    else:
        return tl.log2(x)


@triton.jit
def _log1p(u, y):
    """log(1 + u) to full relative precision, for u from -1/2 on, given y = 1 + u as rounded."""
    if _FAST and u.dtype == tl.float32:
        s = _quotient(u, 2.0 + u)
        t = s * s
        series = 1.0 + t * (1 / 3 + t * (1 / 5 + t * (1 / 7 + t * (1 / 9 + t * (1 / 11)))))
        return tl.where(u < 1.0, 2.0 * s * series, _log2(y) * _LN2)
    else:
        return tl.log(y) + (u - (y - 1.0)) / y


@triton.jit
def _power(base, exponent):
    return tl.where(exponent == 0.0, 1.0, tl.exp2(exponent * _log2(base)))


@triton.jit
def _bounded(entropy):
    return tl.where(entropy > _BIG, _BIG, entropy)


@triton.jit
def _fall(p, q, log_p, gamma, ACTIVATION: tl.constexpr):
    """Minus the slope of q**gamma (-log p): times q to the channel's logit, or to p where probabilities are given."""
    if ACTIVATION == "none":
        slope = gamma * log_p / q + 1.0 / p
    else:
        slope = gamma * p * log_p + q
    return _power(q, gamma) * slope


# --- voxels ----------------------------------------------------------------------------------------------------------


@triton.jit
def _place(blocks):
    """Which image and which of its tiles this program owns."""
    program = tl.program_id(0)
    return (program // blocks).to(tl.int64), (program % blocks).to(tl.int64)


@triton.jit
def _tile(block, LANES: tl.constexpr, VEC: tl.constexpr):
    """The numbers of the voxels of a tile."""
    return block * (LANES * VEC) + (tl.arange(0, LANES)[:, None] * VEC + tl.arange(0, VEC)[None, :])


@triton.jit
def _weigh(
    labels, weights, ignore, ok, y_k, K: tl.constexpr, DENSE: tl.constexpr, IGNORES: tl.constexpr, ACC: tl.constexpr
):
    """The weight of each voxel, 0 where it does not count, and its channel, -1 for none.

    labels and weights point at the voxels, labels at their first channel.
    """
    if weights is None:
        w = tl.where(ok, 1.0, 0.0).to(ACC)
    else:
        w = tl.load(weights, mask=ok, other=0).to(ACC)
    y = tl.where(ok, -1, -1)
    if not DENSE:
        index = tl.load(labels, mask=ok, other=-1 - K).to(tl.int64)
        if IGNORES:
            w = tl.where(index == ignore, 0.0, w)
        if K == 1:  # index 1 is the channel's class
            index -= 1
        y = tl.where((index >= 0) & (index < K) & ok, index, -1).to(tl.int32)
    elif IGNORES:
        for _ in range(K):
            g = tl.load(labels, mask=ok, other=0)
            if g.dtype.is_floating():
                marked = g.to(ACC) == ignore
            else:
                marked = g.to(tl.int64) == ignore
            w = tl.where(marked, 0.0, w)
            labels += y_k
    return w, y


@triton.jit
def _read(x, there, w, SOFTMAX: tl.constexpr, MASKED: tl.constexpr, ACC: tl.constexpr):
    """Logits of a channel, 0 at voxels that do not count: there even NaN must not matter."""
    z = tl.load(x, mask=there, other=float("-inf") if SOFTMAX else 0.0).to(ACC)
    if MASKED:
        z = tl.where(w > 0, z, 0.0)
    return z


@triton.jit
def _number(table, there, ACC: tl.constexpr):
    """A number of a channel, such as its exponent."""
    return tl.load(table, mask=there, other=0.0).to(ACC)


@triton.jit
def _of_label(table, y, step, ACC: tl.constexpr):
    """The number of each voxel's channel, 0 for none."""
    return tl.load(table + y * step, mask=y >= 0, other=0.0).to(ACC)


@triton.jit
def _survey(
    x, at, ok, w, y, ceiling, x_k,
    K: tl.constexpr, MASKED: tl.constexpr, BELOW: tl.constexpr, ACC: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """Of each voxel the largest logit m, the sum of exp(z - m) over all channels but that one, its label's logit.

    With BELOW only of the logits below the ceiling. What is no number makes the sum NaN.
    """
    m = _read(x + at, ok, w, True, MASKED, ACC)
    own = m
    if BELOW:
        m = tl.where(m < ceiling, m, float("-inf"))
    m = tl.where(m < _LOW, _like(m, _LOW), m)
    others = tl.zeros_like(w)
    for first in range(1, K, STEP):
        for i in tl.static_range(STEP):
            x += x_k
            z = _read(x + at, ok & (first + i < K), w, True, MASKED, ACC)
            own = tl.where(y == first + i, z, own)
            if BELOW:
                z = tl.where(z < ceiling, z, float("-inf"))
            e = _exp_minus(z - m)
            higher = z > m
            others = tl.where(higher, (others + 1.0) * e, others + e)
            m = tl.where(higher, z, m)
    return m, others + (m - m), own


@triton.jit
def _softmax(z, m, others, inverse, spread, log_others, REST: tl.constexpr):
    """p, 1 - p, -log p and -log(1 - p) of logits."""
    e = _exp(z - m)
    p = e * inverse
    q = tl.where(z == m, others, (1.0 + others) - e) * inverse
    log_p = _bounded(spread + (m - z))
    log_q = log_p
    if REST:  # beyond 1/2 there is only the top, whose complement can be too small for its own logarithm
        log_q = tl.where(p < 0.5, -_log1p(-p, 1.0 - p), _bounded(spread - log_others))
    return p, q, log_p, log_q


@triton.jit
def _sigmoid(z):
    u = _exp_minus(z)
    y = 1.0 + u
    large = _quotient(1.0, y)
    small = u * large
    spread = _log1p(u, y)
    positive = z >= 0
    log_p = _bounded(tl.where(positive, spread, spread - z))
    log_q = _bounded(tl.where(positive, spread + z, spread))
    return tl.where(positive, large, small), tl.where(positive, small, large), log_p, log_q


@triton.jit
def _given(x):
    p = tl.where(x < _CLIP, _like(x, _CLIP), tl.where(x > _UPPER, _like(x, _UPPER), x))
    q = 1.0 - p
    return p, q, -tl.log(p), tl.where(p < 0.5, -_log1p(-p, q), -tl.log(q))


@triton.jit
def _probabilities(z, m, others, inverse, spread, log_others, ACTIVATION: tl.constexpr, REST: tl.constexpr):
    if ACTIVATION == "softmax":
        return _softmax(z, m, others, inverse, spread, log_others, REST)
    elif ACTIVATION == "sigmoid":
        return _sigmoid(z)
    else:
        return _given(z)


@triton.jit
def _sides(labels, hit, w, there, DENSE: tl.constexpr, ACC: tl.constexpr):
    """w g and w (1 - g) of a channel."""
    if DENSE:
        g = tl.where(w > 0, tl.load(labels, mask=there, other=0).to(ACC), 0.0)
        return w * g, w * (1.0 - g)
    else:
        inside = tl.where(hit, w, 0.0)
        return inside, w - inside


@triton.jit
def _few(x, y, at, ok, w, x_k, K: tl.constexpr, MASKED: tl.constexpr, ACC: tl.constexpr):
    """Of few channels the logits, the largest of them, and each exp(z - m), all kept at hand; and of the label's
    channel p, 1 - p and -log p."""
    zs = ()
    for _i in tl.static_range(K):
        zs = zs + (_read(x + at, ok, w, False, MASKED, ACC),)
        x += x_k
    m = zs[0]
    for c in tl.static_range(1, K):
        m = tl.where(zs[c] > m, zs[c], m)
    m = tl.where(m < _LOW, _like(m, _LOW), m)
    es = ()
    own = _like(w, _LOW)
    own_e = tl.zeros_like(w)
    others = own_e
    for c in tl.static_range(K):
        e = _exp(zs[c] - m)
        es = es + (e,)
        own = tl.where(y == c, zs[c], own)
        own_e = tl.where(y == c, e, own_e)
        others += tl.where(y == c, 0.0, e)
    inverse = _quotient(1.0, own_e + others)
    above_1 = tl.where(own == m, others, others + (own_e - 1.0))
    log_p = _bounded(_log1p(above_1, 1.0 + above_1) + (m - own))
    return zs, m, es, inverse, own_e * inverse, others * inverse, log_p


# --- the sums --------------------------------------------------------------------------------------------------------


@triton.jit
def _summary(
    x, at, ok, w, y, gamma, x_k, g_k,
    K: tl.constexpr, MASKED: tl.constexpr, BY_LABEL: tl.constexpr, CE: tl.constexpr, REST: tl.constexpr,
    ACC: tl.constexpr, FEWER: tl.constexpr,
):  # fmt: skip
    """What the channels of a softmax must know of all of them, and what there is to add up of the label's alone."""
    m, others, own = _survey(x, at, ok, w, y, w, x_k, K, MASKED, False, ACC, FEWER)
    inverse = _quotient(1.0, 1.0 + others)
    spread = _log1p(others, 1.0 + others)
    log_others = spread
    own_p = spread
    own_q = spread
    entropy = spread
    if REST >= 0:
        second, tail, _ = _survey(x, at, ok, w, y, m, x_k, K, MASKED, True, ACC, FEWER)
        log_others = tl.where(others < 0.5, (second - m) + tl.log(1.0 + tail), tl.log(others))
    if BY_LABEL:
        own_p, own_q, entropy, _ = _softmax(own, m, others, inverse, spread, spread, False)
        if CE >= 0:
            entropy *= _power(own_q, _of_label(gamma, y, g_k, ACC))
    return m, others, inverse, spread, log_others, own_p, own_q, entropy


@triton.jit
def _sums(
    x, labels, gamma, rest_gamma, c, there, real, w, y, known,
    ACTIVATION: tl.constexpr, DENSE: tl.constexpr, MASKED: tl.constexpr, BY_LABEL: tl.constexpr, CLIP: tl.constexpr,
    REST: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """What a channel adds to each of tp, fp, fn, tn, ce, rest and labelled, (LANES,)."""
    m, others, inverse, spread, log_others, own_p, own_q, own_entropy = known
    z = _read(x, there, w, ACTIVATION == "softmax", MASKED, ACC)
    hit = y == c
    inside, outside = _sides(labels, hit, w, there, DENSE, ACC)
    p, q, log_p, log_q = _probabilities(z, m, others, inverse, spread, log_others, ACTIVATION, REST >= 0)
    inside_p = p
    inside_q = q
    if BY_LABEL:
        inside_p = own_p
        inside_q = own_q
        entropy = own_entropy
        rest_entropy = own_entropy
    else:
        focus = _number(gamma, real, ACC)
        rest_focus = _number(rest_gamma, real, ACC)
        if DENSE:
            entropy = _power(q, focus) * log_p
            rest_entropy = _power(p, rest_focus) * log_q
        else:  # a voxel is on one side only
            entropy = _power(tl.where(hit, q, p), tl.where(hit, focus, rest_focus)) * tl.where(hit, log_p, log_q)
            rest_entropy = entropy
    if ACTIVATION == "none" and not CLIP:
        p = tl.where(z < 0.0, 0.0, tl.where(z > 1.0, 1.0, z))
        q = 1.0 - p
        inside_p = p
        inside_q = q
    return (
        tl.sum(inside * inside_p, 1),
        tl.sum(outside * p, 1),
        tl.sum(inside * inside_q, 1),
        tl.sum(outside * q, 1),
        tl.sum(inside * entropy, 1),
        tl.sum(outside * rest_entropy, 1),
        tl.sum(inside, 1),
    )


@triton.jit
def _write(
    at, row, there, present, sums,
    K: tl.constexpr, S: tl.constexpr, TP: tl.constexpr, FP: tl.constexpr, FN: tl.constexpr, TN: tl.constexpr,
    CE: tl.constexpr, REST: tl.constexpr,
):  # fmt: skip
    """The sums of a channel, those that are wanted: in rows s K + c, `at` points to s = 0; is its class present?"""
    tp, fp, fn, tn, ce, rest, labelled = sums
    if FP >= 0:
        tl.store(at + FP * K * row, tl.sum(fp, 0), mask=there)
    if TN >= 0:
        tl.store(at + TN * K * row, tl.sum(tn, 0), mask=there)
    if REST >= 0:
        tl.store(at + REST * K * row, tl.sum(rest, 0), mask=there)
    if present:
        if TP >= 0:
            tl.store(at + TP * K * row, tl.sum(tp, 0), mask=there)
        if FN >= 0:
            tl.store(at + FN * K * row, tl.sum(fn, 0), mask=there)
        if CE >= 0:
            tl.store(at + CE * K * row, tl.sum(ce, 0), mask=there)
        tl.store(at + S * K * row, tl.sum(labelled, 0), mask=there)
    else:
        if TP >= 0:
            tl.store(at + TP * K * row, 0.0, mask=there)
        if FN >= 0:
            tl.store(at + FN * K * row, 0.0, mask=there)
        if CE >= 0:
            tl.store(at + CE * K * row, 0.0, mask=there)
        tl.store(at + S * K * row, 0.0, mask=there)


@triton.jit(do_not_specialize=["blocks", "steps", "ignore", "w_n", "w_v", "g_n", "g_k", "h_n", "h_k"])
def partial_sums(
    x, labels, weights, gamma, rest_gamma, partial,
    V, blocks, steps, ignore, x_n, x_k, x_v, y_n, y_k, y_v, w_n, w_v, g_n, g_k, h_n, h_k,
    K: tl.constexpr, S: tl.constexpr, ACTIVATION: tl.constexpr, DENSE: tl.constexpr, IGNORES: tl.constexpr,
    CLIP: tl.constexpr, TP: tl.constexpr, FP: tl.constexpr, FN: tl.constexpr, TN: tl.constexpr, CE: tl.constexpr,
    REST: tl.constexpr, STEP: tl.constexpr, CARRIED: tl.constexpr, LANES: tl.constexpr, VEC: tl.constexpr,
):  # fmt: skip
    """First half of the forward: one program per image and block of `steps` tiles, of one tile if not CARRIED.

    It writes one column of `partial` (N, (S + 1) K + 1, blocks): S sums and `labelled` per channel, and `voxels`.
    """
    ACC: tl.constexpr = gamma.dtype.element_ty
    SOFTMAX: tl.constexpr = ACTIVATION == "softmax"
    MASKED: tl.constexpr = IGNORES or weights is not None
    BY_LABEL: tl.constexpr = (SOFTMAX and not DENSE) and REST < 0  # the entropy is that of the label alone
    FEWER: tl.constexpr = 1 if K == 1 else STEP - 1 if STEP == K else STEP
    FEW: tl.constexpr = (CARRIED and BY_LABEL) and TN < 0
    n, block = _place(blocks)
    x += n * x_n
    labels += n * y_n
    if weights is not None:
        weights += n * w_n
    gamma += n * g_n
    rest_gamma += n * h_n
    row = blocks.to(tl.int64)
    column = partial + n * ((S + 1) * K + 1) * row + block
    nothing = tl.zeros([LANES], ACC)
    voxels = nothing
    carried = ()  # for each channel in turn what `_sums` returns
    if CARRIED:
        for _i in tl.static_range(7 * K):
            carried = carried + (nothing,)
    for step in range(steps):
        v = _tile(block * steps + step, LANES, VEC)
        ok = v < V
        at = v * x_v
        y_at = v * y_v
        w_at = weights
        if weights is not None:
            w_at = weights + v * w_v
        w, y = _weigh(labels + y_at, w_at, ignore, ok, y_k, K, DENSE, IGNORES, ACC)
        if MASKED:
            voxels += tl.sum(w, 1)
        known = (w, w, w, w, w, w, w, w)
        if FEW:
            _, _, es, inverse, own_p, own_q, entropy = _few(x, y, at, ok, w, x_k, K, MASKED, ACC)
            inverse *= w
            if CE >= 0:
                entropy *= _power(own_q, _of_label(gamma, y, g_k, ACC))
        elif SOFTMAX:
            known = _summary(x, at, ok, w, y, gamma, x_k, g_k, K, MASKED, BY_LABEL, CE, REST, ACC, FEWER)
        x_c = x
        y_c = labels
        g_c = gamma
        h_c = rest_gamma
        if CARRIED:
            added = ()
            for c in tl.static_range(K):
                if FEW:
                    inside = tl.where(y == c, w, 0.0)
                    sums = (
                        tl.sum(inside * own_p, 1),
                        tl.sum(tl.where(y == c, 0.0, es[c]) * inverse, 1),
                        tl.sum(inside * own_q, 1),
                        nothing,
                        tl.sum(inside * entropy, 1),
                        nothing,
                        tl.sum(inside, 1),
                    )
                else:
                    sums = _sums(
                        x_c + at, y_c + y_at, g_c, h_c, c, ok, True, w, y, known,
                        ACTIVATION, DENSE, MASKED, BY_LABEL, CLIP, REST, ACC,
                    )  # fmt: skip
                for i in tl.static_range(7):
                    added = added + (carried[7 * c + i] + sums[i],)
                x_c += x_k
                g_c += g_k
                h_c += h_k
                if DENSE:
                    y_c += y_k
            carried = added
        else:
            for first in range(0, K, STEP):
                for i in tl.static_range(STEP):
                    real = first + i < K
                    sums = _sums(
                        x_c + at, y_c + y_at, g_c, h_c, first + i, ok & real, real, w, y, known,
                        ACTIVATION, DENSE, MASKED, BY_LABEL, CLIP, REST, ACC,
                    )  # fmt: skip
                    present = True
                    if not DENSE:  # of many classes a tile has few
                        present = tl.max(tl.max((y == first + i).to(tl.int32), 1), 0) > 0
                    _write(column, row, real, present, sums, K, S, TP, FP, FN, TN, CE, REST)
                    column += row
                    x_c += x_k
                    g_c += g_k
                    h_c += h_k
                    if DENSE:
                        y_c += y_k
    last = partial + (n + 1) * ((S + 1) * K + 1) * row - row + block
    if MASKED:
        tl.store(last, tl.sum(voxels, 0))
    else:
        size = steps * (LANES * VEC)
        tl.store(last, tl.minimum(tl.maximum(V - block * size, 0), size).to(ACC))
    if CARRIED:
        for c in tl.static_range(K):
            sums = ()
            for i in tl.static_range(7):
                sums = sums + (carried[7 * c + i],)
            _write(column + c * row, row, True, True, sums, K, S, TP, FP, FN, TN, CE, REST)


@triton.jit(do_not_specialize=["blocks", "pieces"])
def fold(partial, folded, blocks, pieces, WIDTH: tl.constexpr):
    """Add up each row of `partial` (rows, blocks) in pieces of WIDTH, in float64."""
    program = tl.program_id(0).to(tl.int64)
    block = program % pieces * WIDTH + tl.arange(0, WIDTH)
    found = tl.load(partial + program // pieces * blocks + block, mask=block < blocks, other=0.0)
    tl.store(folded + program, tl.sum(found.to(tl.float64), 0))


@triton.jit(do_not_specialize=["N", "blocks"])
def add_up(partial, values, labelled, voxels, N, blocks, K: tl.constexpr, S: tl.constexpr, WIDTH: tl.constexpr):
    """Second half of the forward: one program per row of `partial` adds it up, always in the same order, in float64."""
    program = tl.program_id(0).to(tl.int64)
    n = program // ((S + 1) * K + 1)
    row = program % ((S + 1) * K + 1)
    total = tl.zeros([WIDTH], tl.float64)
    for first in range(0, blocks, WIDTH):
        block = first + tl.arange(0, WIDTH)
        total += tl.load(partial + program * blocks + block, mask=block < blocks, other=0.0).to(tl.float64)
    result = tl.sum(total, 0).to(values.dtype.element_ty)
    s = row // K
    c = row % K
    tl.store(values + (s * N + n) * K + c, result, mask=s < S)
    tl.store(labelled + n * K + c, result, mask=s == S)
    tl.store(voxels + n, result, mask=s > S)


# --- the gradient ----------------------------------------------------------------------------------------------------


@triton.jit
def _difference(upstream, plus, minus, there, ACC: tl.constexpr, PLUS: tl.constexpr, MINUS: tl.constexpr):
    """Of a channel, dL/d(one sum) - dL/d(another), as far as they are wanted."""
    if PLUS >= 0 and MINUS >= 0:
        return _number(upstream + plus, there, ACC) - _number(upstream + minus, there, ACC)
    elif PLUS >= 0:
        return _number(upstream + plus, there, ACC)
    elif MINUS >= 0:
        return -_number(upstream + minus, there, ACC)
    else:
        return tl.sum(tl.zeros([1], ACC), 0)


@triton.jit
def _difference_of_label(upstream, plus, minus, y, a_k, w, ACC: tl.constexpr, PLUS: tl.constexpr, MINUS: tl.constexpr):
    """The same of each voxel's channel, 0 for none."""
    if PLUS >= 0 and MINUS >= 0:
        return _of_label(upstream + plus, y, a_k, ACC) - _of_label(upstream + minus, y, a_k, ACC)
    elif PLUS >= 0:
        return _of_label(upstream + plus, y, a_k, ACC)
    elif MINUS >= 0:
        return -_of_label(upstream + minus, y, a_k, ACC)
    else:
        return tl.zeros_like(w)


@triton.jit
def _lean(
    x, y, at, ok, w, own_b, upstream, x_k, fp, tn, a_k,
    K: tl.constexpr, MASKED: tl.constexpr, FP: tl.constexpr, TN: tl.constexpr, ACC: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """`_survey` and, with B the slope of each channel, that of the top and the sum of e B over all others."""
    m = _read(x + at, ok, w, True, MASKED, ACC)
    own = m
    m = tl.where(m < _LOW, _like(m, _LOW), m)
    top_b = tl.where(y == 0, own_b, _difference(upstream, fp, tn, True, ACC, FP, TN))
    others = tl.zeros_like(w)
    leaning = others
    for first in range(1, K, STEP):
        for i in tl.static_range(STEP):
            x += x_k
            upstream += a_k
            z = _read(x + at, ok & (first + i < K), w, True, MASKED, ACC)
            hit = y == first + i
            b = tl.where(hit, own_b, _difference(upstream, fp, tn, first + i < K, ACC, FP, TN))
            own = tl.where(hit, z, own)
            e = _exp_minus(z - m)
            higher = z > m
            others = tl.where(higher, (others + 1.0) * e, others + e)
            leaning = tl.where(higher, (leaning + top_b) * e, leaning + b * e)
            top_b = tl.where(higher, b, top_b)
            m = tl.where(higher, z, m)
    return m, others + (m - m), own, top_b, leaning


@triton.jit
def _force(
    z, m, p, q, log_p, log_q, hit, inside, outside, w, within, beyond, down, up, focus, rest_focus,
    ACTIVATION: tl.constexpr, DENSE: tl.constexpr, CE: tl.constexpr, REST: tl.constexpr,
):  # fmt: skip
    """The gradient to a logit on its own, or to a probability; of a softmax F, where others have their part in it."""
    tilt = inside * within + outside * beyond
    slope = tl.zeros_like(p)
    if DENSE:
        if CE >= 0:
            slope -= inside * down * _fall(p, q, log_p, focus, ACTIVATION)
        if REST >= 0:
            slope += outside * up * _fall(q, p, log_q, rest_focus, ACTIVATION)
    elif CE >= 0 or REST >= 0:  # a voxel is on one side only
        fall = _fall(
            tl.where(hit, p, q), tl.where(hit, q, p), tl.where(hit, log_p, log_q), tl.where(hit, focus, rest_focus),
            ACTIVATION,
        )  # fmt: skip
        slope = w * tl.where(hit, -down, up) * fall
    if ACTIVATION == "softmax":
        top = z == m
        return tilt * p * tl.where(top, q, 1.0) + slope * tl.where(top, 1.0, _quotient(1.0, q))
    elif ACTIVATION == "sigmoid":
        return tilt * p * q + slope
    else:
        return tilt + slope


@triton.jit(do_not_specialize=["blocks", "ignore", "w_n", "w_v", "g_n", "g_k", "h_n", "h_k", "a_s", "a_n", "a_k"])
def gradient(
    x, labels, weights, gamma, rest_gamma, upstream, out,
    V, blocks, ignore, x_n, x_k, x_v, y_n, y_k, y_v, w_n, w_v, g_n, g_k, h_n, h_k, a_s, a_n, a_k, o_n, o_k, o_v,
    K: tl.constexpr, ACTIVATION: tl.constexpr, DENSE: tl.constexpr, IGNORES: tl.constexpr,
    TP: tl.constexpr, FP: tl.constexpr, FN: tl.constexpr, TN: tl.constexpr, CE: tl.constexpr, REST: tl.constexpr,
    LARGEST: tl.constexpr, STEP: tl.constexpr, CARRIED: tl.constexpr, LANES: tl.constexpr, VEC: tl.constexpr,
):  # fmt: skip
    """The backward: one program per image and tile."""
    ACC: tl.constexpr = gamma.dtype.element_ty
    SOFTMAX: tl.constexpr = ACTIVATION == "softmax"
    MASKED: tl.constexpr = IGNORES or weights is not None
    FEWER: tl.constexpr = 1 if K == 1 else STEP - 1 if STEP == K else STEP
    BY_LABEL: tl.constexpr = (SOFTMAX and not DENSE) and REST < 0
    n, block = _place(blocks)
    v = _tile(block, LANES, VEC)
    ok = v < V
    labels += n * y_n
    if weights is not None:
        weights += n * w_n + v * w_v
    y_at = v * y_v
    w, y = _weigh(labels + y_at, weights, ignore, ok, y_k, K, DENSE, IGNORES, ACC)
    x += n * x_n
    at = v * x_v
    out += n * o_n
    out_at = v * o_v
    gamma += n * g_n
    rest_gamma += n * h_n
    upstream += n * a_n
    a_s = a_s.to(tl.int64)

    if BY_LABEL:
        own_b = _difference_of_label(upstream, TP * a_s, FN * a_s, y, a_k, w, ACC, TP, FN)
        if CARRIED:
            zs, m, es, inverse, own_p, own_q, own_log_p = _few(x, y, at, ok, w, x_k, K, MASKED, ACC)
            bs = ()
            top_b = tl.zeros_like(w)
            for c in tl.static_range(K):
                b = _difference(upstream + c * a_k, FP * a_s, TN * a_s, True, ACC, FP, TN)
                b = tl.where(y == c, own_b, b)
                bs = bs + (b,)
                top_b = tl.where(zs[c] == m, b, top_b)
            mean_b = tl.zeros_like(w)
            for c in tl.static_range(K):
                mean_b += es[c] * (bs[c] - top_b)
            mean_b *= inverse
        else:
            m, others, own, top_b, leaning = _lean(
                x, y, at, ok, w, own_b, upstream, x_k, FP * a_s, TN * a_s, a_k, K, MASKED, FP, TN, ACC, FEWER
            )
            inverse = _quotient(1.0, 1.0 + others)
            mean_b = (leaning - others * top_b) * inverse
            spread = _log1p(others, 1.0 + others)
            own_p, own_q, own_log_p, _ = _softmax(own, m, others, inverse, spread, spread, False)
        common = -mean_b
        own_grad = own_p * ((own_b - top_b) - mean_b)
        if CE >= 0:
            focus = _of_label(gamma, y, g_k, ACC)
            h = _of_label(upstream + CE * a_s, y, a_k, ACC) * _power(own_q, focus)
            h *= focus * own_p * _quotient(own_log_p, tl.maximum(own_q, _TINY)) + 1.0
            common += h
            own_grad -= own_q * h
        own_grad *= w
        inverse *= w
        if CARRIED:
            for c in tl.static_range(K):
                grad = tl.where(y == c, own_grad, es[c] * inverse * ((bs[c] - top_b) + common))
                tl.store(out + out_at, grad.to(out.dtype.element_ty), mask=ok)
                out += o_k
        else:
            for first in range(0, K, STEP):
                for i in tl.static_range(STEP):
                    real = first + i < K
                    z = _read(x + at, ok & real, w, True, MASKED, ACC)
                    b = _difference(upstream, FP * a_s, TN * a_s, real, ACC, FP, TN)
                    grad = _exp(z - m) * inverse * ((b - top_b) + common)
                    grad = tl.where(y == first + i, own_grad, grad)
                    tl.store(out + out_at, grad.to(out.dtype.element_ty), mask=ok & real)
                    x += x_k
                    upstream += a_k
                    out += o_k
    else:
        m = w
        others = w
        inverse = w
        spread = w
        log_others = w
        second = w
        tail = w
        if SOFTMAX:
            m, others, _ = _survey(x, at, ok, w, y, w, x_k, K, MASKED, False, ACC, FEWER)
            inverse = _quotient(1.0, 1.0 + others)
            spread = _log1p(others, 1.0 + others)
            if REST >= 0:
                second, tail, _ = _survey(x, at, ok, w, y, m, x_k, K, MASKED, True, ACC, FEWER)
                tail += 1.0
                log_others = tl.where(others < 0.5, (second - m) + tl.log(tail), tl.log(others))
        on_top = tl.zeros_like(w)
        rest = tl.zeros_like(w)  # Σ F off the top
        for turn in tl.static_range(2 if SOFTMAX else 1):
            x_c = x
            y_c = labels
            a_c = upstream
            g_c = gamma
            h_c = rest_gamma
            o_c = out
            for first in range(0, K, STEP):
                for i in tl.static_range(STEP):
                    real = first + i < K
                    z = _read(x_c + at, ok & real, w, SOFTMAX, MASKED, ACC)
                    hit = y == first + i
                    inside, outside = _sides(y_c + y_at, hit, w, ok & real, DENSE, ACC)
                    p, q, log_p, log_q = _probabilities(
                        z, m, others, inverse, spread, log_others, ACTIVATION, REST >= 0
                    )
                    grad = _force(
                        z, m, p, q, log_p, log_q, hit, inside, outside, w,
                        _difference(a_c, TP * a_s, FN * a_s, real, ACC, TP, FN),
                        _difference(a_c, FP * a_s, TN * a_s, real, ACC, FP, TN),
                        _difference(a_c, CE * a_s, 0, real, ACC, CE, -1),
                        _difference(a_c, REST * a_s, 0, real, ACC, REST, -1),
                        _number(g_c, real, ACC), _number(h_c, real, ACC),
                        ACTIVATION, DENSE, CE, REST,
                    )  # fmt: skip
                    if SOFTMAX and turn == 0:
                        on_top += tl.where(z == m, grad, 0.0)
                        rest += tl.where(z == m, 0.0, grad)
                    else:
                        if SOFTMAX:
                            share = _quotient(_exp(z - m), tl.maximum(others, _TINY))
                            if REST >= 0:  # its slope on the others is 1 however small they are
                                off_top = tl.where(z == m, float("-inf"), z)
                                share = tl.where(others < 0.5, _quotient(_exp(off_top - second), tail), share)
                            grad = grad - p * rest - share * (on_top - tl.where(z == m, grad, 0.0))
                        elif ACTIVATION == "none":
                            # 1/p may be beyond float16; inf would become NaN in the activation behind it, whose
                            # slope is 0 there
                            grad = tl.where(grad > LARGEST, LARGEST, tl.where(grad < -LARGEST, -LARGEST, grad))
                        tl.store(o_c + out_at, grad.to(out.dtype.element_ty), mask=ok & real)
                    x_c += x_k
                    a_c += a_k
                    g_c += g_k
                    h_c += h_k
                    o_c += o_k
                    if DENSE:
                        y_c += y_k


# --- masks ------------------------------------------------------------------------------------------------------------


@triton.jit
def _masks_at(
    labels, weights, ignore, ok, y_k, channel, first,
    K: tl.constexpr, DENSE: tl.constexpr, IGNORES: tl.constexpr, ACC: tl.constexpr, KP: tl.constexpr,
):  # fmt: skip
    """The weights of the voxels that are pointed at, and what masks they are in, of KP channels from the first.

    Soft masks are a tile of numbers, hard ones one integer per voxel whose bits are the channels.
    """
    w, y = _weigh(labels, weights, ignore, ok, y_k, K, DENSE, IGNORES, ACC)
    if DENSE:
        m = tl.load(labels + channel.to(tl.int64) * y_k, mask=(channel < K) & ok, other=0).to(ACC)
        if K > 1:
            m = tl.where(channel == 0, 1.0 - m, m)
        m = tl.where(w > 0, m, 0.0)
    else:
        bit = y - first
        m = tl.where((bit >= 0) & (bit < KP), 1 << (bit & 31), 0)
        if K > 1:
            m = tl.where(first > 0, m, tl.where(y == 0, 0, m | 1))
        m = tl.where(w > 0, m, 0)
    return w, m


@triton.jit
def _change(
    labels, weights, squares, i, length, y_i, w_i, ignore, ok, y_k, channel, first,
    AXIS: tl.constexpr, K: tl.constexpr, DENSE: tl.constexpr, IGNORES: tl.constexpr, ACC: tl.constexpr,
    KP: tl.constexpr,
):  # fmt: skip
    """How masks differ between the two neighbours along an axis, and the square of what a difference of 1 stands for.

    Beyond the border the voxel itself, number i along the axis, is the neighbour.
    """
    back = (i > 0).to(tl.int64)
    ahead = (i < length - 1).to(tl.int64)
    w_before = weights
    w_behind = weights
    if weights is not None:
        w_before = weights - back * w_i
        w_behind = weights + ahead * w_i
    _, before = _masks_at(labels - back * y_i, w_before, ignore, ok, y_k, channel, first, K, DENSE, IGNORES, ACC, KP)
    _, behind = _masks_at(labels + ahead * y_i, w_behind, ignore, ok, y_k, channel, first, K, DENSE, IGNORES, ACC, KP)
    square = tl.load(squares + AXIS)
    square = tl.where(back + ahead == 2, square * 0.25, square)
    if DENSE:
        return behind - before, square
    else:
        return behind ^ before, square


@triton.jit
def _where(bits, channel, first, value):
    """The value of a voxel in those channels whose bit it has, and 0 in others."""
    return tl.where(((bits >> (channel - first)) & 1) != 0, value, 0.0)


@triton.jit
def _steepness(change, square, channel, first, DENSE: tl.constexpr):
    """What an axis adds to |∇ m|², for each channel of the tile."""
    if DENSE:
        return change * change * square
    else:
        return _where(change, channel, first, square)


@triton.jit(do_not_specialize=["A", "B", "blocks", "steps", "ignore", "w_n", "w_a", "w_b", "w_c"])
def partial_masks(
    labels, weights, squares, partial,
    A, B, C, blocks, steps, ignore, y_n, y_k, y_a, y_b, y_c, w_n, w_a, w_b, w_c,
    AXES: tl.constexpr, K: tl.constexpr, DENSE: tl.constexpr, IGNORES: tl.constexpr,
    KP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """First half of `masks`: one program per image, KP of its channels, and block of `steps` tiles.

    A tile is ROWS by COLUMNS voxels of a plane of the volume (A, B, C), and KP channels of each. The program writes one
    column of `partial` (N, 2 K + 1, blocks): the volume of each channel, the surface of each, and `voxels`.
    """
    ACC: tl.constexpr = squares.dtype.element_ty
    image, block = _place(blocks)
    n = image // tl.cdiv(K, KP)
    first = (image % tl.cdiv(K, KP)).to(tl.int32) * KP
    channel = first + tl.arange(0, KP)[:, None, None]
    across = tl.arange(0, ROWS)[None, :, None]
    along = tl.arange(0, COLUMNS)[None, None, :]
    labels += n * y_n
    if weights is not None:
        weights += n * w_n
    rows = tl.cdiv(B, ROWS)
    columns = tl.cdiv(C, COLUMNS)
    volume = tl.zeros([KP, ROWS, COLUMNS], ACC)
    surface = tl.zeros([KP, ROWS, COLUMNS], ACC)
    voxels = tl.zeros([1, ROWS, COLUMNS], ACC)
    for step in range(steps):
        tile = block.to(tl.int32) * steps + step
        row = tile // columns % rows * ROWS
        column = tile % columns * COLUMNS
        a = tile // columns // rows
        b = row + across
        c = column + along
        ok = (a < A) & (across < B - row) & (along < C - column)
        at = labels + (a.to(tl.int64) * y_a + b.to(tl.int64) * y_b + c.to(tl.int64) * y_c)
        w_at = weights
        if weights is not None:
            w_at = weights + (a.to(tl.int64) * w_a + b.to(tl.int64) * w_b + c.to(tl.int64) * w_c)
        w, m = _masks_at(at, w_at, ignore, ok, y_k, channel, first, K, DENSE, IGNORES, ACC, KP)
        change_c, square_c = _change(
            at, w_at, squares, c, C, y_c, w_c, ignore, ok, y_k, channel, first, 0, K, DENSE, IGNORES, ACC, KP
        )
        change_b = change_c
        change_a = change_c
        if AXES > 1:
            change_b, square_b = _change(
                at, w_at, squares, b, B, y_b, w_b, ignore, ok, y_k, channel, first, 1, K, DENSE, IGNORES, ACC, KP
            )
        if AXES > 2:
            change_a, square_a = _change(
                at, w_at, squares, a, A, y_a, w_a, ignore, ok, y_k, channel, first, 2, K, DENSE, IGNORES, ACC, KP
            )
        if DENSE:
            volume += w * m
        else:
            volume += _where(m, channel, first, w)
        voxels += w
        somewhere = True
        if not DENSE:  # most tiles lie within one class, where no mask has a surface
            somewhere = tl.max(((change_a | change_b | change_c) != 0).to(tl.int32)) > 0
        if somewhere:
            steepness = _steepness(change_c, square_c, channel, first, DENSE)
            if AXES > 1:
                steepness += _steepness(change_b, square_b, channel, first, DENSE)
            if AXES > 2:
                steepness += _steepness(change_a, square_a, channel, first, DENSE)
            surface += w * tl.sqrt(steepness)
    c = first + tl.arange(0, KP)
    at = partial + (n * (2 * K + 1) + c) * blocks + block
    tl.store(at, tl.sum(tl.sum(volume, 2), 1), mask=c < K)
    tl.store(at + K * blocks.to(tl.int64), tl.sum(tl.sum(surface, 2), 1), mask=c < K)
    one = tl.arange(0, 1)
    at = partial + (n * (2 * K + 1) + 2 * K + one) * blocks + block
    tl.store(at, tl.sum(tl.sum(voxels, 2), 1), mask=first + one == 0)
