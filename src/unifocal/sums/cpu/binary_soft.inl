// Sigmoid, and softmax over two channels, with any labels in [0, 1].

template <class F>
struct Sides {
    typedef typename Lanes<F>::V V;
    V z, soft, p, q;

    template <class C>
    INLINE Sides(const C& c, int64_t v) {
        const V most = all(Lanes<F>::HUGE_LOG);
        z = smaller(larger(load(c.z + v), -most), most);
        soft = load(c.t.step(SOFT) + v);
    }
    INLINE void find_probabilities(const Tile<F>& t, int64_t v) {
        const V e = load(t.step(DECAY) + v), likely = inverse((F)1 + e), rare = e * likely;
        p = z > (F)0 ? likely : rare;
        q = z > (F)0 ? rare : likely;
    }
    INLINE V log_p() const { return soft + larger(-z, (V){}); }  // both negated
    INLINE V log_q() const { return soft + larger(z, (V){}); }
};

// Fills the steps of a channel.
template <class F, bool PAIR>
INLINE void soft_steps(const Channel<F, PAIR>& c, int64_t padded, bool entropy) {
    LANES;
    c.find_sides(padded, entropy);
    if (!entropy) return;
    if (c.gamma == c.rest_gamma && focus_of(c.gamma) == ANY) {
        const Power<F> power(c.gamma);
        for (int64_t v = 0; v < padded; v += L::N) {
            const V z = load(c.z + v);
            V likely, rare;
            power.of_both(larger(z, -z), load(c.t.step(SOFT) + v), likely, rare);
            store(c.t.step(POWER) + v, z > (F)0 ? rare : likely);
            store(c.t.step(REST_POWER) + v, z > (F)0 ? likely : rare);
        }
        return;
    }
    auto raise = [&](F exponent, F sign, F* to) INLINE_LAMBDA {
        if (focus_of(exponent) != ANY) return;
        const Power<F> power(exponent);
        for (int64_t v = 0; v < padded; v += L::N)
            store(to + v, power.of(larger(load(c.z + v) * sign, (V){}), load(c.t.step(SOFT) + v)));
    };
    raise(c.gamma, 1, c.t.step(POWER));
    raise(c.rest_gamma, -1, c.t.step(REST_POWER));
}

// Of one exponent for both sides, and no region sums: the two sides are those of |z|. With a = |z| and A = (1 + e)^-gamma
// what is summed is
//
//     A e^(-gamma a) soft   where the label is the likelier side,      A (soft + a)   where it is not
//
// and with B = (1 + e)^-(gamma + 1) the slopes are
//
//     B e^(-gamma a) (gamma soft + e)                                  B (gamma e (soft + a) + 1)
//
// In double, whose series are long, the steps above take less time than these loops.

template <class F>
INLINE bool is_mirrored(const Channel<F, false>& c) {
    return c.t.wants(CE) && c.t.wants(REST) && !c.t.region() && c.gamma == c.rest_gamma && focus_of(c.gamma) == ANY &&
           c.gamma + 1 <= MOST_FALL;
}

// Loops by pointers of their own, as a store might change those of a tile: here all but the last, which leave e in DECAY and
// its power in POWER, and where Fall is no short step what it finds in SOFT and FALLEN.
template <class F>
struct Mirrored {
    typedef typename Lanes<F>::V V;
    const F *z, *label, *weight;
    F *e, *power, *soft, *fallen;
    Fall<F> fall;

    INLINE Mirrored(const Channel<F, false>& c, F exponent, int64_t padded)
        : z(c.z), label(c.t.labels[c.k]), weight(c.t.masked ? c.t.weight : nullptr), e(c.t.step(DECAY)),
          power(c.t.step(POWER)), soft(c.t.step(SOFT)), fallen(c.t.step(FALLEN)), fall(exponent) {
        LANES;
        const Power<F> rare(c.gamma);
        const int64_t size = c.t.size, k = c.k;
        const Ahead ahead = c.t.ahead;
        const F* const to = c.t.c.backward && c.t.out[k] != c.t.e + k * size ? c.t.out[k] : nullptr;
        for (int64_t v = 0; v < padded; v += L::N) {
            ahead(k, v, L::N);
            if (to) __builtin_prefetch(to + v + size, 1);
            const V far = magnitude<F>(load(z + v));
            store(e + v, exp_<F>(-far));
            store(power + v, rare.of(far));
        }
        if constexpr (!HAS_FALL<F>) {
            for (int64_t v = 0; v < padded; v += L::N) store(soft + v, log1p_unit(load(e + v)));
            for (int64_t v = 0; v < padded; v += L::N) store(fallen + v, fall.power.of_little(load(soft + v)));
        }
    }
};

