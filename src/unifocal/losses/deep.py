"""Any loss over the outputs of a network at several scales, each with the labels of its own size."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .arguments import check_number, check_option
from .inputs import describe, plain

ScaleWeights = Literal["papers", "nnunet", "monai-same", "monai-exp", "monai-two"]
Size = tuple[int, ...]
Target = tuple[Tensor, ...]  # labels, or labels and their weights

_NAMES: tuple[str, ...] = get_args(ScaleWeights)
_MOST_POOLED_AXES = 3  # of torch's average pooling


class DeepSupervision(nn.Module):
    """A weighted sum of one loss over the outputs of several scales.

        L = Σ_i w_i loss(z_i, y_i),     z_i the logits of scale i, full resolution first, y_i the labels at its size

        loss     any loss of this package, or any callable loss(logits, labels) or loss(logits, labels, voxel_weights)
                 that returns a tensor; it has the last word on dtypes and values
        weights  w_i, as one number >= 0 for each scale, used as they are, or by name:
                 "papers"      2^-s_i, s_i the product of the strides of output i to the labels, over all axes: in 2D
                               2^-1, 2^-4, 2^-16 for strides 1, 2, 4; in 3D 2^-1, 2^-8, 2^-64. The strides are read
                               from the sizes, in whole steps from each scale to the next; of a stack, whose sizes
                               are all one, they cannot be read, and that is an error.
                 "nnunet"      2^-i, the last one 0 if there are several, divided by their sum
                 "monai-same"  1
                 "monai-exp"   max(2^-i, 1/16)
                 "monai-two"   1 for the first, 1/2 for the others

    Labels are brought to the size of a scale straight from full resolution, once for each size:

        class indices     the voxel at the centre of each cell: with n voxels over m cells, number
        and one-hot       floor((2 i + 1) n / (2 m)) for cell i. That is F.interpolate's "nearest-exact" in exact
        integers, bools   arithmetic, so a tie is always the later voxel. No dtype is changed, labels to ignore stay.
        floating-point    the mean of each cell, weighted with voxel_weights, so that class shares still sum to 1.
        (N, C, *spatial)  A one-hot float becomes soft; pass integers to keep it hard.

    voxel_weights follow their labels: the weight of the chosen voxel, or the mean weight of the cell. What a loss is
    told of the size of a voxel, as A-FL's `spacing`, it takes for every scale.

    A scale of weight 0 is not computed, so that its head gets no gradient: with DistributedDataParallel either set
    find_unused_parameters=True or give the weights as numbers with 1e-6 for the 0, as nnU-Net does there.

    Source: weights of Yeung et al., arXiv 2102.04525v2, eq. (22), whose product of two strides is taken over all axes
    here; of nnU-Net v2's trainer; of MONAI's DeepSupervisionLoss. Both sample labels with "nearest-exact", too.
    """

    def __init__(self, loss: Callable[..., Tensor], weights: ScaleWeights | Sequence[float] = "papers") -> None:
        super().__init__()
        if not callable(loss) or isinstance(loss, type):
            raise TypeError(
                "DeepSupervision: loss must be a loss to call with logits and labels, such as UnifiedFocalLoss(); "
                f"got {loss!r}."
            )
        self.loss = loss
        self.weights = _read_weights(weights)

    def forward(
        self,
        logits: Sequence[Tensor] | Tensor,
        labels: Tensor | Sequence[Tensor],
        voxel_weights: Tensor | Sequence[Tensor] | None = None,
    ) -> Tensor:
        """The weighted sum for a batch.

        logits         list or tuple of (N, C, *spatial_i), no axis growing from one to the next; or one tensor
                       (N, S, C, *spatial) of S scales at full size, as MONAI's DynUNet stacks them
        labels         at full resolution, of any form the loss takes: (N, *spatial), (N, 1, *spatial) or
                       (N, C, *spatial); or a list of them, one for each scale and of its size
        voxel_weights  (N, *spatial) or (N, 1, *spatial) at full resolution; a list where the labels are one

        Returns what the loss returns: a scalar, or with reduction="none" one value per image, shape (N,).
        Raises TypeError or ValueError for outputs, labels or voxel weights that do not fit each other, for a number
        of weights that is not that of the scales, and whatever the loss raises.
        """
        outputs = _read_outputs(logits, labels)
        sizes = [_size(x) for x in outputs]
        own: list[Target] = []  # labels that came for every scale, or
        whole: Target = ()  # those that came at full resolution
        if isinstance(labels, (list, tuple)):
            own, full = _read_lists(outputs, labels, voxel_weights), sizes[0]
        else:
            whole, full = _read_whole(outputs[0], labels, voxel_weights)
        _check_order(sizes, full)
        weights = _weights_of_scales(self.weights, sizes, full, stacked=isinstance(logits, Tensor))
        used = [i for i, weight in enumerate(weights) if weight > 0]
        targets = [own[i] for i in used] if own else _resized([outputs[i] for i in used], *whole)
        terms = [weights[i] * self.loss(outputs[i], *target) for i, target in zip(used, targets, strict=True)]
        return sum(terms[1:], terms[0])

    def extra_repr(self) -> str:
        """The weights, and the loss where it is no module: those are shown as such."""
        shown = "" if isinstance(self.loss, nn.Module) else f"loss={self.loss!r}, "
        return f"{shown}weights={self.weights!r}"


def _read_weights(weights: Any) -> str | tuple[float, ...]:
    name = "DeepSupervision: weights"
    if isinstance(weights, str):
        return check_option(name, _NAMES, weights)
    if hasattr(weights, "tolist"):  # of tensors and arrays
        weights = weights.tolist()
    if not isinstance(weights, Sequence) or isinstance(weights, bytes):
        raise TypeError(
            f"{name} must be one of {', '.join(map(repr, _NAMES))} or a sequence of numbers; got {weights!r}."
        )
    numbers = tuple(float(check_number(f"{name}, each of them,", float, "[0, inf)", w)) for w in weights)
    if not sum(numbers) > 0:
        raise ValueError(f"{name} must have a number above 0; got {numbers}.")
    return numbers


def _weights_of_scales(weights: str | tuple[float, ...], sizes: list[Size], full: Size, stacked: bool) -> list[float]:
    scales = len(sizes)
    if not isinstance(weights, str):
        if len(weights) != scales:
            raise ValueError(
                f"DeepSupervision: weights must have one number for each of {scales} scales; got {len(weights)}: "
                f"{weights}."
            )
        return list(weights)
    if weights == "papers":
        if stacked and scales > 1:
            raise ValueError(
                "DeepSupervision: weights='papers' are read from the sizes of the outputs, and in a stacked tensor "
                f"all {scales} have the size {full}. Give them as numbers, 2^-(product of the strides) of each: in "
                "2D weights=[2**-1, 2**-4, 2**-16] for strides 1, 2, 4."
            )
        return [2.0**-s for s in _stride_products(sizes, full)]
    if weights == "nnunet":
        halves = [2.0**-i for i in range(scales)]
        if scales > 1:
            halves[-1] = 0.0
        return [w / sum(halves) for w in halves]
    if weights == "monai-exp":
        return [max(2.0**-i, 0.0625) for i in range(scales)]
    return [1.0 if i == 0 or weights == "monai-same" else 0.5 for i in range(scales)]


def _stride_products(sizes: list[Size], full: Size) -> list[int]:
    """Of each output to the labels: 57 -> 29 -> 15 -> 8 voxels are strides 2, 4 and 8, though 57 / 8 is nearly 7."""
    products = []
    product, before = 1, full
    for size in sizes:
        for n, m in zip(before, size, strict=True):
            product *= round(int(n) / int(m)) if m else 1
        products.append(product)
        before = size
    return products


# --- reading -------------------------------------------------------------------------------------------------------


def _read_outputs(logits: Any, labels: Any) -> list[Tensor]:
    """The outputs of all scales, in tensors of one rank, batch and number of channels."""
    if isinstance(logits, Tensor):
        return _unstacked(plain(logits), labels)
    if not isinstance(logits, (list, tuple)):
        raise TypeError(
            "logits must be a list or tuple of one tensor for each scale, full resolution first, or one stacked "
            f"tensor (N, S, C, *spatial); got {describe(logits)}."
        )
    if not logits:
        raise ValueError("logits must have at least one scale; got an empty list. Does the network return its heads?")
    for i, x in enumerate(logits):
        if not isinstance(x, Tensor):
            raise TypeError(f"logits must be a tensor at every scale; got {describe(x)} at scale {i}.")
        if x.ndim < 2 or x.ndim != logits[0].ndim or x.shape[:2] != logits[0].shape[:2]:
            raise ValueError(
                "logits must have shape (N, C, *spatial) with the same N, C and number of axes at every scale; got "
                f"{tuple(logits[0].shape)} at scale 0 and {tuple(x.shape)} at scale {i}."
            )
    return [plain(x) for x in logits]


def _unstacked(logits: Tensor, labels: Any) -> list[Tensor]:
    """The scales of a stack. A network's single output must not pass as one: its classes would be read as scales."""
    if logits.ndim < 3 or logits.shape[1] == 0 or _may_be_single(logits, labels):
        raise ValueError(
            "logits in one tensor must be a stack (N, S, C, *spatial) of S scales, with labels (N, *spatial), "
            f"(N, 1, *spatial) or soft (N, C, *spatial); got {describe(logits)} with labels {describe(labels)}. "
            "For a single output call the loss without DeepSupervision; with one-hot integer labels pass "
            "logits.unbind(1)."
        )
    return list(logits.unbind(1))


