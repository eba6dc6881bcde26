// Exponentials, logarithms and powers.

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
