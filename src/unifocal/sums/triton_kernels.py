# mypy: ignore-errors
# Kernels are written in Triton's language, which has the grammar of Python but not its types.
"""The kernels of the Triton engine. This is the only file that needs the package triton; it is imported on first use.

A program owns a run of voxels of one image and holds their channels as a tile (KP, LANES, VEC): KP channels, the next
power of 2 above K, times LANES * VEC voxels. More channels than fit (MANY) are walked through KP at a time, once for
each thing that a channel must know of all the others. All offsets are 64-bit: a volume can exceed 2**31 numbers.

Where README.md sums "the other channels" this is done without scans. With m the largest logit of a voxel and
e = exp(z - m), the channels with e = 1 are on `top`, of which there is one unless logits are equal, and `others` is the
sum of all e but one of these. Then

    q = others / (1 + others) on top, else (1 + others - e) / (1 + others)        no cancellation: there e <= others
    -log p = log1p(others) + (m - z)                                              both >= 0
    dL/dz_k = F_k - p_k Σ_rest F - share_k (Σ_top F - F_k [k on top])

where F is the force f of README.md off the top and f q on top, so that it stays bounded as q -> 0, and share_k =
e_k / others is the part of channel k in q. With a single channel on top the bracket is exactly 0 for it.
"""

import triton
import triton.language as tl

_CLIP = tl.constexpr(1e-7)
_UPPER = tl.constexpr(1 - 1e-7)
_TINY = tl.constexpr(1e-37)  # keeps a quotient finite whose numerator vanishes with it
_BIG = tl.constexpr(8.5e37)  # stands for the entropy of a logit of -inf: times no voxel it must be 0
_LOW = tl.constexpr(-3.0e38)  # below every logit; finite, so that -inf minus it is -inf


@triton.jit
def _like(x, value):
    """A constant in the dtype of x: as an argument of `where` it would be rounded to float32."""
    return tl.zeros_like(x) + value


@triton.jit
def _log1p(u, y, inverse):
    """log(1 + u) to full relative precision, given y = 1 + u as rounded and its inverse."""
    return tl.log(y) + (u - (y - 1.0)) * inverse


@triton.jit
def _power(base, exponent):
    return tl.where(exponent == 0.0, 1.0, tl.exp2(exponent * tl.log2(base)))


@triton.jit
def _pick(hit, tile):
    """Per voxel the value at its class."""
    return tl.sum(tl.where(hit, tile, 0.0), 0, keep_dims=True)


