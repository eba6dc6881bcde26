"""Windows against whole images and against blending by hand; sizes, precision, what is left behind."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unifocal.lab import inference
from unifocal.lab.inference import predict
from unifocal.lab.settings import make_settings

CPU = torch.device("cpu")


class Recorded(nn.Module):
    """Calls `inner`, and remembers the shapes that came."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.shapes = inner, []

    def forward(self, images: Tensor) -> Tensor:
        self.shapes.append(tuple(images.shape))
        result: Tensor = self.inner(images)
        return result


def one_by_one(axes=2, channels=1, classes=3):
    """A network without context: what it says of a voxel cannot depend on window or padding."""
    torch.manual_seed(0)
    convolution = nn.Conv2d if axes == 2 else nn.Conv3d
    return convolution(channels, classes, 1)


@pytest.mark.parametrize("blend", ["gaussian", "constant"])
@pytest.mark.parametrize("shape, patch", [((21, 34), "8,12"), ((5, 40), "8"), ((9, 14, 11), "6,6,4"), ((20, 20), "20")])
def test_windows_of_a_network_without_context_say_what_the_whole_image_says(shape, patch, blend):
    image, network = torch.randn(2, *shape), one_by_one(len(shape), 2)
    whole = predict(network, image, make_settings(), CPU)
    torch.testing.assert_close(whole, network(image[None]).softmax(1)[0].detach())
    windows = predict(network, image, make_settings(patch=patch, patch_blend=blend), CPU, (4,) * len(shape))
    torch.testing.assert_close(windows, whole, atol=1e-6, rtol=0)  # a mean of equal numbers, but for rounding


@pytest.mark.parametrize("blend", ["gaussian", "constant"])
def test_overlapping_windows_are_weighted_as_they_should_be(blend):
    """Every window says something else; the weights of Isensee et al. 2021: a Gaussian of an eighth of the window."""

    class Position(nn.Module):
        def forward(self, images):
            own = images[:, :, :1, :1].expand_as(images)  # the value of the window's first pixel
            return torch.cat([own, torch.zeros_like(own)], 1)

    side, image = 8, torch.randn(1, 8, 20)
    settings = make_settings(patch=side, patch_overlap=0.5, patch_blend=blend, batch_size=2)
    found = predict(Position(), image, settings, CPU).log()
    line = np.exp(-0.5 * ((np.arange(side) - 3.5) / (side / 8)) ** 2) if blend == "gaussian" else np.ones(side)
    above, below = np.zeros(20), np.zeros(20)
    for start in (0, 4, 8, 12):
        above[start : start + side] += line * float(image[0, 0, start])
        below[start : start + side] += line
    logits = (found[0] - found[1])[4].numpy()  # a row in the middle, where MONAI's floor for weights does not act
    np.testing.assert_allclose(logits, above / below, atol=1e-5)


def test_what_goes_through_the_network_is_a_multiple_of_its_divisor():
    network = Recorded(one_by_one(3))
    result = predict(network, torch.randn(1, 9, 14, 5), make_settings(), CPU, (8, 4, 2))
    assert network.shapes == [(1, 1, 16, 16, 6)] and result.shape == (3, 9, 14, 5)
    network = Recorded(one_by_one(3))
    settings = make_settings(patch="6,6,5", batch_size=3, patch_overlap=0)
    assert predict(network, torch.randn(1, 9, 14, 5), settings, CPU, (8, 4, 2)).shape == (3, 9, 14, 5)
    assert network.shapes == [(3, 1, 8, 8, 6)] * 2  # 2 x 3 x 1 windows, three together


def test_padding_is_zero_and_at_the_end():
    network = Recorded(nn.Conv2d(1, 2, 3, padding=1, bias=False))
    image = torch.randn(1, 6, 7)
    padded = torch.zeros(1, 1, 8, 8)
    padded[0, :, :6, :7] = image
    expected = network.inner(padded).softmax(1)[0, :, :6, :7].detach()
    torch.testing.assert_close(predict(network, image, make_settings(), CPU, (8, 8)), expected)
    torch.testing.assert_close(predict(network, image, make_settings(patch=8), CPU), expected)


def test_one_logit_is_a_sigmoid():
    network = one_by_one(classes=1)
    image = torch.randn(1, 5, 5)
    torch.testing.assert_close(predict(network, image, make_settings(), CPU), network(image).sigmoid().detach())


@pytest.mark.parametrize("precision", ["bf16", "16"])
def test_less_precise_arithmetic_gives_the_same_to_its_precision_as_float32(precision):
    image, network = torch.randn(1, 16, 16), one_by_one()
    full, less = (predict(network, image, make_settings(precision=p), CPU) for p in ("32", precision))
    assert less.dtype == torch.float32 and not torch.equal(full, less)
    torch.testing.assert_close(full, less, atol=0.01, rtol=0)


def test_sums_of_large_images_lie_beside_the_cpu(monkeypatch):
    image, network, settings = torch.randn(1, 16, 16), one_by_one(), make_settings(patch=8)
    before = predict(network, image, settings, CPU)
    monkeypatch.setattr(inference, "LARGE", 10)
    assert torch.equal(before, predict(network, image, settings, CPU))


def test_the_network_is_evaluated_without_a_graph():
    network = nn.Sequential(one_by_one(), nn.Dropout(0.9)).train()
    image = torch.randn(1, 8, 8)
    first, second = (predict(network, image, make_settings(), CPU) for _ in range(2))
    assert torch.equal(first, second) and not first.requires_grad and not network.training
