// Softmax with soft labels for each channel.

enum SoftStep { TOP, FIRST, FIRST_Q, SOFT_SCALE, LOG_TOTAL, FOCUS };  // FIRST: the channel with the maximum, see Channels

template <class F, int K>  // K: the number of channels, or 0 for any
INLINE void softmax_steps(const Tile<F>& t, int64_t padded) {
    LANES;
    const int64_t channels = K ? K : t.c.channels, S = t.size;
    const Ahead ahead = t.ahead;
    for (int64_t v = 0; v < padded; v += L::N) {
        V top = load(t.rows[0] + v);
        I first = {};
        for (int64_t k = 0; k < channels; ++k) ahead(k, v, L::N);
        for (int64_t k = 1; k < channels; ++k) {
            const V z = load(t.rows[k] + v);
            first = z > top ? all_int<F>((Int)k) : first;
            top = larger(z, top);
        }
        for (int64_t k = 0; k < channels; ++k) store(t.e + k * S + v, exp_<F>(load(t.rows[k] + v) - top));
        store(t.step(TOP) + v, top);
        store(t.step(FIRST) + v, (V)first);
    }
    for (int64_t v = 0; v < padded; v += L::N) {
        const I first = (I)load(t.step(FIRST) + v);
        V others = {};
        for (int64_t k = 0; k < channels; ++k) add_unless(first == (Int)k, others, load(t.e + k * S + v));
        const V scale = inverse((F)1 + others);
        store(t.step(FIRST_Q) + v, others * scale);
        store(t.step(SOFT_SCALE) + v, scale);
        store(t.step(LOG_TOTAL) + v, others);
    }
    if (t.wants(CE) && (t.focused || !t.c.backward))
        for (int64_t v = 0; v < padded; v += L::N)
            store(t.step(LOG_TOTAL) + v, log1p_<F>(load(t.step(LOG_TOTAL) + v)));
}

template <class F>
struct SoftChannel {  // a vector of voxels of one channel, once the steps are filled
    typedef typename Lanes<F>::V V;
    V p, q, label;

    INLINE SoftChannel(const Tile<F>& t, int64_t v, int64_t k) {
        p = load(t.e + k * t.size + v) * load(t.step(SOFT_SCALE) + v);
        q = (typename Lanes<F>::I)load(t.step(FIRST) + v) == (typename Lanes<F>::Int)k ? load(t.step(FIRST_Q) + v) : (F)1 - p;
        label = load(t.labels[k] + v);
    }
};

template <class F>
INLINE typename Lanes<F>::V log_p_of(const Tile<F>& t, int64_t v, int64_t k) {
    const typename Lanes<F>::V far = load(t.step(TOP) + v) - load(t.rows[k] + v);
    return smaller(load(t.step(LOG_TOTAL) + v) + far, all(Lanes<F>::HUGE_LOG));
}

// How q^gamma of channel k is found; leaves it in FOCUS if it is no product.
template <class F>
INLINE Focus focus_of_softmax(const Tile<F>& t, int64_t k, int64_t padded) {
    LANES;
    const Focus focus = t.focused ? focus_of(t.gamma[k]) : EVEN;
    const V gamma = all(t.gamma[k]);
    auto q = [&](int64_t v) INLINE_LAMBDA { return SoftChannel<F>(t, v, k).q; };
    if (focus == ANY) raise_row(padded, q, [&](int64_t) INLINE_LAMBDA { return gamma; }, t.step(FOCUS));
    return focus;
}

