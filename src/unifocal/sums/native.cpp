// The sums of README.md and their gradient on a CPU, and those of masks.py, for `native.py`. No torch headers and no Python
// in here: C functions take one array of 64-bit words, laid out as struct Call or struct Masks.
//
// The file includes itself once for every instruction set; the widest that the processor has is chosen at run time.
// Work is cut into blocks of a fixed number of voxels, whose sums are added in a fixed order: results do not depend on
// the number of threads. Within a block, tiles of voxels that fit the first-level cache are processed, a vector of
// voxels at a time through all channels.

#ifndef UNIFOCAL_ISA  // ------------------------------------------------------ once: the interface and the dispatch

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <type_traits>
#if defined(__x86_64__) && defined(__GNUC__)
#define UNIFOCAL_X86
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace {

enum Dtype : int64_t { F16, BF16, F32, F64, BOOL, U8, I8, U16, I16, U32, I32, U64, I64 };
enum Activation : int64_t { SOFTMAX, SIGMOID, NONE };
enum Sum { TP, FP, FN, TN, CE, REST, LABELLED, SUMS };  // LABELLED is always computed, the others where wanted

struct View {  // of a tensor (N, K, V); strides in elements
    char* data;
    int64_t dtype, n, k, v;
};

struct Call {
    int64_t images, channels, voxels, activation, clip, dense, ignores, ignore, threads, isa, backward;
    int64_t wanted[LABELLED];  // position of each sum in `values` and `upstream`, or -1
    View x, labels, weights, gamma, rest_gamma, upstream, values, labelled, counted, gradient;
    double* partial;  // images * blocks * (SUMS * channels + 1); unifocal_run makes room for them
    int64_t* odd;     // or null; collects what is odd about the labels of voxels that count, see enum Odd
};

// A label that is no class, or no number in [0, 1]; labels of a voxel that do not sum to 1. To be looked into by the
// caller, who knows which of them is wrong and by how much.
enum Odd : int64_t { FOREIGN = 1, UNBALANCED = 2 };
const float BALANCED = 0.009f;  // how far sums may be off

const int64_t BLOCK = 8192;  // voxels

struct Masks {  // of one call for the surfaces of masks: labels (N, K, A, B, C), weights (N, 1, A, B, C)
    int64_t images, channels, a, b, c, dense, ignores, ignore, threads, isa, twice;
    struct Volume {
        char* data;
        int64_t dtype, n, k, a, b, c;
    } labels, weights;
    double step[3];   // 1 / size of a voxel along A, B, C
    double size, smoothness, constant;  // of an exponent, see set_exponents
    double* partial;  // images * slabs * (2 * channels + 1): volumes, surfaces, weight of the image; as in Call
};

// Planes of a slab, besides one on each side: as many as are quick to reach.
int64_t planes_of(const Masks& m) {
    const int64_t fit = (1 << (m.dense ? 16 : 17)) / (m.b * m.c * (m.weights.data ? 8 : 1));
    const int64_t most = m.dense ? 32 : 16;
    return fit < 4 ? 4 : fit > most ? most : fit;
}

int64_t slabs_of(const Masks& m) { return (m.a + planes_of(m) - 1) / planes_of(m); }

int64_t size_of(int64_t dtype) {
    static const int64_t sizes[] = {2, 2, 4, 8, 1, 1, 1, 2, 2, 4, 4, 8, 8};
    return sizes[dtype];
}

int64_t blocks_of(const Call& c) { return (c.voxels + BLOCK - 1) / BLOCK; }
int64_t width_of(const Call& c) { return SUMS * c.channels + 1; }
int64_t width_of(const Masks& m) { return 2 * m.channels + 1; }
bool is_double(const Call& c) { return c.gamma.dtype == F64; }

double number(const View& view, int64_t n, int64_t k) {  // of a float or double tensor (N, K)
    const int64_t i = n * view.n + k * view.k;
    return view.dtype == F64 ? ((const double*)view.data)[i] : (double)((const float*)view.data)[i];
}

}  // namespace

#define UNIFOCAL_BYTES 16
#define UNIFOCAL_ISA portable
#include "native.cpp"
#undef UNIFOCAL_ISA
#undef UNIFOCAL_BYTES

#ifdef UNIFOCAL_X86

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif
#define UNIFOCAL_BYTES 32
#define UNIFOCAL_ISA avx2
#include "native.cpp"
#undef UNIFOCAL_ISA
#undef UNIFOCAL_BYTES
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c,prefer-vector-width=512")
#endif
#define UNIFOCAL_BYTES 64
#define UNIFOCAL_ISA avx512
#include "native.cpp"
#undef UNIFOCAL_ISA
#undef UNIFOCAL_BYTES
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif  // UNIFOCAL_X86

namespace {

typedef void (*BlockFunction)(const Call&, int64_t image, int64_t block, char* scratch);

struct Engine {
    BlockFunction single, twice;  // arithmetic in float and in double
    int64_t (*scratch)(const Call&);
    void (*single_slab)(const Masks&, int64_t image, int64_t slab, char* scratch);
    void (*twice_slab)(const Masks&, int64_t image, int64_t slab, char* scratch);
    int64_t (*slab_bytes)(const Masks&);
};

const Engine PORTABLE = {portable::block<float>, portable::block<double>, portable::scratch_bytes,
    portable::slab<float>, portable::slab<double>, portable::slab_bytes};
#ifdef UNIFOCAL_X86
const Engine AVX2 = {avx2::block<float>, avx2::block<double>, avx2::scratch_bytes,
    avx2::slab<float>, avx2::slab<double>, avx2::slab_bytes};
const Engine AVX512 = {avx512::block<float>, avx512::block<double>, avx512::scratch_bytes,
    avx512::slab<float>, avx512::slab<double>, avx512::slab_bytes};
#endif

// Calls work(task, scratch) for every task, each thread with scratch memory of its own; 1 if that could not be had.
// Threads take a few neighbouring tasks at a time, or one where there are so few that one of them would wait for another.
template <class Work>
int64_t in_parallel(int64_t tasks, int64_t most_threads, int64_t bytes, const Work& work) {
    const int64_t threads = tasks < most_threads ? tasks : most_threads, at_a_time = tasks < 64 * threads ? 1 : 4;
    int64_t failed = 0;
#pragma omp parallel num_threads((int)threads) if (threads > 1)
    {
        char* scratch = (char*)aligned_alloc(64, (bytes + 63) / 64 * 64);
        if (!scratch) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(dynamic, at_a_time)
        for (int64_t task = 0; task < tasks; ++task)
            if (scratch) work(task, scratch);
        free(scratch);
    }
    return failed;
}

struct Numbers {  // null if that memory could not be had
    double* const data;

