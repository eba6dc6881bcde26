// Sigmoid, and softmax over two channels, with labels of 0 or 1: s is the logit towards the label, so that 1 / (1 + e^-s)
// is the probability of what is right.

template <class F>
INLINE typename Lanes<F>::I is_inside(const Tile<F>& t, int64_t v, int64_t k) {
    LANES;
    return t.c.dense ? load(t.labels[k] + v) > (F)0 : (I)load((const F*)(t.label + v)) == (Int)k;
}

template <class F>
struct Margin {
    typedef typename Lanes<F>::V V;
    typename Lanes<F>::I own;
    V against, right, wrong;  // `against` is -s

    template <class C>
    INLINE Margin(const C& c, int64_t v) {
        const V z = load(c.z + v);
        own = is_inside(c.t, v, c.k);
        against = own ? -z : z;
    }
    INLINE void find_sides(const Tile<F>& t, int64_t v) {
        const V e = load(t.step(DECAY) + v), high = inverse((F)1 + e), low = e * high;
        right = against > (F)0 ? low : high;
        wrong = against > (F)0 ? high : low;
    }
};

// Fills the steps of a channel, POWER with that of what is wrong.
template <class F, bool PAIR>
INLINE Focus binary_steps(const Channel<F, PAIR>& c, int64_t padded, bool entropy) {
    LANES;
    c.find_sides(padded, entropy);
    const bool alike = c.gamma == c.rest_gamma;
    if (alike && focus_of(c.gamma) != ANY) return focus_of(c.gamma);
    if (c.t.is_simple(c.gamma) && c.t.is_simple(c.rest_gamma)) return SIMPLE;
    const Power<F> inside(c.gamma), outside(c.rest_gamma);
    auto raise = [&](auto power_of) INLINE_LAMBDA {
        for (int64_t v = 0; v < padded; v += L::N) {
            const Margin<F> y(c, v);
            store(c.t.step(POWER) + v, power_of(y.own, larger(-y.against, (V){}), load(c.t.step(SOFT) + v)));
        }
    };
    if (alike)
        raise([&](I, V x, V y) INLINE_LAMBDA { return inside.of(x, y); });
    else if (c.rest_gamma == 0)
        raise([&](I own, V x, V y) INLINE_LAMBDA { return own ? inside.of(x, y) : all<F>(1); });
    else if (c.gamma == 0)
        raise([&](I own, V x, V y) INLINE_LAMBDA { return own ? all<F>(1) : outside.of(x, y); });
    else
        raise([&](I own, V x, V y) INLINE_LAMBDA { return Power<F>::either(own, inside, outside).of(x, y); });
    return ANY;
}

// The power of what is wrong.
template <class F, bool PAIR>
INLINE typename Lanes<F>::V raised(const Channel<F, PAIR>& c, Focus focus, const Margin<F>& y, int64_t v) {
    if (focus != SIMPLE) return focused(focus, y.wrong, c.t.step(POWER) + v);
    return simple_power<F>(y.wrong, y.own ? all(c.gamma) : all(c.rest_gamma), c.t.rooted);
}

// Of one exponent for both sides, and no region sums. With s the logit towards the label, x = max(s, 0) and y = max(-s, 0),
// of which one is 0, and A = (1 + e)^-gamma what is summed is A e^(-gamma x) (soft + y), and with B = (1 + e)^-(gamma + 1)
// its slope is
//
//     B e^(-gamma x) (gamma soft + e)   where s > 0,      B (gamma e (soft + y) + 1)   elsewhere
//
// Without the table of Fall the steps above take less time.

template <class F, bool PAIR>
INLINE bool is_one_sided(const Channel<F, PAIR>& c) {
    return HAS_FALL<F> && c.t.wants(CE) && (PAIR || c.t.wants(REST)) && !c.t.region() && c.gamma == c.rest_gamma &&
           focus_of(c.gamma) == ANY && c.gamma + 1 <= MOST_FALL;
}

