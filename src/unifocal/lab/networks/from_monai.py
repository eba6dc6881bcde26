"""The networks that MONAI has, configured as their papers have them.

Each function gives the network and its taps for deep supervision: decoder layers below full resolution with their
channels, finest first.
"""

from functools import partial
from typing import Any

from monai.networks.nets.attentionunet import AttentionUnet
from monai.networks.nets.basic_unet import BasicUNet
from monai.networks.nets.dynunet import DynUNet
from monai.networks.nets.flexible_unet import FlexibleUNet
from monai.networks.nets.regunet import RegUNet
from monai.networks.nets.segresnet import SegResNet
from monai.networks.nets.vnet import DownTransition, InputTransition, OutputTransition, UpTransition, VNet
from torch import Tensor, nn
from torch.nn import functional as F

from unifocal.lab.errors import LabError
from unifocal.lab.networks.supervision import Tap

Made = tuple[nn.Module, list[Tap]]


def unet(dimension: int, channels: int, classes: int, width: int, dropout: float) -> Made:
    features = (*_widths(width, 5), width)
    network = BasicUNet(dimension, channels, classes, features, dropout=dropout)
    return network, [(f"upcat_{level + 1}", features[level]) for level in (1, 2, 3)]


def attention_unet(dimension: int, channels: int, classes: int, width: int, levels: int, dropout: float) -> Made:
    widths = _widths(width, levels)
    network = AttentionUnet(dimension, channels, classes, widths, (2,) * (levels - 1), dropout=dropout)
    return network, [("model.1" + ".submodule.1" * level, widths[level]) for level in range(1, levels - 1)]


def reg_unet(dimension: int, channels: int, classes: int, width: int, levels: int, concatenate: bool) -> Made:
    """The logits are the mean of those of all levels, as in DeepReg. By default MONAI builds no decoder at all."""
    every: Any = tuple(range(levels))
    network = RegUNet(
        dimension, channels, width, levels - 1, out_channels=classes, extract_levels=every, concat_skip=concatenate
    )
    return network, _coarse_to_fine("decode_convs.{}", _widths(width, levels - 1))


def resnet50_unet(dimension: int, channels: int, classes: int, width: None, dropout: float) -> Made:
    network = FlexibleUNet(channels, classes, "resnet50", spatial_dims=dimension, dropout=dropout)
    return network, _coarse_to_fine("decoder.blocks.{}", [16, 32, 64, 128, 256])


def segresnet(dimension: int, channels: int, classes: int, width: int, dropout: float) -> Made:
    network = SegResNet(dimension, width, channels, classes, dropout_prob=dropout or None)
    return network, _coarse_to_fine("up_layers.{}", _widths(width, 3))


def nnunet(dimension: int, channels: int, classes: int, width: int, levels: int) -> Made:
    """As nnU-Net v2 plans its `PlainConvUNet`.

    Biases before a normalisation are left out, since it takes them away again.
    """
    widest = width * (16 if dimension == 2 else 10)
    widths = [min(w, widest) for w in _widths(width, levels)]
    strides = [1] + [2] * (levels - 1)
    network = DynUNet(dimension, channels, classes, [3] * levels, strides, strides[1:], filters=widths, trans_bias=True)
    return network, _coarse_to_fine("upsamples.{}", widths[:-1])


def vnet(dimension: int, channels: int, classes: int, width: int, dropout: float) -> Made:
    """The first residual connection repeats the image, so its channels must divide the width: empty ones are added."""
    filled = next((n for n in range(channels, width + 1) if width % n == 0), None)
    if filled is None:
        raise LabError(f"network 'vnet': expected a width of at least the image's {channels} channels; got {width}.")
    network = _VNet(dimension, filled, classes, width, dropout)
    if filled > channels:
        network.register_forward_pre_hook(partial(_fill, filled - channels))
    return network, [("up_tr64", 4 * width), ("up_tr128", 8 * width), ("up_tr256", 16 * width)]


class _VNet(VNet):
    """MONAI's V-Net with two of its constants as arguments: the width and the dropout of all levels.

    A dropout over (N, C, *spatial) drops channels; with MONAI's 3D dropout on 2D features it would drop whole images.
    """

    def __init__(self, dimension: int, channels: int, classes: int, width: int, dropout: float) -> None:
        nn.Module.__init__(self)
        act: Any = ("elu", {"inplace": True})
        down = partial(DownTransition, dimension, act=act, dropout_dim=dimension)
        up = partial(UpTransition, dimension, act=act, dropout_dim=dimension)
        w = width
        self.in_tr = InputTransition(dimension, channels, w, act)
        self.down_tr32 = down(w, nconvs=1)
        self.down_tr64 = down(2 * w, nconvs=2)
        self.down_tr128 = down(4 * w, nconvs=3, dropout_prob=dropout)
        self.down_tr256 = down(8 * w, nconvs=2, dropout_prob=dropout)
        self.up_tr256 = up(16 * w, 16 * w, nconvs=2, dropout_prob=(dropout, dropout))
        self.up_tr128 = up(16 * w, 8 * w, nconvs=2, dropout_prob=(dropout, dropout))
        self.up_tr64 = up(8 * w, 4 * w, nconvs=1, dropout_prob=(None, dropout))
        self.up_tr32 = up(4 * w, 2 * w, nconvs=1, dropout_prob=(None, dropout))
        self.out_tr = OutputTransition(dimension, 2 * w, classes, act)


def _fill(empty: int, network: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    (images,) = inputs
    return F.pad(images, [0, 0] * (images.ndim - 2) + [0, empty])


def _widths(width: int, levels: int) -> list[int]:
    return [width * 2**level for level in range(levels)]


def _coarse_to_fine(layers: str, widths: list[int]) -> list[Tap]:
    """Taps of a decoder whose layers are numbered from the bottleneck up; `widths` from full resolution down."""
    last = len(widths) - 1
    return [(layers.format(last - level), widths[level]) for level in range(1, last + 1)]
