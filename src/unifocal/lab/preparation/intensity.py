"""The intensities of one image: clipped to a window, then brought to a common scale.

What counts as one image is normalised by itself: a sequence of a volume, or a picture with all its colours, whose
ratios are part of what it shows.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from unifocal.lab.settings import Settings

EVEN = 1e-5  # an image whose values differ by no more, relative to the largest, is even but for rounding


def clip(image: NDArray[np.float32], settings: Settings) -> None:
    """Clip in place, to values or to percentiles of this image, or not at all."""
    if settings.clip is not None:
        np.clip(image, *settings.clip, out=image)
    elif settings.clip_percentiles is not None:
        low, high = np.percentile(image.ravel(order="K"), settings.clip_percentiles)
        np.clip(image, low, high, out=image)


def normalise(image: Tensor, how: str) -> Tensor:
    """Normalise in place over all voxels, and return the image.

    how  `z-score`: mean 0 and standard deviation 1; `01`: least 0 and greatest 1; `z-score-01`: one after the other,
         which is the `01` of the same image but for rounding; `none`

    An even image becomes 0 everywhere.
    """
    if how == "none":
        return image
    low, high = image.aminmax()
    if high - low <= EVEN * max(abs(low), abs(high)):
        return image.zero_()
    if how in ("z-score", "z-score-01"):
        mean, deviation = image.mean(), image.std()
        image.sub_(mean).div_(deviation)
    if how in ("01", "z-score-01"):
        low, high = image.aminmax()
        image.sub_(low).div_(high - low)
    return image