template <class F>
struct MirroredSides {  // of a vector of voxels
    typedef typename Lanes<F>::V V;
    typename Lanes<F>::I positive;
    V e, soft, entropy, common, rare;  // entropy: of the side that is not likely; common and rare: the factors of the two

    INLINE MirroredSides(const Mirrored<F>& y, int64_t v) {
        const V z = load(y.z + v);
        positive = z > (F)0;
        e = load(y.e + v);
        if constexpr (HAS_FALL<F>)
            y.fall.of(e, soft, common);
        else
            soft = load(y.soft + v), common = load(y.fallen + v);
        entropy = smaller(soft + magnitude<F>(z), all(Lanes<F>::HUGE_LOG));
        rare = common * load(y.power + v);
    }
};

template <class F>
INLINE void forward_mirrored(const Channel<F, false>& c, int64_t padded) {
    LANES;
    const Mirrored<F> y(c, c.gamma, padded);
    V ce = {}, rest = {}, labelled = {}, count = {};
    for (int64_t v = 0; v < padded; v += L::N) {
        const MirroredSides<F> sides(y, v);
        V in = load(y.label + v), out = (F)1 - in;
        if (y.weight) {
            const V w = load(y.weight + v);
            in *= w, out *= w, count += w;
        }
        labelled += in;
        const V likely = sides.rare * sides.soft, unlikely = sides.common * sides.entropy;
        ce += in * (sides.positive ? likely : unlikely);
        rest += out * (sides.positive ? unlikely : likely);
    }
    const int64_t K = c.t.c.channels;
    c.t.sums[CE * K + c.k] += ce, c.t.sums[REST * K + c.k] += rest, c.t.sums[LABELLED * K + c.k] += labelled;
    if (c.k == 0) c.t.sums[SUMS * K] += y.weight ? count : all((F)(padded / L::N));
}

template <class F>
INLINE void backward_mirrored(const Channel<F, false>& c, int64_t padded) {
    LANES;
    const Mirrored<F> y(c, c.gamma + 1, padded);
    const V gamma = all(c.gamma), ce = all(c.ce()), rest = all(c.rest());
    F* to = c.t.out[c.k];
    for (int64_t v = 0; v < padded; v += L::N) {
        const MirroredSides<F> sides(y, v);
        const V in = load(y.label + v);
        const V likely = sides.rare * (gamma * sides.soft + sides.e);
        const V unlikely = sides.common * (gamma * sides.e * sides.entropy + (F)1);
        V gradient = (rest - in * rest) * (sides.positive ? unlikely : likely);
        gradient -= in * ce * (sides.positive ? likely : unlikely);
        if (y.weight) gradient *= load(y.weight + v);
        store(to + v, gradient);
    }
}

