"""The public names, and what each of them shows a reader."""

import inspect

import pytest

import unifocal

NAMES = """
AdaptiveFocalLoss AsymmetricFocalLoss AsymmetricFocalTverskyLoss AsymmetricSimilarityLoss ComboLoss CosineTverskyLoss
CrossEntropyLoss DiceCELoss DiceFocalLoss DiceLoss FocalLoss FocalTverskyLoss HybridFocalLoss JaccardLoss
SegmentationLoss SymmetricFocalLoss SymmetricFocalTverskyLoss SymmetricUnifiedFocalLoss TverskyLoss UnifiedFocalLoss
DeepSupervision Identity available build engines identities
""".split()

REGISTERED = {
    "cross-entropy": "CrossEntropyLoss",
    "focal": "FocalLoss",
    "dice": "DiceLoss",
    "jaccard": "JaccardLoss",
    "tversky": "TverskyLoss",
    "asymmetric-similarity": "AsymmetricSimilarityLoss",
    "focal-tversky": "FocalTverskyLoss",
    "cosine-tversky": "CosineTverskyLoss",
    "combo": "ComboLoss",
    "dice-ce": "DiceCELoss",
    "dice-focal": "DiceFocalLoss",
    "mixed-focal": "HybridFocalLoss",
    "hybrid-focal": "HybridFocalLoss",
    "symmetric-focal": "SymmetricFocalLoss",
    "asymmetric-focal": "AsymmetricFocalLoss",
    "symmetric-focal-tversky": "SymmetricFocalTverskyLoss",
    "asymmetric-focal-tversky": "AsymmetricFocalTverskyLoss",
    "symmetric-unified-focal": "SymmetricUnifiedFocalLoss",
    "unified-focal": "UnifiedFocalLoss",
    "generalised-focal": "UnifiedFocalLoss",
    "adaptive-focal": "AdaptiveFocalLoss",
}

LOSSES = [getattr(unifocal, name) for name in NAMES if name.endswith("Loss") and name != "SegmentationLoss"]

SHARED = [
    "activation",
    "ignore_index",
    "class_weights",
    "include_background",
    "batch",
    "absent",
    "smooth",
    "engine",
    "reduction",
]


def test_public_names_are_exactly_these():
    assert sorted(unifocal.__all__) == sorted(NAMES)
    assert unifocal.__version__


def test_registered_names_are_exactly_these():
    assert {name: type(unifocal.build(name)).__name__ for name in unifocal.available()} == REGISTERED
    unifocal.available().clear()
    assert len(unifocal.available()) == len(REGISTERED)


def test_every_public_loss_has_a_name():
    assert {type(unifocal.build(name)) for name in unifocal.available()} == set(LOSSES)


@pytest.mark.parametrize("cls", LOSSES)
def test_arguments_are_keywords_with_defaults_and_include_the_shared_ones(cls):
    parameters = inspect.signature(cls).parameters.values()
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters)
    assert all(p.default is not inspect.Parameter.empty for p in parameters)
    assert {p.name for p in parameters} >= set(SHARED)
    assert all(p.annotation is not inspect.Parameter.empty for p in parameters)


@pytest.mark.parametrize("cls", LOSSES)
def test_call_takes_logits_labels_and_voxel_weights(cls):
    assert list(inspect.signature(cls.forward).parameters) == ["self", "logits", "labels", "voxel_weights"]


@pytest.mark.parametrize("cls", LOSSES)
def test_docstring_states_the_equation_every_own_argument_and_the_source(cls):
    text = inspect.cleandoc(cls.__doc__)
    assert any(line.strip().startswith("L = ") for line in text.splitlines())
    assert any(line.startswith("Source: ") for line in text.splitlines())
    inherited = {name for base in cls.__mro__[1:] for name in getattr(base, "__annotations__", {})}
    for name, annotation in cls.__annotations__.items():
        if name not in inherited and "ClassVar" not in str(annotation):
            assert name in text, f"{cls.__name__} does not explain {name}"


def test_shared_arguments_are_explained_once():
    text = unifocal.SegmentationLoss.__doc__ or ""
    assert all(argument in text for argument in SHARED)


@pytest.mark.parametrize("cls", LOSSES)
def test_a_loss_is_an_equation_and_overrides_nothing_finished(cls):
    """Only the hooks are written by a loss; reading, summing and reducing are the base's."""
    allowed = {"equation", "focus", "from_gamma", "__post_init__"}
    finished = {
        name
        for name, member in vars(unifocal.SegmentationLoss).items()
        if callable(member) and not (name.startswith("__") and name.endswith("__"))
    }
    assert not (set(vars(cls)) & finished) - allowed
