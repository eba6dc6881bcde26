// Volumes and surfaces of masks.
//
// The mask of a channel is its label; of channel 0 of several it is everything but that label. The gradient of a mask is
// a central difference inside and a one-sided one at the border: with the neighbour beyond the border replaced by the
// voxel itself, both are (next - previous) times 1 / (2 size) or 1 / size.

// A slab of planes and where it lies in an image.
struct Slab {
    const Masks& m;
    int64_t n, begin, end, from, to;  // planes whose masks are summed; and those that are read

    Slab(const Masks& masks, int64_t image, int64_t index) : m(masks), n(image) {
        begin = index * planes_of(m);
        end = begin + planes_of(m) < m.a ? begin + planes_of(m) : m.a;
        from = begin > 0 ? begin - 1 : 0;
        to = end < m.a ? end + 1 : m.a;
    }

    static double square(double step, bool edge) {  // of a difference of 1
        const double factor = edge ? step : step / 2;
        return factor * factor;
    }

    const char* row(const Masks::Volume& t, int64_t k, int64_t a, int64_t b) const {
        return t.data + (n * t.n + k * t.k + a * t.a + b * t.b) * size_of(t.dtype);
    }

    bool inverse(int64_t k) const { return k == 0 && m.channels > 1; }

    // Weights of a row, 0 where it is ignored and up to `pitch` behind its end.
    template <class F>
    void read_weights(int64_t a, int64_t b, int64_t pitch, F* to) const {
        for (int64_t i = 0; i < m.c; ++i) to[i] = 1;
        if (m.weights.data) {
            const char* from = row(m.weights, 0, a, b);
#define READ(T) read_row((const T*)from, m.weights.c, m.c, to);
            FOR_DTYPE(m.weights.dtype, READ)
#undef READ
        }
        for (int64_t i = m.c; i < pitch; ++i) to[i] = 0;
        if (!m.ignores) return;
        for (int64_t k = 0; k < (m.dense ? m.channels : 1); ++k) {
            const char* from = row(m.labels, k, a, b);
#define IGNORE(T) ignore_voxels((const T*)from, to);
            FOR_INTEGER(m.labels.dtype, IGNORE)
#undef IGNORE
        }
    }

    template <class T, class F>
    void ignore_voxels(const T* from, F* to) const {
        for (int64_t i = 0; i < m.c; ++i)
            if ((int64_t)from[i * m.labels.c] == m.ignore) to[i] = 0;
    }

    template <class T>
    void mark_ignored(const T* from, uint8_t* to) const {
        const int64_t count = m.c, stride = m.labels.c, ignored = m.ignore;
        for (int64_t i = 0; i < count; ++i) to[i] = (int64_t)from[i * stride] == ignored;
    }
};

// Of class indices a mask is a bit for each voxel, 64 in a word. Along an axis it changes where the bits of two neighbours
// differ, so a slope has one of 8 lengths, and it is counted how often each occurs.

INLINE uint64_t equal(const uint8_t* codes, uint8_t code) {  // of 64
#if UNIFOCAL_BYTES == 64
    return _mm512_cmpeq_epi8_mask(_mm512_loadu_si512(codes), _mm512_set1_epi8((char)code));
#elif UNIFOCAL_BYTES == 32
    const __m256i own = _mm256_set1_epi8((char)code);
    const __m256i low = _mm256_cmpeq_epi8(_mm256_loadu_si256((const __m256i*)codes), own);
    const __m256i high = _mm256_cmpeq_epi8(_mm256_loadu_si256((const __m256i*)(codes + 32)), own);
    return (uint32_t)_mm256_movemask_epi8(low) | (uint64_t)(uint32_t)_mm256_movemask_epi8(high) << 32;
#else
    const uint64_t ones = 0x0101010101010101, most = 0x7f * ones;
    uint64_t found = 0, eight;
    for (int i = 0; i < 8; ++i) {
        std::memcpy(&eight, codes + 8 * i, 8);
        eight ^= code * ones;                                // 0 where equal
        eight = ~(((eight & most) + most) | eight | most);   // 128 there, 0 elsewhere
        found |= ((eight >> 7) * 0x0102040810204080 >> 56) << 8 * i;
    }
    return found;
#endif
}

