"""Settings are checked before anything starts, and a run's identity changes with everything its numbers depend on."""

from typing import Any

import pytest
from other_values import OTHERS

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
    name = make_run(loss=LossChoice.parse("focal:alpha=[0.25,0.75]:activation=../x")).name
    assert name.startswith("unet-focal_activation=.._x_alpha=_0.25_0.75_-fold0-seed0-")
    assert "/" not in name and ":" not in name and " " not in name
