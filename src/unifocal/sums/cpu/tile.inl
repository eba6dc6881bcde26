// A tile of voxels.

const int64_t STEPS = 10;
const int64_t MOST = 512, LEAST = 64, ELEMENTS = 4096;  // of a tile: voxels, and voxels times channels
const int64_t SELECTED = 32;                            // more channels than these are many, see steps_of_many
const int64_t WAY = 4096, CACHE = 65536;  // rows so many bytes apart share the places of a line in the first and the second cache

INLINE int64_t tile_of(const Call& c) {
    const bool alone = c.activation == SIGMOID;  // channels, each worked on by itself
    const int64_t fit = (alone ? 16 : 1) * ELEMENTS / c.channels / LEAST * LEAST, most = c.dense && !alone ? MOST / 2 : MOST;
    return fit < LEAST ? LEAST : fit > most ? most : fit;
}

int64_t block_bytes(const Call& c) {
    const int64_t k = c.channels, tile = tile_of(c);
    const int64_t tiles = (3 * k + 2 + STEPS) * tile;                   // z, e, g; class and weight; steps
    const int64_t sums = (SUMS * k + 1) * (UNIFOCAL_BYTES / 4) * 3;     // float lanes and double lanes
    const int64_t constants = 8 * k;
    const int64_t rows = (3 * k * (int64_t)sizeof(void*) + 63) / 64 * 64;
    return ((tiles + sums + constants) * (is_double(c) ? 8 : 4) + rows + 1024) / 64 * 64;
}

// x^exponent for an exponent of 0, 1 or 2, or, if `rooted`, of 1/2
template <class F>
INLINE typename Lanes<F>::V simple_power(typename Lanes<F>::V x, typename Lanes<F>::V exponent, bool rooted) {
    const typename Lanes<F>::V y = exponent == (F)0 ? all<F>(1) : exponent == (F)1 ? x : x * x;
    if (!rooted) return y;
    return exponent == (F)0.5 ? root(x) : y;
}

// x(v)^exponent(v) of a row; x in [0, 1]. With AVX2 in two loops, as the processor does not look further ahead.
template <class F, class X, class E>
INLINE void raise_row(int64_t padded, X x, E exponent, F* to) {
    LANES;
#if UNIFOCAL_BYTES == 32
    if constexpr (sizeof(F) == 4) {
        alignas(64) float whole[MOST], part[MOST];
        for (int64_t v = 0; v < padded; v += L::N) {
            const Logarithm y(x(v), exponent(v));
            store(whole + v, y.whole);
            store(part + v, y.part);
        }
        for (int64_t v = 0; v < padded; v += L::N) store(to + v, Logarithm(whole + v, part + v).power());
        return;
    }
#endif
    for (int64_t v = 0; v < padded; v += L::N) store(to + v, pow_<F>(x(v), exponent(v)));
}

// Where the next tile lies in a tensor, and how many bytes its channels and its voxels are apart.
struct Next {
    const char* first;
    int64_t channel, voxel;

    INLINE void ask(int64_t k, int64_t v) const { __builtin_prefetch(first + k * channel + v * voxel); }
};

// Asks for what the next tile is going to read. Loops have one of their own, as with tiles.
struct Ahead {
    Next logits, labels;
    bool dense;  // else the labels have one row

    INLINE void operator()(int64_t k, int64_t v, int lanes) const {
        logits.ask(k, v);
        if (dense)
            labels.ask(k, v);
        else if (k == 0)
            for (int64_t i = 0; i < lanes * labels.voxel; i += 64) __builtin_prefetch(labels.first + v * labels.voxel + i);
    }
};

template <class F>
struct Tile {
    typedef Lanes<F> L;
    typedef typename L::V V;
    typedef typename L::Int Int;

    const Call& c;
    int64_t n, size;
    bool masked;       // do voxels of this tile have weights, 0 among them?
    bool foreign;      // is the label of a voxel that counts no class?
    F *z, *e, *g;      // K rows each: logits (later the gradient), exponentials, dense labels
    const F** rows;    // where the logits of each channel are: in z, or in the tensor itself
    const F** labels;  // the same of dense labels, in g
    F** out;           // where the gradient of each channel goes: to e, or to the tensor itself
    Ahead ahead;
    Int* label;        // channel of each voxel's class; -1: none, as the rest of one channel; -2: the label is no class
    F *weight, *steps;
    V* sums;           // (SUMS * K + 1) vectors of partial sums of a few tiles
    double* totals;    // the same of this block, lane by lane
    F *gamma, *rest_gamma, *a[LABELLED];  // K each; `a` is the upstream gradient
    bool focused, simple, rooted;  // is any gamma of this image other than 0; are all of them 0, 1/2, 1 or 2; is any 1/2?