    explicit Numbers(int64_t count) : data((double*)malloc((count + 1) * sizeof(double))) {}
    Numbers(const Numbers&) = delete;
    ~Numbers() { free(data); }
};

const Engine& engine_for(int64_t isa) {
#ifdef UNIFOCAL_X86
    if (isa == 2) return AVX512;
    if (isa == 1) return AVX2;
#endif
    (void)isa;
    return PORTABLE;
}

// Volumes, surfaces and weight of every image; returns 1 if memory could not be had.
int64_t sum_masks(Masks m, double* totals) {
    const int64_t width = width_of(m), slabs = m.b * m.c ? slabs_of(m) : 0;
    const Numbers partial(m.images * slabs * width);
    m.partial = partial.data;
    if (!m.partial) return 1;
    const Engine& engine = engine_for(m.isa);
    const auto slab = m.twice ? engine.twice_slab : engine.single_slab;
    const int64_t tasks = m.images * slabs;
    if (tasks && in_parallel(tasks, m.threads, engine.slab_bytes(m), [&](int64_t task, char* scratch) {
            slab(m, task / slabs, task % slabs, scratch);
        }))
        return 1;
    for (int64_t n = 0; n < m.images; ++n)
        for (int64_t i = 0; i < width; ++i) {
            totals[n * width + i] = 0;
            for (int64_t s = 0; s < slabs; ++s) totals[n * width + i] += m.partial[(n * slabs + s) * width + i];
        }
    return 0;
}

const double NOTHING = 1e-30;  // the weight of no voxel

// Of each image and channel (size volume + smoothness surface) / weight of the image + constant.
void set_exponents(const View& exponents, const Masks& m, const double* totals) {
    for (int64_t n = 0; n < m.images; ++n, totals += width_of(m))
        for (int64_t k = 0; k < m.channels; ++k) {
            const double weight = totals[2 * m.channels], volume = totals[k], surface = totals[m.channels + k];
            const double share = (m.size * volume + m.smoothness * surface) / (weight > NOTHING ? weight : NOTHING);
            const int64_t i = n * exponents.n + k * exponents.k;
            if (exponents.dtype == F64)
                ((double*)exponents.data)[i] = share + m.constant;
            else
                ((float*)exponents.data)[i] = (float)(share + m.constant);
        }
}

}  // namespace

extern "C" {

// 0 portable, 1 AVX2, 2 AVX-512: the best that this processor runs.
int64_t unifocal_isa() {
#ifdef UNIFOCAL_X86
    unsigned a, b, c, d;  // not every compiler has a name for the conversions of half precision
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_F16C)) return 0;
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
    return 0;
}

int64_t unifocal_openmp() {
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}

// Words of the structs: a library that was compiled from another version must not be called.
int64_t unifocal_words() { return sizeof(Call) / 8 + sizeof(Masks) / 8; }

// Runs forward or backward; returns 0, or 1 if memory could not be had. With masks both exponents are one tensor, which is
// filled first.
int64_t unifocal_run(const Call* call, const Masks* masks) {
    Call c = *call;
    if (masks) {
        const Numbers totals(masks->images * width_of(*masks));
        if (!totals.data || sum_masks(*masks, totals.data)) return 1;
        set_exponents(c.gamma, *masks, totals.data);
    }
    const Engine& engine = engine_for(c.isa);
    const BlockFunction block = is_double(c) ? engine.twice : engine.single;
    const int64_t blocks = blocks_of(c);
    const Numbers partial(c.backward ? 0 : c.images * blocks * width_of(c));
    c.partial = partial.data;
    if (!c.partial) return 1;
    const int64_t failed = in_parallel(c.images * blocks, c.threads, engine.scratch(c), [&](int64_t task, char* scratch) {
        block(c, task / blocks, task % blocks, scratch);
    });
    if (failed || c.backward) return failed;

    const int64_t width = width_of(c);
    for (int64_t n = 0; n < c.images; ++n)
        for (int64_t i = 0; i < width; ++i) {
            double total = 0;
            for (int64_t b = 0; b < blocks; ++b) total += c.partial[(n * blocks + b) * width + i];
            const int64_t sum = i / c.channels, k = i % c.channels;
            const bool count = i == width - 1;
            if (!count && sum < LABELLED && c.wanted[sum] < 0) continue;
            const int64_t at = count ? n : n * c.channels + k;
            const View& to = count ? c.counted : sum == LABELLED ? c.labelled : c.values;
            const int64_t index = sum < LABELLED && !count ? c.wanted[sum] * c.images * c.channels + at : at;
            if (is_double(c))
                ((double*)to.data)[index] = total;
            else
                ((float*)to.data)[index] = (float)total;
        }
    return 0;
}

