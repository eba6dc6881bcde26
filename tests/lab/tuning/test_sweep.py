"""The coordinate sweep by made-up scores: what is one run, what chooses, and what is said of the choice."""

import inspect
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from unifocal.lab.choices import LossChoice
from unifocal.lab.comparison import check_distinct
from unifocal.lab.errors import LabError
from unifocal.lab.experiment import Experiment
from unifocal.lab.outcome import Comparison, Outcome
from unifocal.lab.results import COLUMNS
from unifocal.lab.settings import make_settings
from unifocal.lab.tuning import sweep as sweeping
from unifocal.lab.tuning.confirming import confirming
from unifocal.lab.tuning.sweep import parse_sweep, tune

CASES, FOLDS = 20, 2
NAN = float("nan")


def split(fold):
    """Ten cases are tested, four of the others choose; of those two are tested on in the other fold."""
    test = tuple(range(10 * fold, 10 * fold + 10))
    rest = [case for case in range(CASES) if case not in test]
    return SimpleNamespace(train=tuple(rest[4:]), validation=tuple(rest[:4]), test=test)


@pytest.fixture
def swept(tmp_path, monkeypatch):
    """A sweep whose runs are made up: scores by the arguments of the loss, and `asked`, what was to be run."""
    experiment = Experiment(
        tmp_path,
        SimpleNamespace(  # type: ignore[arg-type]
            name="data",
            root=tmp_path / "data",
            classes=("background", "lesion"),
            dimension=2,
            cases=[SimpleNamespace(id=str(case)) for case in range(CASES)],
        ),
        "data",
        tuple(range(CASES)),
        tuple(split(fold) for fold in range(FOLDS)),
        (),
        "prepared",
    )
    asked: list[list[str]] = []
    monkeypatch.setattr(sweeping, "plan_all", lambda *_: [experiment])
    monkeypatch.setattr(sweeping, "select", lambda dataset, settings: dataset)

    def run(text, validation, test=lambda **_: 0.5, failed=(), noise=0.0):
        """Scores by the arguments that differ from the defaults; `failed` are such arguments, and folds."""
        settings = make_settings(losses="unified-focal", folds=FOLDS, threads=1)
        asked.clear()

        def table(outcomes, part, score):
            rows = [
                (
                    "data",
                    "unet",
                    o.run.loss.label,
                    o.run.fold,
                    0,
                    str(case),
                    "lesion",
                    "DSC",
                    score_of(o.run, score, case),
                )
                for o in outcomes
                for case in getattr(experiment.splits[o.run.fold], part)
            ]
            return pd.DataFrame(rows, columns=list(COLUMNS))

        def score_of(run, score, case):
            wanted = inspect.signature(score).parameters
            known = {"case": case} if "case" in wanted else {}
            drawn = np.random.default_rng([case, *run.name.encode()]).normal(0, noise)
            return score(**known, **run.loss.plain().arguments) + drawn

        def carry_out(experiments, settings, out, watcher, more):
            outcomes = [
                Outcome(r, experiment, "no memory" if (r.loss.plain().arguments, r.fold) in failed else None)
                for r in experiment.runs(settings)
            ]
            asked.append(sorted({o.run.name for o in outcomes}))
            done = [o for o in outcomes if o.failure is None]
            cases, chose = table(done, "test", test), table(done, "validation", validation)
            return Comparison([experiment], settings, out, outcomes, cases, pd.DataFrame(), chose)

        monkeypatch.setattr(sweeping, "carry_out", carry_out)
        found = tune(experiment.dataset, settings, parse_sweep(text), tmp_path)
        found_runs = [name for stage in asked for name in stage]
        return SimpleNamespace(tuning=found, table=found.table, told=found.found.told, runs=found_runs, out=tmp_path)

    return run


def score(delta=0.6, gamma=0.5):
    return delta / 2 + gamma / 5


