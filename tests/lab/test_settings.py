"""Settings are checked before anything starts, and a run's identity changes with everything its numbers depend on."""

import re
from typing import Any

import pytest
from other_values import BESIDE, OTHERS

from unifocal.lab.choices import LossChoice, NetworkChoice
from unifocal.lab.errors import LabError
from unifocal.lab.runs import Run
from unifocal.lab.settings import Settings, make_settings, names_of, section_of

DICE = LossChoice(name="dice")
UNET = NetworkChoice(name="unet")


def make_run(loss=DICE, network=UNET, fold=0, seed=0, data="d", split="s", **settings):
    return Run(loss, network, fold, seed, make_settings(**settings), data, split)


def test_losses_carry_their_arguments():
    losses = LossChoice.parse_list(
        "unified-focal:gamma=0.2:delta=0.7, dice,focal:alpha=[0.25,0.75]:gamma=2,adaptive-focal:order=original"
    )
    assert [loss.name for loss in losses] == ["unified-focal", "dice", "focal", "adaptive-focal"]
    assert losses[0].arguments == {"gamma": 0.2, "delta": 0.7}
    assert losses[0].label == "unified-focal:delta=0.7:gamma=0.2"
    assert losses[2].arguments == {"alpha": [0.25, 0.75], "gamma": 2}
    assert losses[3].arguments == {"order": "original"}
    assert LossChoice.parse_list("dice:include_background=false")[0].arguments == {"include_background": False}


def test_the_label_reads_back_as_the_same_loss():
    loss = LossChoice.parse("focal:alpha=[0.25, 0.75]:gamma=1e-2")
    assert " " not in loss.label
    assert LossChoice.parse_list(loss.label) == (loss,)


@pytest.mark.parametrize("text", ["", " , ", "dice:gamma", "dice:=2", "dice:gamma=", "focal:gamma=1:gamma=2"])
def test_malformed_losses_are_refused(text):
    with pytest.raises(LabError):
        LossChoice.parse_list(text)


def test_a_misspelt_loss_or_argument_names_the_nearest():
    with pytest.raises(LabError, match="unified-focal"):
        LossChoice.parse("unifed-focal").build()
    with pytest.raises(LabError, match="gamma"):
        LossChoice.parse("unified-focal:gama=0.2").build()


@pytest.mark.parametrize(
    "mistake",
    [
        {"folds": 1},
        {"epochs": 0},
        {"size": 0},
        {"width": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"validation": 1.0},
        {"seed": -1},
        {"device": "tpu"},
        {"layout": "voc"},
        {"epoch": 3},
        {"losses": [DICE, DICE]},
        {"losses": []},
    ],
)
def test_impossible_settings_are_refused_by_name(mistake):
    with pytest.raises(LabError, match=next(iter(mistake))):
        make_settings(**{"losses": [DICE], **mistake})


WRONG = {
    "losses": 3,
    "networks": 3,
    "protocol": "generalised-focal/kits",
    "layout": "busl",
    "exclude": 3.5,
    "validation": "1",
    "size": "8,0",
    "crop": "1,2,3,4",
    "spacing": "1,-1",
    "clip": "3",
    "clip_percentiles": "9,1",
    "shard": "4/3",
    "groups": 3,
    "splits": 3,
    "sequences": 3.5,
    "target": 3.5,
    "slurm": 3.5,
    "address": 3,
}


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_wrong_value_is_told_with_what_was_expected_and_what_came(name):
    """In the lab's own words, whatever kind of setting it is."""
    wrong = WRONG.get(name, "-1.5e")
    with pytest.raises(LabError) as caught:
        make_settings(**{name: wrong, **BESIDE.get(name, {})})
    [told] = str(caught.value).splitlines()[1:]
    assert re.match(rf"  {name}: expected .+; got {re.escape(repr(wrong))}", told), told
    assert "Input should" not in told and "a valid" not in told


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("folds", "a whole number from 2 up; got 'x'. As in folds=5"),
        ("validation", "a number above 0 and below 1; got 'x'. As in validation=0.2"),
        ("patch_foreground", "a number from 0 to 1;"),
        ("patch_overlap", "a number from 0 up and below 1;"),
        ("width", "a whole number from 1 up, or none; got 'x'. Channels of"),
        ("patch", "1 to 3 whole numbers from 1 up, with commas between them, or none;"),
        ("clip", "2 numbers, with a comma between them, or none;"),
        ("schedule", "one of poly, plateau, cosine, constant;"),
        ("augment", "true or false; got 'x'. As in augment=true"),
    ],
)
def test_what_is_expected_is_read_off_the_type(name, words):
    with pytest.raises(LabError, match=re.escape(f"  {name}: expected {words}")):
        make_settings(**{name: "x"})


