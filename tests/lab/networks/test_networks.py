"""Every network, in 2D and 3D: shapes, gradients, scales, seeds, sizes, and what is said of mistakes."""

import copy
import pickle
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from unifocal import DeepSupervision, DiceCELoss
from unifocal.lab.errors import LabError
from unifocal.lab.networks import NETWORKS, build, check_network, divisor, smallest

TINY = {"segresnet": 8, "resnet50-unet": None}  # all others: 4
EVERY = [(name, dimension) for name in NETWORKS for dimension in (2, 3)]
every_network = pytest.mark.parametrize(("name", "dimension"), EVERY)


def tiny(name, dimension, seed=0, channels=1, classes=3, **arguments):
    arguments.setdefault("width", TINY.get(name, 4))
    return build(name, dimension=dimension, channels=channels, classes=classes, seed=seed, **arguments)


def images(name, dimension, n=1, channels=1, **arguments):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(n, channels, *smallest(name, dimension, **arguments), generator=generator)


def labels_of(x):
    """Classes 0, 1 and 2 by brightness."""
    return (x[:, 0] > -0.5).long() + (x[:, 0] > 0.8).long()


def untrained(network):
    # The gradient of a bias before a normalisation is 0 but for rounding.
    return [
        name
        for name, p in network.named_parameters()
        if p.grad is None or not ((p.grad != 0).any() or name.endswith("bias"))
    ]


@cache
def parameters(name, dimension, **arguments):
    arguments = {"channels": 1, "classes": 2} | arguments
    with torch.device("meta"):
        network = build(name, dimension=dimension, seed=0, **arguments)
    return sum(p.numel() for p in network.parameters())