// Pointers of their own, as a store might change those of a tile. The first loop leaves -s, e and its power in steps.
template <class F, bool PAIR>
struct OneSided {
    typedef typename Lanes<F>::V V;
    typedef typename Lanes<F>::I I;
    typedef typename Lanes<F>::Int Int;
    const Int own;
    const F* const dense;  // labels of 0 or 1, or null
    const Int* const label;
    F *against, *e, *power;
    const Fall<F> fall;

    INLINE OneSided(const Channel<F, PAIR>& c, F exponent, int64_t padded)
        : own((Int)c.k), dense(c.t.c.dense ? c.t.labels[c.k] : nullptr), label(c.t.label), against(c.t.step(AGAINST)),
          e(c.t.step(DECAY)), power(c.t.step(POWER)), fall(exponent) {
        LANES;
        const Power<F> raised(c.gamma);
        const F *const z = c.t.rows[c.k], *const other = c.t.rows[0];
        const Ahead ahead = c.t.ahead;
        for (int64_t v = 0; v < padded; v += L::N) {
            ahead(c.k, v, L::N);
            if (PAIR) ahead(0, v, L::N);
            const V x = PAIR ? load(z + v) - load(other + v) : load(z + v), away = inside(v) ? -x : x;
            store(against + v, away);
            store(e + v, exp_<F>(-magnitude<F>(x)));
            store(power + v, raised.of(larger(-away, (V){})));
        }
    }
    INLINE I inside(int64_t v) const { return dense ? load(dense + v) > (F)0 : (I)load((const F*)(label + v)) == own; }
};

template <class F, bool PAIR>
INLINE void forward_one_sided(const Channel<F, PAIR>& c, int64_t padded) {
    LANES;
    const OneSided<F, PAIR> y(c, c.gamma, padded);
    const F* const weight = c.t.masked ? c.t.weight : nullptr;
    V ce[2] = {}, labelled[2] = {};
    for (int64_t v = 0; v < padded; v += L::N) {
        const I inside = y.inside(v);
        V soft, term, w = all<F>(1);
        y.fall.of(load(y.e + v), soft, term);
        term *= load(y.power + v) * entropy_of<F>(soft, load(y.against + v));
        if (weight) w = load(weight + v), term *= w;
        add_unless(inside, labelled[0], w);
        add_where(inside, labelled[1], w);
        add_unless(inside, ce[0], term);
        add_where(inside, ce[1], term);
    }
    const int64_t K = c.t.c.channels;
    c.t.sums[CE * K + c.k] += ce[1], c.t.sums[LABELLED * K + c.k] += labelled[1];
    c.t.sums[(PAIR ? CE : REST) * K + (PAIR ? 0 : c.k)] += ce[0];
    if (PAIR) c.t.sums[LABELLED * K] += labelled[0];
    if (PAIR || c.k == 0) c.t.sums[SUMS * K] += labelled[0] + labelled[1];
}

template <class F, bool PAIR>
INLINE void backward_one_sided(const Channel<F, PAIR>& c, int64_t padded) {
    LANES;
    const OneSided<F, PAIR> y(c, c.gamma + 1, padded);
    const V gamma = all(c.gamma), in = all(-c.ce()), out = all(c.rest());
    const F* const weight = c.t.masked ? c.t.weight : nullptr;
    F *const to = c.t.out[c.k], *const to_other = c.t.out[0];
    for (int64_t v = 0; v < padded; v += L::N) {
        const V e = load(y.e + v), against = load(y.against + v);
        const I wrong = against >= (F)0;
        V soft, gradient;
        y.fall.of(e, soft, gradient);
        const V entropy = gamma * entropy_of<F>(soft, against);
        gradient *= load(y.power + v) * ((wrong ? entropy * e : entropy) + (wrong ? all<F>(1) : e));
        gradient *= y.inside(v) ? in : out;
        if (weight) gradient *= load(weight + v);
        store(to + v, gradient);
        if (PAIR) store(to_other + v, -gradient);
    }
}

