"""What came of a search, in words: a few lines for the screen, and `search.md`."""

import math
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unifocal.lab.report.numbers import p_equals, span, value
from unifocal.lab.statistics.verdict import LOSSES_DIFFER, NETWORKS_DIFFER
from unifocal.lab.storage import write_text
from unifocal.lab.tuning.confirming import CONFIRM, FRESH, confirming
from unifocal.lab.tuning.judgement import TUNED, Gain, Judgement, Settled, Winner
from unifocal.lab.tuning.space import Range
from unifocal.lab.tuning.trials import METRIC
from unifocal.lab.words import counted

HEADINGS = ("fold", "chosen on validation cases", f"{METRIC}, validation", f"{METRIC}, test")
UNKNOWN = "What it gained is not known: no winner could be trained again beside its defaults."
NESTED = (
    "On each fold the validation cases alone chose. The test scores are those of the chosen loss trained again from "
    "another seed, as the best of many trainings was lucky, too. In brackets the same loss at its defaults."
)


def rows(judgement: Judgement) -> list[tuple[str, str, str, str]]:
    """A row for each winner, below `HEADINGS`."""
    return [_row(winner) for winner in judgement.winners]


def _row(winner: Winner) -> tuple[str, str, str, str]:
    trial, default = winner.trial, winner.default
    loss = trial.tried.loss if trial.tried else ""
    return (
        str(trial.spot.fold),
        f"{loss} (its defaults)" if winner.is_default else loss,
        f"{value(trial.score, METRIC)} ({value(default.score, METRIC)})",
        f"{value(winner.again.score, METRIC)} ({value(winner.default_again.score, METRIC)})",
    )


def lines(judgement: Judgement, out: Path) -> list[str]:
    """The outcome, its uncertainty, and the command that would confirm it."""
    command = confirmation(judgement, out)
    if command is None:
        return [*outcome(judgement), "There is nothing to confirm: what is recommended is the loss at its defaults."]
    return [*outcome(judgement), f"{CONFIRM}: {command}", FRESH]


def outcome(judgement: Judgement) -> list[str]:
    """The outcome and its uncertainty."""
    several = len(judgement.gains) > 1
    gains = () if _is_default(judgement) else judgement.gains  # the same runs have none
    return [
        _wins(judgement),
        *_ties(judgement),
        f"recommended: {judgement.loss.label}",
        *(f"  {_settled(parameter)}" for parameter in judgement.settled),
        *(f"gain{f' in {gain.target}' if several else ''}: {_gain(gain)}" for gain in gains),
        *dict.fromkeys(conclusion(gain, judgement, several) for gain in judgement.gains),
        *([] if judgement.gains else [UNKNOWN]),
    ]


def _wins(judgement: Judgement) -> str:
    folds = len(judgement.experiment.splits)
    names = [candidate.name for candidate in judgement.space.candidates]
    wins = sorted(((judgement.wins.get(name, 0), name) for name in names), key=lambda won: -won[0])
    missing = folds - len(judgement.winners)
    known = f"; {counted(missing, 'fold')} without a result" if missing else ""
    return f"folds won, of {folds}: {', '.join(f'{name} {number}' for number, name in wins)}{known}"


def _ties(judgement: Judgement) -> list[str]:
    """What was equal, and what decided."""
    told = []
    for winner in judgement.winners:
        if others := judgement.equals(winner):
            told.append(
                f"fold {winner.trial.spot.fold}: a tie, as {counted(others, 'other trial has', 'other trials have')} "
                "the winner's validation score; the first of them counts"
            )
    if len(judgement.leading) > 1:
        means = ", ".join(f"{name} {value(mean, METRIC)}" for name, mean in judgement.leading.items())
        is_equal = len(set(judgement.leading.values())) == 1
        decided = "equal, too, so the winner of the first fold counts" if is_equal else "which decided"
        told.append(
            "a tie between losses, as to folds won; the mean over folds of their best validation scores was "
            f"{decided}: {means}"
        )
    return told


def _settled(parameter: Settled) -> str:
    return f"{parameter.name} = {_plain(parameter.value)}: {_scatter(parameter)}; searched {parameter.domain}"


def _scatter(parameter: Settled) -> str:
    values = parameter.values
    if len(values) == 1:
        return "one fold chose it, so its scatter is not known"
    if not isinstance(parameter.domain, Range):
        return f"chosen on the folds: {', '.join(map(_plain, values))}"
    return f"{counted(len(values), 'winner')} from {_plain(min(values))} to {_plain(max(values))}"