template <bool REGION, bool ENTROPY, class F>
INLINE void sum_softmax(const Tile<F>& t, int64_t k, int64_t padded) {
    LANES;
    const Focus focus = ENTROPY ? focus_of_softmax(t, k, padded) : EVEN;
    const F* const labels = t.labels[k];
    V sums[SUMS] = {}, count = {};
    for (int64_t v = 0; v < padded; v += L::N) {
        V in = load(labels + v), out = (F)1 - in;
        if (t.masked) {
            const V w = load(t.weight + v);
            in *= w, out *= w, count += w;
        }
        sums[LABELLED] += in;
        const SoftChannel<F> y(t, v, k);
        if (REGION) {
            sums[TP] += in * y.p;
            sums[FP] += out * y.p;
            sums[FN] += in * y.q;
            sums[TN] += out * y.q;
        }
        if (!ENTROPY) continue;
        V ce = in * log_p_of(t, v, k);
        if (focus != EVEN) ce *= focused(focus, y.q, t.step(FOCUS) + v);
        sums[CE] += ce;
    }
    for (int s = 0; s < SUMS; ++s)
        if (t.asked(s)) t.sums[s * t.c.channels + k] += sums[s];
    if (k == 0) t.sums[SUMS * t.c.channels] += t.masked ? count : all((F)(padded / L::N));
}

template <class F, int K>
void forward_softmax(const Tile<F> t, int64_t padded) {
    const bool entropy = t.wants(CE), region = t.region();
    softmax_steps<F, K>(t, padded);
    for (int64_t k = 0; k < (K ? K : t.c.channels); ++k) {
        as_wanted(region, entropy, [&](auto of_region, auto of_entropy) INLINE_LAMBDA {
            sum_softmax<decltype(of_region)::value, decltype(of_entropy)::value>(t, k, padded);
        });
    }
}

// Leaves f_k of backward_coupled in g.
template <class F, int K>
INLINE void soft_forces(const Tile<F>& t, int64_t padded) {
    LANES;
    for (int64_t k = 0; k < (K ? K : t.c.channels); ++k) {
        const V outer = all(t.a[FP][k] - t.a[TN][k]), tilt = all(t.a[TP][k] - t.a[FN][k]) - outer, ce = all(t.a[CE][k]);
        const V gamma = all(t.gamma[k]);
        const F* const labels = t.labels[k];
        F* const to = t.g + k * t.size;
        const Focus focus = focus_of_softmax(t, k, padded);
        if (focus == EVEN) {
            for (int64_t v = 0; v < padded; v += L::N) {
                const V p = load(t.e + k * t.size + v) * load(t.step(SOFT_SCALE) + v), label = load(labels + v);
                store(to + v, (label * tilt + outer) * p - label * ce);
            }
            continue;
        }
        for (int64_t v = 0; v < padded; v += L::N) {
            const SoftChannel<F> y(t, v, k);
            const V power = focused(focus, y.q, t.step(FOCUS) + v);
            const V down = focused_slope<F>(gamma, power, y.p, y.q, log_p_of(t, v, k));
            store(to + v, (y.label * tilt + outer) * y.p - y.label * ce * down);
        }
    }
}

template <class F, int K>
void backward_softmax(const Tile<F> t, int64_t padded) {
    LANES;
    const int64_t channels = K ? K : t.c.channels, S = t.size;
    softmax_steps<F, K>(t, padded);
    soft_forces<F, K>(t, padded);
    for (int64_t v = 0; v < padded; v += L::N) {
        const I first = (I)load(t.step(FIRST) + v);
        const V scale = load(t.step(SOFT_SCALE) + v);
        V own = {}, others = {};
        for (int64_t k = 0; k < channels; ++k) {
            const V force = load(t.g + k * S + v);
            add_where(first == (Int)k, own, force);
            add_unless(first == (Int)k, others, force);
        }
        const V sum = own + others, first_q = load(t.step(FIRST_Q) + v);
        for (int64_t k = 0; k < channels; ++k) {
            const V p = load(t.e + k * S + v) * scale, force = load(t.g + k * S + v);
            V gradient = first == (Int)k ? force * first_q - p * others : force - p * sum;
            if (t.masked) gradient *= load(t.weight + v);
            store(t.out[k] + v, gradient);
        }
    }
}
