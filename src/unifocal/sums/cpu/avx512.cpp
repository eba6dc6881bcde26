// The kernels for processors with AVX-512 (F, BW, DQ, VL).

#include "kernels.h"

#ifdef UNIFOCAL_X86
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c,prefer-vector-width=512")
#endif

#define UNIFOCAL_ISA avx512
#define UNIFOCAL_BYTES 64
#include "kernels.inl"

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