// Volume and surface of the mask of every channel, see `slab`, to images * (2 * channels + 1) numbers, double if `twice`,
// else float.
int64_t unifocal_masks(const Masks* masks, void* to) {
    const Masks& m = *masks;
    const Numbers totals(m.images * width_of(m));
    if (!totals.data || sum_masks(m, totals.data)) return 1;
    for (int64_t i = 0; i < m.images * width_of(m); ++i) {
        if (m.twice)
            ((double*)to)[i] = totals.data[i];
        else
            ((float*)to)[i] = (float)totals.data[i];
    }
    return 0;
}

}  // extern "C"

#else  // ---------------------------------------------------------------------- once for each instruction set

namespace UNIFOCAL_ISA {
namespace {

#define INLINE inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))

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
INLINE bool any(Lanes<float>::I mask) { return _mm512_movepi32_mask((__m512i)mask); }
INLINE bool any(Lanes<double>::I mask) { return _mm512_movepi64_mask((__m512i)mask); }
#elif UNIFOCAL_BYTES == 32
INLINE bool any(Lanes<float>::I mask) { return _mm256_movemask_ps((__m256)mask); }
INLINE bool any(Lanes<double>::I mask) { return _mm256_movemask_pd((__m256d)mask); }
#else
template <class I>
INLINE bool any(I mask) {
    int64_t words[sizeof mask / 8], found = 0;
    __builtin_memcpy(words, &mask, sizeof mask);
    for (int64_t word : words) found |= word;
    return found;
}
#endif

// --- exp, log and powers ---------------------------------------------------------------------------------------------

#if UNIFOCAL_BYTES == 64  // a register holds a table, whose entries take one instruction and shorten a polynomial
alignas(64) const float ROOTS[32] = {  // 2^(j / 32)
    1.0f, 1.0218972f, 1.04427373f, 1.06714046f, 1.09050775f, 1.1143868f, 1.13878858f, 1.1637249f,
    1.18920708f, 1.21524739f, 1.24185777f, 1.26905096f, 1.29683959f, 1.32523668f, 1.35425556f, 1.38390994f,
    1.41421354f, 1.44518077f, 1.47682619f, 1.50916445f, 1.54221082f, 1.5759809f, 1.61049032f, 1.64575553f,
    1.68179286f, 1.71861935f, 1.75625217f, 1.79470909f, 1.8340081f, 1.87416768f, 1.91520655f, 1.95714414f};
alignas(64) const float INVERSES[16] = {  // of 1 + j / 15
    1.0f, 0.937499997f, 0.882352936f, 0.833333326f, 0.789473676f, 0.74999999f, 0.714285704f, 0.681818171f,
    0.652173901f, 0.624999988f, 0.599999987f, 0.576923064f, 0.555555543f, 0.535714273f, 0.517241366f, 0.499999987f};
alignas(64) const float LOGS[16] = {  // of the same
    0.0f, 0.0645385244f, 0.125163149f, 0.182321565f, 0.236388789f, 0.287682085f, 0.336472252f, 0.382992269f,
    0.427444033f, 0.470003649f, 0.510825645f, 0.550046359f, 0.587786688f, 0.624154333f, 0.659245654f, 0.693147207f};

// The entry that the last four bits say.
INLINE Lanes<float>::V entry(Lanes<float>::V table, Lanes<float>::V bits) {
    return (Lanes<float>::V)_mm512_permutexvar_ps((__m512i)bits, (__m512)table);
}
INLINE Lanes<float>::V entry(const float* table, Lanes<float>::V bits) { return entry(load(table), bits); }
INLINE Lanes<float>::V root_of_two(Lanes<float>::V bits) {  // the entry of ROOTS that the last five bits say
    return (Lanes<float>::V)_mm512_permutex2var_ps(_mm512_load_ps(ROOTS), (__m512i)bits, _mm512_load_ps(ROOTS + 16));
}
#elif UNIFOCAL_BYTES == 32  // here one of eight entries
alignas(32) const int32_t ROOTS[8] = {  // the bits of 2^(j / 8), less j 2^20
    0x3f800000, 0x3f7b95c2, 0x3f7837f0, 0x3f75fed7, 0x3f7504f3, 0x3f75672a, 0x3f7744fd, 0x3f7ac0c7};
INLINE Lanes<float>::V power_of_two(Lanes<float>::V bits) {  // 2^(m / 8), where the last bits are those of m
    typedef Lanes<float>::Bits Bits;
    const __m256i table = _mm256_load_si256((const __m256i*)ROOTS);
    return (Lanes<float>::V)((Bits)_mm256_permutevar8x32_epi32(table, (__m256i)bits) + ((Bits)bits << 20));
}
INLINE Lanes<float>::V difference(Lanes<float>::V a, Lanes<float>::V b, Lanes<float>::V ab) {  // a b - ab, exactly
    return (Lanes<float>::V)_mm256_fmsub_ps((__m256)a, (__m256)b, (__m256)ab);
}
#endif

// Polynomials are summed in pairs: a chain of dependent products would be longer than the processor looks ahead.

// e^r for |r| <= ln(2) / 2
INLINE Lanes<float>::V exp_core(Lanes<float>::V r) {
    const Lanes<float>::V r2 = r * r;
    const Lanes<float>::V a = r * 1.6666519642e-1f + 4.9999994040e-1f, b = r * 8.3688516170e-3f + 4.1668400168e-2f;
    return ((r2 * 1.3814322883e-3f + b) * r2 + a) * r2 + (r + 1.0f);
}
INLINE Lanes<double>::V exp_core(Lanes<double>::V r) {  // Taylor
    Lanes<double>::V y = r * (1 / 6227020800.0) + 1 / 479001600.0;
    y = y * r + 1 / 39916800.0;
    y = y * r + 1 / 3628800.0;
    y = y * r + 1 / 362880.0;
    y = y * r + 1 / 40320.0;
    y = y * r + 1 / 5040.0;
    y = y * r + 1 / 720.0;
    y = y * r + 1 / 120.0;
    y = y * r + 1 / 24.0;
    y = y * r + 1 / 6.0;
    y = y * r + 0.5;
    return y * (r * r) + r + 1.0;
}

// 2^f for |f| <= 1 / 2
INLINE Lanes<float>::V exp2_core(Lanes<float>::V f) {
    const Lanes<float>::V f2 = f * f;
    const Lanes<float>::V a = f * 5.5503319949e-2f + 2.4022647738e-1f, b = f * 1.3399133459e-3f + 9.6184397116e-3f;
    return ((f2 * 1.5353150957e-4f + b) * f2 + a) * f2 + (f * 6.9314718246e-1f + 1.0f);
}
INLINE Lanes<double>::V exp2_core(Lanes<double>::V f) { return exp_core(f * 0.693147180559945309); }

// log(1 + f) for 1 + f in [sqrt(1/2), sqrt(2)], relatively exact down to f = 0
INLINE Lanes<float>::V log_core(Lanes<float>::V f) {
    const Lanes<float>::V f2 = f * f, f4 = f2 * f2;
    const Lanes<float>::V a = f * -2.4999993993e-1f + 3.3333331174e-1f, b = f * -1.6668057665e-1f + 2.0000714765e-1f;
    const Lanes<float>::V c = f * -1.2420140846e-1f + 1.4249322787e-1f, d = f * -1.1514610310e-1f + 1.1676998740e-1f;
    const Lanes<float>::V y = (b * f2 + a) + ((d + f2 * 7.0376836292e-2f) * f2 + c) * f4;
    return f + (y * f - 0.5f) * f2;
}
INLINE Lanes<double>::V log_core(Lanes<double>::V f) {  // 2 artanh(s)
    Lanes<double>::V s = f / (2.0 + f), z = s * s;
    Lanes<double>::V y = z * (1 / 23.0) + 1 / 21.0;
    y = y * z + 1 / 19.0;
    y = y * z + 1 / 17.0;
    y = y * z + 1 / 15.0;
    y = y * z + 1 / 13.0;
    y = y * z + 1 / 11.0;
    y = y * z + 1 / 9.0;
    y = y * z + 1 / 7.0;
    y = y * z + 1 / 5.0;
    y = y * z + 1 / 3.0;
    return 2.0 * s + 2.0 * s * z * y;
}

#if UNIFOCAL_BYTES == 64
struct Fifteenths {  // of u in [0, 1]: 1 + u = (1 + j / 15) (1 + r), and the last bits of `bits` are those of j
    Lanes<float>::V bits, r;

