"""What every loss promises, whatever its equation: gradients, finiteness, invariances, and being a good module."""

import copy
import dataclasses
import io
import math
import pickle

import numpy as np
import pytest
import torch
from cases import ALL, COMPOUND, ENTROPY, KINDS_FIRST, PARAMETERS, make, value_and_gradient, volume
from torch import Tensor, nn

import unifocal

WITHOUT_SURFACE = [name for name in ALL if name != "adaptive-focal"]  # A-FL looks at a voxel's neighbours
READINGS = [(3, "softmax"), (1, "sigmoid"), (2, "sigmoid"), (3, "none"), (1, "none")]


def readable(name: str, channels: int, activation: str, **shared) -> tuple[unifocal.SegmentationLoss, Tensor, Tensor]:
    """A loss of that activation with small inputs it can read."""
    x, labels = volume(channels, (3, 2), scale=0.8)
    if activation == "none":
        x = x.softmax(1) if channels > 1 else x.sigmoid()
    if activation == "sigmoid" and channels > 1:
        labels = torch.stack([labels == 1, labels == 0], 1).long()
    return make(name, activation=activation, **shared), x, labels


# --- gradients -----------------------------------------------------------------------------------------------------


def gradcheck(loss: unifocal.SegmentationLoss, x: Tensor, *rest: Tensor) -> None:
    x = x.detach().clone().requires_grad_()
    # central differences of step 1e-6 in float64 are right to about 1e-9
    assert torch.autograd.gradcheck(lambda z: loss(z, *rest), x, eps=1e-6, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize(("channels", "activation"), READINGS)
@pytest.mark.parametrize("name", ALL)
def test_gradient_is_the_slope(name, channels, activation):
    gradcheck(*readable(name, channels, activation, reduction="none"))


@pytest.mark.parametrize(("channels", "activation"), READINGS)
@pytest.mark.parametrize("name", ALL)
def test_gradient_with_voxel_and_class_weights(name, channels, activation):
    weights = torch.tensor([[[0.3, 1.2], [0.0, 2.0], [1.0, 0.7]]]).double().expand(2, 3, 2)
    class_weights = [0.7, 1.9, 0.4][: max(channels, 2)]
    gradcheck(*readable(name, channels, activation, class_weights=class_weights), weights)


@pytest.mark.parametrize(("channels", "activation"), [r for r in READINGS if r != (2, "sigmoid")])
@pytest.mark.parametrize("name", ALL)
def test_gradient_with_ignored_voxels_and_a_pooled_batch(name, channels, activation):
    loss, x, labels = readable(name, channels, activation, ignore_index=255, batch=True, absent="skip")
    labels[0, 1] = 255
    gradcheck(loss, x, labels)
    _, gradient = value_and_gradient(loss, x, labels)
    assert (gradient[0, :, 1] == 0).all()
    assert (gradient[1] != 0).any()


@pytest.mark.parametrize(("channels", "activation"), READINGS)
@pytest.mark.parametrize("name", ALL)
def test_gradient_with_soft_labels(name, channels, activation):
    loss, x, _ = readable(name, channels, activation)
    soft = torch.tensor(np.random.default_rng(4).uniform(0.05, 0.95, size=tuple(x.shape)))
    if channels > 1 and (activation != "sigmoid" or name == "adaptive-focal"):  # of exclusive classes
        soft = soft / soft.sum(1, keepdim=True)
    gradcheck(loss, x, soft)


@pytest.mark.parametrize("activation", ["softmax", "none"])
@pytest.mark.parametrize("name", ALL)
def test_gradient_of_a_hundredfold_scaled_loss_is_a_hundredfold(name, activation):
    """What a gradient scaler or a sum of losses does upstream."""
    loss, x, labels = readable(name, 3, activation)
    one, hundred = x.clone().requires_grad_(), x.clone().requires_grad_()
    loss(one, labels).backward()
    (100 * loss(hundred, labels)).backward()
    assert one.grad is not None
    torch.testing.assert_close(hundred.grad, 100 * one.grad)


@pytest.mark.parametrize("name", ALL)
def test_labels_and_weights_are_left_as_they_were(name):
    x, labels = volume(3)
    weights = torch.rand(labels.shape)
    kept = [t.clone() for t in (x, labels, weights)]
    value_and_gradient(make(name, ignore_index=7), x, labels, weights)
    for before, after in zip(kept, (x, labels, weights), strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ALL)
def test_confident_errors_still_get_a_gradient(name, channels):
    """Clipping at 1e-7, as the originals do, would give exactly 0 here; an entropy must push with full force."""
    x = torch.zeros(1, channels, 6)
    labels = torch.tensor([[1, 1, 0, 0, 0, 0]])
    x[0, -1, 0] = -40.0  # a miss at 4e-18, and everything else right
    x[0, -1, 1] = 40.0
    x[0, -1, 2:] = -40.0
    if channels == 3:
        x[0, :, :] = 0
        x[0, 0] = 40.0
        x[0, :, 1] = torch.tensor([0.0, 40.0, 0.0])
    _, gradient = value_and_gradient(unifocal.build(name), x, labels)
    if name in ENTROPY | COMPOUND:
        assert gradient[0, :, 0].abs().max() > 1e-3
    assert gradient.isfinite().all()


# --- finiteness ----------------------------------------------------------------------------------------------------

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
SIZE = 12


def gammas(name: str) -> list[dict]:
    fields = {f.name for f in dataclasses.fields(unifocal.build(name))}
    if name == "adaptive-focal":
        return [{"gamma_0": g} for g in (0.0, 0.1, 0.5, 5.0)]
    if "gamma" not in fields:
        return [{"exponent": e} for e in (0.01, 0.75, 4 / 3, 3.0)] if "exponent" in fields else [{}]
    above = name in {"focal", "dice-focal", "mixed-focal", "hybrid-focal", "symmetric-focal", "asymmetric-focal"}
    values = (0.0, 0.1, 0.5, 0.9, 0.99) + ((1.0, 2.0, 5.0) if above or name == "cosine-tversky" else ())
    return [{"gamma": g} for g in values if not (name == "cosine-tversky" and g == 0)]


def hard_cases(channels: int) -> tuple[Tensor, Tensor, list[str]]:
    """Signs (±1) of logits and labels, one image for each way in which a loss could break."""
    classes = max(channels, 2)
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, classes, (SIZE,), generator=generator)
    labels[:classes] = torch.arange(classes)
    right = nn.functional.one_hot(labels, classes).T * 2.0 - 1
    mixed = torch.randint(0, 2, (classes, SIZE), generator=generator) * 2.0 - 1
    empty, full, lacking = torch.zeros_like(labels), torch.full_like(labels, classes - 1), labels.clamp_max(classes - 2)
    background = nn.functional.one_hot(empty, classes).T * 2.0 - 1
    nothing = torch.full_like(labels, 255)
    cases = {
        "perfect": (right, labels),
        "inverted": (-right, labels),
        "mixed": (mixed, labels),
        "empty, found empty": (background, empty),
        "empty, found full": (-background, empty),
        "empty, mixed": (mixed, empty),
        "full, found empty": (background, full),
        "full, mixed": (mixed, full),
        "one class absent": (right, lacking),
        "found nothing": (background, labels),
        "all equal": (torch.ones_like(right), labels),
        "all ignored": (mixed, nothing),
    }
    signs = torch.stack([s for s, _ in cases.values()])
    return (signs if channels > 1 else signs[:, 1:]), torch.stack([y for _, y in cases.values()]), list(cases)


