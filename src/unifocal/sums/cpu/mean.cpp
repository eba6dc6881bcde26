// From the sums of each image and class to what a loss returns, and how fast that rises with each of them: slopes.py in one
// call. On small tensors its two dozen operations take longer than a pass over a million voxels, once the volumes have
// emptied the cache of their code. Everything is in double.

#include <cmath>
#include <cstdint>

namespace {

double number(const void* data, bool twice, int64_t i) {
    return twice ? ((const double*)data)[i] : (double)((const float*)data)[i];
}

// A number for class p of channel k in image n: with two classes a channel is read as the rest, 0, and the class, 1.
struct Factors {
    const void* data;
    int64_t twice, p, n, k;  // is it double; and strides in elements, 0 along an axis that all share

    double operator()(int64_t of_p, int64_t of_n, int64_t of_k) const { return number(data, twice, of_p * p + of_n * n + of_k * k); }
};

struct Region {
    Factors share, exponent;
    double delta, credit, smooth;
    int64_t sine;
};

struct Mean {
    int64_t images, channels, classes, reduction, regions;
    int64_t sums, first;  // S slices of values, and which of them is the first of tp: before it come those of ce, if any
    double constant;
    Factors entropy, weights;  // the former without data if there are none
    int64_t twice;             // are these double, which lie as they are written here?
    const void *of_values, *of_labelled, *of_voxels;  // (S, N, K): P of ce, P of tp, 1 of fp, 1 of fn, or ce or the others alone;
    void *to_slopes, *to_value;                       // (N, K), (N); and (S, N, K), and (N) or one number

    double values(int64_t s, int64_t n, int64_t k) const { return number(of_values, twice, (s * images + n) * channels + k); }
    double labelled(int64_t n, int64_t k) const { return number(of_labelled, twice, n * channels + k); }
    double voxels(int64_t n) const { return number(of_voxels, twice, n); }
    void write(void* to, int64_t i, double x) const {
        if (twice)
            ((double*)to)[i] = x;
        else
            ((float*)to)[i] = (float)x;
    }
};

enum Reduction : int64_t { NONE, SUM, MEAN };

const double HALF_PI = 1.57079632679489661923, TAU = 1e-12, NOTHING = 1e-30;  // see slopes.py

double larger(double a, double b) { return a > b ? a : b; }

// What a voxel of image n weighs in the mean of the cross-entropies.
double price(const Mean& m, int64_t n) {
    double weight = 0;
    for (int64_t k = 0; k < m.channels; ++k) {
        weight += m.weights(m.classes - 1, n, k) * m.labelled(n, k);
        if (m.classes == 2) weight += m.weights(0, n, k) * (m.voxels(n) - m.labelled(n, k));
    }
    return 1 / larger(weight, NOTHING);
}

// The part of one class in the value, `by` times; its slopes are added to those of the channel.
double region_of(const Mean& m, const Region& r, int64_t p, int64_t n, int64_t k, double by, double* slopes) {
    const bool mirrored = m.classes == 2 && p == 1;  // what the rest misses is a false alarm of the class
    const int64_t tp = m.first + p, fp = m.first + m.classes + mirrored, fn = m.first + m.classes + !mirrored;
    const double errors = r.delta * m.values(fn, n, k) + (1 - r.delta) * m.values(fp, n, k);
    const double whole = errors + r.credit * (m.values(tp, n, k) + r.smooth), quotient = errors / whole;
    const double x = r.sine ? std::sin(HALF_PI * quotient) : quotient, exponent = r.exponent(p, n, k);
    double worth = by * r.share(p, n, k);
    if (exponent != 1) worth *= std::pow(larger(x, TAU), exponent - 1);
    double slope = (x > TAU ? exponent : 1) * worth / whole;
    if (r.sine) slope *= HALF_PI * std::cos(HALF_PI * quotient);
    slopes[tp] -= slope * quotient * r.credit;
    slopes[fp] += slope * (1 - quotient) * (1 - r.delta);
    slopes[fn] += slope * (1 - quotient) * r.delta;
    return worth * x;
}

}  // namespace

extern "C" {

// Words of the structs: a library that was compiled from another version must not be called.
int64_t unifocal_mean_words() { return sizeof(Mean) / 8 + sizeof(Region) / 8; }

void unifocal_mean(const Mean* mean, const Region* regions) {
    const Mean& m = *mean;
    double valid = 0, total = 0;
    for (int64_t n = 0; n < m.images; ++n) valid += m.voxels(n) > 0;
    for (int64_t n = 0; n < m.images; ++n) {
        const double by = !(m.voxels(n) > 0) ? 0 : m.reduction == MEAN ? 1 / valid : 1;
        const double of_entropy = m.entropy.data ? by * price(m, n) : 0;
        double value = by * m.constant;
        for (int64_t k = 0; k < m.channels; ++k) {
            double slopes[6] = {};
            for (int64_t p = 0; p < m.classes; ++p) {
                if (m.entropy.data) {
                    slopes[p] = of_entropy * m.entropy(p, n, k);
                    value += slopes[p] * m.values(p, n, k);
                }
                for (int64_t r = 0; r < m.regions; ++r) value += region_of(m, regions[r], p, n, k, by, slopes);
            }
            for (int64_t s = 0; s < m.sums; ++s) m.write(m.to_slopes, (s * m.images + n) * m.channels + k, slopes[s]);
        }
        total += value;
        if (m.reduction == NONE) m.write(m.to_value, n, value);
    }
    if (m.reduction != NONE) m.write(m.to_value, 0, total);
}

}  // extern "C"