    INLINE explicit Fifteenths(Lanes<float>::V u) : bits(u * 15.0f + Lanes<float>::MAGIC) {
        r = (u - (bits - Lanes<float>::MAGIC) * (1 / 15.0f)) * entry(INVERSES, bits);
    }
};
#endif

// log(1 + u) for u in [0, 1]
#if UNIFOCAL_BYTES == 64
INLINE Lanes<float>::V log_of(const Fifteenths& u) {
    const Lanes<float>::V r = u.r;
    return (entry(LOGS, u.bits) + r) + (r * r) * ((r * -0.25026214f + 0.33351756f) * r - 0.49999991f);
}
INLINE Lanes<float>::V log1p_unit(Lanes<float>::V u) { return log_of(Fifteenths(u)); }
#else
INLINE Lanes<float>::V log1p_unit(Lanes<float>::V u) {
    const Lanes<float>::V u2 = u * u, u4 = u2 * u2;
    const Lanes<float>::V a = u * -4.9999648333e-1f + 1.0f, b = u * -2.4857163429e-1f + 3.3321323991e-1f;
    const Lanes<float>::V c = u * -1.3753795624e-1f + 1.9153651595e-1f, d = u * -3.0065733939e-2f + 7.9204447567e-2f;
    return (((u4 * 5.3648091853e-3f + (d * u2 + c)) * u4) + (b * u2 + a)) * u;
}
#endif
INLINE Lanes<double>::V log1p_unit(Lanes<double>::V u) {
    const Lanes<double>::I high = u > 0.41421356237309505;
    return log_core(high ? u * 0.5 - 0.5 : u) + (high ? all(0.693147180559945309) : (Lanes<double>::V){});
}

#if UNIFOCAL_BYTES == 64
INLINE Lanes<float>::V root(Lanes<float>::V x) { return (Lanes<float>::V)_mm512_sqrt_ps((__m512)x); }
INLINE Lanes<double>::V root(Lanes<double>::V x) { return (Lanes<double>::V)_mm512_sqrt_pd((__m512d)x); }
#elif UNIFOCAL_BYTES == 32
INLINE Lanes<float>::V root(Lanes<float>::V x) { return (Lanes<float>::V)_mm256_sqrt_ps((__m256)x); }
INLINE Lanes<double>::V root(Lanes<double>::V x) { return (Lanes<double>::V)_mm256_sqrt_pd((__m256d)x); }
#else
template <class V>
INLINE V root(V x) {
    for (unsigned i = 0; i < sizeof x / sizeof x[0]; ++i) x[i] = __builtin_sqrt(x[i]);
    return x;
}
#endif

// The same where it need not be the nearest number, of x that is 0 or no subnormal number.
#if UNIFOCAL_BYTES == 64
INLINE Lanes<float>::V quick_root(Lanes<float>::V x) {  // a root takes six times as long
    const Lanes<float>::V y = (Lanes<float>::V)_mm512_rsqrt14_ps((__m512)larger(x, all(std::numeric_limits<float>::min())));
    const Lanes<float>::V near = x * y;
    return near + (0.5f * y) * (x - near * near);
}
INLINE Lanes<double>::V quick_root(Lanes<double>::V x) { return root(x); }
#else
template <class V>
INLINE V quick_root(V x) {
    return root(x);
}
#endif

// 1 / x for x > 0 that is no subnormal number
#if UNIFOCAL_BYTES == 64
INLINE Lanes<float>::V inverse(Lanes<float>::V x) {  // a division takes as long as eight products
    const Lanes<float>::V y = (Lanes<float>::V)_mm512_rcp14_ps((__m512)x);
    return y + y * (1.0f - x * y);
}
INLINE Lanes<double>::V inverse(Lanes<double>::V x) { return 1.0 / x; }
#else
template <class V>
INLINE V inverse(V x) {
    return 1 / x;
}
#endif

#if UNIFOCAL_BYTES == 64  // one instruction each
INLINE Lanes<float>::V nearest(Lanes<float>::V x) { return (Lanes<float>::V)_mm512_roundscale_ps((__m512)x, 0); }
INLINE Lanes<double>::V nearest(Lanes<double>::V x) { return (Lanes<double>::V)_mm512_roundscale_pd((__m512d)x, 0); }
INLINE Lanes<float>::V times_power(Lanes<float>::V y, Lanes<float>::V power) {
    return (Lanes<float>::V)_mm512_scalef_ps((__m512)y, (__m512)power);
}
INLINE Lanes<double>::V times_power(Lanes<double>::V y, Lanes<double>::V power) {
    return (Lanes<double>::V)_mm512_scalef_pd((__m512d)y, (__m512d)power);
}
#else
template <class V>
INLINE V nearest(V x) {
    typedef Lanes<typename std::decay<decltype(x[0])>::type> L;
    return (x + L::MAGIC) - L::MAGIC;
}
template <class V>
INLINE V times_power(V y, V power) {  // 0 where the result would be subnormal
    typedef Lanes<typename std::decay<decltype(y[0])>::type> L;
    const V bits = larger(power, V{} - L::BIAS) + (L::MAGIC + L::BIAS);
    return y * (V)((typename L::Bits)bits << L::MANTISSA);
}
#endif

// A number near x, of which e^r and 2^f of the small rest are to be multiplied with its power of 2.
template <class F>
struct Near {
    typedef typename Lanes<F>::V V;
    V bits, n;  // the low bits of `bits` are those of the power's exponent
    static constexpr F MAGIC = Lanes<F>::MAGIC + Lanes<F>::BIAS;
    static constexpr F FAR = (F)(-Lanes<F>::BIAS * 0.693147180559945309);  // e^FAR is 0, and nothing beyond it may come

