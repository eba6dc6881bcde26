"""What a network says of an image of any size: probabilities for every voxel."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from unifocal.lab.device import autocast
from unifocal.lab.patches import Shape, common_shape, pad, unpad
from unifocal.lab.settings import Settings, each_axis

LARGE = 2**25  # voxels, about 320^3; the logits of larger images are collected in the memory of the CPU


def predict(
    network: nn.Module, image: Tensor, settings: Settings, device: torch.device, divisor: Sequence[int] | None = None
) -> Tensor:
    """Probabilities (classes, *spatial), float32 on the CPU, for an image (channels, *spatial).

    With `settings.patch` a window of this size slides over the image, `patch_overlap` of it at a time, and `batch_size`
    windows go through the network together; their logits are averaged, with Gaussian or equal weights (`patch_blend`).
    Without it the whole image goes. Whatever goes is padded at the end to multiples of `divisor`, and cut back.

    `network` lives on `device` and gives one tensor of logits; it is left in evaluation mode.
    """
    network.eval()
    axes = image.ndim - 1
    divisor = (1,) * axes if divisor is None else tuple(divisor)
    layout = torch.channels_last if axes == 2 else torch.contiguous_format

    def logits(windows: Tensor) -> Tensor:
        size = windows.shape[2:]
        padded = pad(windows.to(device), common_shape([size], divisor), 0)
        with autocast(settings.precision, device):
            result: Tensor = network(padded.contiguous(memory_format=layout))
        return unpad(result, size).float()

    # Room for the sums of large images is found beside the CPU; windows are computed on the device in any case.
    home = torch.device("cpu") if image[0].numel() > LARGE else device
    with torch.inference_mode():
        if settings.patch is None:
            result = logits(image[None])
        else:
            result = _slide(logits, image[None].to(home), each_axis("patch", settings.patch, axes), settings, device)
        probabilities = result.softmax(1) if result.shape[1] > 1 else result.sigmoid()
    return probabilities[0].cpu()


def _slide(
    logits: Callable[[Tensor], Tensor], images: Tensor, patch: Shape, settings: Settings, device: torch.device
) -> Tensor:
    from monai.inferers.utils import sliding_window_inference

    size = images.shape[2:]
    result = sliding_window_inference(
        pad(images, tuple(map(max, size, patch)), 0),
        patch,
        settings.batch_size,
        logits,
        overlap=settings.patch_overlap,
        mode=settings.patch_blend,
        sw_device=device,
        device=images.device,
    )
    assert isinstance(result, Tensor)
    return unpad(result, size)