template <class F>
struct HardSlab : Slab {
    int64_t words, pitch, rows;  // of a row; voxels of a row of codes or weights; rows that are read
    bool weighted;
    uint8_t *codes, *off;        // class of every voxel, from the first of those at hand; of one row, what does not count
    uint64_t *valid, *bits;      // what counts, and the mask of one channel
    uint64_t last;               // the last voxel in the last word of a row
    F* weight;
    static const int64_t NONE = 255;  // code of any other class, and how many there can be at a time

    static int64_t bytes(const Masks& m) {
        const int64_t words = (m.c + 63) / 64, rows = (planes_of(m) + 2) * m.b;
        return rows * words * 64 * (1 + (m.weights.data ? sizeof(F) : 0)) + rows * words * 16 + words * 64;
    }

    HardSlab(const Masks& m, int64_t image, int64_t index, char* scratch) : Slab(m, image, index) {
        words = (m.c + 63) / 64;
        pitch = words * 64;
        rows = (to - from) * m.b;
        weighted = m.weights.data != nullptr;
        last = 1ull << (m.c - 1) % 64;
        codes = (uint8_t*)scratch;
        off = codes + rows * pitch;
        valid = (uint64_t*)(off + pitch);
        bits = valid + rows * words;
        weight = (F*)(bits + rows * words);
    }

    int64_t row_of(int64_t a, int64_t b) const { return (a - from) * m.b + b; }

    template <class T>
    void read_codes(const T* from, int64_t first, uint8_t* to) {
        if (m.labels.c == 1)
            read_codes_of(from, 1, first, to);
        else
            read_codes_of(from, m.labels.c, first, to);
        for (int64_t i = m.c; i < pitch; ++i) to[i] = NONE;
    }

    template <class T>
    INLINE void read_codes_of(const T* from, int64_t stride, int64_t first, uint8_t* to) {
        typedef typename std::make_unsigned<T>::type Word;
        const uint64_t top = (uint64_t)std::numeric_limits<T>::max(), left = top < (uint64_t)first ? 0 : top - first + 1;
        const Word classes = (Word)(left < (uint64_t)NONE ? left : (uint64_t)NONE);
        const int64_t count = m.c;  // a store of bytes may change any other variable
        for (int64_t i = 0; i < count; ++i) {
            const Word code = (Word)((Word)from[i * stride] - (Word)first);
            to[i] = code < classes ? (uint8_t)code : (uint8_t)NONE;
        }
    }

    // Of a row: its weights, and a bit for each voxel that counts.
    void read_valid(int64_t a, int64_t b) {
        const int64_t count = m.c;
        uint64_t* to = valid + row_of(a, b) * words;
        for (int64_t i = 0; i < words; ++i) to[i] = i < words - 1 ? ~0ull : 2 * last - 1;
        if (!weighted && !m.ignores) return;
        if (weighted) {
            F* w = weight + row_of(a, b) * pitch;
            this->read_weights(a, b, pitch, w);
            for (int64_t i = 0; i < count; ++i) off[i] = !(w[i] > 0);
        } else {
            const char* from = this->row(m.labels, 0, a, b);
#define IGNORE(T) this->mark_ignored((const T*)from, off);
            FOR_INTEGER(m.labels.dtype, IGNORE)
#undef IGNORE
        }
        for (int64_t i = 0; i < words; ++i) to[i] &= equal(off + 64 * i, 0);
    }

    double total(uint64_t voxels, const F* w) const {  // weight of those of a word
        if (!weighted) return __builtin_popcountll(voxels);
        double sum = 0;
        for (; voxels; voxels &= voxels - 1) sum += w[__builtin_ctzll(voxels)];
        return sum;
    }

    void read_mask(int64_t k, uint8_t code) {
        for (int64_t i = 0; i < rows * words; ++i) {
            const uint64_t own = equal(codes + 64 * i, code);
            bits[i] = (this->inverse(k) ? ~own : own) & valid[i];
        }
    }