template <bool REGION, bool ENTROPY, class F, bool PAIR>  // see as_wanted
INLINE void sum_binary(const Channel<F, PAIR>& c, Focus focus, int64_t padded) {
    LANES;
    const Tile<F>& t = c.t;
    const int64_t K = t.c.channels;
    const bool masked = t.masked, sides = REGION || takes_probabilities(focus);
    V right[2] = {}, wrong[2] = {}, ce[2] = {}, labelled[2] = {};  // outside and inside
    for (int64_t v = 0; v < padded; v += L::N) {
        Margin<F> y(c, v);
        if (sides) y.find_sides(t, v);
        V w = all<F>(1);
        if (masked) w = load(t.weight + v);
        add_unless(y.own, labelled[0], w);
        add_where(y.own, labelled[1], w);
        if (ENTROPY) {
            V term = entropy_of<F>(load(t.step(SOFT) + v), y.against);
            if (focus != EVEN) term *= raised(c, focus, y, v);
            if (masked) term *= w;
            add_unless(y.own, ce[0], term);
            add_where(y.own, ce[1], term);
        }
        if (REGION) {
            if (masked) y.right *= w, y.wrong *= w;
            add_unless(y.own, right[0], y.right);
            add_where(y.own, right[1], y.right);
            add_unless(y.own, wrong[0], y.wrong);
            add_where(y.own, wrong[1], y.wrong);
        }
    }
    V* sums = t.sums + c.k;
    sums[TP * K] += right[1], sums[FN * K] += wrong[1], sums[FP * K] += wrong[0], sums[TN * K] += right[0];
    sums[CE * K] += ce[1], sums[LABELLED * K] += labelled[1];
    if (PAIR) {
        sums = t.sums;
        sums[TP * K] += right[0], sums[FN * K] += wrong[0], sums[FP * K] += wrong[1], sums[TN * K] += right[1];
        sums[CE * K] += ce[0], sums[LABELLED * K] += labelled[0];
    } else
        sums[REST * K] += ce[0];
    if (PAIR || c.k == 0) t.sums[SUMS * K] += labelled[0] + labelled[1];
}

template <class F, bool PAIR>
void forward_binary(const Tile<F> t, int64_t padded) {
    const bool entropy = t.entropy(), region = t.region();
    for (int64_t i = 0; i < (PAIR ? 1 : t.c.channels); ++i) {
        const Channel<F, PAIR> c(t, i);
        if constexpr (HAS_FALL<F>)
            if (is_one_sided(c)) {
                forward_one_sided(c, padded);
                continue;
            }
        const Focus focus = binary_steps(c, padded, entropy);
        as_wanted(region, entropy, [&](auto of_region, auto of_entropy) INLINE_LAMBDA {
            sum_binary<decltype(of_region)::value, decltype(of_entropy)::value>(c, focus, padded);
        });
    }
}

template <class F, bool PAIR>
void backward_binary(const Tile<F> t, int64_t padded) {
    LANES;
    const bool region = t.region(), masked = t.masked;
    for (int64_t i = 0; i < (PAIR ? 1 : t.c.channels); ++i) {
        const Channel<F, PAIR> c(t, i);
        if constexpr (HAS_FALL<F>)
            if (is_one_sided(c)) {
                backward_one_sided(c, padded);
                continue;
            }
        const Focus focus = binary_steps(c, padded, c.focused());
        const V gamma = all(c.gamma), rest_gamma = all(c.rest_gamma), ce = all(c.ce()), rest = all(c.rest());
        const V inner = all(c.hit(c.k) - (PAIR ? c.alarm(0) : 0)), outer = all(c.alarm(c.k) - (PAIR ? c.hit(0) : 0));
        for (int64_t v = 0; v < padded; v += L::N) {
            Margin<F> y(c, v);
            y.find_sides(t, v);
            V slope = y.wrong;
            if (focus != EVEN) {
                slope += (y.own ? gamma : rest_gamma) * y.right * entropy_of<F>(load(t.step(SOFT) + v), y.against);
                slope *= raised(c, focus, y, v);
            }
            V gradient = (y.own ? -ce : rest) * slope;
            if (region) gradient += (y.own ? inner : outer) * y.right * y.wrong;
            if (masked) gradient *= load(t.weight + v);
            c.put(v, gradient);
        }
    }
}
