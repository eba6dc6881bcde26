"""Masks to measure, and MONAI without its own warnings."""

import warnings

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import monai.metrics as monai
    import surface_distance as deepmind

__all__ = ["SPACINGS", "blobs", "deepmind", "monai", "noise", "pairs", "shifted"]

SPACINGS = {2: (0.7, 1.9), 3: (3.0, 0.8, 1.1)}


def blobs(shape, seed, share=0.2):
    """Two smooth random masks that overlap in part."""
    rng = np.random.default_rng(seed)
    common, *own = ndimage.gaussian_filter(rng.standard_normal((3, *shape)), (0, *(1.5,) * len(shape)))
    first, second = (np.asarray(f > np.quantile(f, 1 - share)).astype(np.uint8) for f in (common + o for o in own))
    return first, second


def noise(shape, seed, share=0.3):
    """Two random masks, every voxel for itself: all the ways in which neighbours can lie."""
    first, second = (np.random.default_rng(seed).random((2, *shape)) < share).astype(np.uint8)
    return first, second


def shifted(mask, steps):
    return np.roll(mask, steps, range(mask.ndim))


@st.composite
def pairs(draw, values=(0, 1)):
    """(prediction, truth, spacing): small, 2D or 3D, often empty or full."""
    shape = draw(arrays.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=6))
    elements = st.sampled_from(values)
    fill = st.sampled_from(values)
    prediction, truth = (draw(arrays.arrays(np.uint8, shape, elements=elements, fill=fill)) for _ in range(2))
    spacing = draw(st.tuples(*[st.sampled_from((0.5, 0.9, 1.0, 3.0))] * len(shape)))
    return prediction, truth, spacing