def _may_be_single(logits: Tensor, labels: Any) -> bool:
    """Do the shapes fit those of one output (N, C, *spatial)?

    With C = 1 in a stack they also would for a volume of one slice, which is the rarer of the two.
    """
    if not isinstance(labels, Tensor):
        return False
    indices = tuple(labels.shape) == (*logits.shape[:1], *logits.shape[2:]) and not labels.is_floating_point()
    return labels.ndim == logits.ndim or (indices and logits.shape[2] > 1)


def _read_whole(output: Tensor, labels: Any, voxel_weights: Any) -> tuple[Target, Size]:
    """Labels at full resolution, with their weights if there are any, and the spatial size of both."""
    if not isinstance(labels, Tensor):
        raise TypeError(
            "labels must be a tensor at full resolution, or a list or tuple of one for each scale; got "
            f"{describe(labels)}."
        )
    n, axes = output.shape[0], output.ndim - 2
    if labels.ndim not in (axes + 1, axes + 2) or labels.shape[0] != n:
        raise ValueError(
            f"labels must have shape (N, *spatial), (N, 1, *spatial) or (N, C, *spatial) with N = {n} and {axes} "
            f"spatial axes for logits of shape {tuple(output.shape)}; got {describe(labels)}."
        )
    full = tuple(labels.shape[labels.ndim - axes :])
    if voxel_weights is None:
        return (plain(labels),), full
    if not isinstance(voxel_weights, Tensor):
        raise TypeError(
            f"voxel_weights must be a tensor at full resolution, as the labels are; got {describe(voxel_weights)}."
        )
    if tuple(voxel_weights.shape) not in ((n, *full), (n, 1, *full)):
        raise ValueError(
            f"voxel_weights must have shape (N, *spatial) = {(n, *full)} or {(n, 1, *full)}, as the labels; got "
            f"{describe(voxel_weights)}."
        )
    return (plain(labels), plain(voxel_weights)), full