    // Adds volume and surface of the mask of a channel.
    void add(double& volume, double& surface) const {
        double found[2][2][2][8] = {};  // at an end of A, of B, of C or inside; and along which of A, B and C the mask changes
        for (int64_t a = begin; a < end; ++a)
            for (int64_t b = 0; b < m.b; ++b) {
                const uint64_t* here = bits + row_of(a, b) * words;
                const uint64_t *up = a > 0 ? here - m.b * words : here, *down = a < m.a - 1 ? here + m.b * words : here;
                const uint64_t *left = b > 0 ? here - words : here, *right = b < m.b - 1 ? here + words : here;
                auto& lengths = found[up == here || down == here][left == here || right == here];
                for (int64_t i = 0; i < words; ++i) {
                    const bool ends = i == words - 1;
                    const uint64_t next = here[i] >> 1 | (ends ? here[i] & last : here[i + 1] << 63);
                    const uint64_t previous = here[i] << 1 | (i ? here[i - 1] >> 63 : here[i] & 1);
                    const uint64_t da = up[i] ^ down[i], db = left[i] ^ right[i], dc = next ^ previous;
                    const F* w = weight + row_of(a, b) * pitch + 64 * i;
                    volume += total(here[i], w);
                    uint64_t changes = (da | db | dc) & valid[row_of(a, b) * words + i];
                    if (!changes) continue;
                    auto at_end = [&](uint64_t voxel) {
                        const int along = (da & voxel ? 4 : 0) | (db & voxel ? 2 : 0) | (dc & voxel ? 1 : 0);
                        lengths[1][along] += total(changes & voxel, w);
                        changes &= ~voxel;
                    };
                    if (i == 0) at_end(1);
                    if (ends) at_end(last);
#pragma GCC unroll 8
                    for (int along = 1; along < 8; ++along) {
                        const uint64_t alike = (along & 4 ? da : ~da) & (along & 2 ? db : ~db) & (along & 1 ? dc : ~dc);
                        lengths[0][along] += total(alike & changes, w);
                    }
                }
            }
        for (int i = 0; i < 64; ++i) {
            auto part = [&](int axis, int change, int end) {
                return i & change ? square(m.step[axis], i & end) : 0;
            };
            const double number = (&found[0][0][0][0])[i];
            if (number > 0) surface += number * __builtin_sqrt(part(0, 4, 32) + part(1, 2, 16) + part(2, 1, 8));
        }
    }

    void run(double* sums) {
        for (int64_t a = from; a < to; ++a)
            for (int64_t b = 0; b < m.b; ++b) read_valid(a, b);
        for (int64_t i = 0; i < (end - begin) * m.b * words; ++i)
            sums[2 * m.channels] += total(valid[row_of(begin, 0) * words + i], weight + row_of(begin, 0) * pitch + 64 * i);
        for (int64_t k = 0; k < m.channels; ++k) {
            if (k % NONE == 0)
                for (int64_t a = from; a < to; ++a)
                    for (int64_t b = 0; b < m.b; ++b) {
                        const char* row = this->row(m.labels, 0, a, b);
#define CODES(T) read_codes((const T*)row, k + (m.channels == 1), codes + row_of(a, b) * pitch);
                        FOR_INTEGER(m.labels.dtype, CODES)
#undef CODES
                    }
            read_mask(k, (uint8_t)(k % NONE));
            add(sums[k], sums[m.channels + k]);
        }
    }
};

// Soft labels: a row of voxels at a time.
template <class F>
struct SoftSlab : Slab {
    typedef Lanes<F> L;
    typedef typename L::V V;
    int64_t pitch, plane;        // elements of a padded row, and of a plane of such rows
    F *mask, *weight, *squared;  // of one channel; of every voxel, or of a row where all are alike; (1 / (2 size))^2 along C
    bool alike, in_place;        // does every voxel weigh 1, and are labels used where they are?
    F square_a[2], square_b[2];  // the same along A and B, inside and at the edge
    static const int64_t MOST_WAITING = 64;  // vectors that are added up before they go to double
    static const bool QUICK = UNIFOCAL_BYTES == 64 && sizeof(F) == 4;  // is a root done sooner than it is known to be needed?

    static int64_t pitch_of(const Masks& m) { return (m.c + 3 * L::N) / L::N * L::N; }

    static int64_t bytes(const Masks& m) {
        return (2 * (planes_of(m) + 2) * m.b + 1) * pitch_of(m) * (int64_t)sizeof(F);
    }