    INLINE explicit Near(V x) : bits(x + MAGIC), n(bits - MAGIC) {}
    INLINE V rest(V x) const { return (x - n * Lanes<F>::LN2_HIGH) - n * Lanes<F>::LN2_LOW; }  // x - n log(2)
    INLINE V exp(V r) const { return exp_core(r) * (V)((typename Lanes<F>::Bits)bits << Lanes<F>::MANTISSA); }
    INLINE V exp(V r, V power) const { return times_power(exp_core(r), power); }
    INLINE V exp2(V f) const { return times_power(exp2_core(f), n); }
    INLINE V exp2_near(V f) const { return exp2(f); }  // n is no less than -BIAS
};
#if UNIFOCAL_BYTES == 64
template <>
struct Near<float> {  // the nearest 32nd
    typedef Lanes<float>::V V;
    V bits, n;
    static constexpr float MAGIC = Lanes<float>::MAGIC / 32, FAR = -8 * Lanes<float>::BIAS;

    INLINE explicit Near(V x) : bits(x + MAGIC), n(bits - MAGIC) {}
    INLINE V rest(V x) const { return (x - n * Lanes<float>::LN2_HIGH) - n * Lanes<float>::LN2_LOW; }
    INLINE V exp(V r) const { return exp(r, n); }
    INLINE V exp(V r, V power) const {
        const V root = root_of_two(bits);
        return times_power(root + (root * r) * (r * 0.5f + 1.00001466f), power);
    }
    INLINE V exp2(V f) const {
        const V root = root_of_two(bits);
        return times_power(root + (root * f) * (f * 2.4022651e-1f + 6.9315734e-1f), n);
    }
    INLINE V exp2_near(V f) const { return exp2(f); }
};
#elif UNIFOCAL_BYTES == 32
template <>
struct Near<float> {  // the nearest 8th
    typedef Lanes<float>::V V;
    V bits, n;
    static constexpr float MAGIC = Lanes<float>::MAGIC / 8, FAR = (float)(-Lanes<float>::BIAS * 0.693147180559945309);

    INLINE explicit Near(V x) : bits(x + MAGIC), n(bits - MAGIC) {}
    INLINE V rest(V x) const { return x - n * 0.693147182f; }  // that number is log(2) but for 2e-9
    INLINE V exp(V r) const {
        const V root = power_of_two(bits);
        return root + (root * r) * ((r * 0.16668923f + 0.50006609f) * r + 1.0f);
    }
    INLINE V exp2(V f) const { return exp2(f, larger(bits, all(MAGIC - Lanes<float>::BIAS))); }
    INLINE V exp2_near(V f) const { return exp2(f, bits); }

