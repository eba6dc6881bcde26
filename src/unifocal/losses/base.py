"""What all losses share: the arguments, the way from logits to sums, and the reduction over images."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, ClassVar, Literal, TypeVar, dataclass_transform

import torch
from torch import Tensor, distributed, nn

from ..slopes import evaluate, evaluate_by
from ..sums import Engine, MaskExponent, Slopes, SumName, constant, of_voxel_sums, tracing, voxel_sums
from ..terms import ClassSums, Factors, Mean
from .arguments import check_arguments, within
from .inputs import describe, read_inputs
from .values import Inputs, check_labels, values_are_checked

REGION: tuple[SumName, ...] = ("tp", "fp", "fn")
ENTROPY: tuple[SumName, ...] = ("ce",)

# What is wanted of channels that are read against the rest: a miss of the rest is a false alarm of the class.
_AGAINST_REST: dict[tuple[SumName, ...], tuple[SumName, ...]] = {
    ENTROPY: ("rest", "ce"),
    REGION: ("tn", "tp", "fn", "fp"),
    ENTROPY + REGION: ("rest", "ce", "tn", "tp", "fn", "fp"),
}

_NOTHING = torch.empty(0, device="cpu")  # sums that a loss did not ask for

ActivationName = Literal["auto", "softmax", "sigmoid", "none"]
T = TypeVar("T")


@dataclass_transform(kw_only_default=True, field_specifiers=(within, field))
def loss(cls: type[T]) -> type[T]:
    """Turn a class of fields and an equation into a loss with keyword-only arguments."""
    return dataclass(eq=False, kw_only=True, repr=False)(cls)


@loss
class SegmentationLoss(nn.Module, ABC):
    """A loss over images whose labelled classes differ in size by orders of magnitude.

    Shared arguments (all keyword-only):

        activation          "auto": one channel -> "sigmoid", more -> "softmax". "softmax": the channels are mutually
                            exclusive classes, class 0 the background. "sigmoid": every channel is a problem of its
                            own, this class against the rest, and both sides count as classes (so one channel z gives
                            what softmax gives on [0, z]). "none": the input holds probabilities that sum to 1
                            over the channels, or one channel of probabilities.
        ignore_index        label of the voxels to leave out: they join no sum and no mean.
        class_weights       one weight >= 0 for each class; every mean becomes the weighted mean, so only ratios
                            matter. One channel: [background, foreground]; "sigmoid" with more: one per channel.
        include_background  region terms only: False leaves class 0 (with "sigmoid": the rest of each channel) out.
        batch               region terms only: True pools the sums over the batch, as if it were one image; every
                            image then has the pooled value. "global" pools them over the batches of all processes
                            of torch.distributed's default group, and the mean is over the images of all. What the
                            processes return, and its gradient, then average, as under DistributedDataParallel, to
                            those of one process with the whole batch, also for "sum" and uneven shares; with "none"
                            each has the values of its own images. Every process must make every call, validation
                            included, as it takes part in an all-reduce. Without a group, or alone: as True.
        absent              region terms only: "count" a class that an image does not contain, as the original does
                            (any false alarm then costs nearly 1), or "skip" it.
        smooth              region terms only: added to numerator and denominator of every overlap index, in voxels.
        engine              which engine computes the sums, see `unifocal.engines()`: "auto" takes the fastest that can
                            serve a call, and warns once if the compiled one is missing on this machine; another
                            name that one, or raises RuntimeError with the reason why not. A gradient that is
                            differentiated itself is the reference's, and so are those of torch.func and many that are
                            wanted at once (is_grads_batched); there is no forward mode.
        reduction           over the images: "mean" and "sum", or "none" for one value per image, shape (N,). An
                            image without a valid voxel has the value 0 and does not count in the mean.
    """

    activation: ActivationName = "auto"
    ignore_index: int | None = None
    class_weights: Sequence[float] | None = within("[0, inf)", default=None)
    include_background: bool = True
    batch: bool | Literal["global"] = False
    absent: Literal["count", "skip"] = "count"
    smooth: float = within("(0, inf)", default=1e-6)
    engine: Engine = "auto"
    reduction: Literal["mean", "sum", "none"] = "mean"

    wants: ClassVar[tuple[SumName, ...]] = ()
    clips_regions: ClassVar[bool] = False  # with given probabilities, does the definition clip them in region terms?
    against_rest: ClassVar[bool] = False  # is every channel read against the rest even under softmax?

    def __post_init__(self) -> None:
        super().__init__()
        check_arguments(self)
        if self.wants not in _AGAINST_REST:
            raise TypeError(f"{type(self).__name__}: wants must be ENTROPY, REGION or ENTROPY + REGION of base.py.")
        if self.class_weights is not None and not sum(self.class_weights) > 0:
            raise ValueError(f"{type(self).__name__}: class_weights must not all be 0; got {self.class_weights}.")

    @abstractmethod
    def equation(self, s: ClassSums) -> Mean | Tensor:
        """The loss of every image, in the words of terms.py.

        What they cannot say may be computed from the sums themselves, (N,) or (1,) for the pooled batch, by operations
        that autograd knows. Parameters that are learnt in it get their gradient, too; the sums are then computed twice.
        """

    def focus(self, x: Inputs, index: tuple[int, ...]) -> float | Sequence[float] | Tensor | MaskExponent:
        """Focusing exponent of the cross-entropy: a number, one for each class, or one for each image and channel.

        The latter as a tensor (N, K), or as what it is to be computed from: the masks of the labels.

        `index` is `ClassSums.index`.
        """
        return 0.0

    def forward(self, logits: Tensor, labels: Tensor, voxel_weights: Tensor | None = None) -> Tensor:
        """The loss of a batch.

        logits         (N, C, *spatial) raw scores of any rank and float dtype (probabilities if activation="none")
        labels         class indices (N, *spatial) or (N, 1, *spatial) of any integer or bool dtype, or one-hot or
                       soft labels (N, C, *spatial); with one channel, index 1 or a soft label is the foreground
        voxel_weights  (N, *spatial) or (N, 1, *spatial), >= 0: how much each voxel counts in every sum and mean

        Returns a scalar, or (N,) with reduction="none", in float32 (float64 for float64 logits).
        Raises TypeError or ValueError for a wrong shape, dtype or value. Values are checked on the CPU; on a GPU,
        where that would stall it, only if the environment variable UNIFOCAL_CHECK is 1; and not where they cannot be
        looked at, while a graph is compiled or exported and under `torch.func`. There a label that names no class
        counts as a voxel of none.
        """
        x = read_inputs(logits, labels, voxel_weights, self.activation, self.ignore_index, self.against_rest)
        channels = x.logits.shape[1]
        split = bool(self.against_rest or x.activation == "sigmoid" or channels == 1)
        index = (0,) * channels + (1,) * channels if split else tuple(range(channels))
        with _full_precision(logits.device.type):
            gamma = rest_gamma = self.focus(x, index)
            if split and isinstance(gamma, Sequence):
                rest_gamma, gamma = gamma[:channels], gamma[channels:]
            asked: dict[str, Any] = {
                "activation": x.activation,
                "wanted": _AGAINST_REST[self.wants] if split else self.wants,
                "gamma": gamma,
                "rest_gamma": rest_gamma,
                "voxel_weights": x.voxel_weights,
                "ignore_index": x.ignore_index,
                "clip": self.clips_regions,
                "engine": self.engine,
            }
            processes = _processes() if self.batch == "global" else 1
            value = partial(self._value, index, x.all_valid, processes)
            noticed: list[int] = []
            if processes > 1:
                v = voxel_sums(x.logits, x.labels, **asked)
                result = value(v.values, v.labelled, v.voxels)[0]
            else:
                result = of_voxel_sums(value, x.logits, x.labels, **asked, noticed=noticed)
        if noticed != [0] and values_are_checked(x):  # 0: an engine has looked and found nothing
            check_labels(x, self.against_rest, noticed)
        return result

    def _value(
        self,
        index: tuple[int, ...],
        all_valid: bool,
        processes: int,
        values: Tensor,
        labelled: Tensor,
        voxels: Tensor,
        by_engine: Callable[..., tuple[Tensor, Tensor]] | None = None,
    ) -> tuple[Tensor, Slopes | None]:
        """From the sums to what is returned, and its slopes; None if only autograd knows them."""
        s, images = self._class_sums(index, values, labelled, voxels, all_valid, processes)
        mean = self.equation(s)
        if isinstance(mean, Mean):
            self._check_parts(mean)
        else:
            self._check_values(mean, voxels.shape[0])
        if by_engine is not None and isinstance(mean, Mean) and not self.batch:
            return evaluate_by(by_engine, mean, s, values, labelled, voxels, self.reduction)
        share = self._share_of_images(None if all_valid else voxels, voxels.shape[0], images, processes)
        total = self.reduction != "none"
        if isinstance(mean, Mean) and isinstance(share, float) and not tracing():
            return evaluate(mean, s, total, share)
        per_image, slopes = evaluate(mean, s) if isinstance(mean, Mean) else (mean.expand(voxels.shape[0]), None)
        per_image = per_image * share
        scaled = None if slopes is None else lambda upstream: slopes(upstream * share)
        return per_image.sum() if total else per_image, scaled

    def _check_parts(self, mean: Mean) -> None:
        parts = (ENTROPY if mean.entropy is not None else ()) + (REGION if mean.regions else ())
        if parts != self.wants:
            names = {ENTROPY: "ENTROPY", REGION: "REGION", ENTROPY + REGION: "ENTROPY + REGION", (): "neither"}
            raise TypeError(
                f"{type(self).__name__}: wants is {names[self.wants]}, but its equation is written on {names[parts]}. "
                "Set wants to ENTROPY for a voxel_mean, to REGION for a class_mean, to ENTROPY + REGION for both."
            )

    def _check_values(self, values: object, n: int) -> None:
        of_images = isinstance(values, Tensor) and (
            values.ndim == 0 or (values.ndim == 1 and (values.shape[0] == n or values.shape[0] == 1))
        )
        if not of_images:
            raise TypeError(
                f"{type(self).__name__}: its equation must return a Mean, or one value for each of {n} images as a "
                f"tensor of shape (N,), (1,) or (); got {describe(values)}."
            )

    def _share_of_images(self, voxels: Tensor | None, n: int, images: Tensor | None, processes: int) -> float | Tensor:
        """What the value of each image is multiplied with in what is returned; without voxels all are valid."""
        valid = None if voxels is None else (voxels[:, 0] > 0).to(voxels.dtype)
        number: float | Tensor = 1.0
        if self.reduction == "mean":
            number = n if valid is None else valid.sum().clamp_min(1)
            number = number if images is None else images.clamp_min(1)
        if self.reduction != "none":  # what the processes return is going to be averaged
            number = number / processes
        return 1 / number if valid is None else valid / number

    def extra_repr(self) -> str:
        """Every argument of its own, and those shared ones that differ from their default."""
        shared = {f.name for f in fields(SegmentationLoss)}
        own = [f for f in fields(self) if f.name not in shared]
        changed = [f for f in fields(self) if f.name in shared and getattr(self, f.name) != f.default]
        return ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in own + changed)

    def _class_sums(
        self,
        index: tuple[int, ...],
        values: Tensor,
        labelled: Tensor,
        voxels: Tensor,
        all_valid: bool,
        processes: int,
    ) -> tuple[ClassSums, Tensor | None]:
        """The sums, and if there are several processes the number of valid images in all, ()."""
        channels = labelled.shape[1]
        split = len(index) > channels
        classes = 2 if split else 1
        entropies = classes if "ce" in self.wants else 0
        ce, regions = values, [_NOTHING] * 3
        if self.wants != ENTROPY:
            ce, *regions = values.split_with_sizes([entropies, classes, 1, 1])
        images: Tensor | None = None
        if self.batch and self.wants != ENTROPY:
            regions = [part.sum(1, keepdim=True) for part in regions]
        if processes > 1:
            images = (voxels > 0).sum(dtype=labelled.dtype)
            *parts, images = _over_processes(*(regions if self.wants != ENTROPY else []), images)
            regions = parts or regions
        tp, fp, fn = regions
        weights = self._weights(channels, index, split)
        counted = weights
        if not self.include_background:
            counted = tuple([w * (i != 0) for w, i in zip(weights, index, strict=True)])
        total = sum(counted)
        share: Factors = tuple([w / total if total else 0.0 for w in counted])
        if self.absent == "skip" and self.wants != ENTROPY:
            volumes = tp + (torch.cat((fn, fp)) if split else fn)  # exactly 0 of a class that no voxel has
            share = constant(counted, labelled.dtype, labelled.device).view(-1, 1, channels) * (volumes > 0)
            share = share / share.sum((0, 2), keepdim=True).clamp_min(1e-30)
        positive = voxels if all_valid else voxels.clamp_min(1e-30)
        return ClassSums(ce, tp, fp, fn, labelled, positive, index, weights, share, self.smooth), images

    def _weights(self, channels: int, index: tuple[int, ...], split: bool) -> tuple[float, ...]:
        if self.class_weights is None:
            return (1.0,) * len(index)
        per_channel = split and channels > 1
        wanted = channels if per_channel else len(index)
        if len(self.class_weights) != wanted:
            raise ValueError(
                f"{type(self).__name__}: class_weights must have one weight for each of {wanted} "
                f"{'channels' if per_channel else 'classes'}; got {len(self.class_weights)}: {self.class_weights}."
            )
        return tuple(self.class_weights) * 2 if per_channel else tuple(self.class_weights)


def _full_precision(device_type: str) -> AbstractContextManager[object]:
    """No autocast inside: sums over a volume need float32."""
    # which older compilers cannot follow
    available = torch.compiler.is_compiling() or torch.amp.autocast_mode.is_autocast_available(device_type)
    active = available and torch.is_autocast_enabled(device_type)
    return torch.autocast(device_type, enabled=False) if active else nullcontext()


def _processes() -> int:
    """How many there are to share a batch."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def _over_processes(*parts: Tensor) -> list[Tensor]:
    """Each summed over the processes, all in one message: so small, only its start costs anything."""
    total: Tensor = _SumOverProcesses.apply(torch.cat([p.flatten() for p in parts]))  # type: ignore[no-untyped-call]
    return [t.view(p.shape) for t, p in zip(torch.split(total, [p.numel() for p in parts]), parts, strict=True)]


