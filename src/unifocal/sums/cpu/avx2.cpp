// The kernels for processors with AVX2, FMA and F16C.

#include "kernels.h"

#ifdef UNIFOCAL_X86
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

#define UNIFOCAL_ISA avx2
#define UNIFOCAL_BYTES 32
#include "kernels.inl"

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