  private:
    INLINE V exp2(V f, V bits) const {
        const V root = power_of_two(bits);
        return root + (root * f) * ((f * 0.055511618f + 0.24025826f) * f + 0.69314717f);
    }
};
#endif

// e^x for x <= 0 or hardly more
template <class F>
INLINE typename Lanes<F>::V exp_(typename Lanes<F>::V x) {
    LANES;
    x = larger(x, all(Near<F>::FAR));
    const Near<F> near(x * (F)1.44269504088896341);
    return near.exp(near.rest(x));
}

// y = 2^exponent (1 + rest) with 1 + rest in [sqrt(1/2), sqrt(2))
template <class F>
INLINE void split(typename Lanes<F>::V y, typename Lanes<F>::V& exponent, typename Lanes<F>::V& rest) {
    LANES;
    const I i = (I)y - L::SQRT_HALF;
    exponent = __builtin_convertvector(i >> L::MANTISSA, V);
    rest = (V)((i & L::MASK) + L::SQRT_HALF) - (F)1;
}

// log(1 + u) for u > -1, relatively exact near 0
template <class F>
INLINE typename Lanes<F>::V log1p_(typename Lanes<F>::V u) {
    LANES;
    V e, f;
    split<F>((F)1 + u, e, f);
    f = e == (F)0 ? u : f;
    return e * L::LN2_HIGH + (e * L::LN2_LOW + log_core(f)) + u * (F)0;  // NaN for NaN, whose bits are no number
}

template <class F>
INLINE typename Lanes<F>::V log_(typename Lanes<F>::V x) {
    LANES;
    V e, f;
    split<F>(x, e, f);
    return e * L::LN2_HIGH + (e * L::LN2_LOW + log_core(f)) + x * (F)0;
}

// x^exponent for x in [0, 1] and exponent >= 0, relatively exact: only the fraction of a power of 2 is rounded
template <class F>
INLINE typename Lanes<F>::V pow_(typename Lanes<F>::V x, typename Lanes<F>::V exponent) {
    LANES;
    V e, f;
    split<F>(x, e, f);
    const V whole = exponent * e, lost = exponent * e - whole;
    const V shift = nearest(whole);
    const V rest = ((whole - shift) + lost) * (F)0.693147180559945309 + exponent * log_core(f) + x * (F)0;
    const Near<F> near(rest * (F)1.44269504088896341);
    const V power = larger(near.n + shift, all<F>(-(F)(8 * L::BIAS)));
    const V y = near.exp((rest - near.n * L::LN2_HIGH) - near.n * L::LN2_LOW, power);
    return exponent == (F)0 ? all<F>(1) : y;
}
#if UNIFOCAL_BYTES == 32
struct Logarithm {  // of a power, to base 2: whole + part
    typedef Lanes<float>::V V;
    V whole, part;

    INLINE Logarithm(V x, V exponent) {
        V e, f;
        split<float>(x, e, f);
        whole = exponent * e;
        part = exponent * (log_core(f) * 1.44269504f) + difference(exponent, e, whole) + x * 0.0f;
    }
    INLINE Logarithm(const float* of_whole, const float* of_part) : whole(load(of_whole)), part(load(of_part)) {}

    INLINE V power() const {
        const Near<float> near(larger(whole + part, all(-8.0f * Lanes<float>::BIAS)));
        return near.exp2((whole - near.n) + part);
    }
};
template <>
INLINE Lanes<float>::V pow_<float>(Lanes<float>::V x, Lanes<float>::V exponent) {
    return Logarithm(x, exponent).power();
}
#endif

// Powers of 1 / e: of a number x + y >= 0, x exact and y small, of which no digit is lost.
template <class F>
struct Power {
    typename Lanes<F>::V high, low, most;  // -exponent / log(2), what that lost, and the greatest number for it to meet

    INLINE explicit Power(F exponent) {
        const double exact = -(double)exponent * 1.44269504088896341;
        high = all((F)exact);
        low = all((F)(exact - (double)(F)exact));
        most = all((F)(8 * Lanes<F>::BIAS) / (-(F)exact > Lanes<F>::TINY ? -(F)exact : Lanes<F>::TINY));
    }

    INLINE Power() {}

    static INLINE Power either(typename Lanes<F>::I first, const Power& a, const Power& b) {
        Power y;
        y.high = first ? a.high : b.high;
        y.low = first ? a.low : b.low;
        y.most = first ? a.most : b.most;
        return y;
    }

    // e^(-exponent (x + y))
    INLINE typename Lanes<F>::V of(typename Lanes<F>::V x, typename Lanes<F>::V y) const {
        LANES;
        x = smaller(x, most);
        const V sum = x + y;
        const Near<F> near(high * sum);
        return near.exp2(((high * x - near.n) + high * y) + low * sum);
    }

    // e^(-exponent x)
    INLINE typename Lanes<F>::V of(typename Lanes<F>::V x) const {
        LANES;
        x = smaller(x, most);
        const Near<F> near(high * x);
        return near.exp2((high * x - near.n) + low * x);
    }

    // The same where it is no less than 2^-BIAS.
    INLINE typename Lanes<F>::V of_little(typename Lanes<F>::V x) const {
        const Near<F> near(high * x);
        return near.exp2_near((high * x - near.n) + low * x);
    }

    // The same of y alone, at most log(2), and of x + y.
    INLINE void of_both(typename Lanes<F>::V x, typename Lanes<F>::V y, typename Lanes<F>::V& alone,
                        typename Lanes<F>::V& together) const {
        LANES;
        x = smaller(x, most);
        const Near<F> far(high * x), near(high * y);
        alone = near.exp2(high * y - near.n);
        together = alone * far.exp2((high * x - far.n) + low * x);
    }
};

// log(1 + u) and (1 + u)^-exponent for u in [0, 1], and an exponent in [0, MOST_FALL].
const double MOST_FALL = 4;

template <class F>
constexpr bool HAS_FALL = UNIFOCAL_BYTES == 64 && sizeof(F) == 4;  // as one short step

template <class F>
struct Fall {
    Power<F> power;