@triton.jit
def _place(blocks):
    """Which image and which of its blocks this program owns."""
    program = tl.program_id(0)
    return (program // blocks).to(tl.int64), (program % blocks).to(tl.int64)


@triton.jit
def _lanes(LANES: tl.constexpr, VEC: tl.constexpr):
    return (tl.arange(0, LANES)[None, :, None] * VEC + tl.arange(0, VEC)[None, None, :]).to(tl.int64)


@triton.jit
def _row(table, step, c, K: tl.constexpr, ACC: tl.constexpr):
    """Numbers per channel, such as exponents, as a column of the tile."""
    return tl.load(table + c.to(tl.int64) * step, mask=c < K, other=0.0).to(ACC)


@triton.jit
def _weigh(
    labels, weights, ignore, v, ok, y_k, y_v, w_v,
    K: tl.constexpr, DENSE: tl.constexpr, IGNORES: tl.constexpr, ACC: tl.constexpr, KP: tl.constexpr,
):  # fmt: skip
    """The weight of each voxel, 0 where it does not count, and its channel, -1 for none."""
    if weights is None:
        w = tl.where(ok, 1.0, 0.0).to(ACC)
    else:
        w = tl.load(weights + v * w_v, mask=ok, other=0).to(ACC)
    if DENSE:
        y = tl.where(ok, 0, 0)
        if IGNORES:
            for first in range(0, K, KP):
                c = first + tl.arange(0, KP)[:, None, None]
                there = (c < K) & ok
                g = tl.load(labels + c.to(tl.int64) * y_k + v * y_v, mask=there, other=0)
                if g.dtype.is_floating():
                    marked = g.to(ACC) == ignore
                else:
                    marked = g.to(tl.int64) == ignore
                found = tl.max((marked & there).to(tl.int32), 0, keep_dims=True)
                w = tl.where(found > 0, 0.0, w)
    else:
        index = tl.load(labels + v * y_v, mask=ok, other=0).to(tl.int64)
        if IGNORES:
            w = tl.where(index == ignore, 0.0, w)
        if K == 1:  # index 1 is the channel's class
            index -= 1
        y = tl.where((index >= 0) & (index < K), index, -1).to(tl.int32)
    return w, y


@triton.jit
def _sides(labels, y, w, c, v, ok, y_k, y_v, K: tl.constexpr, DENSE: tl.constexpr, ACC: tl.constexpr):
    """Is the channel that of the voxel (hard labels only), w g and w (1 - g)."""
    hit = y == c
    if DENSE:
        g = tl.load(labels + c.to(tl.int64) * y_k + v * y_v, mask=(c < K) & ok, other=0).to(ACC)
        g = tl.where(w > 0, g, 0.0)
        inside = w * g
        outside = w * (1.0 - g)
    else:
        inside = tl.where(hit, w, 0.0)
        outside = tl.where(hit, 0.0, w)
    return hit, inside, outside


@triton.jit
def _read(x, w, c, v, ok, x_k, x_v, K: tl.constexpr, SOFTMAX: tl.constexpr, MASKED: tl.constexpr, ACC: tl.constexpr):
    """Logits, 0 at voxels that do not count: there even NaN must not matter."""
    z = tl.load(x + c.to(tl.int64) * x_k + v * x_v, mask=(c < K) & ok, other=0.0).to(ACC)
    if MASKED:
        z = tl.where(w > 0, z, 0.0)
    if SOFTMAX:
        z = tl.where(c < K, z, float("-inf"))
    return z


@triton.jit
def _peak(z):
    """Of a tile of logits: the largest of each voxel, and the sum of all e but one on top. NaN stays NaN."""
    m = tl.maximum(tl.max(z, 0, keep_dims=True), _LOW)
    e = tl.exp(z - m)
    top = e == 1.0
    count = tl.sum(tl.where(top, 1.0, 0.0).to(e.dtype), 0, keep_dims=True)
    return m, tl.sum(tl.where(top, 0.0, e), 0, keep_dims=True) + (count - 1.0)


@triton.jit
def _runner_up(z, m):
    """The largest logit off the top, and the sum of exp(z - it) off the top: `others` where that underflows."""
    z = tl.where(tl.exp(z - m) == 1.0, float("-inf"), z)
    second = tl.maximum(tl.max(z, 0, keep_dims=True), _LOW)
    return second, tl.sum(tl.exp(z - second), 0, keep_dims=True)


@triton.jit
def _survey(
    x, w, v, ok, x_k, x_v,
    K: tl.constexpr, REST: tl.constexpr, MASKED: tl.constexpr, ACC: tl.constexpr, KP: tl.constexpr,
):  # fmt: skip
    """`_peak` and, if REST, `_runner_up` over more channels than a tile holds."""
    m = _like(w, _LOW)
    others = _like(w, -1.0)  # of no channel: not even one is on top
    for first in range(0, K, KP):
        c = first + tl.arange(0, KP)[:, None, None]
        higher, more = _peak(_read(x, w, c, v, ok, x_k, x_v, K, True, MASKED, ACC))
        new = tl.maximum(m, higher)
        others = tl.where(
            higher > m, more + (1.0 + others) * tl.exp(m - new), others + (1.0 + more) * tl.exp(higher - new)
        )
        m = new
    second = _like(w, _LOW)
    tail = _like(w, 0.0)
    if REST:
        for first in range(0, K, KP):
            c = first + tl.arange(0, KP)[:, None, None]
            higher, more = _runner_up(_read(x, w, c, v, ok, x_k, x_v, K, True, MASKED, ACC), m)
            new = tl.maximum(second, higher)
            tail = tail * tl.exp(second - new) + more * tl.exp(higher - new)
            second = new
    return m, others, second, tail


@triton.jit
def _softmax(z, m, others, second, tail, REST: tl.constexpr):
    """p, 1 - p, -log p and -log(1 - p) of logits."""
    s = 1.0 + others
    inverse = 1.0 / s
    spread = _log1p(others, s, inverse)
    d = z - m
    e = tl.exp(d)
    p = e * inverse
    q = tl.where(e == 1.0, others, s - e) * inverse
    log_p = spread - d
    log_p = tl.where(log_p > _BIG, _BIG, log_p)
    log_q = log_p
    if REST:
        # beyond 1/2 there is only the top, whose complement can be too small for its own logarithm
        log_others = tl.where(others < 0.5, (second - m) + tl.log(tail), tl.log(others))
        rough = spread - log_others
        rough = tl.where(rough > _BIG, _BIG, rough)
        log_q = tl.where(p < 0.5, -_log1p(-p, 1.0 - p, 1.0 + p), rough)
    return p, q, log_p, log_q


@triton.jit
def _shares(z, m, others, second, tail, REST: tl.constexpr):
    """The part of each channel in the complement of the top: e / others."""
    e = tl.exp(z - m)
    share = e * (1.0 / tl.maximum(others, _TINY))
    if REST:  # its slope on the others is 1 however small they are
        off_top = tl.where(e == 1.0, float("-inf"), z)
        fine = tl.exp(off_top - second) * (1.0 / tl.maximum(tail, 1.0))
        share = tl.where(others < 0.5, fine, share)
    return share


@triton.jit
def _sigmoid(z):
    u = tl.exp(-tl.abs(z))
    y = 1.0 + u
    large = 1.0 / y
    small = u * large
    spread = _log1p(u, y, large)
    positive = z >= 0
    log_p = tl.where(positive, spread, spread - z)
    log_q = tl.where(positive, spread + z, spread)
    log_p = tl.where(log_p > _BIG, _BIG, log_p)
    log_q = tl.where(log_q > _BIG, _BIG, log_q)
    return tl.where(positive, large, small), tl.where(positive, small, large), log_p, log_q


@triton.jit
def _given(x):
    p = tl.where(x < _CLIP, _like(x, _CLIP), tl.where(x > _UPPER, _like(x, _UPPER), x))
    q = 1.0 - p
    return p, q, -tl.log(p), -_log1p(-p, q, 1.0 + p)


@triton.jit
def _probabilities(z, m, others, second, tail, ACTIVATION: tl.constexpr, REST: tl.constexpr):
    if ACTIVATION == "softmax":
        return _softmax(z, m, others, second, tail, REST)
    elif ACTIVATION == "sigmoid":
        return _sigmoid(z)
    else:
        return _given(z)


@triton.jit
def _sum_tile(
    z, hit, inside, outside, m, others, second, tail, gamma, rest_gamma, g_k, h_k, c,
    K: tl.constexpr, ACTIVATION: tl.constexpr, DENSE: tl.constexpr, CLIP: tl.constexpr,
    TP: tl.constexpr, FP: tl.constexpr, FN: tl.constexpr, TN: tl.constexpr, CE: tl.constexpr, REST: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    """What a tile adds to each sum and to `labelled`, (KP, LANES)."""
    p, q, log_p, log_q = _probabilities(z, m, others, second, tail, ACTIVATION, REST >= 0)
    labelled = tl.sum(inside, 2)
    ce = tl.zeros_like(labelled)
    rest = tl.zeros_like(labelled)
    if CE >= 0:
        focus = _row(gamma, g_k, c, K, ACC)
        if DENSE:
            ce = tl.sum(inside * (_power(q, focus) * log_p), 2)
        else:  # one power per voxel rather than per channel
            ce = tl.sum(inside * (_power(_pick(hit, q), _pick(hit, focus)) * _pick(hit, log_p)), 2)
    if REST >= 0:
        rest = tl.sum(outside * (_power(p, _row(rest_gamma, h_k, c, K, ACC)) * log_q), 2)
    if ACTIVATION == "none" and not CLIP:
        p = tl.where(z < 0.0, 0.0, tl.where(z > 1.0, 1.0, z))
        q = 1.0 - p
    tp = tl.zeros_like(labelled)
    fp = tl.zeros_like(labelled)
    fn = tl.zeros_like(labelled)
    tn = tl.zeros_like(labelled)
    if TP >= 0:
        tp = tl.sum(inside * p, 2)
    if FP >= 0:
        fp = tl.sum(outside * p, 2)
    if FN >= 0:
        fn = tl.sum(inside * q, 2)
    if TN >= 0:
        tn = tl.sum(outside * q, 2)
    return tp, fp, fn, tn, ce, rest, labelled


@triton.jit
def _put(at, tile, c, more, K: tl.constexpr, MANY: tl.constexpr):
    """Write what a program has found for one sum, or add it to what this very program wrote at an earlier step."""
    total = tl.sum(tile, 1)
    if MANY:
        total += tl.load(at, mask=(c < K) & more, other=0.0)
    tl.store(at, total, mask=c < K)


@triton.jit
def _write(
    at, blocks, c, more, tp, fp, fn, tn, ce, rest, labelled,
    K: tl.constexpr, S: tl.constexpr, MANY: tl.constexpr,
    TP: tl.constexpr, FP: tl.constexpr, FN: tl.constexpr, TN: tl.constexpr, CE: tl.constexpr, REST: tl.constexpr,
):  # fmt: skip
    """The partial sums of this program: rows s K + c, one column per block."""
    c = tl.reshape(c, [c.shape[0]])
    at += c.to(tl.int64) * blocks
    rows = blocks.to(tl.int64) * K
    if TP >= 0:
        _put(at + TP * rows, tp, c, more, K, MANY)
    if FP >= 0:
        _put(at + FP * rows, fp, c, more, K, MANY)
    if FN >= 0:
        _put(at + FN * rows, fn, c, more, K, MANY)
    if TN >= 0:
        _put(at + TN * rows, tn, c, more, K, MANY)
    if CE >= 0:
        _put(at + CE * rows, ce, c, more, K, MANY)
    if REST >= 0:
        _put(at + REST * rows, rest, c, more, K, MANY)
    _put(at + S * rows, labelled, c, more, K, MANY)


@triton.jit(do_not_specialize=["blocks", "steps", "ignore", "w_n", "w_v", "g_n", "g_k", "h_n", "h_k"])
def partial_sums(
    x, labels, weights, gamma, rest_gamma, partial,
    V, blocks, steps, ignore, x_n, x_k, x_v, y_n, y_k, y_v, w_n, w_v, g_n, g_k, h_n, h_k,
    K: tl.constexpr, S: tl.constexpr, ACTIVATION: tl.constexpr, DENSE: tl.constexpr, IGNORES: tl.constexpr,
    CLIP: tl.constexpr, TP: tl.constexpr, FP: tl.constexpr, FN: tl.constexpr, TN: tl.constexpr, CE: tl.constexpr,
    REST: tl.constexpr, KP: tl.constexpr, LANES: tl.constexpr, VEC: tl.constexpr,
):  # fmt: skip
    """First half of the forward: one program per image and block of `steps` tiles.

    It writes one column of `partial` (N, (S + 1) K + 1, blocks): S sums and `labelled` per channel, and `voxels`.
    """
    ACC: tl.constexpr = gamma.dtype.element_ty
    MANY: tl.constexpr = K > KP
    SOFTMAX: tl.constexpr = ACTIVATION == "softmax"
    MASKED: tl.constexpr = IGNORES or weights is not None
    n, block = _place(blocks)
    x += n * x_n
    labels += n * y_n
    gamma += n * g_n
    rest_gamma += n * h_n
    if weights is not None:
        weights += n * w_n
    at = partial + n * ((S + 1) * K + 1) * blocks + block
    lanes = _lanes(LANES, VEC)
    voxels = tl.zeros([1, LANES], ACC)
    if MANY:  # too many sums to be carried from step to step
        for step in range(steps):
            v = (block * steps + step) * (LANES * VEC) + lanes
            ok = v < V
            w, y = _weigh(labels, weights, ignore, v, ok, y_k, y_v, w_v, K, DENSE, IGNORES, ACC, KP)
            m = w
            others = w
            second = w
            tail = w
            if SOFTMAX:
                m, others, second, tail = _survey(x, w, v, ok, x_k, x_v, K, REST >= 0, MASKED, ACC, KP)
            for first in range(0, K, KP):
                c = first + tl.arange(0, KP)[:, None, None]
                z = _read(x, w, c, v, ok, x_k, x_v, K, SOFTMAX, MASKED, ACC)
                hit, inside, outside = _sides(labels, y, w, c, v, ok, y_k, y_v, K, DENSE, ACC)
                tp, fp, fn, tn, ce, rest, labelled = _sum_tile(
                    z, hit, inside, outside, m, others, second, tail, gamma, rest_gamma, g_k, h_k, c,
                    K, ACTIVATION, DENSE, CLIP, TP, FP, FN, TN, CE, REST, ACC,
                )  # fmt: skip
                _write(
                    at, blocks, c, step > 0, tp, fp, fn, tn, ce, rest, labelled, K, S, MANY, TP, FP, FN, TN, CE, REST
                )
            tl.debug_barrier()  # the next step reads what other threads of this program have written
            voxels += tl.sum(w, 2)
    else:
        c = tl.arange(0, KP)[:, None, None]
        tp = tl.zeros([KP, LANES], ACC)
        fp = tl.zeros([KP, LANES], ACC)
        fn = tl.zeros([KP, LANES], ACC)
        tn = tl.zeros([KP, LANES], ACC)
        ce = tl.zeros([KP, LANES], ACC)
        rest = tl.zeros([KP, LANES], ACC)
        labelled = tl.zeros([KP, LANES], ACC)
        for step in range(steps):
            v = (block * steps + step) * (LANES * VEC) + lanes
            ok = v < V
            w, y = _weigh(labels, weights, ignore, v, ok, y_k, y_v, w_v, K, DENSE, IGNORES, ACC, KP)
            z = _read(x, w, c, v, ok, x_k, x_v, K, SOFTMAX, MASKED, ACC)
            hit, inside, outside = _sides(labels, y, w, c, v, ok, y_k, y_v, K, DENSE, ACC)
            m = w
            others = w
            second = w
            tail = w
            if SOFTMAX:
                m, others = _peak(z)
                if REST >= 0:
                    second, tail = _runner_up(z, m)
            tp_, fp_, fn_, tn_, ce_, rest_, labelled_ = _sum_tile(
                z, hit, inside, outside, m, others, second, tail, gamma, rest_gamma, g_k, h_k, c,
                K, ACTIVATION, DENSE, CLIP, TP, FP, FN, TN, CE, REST, ACC,
            )  # fmt: skip
            tp += tp_
            fp += fp_
            fn += fn_
            tn += tn_
            ce += ce_
            rest += rest_
            labelled += labelled_
            voxels += tl.sum(w, 2)
        _write(at, blocks, c, False, tp, fp, fn, tn, ce, rest, labelled, K, S, MANY, TP, FP, FN, TN, CE, REST)
    last = tl.arange(0, 1).to(tl.int64)
    tl.store(at + (S + 1) * K * blocks.to(tl.int64) + last, tl.sum(voxels, 1))


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


@triton.jit
def _fall(p, q, log_p, gamma, ACTIVATION: tl.constexpr):
    """Minus the slope of q**gamma (-log p): times q to the channel's logit, or to p where probabilities are given."""
    if ACTIVATION == "none":
        slope = gamma * log_p / q + 1.0 / p
    else:
        slope = gamma * p * log_p + q
    return _power(q, gamma) * slope


@triton.jit
def _force(
    p, q, log_p, log_q, hit, inside, outside, gamma, rest_gamma, upstream, g_k, h_k, a_s, a_k, c,
    K: tl.constexpr, ACTIVATION: tl.constexpr, DENSE: tl.constexpr,
    TP: tl.constexpr, FP: tl.constexpr, FN: tl.constexpr, TN: tl.constexpr, CE: tl.constexpr, REST: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    """dL/dp of the region sums, and the slope of both entropies as `_fall` has it."""
    within = tl.zeros(c.shape, ACC)
    beyond = tl.zeros(c.shape, ACC)
    if TP >= 0:
        within += _row(upstream + TP * a_s, a_k, c, K, ACC)
    if FN >= 0:
        within -= _row(upstream + FN * a_s, a_k, c, K, ACC)
    if FP >= 0:
        beyond += _row(upstream + FP * a_s, a_k, c, K, ACC)
    if TN >= 0:
        beyond -= _row(upstream + TN * a_s, a_k, c, K, ACC)
    tilt = inside * within + outside * beyond
    slope = tl.zeros_like(p)
    if CE >= 0:
        focus = _row(gamma, g_k, c, K, ACC)
        down = inside * _row(upstream + CE * a_s, a_k, c, K, ACC)
        if DENSE:
            slope -= down * _fall(p, q, log_p, focus, ACTIVATION)
        else:
            fall = _fall(_pick(hit, p), _pick(hit, q), _pick(hit, log_p), _pick(hit, focus), ACTIVATION)
            slope -= tl.where(hit, down * fall, 0.0)  # of no class: 0 times inf
    if REST >= 0:
        up = outside * _row(upstream + REST * a_s, a_k, c, K, ACC)
        slope += up * _fall(q, p, log_q, _row(rest_gamma, h_k, c, K, ACC), ACTIVATION)
    return tilt, slope


@triton.jit
def _force_of_softmax(tilt, slope, p, q, top):
    """F: the force p dL/dp of each channel, times q on top."""
    return tilt * p * tl.where(top, q, 1.0) + slope * tl.where(top, 1.0, 1.0 / q)


@triton.jit(do_not_specialize=["blocks", "ignore", "w_n", "w_v", "g_n", "g_k", "h_n", "h_k", "a_s", "a_n", "a_k"])
def gradient(
    x, labels, weights, gamma, rest_gamma, upstream, out,
    V, blocks, ignore, x_n, x_k, x_v, y_n, y_k, y_v, w_n, w_v, g_n, g_k, h_n, h_k, a_s, a_n, a_k, o_n, o_k, o_v,
    K: tl.constexpr, ACTIVATION: tl.constexpr, DENSE: tl.constexpr, IGNORES: tl.constexpr,
    TP: tl.constexpr, FP: tl.constexpr, FN: tl.constexpr, TN: tl.constexpr, CE: tl.constexpr, REST: tl.constexpr,
    LARGEST: tl.constexpr, KP: tl.constexpr, LANES: tl.constexpr, VEC: tl.constexpr,
):  # fmt: skip
    """The backward: one program per image and tile."""
    ACC: tl.constexpr = gamma.dtype.element_ty
    SOFTMAX: tl.constexpr = ACTIVATION == "softmax"
    MASKED: tl.constexpr = IGNORES or weights is not None
    MANY: tl.constexpr = K > KP
    n, block = _place(blocks)
    x += n * x_n
    out += n * o_n
    labels += n * y_n
    gamma += n * g_n
    rest_gamma += n * h_n
    upstream += n * a_n
    a_s = a_s.to(tl.int64)
    if weights is not None:
        weights += n * w_n
    v = block * (LANES * VEC) + _lanes(LANES, VEC)
    ok = v < V
    w, y = _weigh(labels, weights, ignore, v, ok, y_k, y_v, w_v, K, DENSE, IGNORES, ACC, KP)
    m = w
    others = w
    second = w
    tail = w
    on_top = tl.zeros_like(w)
    below = tl.zeros_like(w)
    if SOFTMAX and MANY:
        m, others, second, tail = _survey(x, w, v, ok, x_k, x_v, K, REST >= 0, MASKED, ACC, KP)
        for first in range(0, K, KP):
            c = first + tl.arange(0, KP)[:, None, None]
            z = _read(x, w, c, v, ok, x_k, x_v, K, SOFTMAX, MASKED, ACC)
            hit, inside, outside = _sides(labels, y, w, c, v, ok, y_k, y_v, K, DENSE, ACC)
            p, q, log_p, log_q = _softmax(z, m, others, second, tail, REST >= 0)
            tilt, slope = _force(
                p, q, log_p, log_q, hit, inside, outside, gamma, rest_gamma, upstream, g_k, h_k, a_s, a_k, c,
                K, ACTIVATION, DENSE, TP, FP, FN, TN, CE, REST, ACC,
            )  # fmt: skip
            top = tl.exp(z - m) == 1.0
            force = _force_of_softmax(tilt, slope, p, q, top)
            on_top += _pick(top, force)
            below += tl.sum(tl.where(top, 0.0, force), 0, keep_dims=True)
    for first in range(0, K, KP):
        c = first + tl.arange(0, KP)[:, None, None]
        z = _read(x, w, c, v, ok, x_k, x_v, K, SOFTMAX, MASKED, ACC)
        hit, inside, outside = _sides(labels, y, w, c, v, ok, y_k, y_v, K, DENSE, ACC)
        if SOFTMAX and not MANY:
            m, others = _peak(z)
            if REST >= 0:
                second, tail = _runner_up(z, m)
        p, q, log_p, log_q = _probabilities(z, m, others, second, tail, ACTIVATION, REST >= 0)
        tilt, slope = _force(
            p, q, log_p, log_q, hit, inside, outside, gamma, rest_gamma, upstream, g_k, h_k, a_s, a_k, c,
            K, ACTIVATION, DENSE, TP, FP, FN, TN, CE, REST, ACC,
        )  # fmt: skip
        if SOFTMAX:
            top = tl.exp(z - m) == 1.0
            force = _force_of_softmax(tilt, slope, p, q, top)
            if not MANY:
                on_top = _pick(top, force)
                below = tl.sum(tl.where(top, 0.0, force), 0, keep_dims=True)
            share = _shares(z, m, others, second, tail, REST >= 0)
            grad = force - p * below - share * (on_top - tl.where(top, force, 0.0))
        elif ACTIVATION == "sigmoid":
            grad = tilt * p * q + slope
        else:
            # 1/p may be beyond float16; inf would become NaN in the activation behind it, whose slope is 0 there
            grad = tilt + slope
            grad = tl.where(grad > LARGEST, LARGEST, tl.where(grad < -LARGEST, -LARGEST, grad))
        tl.store(out + c.to(tl.int64) * o_k + v * o_v, grad.to(out.dtype.element_ty), mask=(c < K) & ok)


@triton.jit
def _masks_at(
    labels, weights, ignore, ok, y_k, channel, first,
    K: tl.constexpr, DENSE: tl.constexpr, IGNORES: tl.constexpr, ACC: tl.constexpr, KP: tl.constexpr,
):  # fmt: skip
    """The weights of the voxels that are pointed at, and what masks they are in, of KP channels from the first.

    Soft masks are a tile of numbers, hard ones one integer per voxel whose bits are the channels.
    """
    w, y = _weigh(labels, weights, ignore, 0, ok, y_k, 0, 0, K, DENSE, IGNORES, ACC, KP)
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