SCALES = (0.01, 20.0, 100.0, 1e4)


@pytest.mark.parametrize("autocast", [False, True], ids=["", "autocast"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("channels", "activation"), [(1, "sigmoid"), (2, "softmax"), (3, "softmax"), (2, "sigmoid")])
@pytest.mark.parametrize("name", ALL)
def test_value_and_gradient_are_finite_for_any_logits(name, channels, activation, dtype, autocast):
    signs, labels, cases = hard_cases(channels)
    if activation == "sigmoid" and channels > 1:
        labels = torch.stack([1 - labels, labels], 1)
        labels[labels < 0] = 255
    x = torch.cat([signs * scale for scale in SCALES]).to(dtype)
    labels = torch.cat([labels] * len(SCALES))
    for own in gammas(name):
        loss = unifocal.build(name, activation=activation, ignore_index=255, reduction="none", **own)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            values, gradient = value_and_gradient(loss, x, labels)
        bad = (~values.isfinite() | ~gradient.isfinite().flatten(1).all(1)).view(len(SCALES), -1).nonzero().tolist()
        assert not bad, f"{own}: {[f'{cases[c]} at ±{SCALES[s]:g}' for s, c in bad]}"
        assert gradient.dtype == dtype
        assert values.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        ignored = slice(len(cases) - 1, None, len(cases))
        assert (values[ignored] == 0).all()
        assert (gradient[ignored] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("name", ALL)
def test_probabilities_of_exactly_0_and_1_give_finite_values_and_gradients(name, channels, dtype):
    """The true slope is up to 1e7, from the clip, which float16 cannot hold: there it may be inf but not NaN."""
    signs, labels, _ = hard_cases(2)
    p = torch.cat([(signs > 0).double(), (signs > 0).double() * (1 - 1e-4) + 5e-5])
    p = (p / p.sum(1, keepdim=True)).where(p.sum(1, keepdim=True) > 0, 0.5)[:, 2 - channels :].to(dtype)
    for own in gammas(name):
        loss = unifocal.build(name, activation="none", ignore_index=255, reduction="none", **own)
        values, gradient = value_and_gradient(loss, p, torch.cat([labels] * 2))
        assert values.isfinite().all(), own
        assert not gradient.isnan().any(), own
        assert dtype == torch.float16 or gradient.isfinite().all(), own


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_half_precision_logits_are_summed_in_float32(name, dtype, channels):
    """Same value as float32 of the same rounded logits, exactly; the gradient is rounded once, on the way out."""
    x, labels = volume(channels, (40, 40))
    half = x.to(dtype)
    value, gradient = value_and_gradient(make(name), half, labels)
    wanted, wanted_gradient = value_and_gradient(make(name), half.float(), labels)
    assert value.dtype == torch.float32
    assert value == wanted
    assert torch.equal(gradient, wanted_gradient.to(dtype))
    with torch.autocast("cpu", torch.bfloat16):
        assert value_and_gradient(make(name), half, labels)[0] == wanted


@pytest.mark.parametrize("name", ALL)
def test_half_precision_sums_do_not_overflow(name):
    """A sum of 70 000 voxels is above the largest float16."""
    x, labels = torch.zeros(1, 2, 70_000), torch.zeros(1, 70_000, dtype=torch.long)
    labels[:, ::3] = 1
    value = make(name)(x.half(), labels)
    torch.testing.assert_close(value.double(), make(name)(x.double(), labels), rtol=1e-5, atol=1e-6)  # float32 sums


@pytest.mark.parametrize("scale", [1.0, 8.0, 16.0, 30.0, 60.0])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ALL)
def test_float32_agrees_with_float64_at_confident_logits(name, channels, scale):
    """No cancellation: the losses of nearly right and of hopeless predictions keep their digits."""
    x, labels = volume(channels, (6, 6), seed=2, scale=1)
    x = (x * scale).float()
    one, gradient = value_and_gradient(make(name), x, labels)
    two, exact = value_and_gradient(make(name), x.double(), labels)
    torch.testing.assert_close(one.double(), two, rtol=2e-5, atol=1e-7)  # float32: 1e-7 per step, powers, 36 terms
    torch.testing.assert_close(gradient.double(), exact, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("scale", [10.0, 14.0, 20.0])
@pytest.mark.parametrize("name", ["unified-focal", "symmetric-unified-focal", "focal-tversky"])
def test_nearly_perfect_masks_follow_the_equation(name, scale):
    """Powers of 1 - TI are those of the definition until the prediction is right to its last digit in float32."""
    _, labels = volume(2, (8, 8), images=1)
    z = (nn.functional.one_hot(labels, 2).movedim(-1, 1) * 2 - 1) * scale / 2
    q = torch.sigmoid(torch.tensor(-scale).double())  # every voxel is wrong by this much
    fg = (labels == 1).sum().double()
    errors = []
    delta = PARAMETERS[name]["delta"]
    for own, other in ((64 - fg, fg), (fg, 64 - fg)):
        e = (delta * own + (1 - delta) * other) * q
        errors.append(e / (own * (1 - q) + e + (1e-6 if name == "focal-tversky" else 1e-7)))
    parameters = {"exponent": 0.5} if name == "focal-tversky" else {"gamma": 0.5, "lam": 0}
    powers = [1.0, 0.5] if name == "unified-focal" else [0.5, 0.5]
    wanted = sum(e**k for e, k in zip(errors, powers, strict=True)) / 2
    value = unifocal.build(name, delta=delta, **parameters)(z.double(), labels)
    torch.testing.assert_close(value, wanted, rtol=1e-6, atol=0)  # the golden data's tolerance


# --- ignoring ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["ignore_index", "voxel_weights"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", ALL)
def test_a_batch_without_a_valid_voxel_costs_exactly_nothing(name, reduction, how):
    x, labels = volume(3)
    if how == "ignore_index":
        value, gradient = value_and_gradient(
            make(name, reduction=reduction, ignore_index=255), x, torch.full_like(labels, 255)
        )
    else:
        value, gradient = value_and_gradient(make(name, reduction=reduction), x, labels, torch.zeros_like(x[:, 0]))
    assert (value == 0).all()
    assert (gradient == 0).all()


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_a_wholly_ignored_image_changes_nothing(name, batch):
    x, labels = volume(3, images=3)
    labels[1] = 255
    loss = make(name, ignore_index=255, batch=batch)
    value, gradient = value_and_gradient(loss, x, labels)
    others = [0, 2]
    wanted, wanted_gradient = value_and_gradient(loss, x[others], labels[others])
    torch.testing.assert_close(value, wanted, rtol=1e-14, atol=0)
    torch.testing.assert_close(gradient[others], wanted_gradient, rtol=1e-13, atol=1e-16)
    assert (gradient[1] == 0).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", WITHOUT_SURFACE)
def test_ignored_voxels_are_as_good_as_removed(name, channels):
    x, labels = volume(channels, (13,))
    labels[:, 4:8] = 255
    kept = [i for i in range(13) if not 4 <= i < 8]
    value, gradient = value_and_gradient(make(name, ignore_index=255), x, labels)
    wanted, wanted_gradient = value_and_gradient(make(name), x[..., kept], labels[:, kept])
    torch.testing.assert_close(value, wanted, rtol=1e-13, atol=0)
    torch.testing.assert_close(gradient[..., kept], wanted_gradient, rtol=1e-12, atol=1e-16)
    assert (gradient[..., 4:8] == 0).all()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("rubbish", [1e4, float("inf"), float("nan")])
def test_what_is_predicted_at_ignored_voxels_does_not_matter(name, rubbish):
    x, labels = volume(3, (13,))
    labels[:, 4:8] = 255
    loss = make(name, ignore_index=255)
    wanted = loss(x, labels)
    x[:, 1, 4:8] = rubbish
    value, gradient = value_and_gradient(loss, x, labels)
    torch.testing.assert_close(value, wanted, rtol=1e-13, atol=0)
    assert (gradient[..., 4:8] == 0).all()


@pytest.mark.parametrize("name", WITHOUT_SURFACE)
def test_weight_two_is_the_voxel_twice(name):
    x, labels = volume(3, (9,))
    weights = torch.ones(2, 9)
    weights[:, :3] = 2
    twice = [*range(9), 0, 1, 2]
    torch.testing.assert_close(
        make(name)(x, labels, weights), make(name)(x[..., twice], labels[:, twice]), rtol=1e-13, atol=0
    )


@pytest.mark.parametrize("name", WITHOUT_SURFACE)
def test_smoothing_apart_only_ratios_of_weights_matter(name):
    x, labels = volume(3)
    weights = torch.rand(labels.shape, generator=torch.Generator().manual_seed(2)).double() + 0.1
    one = make(name, class_weights=[0.3, 1.0, 2.0])(x, labels, weights)
    two = make(name, class_weights=[3.0, 10.0, 20.0])(x, labels, 7 * weights)
    torch.testing.assert_close(one, two, rtol=1e-5, atol=0)  # 1e-6 of smoothing in sums of about one voxel


# --- invariances ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", WITHOUT_SURFACE)
def test_order_and_shape_of_the_voxels_do_not_matter(name, channels):
    x, labels = volume(channels, (4, 3, 2))
    order = torch.randperm(24, generator=torch.Generator().manual_seed(5))
    shuffled = x.flatten(2)[..., order].view(2, channels, 2, 12), labels.flatten(1)[:, order].view(2, 2, 12)
    torch.testing.assert_close(make(name)(*shuffled), make(name)(x, labels), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", ["adaptive-focal"])
def test_the_order_of_voxels_matters_to_a_surface(name):
    x, labels = volume(2, (5, 5))
    order = torch.randperm(25, generator=torch.Generator().manual_seed(5))
    shuffled = x.flatten(2)[..., order].view_as(x), labels.flatten(1)[:, order].view_as(labels)
    assert abs(make(name)(*shuffled) - make(name)(x, labels)) > 1e-5


def layouts(x: Tensor) -> dict[str, Tensor]:
    """The same numbers in other places of memory."""
    wide = torch.zeros(*x.shape[:-1], 2 * x.shape[-1], dtype=x.dtype)
    wide[..., ::2] = x
    more = torch.zeros(x.shape[0], x.shape[1] + 2, *x.shape[2:], dtype=x.dtype)
    more[:, 1:-1] = x
    return {
        "transposed": x.transpose(-1, -2).contiguous().transpose(-1, -2),
        "every other": wide[..., ::2],
        "some channels": more[:, 1:-1],
        "channels last": x.movedim(1, -1).contiguous().movedim(-1, 1),
        "batch last": x.movedim(0, -1).contiguous().movedim(-1, 0),
        "memory format": x.to(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d),
        "one for all": x[:1].expand(x.shape),
    }


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 2)], ids=["2D", "3D"])
@pytest.mark.parametrize("name", ALL)
def test_strides_and_memory_format_do_not_matter(name, shape):
    x, labels = volume(3, shape)
    x[1] = x[0]  # so that an expanded tensor can hold it
    labels_elsewhere = labels.movedim(0, -1).contiguous().movedim(-1, 0)
    value, gradient = value_and_gradient(make(name), x, labels)
    for layout, same in layouts(x).items():
        assert torch.equal(same, x)
        assert layout == "some channels" or not same.is_contiguous()
        other, other_gradient = value_and_gradient(make(name), same, labels_elsewhere)
        torch.testing.assert_close(other, value, rtol=1e-13, atol=0, msg=layout)
        torch.testing.assert_close(other_gradient, gradient, rtol=1e-12, atol=1e-16, msg=layout)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ALL)
