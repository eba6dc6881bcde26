"""Optuna's part, with trainings that are a formula: it finds, it repeats itself, it cuts short what lags behind."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from unifocal.lab.tuning import study as module
from unifocal.lab.tuning.space import parse_space
from unifocal.lab.tuning.study import FoldStudy, Pruned
from unifocal.lab.tuning.trials import Spot, _choose

SPACE = "tversky:delta=0.1..0.9,dice,focal:gamma=0.1..10:log"


def score(candidate, values):
    """Tversky is best, at 0.35; nothing else comes near it."""
    if candidate.name == "tversky":
        return 0.9 - (values["delta"] - 0.35) ** 2
    return 0.5 if candidate.name == "dice" else 0.3 + 0.01 * values["gamma"]


def open_study(folder, fold=0, seed=0, epochs=9, text=SPACE):
    module._storage.cache_clear()  # as in another process
    return FoldStudy(folder / "journal", fold, parse_space(text), seed, epochs)


def searched(folder, trials, seed=0, lost=()):
    """(loss, values) of each trial, each in a process of its own as it were; some lose their first answer."""
    found = []
    for trial in range(trials):
        if trial in lost:
            open_study(folder, seed=seed).ask(trial)
        study = open_study(folder, seed=seed)
        number, candidate, values = study.ask(trial)
        found.append((candidate.name, dict(values)))
        study.tell(number, score(candidate, values))
        study.tell(number, 0.0)  # told twice, the first counts
    return found


def test_the_better_loss_and_its_parameter_are_found(tmp_path):
    found = searched(tmp_path, 40)
    late = [values["delta"] for name, values in found[20:] if name == "tversky"]
    assert len(late) >= 12  # a third of it by chance alone
    best = max(found, key=lambda pair: score(parse_space(SPACE).named(pair[0]), pair[1]))
    assert best[0] == "tversky" and abs(best[1]["delta"] - 0.35) < 0.06


def test_it_repeats_itself_to_the_bit_whatever_is_lost_on_the_way(tmp_path):
    straight, interrupted, other = (tmp_path / name for name in ("straight", "interrupted", "other"))
    for folder in (straight, interrupted, other):
        folder.mkdir()
    first = searched(straight, 16)
    assert searched(interrupted, 16, lost=(3, 12)) == first
    assert searched(other, 16, seed=1) != first


def test_what_has_been_tried_is_drawn_again(tmp_path):
    text = "tversky:delta=0.1/0.3/0.5/0.9"

    def labels(folder, lost):
        folder.mkdir()
        tried = ["tversky"]
        for trial in range(1, 6):
            for _ in range(1 + lost):
                study = open_study(folder, text=text)
                number, candidate, values = study.ask(trial, tried)
            study.tell(number, values["delta"])
            tried.append(candidate.loss(values).label)
        return tried

    tried = labels(tmp_path / "straight", lost=0)
    assert len(set(tried[:5])) == 5  # the four choices are not the default
    assert tried[5] in tried[:5]  # nothing new is left
    assert labels(tmp_path / "interrupted", lost=1) == tried


def test_a_trial_asks_for_what_its_fold_has_not_tried(tmp_path):
    space, spot = parse_space("tversky:delta=0.1..0.9,dice"), Spot("0" * 8, 0, 5)
    for fold, trial, delta in ((0, 2, 0.5), (0, 3, 0.6), (1, 2, 0.8)):
        folder = tmp_path / "runs" / Spot("0" * 8, fold, trial).name
        folder.mkdir(parents=True)
        tried = {"candidate": "tversky", "values": {"delta": delta}, "loss": f"tversky:delta={delta}", "number": trial}
        (folder / "trial.json").write_text(json.dumps(tried))
    asked = {}

    def ask(trial, tried):
        asked[trial] = set(tried)
        return 7, space.candidates[0], {"delta": 0.3}

    study: Any = SimpleNamespace(ask=ask)
    plan: Any = SimpleNamespace(space=space)
    assert _choose(study, plan, spot, tmp_path).loss == "tversky:delta=0.3"
    assert asked == {5: {"tversky", "dice", "tversky:delta=0.5", "tversky:delta=0.6"}}


def test_defaults_are_known_to_the_study_once(tmp_path):
    space = parse_space(SPACE)
    for _ in range(2):
        study = open_study(tmp_path)
        for trial, candidate in enumerate(space.candidates):
            study.add(trial, candidate, 0.5, [0.1] * 9)
    known = study.study.get_trials()
    assert [trial.params["loss"] for trial in known] == ["tversky", "dice", "focal"]
    assert known[0].params["tversky delta"] == 0.7


def curve(study, trial, dice):
    """Show a trial's epochs one after the other; how many it was let have."""
    number, _, _ = study.ask(trial)
    judge = study.judge(number)
    for epoch, value in enumerate(dice):
        try:
            judge({"epoch": epoch, "validation_dice": value})
        except Pruned:
            study.tell(number, None)
            return epoch + 1
    study.tell(number, dice[-1])
    return len(dice)


def test_what_lags_behind_is_cut_short_but_not_at_once(tmp_path):
    study = open_study(tmp_path, epochs=9)
    rising = [0.1 * epoch for epoch in range(1, 10)]
    poor = [0.01] * 9
    assert [curve(study, trial, poor if trial == 1 else rising) for trial in range(5)] == [9] * 5  # the first are whole
    assert curve(study, 5, poor) == 4  # after a third of the epochs
    assert curve(study, 6, rising) == 9
    assert curve(study, 7, [0.99, *poor[1:]]) == 9  # its best counts: it need not rise all the time


def test_a_trial_is_not_cut_short_after_its_last_epoch(tmp_path):
    study = open_study(tmp_path, epochs=4)
    for trial in range(5):
        curve(study, trial, [0.1, 0.2, 0.3, 0.9])
    assert curve(study, 5, [0.1, 0.2, 0.3, 0.3]) == 4
    assert study.study.get_trials()[-1].state.name == "COMPLETE"


def test_a_trial_taken_up_again_is_judged_as_before(tmp_path):
    study = open_study(tmp_path)
    for trial in range(5):
        curve(study, trial, [0.5] * 9)
    number, _, _ = study.ask(5)
    judge = study.judge(number)
    for epoch in range(3):
        judge({"epoch": epoch, "validation_dice": 0.6 if epoch == 0 else 0.1})
    again = open_study(tmp_path).judge(number)
    again({"epoch": 2, "validation_dice": 0.1})  # done again after an interruption
    again({"epoch": 3, "validation_dice": 0.1})
    study = open_study(tmp_path)
    study.tell(number, 0.7)
    assert study.study.best_value == 0.7


def test_choices_of_anything(tmp_path):
    text = "focal:alpha=[0.25,0.75]/[0.5,0.5]/0.3:gamma=1..2"
    seen = set()
    for trial in range(12):
        study = open_study(tmp_path, text=text)
        number, candidate, values = study.ask(trial)
        candidate.loss(values).build()
        seen.add(str(values["alpha"]))
        study.tell(number, 0.5)
    assert seen == {"[0.25, 0.75]", "[0.5, 0.5]", "0.3"}


def test_importances_tell_what_matters_from_what_does_not(tmp_path):
    text = "unified-focal:delta=0.1..0.9:gamma=0.1..0.9"
    study = open_study(tmp_path, text=text)
    for trial in range(40):
        number, _, values = study.ask(trial)
        study.tell(number, -abs(values["delta"] - 0.4))
    shares = study.importances(study.space.candidates[0])
    assert shares["delta"] > 2 * shares["gamma"] and sum(shares.values()) == pytest.approx(1)