def _read_lists(outputs: list[Tensor], labels: Any, voxel_weights: Any) -> list[Target]:
    """Labels, and voxel weights if there are any, that came for every scale."""
    given = [("labels", labels)] + ([] if voxel_weights is None else [("voxel_weights", voxel_weights)])
    for name, tensors in given:
        if not isinstance(tensors, (list, tuple)) or len(tensors) != len(outputs):
            came = f"{len(tensors)} of them" if isinstance(tensors, (list, tuple)) else describe(tensors)
            raise ValueError(
                f"{name} must be a list of one tensor for each of {len(outputs)} scales where the labels are a list; "
                f"got {came}. To have them made for every scale pass one tensor of each at full resolution."
            )
        for i, (x, t) in enumerate(zip(outputs, tensors, strict=True)):
            axes = x.ndim - 2
            if not isinstance(t, Tensor):
                raise TypeError(f"{name} must be a tensor at every scale; got {describe(t)} at scale {i}.")
            if (
                t.ndim not in (axes + 1, axes + 2)
                or t.shape[0] != x.shape[0]
                or t.shape[t.ndim - axes :] != x.shape[2:]
            ):
                raise ValueError(
                    f"{name} must have the batch and the size of the logits, {tuple(x.shape)} at scale {i}; got "
                    f"{describe(t)}."
                )
    return [tuple(plain(t) for t in pair) for pair in zip(*(tensors for _, tensors in given), strict=True)]


