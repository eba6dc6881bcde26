// Rows of any type: read and written as numbers of one.

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

// `count` values of one channel, 0 behind them up to `padded`
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