def test_a_value_that_is_the_default_is_no_further_run(swept):
    sweep = swept("delta=0.4,0.8;gamma=0.1,0.5", score)
    assert len(sweep.runs) == 8 and len(set(sweep.runs)) == 6  # two losses of stage 1, one of stage 2, on two folds
    assert sweep.table["chosen"].tolist() == [False, True, False, True]
    assert sweep.table.loc[3, "validation"] == sweep.table.loc[1, "validation"]  # its point is there all the same
    assert sweep.table.loc[3, "loss"] == "unified-focal:delta=0.8:gamma=0.5"
    assert "p by Holm over all pairs of the 3 losses tried" in sweep.told[-2]


def test_scores_of_test_cases_choose_nothing(swept):
    choices = []
    for test in (score, lambda delta=0.6, gamma=0.5: -score(delta, gamma), lambda **_: NAN):
        sweep = swept("delta=0.4,0.8;gamma=0.1,0.3", score, test)
        choices.append((sweep.table["chosen"].tolist(), sweep.tuning.found))
    assert choices[0][0] == choices[1][0] == choices[2][0]
    assert len({choice.loss.label for _, choice in choices}) == 1
    assert any("No fold's test cases chose in that fold, but 8 of the 20 chose in another" in t for t in sweep.told)


def test_each_fold_chooses_alone_for_a_score_on_cases_that_chose_nothing(swept):
    """In fold 0 delta=0.4 is better on both kinds of cases, in fold 1 delta=0.8."""

    def prefers(fold):
        return {0: 0.4, 1: 0.8}[fold]

    def validation(case, delta=0.6, **_):
        return 0.5 + 0.1 * (delta == prefers(0 if case >= 10 else 1))  # fold 0 validates by cases from 10 on

    def test(case, delta=0.6, **_):
        return 0.5 + 0.2 * (delta == prefers(0 if case < 10 else 1)) + 0.01 * (delta == 0.6)

    sweep = swept("delta=0.4,0.6,0.8", validation, test)
    assert sweep.told[-1] == (
        "Had each fold chosen alone, by its own validation cases (unified-focal:delta=0.4 on 1 fold, "
        "unified-focal:delta=0.8 on 1 fold): 0.700 ± 0.000 DSC on its test cases, which chose nothing; "
        "0.190 ± 0.000 DSC more than the default, unified-focal."
    )
    assert "after the first stage" in swept("delta=0.4,0.6,0.8;gamma=0.1,0.5", validation, test).told[-1]
    assert not any("Had each fold" in line for line in swept("delta=0.4,0.6,0.8", validation, lambda **_: NAN).told)


def test_a_parameter_stays_where_no_value_is_better(swept):
    sweep = swept("delta=0.4,0.8;gamma=0.1,0.3", score)
    assert sweep.table["chosen"].tolist() == [False, True, False, False]
    assert sweep.told[:2] == (
        "recommended: unified-focal:delta=0.8",
        "gamma stays as it was: no value tried was better.",
    )
    assert sweep.told[2].startswith("against the next best, unified-focal:delta=0.8:gamma=0.3: +0.0")


def test_of_equals_the_loss_stays_as_it_was(swept):
    sweep = swept("delta=0.4,0.6,0.8", lambda **_: 0.5)
    assert sweep.table["chosen"].tolist() == [False, True, False]
    assert sweep.told[0] == "recommended: the default, unified-focal"
    assert sweep.tuning.found.confirm is None and "nothing to confirm" in sweep.tuning.found.lines[-1]


def test_a_value_with_a_failed_run_is_passed_over(swept):
    sweep = swept("delta=0.4,0.8", score, failed=[({"delta": 0.8}, 1)])
    assert sweep.table["chosen"].tolist() == [True, False] and sweep.table["runs"].tolist() == [2, 1]
    assert sweep.tuning.failures == ("unified-focal:delta=0.8, fold 1: no memory",)


