"""A loss as a function of p_t, the probability of the true class: what it says of images of which all voxels share it.

An image has two classes, lesion and background, and VOXELS voxels in a row; a share of them, side by side, is lesion.
Of a loss that is a mean over voxels this is the curve of a voxel. A loss of regions has none: it depends on all voxels
together. Here its overlap is that of an image which is right by p_t everywhere. If half of it is lesion, false alarms
and misses balance, and the Tversky index of both classes is p_t itself, whatever delta is.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from unifocal.lab.choices import LossChoice
from unifocal.lab.errors import LabError

VOXELS = 1000
P_T = 1 / (1 + np.exp(-np.linspace(-14, 14, 281)))  # where figures look: closest where powers and logarithms turn
Numbers = NDArray[np.float64]


class Sides(NamedTuple):
    """A quantity of the lesion and of the background, at each p_t."""

    lesion: Numbers
    background: Numbers


def losses_of(choice: LossChoice, share: float, p_t: Numbers = P_T) -> Sides:
    """The part of each class in a loss: it counts alone (`class_weights`), among voxels as among regions.

    If half of the image is lesion and regions count the background, the loss is the mean of both parts.
    """
    logits, labels = images(share, p_t)
    parts = [
        choice.build(class_weights=weights, reduction="none")(logits, labels) for weights in ((0.0, 1.0), (1.0, 0.0))
    ]
    return Sides(*(part.numpy() for part in parts))


def gradients_of(choice: LossChoice, share: float, p_t: Numbers = P_T) -> Sides:
    """VOXELS times |∂L/∂z| of the logit z of a voxel: cross-entropy has 1 - p_t. L is the whole loss."""
    logits, labels = images(share, p_t)
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(choice.build(reduction="sum")(logits, labels), logits)
    scaled = VOXELS * gradient[:, 0].abs().numpy()
    return Sides(scaled[:, 0], scaled[:, -1])


def images(share: float, p_t: Numbers) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (P, 1, VOXELS) and labels (P, VOXELS) of an image for each p_t, lesion first."""
    if not 1 <= share * VOXELS <= VOXELS - 1:
        raise LabError(f"--share: expected a number from {1 / VOXELS:g} to {1 - 1 / VOXELS:g}; got {share:g}.")
    lesion = round(share * VOXELS)
    labels = (torch.arange(VOXELS) < lesion).long()
    logits = torch.logit(torch.as_tensor(p_t))[:, None] * (2 * labels - 1)
    return logits[:, None], labels.expand(len(p_t), -1)
