"""The answer in two sentences: which loss is best and by how much, and whether the data can tell."""

import math
from dataclasses import dataclass

from unifocal.lab.data.problems import some
from unifocal.lab.report.analysis import Block
from unifocal.lab.report.labels import in_full
from unifocal.lab.report.numbers import difference, is_possible, mean_span, p_equals, percent, span, value
from unifocal.lab.report.reading import Study
from unifocal.lab.statistics.verdict import LOSSES_DIFFER, NETWORKS_DIFFER, NOT_SHOWN
from unifocal.lab.words import counted


@dataclass(frozen=True)
class Lead:
    """How the best loss stands to the next one, on the units (cases or groups) that both have.

    Attributes:
        apart: the mean of the best minus that of the next, as the tables have them.
        difference, low, high: the same with each unit counted once, paired, and its 95 % interval over units.
        ties: units on which both are equal.
        p_cases, p_folds: by Holm over all pairs.
        better: the one that the tests favour; empty if they show nothing.
        seen_cases, seen_folds: the smallest differences that either test would have found, at Holm's first step.
    """

    best: str
    next: str
    apart: float
    difference: float
    low: float
    high: float
    units: int
    ties: int
    p_cases: float
    p_folds: float
    verdict: str
    better: str
    seen_cases: float
    seen_folds: float


def answer(block: Block, study: Study) -> tuple[str, ...]:
    """Two sentences on a block."""
    if block.scores is None:
        return _nothing(block, study)
    complete = [loss for loss in block.ranked if loss in block.complete]
    if not complete:
        what = "a result of every case" if block.finished else "finished every run"
        return (
            f"No loss has {what} for {_where(block)}, so none can be called the best.",
            "The numbers below are means of the results that are there.",
        )
    if not block.is_even(block.metric):
        return _uneven(block, study, complete[0])
    first = f"{_so_far(block, study)}{_best(block, complete[0])}"
    if len(complete) == 1:
        others = len(block.losses) - 1
        what = "result" if block.lacking.get(block.metric) else "run"
        alone = f"Not one of the {_other_losses(others)} has every {what}" if others else "It is the only loss"
        return f"{first}.", f"{alone}: there is nothing to compare it with."
    lead = lead_of(block, *complete[:2])
    if lead.units and lead.ties == lead.units:
        same = _same(block, lead.best)
        also = f"and so {'has' if len(same) == 1 else 'have'} {some(same)}"
        return (
            f"{first}, {also}: the same on every {block.pairs.unit_name}.",
            "In these data there is no difference between them to be found.",
        )
    return f"{first}, {_ahead(block, lead)}.", _warranted(block, lead)


def lead_of(block: Block, best: str, other: str) -> Lead:
    """What the statistics know of two losses."""
    pairs, means = block.pairs.rows, block.means(block.metric)["mean"]
    position = next(
        n for n, pair in enumerate(zip(pairs["loss"], pairs["other"], strict=True)) if {*pair} == {best, other}
    )
    pair, power, verdict = (t.rows.iloc[position] for t in (block.pairs, block.power, block.verdicts))
    is_turned = pair["loss"] != best
    low, high = (-pair["high"], -pair["low"]) if is_turned else (pair["low"], pair["high"])
    return Lead(
        best=best,
        next=other,
        apart=float(means[best] - means[other]),
        difference=-pair["difference"] if is_turned else pair["difference"],
        low=low,
        high=high,
        units=int(pair["units"]),
        ties=int(pair["ties"]),
        p_cases=verdict["p_cases"],
        p_folds=verdict["p_folds"],
        verdict=verdict["verdict"],
        better=verdict["better"],
        seen_cases=power["detectable_holm"],
        seen_folds=power["detectable_folds_holm"],
    )


def _where(block: Block) -> str:
    network = f" by {block.network}" if block.network in block.title else ""
    return f"{block.target} in {block.dataset.name}{network}"


