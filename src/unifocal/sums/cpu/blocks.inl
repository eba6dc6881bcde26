// A block of voxels, tile by tile.

static_assert(MEAN < STEPS && FALLEN < STEPS && FOCUS < STEPS, "a tile has a row for each step");

template <class F>
void process(const Tile<F>& t, int64_t padded) {
    const bool back = t.c.backward;
    if (t.binary()) return back ? backward_binary<F, false>(t, padded) : forward_binary<F, false>(t, padded);
    if (t.c.activation == SIGMOID) return back ? backward_sigmoid<F, false>(t, padded) : forward_sigmoid<F, false>(t, padded);
    if (t.general()) return back ? backward_any(t, padded) : forward_any(t, padded);
    if (t.c.dense) switch (t.c.channels) {
            case 2: return back ? backward_sigmoid<F, true>(t, padded) : forward_sigmoid<F, true>(t, padded);
            case 3: return back ? backward_softmax<F, 3>(t, padded) : forward_softmax<F, 3>(t, padded);
            default: return back ? backward_softmax<F, 0>(t, padded) : forward_softmax<F, 0>(t, padded);
        }
    switch (t.c.channels) {
        case 2:
            if (t.foreign) break;  // what is of neither class is of no side
            return back ? backward_binary<F, true>(t, padded) : forward_binary<F, true>(t, padded);
        case 3: return back ? backward_few<F, 3>(t, padded) : forward_few<F, 3>(t, padded);
        case 4: return back ? backward_few<F, 4>(t, padded) : forward_few<F, 4>(t, padded);
    }
    if (t.c.channels <= SELECTED) return back ? backward_many<F, true>(t, padded) : forward_many<F, true>(t, padded);
    return back ? backward_many<F, false>(t, padded) : forward_many<F, false>(t, padded);
}

template <class F>
void block(const Call& c, int64_t image, int64_t index, char* scratch) {
    LANES;
    Tile<F> t(c, image, scratch);
    const int64_t width = width_of(c), begin = index * BLOCK;
    const int64_t end = begin + BLOCK < c.voxels ? begin + BLOCK : c.voxels;
    if (!c.backward) t.start_sums();
    for (int64_t v = begin, summed = 0; v < end; v += t.size) {
        const int64_t count = end - v < t.size ? end - v : t.size;
        const int64_t padded = (count + L::N - 1) / L::N * L::N;
        t.read_labels(v, count, padded);
        if (c.odd) t.watch(padded);
        t.read_logits(v, count, padded);
        if (c.backward) {
            t.place_gradient(v, count, padded);
            process(t, padded);
            t.write_gradient(v, count);
        } else {
            process(t, padded);
            summed += t.size;
            if (summed + t.size <= MOST && v + t.size < end) continue;
            t.add_up();
            summed = 0;
        }
    }
    if (c.backward) return;
    double* to = c.partial + (image * blocks_of(c) + index) * width;
    for (int64_t i = 0; i < width; ++i) {
        to[i] = 0;
        for (int lane = 0; lane < L::N; ++lane) to[i] += t.totals[i * L::N + lane];
    }
}