template <bool REGION, bool ENTROPY, class F, bool PAIR>  // see as_wanted
INLINE void sum_soft(const Channel<F, PAIR>& c, int64_t padded) {
    LANES;
    const Tile<F>& t = c.t;
    const int64_t K = t.c.channels;
    const bool masked = t.masked;
    const Focus focus = ENTROPY ? focus_of(c.gamma) : EVEN, rest_focus = ENTROPY ? focus_of(c.rest_gamma) : EVEN;
    const bool probabilities = REGION || takes_probabilities(focus) || takes_probabilities(rest_focus);
    const F *const labels = t.labels[c.k], *const labels_of_first = t.labels[0];
    V sums[SUMS] = {}, of_first[SUMS] = {}, count = {};
    for (int64_t v = 0; v < padded; v += L::N) {
        Sides<F> y(c, v);
        const V label = load(labels + v);
        V in = label, out = (F)1 - label, first = {};
        if (PAIR) first = load(labels_of_first + v);
        V out_first = (F)1 - first;
        if (masked) {
            const V w = load(t.weight + v);
            in *= w, out *= w, count += w;
            if (PAIR) first *= w, out_first *= w;
        }
        sums[LABELLED] += in;
        if (PAIR) of_first[LABELLED] += first;
        if (probabilities) y.find_probabilities(t, v);
        if (REGION) {
            sums[TP] += in * y.p;
            sums[FN] += in * y.q;
            sums[FP] += out * y.p;
            sums[TN] += out * y.q;
            if (PAIR) {
                of_first[TP] += first * y.q;
                of_first[FN] += first * y.p;
                of_first[FP] += out_first * y.q;
                of_first[TN] += out_first * y.p;
            }
        }
        if (!ENTROPY) continue;
        V other = PAIR ? first : out;
        if (focus != EVEN) in *= focused(focus, y.q, t.step(POWER) + v);
        if (rest_focus != EVEN) other *= focused(rest_focus, y.p, t.step(REST_POWER) + v);
        sums[CE] += in * y.log_p();
        sums[REST] += other * y.log_q();
    }
    of_first[CE] = sums[REST];
    for (int s = 0; s < SUMS; ++s) t.sums[s * K + c.k] += sums[s];
    for (int s = 0; PAIR && s < SUMS; ++s) t.sums[s * K] += of_first[s];
    if (PAIR || c.k == 0) t.sums[SUMS * K] += masked ? count : all((F)(padded / L::N));
}

template <class F, bool PAIR>
void forward_sigmoid(const Tile<F> t, int64_t padded) {
    const bool entropy = t.entropy(), region = t.region();
    for (int64_t i = 0; i < (PAIR ? 1 : t.c.channels); ++i) {
        const Channel<F, PAIR> c(t, i);
        if constexpr (!PAIR && sizeof(F) == 4)
            if (is_mirrored(c)) {
                forward_mirrored(c, padded);
                continue;
            }
        soft_steps(c, padded, entropy);
        as_wanted(region, entropy, [&](auto of_region, auto of_entropy) INLINE_LAMBDA {
            sum_soft<decltype(of_region)::value, decltype(of_entropy)::value>(c, padded);
        });
    }
}

template <class F, bool PAIR>
void backward_sigmoid(const Tile<F> t, int64_t padded) {
    LANES;
    const bool entropy = t.entropy(), region = t.region(), masked = t.masked;
    for (int64_t i = 0; i < (PAIR ? 1 : t.c.channels); ++i) {
        const Channel<F, PAIR> c(t, i);
        if constexpr (!PAIR && sizeof(F) == 4)
            if (is_mirrored(c)) {
                backward_mirrored(c, padded);
                continue;
            }
        soft_steps(c, padded, entropy && c.focused());
        const Focus focus = focus_of(c.gamma), rest_focus = focus_of(c.rest_gamma);
        const V ce = all(c.ce()), rest = all(c.rest()), gamma = all(c.gamma), rest_gamma = all(c.rest_gamma);
        const V in_slope = all(c.hit(c.k) - c.alarm(c.k)), first_slope = all(PAIR ? c.alarm(0) - c.hit(0) : 0);
        const V common = all(c.alarm(c.k) - (PAIR ? c.alarm(0) : 0));
        for (int64_t v = 0; v < padded; v += L::N) {
            Sides<F> y(c, v);
            y.find_probabilities(t, v);
            const V in = load(t.labels[c.k] + v), out = PAIR ? load(t.labels[0] + v) : (F)1 - in;
            V gradient = {};
            if (entropy) {
                V down = y.q, up = y.p;
                if (focus != EVEN) down = focused(focus, y.q, t.step(POWER) + v) * (gamma * y.p * y.log_p() + y.q);
                if (rest_focus != EVEN) up = focused(rest_focus, y.p, t.step(REST_POWER) + v) * (rest_gamma * y.q * y.log_q() + y.p);
                gradient = out * rest * up - in * ce * down;
            }
            if (region) {
                V slope = common + in * in_slope;
                if (PAIR) slope += out * first_slope;
                gradient += slope * y.p * y.q;
            }
            if (masked) gradient *= load(t.weight + v);
            c.put(v, gradient);
        }
    }
}