def _check_order(sizes: list[Size], full: Size) -> None:
    for i, (before, size) in enumerate(zip([full, *sizes[:-1]], sizes, strict=True)):
        if any(m > n or (m == 0 and n > 0) for n, m in zip(before, size, strict=True)):
            than = "the labels" if i == 0 else f"scale {i - 1}"
            raise ValueError(
                f"logits must come with the full resolution first, and no scale larger than the labels or empty; "
                f"scale {i} has the spatial size {size} and {than} {before}. "
                "If the coarsest scale comes first pass logits[::-1]."
            )


# --- resampling ----------------------------------------------------------------------------------------------------


def _resized(outputs: list[Tensor], labels: Tensor, voxel_weights: Tensor | None = None) -> list[Target]:
    """Labels and their weights at the size of each output."""
    targets: list[Target] = []
    before: Size | None = None
    for x in outputs:
        size = _size(x)
        if size == before:  # sizes never grow, so that equal ones are neighbours
            targets.append(targets[-1])
        elif labels.is_floating_point() and labels.ndim == x.ndim and labels.shape[1] == x.shape[1]:
            targets.append(_averaged(labels, voxel_weights, size))
        else:
            given = (labels,) if voxel_weights is None else (labels, voxel_weights)
            targets.append(tuple(_chosen(t, size) for t in given))
        before = size
    return targets


def _chosen(x: Tensor, size: Size) -> Tensor:
    """The voxel at the centre of each cell, as a view if the sizes divide; for every dtype."""
    first = x.ndim - len(size)
    steps = [n // m if m and n % m == 0 else 1 for n, m in zip(x.shape[first:], size, strict=True)]
    x = x[tuple([slice(None)] * first + [slice(step // 2, None, step) for step in steps])]
    for axis, m in enumerate(size, first):
        n = x.shape[axis]
        if n != m:
            x = x.index_select(axis, (2 * torch.arange(m, device=x.device) + 1) * n // (2 * m))
    return x


def _averaged(labels: Tensor, weights: Tensor | None, size: Size) -> Target:
    """The mean of each cell. What stands at weight 0 does not matter, not even NaN, and joins no mean."""
    if _size(labels) == size:
        return (labels,) if weights is None else (labels, weights)
    labels = labels.to(torch.promote_types(labels.dtype, torch.float32))
    if weights is None:
        return (_area(labels, size),)
    w = weights.to(labels.dtype)
    w = w if w.ndim == labels.ndim else w.unsqueeze(1)
    mean_weight = _area(w, size)
    total = _area(w * labels.where(w > 0, 0.0), size)
    share = total / mean_weight.where(mean_weight > 0, 1.0)
    return share, mean_weight if weights.ndim == labels.ndim else mean_weight.squeeze(1)


def _area(x: Tensor, size: Size) -> Tensor:
    if len(size) > _MOST_POOLED_AXES:
        raise ValueError(
            f"soft labels are averaged over at most {_MOST_POOLED_AXES} spatial axes; these have {len(size)}. Pass "
            "class indices, or a list with the labels of every scale."
        )
    return F.interpolate(x, size=size, mode="area")


def _size(x: Tensor) -> Size:
    return tuple(x.shape[2:])