    Tile(const Call& call, int64_t image, char* scratch) : c(call), n(image), size(tile_of(call)) {
        const int64_t k = c.channels;
        char* p = scratch;
        auto take = [&p](int64_t bytes) {
            char* here = p;
            p += (bytes + 63) / 64 * 64;
            return here;
        };
        z = (F*)take(k * size * sizeof(F));
        e = (F*)take(k * size * sizeof(F));
        g = (F*)take(k * size * sizeof(F));
        label = (Int*)take(size * sizeof(Int));
        weight = (F*)take(size * sizeof(F));
        steps = (F*)take(STEPS * size * sizeof(F));
        sums = (V*)take((SUMS * k + 1) * sizeof(V));
        totals = (double*)take((SUMS * k + 1) * L::N * sizeof(double));
        F* constants = (F*)take(8 * k * sizeof(F));
        rows = (const F**)take(k * sizeof(F*));
        labels = (const F**)take(k * sizeof(F*));
        out = (F**)take(k * sizeof(F*));
        gamma = constants;
        rest_gamma = constants + k;
        focused = false;
        simple = true;
        rooted = false;
        for (int64_t i = 0; i < k; ++i) {
            gamma[i] = (F)number(c.gamma, n, i);
            rest_gamma[i] = (F)number(c.rest_gamma, n, i);
            focused |= wants(CE) && gamma[i] != 0;
            simple &= is_simple(gamma[i]) && (!wants(REST) || is_simple(rest_gamma[i]));
            rooted |= gamma[i] == (F)0.5 || rest_gamma[i] == (F)0.5;
        }
        for (int s = 0; s < LABELLED; ++s) {
            a[s] = constants + (2 + s) * k;
            for (int64_t i = 0; i < k; ++i)
                a[s][i] = c.backward && c.wanted[s] >= 0
                              ? (F)number(c.upstream, 0, (c.wanted[s] * c.images + n) * k + i)
                              : (F)0;
        }
    }

    F* step(int i) const { return steps + i * size; }  // one of a few numbers that are kept for each voxel

    static bool is_simple(F exponent) { return exponent == 0 || exponent == (F)0.5 || exponent == 1 || exponent == 2; }

    bool wants(Sum s) const { return c.wanted[s] >= 0; }
    bool asked(int s) const { return s == LABELLED || c.wanted[s] >= 0; }
    bool entropy() const { return wants(CE) || wants(REST); }
    bool region() const { return wants(TP) || wants(FP) || wants(FN) || wants(TN); }

    // Softmax against the rest, and given probabilities: everything is read for every channel, weights always.
    bool general() const { return c.activation == NONE || (c.activation == SOFTMAX && (wants(REST) || (wants(TN) && !c.dense))); }
    bool binary() const { return c.activation == SIGMOID && (!c.dense || c.labels.dtype >= BOOL); }

    // Labels and weights of voxels v, v + 1, ...; padding weighs 0.
    void read_labels(int64_t v, int64_t count, int64_t padded) {
        const bool weighted = c.weights.data != nullptr;
        masked = weighted || c.ignores || count < padded;
        if (weighted)
            read_channel(c.weights, n, 0, v, count, padded, weight);
        else if (masked || general())
            for (int64_t i = 0; i < padded; ++i) weight[i] = i < count ? (F)1 : (F)0;
        if (c.dense) {
            for (int64_t k = 0; k < c.channels; ++k) {
                if (c.ignores) {
                    const char* from = at(c.labels, n, k, v);
#define IGNORE(T) ignore_row((const T*)from, c.labels.v, count);
                    FOR_INTEGER(c.labels.dtype, IGNORE)
#undef IGNORE
                }
                F* row = g + k * size;
                labels[k] = in_place(c.labels) ? (const F*)at(c.labels, n, k, v) : row;
                if (labels[k] == row) read_channel(c.labels, n, k, v, count, padded, row);
            }
            for (int64_t k = 0; masked && k < c.channels; ++k)
                for (int64_t i = 0; i < padded; ++i) g[k * size + i] = weight[i] > 0 ? g[k * size + i] : (F)0;
            return;
        }
        const char* from = at(c.labels, n, 0, v);
#define CLASS(T) read_classes((const T*)from, c.labels.v, count);
        FOR_INTEGER(c.labels.dtype, CLASS)
#undef CLASS
        for (int64_t i = count; i < padded; ++i) label[i] = 0;
        if (!masked) return;
        Int least = 0;
        for (int64_t i = 0; i < count; ++i) {
            label[i] = weight[i] > 0 ? label[i] : (Int)0;
            least = label[i] < least ? label[i] : least;
        }
        foreign = least < -1;
    }

