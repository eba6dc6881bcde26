"""What the tests of the losses share: names, parameters that are all different, and small random volumes."""

from collections.abc import Callable

import numpy as np
import oracle
import pytest
import torch
from torch import Tensor

import unifocal

# Nothing at its default, no two alike, so that no mix-up of two parameters or of x and 1 - x passes unseen.
PARAMETERS: dict[str, dict] = {
    "cross-entropy": {},
    "focal": {"gamma": 1.7, "alpha": 0.83},
    "dice": {},
    "jaccard": {},
    "tversky": {"delta": 0.62},
    "asymmetric-similarity": {"beta": 1.9},
    "focal-tversky": {"delta": 0.62, "exponent": 1.3},
    "cosine-tversky": {"delta": 0.62, "gamma": 1.4},
    "combo": {"alpha": 0.28, "beta": 0.64},
    "dice-ce": {"dice_weight": 0.45, "ce_weight": 1.8},
    "dice-focal": {"dice_weight": 0.45, "focal_weight": 1.8, "gamma": 1.2},
    "mixed-focal": {"lam": 0.3, "alpha": 0.83, "gamma": 1.7, "delta": 0.62, "exponent": 1.3},
    "hybrid-focal": {"lam": 0.27, "alpha": 0.78, "gamma": 0.6, "delta": 0.66, "exponent": 0.55},
    "symmetric-focal": {"delta": 0.62, "gamma": 1.35},
    "asymmetric-focal": {"delta": 0.62, "gamma": 1.35},
    "symmetric-focal-tversky": {"delta": 0.62, "gamma": 0.35},
    "asymmetric-focal-tversky": {"delta": 0.62, "gamma": 0.35},
    "symmetric-unified-focal": {"lam": 0.3, "delta": 0.62, "gamma": 0.35},
    "unified-focal": {"lam": 0.3, "delta": 0.62, "gamma": 0.35},
    "generalised-focal": {"lam": 0.27, "delta": 0.66},
    "adaptive-focal": {"size": 0.8, "smoothness": 1.3, "gamma_0": 0.45},
}
DEFAULTS_OF_NAME: dict[str, dict] = {"generalised-focal": {"gamma": 0.2}}  # where a name differs from its class

ALL = unifocal.available()
# A mean over voxels, one over classes with powers, both with a price for each class, and one that looks at masks first.
EACH_KIND = ("cross-entropy", "cosine-tversky", "unified-focal", "adaptive-focal")
KINDS_FIRST = [name if name in EACH_KIND else pytest.param(name, marks=pytest.mark.slow) for name in ALL]
WRITTEN_ON_SUMS = [name for name in ALL if name != "adaptive-focal"]
REGION = {
    "dice",
    "jaccard",
    "tversky",
    "asymmetric-similarity",
    "focal-tversky",
    "cosine-tversky",
    "symmetric-focal-tversky",
    "asymmetric-focal-tversky",
}
ENTROPY = {"cross-entropy", "focal", "symmetric-focal", "asymmetric-focal", "adaptive-focal"}
COMPOUND = set(ALL) - REGION - ENTROPY
USES_RARITY = {"combo", "symmetric-focal", "asymmetric-focal", "asymmetric-focal-tversky", "symmetric-unified-focal"}
USES_RARITY |= {"unified-focal", "generalised-focal"}

SHAPES = {"1D": (11,), "2D": (4, 3), "3D": (2, 3, 2)}


def make(name: str, **shared) -> unifocal.SegmentationLoss:
    """The loss of that name with the parameters above."""
    return unifocal.build(name, **PARAMETERS[name], **shared)


def volume(
    channels: int, spatial: tuple[int, ...] = (4, 3), images: int = 2, seed: int = 0, scale: float = 1.5
) -> tuple[Tensor, Tensor]:
    """Random float64 logits and int64 labels in which class 0 is the most frequent one."""
    rng = np.random.default_rng([seed, channels, images, *spatial])
    classes = max(channels, 2)
    chances = np.array([1.0 + classes] + [1.0] * (classes - 1))
    labels = rng.choice(classes, size=(images, *spatial), p=chances / chances.sum())
    flat = labels.reshape(images, -1)
    for n in range(images):
        flat[n, :classes] = rng.permutation(classes)  # every class occurs in every image
    return torch.tensor(rng.normal(size=(images, channels, *spatial)) * scale), torch.tensor(labels)


def expected(
    name: str,
    x: Tensor,
    labels: Tensor,
    activation: str,
    *,
    reduction: str = "mean",
    ignore_index: int | None = None,
    voxel_weights: Tensor | None = None,
    parameters: dict | None = None,
    **shared,
) -> np.ndarray:
    """The oracle's value for the same call."""
    weights = None if voxel_weights is None else voxel_weights.numpy()
    images = oracle.read(x.detach().numpy(), labels.numpy(), activation, ignore_index, weights)
    own = (DEFAULTS_OF_NAME.get(name, {}) | PARAMETERS[name]) if parameters is None else parameters
    values = oracle.LOSSES[name](images, oracle.Shared(**shared), **own)
    return oracle.reduce(values, images, reduction)


def value_and_gradient(loss: Callable[..., Tensor], x: Tensor, labels: Tensor, *weights) -> tuple[Tensor, Tensor]:
    """A loss summed to a scalar, and its gradient with respect to x."""
    x = x.detach().requires_grad_()  # keeps strides and memory format
    value = loss(x, labels, *weights)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), gradient
