// The sums of ../README.md and their gradient on a CPU, and those of masks.py, for `native.py`. No torch headers and no
// Python in here: C functions take one array of 64-bit words, laid out as struct Call or struct Masks.
//
// The kernels are compiled once for every instruction set; the widest that the processor has is chosen at run time.
// Work is cut into blocks of a fixed number of voxels, whose sums are added in a fixed order: results do not depend on
// the number of threads.

#include "kernels.h"

#ifdef UNIFOCAL_X86
#include <cpuid.h>
#endif

namespace unifocal {
namespace {

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

const Kernels& kernels_for(int64_t isa) {
#ifdef UNIFOCAL_X86
    if (isa == 2) return avx512::KERNELS;
    if (isa == 1) return avx2::KERNELS;
#endif
    (void)isa;
    return portable::KERNELS;
}

// Volumes, surfaces and weight of every image; returns 1 if memory could not be had.
int64_t sum_masks(Masks m, double* totals) {
    const int64_t width = width_of(m), slabs = m.b && m.c ? slabs_of(m) : 0;
    const Numbers partial(m.images * slabs * width);
    m.partial = partial.data;
    if (!m.partial) return 1;
    const Kernels& kernels = kernels_for(m.isa);
    const auto slab = m.twice ? kernels.slab_twice : kernels.slab;
    const int64_t tasks = m.images * slabs;
    if (tasks && in_parallel(tasks, m.threads, kernels.slab_bytes(m), [&](int64_t task, char* scratch) {
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
    const Kernels& kernels = kernels_for(c.isa);
    const auto block = is_double(c) ? kernels.block_twice : kernels.block;
    const int64_t blocks = blocks_of(c);
    const Numbers partial(c.backward ? 0 : c.images * blocks * width_of(c));
    c.partial = partial.data;
    if (!c.partial) return 1;
    const int64_t failed = in_parallel(c.images * blocks, c.threads, kernels.block_bytes(c), [&](int64_t task, char* scratch) {
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

}  // namespace unifocal
