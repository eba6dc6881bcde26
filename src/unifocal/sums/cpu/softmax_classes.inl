// Softmax with class indices.
//
// All but the probabilities is needed for the voxel's own class only. With e_c = exp(z_c - top), `others` the sum of
// e_c over the other classes and `total` over all: q = others / total and -log p = log(1 + u) + (top - z), u being
// `others` where the label has the maximum. Nothing cancels.

// log of the sum of e^(z - top)
template <class F>
INLINE typename Lanes<F>::V log_total(typename Lanes<F>::V others, typename Lanes<F>::V total, typename Lanes<F>::V z,
                                      typename Lanes<F>::V top) {
    return log1p_<F>(z == top ? others : total - (F)1);
}

template <class F>
INLINE typename Lanes<F>::V pick(const F* table, int64_t stride, const typename Lanes<F>::Int* label) {
    LANES;
    V y = {};
    for (int i = 0; i < L::N; ++i)
        if (label[i] >= 0) y[i] = table[label[i] * stride];
    return y;
}

// Few channels, a number known to the compiler: the sums stay in registers, and what belongs to a voxel's own class is selected.
// As one long chain of dependent instructions would wait for itself, each part of it has a loop of its own, and keeps
// for every voxel in steps: FAR is top - z of the own channel, RAISED q^gamma, BASE and MEAN what backward_few takes off, and
// LEAD how much the own channel has beyond BASE.
enum Step { Q, P, SCALE, LOG_SUM, FAR, RAISED, GAMMA, BASE, LEAD, MEAN };

// LOG_SUM becomes its logarithm, and RAISED is filled.
template <class F>
INLINE void finish_steps(const Tile<F>& t, int64_t padded, bool focused) {
    LANES;
    for (int64_t v = 0; v < padded; v += L::N) store(t.step(LOG_SUM) + v, log1p_<F>(load(t.step(LOG_SUM) + v)));
    if (!focused) return;
    if (t.simple) {
        for (int64_t v = 0; v < padded; v += L::N)
            store(t.step(RAISED) + v, simple_power<F>(load(t.step(Q) + v), load(t.step(GAMMA) + v), t.rooted));
        return;
    }
    const F *const q = t.step(Q), *const gamma = t.step(GAMMA);
    auto row = [](const F* of) INLINE_LAMBDA { return [of](int64_t v) INLINE_LAMBDA { return load(of + v); }; };
    raise_row(padded, row(q), row(gamma), t.step(RAISED));
}

template <class F, int K, bool BASED>
INLINE void steps_of_few(const Tile<F>& t, int64_t padded, bool entropy, bool focused) {
    LANES;
    const int64_t S = t.size;
    const Ahead ahead = t.ahead;
    const F* rows[K];
    V gammas[K], hits[K], alarms[K];
    for (int k = 0; k < K; ++k) {
        rows[k] = t.rows[k];
        gammas[k] = all(t.gamma[k]), hits[k] = all(t.a[TP][k] - t.a[FN][k]), alarms[k] = all(t.a[FP][k]);
    }
    for (int64_t v = 0; v < padded; v += L::N) {
        const I label = (I)load((const F*)(t.label + v));
        V x[K];
        for (int k = 0; k < K; ++k) x[k] = load(rows[k] + v);
        for (int k = 0; k < K; ++k) ahead(k, v, L::N);
        V top = x[0], z = {};
        for (int k = 1; k < K; ++k) top = larger(x[k], top);
        for (int k = 0; k < K; ++k) store(t.e + k * S + v, exp_<F>(x[k] - top));
        for (int k = 0; k < K; ++k) z = label == (Int)k ? x[k] : z;
        if (BASED) {
            V base = {};
            I found = {};
            for (int k = 0; k < K; ++k) {
                const I first = (x[k] == top) & ~found;
                found |= first;
                add_where(first, base, label == (Int)k ? hits[k] : alarms[k]);
            }
            store(t.step(BASE) + v, base);
        }
        if (!entropy) continue;
        store(t.step(FAR) + v, top - z);
        if (!focused) continue;
        V gamma = {};
        for (int k = 0; k < K; ++k) add_where(label == (Int)k, gamma, gammas[k]);
        store(t.step(GAMMA) + v, gamma);
    }
    for (int64_t v = 0; v < padded; v += L::N) {
        const I label = (I)load((const F*)(t.label + v));
        V others = {}, e = {};
        for (int k = 0; k < K; ++k) {
            const I own = label == (Int)k;
            const V ex = load(t.e + k * S + v);
            add_unless(own, others, ex);
            e = own ? ex : e;
        }
        const V total = others + e, scale = inverse(total);
        store(t.step(Q) + v, others * scale);
        store(t.step(P) + v, e * scale);
        store(t.step(SCALE) + v, scale);
        if (entropy) store(t.step(LOG_SUM) + v, load(t.step(FAR) + v) == (F)0 ? others : total - (F)1);
    }
    if (entropy) finish_steps(t, padded, focused);
}