def _so_far(block: Block, study: Study) -> str:
    states = {run.state for run in study.runs if (run.dataset, run.network) == (block.dataset.name, block.network)}
    if states & {"running", "waiting"}:
        return "So far "
    if block.lacking.get(block.metric):
        return "Of the losses with every result, "
    return "Of the losses that finished, " if "failed" in states else ""


def _uneven(block: Block, study: Study, top: str) -> tuple[str, str]:
    """Where some losses have a value on fewer cases than others."""
    so_far, which = _so_far(block, study), "lowest" if block.lower_is_better else "highest"
    none = f"{so_far}none" if so_far else "None"
    mean = value(block.means(block.metric).loc[top, "mean"], block.metric)
    return (
        f"{none} can be called the best by mean {block.called} for {_where(block)}: it is undefined on more cases for "
        "some losses than for others, and without those a loss that failed looks better.",
        f"Of such means that of {in_full(top, block.names[top])} is the {which}, {mean}; the tests below compare two "
        f"losses on the {block.pairs.unit_name}s that both have.",
    )


def _best(block: Block, best: str) -> str:
    """Who leads, and with what."""
    mean, half, folds = block.means(block.metric).loc[best, ["mean", "half_width", "folds"]]
    known = "one fold, so no interval"
    if not math.isnan(half):
        known = f"95 % interval {mean_span(mean, half, block.metric)} over {counted(int(folds), 'fold')}"
    which = "lowest" if block.lower_is_better else "highest"
    number = value(mean, block.metric)
    name = in_full(best, block.names[best])
    return f"{name} has the {which} mean {block.called} for {_where(block)}, {number} ({known})"


def _ahead(block: Block, lead: Lead) -> str:
    """By how much: the difference of the two means, and that of the same units where it is another one."""
    name, unit = block.names[lead.next], block.pairs.unit_name
    if not lead.units:
        return f"but shares no {unit} with {name}, the next"
    size, apart = (difference(abs(number), block.metric) for number in (lead.difference, lead.apart))
    limits = span(lead.low, lead.high, block.metric, difference)
    known = "" if math.isnan(lead.low) else f"; 95 % interval of the difference {limits}"
    known = f"({counted(lead.units, unit)}, paired{known})"
    # Folds and units weigh the cases differently.
    if lead.difference and (lead.difference > 0) == block.lower_is_better:
        return f"but over all {unit}s alike {name}, the next, is ahead by {size} {known}"
    ahead = f"{apart} {'below' if block.lower_is_better else 'above'} {name}, the next"
    return f"{ahead} {known}" if size == apart else f"{ahead}; counting each {unit} once, {size} {known}"


def _warranted(block: Block, lead: Lead) -> str:
    """What the two tests allow to say, and what they could not have seen."""
    name, other = block.names[lead.best], block.names[lead.next]
    over_cases, over_folds = _p(lead.p_cases, f"over {block.pairs.unit_name}s"), _p(lead.p_folds, "over folds")
    if lead.better == lead.next:
        return (
            f"The tests favour {other} where the mean favours {name} ({over_cases}; {over_folds}): a few large "
            "differences decide the mean, and neither is shown to be the best."
        )
    beaten = _beaten(block, lead.best)
    worse = f"; shown to be worse than {name}: {some(beaten)}" if beaten else ""
    if lead.verdict in (LOSSES_DIFFER, NETWORKS_DIFFER) and lead.low <= 0 <= lead.high:
        over_cases += " by ranks, though the interval of the mean difference holds 0"
    if lead.verdict == LOSSES_DIFFER:
        others = len(block.losses) - 1
        named = f"better than {len(beaten)} of the {_other_losses(others)}: {some(beaten)}"
        shown = named if others > 1 else "the better of the two"
        return (
            f"The difference holds for new cases and for new trainings ({over_cases}; {over_folds}, both by Holm), and "
            f"{name} is shown to be {shown}."
        )
    if lead.verdict == NETWORKS_DIFFER:
        possible = is_possible(lead.seen_folds, block.metric)
        needed = f"; to be shown, a difference would have to be about {difference(lead.seen_folds, block.metric)}"
        return (
            f"The trained networks differ on new cases ({over_cases}), but the folds do not show that networks trained "
            f"anew would differ, too ({over_folds}{needed if possible else ''}){worse}."
        )
    alike = len(_those(block, lead.best, NOT_SHOWN) - {lead.next})
    more = f" or from {_other_losses(alike)}" if alike else ""
    apart = len(_those(block, lead.best, NETWORKS_DIFFER))
    only = (
        f"; {counted(apart, 'other loss differs', 'other losses differ')} from it on new cases with these trained "
        "networks, but the folds do not show that networks trained anew would"
        if apart
        else ""
    )
    told = f"The data cannot tell {name} from {other}{more} ({over_cases}; {over_folds})"
    return f"{told}{_unseen(block, lead)}{only}{worse}."


