// The kernels for any processor, with vectors of 16 bytes, which most of them have.

#include "kernels.h"

#define UNIFOCAL_ISA portable
#define UNIFOCAL_BYTES 16
#include "kernels.inl"
