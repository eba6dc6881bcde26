"""Which networks there are, what they take, and which sizes of images. Nothing heavy is imported here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from types import MappingProxyType
from typing import Any

from unifocal.lab.data.problems import suggest
from unifocal.lab.errors import LabError


@dataclass(frozen=True)
class Argument:
    """An argument of a network: its default, which also says the type, and the values from `lowest` to `highest`."""

    default: bool | int | float
    text: str
    lowest: float = -inf
    highest: float = inf

    def check(self, name: str, value: Any) -> None:
        """Raise LabError for a value of another type or out of range."""
        kind = type(self.default)
        whole_for_real = kind is float and type(value) is int
        if (type(value) is kind or whole_for_real) and self.lowest <= value <= self.highest:
            return
        expected = "true or false" if kind is bool else f"a number from {self.lowest:g} to {self.highest:g}"
        raise LabError(f"{name} ({self.text}): expected {expected}{', whole' * (kind is int)}; got {value!r}.")


@dataclass(frozen=True)
class Network:
    """A network of the catalogue.

    width             channels of the first level by default, in 2D and 3D; the deeper levels follow. None: fixed
    width_step        a width must be a multiple of it
    levels            resolutions from the image to the bottleneck, each half the one before; an argument `levels`
                      goes first where there is one
    one_voxel         may a single voxel be left at the bottleneck? Not with instance and batch normalisation, as one
                      value has no variance
    deep_supervision  can it give logits at several scales?
    arguments         what else it takes, by name
    module            where in this package the function that makes it stands
    """

    name: str
    title: str
    source: str
    text: str
    width: Mapping[int, int] | None
    module: str = "from_monai"
    levels: int = 5
    width_step: int = 1
    one_voxel: bool = False
    deep_supervision: bool = True
    arguments: Mapping[str, Argument] = field(default_factory=dict)


def _levels(default: int, lowest: int = 2) -> Argument:
    return Argument(default, "resolutions from the image to the bottleneck", lowest, 8)


def _dropout(default: float, where: str) -> Argument:
    return Argument(default, f"share of {where} set to 0 in training", 0.0, 0.9)


NETWORKS: Mapping[str, Network] = MappingProxyType(
    {
        network.name: network
        for network in (
            Network(
                "unet",
                "U-Net",
                "Ronneberger et al., MICCAI 2015; in 3D Çiçek et al., MICCAI 2016",
                "two convolutions a level, skips by concatenation; with instance normalisation",
                width={2: 64, 3: 32},
                arguments={"dropout": _dropout(0.0, "the features of every convolution")},
            ),
            Network(
                "attention-unet",
                "Attention U-Net",
                "Oktay et al., MIDL 2018",
                "U-Net whose skips are weighted with a learned map of attention",
                width={2: 32, 3: 32},
                width_step=2,
                arguments={"levels": _levels(5), "dropout": _dropout(0.0, "the features of the convolutions")},
            ),
            Network(
                "reg-unet",
                "RegUNet",
                "Fu et al. (DeepReg), JOSS 2020",
                "residual U-Net made for registration, as A-FL uses it for segmentation",
                width={2: 32, 3: 32},
                arguments={
                    "levels": _levels(4),
                    "concatenate": Argument(False, "are skips concatenated instead of added?"),
                },
            ),
            Network(
                "resnet50-unet",
                "U-Net with a ResNet-50 encoder",
                "He et al., CVPR 2016; Yakubovskiy, segmentation_models.pytorch, 2019",
                "a deep residual encoder that begins at half the resolution; its weights start at random, too",
                width=None,
                levels=6,
                arguments={"dropout": _dropout(0.0, "the features of the decoder")},
            ),
            Network(
                "segresnet",
                "SegResNet",
                "Myronenko, BrainLes 2018",
                "deep residual encoder, small decoder, group normalisation; without the autoencoder's branch",
                width={2: 32, 3: 32},
                levels=4,
                width_step=8,
                one_voxel=True,
                arguments={"dropout": _dropout(0.0, "the features of the first convolution")},
            ),
            Network(
                "vnet",
                "V-Net",
                "Milletari et al., 3DV 2016",
                "residual levels of 5x5(x5) convolutions, strided convolutions between them",
                width={2: 16, 3: 16},
                arguments={"dropout": _dropout(0.5, "the channels of the skips and the deep levels")},
            ),
            Network(
                "r2unet",
                "R2U-Net (RRUNet)",
                "Alom et al., arXiv 1802.06955, 2018",
                "U-Net of recurrent convolutions with residual connections",
                width={2: 64, 3: 16},
                module="r2unet",
                arguments={
                    "levels": _levels(5),
                    "steps": Argument(2, "how often a recurrent convolution is applied again", 1, 8),
                },
            ),
            Network(
                "mrrn",
                "incremental MRRN",
                "Jiang et al., IEEE TMI 38(1), 2019",
                "feature streams at every resolution, the full one too, that deeper layers add to",
                width={2: 32, 3: 16},
                module="mrrn",
                arguments={"levels": _levels(5), "dropout": _dropout(0.0, "the channels read from a stream")},
            ),
            Network(
                "nnunet",
                "nnU-Net (plain convolutions)",
                "Isensee et al., Nature Methods 2021",
                "strided convolutions, instance normalisation, LeakyReLU; at most 512 (2D) or 320 (3D) channels",
                width={2: 32, 3: 32},
                arguments={"levels": _levels(6, lowest=3)},
            ),
        )
    }
)


def check_network(name: str, dimension: int, arguments: Mapping[str, Any], deep_supervision: bool) -> None:
    """Raise LabError unless there is such a network in 2D or 3D, and it takes these arguments."""
    if name not in NETWORKS:
        raise LabError(f"expected a network: {', '.join(NETWORKS)}; got {name!r}.{suggest(str(name), NETWORKS)}")
    if dimension not in (2, 3):
        raise LabError(f"network {name!r}: expected 2 or 3 spatial axes; got {dimension!r}.")
    known = NETWORKS[name].arguments
    for argument, value in arguments.items():
        if argument not in known:
            takes = "; ".join(f"{key} ({spec.text}; {spec.default})" for key, spec in known.items())
            raise LabError(
                f"network {name!r} has no argument {argument!r}.{suggest(argument, [*known, 'width'])} "
                f"It takes width and {takes}."
            )
        known[argument].check(f"network {name!r}: {argument}", value)
    levels = _levels_of(name, arguments)
    if deep_supervision and not (NETWORKS[name].deep_supervision and levels > 2):
        raise LabError(
            f"network {name!r} with {levels} levels decodes to full resolution alone, so there are no other scales for "
            "deep supervision. Train it without, or with 3 levels or more."
        )


def check_width(name: str, width: int | None) -> None:
    """Raise LabError unless the network `name` can have this width; None is its own."""
    entry = NETWORKS[name]
    if width is None:
        return
    if entry.width is None:
        raise LabError(f"network {name!r} has a fixed width; leave width out. Got {width!r}.")
    if type(width) is not int or width < 1 or width % entry.width_step:
        raise LabError(
            f"network {name!r}: expected width as a whole number from {entry.width_step} up"
            f"{f', a multiple of {entry.width_step}' * (entry.width_step > 1)}; got {width!r}. "
            f"As in {name}:width={4 * entry.width_step}, or --width {4 * entry.width_step} for all networks."
        )


def divisor(name: str, dimension: int, **arguments: Any) -> tuple[int, ...]:
    """What the size of an image along each axis must be a multiple of: the stride of the bottleneck."""
    check_network(name, dimension, arguments, deep_supervision=False)
    return (2 ** (_levels_of(name, arguments) - 1),) * dimension


def smallest(name: str, dimension: int, **arguments: Any) -> tuple[int, ...]:
    """The smallest size of an image that the network takes, whatever the batch size.

    Normalisation needs two voxels at the bottleneck. Along which axis they lie does not matter, so one axis is twice
    the divisor: the second, as the thin axis of a volume is the first or the last.
    """
    steps = divisor(name, dimension, **arguments)
    if NETWORKS[name].one_voxel:
        return steps
    return (steps[0], 2 * steps[1], *steps[2:])


def _levels_of(name: str, arguments: Mapping[str, Any]) -> int:
    network = NETWORKS[name]
    default = network.arguments["levels"].default if "levels" in network.arguments else network.levels
    return int(arguments.get("levels", default))
