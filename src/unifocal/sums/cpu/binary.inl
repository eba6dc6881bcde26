// What sigmoid and softmax over two channels have in common.
//
// Softmax over two channels is the sigmoid of what the second leads by, where the rest is the first. Of a logit z,
// e = e^-|z| and soft = log(1 + e): the likelier side has the probability 1 / (1 + e) and the entropy soft, the other one
// e / (1 + e) and soft + |z|.

enum Side { DECAY, SOFT, POWER, REST_POWER, AGAINST, FALLEN };  // steps: e, soft, and q^gamma and p^rest_gamma where they are no products

// A channel against its rest; of a PAIR the second against the first.
template <class F, bool PAIR>
struct Channel {
    const Tile<F>& t;
    int64_t k;
    const F* z;
    F gamma, rest_gamma;  // exponents of inside and outside

    INLINE Channel(const Tile<F>& tile, int64_t channel) : t(tile), k(PAIR ? 1 : channel), z(PAIR ? t.z : t.rows[k]) {
        gamma = t.wants(CE) ? t.gamma[k] : 0;
        rest_gamma = PAIR ? (t.wants(CE) ? t.gamma[0] : 0) : t.wants(REST) ? t.rest_gamma[k] : 0;
    }
    INLINE bool focused() const { return gamma != 0 || rest_gamma != 0; }

    // Upstream gradients: of the entropies inside and outside; of the region sums to the probability of a channel, for the
    // voxels that are labelled with it and for the others.
    INLINE F ce() const { return t.a[CE][k]; }
    INLINE F rest() const { return PAIR ? t.a[CE][0] : t.a[REST][k]; }
    INLINE F hit(int64_t channel) const { return t.a[TP][channel] - t.a[FN][channel]; }
    INLINE F alarm(int64_t channel) const { return t.a[FP][channel] - t.a[TN][channel]; }

    // The gradient to z is one to the second channel, and its opposite to the first.
    INLINE void put(int64_t v, typename Lanes<F>::V gradient) const {
        store(t.out[k] + v, gradient);
        if (PAIR) store(t.out[0] + v, -gradient);
    }

    // Fills DECAY, and SOFT if wanted.
    INLINE void find_sides(int64_t padded, bool entropy) const {
        LANES;
        const Ahead ahead = t.ahead;
        for (int64_t v = 0; v < padded; v += L::N) {
            V x;
            ahead(k, v, L::N);
            if (PAIR) {
                ahead(0, v, L::N);
                x = load(t.rows[1] + v) - load(t.rows[0] + v);
                store(t.z + v, x);
            } else
                x = load(z + v);
            store(t.step(DECAY) + v, exp_<F>(-larger(x, -x)));
        }
        if (entropy)
            for (int64_t v = 0; v < padded; v += L::N) store(t.step(SOFT) + v, log1p_unit(load(t.step(DECAY) + v)));
    }
};

// -log of the probability that the logit `against` speaks against
template <class F>
INLINE typename Lanes<F>::V entropy_of(typename Lanes<F>::V soft, typename Lanes<F>::V against) {
    return smaller(soft + larger(against, (typename Lanes<F>::V){}), all(Lanes<F>::HUGE_LOG));
}