def test_every_mistake_is_told_at_once():
    with pytest.raises(LabError) as caught:
        make_settings(folds=1, size="x", spacing=2, clip="1,2", clip_percentiles="3,4", schedule="ploy")
    told = str(caught.value)
    parts = ["folds: ", "size: ", "size and spacing exclude", "clip and clip_percentiles exclude", "mean 'poly'"]
    assert all(part in told for part in parts) and len(told.splitlines()) == 6, told


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"slurm": "partition=gpu"}, "slurm says something to SLURM alone, and engine is local"),
        ({"gpus": 1}, "gpus says something to Ray and SLURM alone, and engine is local"),
        ({"address": "head:6379", "engine": "slurm"}, "address says something to Ray alone, and engine is slurm"),
    ],
)
def test_what_only_another_engine_would_read_is_refused(given, words):
    with pytest.raises(LabError, match=re.escape(words)):
        make_settings(**given)


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        make_settings(losses=[DICE]).folds = 3


CHANGES: list[dict[str, Any]] = [
    {"loss": LossChoice(name="dice", arguments={"smooth": 1e-3})},
    {"loss": LossChoice(name="tversky")},
    {"network": NetworkChoice(name="vnet")},
    {"network": NetworkChoice(name="unet", arguments={"width": 8})},
    {"fold": 1},
    {"seed": 1},
    {"data": "other"},
    {"split": "other"},
    *(
        {name: value}
        for name, value in OTHERS.items()
        if name == "colour" or section_of(name) in ("Preparation", "Patches", "Network", "Training")
        if name not in ("clip_percentiles", "spacing")  # exclude others
    ),
    {"clip_percentiles": "1,99"},
    {"spacing": "2"},
]


def test_the_identity_changes_with_each_setting_that_matters():
    names = [make_run(**change).name for change in [{}, *CHANGES]]
    assert len(CHANGES) > 30
    # The hash alone must differ: readable parts of the name are no identity.
    assert len({name.rsplit("-", 1)[1] for name in names}) == len(names)
    assert make_run().name == make_run().name


@pytest.mark.parametrize("same", [{"device": "cpu"}, {"threads": 1}, {"workers": 2}, {"folds": 3}, {"split_seed": 1}])
def test_the_identity_ignores_where_it_runs(same):
    assert make_run(**same).name == make_run().name


def test_every_setting_was_thought_about():
    """A new setting belongs to the identity, or is named here with its reason."""
    elsewhere = {
        "protocol",  # all that it sets is in
        "losses", "networks", "seeds",  # the run's own are in
        "folds", "validation", "groups", "splits", "split_seed", "division",  # by the fingerprint of the split
        "layout", "exclude", "sequences", "target", "require_target",  # by the fingerprint of the data
        *names_of("Machine"),  # see the module's docstring
    }  # fmt: skip
    assert set(Settings.model_fields) - elsewhere <= set(make_run().identity())


def test_a_folder_name_is_safe_whatever_the_arguments():
    loss, network = LossChoice.parse("focal:alpha=[0.25,0.75]"), NetworkChoice.parse("unet:width=../x")
    name = make_run(loss=loss, network=network).name
    assert name.startswith("unet_width=.._x-focal_alpha=_0.25_0.75_-fold0-seed0-")
    assert "/" not in name and ":" not in name and " " not in name