    SoftSlab(const Masks& m, int64_t image, int64_t index, char* scratch) : Slab(m, image, index) {
        pitch = pitch_of(m);
        plane = pitch * m.b;
        const int64_t all_planes = (planes_of(m) + 2) * plane;
        weight = (F*)scratch;
        mask = weight + all_planes;
        squared = mask + all_planes;
        alike = !m.weights.data && !m.ignores;
        in_place = alike && m.labels.dtype == (sizeof(F) == 8 ? F64 : F32) && m.labels.c == 1;
        for (int edge = 0; edge < 2; ++edge) {
            square_a[edge] = (F)square(m.step[0], edge);
            square_b[edge] = (F)square(m.step[1], edge);
        }
        for (int64_t i = 0; i < pitch; ++i) squared[i] = i < m.c ? (F)square(m.step[2], i == 0 || i == m.c - 1) : (F)0;
        for (int64_t i = 0; i < pitch; ++i) weight[i] = i < m.c ? (F)1 : (F)0;
    }

    F* place(F* planes, int64_t a, int64_t b) const { return planes + (a - from) * plane + b * pitch + L::N; }
    F* weights(int64_t a, int64_t b) const { return alike ? weight : place(weight, a, b) - L::N; }

    // The mask of channel k in a row, its ends repeated once beyond them; if all voxels are alike its labels, which have
    // the same slopes.
    void read_mask(int64_t k, int64_t a, int64_t b, const F* w, F* to) {
        const char* from = this->row(m.labels, k, a, b);
#define READ(T) read_row((const T*)from, m.labels.c, m.c, to);
        FOR_DTYPE(m.labels.dtype, READ)
#undef READ
        const bool inverse = this->inverse(k);
        for (int64_t i = 0; !alike && i < m.c; ++i) to[i] = w[i] > 0 ? (inverse ? 1 - to[i] : to[i]) : 0;
        repeat_ends(to);
    }

    void repeat_ends(F* row) const {
        row[-1] = row[0];
        store(row + m.c, all(row[m.c - 1]));
    }

    // A row and those around it along A and along B; of all m.c numbers are read, and `padded` is it with its ends repeated.
    struct Row {
        const F *w, *own, *padded, *up, *down, *left, *right;
        F square_a, square_b;
    };

    // FLAT: without left and right. The mask is sign * own + offset.
    template <bool FLAT>
    INLINE void soft_row(const Row& row, F sign, F offset, V& volume, V& surface) {
        LANES;
        const F* const along_c = squared;
        auto add = [&](int64_t c, bool weighs_one, auto part) INLINE_LAMBDA {
            const V da = part(row.down + c) - part(row.up + c);
            const V dc = load(row.padded + c + 1) - load(row.padded + c - 1);
            V square = da * da * row.square_a + dc * dc * load(along_c + c);
            if (!FLAT) {
                const V db = part(row.right + c) - part(row.left + c);
                square += db * db * row.square_b;
            }
            const V inside = sign * part(row.own + c) + offset;
            volume += weighs_one ? inside : inside * load(row.w + c);
            if (QUICK || any(square != (F)0))
                surface += weighs_one ? quick_root(square) : load(row.w + c) * quick_root(square);
        };
        auto whole = [](const F* p) INLINE_LAMBDA { return load(p); };
        const int64_t count = m.c;
        int64_t c = 0;
        if (alike)
            for (; c + L::N <= count; c += L::N) add(c, true, whole);
        else
            for (; c + L::N <= count; c += L::N) add(c, false, whole);
        if (c < count)
            add(c, false, [&](const F* p) INLINE_LAMBDA {  // 0 behind the end
                V y = {};
                for (int64_t i = 0; i < count - c; ++i) y[i] = p[i];
                return y;
            });
    }

