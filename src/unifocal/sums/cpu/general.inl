// Given probabilities, and softmax of channels that are each read against the rest: a label in [0, 1] for each channel.

template <class F>
struct Probability {
    typename Lanes<F>::V p, q, log_p, log_q;  // the logarithms are negated
};

template <class F>
INLINE Probability<F> given(typename Lanes<F>::V x) {
    LANES;
    const V p = smaller(larger(x, all<F>((F)1e-7)), all<F>((F)1 - (F)1e-7));
    return {p, (F)1 - p, -log_<F>(p), -log1p_<F>(-p)};
}

// A vector of voxels under softmax: `first` is the channel with the maximum, the only one that can be close to 1.
template <class F>
struct Channels {
    typedef typename Lanes<F>::V V;
    typedef typename Lanes<F>::I I;
    typedef typename Lanes<F>::Int Int;
    I first;
    V top, others, scale, log_total;
    V second, share, log_others;  // maximum, 1 / sum and log-sum without that channel, where -log(1 - p) is wanted

    INLINE Channels(const Tile<F>& t, int64_t v, bool without_first) {
        const int64_t K = t.c.channels, S = t.size;
        top = load(t.rows[0] + v);
        const V lowest = all(-Lanes<F>::HUGE_LOG);  // stands for a logit of -inf among the others
        second = lowest;
        first = (I){};
        for (int64_t k = 1; k < K; ++k) {
            const V z = load(t.rows[k] + v);
            const I higher = z > top;
            second = higher ? top : larger(z, second);
            top = higher ? z : top;
            first = higher ? all_int<F>((Int)k) : first;
        }
        second = larger(second, lowest);
        others = (V){};
        V rest = {};
        for (int64_t k = 0; k < K; ++k) {
            const V z = load(t.rows[k] + v), e = exp_<F>(z - top);
            const I is_first = first == (Int)k;
            store(t.e + k * S + v, e);
            add_unless(is_first, others, e);
            if (without_first) add_unless(is_first, rest, exp_<F>(larger(z, lowest) - second));
        }
        scale = inverse((F)1 + others);
        log_total = log1p_<F>(others);
        if (without_first) {
            share = inverse(rest);
            log_others = (second - top) + log_<F>(rest);
        }
    }

    INLINE Probability<F> of(const Tile<F>& t, int64_t v, int64_t k, bool wants_log_q) const {
        const I is_first = first == (Int)k;
        const V most = all(Lanes<F>::HUGE_LOG), p = load(t.e + k * t.size + v) * scale;
        Probability<F> y = {p, is_first ? others * scale : (F)1 - p, {}, {}};
        y.log_p = smaller(log_total + (top - load(t.rows[k] + v)), most);
        if (wants_log_q) y.log_q = smaller(is_first ? log_total - log_others : -log1p_<F>(is_first ? (V){} : -p), most);
        return y;
    }
};

template <class F>
INLINE Probability<F> probability(const Tile<F>& t, const Channels<F>* channels, int64_t v, int64_t k) {
    return channels ? channels->of(t, v, k, t.wants(REST)) : given<F>(load(t.rows[k] + v));
}

template <class F>
INLINE typename Lanes<F>::V label_of(const Tile<F>& t, int64_t v, int64_t k) {
    LANES;
    if (t.c.dense) return load(t.labels[k] + v);
    return (I)load((const F*)(t.label + v)) == (Int)k ? all<F>(1) : (V){};
}

// q^gamma for the inside and p^rest_gamma for the outside; a hard label is on one side only and needs one power.
template <class F>
INLINE void powers(const Tile<F>& t, int64_t k, const Probability<F>& y, typename Lanes<F>::V g, typename Lanes<F>::V& q_power,
                   typename Lanes<F>::V& p_power) {
    LANES;
    const F gamma = t.wants(CE) ? t.gamma[k] : 0, rest_gamma = t.wants(REST) ? t.rest_gamma[k] : 0;
    q_power = p_power = all<F>(1);
    if (!t.c.dense && gamma != 0 && rest_gamma != 0) {
        const I own = g > (F)0;
        q_power = p_power = pow_<F>(own ? y.q : y.p, own ? all(gamma) : all(rest_gamma));
        return;
    }
    if (gamma != 0) q_power = pow_<F>(y.q, all(gamma));
    if (rest_gamma != 0) p_power = pow_<F>(y.p, all(rest_gamma));
}

