"""The authors' own numbers: every canonical golden entry and A-FL's training steps, in value and gradient."""

import json
import math
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import unifocal

# The same rule as the fixture `shared`: parameters are collected before any fixture runs.
GOLDEN = Path(os.environ.get("UNIFOCAL_SHARED", Path(__file__).parents[3] / "shared")) / "golden"
MANIFEST: dict[str, Any] = (
    json.loads((GOLDEN / "manifest.json").read_text()) if (GOLDEN / "manifest.json").is_file() else {"entries": []}
)
CANONICAL = {e["id"]: e for e in MANIFEST["entries"] if e["conformance"] == "canonical"}
STEPS = {e["id"]: e for e in MANIFEST["entries"] if e["id"].startswith("A-FL/train_step/")}
LESIONS = {i: e for i, e in CANONICAL.items() if i.startswith("canonical/a_fl/")}
SEGMENTATIONS = {i: e for i, e in CANONICAL.items() if i not in LESIONS}
SATURATED = {"2d_binary_perfect", "2d_binary_hard_errors"}  # there only the value counts, and that all is finite

# The manifest's tolerances: the originals clip at 1e-7 and smooth by 1e-6 or 1e-7, and some ran in float32 only.
TOLERANCE: dict[str, dict[str, float]] = {
    "float64": {"rtol": 1e-6, "atol": 1e-8, "gradient": 1e-7},
    "float32": {"rtol": 1e-4, "atol": 0.0, "gradient": 1e-5},
}

absent = [pytest.param("none", marks=pytest.mark.skip(reason="no shared/golden here; set UNIFOCAL_SHARED"))]


@cache
def arrays(file: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / file) as z:
        return {key: z[key] for key in z.files}


# --- the authors' functions in our words ---------------------------------------------------------------------------


class Arguments(dict[str, Any]):
    """The parameters of an entry; each must be used, so that no unknown one is silently dropped."""

    def used(self, name: str, default: Any = None) -> Any:
        return self.pop(name, default)


def same_for_all(alpha: Any, classes: int) -> Any:
    """The original code multiplies every class by a scalar alpha."""
    return [alpha] * classes if isinstance(alpha, float) else alpha


def lam_and_factor(a: Arguments, default: float | None) -> tuple[float, float]:
    """Their weight is on the Tversky part: lam = 1 - weight; None is the plain sum, twice lam = 0.5."""
    if "lam" in a:
        return a.used("lam"), 1.0
    weight = a.used("weight", default)
    return (0.5, 2.0) if weight is None else (1 - weight, 1.0)


def ours(entry: dict[str, Any], classes: int) -> tuple[unifocal.SegmentationLoss, float]:
    """Our loss for a golden entry, and the factor it is to be multiplied by."""
    a = Arguments(entry["params"])
    keras = entry["group"] == "keras"
    name, arguments, factor = _translated(entry["function"], a, keras, classes)
    assert not a, f"untranslated parameters {dict(a)} of {entry['id']}"
    return unifocal.build(name, activation="none", **arguments), factor


def _translated(function: str, a: Arguments, keras: bool, classes: int) -> tuple[str, dict[str, Any], float]:
    both = {"delta": a.used("delta"), "gamma": a.used("gamma")}
    given = {key: value for key, value in both.items() if value is not None}
    match function:
        case "cross_entropy" | "dice_loss" | "tversky_loss" | "cosine_tversky_loss":
            name = {"cross_entropy": "cross-entropy"}.get(function, function.removesuffix("_loss").replace("_", "-"))
            return name, given, 1.0
        case "focal_tversky_loss" | "focal_dice_loss":
            exponent = both["gamma"] if both["gamma"] is not None else a.used("gamma_fd", 0.75)
            return "focal-tversky", {"delta": both["delta"] or 0.7, "exponent": exponent}, 1.0
        case "focal_loss":
            gamma = both["gamma"] if both["gamma"] is not None else a.used("gamma_f", 2.0)
            return "focal", {"gamma": gamma, "alpha": same_for_all(a.used("alpha"), classes)}, 1.0
        case "combo_loss":
            alpha, beta = a.used("alpha"), a.used("beta")
            return "combo", {"alpha": alpha, "beta": 1 - beta if keras and beta is not None else beta}, 1.0
        case "mixed_focal_loss" | "hybrid_focal_loss":
            lam, factor = lam_and_factor(a, None)
            exponents = [both["gamma"], a.used("gamma_fd"), a.used("gamma_ft")]
            return (
                function.removesuffix("_loss").replace("_", "-"),
                {
                    "lam": lam,
                    "alpha": same_for_all(a.used("alpha"), classes),
                    "gamma": a.used("gamma_f", 2.0),
                    "delta": both["delta"] or 0.7,
                    "exponent": next((g for g in exponents if g is not None), 0.75),
                },
                factor,
            )
        case "sym_unified_focal_loss" | "asym_unified_focal_loss":
            lam, factor = lam_and_factor(a, 0.5)
            return (
                ("symmetric-" if function.startswith("sym_") else "") + "unified-focal",
                {"lam": lam, **given},
                factor,
            )
        case "unified_focal_loss":  # June 2021, asymmetric; its defaults are the paper's optimum
            lam, factor = lam_and_factor(a, 0.5)
            return "generalised-focal", {"lam": lam, **given}, factor
        case "symmetric_focal_loss" | "asymmetric_focal_loss":
            return function.removesuffix("_loss").replace("_", "-"), given, 1.0
        case "symmetric_focal_tversky_loss" | "asymmetric_focal_tversky_loss":
            return function.removesuffix("_loss").replace("_", "-"), given, 1.0
    raise AssertionError(f"no loss of ours for {function!r}")