    // Adds volume and surface of a channel, whose row (a, b) is at origin + a * along_a + b * along_b.
    void add_channel(int64_t k, const F* origin, int64_t along_a, int64_t along_b, double* sums) {
        const F sign = alike && this->inverse(k) ? -1 : 1, offset = sign < 0 ? 1 : 0;
        // A row is padded while the one before is worked on: what was just stored cannot be loaded shifted without a wait.
        const F* next = in_place ? padded(origin + begin * along_a, 0) : nullptr;
        V volume = {}, surface = {};
        double volumes[L::N] = {}, surfaces[L::N] = {};  // to which those are added before they lose digits
        int64_t waiting = 0;                             // vectors of voxels that they hold
        for (int64_t row_number = 0, rows = (end - begin) * m.b, a = begin, b = 0; row_number < rows; ++row_number) {
            const F *here = origin + a * along_a + b * along_b, *own = here;
            if (in_place) {
                own = next;
                if (b < m.b - 1)
                    next = padded(here + along_b, (row_number + 1) % 2);
                else if (a < end - 1)
                    next = padded(origin + (a + 1) * along_a, (row_number + 1) % 2);
            }
            Row row = {weights(a, b), here, own, a > 0 ? here - along_a : here, a < m.a - 1 ? here + along_a : here,
                       b > 0 ? here - along_b : here, b < m.b - 1 ? here + along_b : here, 0, 0};
            row.square_a = square_a[row.up == here || row.down == here];
            row.square_b = square_b[row.left == here || row.right == here];
            if (m.a == 1) {
                row.up = row.left, row.down = row.right, row.square_a = row.square_b;
                soft_row<true>(row, sign, offset, volume, surface);
            } else if (m.b == 1)
                soft_row<true>(row, sign, offset, volume, surface);
            else
                soft_row<false>(row, sign, offset, volume, surface);
            if (++b == m.b) b = 0, ++a;
            waiting += m.c / L::N + 1;
            if (waiting < MOST_WAITING && row_number < rows - 1) continue;
            for (int i = 0; i < L::N; ++i) volumes[i] += volume[i], surfaces[i] += surface[i];
            volume = surface = (V){};
            waiting = 0;
        }
        for (int i = 0; i < L::N; ++i) sums[k] += volumes[i], sums[m.channels + k] += surfaces[i];
    }

    F* padded(const F* from, int64_t place) {  // a row with its ends repeated once beyond them
        F* to = mask + place * pitch + L::N;
        const int64_t count = m.c;
        int64_t i = 0;
        for (; i + L::N <= count; i += L::N) store(to + i, load(from + i));
        for (; i < count; ++i) to[i] = from[i];
        repeat_ends(to);
        return to;
    }

    double total(const F* row) const {
        double sums[4] = {};
        for (int64_t i = 0; i < pitch; ++i) sums[i % 4] += row[i];  // 0 behind the end
        return (sums[0] + sums[1]) + (sums[2] + sums[3]);
    }

    void run(double* sums) {
        const int64_t K = m.channels;
        sums[2 * K] = alike ? (double)((end - begin) * m.b * m.c) : 0;
        for (int64_t a = from; !alike && a < to; ++a)
            for (int64_t b = 0; b < m.b; ++b) {
                this->read_weights(a, b, pitch, weights(a, b));
                if (a >= begin && a < end) sums[2 * K] += total(weights(a, b));
            }
        for (int64_t k = 0; k < K; ++k) {
            for (int64_t a = from; !in_place && a < to; ++a)
                for (int64_t b = 0; b < m.b; ++b) read_mask(k, a, b, weights(a, b), place(mask, a, b));
            const F* origin = in_place ? (const F*)this->row(m.labels, k, 0, 0) : place(mask, 0, 0);
            const int64_t along_a = in_place ? m.labels.a : plane, along_b = in_place ? m.labels.b : pitch;
            add_channel(k, origin, along_a, along_b, sums);
        }
    }
};

int64_t slab_bytes(const Masks& m) {
    if (m.twice) return m.dense ? SoftSlab<double>::bytes(m) : HardSlab<double>::bytes(m);
    return m.dense ? SoftSlab<float>::bytes(m) : HardSlab<float>::bytes(m);
}

template <class F>
void slab(const Masks& m, int64_t image, int64_t index, char* scratch) {
    const int64_t width = width_of(m);
    double* sums = m.partial + (image * slabs_of(m) + index) * width;
    for (int64_t i = 0; i < width; ++i) sums[i] = 0;
    if (m.dense)
        SoftSlab<F>(m, image, index, scratch).run(sums);
    else
        HardSlab<F>(m, image, index, scratch).run(sums);
}
