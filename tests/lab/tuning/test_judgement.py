"""What is made of a search's trials: nothing from nothing, something from something, and never a look at the test."""

import json
import shlex

import numpy as np
import pandas as pd
import pytest
from made_up import AGAIN, CASES, FOLDS, made_up

from unifocal.lab.errors import LabError
from unifocal.lab.tuning.judgement import judge, settle, table_of
from unifocal.lab.tuning.space import Options, Range
from unifocal.lab.tuning.words import conclusion, confirmation, lines, record_of, write_words

SPACE = "tversky:delta=0.2..0.9"
DELTAS = [0.3, 0.4, 0.5, 0.8]


def noise(seed):
    """Cases of their own difficulty, trials with luck in each case and in each fold, and no better than each other."""
    draws = np.random.default_rng(seed)
    case, luck = draws.normal(0.6, 0.12, CASES), draws.normal(0, 0.05, (FOLDS, 20, CASES))
    training = draws.normal(0, 0.02, (FOLDS, 20))
    return lambda fold, trial, name, values, n: case[n] + luck[fold, trial, n] + training[fold, trial]


def with_gain(seed, size):
    """The same, but the loss is better the nearer delta is to 0.4."""
    plain = noise(seed)
    return lambda fold, trial, name, values, n: (
        plain(fold, trial, name, values, n) - size * abs(values.get("delta", 0.7) - 0.4) / 0.3
    )


def judged(folder, rule, text=SPACE, values=None):
    values = values or [[{"delta": delta} for delta in DELTAS]] * FOLDS
    experiment, plan = made_up(folder, text, values, rule)
    return judge(experiment, plan, len(plan.space.candidates) + len(values[0]))


def told(judgement):
    [gain] = judgement.gains
    return conclusion(gain, judgement, several=False)


@pytest.mark.slow
def test_a_search_among_equals_gains_nothing_though_its_winners_seem_to(out):
    """The winners always seem better, by the cases that chose and by the luck that they had in training.

    They are compared by neither: trained again, on cases that chose nothing, they are no better.
    """
    gains, seeming, said = [], [], []
    for seed in range(12):
        judgement = judged(out / str(seed), noise(seed))
        gains.append(judgement.gains[0].difference)
        seeming += [winner.trial.score - winner.default.score for winner in judgement.winners]
        said.append(told(judgement))
    assert np.mean(seeming) > 0.02
    assert abs(np.mean(gains)) < 3 * np.std(gains) / np.sqrt(len(gains))
    assert sum(text.startswith(("Tuning paid", "Tuning did harm")) for text in said) <= 1
    assert sum("not distinguishable" in text or "nothing better" in text for text in said) >= 8


def test_a_gain_that_is_there_is_found(out):
    assert all(told(judged(out / str(seed), with_gain(seed, 0.2))).startswith("Tuning paid") for seed in range(4))


def test_the_planted_optimum_is_recommended_with_its_scatter(tmp_path):
    judgement = judged(tmp_path, with_gain(1, 0.3))
    assert judgement.loss.label == "tversky:delta=0.4"
    [delta] = judgement.settled
    assert len(delta.values) == FOLDS and set(delta.values) <= {0.3, 0.4, 0.5}
    gain = judgement.gains[0]
    assert gain.low > 0.1 and gain.units == CASES and gain.folds == FOLDS
    assert gain.difference == pytest.approx(gain.tuned - gain.default)


def test_test_cases_choose_nothing(out):
    """With other scores on the test cases, the same trials win and the same loss is recommended."""
    plain = noise(3)

    def turned(fold, trial, name, values, n):
        return plain(fold, trial, name, values, n) if n % FOLDS != fold else 0.5 - 0.1 * trial

    honest, other = judged(out / "a", plain), judged(out / "b", turned)
    assert [w.trial.spot.trial for w in honest.winners] == [w.trial.spot.trial for w in other.winners]
    assert honest.loss == other.loss


@pytest.mark.parametrize(("best", "means"), [(0.8, "tversky 0.680, dice 0.620"), (0.7, "tversky 0.620, dice 0.620")])
def test_a_tie_is_called_one_and_what_decided_is_said(tmp_path, best, means):
    def rule(fold, trial, name, values, n):
        won = ((0, 1), (2, 3))[name == "dice"]
        if fold in won:
            return best if name == "tversky" else 0.7
        return 0.5 if fold < 4 else 0.5 + 0.2 * (name == "focal")

    judgement = judged(tmp_path, rule, "tversky:delta=0.2..0.9,dice,focal", [[]] * FOLDS)
    assert judgement.wins == {"tversky": 2, "dice": 2, "focal": 1}
    text = "\n".join(lines(judgement, tmp_path))
    decided = "which decided" if best == 0.8 else "equal, too, so the winner of the first fold counts"
    assert "a tie between losses, as to folds won; the mean over folds of their best validation scores was " in text
    assert decided in text and judgement.recommended.name == "tversky"


def test_equal_trials_of_a_fold_are_a_tie(tmp_path):
    judgement = judged(tmp_path, lambda fold, trial, name, values, n: 0.5 + 0.1 * (fold == 0 and trial in (1, 2)))
    told = [line for line in lines(judgement, tmp_path) if line.startswith("fold ")]
    assert told[0].startswith("fold 0: a tie, as 1 other trial has the winner's validation score; the first")
    assert told[1].startswith("fold 1: a tie, as 4 other trials have")