def _unseen(block: Block, lead: Lead) -> str:
    over = f"{block.pairs.unit_name}s"
    limits = [(lead.seen_cases, over), (lead.seen_folds, "folds")]
    possible = [(limit, what) for limit, what in limits if is_possible(limit, block.metric)]
    known = [f"{difference(limit, block.metric)} over the {what}" for limit, what in possible]
    if not known:
        return ", and there is too little of it to say what difference would have been seen"
    seen, power = " and ".join(known), percent(block.power.power)
    # So few folds that not even 0 against 1 would pass Holm's correction.
    none = "" if len(known) == 2 or math.isnan(lead.seen_folds) else "; over the folds none would have been"
    return f"; the smallest difference that this study would have seen (power {power}) is about {seen}{none}"


def _p(p: float, over: str) -> str:
    return f"no test {over}" if math.isnan(p) else f"{p_equals(p)} {over}"


def _same(block: Block, best: str) -> list[str]:
    """The other complete losses that equal the best on every unit."""
    rows = block.pairs.rows
    mine = rows[((rows["loss"] == best) | (rows["other"] == best)) & (rows["ties"] == rows["units"])]
    found = {*mine["loss"], *mine["other"]} - {best}
    return [block.names[loss] for loss in block.complete if loss in found]


def _beaten(block: Block, best: str) -> list[str]:
    """The names of the losses that both tests show to be worse, the nearest first."""
    rows = block.verdicts.rows
    mine = rows[(rows["verdict"] == LOSSES_DIFFER) & (rows["better"] == best)]
    found = {*mine["loss"], *mine["other"]} - {best}
    return [block.names[loss] for loss in block.ranked if loss in found]


def _those(block: Block, best: str, verdict: str) -> set[str]:
    """The complete losses of which the tests say this beside the best."""
    rows = block.verdicts.rows
    mine = rows[((rows["loss"] == best) | (rows["other"] == best)) & (rows["verdict"] == verdict)]
    return ({*mine["loss"], *mine["other"]} - {best}) & set(block.complete)


def _other_losses(n: int) -> str:
    return counted(n, "other loss", "other losses")


def _nothing(block: Block, study: Study) -> tuple[str, ...]:
    runs = [run for run in study.runs if (run.dataset, run.network) == (block.dataset.name, block.network)]
    failed = [run for run in runs if run.state == "failed"]
    finished = sum(run.is_finished for run in runs)
    if finished:
        return (
            f"No test case has a {block.called} for {_where(block)}, though {counted(finished, 'run')} finished.",
            "There is nothing to compare.",
        )
    if failed and len(failed) == len(runs):
        return f"All {counted(len(runs), 'run')} for {_where(block)} failed.", f"The first: {failed[0].reason}."
    known = f" ({counted(len(failed), 'failure')})" if failed else ""
    return f"No run for {_where(block)} has finished yet{known}.", "Nothing can be said before."