def _plain(something: Any) -> str:
    return f"{something:.3g}" if isinstance(something, float) else str(something)


def _gain(gain: Gain) -> str:
    sign, units = "+" if gain.difference > 0 else "", counted(gain.units, gain.unit_name)
    return (
        f"{sign}{value(gain.difference, METRIC)} {METRIC} over the defaults, both trained again, on {units} that chose "
        f"nothing; 95 % interval {span(gain.low, gain.high, METRIC)} over {gain.unit_name}s ({_p(gain.p_cases)}), "
        f"{span(gain.low_folds, gain.high_folds, METRIC)} over {counted(gain.folds, 'fold')} ({_p(gain.p_folds)})"
    )


def _p(p: float) -> str:
    return "no test" if math.isnan(p) else p_equals(p)


def conclusion(gain: Gain, judgement: Judgement, several: bool) -> str:
    """What the gain warrants, in a sentence."""
    where = f" in {gain.target}" if several else ""
    if _is_default(judgement):
        return "The search found nothing better than the defaults on the validation cases of any fold."
    if gain.verdict == LOSSES_DIFFER and gain.better == TUNED:
        return f"Tuning paid{where}: the gain holds for new cases and for new trainings."
    if gain.verdict in (LOSSES_DIFFER, NETWORKS_DIFFER) and gain.better != TUNED:
        return f"Tuning did harm{where}: what won on the validation cases is worse than the defaults on the test cases."
    if gain.verdict == NETWORKS_DIFFER:
        return (
            f"These tuned networks are better on new cases{where}, but the folds do not show that new trainings with "
            "these losses would be."
        )
    alone = not gain.low <= 0 <= gain.high
    few = ", though its interval over cases leaves zero out: a few large differences decide the mean" if alone else ""
    return f"The gain is not distinguishable from zero{where}{few}. By these data the defaults are as good a choice."


def _is_default(judgement: Judgement) -> bool:
    """Did the defaults win on every fold?"""
    return all(winner.is_default for winner in judgement.winners)


def confirmation(judgement: Judgement, out: Path) -> str | None:
    """The comparison on other folds, from other seeds, that would show whether the recommended loss is better.

    None where it is the only loss of the space, at its defaults.
    """
    bases = judgement.space.bases
    if bases == (judgement.loss,):
        return None
    settings, seed = judgement.plan.settings, judgement.plan.seed
    root = judgement.experiment.dataset.root
    return confirming(settings, (judgement.loss, *bases), root, out, seed + 2)  # the next has trained the winners again


def record_of(judgement: Judgement, out: Path) -> dict[str, Any]:
    """The outcome for programs, as JSON takes it: `search.json`."""
    return {
        "search": judgement.plan.id,
        "space": str(judgement.space),
        "wins": judgement.wins,
        "candidate": judgement.recommended.name,
        "recommended": judgement.loss.label,
        "parameters": {p.name: {"value": p.value, "winners": list(p.values)} for p in judgement.settled},
        "logarithmic": [p.name for p in judgement.settled if isinstance(p.domain, Range) and p.domain.log],
        "gains": [
            {name: None if value != value else value for name, value in asdict(gain).items()}
            for gain in judgement.gains
        ],
        "told": [line.strip() for line in outcome(judgement)],
        "confirm": confirmation(judgement, out),
    }


def write_words(judgement: Judgement, out: Path, importances: dict[str, float]) -> None:
    """Write `search.md`."""
    plan = judgement.plan
    count = len(judgement.trials) // len(judgement.experiment.splits)
    states = Counter(trial.state for trial in judgement.trials)
    sections = [
        f"# Search on {judgement.experiment.dataset.name}",
        f"`{plan.space}`, {counted(count, 'trial')} on each of {counted(len(judgement.experiment.splits), 'fold')}: "
        + ", ".join(f"{number} {state}" for state, number in states.items())
        + ". `search.csv` has every trial.",
        "\n".join([_markdown(HEADINGS), "|---|---|---:|---:|", *map(_markdown, rows(judgement))]),
        NESTED,
        "\n".join(f"- {line.strip()}" for line in lines(judgement, out)),
    ]
    if importances:
        told = ", ".join(f"{name} {share:.2f}" for name, share in importances.items())
        sections.append(
            f"Importance of the parameters of {judgement.recommended.name}, mean over folds (PED-ANOVA, what sets the "
            f"best trials apart; rough with so few): {told}."
        )
    write_text(out / "search.md", "\n\n".join(sections) + "\n")


def _markdown(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