@every_network
def test_a_step_with_deep_supervision_and_without(name, dimension):
    x = images(name, dimension)
    still = {"dropout": 0.0} if "dropout" in NETWORKS[name].arguments else {}  # what is dropped gets no gradient
    network, alone = tiny(name, dimension, deep_supervision=True, **still), tiny(name, dimension, **still)

    outputs = network.train()(x)
    levels = 2 if name == "mrrn" else len(bin(divisor(name, dimension)[0])) - 3
    expected = [(1, 3, *(n // 2**i for n in x.shape[2:])) for i in range(levels)]
    assert [tuple(z.shape) for z in outputs] == expected
    DeepSupervision(DiceCELoss(), "monai-exp")(outputs, labels_of(x)).backward()
    assert untrained(network) == []

    logits = alone.train()(x)
    assert tuple(logits.shape) == expected[0]
    DiceCELoss()(logits, labels_of(x)).backward()
    assert untrained(alone) == []

    assert isinstance(network.eval()(x), torch.Tensor)
    torch.testing.assert_close(network(x), alone.eval()(x), rtol=0, atol=0)


@every_network
def test_weights_depend_on_the_seed_alone(name, dimension):
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first = tiny(name, dimension, seed=1, deep_supervision=True).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(7)
    again = tiny(name, dimension, seed=1, deep_supervision=True).state_dict()
    assert all(torch.equal(again[key], value) for key, value in first.items())

    alone = tiny(name, dimension, seed=1).state_dict()
    assert {key for key in first if key not in alone} == {key for key in first if key.startswith("supervision_heads.")}
    assert all(torch.equal(first[key], value) for key, value in alone.items())

    other = tiny(name, dimension, seed=2).state_dict()
    assert any(not torch.equal(other[key], value) for key, value in alone.items())


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_saved_and_loaded_give_the_same_logits(name, tmp_path):
    network, other = (tiny(name, 2, seed=seed, deep_supervision=True) for seed in (1, 2))
    x = images(name, 2)
    network.train()(x)  # running statistics, too
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(network.eval()(x), other.eval()(x))


@pytest.mark.parametrize("name", NETWORKS)
def test_copies_have_scales_of_their_own(name):
    network = tiny(name, 2, deep_supervision=True).train()
    x = images(name, 2)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        with torch.no_grad():
            for p in other.parameters():
                p.zero_()
        coarsest = [z[-1] for z in (other(x), network(x))]
        assert not coarsest[0].any() and coarsest[1].any()


@pytest.mark.parametrize("name", NETWORKS)
def test_three_channels_and_a_batch(name):
    network = tiny(name, 2, channels=3, classes=1)
    assert tuple(network(images(name, 2, n=2, channels=3)).shape) == (2, 1, *smallest(name, 2))


# --- sizes -----------------------------------------------------------------------------------------------------------


@every_network
def test_sizes(name, dimension):
    network = tiny(name, dimension)
    steps = divisor(name, dimension)
    least = torch.zeros(1, 1, *steps)
    if smallest(name, dimension) == steps:
        network(least)
    else:
        with pytest.raises(LabError, match=rf"at least one axis {2 * steps[0]}"):
            network(least)

    odd = list(smallest(name, dimension))
    odd[-1] += steps[0] // 2
    with pytest.raises(LabError, match=re.escape(f"multiples of {steps}")):
        network(torch.zeros(1, 1, *odd))
    with pytest.raises(LabError, match=re.escape(f"multiples of {steps}")):
        network(torch.zeros(1, 1, *steps, steps[0]))


@pytest.mark.parametrize("name", [name for name in NETWORKS if not NETWORKS[name].one_voxel])
def test_normalisation_is_why_one_voxel_is_refused(name):
    """Without our check PyTorch raises, so `smallest` is not too large; by `test_a_step` it is not too small."""
    network = tiny(name, 2).train()
    network._forward_pre_hooks.clear()
    with pytest.raises(ValueError, match="more than 1"):
        network(torch.zeros(1, 1, *divisor(name, 2)))


@pytest.mark.parametrize("name", NETWORKS)
def test_images_of_any_size_padded_to_the_divisor(name):
    steps = divisor(name, 2)
    x = torch.randn(2, 1, steps[0] + 5, 2 * steps[1] - 3)
    padding = [p for n, step in zip(x.shape[:1:-1], steps, strict=True) for p in (0, -n % step)]
    x = nn.functional.pad(x, padding)
    assert tuple(tiny(name, 2).train()(x).shape) == (2, 3, *x.shape[2:])


@pytest.mark.parametrize("name", [name for name in NETWORKS if "levels" in NETWORKS[name].arguments])
def test_levels_set_divisor_and_scales(name):
    assert divisor(name, 3, levels=3) == (4, 4, 4)
    assert smallest(name, 3, levels=3) == (4, 8, 4)
    outputs = tiny(name, 3, levels=3, deep_supervision=True).train()(images(name, 3, levels=3))
    assert [tuple(z.shape[2:]) for z in outputs] == [(4, 8, 4), (2, 4, 2)]
    if NETWORKS[name].arguments["levels"].lowest == 2:
        assert tuple(tiny(name, 2, levels=2)(torch.randn(1, 1, 2, 4)).shape) == (1, 3, 2, 4)


# --- what they are ---------------------------------------------------------------------------------------------------

# Millions of parameters with 1 channel and 2 classes, from other sources than this code: MONAI's classes called by
# hand (U-Net, Attention U-Net, ResNet-50, SegResNet, V-Net), 31.2 M for nnU-Net's 3D network in Roy et al., MedNeXt,
# MICCAI 2023. Those of `r2unet`, `mrrn` and `reg-unet` are checked by formula.
PUBLISHED = [
    ("unet", 2, {}, 31.11),
    ("unet", 3, {}, 22.63),
    ("attention-unet", 2, {}, 7.94),
    ("attention-unet", 3, {}, 23.63),
    ("resnet50-unet", 2, {}, 32.10),
    ("resnet50-unet", 3, {}, 67.67),
    ("segresnet", 2, {"width": 16}, 1.58),
    ("segresnet", 3, {"width": 16}, 4.70),
    ("segresnet", 3, {"channels": 3}, 18.80),
    ("vnet", 2, {}, 9.36),
    ("vnet", 3, {}, 45.60),
    ("nnunet", 2, {"levels": 5}, 7.76),
    ("nnunet", 3, {}, 31.19),
]


@pytest.mark.parametrize(("name", "dimension", "arguments", "millions"), PUBLISHED)
def test_parameters(name, dimension, arguments, millions):
    assert parameters(name, dimension, **arguments) / 1e6 == pytest.approx(millions, abs=0.006)


def test_the_table_of_the_documentation():
    text = (Path(__file__).parents[3] / "docs" / "networks.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \|.*\| ([\d.]+) / ([\d.]+) M \|", text, flags=re.MULTILINE)
    assert [row[0] for row in rows] == list(NETWORKS)
    for name, *millions in rows:
        for dimension, stated in zip((2, 3), millions, strict=True):
            assert f"{parameters(name, dimension) / 1e6:.1f}" == stated, (name, dimension)


@pytest.mark.parametrize("dimension", [2, 3])
def test_vnet_is_monais(dimension):
    from monai.networks.nets.vnet import VNet

    ours = build("vnet", dimension=dimension, channels=1, classes=2, seed=7)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        theirs = VNet(dimension, 1, 2)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = torch.randn(1, 1, *smallest("vnet", dimension))
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_vnet_drops_channels_of_an_image_and_not_whole_images():
    network = tiny("vnet", 2, width=16, dropout=0.5).train()
    kept = {}

    def keep(layer, inputs, output):
        kept["share"] = (output != 0).any(dim=3).any(dim=2).float().mean(dim=1)  # of the channels, for each image

    network.get_submodule("down_tr256.dropout").register_forward_hook(keep)
    network(torch.randn(4, 1, 32, 32))
    assert ((kept["share"] > 0.2) & (kept["share"] < 0.8)).all()


def test_vnet_fills_channels_that_do_not_divide_its_width():
    x = torch.randn(1, 3, *smallest("vnet", 2))
    three, four = (tiny("vnet", 2, channels=channels).eval() for channels in (3, 4))
    filled = torch.cat([x, torch.zeros_like(x[:, :1])], dim=1)
    torch.testing.assert_close(three(x), four(filled))


def test_reg_unet_decodes():
    """MONAI's own default leaves only the bottleneck, upsampled: blocks of equal logits."""
    logits = tiny("reg-unet", 2).eval()(torch.randn(1, 1, 16, 16))
    assert (logits[..., 0] != logits[..., 1]).any()
    assert parameters("reg-unet", 2, concatenate=True) > parameters("reg-unet", 2)


@pytest.mark.parametrize(
    ("name", "argument"), [(name, "dropout") for name in NETWORKS if "dropout" in NETWORKS[name].arguments]
)
def test_dropout_is_on_in_training_only(name, argument):
    network = tiny(name, 2, **{argument: 0.5})
    x = images(name, 2)
    assert not torch.equal(network.train()(x), network(x))
    assert torch.equal(network.eval()(x), network(x))
    still = tiny(name, 2, **{argument: 0})
    assert torch.equal(still.train()(x), still(x))


def test_2d_weights_lie_in_channels_last():
    weights = [p for p in tiny("unet", 2, deep_supervision=True).parameters() if p.ndim == 4]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("unnet", {}, "Did you mean 'unet'"),
        ("unet", {"dimension": 1}, "expected 2 or 3 spatial axes; got 1"),
        ("unet", {"channels": 0}, "expected channels as a whole number from 1 up; got 0"),
        ("unet", {"classes": 2.0}, "expected classes as a whole number"),
        ("unet", {"width": 0}, "expected width as a whole number from 1 up; got 0"),
        ("unet", {"width": True}, "got True"),
        ("unet", {"drop": 0.1}, r"no argument 'drop'. Did you mean 'dropout'\? It takes width and dropout \(share"),
        ("unet", {"dropout": 1.5}, "dropout .* expected a number from 0 to 0.9; got 1.5"),
        ("unet", {"dropout": "0.1"}, "got '0.1'"),
        ("unet", {"dropout": float("nan")}, "got nan"),
        ("nnunet", {"levels": 2}, "expected a number from 3 to 8, whole; got 2"),
        ("nnunet", {"levels": 3.0}, "whole; got 3.0"),
        ("reg-unet", {"concatenate": 1}, "expected true or false; got 1"),
        ("resnet50-unet", {"width": 32}, "fixed width"),
        ("segresnet", {"width": 12}, "a multiple of 8; got 12. As in segresnet:width=32, or --width 32 for all"),
        ("vnet", {"width": 4, "channels": 5}, "width of at least the image's 5 channels; got 4"),
        ("mrrn", {"levels": 2, "deep_supervision": True}, "3 levels or more"),
    ],
)
def test_mistakes_are_explained(name, arguments, said):
    with pytest.raises(LabError, match=said):
        build(name, **({"dimension": 2, "channels": 1, "classes": 2, "seed": 0} | arguments))


def test_checks_without_building():
    check_network("mrrn", 3, {"levels": 4, "dropout": 0}, deep_supervision=True)
    with pytest.raises(LabError, match="no argument 'depth'"):
        divisor("mrrn", 3, depth=4)
    with pytest.raises(LabError, match="expected a network"):
        smallest("mrn", 3)


def test_names_are_there_without_pytorch():
    code = (
        "import sys; from unifocal.lab.networks import NETWORKS, divisor, smallest; "
        "assert divisor('unet', 2) == (16, 16) and smallest('unet', 3) == (16, 32, 16); "
        "assert all(network.title and network.source and network.text for network in NETWORKS.values()); "
        "print([name for name in ('torch', 'monai', 'numpy', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