# --- comparing -----------------------------------------------------------------------------------------------------


def channels_first(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 1)))


def assert_is(entry: dict[str, Any], value: Tensor, gradient: Tensor, key: str) -> None:
    """Value and gradient are those of the entry, at the manifest's tolerance for the precision it was computed in."""
    precision = "float64" if entry.get("loss_float64") is not None else "float32"
    tolerance = TOLERANCE[precision]
    wanted = entry[f"loss_{precision}"]
    assert math.isclose(value.item(), wanted, rel_tol=tolerance["rtol"], abs_tol=tolerance["atol"]) or (
        abs(value.item() - wanted) <= tolerance["atol"] + tolerance["rtol"] * abs(wanted)
    ), f"{entry['id']}: {value.item()} instead of {wanted}"
    assert gradient.isfinite().all()
    stored = arrays(entry["file"]).get(key)
    if entry["case"] in SATURATED or stored is None or not np.isfinite(stored).all():
        return
    if entry.get("grad_dtype") == "float32":
        tolerance = TOLERANCE["float32"]
    actual = gradient.movedim(1, -1).numpy().reshape(stored.shape)
    np.testing.assert_allclose(actual, stored, rtol=0, atol=tolerance["gradient"])


def test_golden_material_is_as_long_as_its_manifest_says(shared):
    """Every canonical id is one that the tests below run, and there are the hundreds that there should be."""
    listed = [e["id"] for e in json.loads((shared / "golden" / "manifest.json").read_text())["entries"]
              if e["conformance"] == "canonical"]  # fmt: skip
    assert len(listed) == len(set(listed)) >= 200
    assert set(listed) == set(SEGMENTATIONS) | set(LESIONS)
    assert len(LESIONS) >= 3
    assert len(STEPS) >= 3


def test_every_canonical_entry_has_a_loss_of_ours(shared):
    for entry in SEGMENTATIONS.values():
        ours(entry, MANIFEST["cases"][entry["case"]]["shape"][-1])


@pytest.mark.parametrize("identity", sorted(SEGMENTATIONS) or absent)
def test_canonical_entry(identity):
    entry = SEGMENTATIONS[identity]
    inputs = arrays("inputs.npz")
    assert entry["input"] == "probs"
    p = channels_first(inputs[f"{entry['case']}/probs"]).requires_grad_()
    one_hot = channels_first(inputs[f"{entry['case']}/onehot"])
    loss, factor = ours(entry, p.shape[1])
    value = factor * loss(p, one_hot.argmax(1))
    (gradient,) = torch.autograd.grad(value, p)
    assert_is(entry, value.detach(), gradient, f"{identity}/grad")
    assert value.item() == pytest.approx(factor * loss(p, one_hot).item(), rel=1e-13)


@pytest.mark.parametrize("identity", sorted(i for i, e in SEGMENTATIONS.items() if e["group"] != "keras") or absent)
def test_canonical_value_from_logits(identity):
    """Logits give the value of their softmax, which is the everyday way in."""
    entry = SEGMENTATIONS[identity]
    if entry["case"] in SATURATED:
        pytest.skip("the stored probabilities are exactly 0 and 1, those of the logits are not")
    inputs = arrays("inputs.npz")
    logits, probabilities = (channels_first(inputs[f"{entry['case']}/{key}"]) for key in ("logits", "probs"))
    torch.testing.assert_close(logits.softmax(1), probabilities, rtol=0, atol=1e-12)
    loss, factor = ours(entry, logits.shape[1])
    loss.activation = "softmax"
    value = factor * loss(logits, channels_first(inputs[f"{entry['case']}/onehot"]).argmax(1))
    np.testing.assert_allclose(value.item(), entry["loss_float64"], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("identity", sorted(LESIONS) or absent)
def test_adaptive_focal_with_the_weights_of_the_paper(identity):
    entry = LESIONS[identity]
    step = arrays("afl_original.npz")
    logits = channels_first(step[f"A-FL/train_step/{entry['case']}/logits"][None]).double().requires_grad_()
    mask = torch.from_numpy(step[f"A-FL/train_step/{entry['case']}/mask"][None])
    loss = unifocal.AdaptiveFocalLoss(order=entry["params"]["class_weight_order"])
    value = loss(logits, mask)
    (gradient,) = torch.autograd.grad(value, logits)
    assert_is(entry, value.detach(), gradient, f"{identity}/grad")


@pytest.mark.parametrize("identity", sorted(STEPS) or absent)
def test_adaptive_focal_training_step_of_the_authors(identity):
    """Their loop, weights as it applies them; where it gives NaN (empty and full masks) ours is finite."""
    entry = STEPS[identity]
    step = arrays(entry["file"])
    logits = channels_first(step[f"{identity}/logits"][None]).double().requires_grad_()
    mask = torch.from_numpy(step[f"{identity}/mask"][None])
    value = unifocal.AdaptiveFocalLoss(order="original")(logits, mask)
    (gradient,) = torch.autograd.grad(value, logits)
    theirs = entry.get("loss_float32")
    if theirs is None or not math.isfinite(theirs):
        assert value.isfinite()
        assert gradient.isfinite().all()
        return
    assert_is(entry, value.detach(), gradient, f"{identity}/grad")
    exact = entry.get("loss_float64_with_closed_form_weights")
    if exact is not None:
        # Their gamma and weights are float32 numbers, ours float64: 1e-7 of relative difference each.
        np.testing.assert_allclose(value.item(), exact, rtol=1e-6)
