// What the engine is asked for, as native.py packs it, and how the work is cut.

#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <type_traits>
#if defined(__x86_64__) && defined(__GNUC__)
#define UNIFOCAL_X86
#include <immintrin.h>
#endif

namespace unifocal {

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
inline int64_t planes_of(const Masks& m) {
    const int64_t fit = (1 << (m.dense ? 16 : 17)) / (m.b * m.c * (m.weights.data ? 8 : 1));
    const int64_t most = m.dense ? 32 : 16;
    return fit < 4 ? 4 : fit > most ? most : fit;
}

inline int64_t slabs_of(const Masks& m) { return (m.a + planes_of(m) - 1) / planes_of(m); }

const int64_t SIZES[] = {2, 2, 4, 8, 1, 1, 1, 2, 2, 4, 4, 8, 8};  // of each Dtype, in bytes

inline int64_t size_of(int64_t dtype) { return SIZES[dtype]; }

inline int64_t blocks_of(const Call& c) { return (c.voxels + BLOCK - 1) / BLOCK; }
inline int64_t width_of(const Call& c) { return SUMS * c.channels + 1; }
inline int64_t width_of(const Masks& m) { return 2 * m.channels + 1; }
inline bool is_double(const Call& c) { return c.gamma.dtype == F64; }

inline double number(const View& view, int64_t n, int64_t k) {  // of a float or double tensor (N, K)
    const int64_t i = n * view.n + k * view.k;
    return view.dtype == F64 ? ((const double*)view.data)[i] : (double)((const float*)view.data)[i];
}

}  // namespace unifocal