class _SumOverProcesses(torch.autograd.Function):
    """An all-reduce whose gradient is one, too: what a process adds is part of the loss of all.

    PyTorch's own is deprecated in favour of private functions, which had no gradient in older versions.
    """

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        total = x.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        """Nothing to keep, but apart from `forward`, as `torch.func` wants it."""

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        return _SumOverProcesses.apply(*upstream)  # type: ignore[no-untyped-call]


@loss
class RareClassesLoss(SegmentationLoss):
    """A loss that treats rare classes unlike the common one.

    common_class  label index of the common class; with "sigmoid" 0 is the rest of each channel and 1 the class
    rare_classes  label indices of the rare classes; None: all but the common one. A class that is neither is
                  treated as common.
    """

    common_class: int = within("[0, inf)", default=0)
    rare_classes: Sequence[int] | None = within("[0, inf)", default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rare_classes is not None and self.common_class in self.rare_classes:
            raise ValueError(
                f"{type(self).__name__}: a class is common or rare, not both; got common_class={self.common_class} "
                f"and rare_classes={self.rare_classes}."
            )

    def balance(self, s: ClassSums, delta: float) -> tuple[float, ...]:
        """w_c of the equations: delta for rare classes, 1 - delta for common ones."""
        return self.by_rarity(s.index, rare=delta, common=1 - delta)

    def by_rarity(self, index: tuple[int, ...], *, rare: float, common: float) -> tuple[float, ...]:
        """One value for each class, whether it is rare or common."""
        others = {*index} - {self.common_class}
        rare_classes = others if self.rare_classes is None else {*self.rare_classes}
        if self.common_class not in index or not rare_classes <= others:
            raise ValueError(
                f"{type(self).__name__}: common_class must be one of the classes {sorted({*index})} and rare_classes "
                f"some of the others; got common_class={self.common_class!r}, rare_classes={self.rare_classes!r}."
            )
        return tuple([rare if i in rare_classes else common for i in index])
