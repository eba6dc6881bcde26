// What there is for every instruction set: kernels.inl defines it, and a source file of its own compiles it.

#pragma once

#include "call.h"

namespace unifocal {

struct Kernels {
    typedef void (*OnBlock)(const Call&, int64_t image, int64_t block, char* scratch);
    typedef void (*OnSlab)(const Masks&, int64_t image, int64_t slab, char* scratch);

    OnBlock block, block_twice;  // arithmetic in float and in double
    OnSlab slab, slab_twice;
    int64_t (*block_bytes)(const Call&);  // of scratch memory
    int64_t (*slab_bytes)(const Masks&);
};

namespace portable {
extern const Kernels KERNELS;
}
#ifdef UNIFOCAL_X86
namespace avx2 {
extern const Kernels KERNELS;
}
namespace avx512 {
extern const Kernels KERNELS;
}
#endif

}  // namespace unifocal
