// The kernels for one instruction set: in namespace UNIFOCAL_ISA, with vectors of UNIFOCAL_BYTES. The other .inl files are
// parts of this one, in the order in which they need each other.
//
// A block is worked on in tiles of voxels that fit the first-level cache, and a tile a vector of voxels at a time through
// all channels. Tiles are passed by value: what a reference refers to any store might change, and it would be read again
// and again.

namespace unifocal::UNIFOCAL_ISA {
namespace {

#define INLINE inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))

#include "lanes.inl"
#include "powers.inl"
#include "rows.inl"
#include "tile.inl"

#include "softmax_classes.inl"
#include "general.inl"
#include "binary.inl"
#include "binary_classes.inl"
#include "binary_soft.inl"
#include "softmax_soft.inl"
#include "blocks.inl"

#include "surfaces.inl"

}  // namespace

const Kernels KERNELS = {block<float>, block<double>, slab<float>, slab<double>, block_bytes, slab_bytes};

}  // namespace unifocal::UNIFOCAL_ISA