template <class F>
INLINE typename Lanes<F>::V log_p_of_own(const Tile<F>& t, int64_t v) {
    return smaller(load(t.step(LOG_SUM) + v) + load(t.step(FAR) + v), all(Lanes<F>::HUGE_LOG));
}

template <int K, bool REGION, bool ENTROPY, class F>
INLINE void sum_few(const Tile<F>& t, int64_t padded) {
    LANES;
    V sums[SUMS][K] = {}, count = {};
    for (int64_t v = 0; v < padded; v += L::N) {
        const I label = (I)load((const F*)(t.label + v));
        V w = all<F>(1);
        if (t.masked) w = load(t.weight + v);
        count += w;
        for (int k = 0; k < K; ++k) add_where(label == (Int)k, sums[LABELLED][k], w);
        if (ENTROPY) {
            V ce = log_p_of_own(t, v) * w;
            if (t.focused) ce *= load(t.step(RAISED) + v);
            for (int k = 0; k < K; ++k) add_where(label == (Int)k, sums[CE][k], ce);
        }
        if (!REGION) continue;
        const V tp = load(t.step(P) + v) * w, fn = load(t.step(Q) + v) * w, scale = load(t.step(SCALE) + v) * w;
        for (int k = 0; k < K; ++k) {
            const I own = label == (Int)k;
            add_where(own, sums[TP][k], tp);
            add_where(own, sums[FN][k], fn);
            add_unless(own, sums[FP][k], load(t.e + k * t.size + v) * scale);
        }
    }
    for (int s = 0; s < SUMS; ++s)
        for (int k = 0; k < K; ++k) t.sums[s * K + k] += sums[s][k];
    t.sums[SUMS * K] += count;
}

template <class F, int K>
void forward_few(const Tile<F> t, int64_t padded) {
    const bool entropy = t.wants(CE), region = t.wants(TP) || t.wants(FP) || t.wants(FN);
    steps_of_few<F, K, false>(t, padded, entropy, t.focused);
    as_wanted(region, entropy, [&](auto of_region, auto of_entropy) INLINE_LAMBDA {
        sum_few<K, decltype(of_region)::value, decltype(of_entropy)::value>(t, padded);
    });
}

// Many channels: what belongs to a voxel's own class is fetched from, and added to, a place of its own; or, of no more
// channels than SELECTED, its logit and exponential are selected on the way.

template <class F>
INLINE void fetch_own(const Tile<F>& t, int64_t v, typename Lanes<F>::V& z, typename Lanes<F>::V& e) {
    const typename Lanes<F>::Int* own = t.label + v;
    for (int i = 0; i < Lanes<F>::N; ++i)
        if (own[i] >= 0) z[i] = t.rows[own[i]][v + i];
    for (int i = 0; i < Lanes<F>::N; ++i)
        if (own[i] >= 0) e[i] = t.e[own[i] * t.size + v + i];
}