def test_it_says_whether_the_data_can_tell(swept):
    clear = swept("delta=0.4,0.6,0.8", score, noise=0.01)
    [line] = [line for line in clear.told if "the next best" in line]
    assert line.startswith("against the next best, the default, unified-focal: +0.10")
    alike = swept("delta=0.4,0.6,0.8", lambda delta=0.6, gamma=0.5: 0.5 + 1e-3 * (delta == 0.8), noise=0.01)
    assert any(line.endswith("The data cannot tell the two apart.") for line in alike.told)
    assert any(line.startswith("By these data the default, unified-focal, is as good") for line in alike.told)
    assert any(" DSC on 8 validation cases, 95 % interval " in line for line in alike.told)
    unknown = swept("delta=0.4,0.8", score)
    assert any(line.startswith("Whether it is better than the default, unified-focal, is not") for line in unknown.told)


def test_what_is_said_is_written_down(swept):
    sweep = swept("delta=0.4,0.6,0.8", score)
    summary, record = (sweep.out / "summary.md").read_text(), json.loads((sweep.out / "tuning.json").read_text())
    assert record["told"] == list(sweep.told) and record["confirm"] in summary
    assert all(f"- {line}" in summary for line in sweep.told) and "| delta = 0.8 | " in summary


def test_what_confirms_tests_something(tmp_path):
    losses = LossChoice.parse_list("dice,dice:smooth=1")
    line = confirming(make_settings(division="whole"), losses, tmp_path, tmp_path / "out", 1)
    assert "--division" not in line and "--losses dice,dice:smooth=1 --seeds 1,2,3 --split-seed 1" in line


def test_a_part_of_a_sweep_is_refused(tmp_path):
    settings = make_settings(losses="unified-focal", shard="1/2")
    with pytest.raises(LabError, match="a whole sweep"):
        tune(SimpleNamespace(), settings, parse_sweep("delta=0.4,0.8"), tmp_path)  # type: ignore[arg-type]


def test_a_value_may_be_a_list():
    [stage] = parse_sweep("alpha=[0.25,0.75],[0.5,0.5]")
    assert stage.values == ([0.25, 0.75], [0.5, 0.5]) and parse_sweep(str(stage)) == (stage,)


def test_the_same_value_twice_is_refused(swept):
    with pytest.raises(LabError, match=r"gamma=0 and unified-focal:gamma=0\.0 are the same"):
        swept("gamma=0,0.0,0.1", score)


def test_a_run_of_an_earlier_version_is_found(tmp_path):
    settings = make_settings(losses="unified-focal:gamma=0.5")
    experiment = Experiment(
        tmp_path,
        SimpleNamespace(cases=[SimpleNamespace(id=str(case)) for case in range(CASES)]),  # type: ignore[arg-type]
        "data",
        (),
        (split(0),),
        (),
        "",
    )
    [run] = experiment.runs(settings)
    [plain] = experiment.runs(make_settings(losses="unified-focal"))
    assert run.name == plain.name and run.identity() == plain.identity()
    experiment.run_folder(run.earlier_name).mkdir(parents=True)
    [found] = experiment.runs(settings)
    assert found.name == run.earlier_name != run.name
    experiment.run_folder(run.name).mkdir()  # one of this version comes first
    [found] = experiment.runs(settings)
    assert found.name == run.name


def test_a_comparison_of_a_loss_with_itself_is_refused():
    with pytest.raises(LabError, match="the same by all parameters"):
        check_distinct(LossChoice.parse_list("unified-focal,dice,unified-focal:gamma=0.50"))


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("unified-focal:delta=0.8:gamma=0.5", "unified-focal:delta=0.8"),
        ("generalised-focal:gamma=0.2", "generalised-focal"),
        ("focal:alpha=[0.25,0.75]:gamma=2", "focal:alpha=[0.25,0.75]"),
        ("focal:gamma=1.0:reduction=mean", "focal:gamma=1"),
        ("dice:ignore_index=255", "dice"),  # as the lab has it
        ("dice:ignore_index=None", "dice:ignore_index=None"),
    ],
)
def test_a_loss_without_what_it_would_take_anyway(written, plain):
    assert LossChoice.parse(written).plain().label == plain
