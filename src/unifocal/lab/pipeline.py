"""From a case to what the network sees: resized and normalised once, then augmented anew in every epoch.

Order and augmentation are functions of (seed, fold, epoch, case) and of nothing else, so every loss sees the same
batches and an interrupted run goes on exactly as if it had never stopped.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

PROBABILITY = 0.15  # of each kind of augmentation per image, as in the pipeline the papers used; flips have 1/2
ORDER = 2**32 - 1  # stands for "no case" where the order of an epoch is drawn


@dataclass(frozen=True)
class Prepared:
    """All cases at the network's size, in memory."""

    images: Tensor  # (n, 1, size, size) float32 in [0, 1]
    labels: Tensor  # (n, size, size) uint8 class indices


def prepare(image: NDArray[np.float32], mask: NDArray[np.uint8], size: int) -> tuple[Tensor, Tensor]:
    """Resize, standardise and rescale to [0, 1], as in the papers: (1, size, size) float32, (size, size) uint8.

    The image is resized by area-aware bilinear interpolation, the mask by the nearest pixel centre.
    """
    grey = torch.from_numpy(np.ascontiguousarray(image))[None, None]
    grey = F.interpolate(grey, (size, size), mode="bilinear", antialias=True)[0]
    if grey.max() - grey.min() <= 1e-5 * grey.abs().max():  # even, but for what the resizing rounded
        grey = torch.zeros_like(grey)
    else:
        grey = (grey - grey.mean()) / grey.std()
        grey = (grey - grey.min()) / (grey.max() - grey.min())
    labels = torch.from_numpy(np.ascontiguousarray(mask))[None, None]
    return grey, F.interpolate(labels, (size, size), mode="nearest-exact")[0, 0]


class Augmentation:
    """Scaling, rotation, elastic deformation, mirroring and gamma: one draw for image and mask."""

    def __init__(self, size: int) -> None:
        from monai.transforms.intensity.dictionary import RandAdjustContrastd
        from monai.transforms.spatial.dictionary import Rand2DElasticd, RandFlipd, RandRotated, RandZoomd

        keys = ("image", "labels")
        grid: dict[str, Any] = {"mode": ("bilinear", "nearest"), "padding_mode": "zeros"}
        knots = size / 4  # distance of the random displacements
        self.steps: list[tuple[float, Any]] = [
            (
                PROBABILITY,
                RandZoomd(
                    keys,
                    prob=1,
                    min_zoom=0.85,
                    max_zoom=1.25,
                    mode=("bilinear", "nearest-exact"),
                    padding_mode="constant",
                ),
            ),
            (PROBABILITY, RandRotated(keys, prob=1, range_x=np.pi / 12, **grid)),
            (
                PROBABILITY,
                Rand2DElasticd(keys, (knots, knots), magnitude_range=(0, size / 32), prob=1, **grid),
            ),
            (0.5, RandFlipd(keys, prob=1, spatial_axis=0)),
            (0.5, RandFlipd(keys, prob=1, spatial_axis=1)),
            (PROBABILITY, RandAdjustContrastd("image", prob=1, gamma=(0.7, 1.5))),
        ]

    def __call__(self, image: Tensor, labels: Tensor, draw: np.random.RandomState) -> tuple[Tensor, Tensor]:
        """Augment (1, H, W) and (H, W) by what `draw` draws."""
        item = {"image": image, "labels": labels[None].float()}
        for probability, step in self.steps:
            # Decided here: a MONAI transform that does not fire still takes most of its time.
            if draw.random_sample() < probability:
                item = step.set_random_state(state=draw)(item)
        return item["image"], item["labels"][0].to(labels.dtype)


class Batches:
    """The batches of one epoch, an iterable that asks for the epoch each time it starts.

    Without `epoch` (validation) the order is that of `indices` and nothing is augmented.
    """

    def __init__(
        self,
        data: Prepared,
        indices: Sequence[int],
        batch_size: int,
        seed: tuple[int, int] = (0, 0),
        epoch: Callable[[], int] | None = None,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.data, self.indices, self.batch_size = data, list(indices), batch_size
        self.seed, self.epoch, self.augmentation = seed, epoch, augmentation

    def __len__(self) -> int:
        return math.ceil(len(self.indices) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        epoch = None if self.epoch is None else self.epoch()
        order = self.indices
        if epoch is not None:
            order = [order[i] for i in random_state(*self.seed, epoch, ORDER).permutation(len(order))]
        for start in range(0, len(order), self.batch_size):
            yield self._batch(order[start : start + self.batch_size], epoch)

    def _batch(self, indices: list[int], epoch: int | None) -> tuple[Tensor, Tensor]:
        images, labels = self.data.images[indices], self.data.labels[indices]
        if epoch is not None and self.augmentation is not None:
            with _plain_tensors():
                pairs = [
                    self.augmentation(image, label, random_state(*self.seed, epoch, i))
                    for image, label, i in zip(images, labels, indices, strict=True)
                ]
            images, labels = (torch.stack(parts) for parts in zip(*pairs, strict=True))
        return images.contiguous(memory_format=torch.channels_last), labels.long()


def random_state(*key: int) -> np.random.RandomState:
    """A generator that depends on `key` alone; RandomState, because MONAI's transforms want one."""
    return np.random.RandomState(np.random.SeedSequence(key).generate_state(4))


class _plain_tensors:
    """Context: MONAI's transforms return plain tensors; tracking their history costs half the time."""

    def __enter__(self) -> None:
        from monai.data.meta_obj import get_track_meta, set_track_meta

        self.before = get_track_meta()
        set_track_meta(False)

    def __exit__(self, *_: object) -> None:
        from monai.data.meta_obj import set_track_meta

        set_track_meta(self.before)
