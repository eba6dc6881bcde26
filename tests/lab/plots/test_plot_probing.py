"""What is drawn over p_t is what the losses' definitions say, written down here once more and for two classes."""

import numpy as np
import pytest
import torch

from unifocal import available
from unifocal.lab.choices import LossChoice
from unifocal.lab.errors import LabError
from unifocal.lab.plots.probing import P_T, VOXELS, gradients_of, images, losses_of

P = np.array([0.05, 0.3, 0.5, 0.9, 0.99])
SMOOTHING = 1e-6  # of the losses, in voxels, against sums of more than one voxel


def probability_of_truth(logits, labels):
    p = torch.sigmoid(logits[:, 0])
    return torch.where(labels == 1, p, 1 - p)


@pytest.mark.parametrize("share", [0.001, 0.25, 0.5, 0.999])
def test_every_voxel_has_p_t_and_the_share_is_lesion(share):
    logits, labels = images(share, P)
    assert labels.shape == (len(P), VOXELS) and logits.shape == (len(P), 1, VOXELS)
    assert (labels.sum(1) == share * VOXELS).all()
    np.testing.assert_allclose(probability_of_truth(logits, labels), np.repeat(P[:, None], VOXELS, 1), rtol=1e-13)


@pytest.mark.parametrize("share", [0.0, 1.0, 0.0004, -1.0, float("nan"), float("inf")])
def test_a_share_that_leaves_no_class(share):
    with pytest.raises(LabError, match=r"--share: expected a number from 0.001 to 0.999"):
        images(share, P)


def tversky_index(p, share, delta):
    """Of the class that has this share."""
    return share * p / (share * p + delta * share * (1 - p) + (1 - delta) * (1 - share) * (1 - p))


def entropy(p, gamma=0.0):
    return -((1 - p) ** gamma) * np.log(p)


# Each loss with its parts for the lesion and for the background, where s is the lesion's share.
DEFINITIONS = {
    "cross-entropy": lambda p, s: (entropy(p), entropy(p)),
    "focal:gamma=1.5:alpha=0.8": lambda p, s: (0.8 * entropy(p, 1.5), 0.2 * entropy(p, 1.5)),
    "symmetric-focal:delta=0.7:gamma=0.4": lambda p, s: (0.7 * entropy(p, 0.4), 0.3 * entropy(p, 0.4)),
    "asymmetric-focal:delta=0.7:gamma=0.4": lambda p, s: (0.7 * entropy(p), 0.3 * entropy(p, 0.4)),
    "dice": lambda p, s: (1 - tversky_index(p, s, 0.5), 1 - tversky_index(p, 1 - s, 0.5)),
    "tversky:delta=0.8": lambda p, s: (1 - tversky_index(p, s, 0.8), 1 - tversky_index(p, 1 - s, 0.8)),
    "asymmetric-focal-tversky:delta=0.8:gamma=0.3": lambda p, s: (
        (1 - tversky_index(p, s, 0.8)) ** 0.7,
        1 - tversky_index(p, 1 - s, 0.8),
    ),
    "unified-focal:lam=0.3:delta=0.7:gamma=0.4": lambda p, s: (
        0.3 * 0.7 * entropy(p) + 0.7 * (1 - tversky_index(p, s, 0.7)) ** 0.6,
        0.3 * 0.3 * entropy(p, 0.4) + 0.7 * (1 - tversky_index(p, 1 - s, 0.7)),
    ),
    "combo:alpha=0.3:beta=0.6": lambda p, s: (
        0.3 * 0.6 * entropy(p) - 0.7 * tversky_index(p, s, 0.5),
        0.3 * 0.4 * entropy(p) - 0.7 * tversky_index(p, 1 - s, 0.5),
    ),
}


@pytest.mark.parametrize("share", [0.5, 0.02])
@pytest.mark.parametrize("text", DEFINITIONS)
def test_a_curve_is_the_definition(text, share):
    found = losses_of(LossChoice.parse(text), share, P)
    for part, wanted in zip(found, DEFINITIONS[text](P, share), strict=True):
        np.testing.assert_allclose(part, wanted, rtol=0, atol=SMOOTHING)


@pytest.mark.parametrize("name", available())
def test_in_a_balanced_image_a_loss_is_the_mean_of_its_parts(name):
    choice = LossChoice(name=name)
    whole = choice.build(reduction="none")(*images(0.5, P)).numpy()
    np.testing.assert_allclose(np.mean(losses_of(choice, 0.5, P), 0), whole, rtol=1e-12)


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_the_gradient_of_entropies_is_known(share):
    for part in gradients_of(LossChoice.parse("cross-entropy"), share, P):
        np.testing.assert_allclose(part, 1 - P, rtol=1e-10)
    gamma = 2
    wanted = (1 - P) ** gamma * (1 - P - gamma * P * np.log(P))  # d/dz of (1 - p)^γ (-log p), p = σ(z)
    for part in gradients_of(LossChoice.parse("focal:gamma=2"), share, P):
        np.testing.assert_allclose(part, wanted, rtol=1e-10)
    lesion, background = gradients_of(LossChoice.parse("asymmetric-focal:delta=0.7:gamma=2"), share, P)
    np.testing.assert_allclose(lesion, 0.7 * (1 - P), rtol=1e-10)
    np.testing.assert_allclose(background, 0.3 * wanted, rtol=1e-10)


@pytest.mark.parametrize("text", ["dice", "tversky:delta=0.8", "unified-focal:delta=0.7:gamma=0.4", "combo"])
@pytest.mark.parametrize("share", [0.5, 0.02])
def test_the_gradient_is_what_one_voxel_changes(text, share):
    logits, labels = images(share, P)
    loss, h = LossChoice.parse(text).build(reduction="none"), 1e-4
    for part, voxel in zip(gradients_of(LossChoice.parse(text), share, P), (0, -1), strict=True):
        step = torch.zeros_like(logits)
        step[..., voxel] = h
        slope = (loss(logits + step, labels) - loss(logits - step, labels)) / (2 * h)
        np.testing.assert_allclose(
            part, VOXELS * slope.abs(), rtol=1e-4
        )  # of a difference of losses a thousandth apart


def test_figures_look_from_end_to_end():
    assert 0 < P_T[0] < 0.01 and 0.99 < P_T[-1] < 1
