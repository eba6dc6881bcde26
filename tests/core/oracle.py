"""Every loss transcribed from its equation in float64 NumPy, image by image; shares no code with the package.

A batch is read into `Image`s first: probability and label of every class at every voxel that takes part. Each loss is
then its equation on those, and returns one value per image. Equation numbers are those of Yeung et al.,
arXiv 2102.04525 ("v1", "v2"), sections those of the project's mathematical specification.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

EPS = 1e-7  # the authors' K.epsilon(): given probabilities are clipped here in entropies and Focal Tversky indices


@dataclass
class Image:
    """One image: M classes (both sides of a channel that is read against the rest), V voxels that take part."""

    p: Any  # (M, V)
    y: np.ndarray  # (M, V)
    w: np.ndarray  # (V,) voxel weights
    label: list[int]  # (M,): 0, 1, ..., C - 1, or 0, 1, 0, 1, ...

    def clipped(self) -> Any:
        return np.minimum(np.maximum(self.p, EPS), 1 - EPS)


@dataclass
class Shared:
    """The shared arguments of all losses, except those that `read` and `reduce` take."""

    class_weights: Sequence[float] | None = None  # one per class; "sigmoid" with several channels: one per channel
    include_background: bool = True
    batch: bool = False
    absent: str = "count"
    smooth: float | None = None


# --- reading -------------------------------------------------------------------------------------------------------


def softmax(z: np.ndarray) -> Any:
    e = np.exp(z - z.max(0))
    return e / e.sum(0)


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    return np.stack([labels == c for c in range(classes)]).astype(float)


def read(
    x: np.ndarray,
    labels: np.ndarray,
    activation: str,
    ignore_index: int | None = None,
    voxel_weights: np.ndarray | None = None,
    against_rest: bool = False,
) -> list[Image]:
    """x (N, C, *spatial) logits, or probabilities if activation is "none"; labels (N, *spatial) or (N, C, *spatial)."""
    images = []
    for n in range(x.shape[0]):
        channels = x.shape[1]
        z = x[n].astype(float).reshape(channels, -1)
        w = np.ones(z.shape[1]) if voxel_weights is None else voxel_weights[n].astype(float).reshape(-1)
        valid = np.ones(z.shape[1], dtype=bool)
        if labels.ndim == x.ndim:
            y = labels[n].astype(float).reshape(channels, -1)
        else:
            flat = labels[n].reshape(-1).astype(np.int64)
            if ignore_index is not None:
                valid = flat != ignore_index
            y = one_hot(flat, channels) if channels > 1 else (flat == 1).astype(float)[None]
        if activation == "softmax":
            p = softmax(z)
        elif activation == "sigmoid":
            p = 1 / (1 + np.exp(-z))
        else:
            p = z
        label = list(range(channels))
        if activation == "sigmoid" or channels == 1 or against_rest:
            p = np.concatenate([[1 - p[k], p[k]] for k in range(channels)])
            y = np.concatenate([[1 - y[k], y[k]] for k in range(channels)])
            label = [0, 1] * channels
        images.append(Image(p[:, valid], y[:, valid], w[valid], label))
    return images


def reduce(values: list[float], images: list[Image], reduction: str) -> np.ndarray:
    """Section 5: over the per-image values; an image with no valid voxel is 0 and joins no mean."""
    has_voxels = [image.w.sum() > 0 for image in images]
    kept = [value if has else 0.0 for value, has in zip(values, has_voxels, strict=True)]
    if reduction == "none":
        return np.array(kept)
    return np.array(sum(kept) / (max(sum(has_voxels), 1) if reduction == "mean" else 1))


# --- vocabulary ----------------------------------------------------------------------------------------------------


def weight_of_class(image: Image, shared: Shared) -> list[float]:
    classes = len(image.label)
    if shared.class_weights is None:
        return [1.0] * classes
    if len(shared.class_weights) == classes:
        return list(shared.class_weights)
    return [w for w in shared.class_weights for _ in range(2)]  # both sides of a channel


def entropy_mean(image: Image, factor: Sequence[float], gamma: Sequence[float], shared: Shared) -> float:
    """mean_i sum_c -factor_c (1-p)^gamma_c y log p; weights of class and voxel turn it into the weighted mean."""
    p = image.clipped()
    cw = weight_of_class(image, shared)
    total = norm = 0.0
    for c in range(len(image.label)):
        for i in range(image.w.size):
            y = image.y[c, i] * image.w[i] * cw[c]
            total += -factor[c] * (1 - p[c, i]) ** gamma[c] * y * math.log(p[c, i])
            norm += y
    return total / norm if norm > 0 else 0.0


def region_means(images: list[Image], per_class, shared: Shared, clip: bool) -> list[float]:
    """mean_c per_class(c, label, tp, fn, fp) of every image, or of the batch as one image."""
    sums = []
    for image in images:
        p = image.clipped() if clip else image.p
        tp = (image.w * image.y * p).sum(1)
        fn = (image.w * image.y * (1 - p)).sum(1)
        fp = (image.w * (1 - image.y) * p).sum(1)
        sums.append((tp, fn, fp, (image.w * image.y).sum(1)))
    if shared.batch:
        pooled = tuple(sum(one[j] for one in sums) for j in range(4))
        sums = [pooled] * len(images)
    means = []
    for image, (tp, fn, fp, present) in zip(images, sums, strict=True):
        total = norm = 0.0
        for c, weight in enumerate(weight_of_class(image, shared)):
            if image.label[c] == 0 and not shared.include_background:
                continue
            if shared.absent == "skip" and present[c] == 0:
                continue
            total += weight * per_class(image.label[c], tp[c], fn[c], fp[c])
            norm += weight
        means.append(total / norm if norm > 0 else 0.0)
    return means


def tversky_index(tp: float, fn: float, fp: float, delta: float, s: float) -> float:
    """Section 0: TI = (TP + s) / (TP + delta FN + (1-delta) FP + s); delta weighs the false negatives."""
    return (tp + s) / (tp + delta * fn + (1 - delta) * fp + s)


def smoothing(shared: Shared, default: float = 1e-6) -> float:
    return default if shared.smooth is None else shared.smooth


def is_rare(label: int, common_class: int, rare_classes: Sequence[int] | None) -> bool:
    return label != common_class if rare_classes is None else label in rare_classes


# --- entropy losses ------------------------------------------------------------------------------------------------


def cross_entropy(images: list[Image], shared: Shared) -> list[float]:
    """Section 1.1, v2 eq. 2."""
    return [entropy_mean(i, [1.0] * len(i.label), [0.0] * len(i.label), shared) for i in images]


def focal(images: list[Image], shared: Shared, gamma=2.0, alpha=None) -> list[float]:
    """Section 1.2, v2 eq. 6; a scalar alpha is [1-a, a, ..., a]."""
    values = []
    for image in images:
        if alpha is None:
            factor = [1.0 for _ in image.label]
        elif isinstance(alpha, float):
            factor = [1 - alpha if label == 0 else alpha for label in image.label]
        else:
            factor = [alpha[label] for label in image.label]
        values.append(entropy_mean(image, factor, [gamma] * len(factor), shared))
    return values


def symmetric_focal(images, shared, delta=0.6, gamma=0.5, common_class=0, rare_classes=None) -> list[float]:
    """Section 1.9."""
    values = []
    for image in images:
        w = [delta if is_rare(c, common_class, rare_classes) else 1 - delta for c in image.label]
        values.append(entropy_mean(image, w, [gamma] * len(w), shared))
    return values


def asymmetric_focal(images, shared, delta=0.6, gamma=0.5, common_class=0, rare_classes=None) -> list[float]:
    """Section 1.11, v2 eq. 16 and 17 with log(p_{t,c})."""
    values = []
    for image in images:
        rare = [is_rare(c, common_class, rare_classes) for c in image.label]
        w = [delta if r else 1 - delta for r in rare]
        values.append(entropy_mean(image, w, [0.0 if r else gamma for r in rare], shared))
    return values


# --- region losses -------------------------------------------------------------------------------------------------


def dice(images, shared) -> list[float]:
    """Section 1.3, v2 eq. 8 and 9."""
    s = smoothing(shared)

    def per_class(_, tp, fn, fp):
        return 1 - (2 * tp + 2 * s) / (2 * tp + fp + fn + 2 * s)

    return region_means(images, per_class, shared, clip=False)


def jaccard(images, shared) -> list[float]:
    """Intersection over union, smoothed like the others."""
    s = smoothing(shared)

    def per_class(_, tp, fn, fp):
        return 1 - (tp + s) / (tp + fn + fp + s)

    return region_means(images, per_class, shared, clip=False)


def tversky(images, shared, delta=0.7) -> list[float]:
    """Section 1.4, v2 eq. 10 and 11."""
    s = smoothing(shared)

    def per_class(_, tp, fn, fp):
        return 1 - tversky_index(tp, fn, fp, delta, s)

    return region_means(images, per_class, shared, clip=False)


def asymmetric_similarity(images, shared, beta=1.5) -> list[float]:
    """Section 3, F_beta: (1+b^2) TP / ((1+b^2) TP + b^2 FN + FP), s scaled alike."""
    s = smoothing(shared)
    b2 = beta**2

    def per_class(_, tp, fn, fp):
        return 1 - (1 + b2) * (tp + s) / ((1 + b2) * (tp + s) + b2 * fn + fp)

    return region_means(images, per_class, shared, clip=False)


def focal_tversky(images, shared, delta=0.7, exponent=0.75) -> list[float]:
    """Section 1.5, v2 eq. 12 (exponent = 1/gamma)."""
    s = smoothing(shared)

    def per_class(_, tp, fn, fp):
        return (1 - tversky_index(tp, fn, fp, delta, s)) ** exponent

    return region_means(images, per_class, shared, clip=True)


def cosine_tversky(images, shared, delta=0.7, gamma=1.0) -> list[float]:
    """Section 1.7, v1 eq. 15."""
    s = smoothing(shared)

    def per_class(_, tp, fn, fp):
        return math.cos(math.pi / 2 * tversky_index(tp, fn, fp, delta, s)) ** gamma

    return region_means(images, per_class, shared, clip=False)


def symmetric_focal_tversky(images, shared, delta=0.6, gamma=0.5) -> list[float]:
    """Section 1.10."""
    s = smoothing(shared, 1e-7)

    def per_class(_, tp, fn, fp):
        return (1 - tversky_index(tp, fn, fp, delta, s)) ** (1 - gamma)

    return region_means(images, per_class, shared, clip=True)


def asymmetric_focal_tversky(images, shared, delta=0.6, gamma=0.5, common_class=0, rare_classes=None) -> list[float]:
    """Section 1.12, v2 eq. 18 and 19 with delta on the false negatives."""
    s = smoothing(shared, 1e-7)

    def per_class(c, tp, fn, fp):
        x = 1 - tversky_index(tp, fn, fp, delta, s)
        return x ** (1 - gamma) if is_rare(c, common_class, rare_classes) else x

    return region_means(images, per_class, shared, clip=True)


# --- compounds -----------------------------------------------------------------------------------------------------


def add(a: float, first: list[float], b: float, second: list[float]) -> list[float]:
    return [a * x + b * y for x, y in zip(first, second, strict=True)]


def combo(images, shared, alpha=0.5, beta=0.5, common_class=0, rare_classes=None) -> list[float]:
    """Section 1.6, v2 eq. 14 (alpha None: v1 eq. 18), beta on the rare classes."""
    s = smoothing(shared)
    entropy = []
    for image in images:
        rare = [is_rare(c, common_class, rare_classes) for c in image.label]
        w = [1.0 if beta is None else beta if r else 1 - beta for r in rare]
        entropy.append(entropy_mean(image, w, [0.0] * len(w), shared))

    def per_class(_, tp, fn, fp):
        return tversky_index(tp, fn, fp, 0.5, s)

    dsc = region_means(images, per_class, shared, clip=False)
    return add(1.0, entropy, -1.0, dsc) if alpha is None else add(alpha, entropy, -(1 - alpha), dsc)


def dice_ce(images, shared, dice_weight=1.0, ce_weight=1.0) -> list[float]:
    return add(dice_weight, dice(images, shared), ce_weight, cross_entropy(images, shared))


def dice_focal(images, shared, dice_weight=1.0, focal_weight=1.0, gamma=2.0) -> list[float]:
    return add(dice_weight, dice(images, shared), focal_weight, focal(images, shared, gamma))


def hybrid_focal(images, shared, lam=0.5, alpha=None, gamma=2.0, delta=0.7, exponent=0.75) -> list[float]:
    """Section 1.8, v1 eq. 23 and v2 eq. 15: lam on the focal part."""
    return add(lam, focal(images, shared, gamma, alpha), 1 - lam, focal_tversky(images, shared, delta, exponent))


def symmetric_unified_focal(
    images, shared, lam=0.5, delta=0.6, gamma=0.5, common_class=0, rare_classes=None
) -> list[float]:
    """Section 1.13."""
    entropy = symmetric_focal(images, shared, delta, gamma, common_class, rare_classes)
    return add(lam, entropy, 1 - lam, symmetric_focal_tversky(images, shared, delta, gamma))


def unified_focal(images, shared, lam=0.5, delta=0.6, gamma=0.5, common_class=0, rare_classes=None) -> list[float]:
    """Section 1.13, v2 eq. 20."""
    entropy = asymmetric_focal(images, shared, delta, gamma, common_class, rare_classes)
    region = asymmetric_focal_tversky(images, shared, delta, gamma, common_class, rare_classes)
    return add(lam, entropy, 1 - lam, region)


# --- A-FL ----------------------------------------------------------------------------------------------------------


def surface(mask: np.ndarray, spacing: Sequence[float] | None) -> float:
    """Section 4: mean over all voxels of |grad m|, np.gradient along each axis longer than 1."""
    square = np.zeros(mask.shape)
    for axis in range(mask.ndim):
        if mask.shape[axis] > 1:
            square += np.gradient(mask, 1.0 if spacing is None else spacing[axis], axis=axis) ** 2
    return float(np.sqrt(square).mean())


def adaptive_focal(
    x: np.ndarray,
    labels: np.ndarray,
    activation: str,
    size=1.0,
    smoothness=1.0,
    gamma_0=0.0,
    order="paper",
    spacing=None,
) -> list[float]:
    """Section 4, canonical form, (N, C, *spatial) and index labels (N, *spatial); one-vs-rest for C > 2.

    A single channel z is the pair of channels [0, z] under softmax.
    """
    if x.shape[1] == 1:
        assert activation == "sigmoid"
        x, activation = np.concatenate([np.zeros_like(x), x], 1), "softmax"
    values = []
    for n in range(x.shape[0]):
        channels = x.shape[1]
        z = x[n].astype(float).reshape(channels, -1)
        p = 1 / (1 + np.exp(-z)) if activation == "sigmoid" else softmax(z)
        total = 0.0
        for c in range(channels):
            inside = (labels[n] == c).reshape(-1)
            mask = (labels[n] != 0 if c == 0 else labels[n] == c).astype(float)
            v, s = mask.mean(), surface(mask, spacing)
            gamma = size * v + smoothness * s + gamma_0
            w = {"paper": (v, 1 - v), "original": (1 - v, v), "scalar": (1 - v, 1 - v)}[order][0 if c == 0 else 1]
            p_t = np.where(inside, p[c], 1 - p[c])
            total += (w * (1 - p_t) ** gamma * -np.log(p_t)).mean()
        values.append(total / channels)
    return values


LOSSES = {
    "cross-entropy": cross_entropy,
    "focal": focal,
    "dice": dice,
    "jaccard": jaccard,
    "tversky": tversky,
    "asymmetric-similarity": asymmetric_similarity,
    "focal-tversky": focal_tversky,
    "cosine-tversky": cosine_tversky,
    "combo": combo,
    "dice-ce": dice_ce,
    "dice-focal": dice_focal,
    "mixed-focal": hybrid_focal,
    "hybrid-focal": hybrid_focal,
    "symmetric-focal": symmetric_focal,
    "asymmetric-focal": asymmetric_focal,
    "symmetric-focal-tversky": symmetric_focal_tversky,
    "asymmetric-focal-tversky": asymmetric_focal_tversky,
    "symmetric-unified-focal": symmetric_unified_focal,
    "unified-focal": unified_focal,
    "generalised-focal": unified_focal,
}
