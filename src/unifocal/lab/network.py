"""The original U-Net in 2D, with its width as an option and weights that depend on the seed alone."""

import io
from contextlib import redirect_stdout

import torch
from torch import nn


def build_network(classes: int, width: int, seed: int) -> nn.Module:
    """The U-Net of Ronneberger et al. (MONAI's BasicUNet), one grey channel in, one logit per class out.

    width  channels of the first level: (w, 2w, 4w, 8w, 16w); the paper's is 64
    seed   the same seed gives the same weights, whatever was drawn before; the global generator is left as it was

    Weights lie in channels_last, which the CPU and the GPU convolutions both prefer.
    """
    from monai.networks.nets.basic_unet import BasicUNet

    features = (width, 2 * width, 4 * width, 8 * width, 16 * width, width)
    with torch.random.fork_rng(devices=[]), redirect_stdout(io.StringIO()):  # it prints its features
        torch.manual_seed(seed)
        network = BasicUNet(spatial_dims=2, in_channels=1, out_channels=classes, features=features)
    # The overloads of Module.to do not know a memory format alone.
    return network.to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]
