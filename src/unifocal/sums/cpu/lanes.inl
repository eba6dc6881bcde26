// Vectors of the width of the instruction set, and what is done with them lane by lane.

template <class F>
struct Lanes;

template <>
struct Lanes<float> {
    typedef float V __attribute__((vector_size(UNIFOCAL_BYTES)));
    typedef int32_t I __attribute__((vector_size(UNIFOCAL_BYTES)));
    typedef uint32_t Bits __attribute__((vector_size(UNIFOCAL_BYTES)));
    typedef float U __attribute__((vector_size(UNIFOCAL_BYTES), aligned(4), may_alias));  // anywhere in memory
    typedef int32_t Int;
    static const int N = UNIFOCAL_BYTES / 4, MANTISSA = 23, BIAS = 127;
    static constexpr Int SQRT_HALF = 0x3f3504f3, MASK = 0x7fffff;
    static constexpr float MAGIC = 12582912.0f, LN2_HIGH = 0.693359375f, LN2_LOW = -2.12194440e-4f,
                           TINY = 1e-30f, HUGE_LOG = 9.381830738e26f;
};

template <>
struct Lanes<double> {
    typedef double V __attribute__((vector_size(UNIFOCAL_BYTES)));
    typedef int64_t I __attribute__((vector_size(UNIFOCAL_BYTES)));
    typedef uint64_t Bits __attribute__((vector_size(UNIFOCAL_BYTES)));
    typedef double U __attribute__((vector_size(UNIFOCAL_BYTES), aligned(8), may_alias));
    typedef int64_t Int;
    static const int N = UNIFOCAL_BYTES / 8, MANTISSA = 52, BIAS = 1023;
    static constexpr Int SQRT_HALF = 0x3fe6a09e667f3bcd, MASK = 0xfffffffffffff;
    static constexpr double MAGIC = 6755399441055744.0, LN2_HIGH = 0.693145751953125, LN2_LOW = 1.42860682030941723e-6,
                            TINY = 1e-290, HUGE_LOG = 6.002067730736031e215;
};

#define LANES                              \
    typedef Lanes<F> L;                    \
    typedef typename L::V V;               \
    typedef typename L::I I;               \
    typedef typename L::Int Int;           \
    (void)sizeof(V);                       \
    (void)sizeof(I);                       \
    (void)sizeof(Int)

template <class F>
INLINE typename Lanes<F>::V load(const F* p) {
    return *(const typename Lanes<F>::U*)p;
}
template <class F>
INLINE void store(F* p, typename Lanes<F>::V x) {
    *(typename Lanes<F>::U*)p = x;
}
template <class F>
INLINE typename Lanes<F>::V all(F x) {
    return x - (typename Lanes<F>::V){};
}
template <class F>
INLINE typename Lanes<F>::I all_int(typename Lanes<F>::Int x) {
    return x - (typename Lanes<F>::I){};
}
#if UNIFOCAL_BYTES == 32  // a selection would keep the units busy that multiply
template <class V, class I>
INLINE void add_where(I where, V& sum, V x) {
    sum += (V)((I)x & where);
}
template <class V, class I>
INLINE void add_unless(I where, V& sum, V x) {
    sum += (V)((I)x & ~where);
}
#else
template <class V, class I>  // one instruction, where adding a selected number takes two
INLINE void add_where(I where, V& sum, V x) {
    sum = where ? sum + x : sum;
}
template <class V, class I>
INLINE void add_unless(I where, V& sum, V x) {
    sum = where ? sum : sum + x;
}
#endif
template <class V>  // NaN of the first argument is passed on
INLINE V larger(V a, V b) {
    return b > a ? b : a;
}
template <class V>
INLINE V smaller(V a, V b) {
    return b < a ? b : a;
}
#if UNIFOCAL_BYTES == 64  // one instruction each, which the compiler does not see in the above
INLINE Lanes<float>::V larger(Lanes<float>::V a, Lanes<float>::V b) {
    return (Lanes<float>::V)_mm512_max_ps((__m512)b, (__m512)a);
}
INLINE Lanes<float>::V smaller(Lanes<float>::V a, Lanes<float>::V b) {
    return (Lanes<float>::V)_mm512_min_ps((__m512)b, (__m512)a);
}
#elif UNIFOCAL_BYTES == 32
INLINE Lanes<float>::V larger(Lanes<float>::V a, Lanes<float>::V b) {
    return (Lanes<float>::V)_mm256_max_ps((__m256)b, (__m256)a);
}
INLINE Lanes<float>::V smaller(Lanes<float>::V a, Lanes<float>::V b) {
    return (Lanes<float>::V)_mm256_min_ps((__m256)b, (__m256)a);
}
#endif

template <class F>
INLINE typename Lanes<F>::V magnitude(typename Lanes<F>::V x) {
    return (typename Lanes<F>::V)((typename Lanes<F>::I)x & std::numeric_limits<typename Lanes<F>::Int>::max());
}

#if UNIFOCAL_BYTES == 64
template <class I>
INLINE bool any(I mask) {
    return sizeof mask[0] == 4 ? _mm512_movepi32_mask((__m512i)mask) : _mm512_movepi64_mask((__m512i)mask);
}
#elif UNIFOCAL_BYTES == 32
template <class I>
INLINE bool any(I mask) {
    return sizeof mask[0] == 4 ? _mm256_movemask_ps((__m256)mask) : _mm256_movemask_pd((__m256d)mask);
}
#else
template <class I>
INLINE bool any(I mask) {
    int64_t words[sizeof mask / 8], found = 0;
    __builtin_memcpy(words, &mask, sizeof mask);
    for (int64_t word : words) found |= word;
    return found;
}
#endif