def test_a_batch_is_the_mean_of_its_images(name, channels):
    x, labels = volume(channels, images=3)
    alone = torch.stack([make(name)(x[n : n + 1], labels[n : n + 1]) for n in range(3)])
    torch.testing.assert_close(make(name)(x, labels), alone.mean(), rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(make(name, reduction="none")(x, labels), alone, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(make(name, reduction="sum")(x, labels), alone.sum(), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", ALL)
def test_renaming_the_rare_classes_does_not_matter(name):
    x, labels = volume(4)
    order = [0, 3, 1, 2]
    renamed = torch.tensor([0, 2, 3, 1])[labels]
    torch.testing.assert_close(make(name)(x[:, order], renamed), make(name)(x, labels), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", sorted({*ALL} - {"adaptive-focal"}))
def test_a_constant_added_to_all_logits_of_softmax_does_not_matter(name):
    x, labels = volume(3)
    torch.testing.assert_close(make(name)(x + 300, labels), make(name)(x, labels), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", ALL)
def test_a_single_voxel_and_no_spatial_axis_will_do(name):
    x, labels = torch.tensor([[0.3, -1.2], [2.0, 0.4]]).double(), torch.tensor([1, 0])
    assert make(name)(x, labels).isfinite()
    torch.testing.assert_close(make(name)(x, labels), make(name)(x[..., None, None], labels[:, None, None]))


# --- meaning -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("name", ALL)
def test_a_better_mask_costs_less(name, channels):
    """From the truth over blurred truth, uncertainty and half-wrong to inverted, each step costs more."""
    _, labels = volume(channels, (8, 8), images=1)
    classes = max(channels, 2)
    right = nn.functional.one_hot(labels, classes).movedim(-1, 1).double() * 2 - 1
    right = right if channels > 1 else right[:, 1:]
    losses = [make(name)(scale * right, labels).item() for scale in (6, 3, 1, 0, -1, -3, -6)]
    assert losses == sorted(losses)
    assert len(set(losses)) == len(losses)


SWAPS = [
    (name, parameter, 1 - value)
    for name in ALL
    for parameter, value in PARAMETERS[name].items()
    if parameter in {"delta", "lam", "gamma", "alpha", "beta"} and isinstance(value, float) and value < 1
] + [(name, "exponent", 1 / PARAMETERS[name]["exponent"]) for name in ("focal-tversky", "hybrid-focal", "mixed-focal")]


@pytest.mark.parametrize(("name", "parameter", "other"), SWAPS)
def test_swapping_a_parameter_for_its_complement_changes_the_value(name, parameter, other):
    """So the values above could not have been right with the two mixed up."""
    x, labels = volume(3)
    changed = unifocal.build(name, **(PARAMETERS[name] | {parameter: other}))
    assert abs(changed(x, labels) - make(name)(x, labels)) > 1e-3


@pytest.mark.parametrize("name", [n for n in ALL if "delta" in PARAMETERS[n]])
def test_delta_above_a_half_prices_misses_above_false_alarms(name):
    labels = torch.zeros(1, 40, dtype=torch.long)
    labels[0, :10] = 1
    right = nn.functional.one_hot(labels, 2).movedim(-1, 1).double() * 6 - 3
    missed, alarmed = right.clone(), right.clone()
    missed[0, :, :3] = right[0, :, -1:]  # three foreground voxels taken for background
    alarmed[0, :, -3:] = right[0, :, :1]  # three background voxels taken for foreground
    loss = unifocal.build(name, delta=0.9, include_background=False)
    assert loss(missed, labels) > loss(alarmed, labels)


@pytest.mark.parametrize("name", [n for n in ALL if n in ENTROPY])
def test_descent_with_confident_wrong_start_finds_the_mask(name):
    """Sixty steps from logits that are wrong by ten: an entropy does not give up on hopeless voxels."""
    _, labels = volume(2, (5, 5), images=1)
    z = (1 - 2 * nn.functional.one_hot(labels, 2).movedim(-1, 1).double()) * 5
    z.requires_grad_()
    optimiser = torch.optim.Adam([z], lr=0.5)
    for _ in range(60):
        optimiser.zero_grad()
        unifocal.build(name)(z, labels).backward()
        optimiser.step()
    assert torch.equal(z.argmax(1), labels)


# --- being a module ------------------------------------------------------------------------------------------------


def changed_everywhere(name: str) -> unifocal.SegmentationLoss:
    shared = {"class_weights": [0.5, 1.5, 2.0], "ignore_index": 255, "include_background": False, "batch": True}
    return make(name, **shared, absent="skip", smooth=0.25, reduction="none", activation="softmax")


def arguments(loss: unifocal.SegmentationLoss) -> dict:
    return {f.name: getattr(loss, f.name) for f in dataclasses.fields(loss)}


@pytest.mark.parametrize("build", [unifocal.build, make, changed_everywhere], ids=["default", "own", "all"])
@pytest.mark.parametrize("name", ALL)
def test_repr_evaluates_to_an_equal_loss(name, build):
    loss = build(name)
    again = eval(repr(loss), {name: getattr(unifocal, name) for name in unifocal.__all__})
    assert type(again) is type(loss)
    assert arguments(again) == arguments(loss)


def test_repr_shows_own_arguments_and_changed_shared_ones():
    text = repr(unifocal.TverskyLoss(delta=0.8, ignore_index=255))
    assert text == "TverskyLoss(delta=0.8, ignore_index=255)"


@pytest.mark.parametrize("name", ALL)
def test_pickle_deepcopy_save_and_replace_keep_the_loss(name):
    loss = changed_everywhere(name)
    x, labels = volume(3)
    wanted = loss(x, labels)
    file = io.BytesIO()
    torch.save(loss, file)
    file.seek(0)
    copies = [
        pickle.loads(pickle.dumps(loss)),
        copy.deepcopy(loss),
        copy.copy(loss),
        dataclasses.replace(loss),
        torch.load(file, weights_only=False),
    ]
    for same in copies:
        assert type(same) is type(loss)
        assert arguments(same) == arguments(loss)
        assert torch.equal(same(x, labels), wanted)
    assert dataclasses.replace(loss, reduction="sum").reduction == "sum"
    with pytest.raises(ValueError, match="reduction"):
        dataclasses.replace(loss, reduction="average")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ALL)
def test_a_loss_has_no_state_and_goes_wherever_its_network_goes(name):
    loss = make(name)
    assert not loss.state_dict()
    assert not list(loss.parameters())
    loss.load_state_dict({}, strict=True)
    x, labels = volume(3)
    wanted = loss(x, labels)
    assert torch.equal(loss.to(torch.float16).to("cpu").double().eval().train()(x, labels), wanted)
    losses = nn.ModuleList([loss, unifocal.DiceLoss()])
    assert len(list(losses.modules())) == 3
    assert torch.equal(nn.ModuleDict({"loss": loss})["loss"](x, labels), wanted)
    assert losses[0] is loss
    assert loss in {loss}  # hashable, equal to itself only
    assert loss != make(name)


@pytest.mark.parametrize("name", ALL)
def test_a_list_of_numbers_handed_in_is_not_shared(name):
    weights = [1.0, 2.0, 3.0]
    loss = make(name, class_weights=weights)
    x, labels = volume(3)
    before = loss(x, labels)
    weights[0] = 100.0
    assert torch.equal(loss(x, labels), before)


# torch's own tracer instantiates every custom Function and warns itself that this is deprecated
@pytest.mark.filterwarnings("ignore:.*Function.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("name", KINDS_FIRST)
def test_compiled_loss_is_the_loss(name):
    torch.compiler.reset()
    loss = make(name, ignore_index=255)
    x, labels = volume(3)
    labels[:, 0, 0] = 255
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    value, gradient = value_and_gradient(compiled, x, labels)
    wanted, wanted_gradient = value_and_gradient(loss, x, labels)
    torch.testing.assert_close(value, wanted, rtol=1e-13, atol=0)
    torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("name", ALL)
def test_no_graph_is_built_where_none_is_asked_for(name):
    x, labels = volume(3)
    assert not make(name)(x, labels).requires_grad
    with torch.no_grad():
        assert not make(name)(x.requires_grad_(), labels).requires_grad
    with torch.inference_mode():
        make(name)(x, labels)


@pytest.mark.parametrize(("channels", "activation"), [(3, "softmax"), (1, "sigmoid"), (2, "sigmoid")])
@pytest.mark.parametrize("name", ALL)
def test_float32_keeps_its_digits_where_a_prediction_is_nearly_perfect(name, channels, activation):
    """1 - p taken from p, or -log p from a log-softmax near 0, would leave no digit right at these logits.

    Tolerances: sums of a few hundred float32 numbers, and a power of their quotient.
    """
    rng = np.random.default_rng(5)
    labels = torch.tensor(rng.integers(0, max(channels, 2), size=(2, 9, 8)))
    loss = make(name, activation=activation)
    if channels == 1:
        inside = labels[:, None] == 1
    else:
        inside = labels[:, None] == torch.arange(channels).view(1, -1, 1, 1)
    logits = torch.tensor(rng.uniform(9, 14, size=tuple(inside.shape))).float() * torch.where(inside, 1, -1)
    value, gradient = value_and_gradient(loss, logits.clone().requires_grad_(), labels)
    exact, exact_gradient = value_and_gradient(loss, logits.double().requires_grad_(), labels)
    assert float(value) == pytest.approx(float(exact), rel=2e-4, abs=1e-9 if name == "combo" else 0)
    smallest = 1e-4 * float(exact_gradient.abs().max())
    torch.testing.assert_close(gradient.double(), exact_gradient, rtol=2e-3, atol=smallest)


def test_one_marked_channel_is_enough_to_ignore_a_voxel():
    labels = torch.tensor([[[0, 1, 255], [1, 1, 0]]])
    x = torch.tensor([[[0.3, -1.0, 2.0], [0.5, 0.1, -0.7]]])
    loss = unifocal.DiceCELoss(activation="sigmoid", ignore_index=255)
    assert loss(x, labels) == loss(x[..., :2], labels[..., :2])


@pytest.mark.parametrize(("dtype", "void"), [(torch.uint16, 65535), (torch.uint32, 4294967295), (torch.uint8, 255)])
def test_the_largest_value_of_an_unsigned_type_can_mark_ignored_voxels(dtype, void):
    x = torch.linspace(-1, 1, 12).reshape(1, 2, 6)
    labels = torch.tensor([[0, 1, 1, 0, void, void]], dtype=torch.int64).to(dtype)
    loss = unifocal.UnifiedFocalLoss(ignore_index=void)
    torch.testing.assert_close(loss(x, labels), loss(x[..., :4], labels[..., :4].to(torch.int64)))


def test_adaptive_focal_depends_on_ratios_of_voxel_weights_only():
    """A weight is no part of the mask: half of it everywhere changes neither size nor surface."""
    x, labels = volume(2, (5, 6))
    weights = torch.full(tuple(labels.shape), 0.5, dtype=torch.float64)
    loss = unifocal.AdaptiveFocalLoss(size=2.0, smoothness=3.0)
    torch.testing.assert_close(loss(x, labels, weights), loss(x, labels))


@pytest.mark.parametrize("truth", ["empty", "perfect", "wrong"])
@pytest.mark.parametrize("name", ALL)
def test_float16_probabilities_leave_the_network_a_finite_gradient(name, truth):
    """A slope of 1e7 has no place in float16; as inf it would be NaN behind a saturated softmax."""
    x = torch.tensor([20.0, -20.0]).view(1, 2, 1, 1).expand(1, 2, 8, 8).half().clone()
    if truth == "perfect":
        x[:, :, :2] *= -1
    labels = torch.zeros(1, 8, 8, dtype=torch.int64)
    labels[:, :2] = int(truth != "empty")
    x.requires_grad_()
    loss = make(name, activation="none")
    gradient = torch.autograd.grad(loss(x.softmax(1), labels), x)[0]
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", [name for name in ALL if name != "adaptive-focal"])
def test_a_class_ruled_out_by_a_logit_of_minus_infinity_is_as_if_it_were_very_unlikely(name):
    x, labels = volume(3, (4, 5))
    labels = labels.clamp_max(1)
    ruled_out, unlikely = x.detach().clone(), x.detach().clone()
    ruled_out[:, 2], unlikely[:, 2] = -torch.inf, -600.0
    value, gradient = value_and_gradient(make(name), ruled_out.requires_grad_(), labels)
    expected, expected_gradient = value_and_gradient(make(name), unlikely.requires_grad_(), labels)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, expected_gradient)


def test_what_stands_at_weight_0_does_not_matter_be_it_nan_or_no_class_at_all():
    x, labels = volume(3, (4, 5))
    weights = torch.ones(tuple(labels.shape))
    weights[0, 1] = 0
    loss = unifocal.UnifiedFocalLoss()
    expected = loss(x, labels, weights)
    odd = labels.clone()
    odd[0, 1] = 255
    assert loss(x, odd, weights) == expected
    soft = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).double()
    soft[0, :, 1] = math.nan
    torch.testing.assert_close(loss(x, soft, weights), expected)
    p = x.detach().softmax(1)
    expected = unifocal.UnifiedFocalLoss(activation="none")(p, labels, weights)
    p[0, :, 1] = math.nan
    assert unifocal.UnifiedFocalLoss(activation="none")(p, labels, weights) == expected


def test_adaptive_focal_takes_the_probabilities_of_two_independent_sigmoids():
    x, labels = volume(2, (4, 5))
    given = unifocal.AdaptiveFocalLoss(activation="none")(x.sigmoid(), labels)
    torch.testing.assert_close(given, unifocal.AdaptiveFocalLoss()(x, labels))


def test_a_class_cannot_be_common_and_rare():
    with pytest.raises(ValueError, match=r"common or rare.*\(0, 1\)"):
        unifocal.UnifiedFocalLoss(rare_classes=[0, 1])


def test_a_loss_from_a_module_with_postponed_annotations_is_checked_alike():
    code = """
from __future__ import annotations
from unifocal.losses.arguments import within
from unifocal.losses.base import SegmentationLoss, loss
from unifocal.terms import class_mean, tversky_loss

@loss
class Mine(SegmentationLoss):
    delta: float = within("(0, 1)", default=0.7)
    wants = ("tp", "fp", "fn")

    def equation(self, s):
        return class_mean(s, tversky_loss(s, self.delta))
"""
    names = {"__name__": "unifocal.losses.base"}  # where the names of the annotations are found
    exec(code, names)
    x, labels = volume(3, (4, 5))
    torch.testing.assert_close(names["Mine"](delta=0.6)(x, labels), unifocal.TverskyLoss(delta=0.6)(x, labels))  # type: ignore[operator]
    with pytest.raises(ValueError, match="delta"):
        names["Mine"](delta=2)  # type: ignore[operator]
