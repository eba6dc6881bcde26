"""Batches: in an order, of patches and with an augmentation that every loss sees alike.

All of it is a function of (seed, fold, epoch, case, number of the patch) and of nothing else, so an interrupted run
goes on exactly as if it had never stopped, and leaving out a case does not change what the others look like.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from unifocal.lab.augmentation import Augmentation, Change
from unifocal.lab.data.cases import IGNORE
from unifocal.lab.device import to_device
from unifocal.lab.errors import LabError
from unifocal.lab.patches import common_shape, pad
from unifocal.lab.settings import Settings, each_axis
from unifocal.lab.sources import Data, Files, Group, Plan, Resident, Sample

FIXED = 2**32 - 1  # stands for the epoch where every epoch is to see the same
ORDER, PLACE, AUGMENTATION = range(3)  # what is drawn


class Batches:
    """The batches of one epoch, an iterable that asks for the epoch each time it starts.

    Yields images (n, channels, *spatial) float32, channels_last for pictures, and labels (n, *spatial) int64, on
    `device`. With `settings.patch` they are patches, `patches_per_case` of each case, else whole images. Images that
    are smaller than the patch, than others of the batch or than the next multiple of the network's `divisor` are
    padded at their ends: by 0, and by `IGNORE` in the labels, so what is padded never counts in a loss that ignores it.

    In training, with `epoch`, the order is drawn anew in each epoch and every image is augmented (`settings.augment`);
    what a scaled or turned patch shows at its border is what lies around it. An epoch has `settings.steps` batches, for
    which the cases are gone through as often as it takes, each time with other patches; without, each patch comes once.

    Without `epoch`, for validation, the order is that of `indices`, nothing is augmented, and the patches are the same
    each time, with as many on foreground as in training, so that the losses of two epochs can be compared.

    A set of whole images of one size is moved to the device once, if there is room for it (`device.room`). Any other
    is read from its files, by threads that are a few batches ahead.

    Where several processes share a run (DDP), each takes its part of every batch; one that is too small for all is
    filled up by its first sample.
    """

    def __init__(
        self,
        data: Data,
        indices: Sequence[int],
        settings: Settings,
        seed: tuple[int, int],
        epoch: Callable[[], int] | None,
        device: torch.device,
        divisor: Sequence[int] | None = None,
    ) -> None:
        if not indices:
            raise LabError("expected at least one case to make batches of; got none.")
        axes, training = data.dimension, epoch is not None
        self.patch = settings.patch and each_axis("patch", settings.patch, axes)
        spacing = settings.spacing and each_axis("spacing", settings.spacing, axes)
        self.indices, self.seed, self.epoch, self.device = list(indices), seed, epoch, device
        self.batch_size, self.per_case = settings.batch_size, settings.patches_per_case if self.patch else 1
        self.steps = settings.steps if training else None
        self.divisor = (1,) * axes if divisor is None else tuple(divisor)
        self.layout = torch.channels_last if axes == 2 else torch.contiguous_format
        self.augmentation = Augmentation(axes, data.channels, spacing) if training and settings.augment else None
        self.data, self.share = data, settings.patch_foreground

    @cached_property
    def source(self) -> Resident | Files:
        """Made when first asked for, so that each process of a run has its own."""
        if self.patch is None and Resident.fits(self.data, self.indices, self.device):
            return Resident(self.data, self.indices, self.device)
        return Files(self.data, self.patch, self.share, partial(self._draw, PLACE), self._wide, self.device)

    def __len__(self) -> int:
        return self.steps or math.ceil(len(self.indices) * self.per_case / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        plan = [_own(samples) for samples in self._plan(FIXED if self.epoch is None else self.epoch())]
        for samples, groups in zip(plan, self.source.groups(plan), strict=True):
            yield self._batch([self._augmented(group, samples) for group in groups])

    def _plan(self, epoch: int) -> Plan:
        """The samples of each batch of an epoch."""
        order = [Sample(epoch, case, number) for number in range(self.per_case) for case in self.indices]
        if self.epoch is not None:
            numbers = self._draw(ORDER, Sample(epoch, 0, 0)).random(len(order))
            order = [order[k] for k in np.argsort(numbers, kind="stable")]
        if self.steps is not None:
            wanted = self.steps * self.batch_size
            turns = range(math.ceil(wanted / len(order)))
            order = [s._replace(number=s.number + turn * self.per_case) for turn in turns for s in order][:wanted]
        return [order[k : k + self.batch_size] for k in range(0, len(order), self.batch_size)]

    def _draw(self, what: int, sample: Sample) -> np.random.Generator:
        """The generator of one draw. Only `random` is asked of it: how it does the rest may change with NumPy."""
        return np.random.Generator(np.random.PCG64((*self.seed, *sample, what)))

    def _change(self, samples: Iterable[Sample]) -> Change:
        assert self.augmentation is not None
        return self.augmentation.draw([self._draw(AUGMENTATION, sample) for sample in samples])

    def _wide(self, sample: Sample) -> bool:
        return self.augmentation is not None and bool(self._change([sample]).moved.item())

    def _augmented(self, group: Group, samples: Sequence[Sample]) -> Group:
        images, labels = to_device(group.images, self.device), to_device(group.labels, self.device)
        if self.augmentation is not None:
            change = self._change(samples[k] for k in group.places)
            images, labels = self.augmentation.apply(images, labels, change, self.patch)
        return Group(group.places, images, labels)

    def _batch(self, groups: Sequence[Group]) -> tuple[Tensor, Tensor]:
        """Groups of different sizes padded to one, in the order of the batch."""
        shape = common_shape([group.labels.shape[1:] for group in groups], self.divisor)
        images = [pad(group.images, shape, 0) for group in groups]
        labels = [pad(group.labels, shape, IGNORE) for group in groups]
        if len(groups) > 1:
            order = to_device(np.argsort([k for group in groups for k in group.places]), self.device)
            images, labels = [torch.cat(images)[order]], [torch.cat(labels)[order]]
        return images[0].contiguous(memory_format=self.layout), labels[0].long()


def _own(samples: Sequence[Sample]) -> Sequence[Sample]:
    """This process's part of a batch."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return samples
    return samples[torch.distributed.get_rank() :: torch.distributed.get_world_size()] or samples[:1]
