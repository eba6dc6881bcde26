"""Searches that never ran: the folders of their trials, written from a rule that gives the DSC of each case."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unifocal.lab.data.cases import Case, Dataset, Facts
from unifocal.lab.division import Split
from unifocal.lab.experiment import Experiment
from unifocal.lab.settings import make_settings
from unifocal.lab.tuning.space import Space, parse_space
from unifocal.lab.tuning.trials import Plan, Spot

CASES, FOLDS = 60, 5
AGAIN = 10  # is added to the number of a trial where it is trained again
Rule = Callable[[int, int, str, Any, int], float]  # (fold, trial, loss, values, case) to DSC


def made_up(out: Path, text: str, values: list[list[dict[str, Any]]], rule: Rule) -> tuple[Experiment, Plan]:
    """Trials of the first loss of a space with these values, by fold, after the defaults of every loss."""
    space = parse_space(text)
    cases = tuple(Case(f"case {n}", (), ()) for n in range(CASES))
    facts = tuple(Facts((8, 8), (60, 4)) for _ in cases)
    classes = ("background", "lesion")
    dataset = Dataset("made up", "plain", Path("/data/made up"), cases, classes, facts=facts)
    tests = [tuple(n for n in range(CASES) if n % FOLDS == fold) for fold in range(FOLDS)]
    splits = []
    for test in tests:
        rest = [n for n in range(CASES) if n not in test]
        splits.append(Split(tuple(rest[10:]), tuple(rest[:10]), test))
    experiment = Experiment(out, dataset, "d", tuple(range(CASES)), tuple(splits), (), "none")
    plan = Plan.of(experiment, make_settings(losses=",".join(b.label for b in space.bases), seeds=(0,)), space, True)
    for fold, split in enumerate(splits):
        for trial, (name, tried) in enumerate(_all(space, values[fold])):
            _write(out / "runs" / Spot(plan.id, fold, trial).name, space, name, tried, fold, trial, split, rule)
            again = plan.run(fold, space.named(name).loss(tried), seed=1)
            _write(out / "runs" / again.name, space, name, tried, fold, AGAIN + trial, split, rule)
    return experiment, plan


def _all(space: Space, values: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    defaults = [(candidate.name, dict(candidate.defaults)) for candidate in space.candidates]
    return [*defaults, *((space.candidates[0].name, tried) for tried in values)]


def _write(folder, space, name, tried, fold, trial, split, rule):
    folder.mkdir(parents=True)
    loss = space.named(name).loss(tried).label
    record = {"candidate": name, "values": tried, "loss": loss, "number": trial}
    (folder / "trial.json").write_text(json.dumps(record))
    (folder / "result.json").write_text(json.dumps({"status": "finished"}))
    key = {"dataset": "made up", "network": "unet", "loss": loss, "fold": fold, "seed": 0}
    key |= {"class": "lesion", "metric": "DSC"}
    for part, numbers in (("validation", split.validation), ("cases", split.test)):
        rows = [
            {
                **key,
                "case": f"case {n}",
                "value": float(np.clip(rule(fold, trial, name, tried, n), 0, 1)),
            }
            for n in numbers
        ]
        pd.DataFrame(rows).to_csv(folder / f"{part}.csv", index=False)