def test_the_loss_that_wins_most_folds(tmp_path):
    def rule(fold, trial, name, values, n):
        return 0.7 if name == "dice" and fold < 2 else 0.6 if trial % AGAIN == 2 else 0.5

    judgement = judged(tmp_path, rule, "tversky:delta=0.2..0.9,dice")
    assert judgement.wins == {"tversky": 3, "dice": 2}
    assert judgement.recommended.name == "tversky" and judgement.loss.label == "tversky:delta=0.3"
    assert [winner.is_default for winner in judgement.winners] == [True, True, False, False, False]
    # Each winner is compared with its own loss at its defaults.
    assert [w.default.spot.trial for w in judgement.winners] == [1, 1, 0, 0, 0]
    told = lines(judgement, tmp_path)
    assert told[0] == "folds won, of 5: tversky 3, dice 2"
    assert "delta = 0.3: 3 winners from 0.3 to 0.3; searched 0.2..0.9" in told[2]


def test_a_search_that_ends_at_the_defaults(tmp_path):
    judgement = judged(tmp_path, lambda fold, trial, *_: 0.6 - 0.1 * trial)
    assert judgement.loss.label == "tversky"
    assert "nothing better than the defaults" in told(judgement) and "gain: " not in told(judgement)
    assert confirmation(judgement, tmp_path) is None
    assert "nothing to confirm" in lines(judgement, tmp_path)[-1]


def test_what_overfits_the_validation_cases_is_said_to_do_harm(tmp_path):
    def rule(fold, trial, name, values, n):
        size = (trial % AGAIN) / 10
        return 0.5 + 0.01 * np.sin(7 * n + trial) + (size if n % FOLDS != fold else -size)

    assert told(judged(tmp_path, rule)).startswith("Tuning did harm")


def test_the_line_that_confirms(tmp_path):
    judgement = judged(tmp_path, with_gain(1, 0.3))
    words = shlex.split(confirmation(judgement, tmp_path / "out") or "")
    assert words[:3] == ["unifocal", "compare", "/data/made up"]
    options = dict(zip(words[3::2], words[4::2], strict=True))
    assert options["--losses"] == "tversky:delta=0.4,tversky"
    assert options["--seeds"] == "2,3,4" and options["--split-seed"] == "1"
    assert options["--out"] == str(tmp_path / "out-confirmed")


def test_the_table_shows_no_test_scores_but_those_of_winners_and_their_defaults(tmp_path):
    judgement = judged(tmp_path, with_gain(1, 0.3))
    table = table_of(judgement)
    assert len(table) == FOLDS * (1 + len(DELTAS))
    assert (table["test"].notna() == (table["chosen"] | table["is_default"])).all()
    scores = pd.read_csv(judgement.winners[0].again.folder / "cases.csv")["value"]
    assert table[table["chosen"]]["test"].iloc[0] == pytest.approx(scores.mean())
    assert table.groupby("fold")["chosen"].sum().eq(1).all()
    assert list(table["delta"][:5]) == [0.7, *DELTAS]
    best = table.loc[table.groupby("fold")["validation"].idxmax()]
    assert best["chosen"].all()


def test_words_and_record(tmp_path):
    judgement = judged(tmp_path, with_gain(1, 0.3))
    write_words(judgement, tmp_path, {"delta": 1.0})
    text = (tmp_path / "search.md").read_text()
    for part in (
        "tversky:delta=0.2..0.9",
        "recommended: tversky:delta=0.4",
        "unifocal compare",
        "PED-ANOVA",
        "Tuning paid",
    ):
        assert part in text
    record = json.loads(json.dumps(record_of(judgement, tmp_path), allow_nan=False))
    assert record["recommended"] == "tversky:delta=0.4" and record["gains"][0]["verdict"] == "the losses differ"


def test_nothing_finished_is_told_with_the_first_failure(tmp_path):
    experiment, plan = made_up(tmp_path, SPACE, [[]] * FOLDS, noise(0))
    for folder in (tmp_path / "runs").iterdir():
        (folder / "result.json").unlink()
        (folder / "failure.json").write_text(json.dumps({"reason": "it broke"}))
    with pytest.raises(LabError, match="it broke"):
        judge(experiment, plan, 1)


@pytest.mark.parametrize(
    ("values", "domain", "expected"),
    [
        ([0.312, 0.348, 0.331], Range(0, 1), 0.33),  # a scatter of 0.02: two decimals
        ([0.2, 0.5, 0.9], Range(0, 1), 0.5),
        ([0.21, 0.57, 0.93], Range(0, 1), 0.6),  # of 0.4: one
        ([0.5, 0.5, 0.5], Range(0, 1), 0.5),
        ([0.1234], Range(0, 1), 0.123),
        ([1.0, 100.0], Range(0.01, 1000, log=True), 10),  # a digit is left, however far apart they are
        ([0.02, 0.03, 0.8], Range(0, 1), 0.03),
        ([0.0001, 0.000123, 0.00013], Range(0, 1), 0.00012),
        ([1.02, 1.04, 1.08], Range(0.1, 10, log=True), 1.04),
        ([0.96, 0.97, 0.99], Range(0.1, 0.968), 0.968),  # what is rounded stays within the range
        (["a", "b", "b"], Options(("a", "b")), "b"),
        ([[1, 2], [1, 2], None], Options(([1, 2], None)), [1, 2]),
    ],
)
def test_medians_have_the_digits_that_their_scatter_warrants(values, domain, expected):
    assert settle(values, domain) == expected


def test_on_a_logarithmic_scale_the_middle_is_that_of_the_logarithms():
    assert settle([1.0, 100.0], Range(0.1, 1000, log=True)) == 10
    assert settle([1.0, 100.0], Range(0.1, 1000)) == 50