template <class F, bool SELECT, bool BASED>
INLINE void steps_of_many(const Tile<F>& t, int64_t padded, bool entropy) {
    LANES;
    const int64_t K = t.c.channels, S = t.size;
    const Ahead ahead = t.ahead;
    for (int64_t v = 0; v < padded; v += L::N) {
        const I label = (I)load((const F*)(t.label + v));
        const Int* own = t.label + v;
        V top = load(t.rows[0] + v), hit = {}, base = {};
        I first = {};
        for (int64_t k = 1; k < K; ++k) {
            const V zk = load(t.rows[k] + v);
            if (BASED) first = zk > top ? all_int<F>((Int)k) : first;
            top = larger(zk, top);
        }
        if (BASED) {
            hit = pick(t.a[TP], 1, own) - pick(t.a[FN], 1, own);
            for (int i = 0; i < L::N; ++i) base[i] = t.a[FP][first[i]];
            base = first == label ? hit : base;
        }
        V others = {}, e = {}, z = {}, mean = {};
        for (int64_t k = 0; k < K; ++k) {
            const V zk = load(t.rows[k] + v), ek = exp_<F>(zk - top);
            const I is_own = label == (Int)k;
            store(t.e + k * S + v, ek);
            ahead(k, v, L::N);
            if (BASED) {
                const V other = is_own ? (V){} : ek;
                others += other;
                mean += other * (t.a[FP][k] - base);
            } else
                add_unless(is_own, others, ek);
            if (!SELECT) continue;
            z = is_own ? zk : z;
            e = is_own ? ek : e;
        }
        if (!SELECT) fetch_own(t, v, z, e);
        const V total = others + e, scale = inverse(total);
        store(t.step(Q) + v, others * scale);
        store(t.step(P) + v, e * scale);
        store(t.step(SCALE) + v, scale);
        if (BASED) {
            store(t.step(BASE) + v, base);
            store(t.step(LEAD) + v, hit - base);
            store(t.step(MEAN) + v, (mean + e * (hit - base)) * scale);
        }
        if (!entropy) continue;
        store(t.step(LOG_SUM) + v, z == top ? others : total - (F)1);
        store(t.step(FAR) + v, top - z);
        if (t.focused) store(t.step(GAMMA) + v, pick(t.gamma, 1, own));
    }
    if (entropy) finish_steps(t, padded, t.focused);
}

template <class F, bool SELECT>
void forward_many(const Tile<F> t, int64_t padded) {
    LANES;
    const int64_t K = t.c.channels, S = t.size, channels = K * L::N;
    const bool entropy = t.wants(CE), region = t.wants(TP) || t.wants(FP) || t.wants(FN);
    steps_of_many<F, SELECT, false>(t, padded, entropy);
    F* const sums = (F*)t.sums;
    for (int64_t v = 0; v < padded; v += L::N) {
        const I label = (I)load((const F*)(t.label + v));
        const Int* own = t.label + v;
        V w = all<F>(1), ce = {};
        if (t.masked) w = load(t.weight + v);
        if (entropy) {
            ce = log_p_of_own(t, v) * w;
            if (t.focused) ce *= load(t.step(RAISED) + v);
        }
        const V tp = load(t.step(P) + v) * w, fn = load(t.step(Q) + v) * w, scale = load(t.step(SCALE) + v) * w;
        for (int i = 0; i < L::N; ++i) {
            if (own[i] < 0) continue;
            const int64_t at = own[i] * L::N + i;
            sums[LABELLED * channels + at] += w[i];
            if (entropy) sums[CE * channels + at] += ce[i];
            if (!region) continue;
            sums[TP * channels + at] += tp[i];
            sums[FN * channels + at] += fn[i];
        }
        if (region)
            for (int64_t k = 0; k < K; ++k)
                add_unless(label == (Int)k, t.sums[FP * K + k], load(t.e + k * S + v) * scale);
        t.sums[SUMS * K] += w;
    }
}