    template <class T>
    void read_classes(const T* from, int64_t stride, int64_t count) {
        if (stride == 1)
            read_classes_of(from, 1, count);
        else
            read_classes_of(from, stride, count);
    }

    template <class T>
    INLINE void read_classes_of(const T* from, int64_t stride, int64_t count) {
        typedef typename std::make_unsigned<Int>::type Word;
        const Int first = c.channels == 1;
        const Word classes = (Word)(c.channels + first);
        Int* const to = label;
        uint64_t seen = 0;
        Int least = 0;
        if (sizeof(T) > sizeof(Word))  // the high halves of classes are 0, which one look at all of them together tells
            for (int64_t i = 0; i < count; ++i) {
                seen |= (uint64_t)from[i * stride];
                const Word word = (Word)from[i * stride];
                to[i] = word < classes ? (Int)word - first : (Int)-2;
                least = to[i] < least ? to[i] : least;
            }
        if (sizeof(T) <= sizeof(Word) || seen >> 32)
            for (int64_t i = 0; i < count; ++i) {
                const uint64_t wide = (uint64_t)(int64_t)from[i * stride], most = (Word)-1;
                const Word word = sizeof(T) <= sizeof(Word) ? (Word)(Int)from[i * stride] : (Word)(wide < most ? wide : most);
                to[i] = word < classes ? (Int)word - first : (Int)-2;
                least = to[i] < least ? to[i] : least;
            }
        foreign = least < -1;
        if (c.ignores)
            for (int64_t i = 0; i < count; ++i)
                if ((int64_t)from[i * stride] == c.ignore) weight[i] = 0;
    }

    template <class T>
    void ignore_row(const T* from, int64_t stride, int64_t count) {
        for (int64_t i = 0; i < count; ++i)
            if ((int64_t)from[i * stride] == c.ignore) weight[i] = 0;
    }

    // Reports what is odd about the labels of this tile.
    void watch(int64_t padded) const {
        int64_t odd = 0;
        if (c.dense)
            odd = c.channels == 1 ? odd_labels<1>(padded) : c.channels == 2 ? odd_labels<2>(padded) : odd_labels<0>(padded);
        else if (foreign)
            odd = FOREIGN;
        if (odd) __atomic_fetch_or(c.odd, odd, __ATOMIC_RELAXED);
    }

    template <int K>  // the number of channels, or 0 for any, which are read row by row
    INLINE int64_t odd_labels(int64_t padded) const {
        LANES;
        typename L::Bits largest = {};  // as numbers without sign the bits of negative ones, and of NaN, are beyond those of 1
        const V one = all<F>(1);
        V least = one, most = one;
        F* const total = step(0);
        for (int64_t k = 0; K == 0 && k < c.channels; ++k) {
            const F* const row = labels[k];
            for (int64_t v = 0; v < padded; v += L::N) {
                const V label = load(row + v);
                largest = larger(largest, (typename L::Bits)label);
                store(total + v, k ? load(total + v) + label : label);
            }
        }
        for (int64_t v = 0; v < padded; v += L::N) {
            V sum = load((K ? labels[0] : total) + v);
            if (K) largest = larger(largest, (typename L::Bits)sum);
            for (int64_t k = 1; k < K; ++k) {
                const V label = load(labels[k] + v);
                largest = larger(largest, (typename L::Bits)label);
                sum += label;
            }
            if (K == 1) continue;
            if (masked) sum = load(weight + v) > (F)0 ? sum : one;
            least = smaller(least, sum);
            most = larger(most, sum);
        }
        int64_t odd = any((I)(largest > (typename L::Bits)one)) ? FOREIGN : 0;
        if (any((most > 1 + (F)BALANCED) | (least < 1 - (F)BALANCED))) odd |= UNBALANCED;
        return odd;
    }

    void start_sums() {
        for (int64_t i = 0; i < width_of(c); ++i) sums[i] = (V){};
        for (int64_t i = 0; i < width_of(c) * L::N; ++i) totals[i] = 0;
    }

    // Moves the sums of some tiles to those of the block.
    void add_up() {
        for (int s = 0; s < SUMS; ++s)
            if (asked(s)) move_sums(s * c.channels, c.channels);
        move_sums(SUMS * c.channels, 1);
    }