template <class F>
INLINE void forward_voxels(const Tile<F>& t, const Channels<F>* channels, int64_t v) {
    LANES;
    const int64_t K = t.c.channels;
    const V w = load(t.weight + v);
    for (int64_t k = 0; k < K; ++k) {
        const Probability<F> y = probability(t, channels, v, k);
        V p = y.p, q = y.q, q_power, p_power;
        if (t.c.activation == NONE && !t.c.clip) {
            p = smaller(larger(load(t.rows[k] + v), (V){}), all<F>(1));
            q = (F)1 - p;
        }
        const V g = label_of(t, v, k), in = w * g, out = w * ((F)1 - g);
        powers(t, k, y, g, q_power, p_power);
        auto add = [&](Sum s, V term) { t.sums[s * K + k] += term; };
        if (t.wants(TP)) add(TP, in * p);
        if (t.wants(FP)) add(FP, out * p);
        if (t.wants(FN)) add(FN, in * q);
        if (t.wants(TN)) add(TN, out * q);
        if (t.wants(CE)) add(CE, in * q_power * y.log_p);
        if (t.wants(REST)) add(REST, out * p_power * y.log_q);
        add(LABELLED, in);
    }
    t.sums[SUMS * K] += w;
}

template <class F>
void forward_any(const Tile<F> t, int64_t padded) {
    for (int64_t v = 0; v < padded; v += Lanes<F>::N)
        if (t.c.activation == SOFTMAX) {
            const Channels<F> channels(t, v, t.wants(REST));
            forward_voxels<F>(t, &channels, v);
        } else
            forward_voxels<F>(t, nullptr, v);
}

template <class F>
INLINE void backward_given(const Tile<F>& t, int64_t v) {
    LANES;
    const V w = load(t.weight + v);
    for (int64_t k = 0; k < t.c.channels; ++k) {
        const Probability<F> y = probability<F>(t, nullptr, v, k);
        const V g = label_of(t, v, k), in = w * g, out = w * ((F)1 - g);
        const V tilt = in * (t.a[TP][k] - t.a[FN][k]) + out * (t.a[FP][k] - t.a[TN][k]);
        V q_power, p_power, gradient;
        powers(t, k, y, g, q_power, p_power);
        const V down = in * t.a[CE][k] * q_power, up = out * t.a[REST][k] * p_power;
        const F gamma = t.gamma[k], rest_gamma = t.rest_gamma[k];
        gradient = tilt - down * (gamma * y.log_p / y.q + (F)1 / y.p) + up * (rest_gamma * y.log_q / y.p + (F)1 / y.q);
        if (t.c.gradient.dtype == F16) gradient = smaller(larger(gradient, all<F>(-65504)), all<F>(65504));
        store(t.out[k] + v, gradient);
    }
}

// With f_k = p_k dL/dp_k the gradient is f_k q_k - p_k (sum of the other f). Of the first channel's f the part up p / q
// is kept apart: there p_k / q is the share of channel k among the others, which must not be lost where q is 0.
template <class F>
INLINE void backward_coupled(const Tile<F>& t, int64_t v) {
    LANES;
    const int64_t K = t.c.channels, S = t.size;
    const bool rest = t.wants(REST);
    const Channels<F> channels(t, v, rest);
    const V w = load(t.weight + v);
    V first_force = {}, others = {}, odds = {};
    for (int64_t k = 0; k < K; ++k) {
        const Probability<F> y = channels.of(t, v, k, rest);
        const I is_first = channels.first == (Int)k;
        const V g = label_of(t, v, k), in = w * g, out = w * ((F)1 - g);
        const V tilt = in * (t.a[TP][k] - t.a[FN][k]) + out * (t.a[FP][k] - t.a[TN][k]);
        V q_power, p_power;
        powers(t, k, y, g, q_power, p_power);
        const V down = in * t.a[CE][k] * q_power;
        V force = tilt * y.p - down * (t.gamma[k] * y.p * (y.log_p / larger(y.q, all(L::TINY))) + (F)1);
        if (rest) {
            const V up = out * t.a[REST][k] * p_power;
            force += up * (t.rest_gamma[k] * y.log_q + (is_first ? (V){} : y.p / y.q));
            odds = is_first ? up * y.p : odds;
        }
        first_force = is_first ? force : first_force;
        add_unless(is_first, others, force);
        store(t.g + k * S + v, force);
    }
    for (int64_t k = 0; k < K; ++k) {
        const I is_first = channels.first == (Int)k;
        const V p = load(t.e + k * S + v) * channels.scale, force = load(t.g + k * S + v);
        V gradient = is_first ? force * (channels.others * channels.scale) - p * others
                              : force - p * (first_force + others);
        if (rest) {
            const V z = larger(load(t.rows[k] + v), all(-L::HUGE_LOG));
            const V share = exp_<F>(z - channels.second) * channels.share;
            gradient += is_first ? odds : -(odds * share);
        }
        store(t.out[k] + v, gradient);
    }
}

template <class F>
void backward_any(const Tile<F> t, int64_t padded) {
    for (int64_t v = 0; v < padded; v += Lanes<F>::N)
        if (t.c.activation == SOFTMAX)
            backward_coupled(t, v);
        else
            backward_given(t, v);
}