// The region part of the gradient is p_k (B_k - sum of p_c B_c) with B_c = dL/dp_c - dL/dp_first: relative to the
// channel that has the maximum, so that a saturated voxel keeps its digits. The entropy part is h times -q or p.
//
// h for a focused class, where `focus` is q^gamma
template <class F>
INLINE typename Lanes<F>::V focused_slope(typename Lanes<F>::V gamma, typename Lanes<F>::V focus,
                                          typename Lanes<F>::V p, typename Lanes<F>::V q, typename Lanes<F>::V log_p) {
    LANES;
    return focus * (gamma * p * smaller(log_p, all(L::HUGE_LOG)) * inverse(larger(q, all(L::TINY))) + (F)1);
}

template <class F, int K>
void backward_few(const Tile<F> t, int64_t padded) {
    LANES;
    const bool region = t.wants(TP) || t.wants(FP) || t.wants(FN);
    if (region)
        steps_of_few<F, K, true>(t, padded, t.focused, t.focused);
    else
        steps_of_few<F, K, false>(t, padded, t.focused, t.focused);
    F* out[K];
    V entropies[K], hits[K], alarms[K];
    for (int k = 0; k < K; ++k) {
        out[k] = t.out[k];
        entropies[k] = all(t.a[CE][k]), hits[k] = all(t.a[TP][k] - t.a[FN][k]), alarms[k] = all(t.a[FP][k]);
    }
    for (int64_t v = 0; v < padded; v += L::N) {
        const I label = (I)load((const F*)(t.label + v));
        const V q = load(t.step(Q) + v), scale = load(t.step(SCALE) + v);
        V w = all<F>(1), slope = {}, gamma = {}, ex[K];
        if (t.masked) w = load(t.weight + v);
        for (int k = 0; k < K; ++k) {
            ex[k] = load(t.e + k * t.size + v);
            add_where(label == (Int)k, slope, entropies[k]);
        }
        slope *= w;
        if (t.focused) {
            gamma = load(t.step(GAMMA) + v);
            slope *= focused_slope<F>(gamma, load(t.step(RAISED) + v), load(t.step(P) + v), q, log_p_of_own(t, v));
        }
        V mean = {}, base = {};
        if (region) {
            base = load(t.step(BASE) + v);
            for (int k = 0; k < K; ++k) mean += ex[k] * ((label == (Int)k ? hits[k] : alarms[k]) - base);
            mean *= scale;
        }
        const V own_part = -slope * q, other_part = slope * scale, region_part = scale * w;
        for (int k = 0; k < K; ++k) {
            const I own = label == (Int)k;
            V gradient = own ? own_part : ex[k] * other_part;
            if (region) gradient += ex[k] * region_part * (((own ? hits[k] : alarms[k]) - base) - mean);
            store(out[k] + v, gradient);
        }
    }
}

template <class F, bool SELECT>
void backward_many(const Tile<F> t, int64_t padded) {
    LANES;
    const int64_t K = t.c.channels, S = t.size;
    const bool region = t.wants(TP) || t.wants(FP) || t.wants(FN);
    if (region)
        steps_of_many<F, SELECT, true>(t, padded, t.focused);
    else
        steps_of_many<F, SELECT, false>(t, padded, t.focused);
    for (int64_t v = 0; v < padded; v += L::N) {
        const I label = (I)load((const F*)(t.label + v));
        const V q = load(t.step(Q) + v), p = load(t.step(P) + v), scale = load(t.step(SCALE) + v);
        V w = all<F>(1), mean = {}, base = {};
        if (t.masked) w = load(t.weight + v);
        V slope = pick(t.a[CE], 1, t.label + v) * w;
        if (t.focused) slope *= focused_slope<F>(load(t.step(GAMMA) + v), load(t.step(RAISED) + v), p, q, log_p_of_own(t, v));
        const V other_part = slope * scale, region_part = scale * w;
        V own_gradient = -slope * q;
        if (region) {
            mean = load(t.step(MEAN) + v), base = load(t.step(BASE) + v);
            own_gradient += p * w * (load(t.step(LEAD) + v) - mean);
        }
        for (int64_t k = 0; k < K; ++k) {
            V factor = other_part;
            if (region) factor += region_part * ((t.a[FP][k] - base) - mean);
            store(t.out[k] + v, label == (Int)k ? own_gradient : load(t.e + k * S + v) * factor);
        }
    }
}