    void move_sums(int64_t first, int64_t number) {
        F* const lanes = (F*)(sums + first);
        double* const to = totals + first * L::N;
        for (int64_t i = 0; i < number * L::N; ++i) to[i] += lanes[i];
        for (int64_t i = 0; i < number * L::N; ++i) lanes[i] = 0;
    }

    // Logits, 0 where a voxel weighs nothing; read in place where they lie as they are needed.
    void read_logits(int64_t v, int64_t count, int64_t padded) {
        const char* const here = at(c.x, n, 0, v);
        const int64_t apart = c.x.k * size_of(c.x.dtype);
        const bool shared = c.x.v == 1 && apart % WAY == 0;
        const bool copied = c.activation != SIGMOID && shared && c.channels > (c.dense ? 8 : SELECTED);
        ahead = {next_of(c.x, v), next_of(c.labels, v), c.dense != 0};
        if (copied && apart % CACHE == 0 && c.channels > SELECTED)  // they would drive each other out of the cache
            ahead.logits = {(const char*)z, 0, 0}, ahead.labels = c.dense ? ahead.logits : ahead.labels;
        for (int64_t k = 0; k < c.channels; ++k) {
            F* row = z + k * size;
            rows[k] = in_place(c.x) && !copied ? (const F*)(here + k * apart) : row;
            if (rows[k] != row) continue;
            if (copied) soon<false>(c.x, v, count, k);
            read_channel(c.x, n, k, v, count, padded, row);
            if (masked)
                for (int64_t i = 0; i < padded; ++i) row[i] = weight[i] > 0 ? row[i] : (F)0;
        }
    }

    Next next_of(const View& view, int64_t v) const {
        const int64_t bytes = size_of(view.dtype);
        return {at(view, n, 0, v + size), view.k * bytes, view.v * bytes};
    }

    bool in_place(const View& view) const {
        return view.dtype == (sizeof(F) == 8 ? F64 : F32) && view.v == 1 && !masked;
    }

    // Asks for the row that is read or written in a moment, with the first row for those between, too. No row beyond the
    // last: to look for a page that is not there takes long.
    template <bool WRITTEN>
    INLINE void soon(const View& view, int64_t v, int64_t count, int64_t k) const {
        const int64_t bytes = size_of(view.dtype), length = count * bytes;
        const char* const first = view.data + (n * view.n + v) * bytes;
        for (int64_t j = k ? k + 3 : 0; j <= k + 3 && j < c.channels; ++j)
            for (int64_t i = 0; i < length; i += 64) __builtin_prefetch(first + j * view.k * bytes + i, WRITTEN);
    }

    void place_gradient(int64_t v, int64_t count, int64_t padded) {
        const bool same = c.gradient.dtype == (sizeof(F) == 8 ? F64 : F32);
        const bool apart = c.channels > 16 && c.activation != SIGMOID;  // better one row after the other than side by side
        const bool in_place = same && c.gradient.v == 1 && count == padded && !apart;
        for (int64_t k = 0; k < c.channels; ++k)
            out[k] = in_place ? (F*)at(c.gradient, n, k, v) : e + k * size;
    }

    void write_gradient(int64_t v, int64_t count) {
        if (out[0] != e) return;
        for (int64_t k = 0; k < c.channels; ++k) {
            if (c.gradient.v == 1) soon<true>(c.gradient, v, count, k);
            write_channel(c.gradient, n, k, v, count, out[k]);
        }
    }
};

// A loop for each of what may be wanted, told to `sum` as types: the sums of all of it are more than there are registers.
template <class Sum>
INLINE void as_wanted(bool region, bool entropy, const Sum& sum) {
    if (region && entropy)
        sum(std::true_type(), std::true_type());
    else if (region)
        sum(std::true_type(), std::false_type());
    else
        sum(std::false_type(), std::true_type());
}

// Exponents of 0, 1/2, 1, 2; different ones of these; or any, and a step of its own.
enum Focus { EVEN, HALF, LINEAR, SQUARE, SIMPLE, ANY };

template <class F>
INLINE Focus focus_of(F exponent) {
    return exponent == 0 ? EVEN : exponent == (F)0.5 ? HALF : exponent == 1 ? LINEAR : exponent == 2 ? SQUARE : ANY;
}

INLINE bool takes_probabilities(Focus focus) { return focus != EVEN && focus != ANY; }

template <class F>
INLINE typename Lanes<F>::V focused(Focus focus, typename Lanes<F>::V x, const F* power) {
    return focus == SQUARE ? x * x : focus == LINEAR ? x : focus == HALF ? root(x) : load(power);
}
