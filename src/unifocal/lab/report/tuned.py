"""What tuning recommends, or how far it has come: the page compares other losses than those that it may choose."""

from unifocal.lab.choices import LossChoice
from unifocal.lab.report.labels import in_full
from unifocal.lab.report.reading import Study
from unifocal.lab.words import counted


def tuned(study: Study) -> tuple[str, ...]:
    """Two sentences before the answer of a sweep or a search; none of an ordinary comparison."""
    if study.is_search:
        kind, compared, outcome = "search", "the losses at their defaults", study.outcome
        chosen = "made of what won on each fold by its validation cases"
    else:
        kind, compared, outcome = "sweep", "the losses of its last stage", study.recommended
        chosen = "chosen by the validation cases"
    if not study.tune and not study.is_search and not outcome:
        return ()
    if study.is_search and not study.has_ended:
        return f"{search_so_far(study)}.", f"Nothing is recommended yet. So far, {compared} on the test cases:"
    if not outcome:
        return f"The {kind} has not ended: nothing is recommended yet.", f"{_first_upper(compared)} on the test cases:"
    if not (label := outcome.get("recommended")):  # written by an earlier version
        return ()
    return (
        f"The {kind} recommends {_named(label)}, {chosen}.",
        f"It was not chosen by the test cases, on which {compared} compare as follows:",
    )


def search_so_far(study: Study) -> str:
    """`The search has stopped: 7 of its 12 trials have ended`; empty where it has ended, or there is none."""
    if not study.is_search or study.has_ended:
        return ""
    how = "is under way" if study.is_under_way else "has stopped"
    states = [*(run.state for run in study.runs), *(trial.state for trial in study.trials)]
    ended = sum(state in ("finished", "pruned", "failed") for state in states)
    what = "trial" if study.to_come else "training"  # then the winners, trained again, are among them
    return f"The search {how}: {ended} of its {counted(len(states), what)} have ended"


def _named(label: str) -> str:
    """A loss with all its parameters: `unified-focal with delta=0.8, gamma=0.1`."""
    choice = LossChoice.parse(label)
    return in_full(label, " ".join(label.split(":")[1:])) if choice.arguments else f"{label} at its defaults"


def _first_upper(text: str) -> str:
    return text[0].upper() + text[1:]