    INLINE explicit Fall(F exponent) : power(exponent) {}
};
#if UNIFOCAL_BYTES == 64
template <>
struct Fall<float> {  // of the powers of 1 + j / 15 there is a table, and that of 1 + r is a short series
    typedef Lanes<float>::V V;
    V powers, a, b, c, d;

    INLINE explicit Fall(float exponent) : powers(Power<float>(exponent).of(load(LOGS))) {
        const float x = exponent, two = x * (x + 1) / 2, three = two * (x + 2) / 3, four = three * (x + 3) / 4;
        const float five = four * (x + 4) / 5, far = 1 / 900.0f;  // the largest r^2: r^5 is all but a cubic function
        a = all(-x + five * far * far * (5 / 16.0f));
        b = all(two);
        c = all(-three - five * far * (5 / 4.0f));
        d = all(four);
    }
    INLINE void of(V u, V& log, V& fallen) const {
        const Fifteenths parts(u);
        const V r = parts.r, power = entry(powers, parts.bits);
        log = log_of(parts);
        fallen = power + (power * r) * (((d * r + c) * r + b) * r + a);
    }
};
#endif

// --- reading and writing rows of any type ----------------------------------------------------------------------------

template <class To, class From>
INLINE To bits_as(From x) {
    To y;
    __builtin_memcpy(&y, &x, sizeof y);
    return y;
}

struct Half {
    uint16_t bits;
};
struct Brain {
    uint16_t bits;
};

template <class F, class T>
INLINE F read(T x) {
    return (F)x;
}
template <>
INLINE float read<float, Brain>(Brain x) {
    return bits_as<float>((uint32_t)x.bits << 16);
}
template <>
INLINE float read<float, Half>(Half x) {
    const uint32_t magnitude = (uint32_t)(x.bits & 0x7fff) << 13, sign = (uint32_t)(x.bits & 0x8000) << 16;
    const float finite = bits_as<float>(magnitude) * 0x1p112f;
    const uint32_t bits = magnitude >= 0x0f800000 ? magnitude | 0x7f800000 : bits_as<uint32_t>(finite);
    return bits_as<float>(bits | sign);
}
template <>
INLINE double read<double, Brain>(Brain x) {
    return read<float>(x);
}
template <>
INLINE double read<double, Half>(Half x) {
    return read<float>(x);
}

template <class T, class F>
INLINE T written(F x) {
    return (T)x;
}
template <>
INLINE Brain written<Brain, float>(float x) {
    const uint32_t u = bits_as<uint32_t>(x);
    const uint32_t rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    return {(uint16_t)((u & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded)};
}
template <>
INLINE Half written<Half, float>(float x) {
    const uint32_t bits = bits_as<uint32_t>(x), sign = (bits >> 16) & 0x8000, u = bits & 0x7fffffff;
    const uint32_t normal = (u - 0x38000000 + 0xfff + ((u >> 13) & 1)) >> 13;
    const uint32_t subnormal = bits_as<uint32_t>(bits_as<float>(u) + 0.5f) - 0x3f000000;
    uint32_t half = u < 0x38800000 ? subnormal : normal;
    half = u >= 0x477ff000 ? 0x7c00 : half;
    half = u > 0x7f800000 ? 0x7e00 : half;
    return {(uint16_t)(half | sign)};
}
template <>
INLINE Brain written<Brain, double>(double x) {
    return written<Brain>((float)x);
}
template <>
INLINE Half written<Half, double>(double x) {
    return written<Half>((float)x);
}

// Converts what one instruction converts, and returns how many numbers that were.
template <class From, class To>
INLINE int64_t converted(const From*, int64_t, To*) {
    return 0;
}
#if UNIFOCAL_BYTES >= 32
INLINE int64_t converted(const Half* from, int64_t count, float* to) {
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(from + i))));
    return i;
}
INLINE int64_t converted(const float* from, int64_t count, Half* to) {
    int64_t i = 0;
    for (; i + 8 <= count; i += 8)
        _mm_storeu_si128((__m128i*)(to + i), _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
    return i;
}
#endif

template <class F, class T>
void read_row(const T* from, int64_t stride, int64_t count, F* to) {
    if (stride == 1)
        for (int64_t i = converted(from, count, to); i < count; ++i) to[i] = read<F>(from[i]);
    else
        for (int64_t i = 0; i < count; ++i) to[i] = read<F>(from[i * stride]);
}

template <class F, class T>
void write_row(const F* from, int64_t stride, int64_t count, T* to) {
    if (stride == 1)
        for (int64_t i = converted(from, count, to); i < count; ++i) to[i] = written<T>(from[i]);
    else
        for (int64_t i = 0; i < count; ++i) to[i * stride] = written<T>(from[i]);
}

#define FOR_DTYPE(dtype, DO)              \
    switch (dtype) {                      \
        case F16: DO(Half) break;         \
        case BF16: DO(Brain) break;       \
        case F32: DO(float) break;        \
        case F64: DO(double) break;       \
        case BOOL:                        \
        case U8: DO(uint8_t) break;       \
        case I8: DO(int8_t) break;        \
        case U16: DO(uint16_t) break;     \
        case I16: DO(int16_t) break;      \
        case U32: DO(uint32_t) break;     \
        case I32: DO(int32_t) break;      \
        case U64: DO(uint64_t) break;     \
        case I64: DO(int64_t) break;      \
    }
#define FOR_INTEGER(dtype, DO)            \
    switch (dtype) {                      \
        case BOOL:                        \
        case U8: DO(uint8_t) break;       \
        case I8: DO(int8_t) break;        \
        case U16: DO(uint16_t) break;     \
        case I16: DO(int16_t) break;      \
        case U32: DO(uint32_t) break;     \
        case I32: DO(int32_t) break;      \
        case U64: DO(uint64_t) break;     \
        case I64: DO(int64_t) break;      \
    }

const char* at(const View& view, int64_t n, int64_t k, int64_t v) {
    return view.data + (n * view.n + k * view.k + v * view.v) * size_of(view.dtype);
}

// V values of one channel, 0 behind them up to `padded`
template <class F>
void read_channel(const View& view, int64_t n, int64_t k, int64_t v, int64_t count, int64_t padded, F* to) {
    const char* from = at(view, n, k, v);
#define READ(T) read_row((const T*)from, view.v, count, to);
    FOR_DTYPE(view.dtype, READ)
#undef READ
    for (int64_t i = count; i < padded; ++i) to[i] = 0;
}

template <class F>
void write_channel(const View& view, int64_t n, int64_t k, int64_t v, int64_t count, const F* from) {
    char* to = const_cast<char*>(at(view, n, k, v));
    switch (view.dtype) {
        case F16: write_row(from, view.v, count, (Half*)to); break;
        case BF16: write_row(from, view.v, count, (Brain*)to); break;
        case F32: write_row(from, view.v, count, (float*)to); break;
        case F64: write_row(from, view.v, count, (double*)to); break;
    }
}

// --- a tile of voxels ------------------------------------------------------------------------------------------------

const int64_t STEPS = 10;
const int64_t MOST = 512, LEAST = 64, ELEMENTS = 4096;  // of a tile: voxels, and voxels times channels
const int64_t SELECTED = 32;                            // more channels than these are many, see steps_of_many
const int64_t WAY = 4096, CACHE = 65536;  // rows so many bytes apart share the places of a line in the first and the second cache

INLINE int64_t tile_of(const Call& c) {
    const bool alone = c.activation == SIGMOID;  // channels, each worked on by itself
    const int64_t fit = (alone ? 16 : 1) * ELEMENTS / c.channels / LEAST * LEAST, most = c.dense && !alone ? MOST / 2 : MOST;
    return fit < LEAST ? LEAST : fit > most ? most : fit;
}

int64_t scratch_bytes(const Call& c) {
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

// From here on tiles are passed by value: what a reference refers to any store might change, and it would be read again and again.

// --- softmax with hard labels ----------------------------------------------------------------------------------------
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

// --- given probabilities, and softmax against the rest: every label a number in [0, 1] for each channel ---------------

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

// --- sigmoid, and softmax over two channels --------------------------------------------------------------------------
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

// Labels of 0 or 1: s is the logit towards the label, so that 1 / (1 + e^-s) is the probability of what is right.

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

// Any labels in [0, 1].

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

// --- softmax with soft labels, not against the rest ------------------------------------------------------------------

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

// --- a block of voxels -----------------------------------------------------------------------------------------------

template <class F>
void process(const Tile<F>& t, int64_t padded) {
    const bool back = t.c.backward;
    if (t.binary()) return back ? backward_binary<F, false>(t, padded) : forward_binary<F, false>(t, padded);
    if (t.c.activation == SIGMOID) return back ? backward_sigmoid<F, false>(t, padded) : forward_sigmoid<F, false>(t, padded);
    if (t.general()) return back ? backward_any(t, padded) : forward_any(t, padded);
    if (t.c.dense) switch (t.c.channels) {
            case 2: return back ? backward_sigmoid<F, true>(t, padded) : forward_sigmoid<F, true>(t, padded);
            case 3: return back ? backward_softmax<F, 3>(t, padded) : forward_softmax<F, 3>(t, padded);
            default: return back ? backward_softmax<F, 0>(t, padded) : forward_softmax<F, 0>(t, padded);
        }
    switch (t.c.channels) {
        case 2:
            if (t.foreign) break;  // what is of neither class is of no side
            return back ? backward_binary<F, true>(t, padded) : forward_binary<F, true>(t, padded);
        case 3: return back ? backward_few<F, 3>(t, padded) : forward_few<F, 3>(t, padded);
        case 4: return back ? backward_few<F, 4>(t, padded) : forward_few<F, 4>(t, padded);
    }
    if (t.c.channels <= SELECTED) return back ? backward_many<F, true>(t, padded) : forward_many<F, true>(t, padded);
    return back ? backward_many<F, false>(t, padded) : forward_many<F, false>(t, padded);
}

template <class F>
void block(const Call& c, int64_t image, int64_t index, char* scratch) {
    LANES;
    Tile<F> t(c, image, scratch);
    const int64_t width = width_of(c), begin = index * BLOCK;
    const int64_t end = begin + BLOCK < c.voxels ? begin + BLOCK : c.voxels;
    if (!c.backward) t.start_sums();
    for (int64_t v = begin, summed = 0; v < end; v += t.size) {
        const int64_t count = end - v < t.size ? end - v : t.size;
        const int64_t padded = (count + L::N - 1) / L::N * L::N;
        t.read_labels(v, count, padded);
        if (c.odd) t.watch(padded);
        t.read_logits(v, count, padded);
        if (c.backward) {
            t.place_gradient(v, count, padded);
            process(t, padded);
            t.write_gradient(v, count);
        } else {
            process(t, padded);
            summed += t.size;
            if (summed + t.size <= MOST && v + t.size < end) continue;
            t.add_up();
            summed = 0;
        }
    }
    if (c.backward) return;
    double* to = c.partial + (image * blocks_of(c) + index) * width;
    for (int64_t i = 0; i < width; ++i) {
        to[i] = 0;
        for (int lane = 0; lane < L::N; ++lane) to[i] += t.totals[i * L::N + lane];
    }
}

// --- surfaces of masks -----------------------------------------------------------------------------------------------
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

#undef LANES
#undef INLINE
#undef INLINE_LAMBDA
#undef FOR_DTYPE
#undef FOR_INTEGER

}  // namespace
}  // namespace UNIFOCAL_ISA

#endif
