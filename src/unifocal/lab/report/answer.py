"""The answer in two sentences: which loss is best and by how much, and whether the data can tell."""

import math
from typing import Any

import pandas as pd

from unifocal.lab.report.analysis import Block
from unifocal.lab.report.numbers import counted, decimals, p_equals, span, value
from unifocal.lab.report.reading import Study
from unifocal.lab.statistics.verdict import LOSSES_DIFFER, NETWORKS_DIFFER


def answer(block: Block, study: Study) -> tuple[str, ...]:
    """Two sentences on a block; fewer where there is less to say."""
    complete = [loss for loss in block.ranked if loss in block.complete]
    if block.scores is None:
        return _nothing(block, study)
    if not complete:
        return (
            f"No loss has finished every run for {where(block)}, so none can be called the best.",
            "The numbers below are those of single folds.",
        )
    best, *others = complete
    leads = _leads(block, best, _so_far(block, study))
    if not others:
        rest = len(block.losses) - 1
        alone = (
            f"None of the {counted(rest, 'other loss', 'other losses')} has every run"
            if rest
            else "It is the only loss"
        )
        return f"{leads}.", f"{alone}: there is nothing to compare it with."
    second = others[0]
    row = pair(block, best, second)
    return f"{leads}, {_ahead(block, row, second)}.", _warranted(block, row, best, second)


def where(block: Block) -> str:
    """What a block is about, in words."""
    return f"{block.target} in {block.dataset.name}" + (f" by {block.network}" if block.network in block.title else "")


def pair(block: Block, loss: str, other: str) -> dict[str, Any]:
    """All that is known of two losses, differences as `loss - other`."""
    position = [
        n
        for n, pair_ in enumerate(zip(block.pairs.rows["loss"], block.pairs.rows["other"], strict=True))
        if set(pair_) == {loss, other}
    ][0]
    cases, power = block.pairs.rows.iloc[position], block.power.rows.iloc[position]
    verdict = block.verdicts.rows.iloc[position]
    turned = cases["loss"] != loss
    low, high = (-cases["high"], -cases["low"]) if turned else (cases["low"], cases["high"])
    return {
        "difference": -cases["difference"] if turned else cases["difference"],
        "low": low,
        "high": high,
        "units": int(cases["units"]),
        "ties": int(cases["ties"]),
        "p_cases": verdict["p_cases"],
        "p_folds": verdict["p_folds"],
        "verdict": verdict["verdict"],
        "better": verdict["better"],
        "detectable": power["detectable_holm"],
        "detectable_folds": power["detectable_folds"],
    }


def _so_far(block: Block, study: Study) -> str:
    states = {run.state for run in study.runs if run.dataset == block.dataset.name and run.network == block.network}
    if states & {"running", "waiting"}:
        return "So far "
    return "Of the losses that finished, " if "failed" in states else ""


def _leads(block: Block, best: str, so_far: str) -> str:
    mean, half = block.means(block.metric).loc[best, ["mean", "half_width"]]
    number = value(mean, block.metric)
    folds = int(block.means(block.metric).loc[best, "folds"])
    known = (
        f"95 % interval {span(mean - half, mean + half, block.metric)} over {folds} folds"
        if not math.isnan(half)
        else "one fold, so no interval"
    )
    which = "lowest" if block.lower_is_better else "highest"
    return f"{so_far}{block.names[best]} has the {which} mean {block.metric} for {where(block)}, {number} ({known})"


def _ahead(block: Block, row: dict[str, Any], second: str) -> str:
    """How far from the next, on the same cases."""
    name, unit = block.names[second], block.pairs.unit_name
    if row["units"] and row["ties"] == row["units"]:
        return f"and {name} has the same on every {unit}"
    if math.isnan(row["difference"]):
        return f"but shares no {unit} with {name}, the next"
    side = "above" if row["difference"] > 0 else "below"
    known = (
        f"; 95 % interval of the difference {span(row['low'], row['high'], block.metric)}"
        if not math.isnan(row["low"])
        else ""
    )
    size = value(abs(row["difference"]), block.metric)
    return f"{size} {side} {name}, the next ({counted(row['units'], unit)}, paired{known})"


def _warranted(block: Block, row: dict[str, Any], best: str, second: str) -> str:
    """What the two tests allow to say, and what they could not have seen."""
    name, next_ = block.names[best], block.names[second]
    over_cases, over_folds = _p(row["p_cases"], "over " + block.pairs.unit_name + "s"), _p(row["p_folds"], "over folds")
    if row["verdict"] == LOSSES_DIFFER and row["better"] == best:
        beaten = _beaten(block, best)
        rest = len(block.complete) - 1
        return (
            f"The difference holds for new cases and for new trainings ({over_cases}; {over_folds}, both by Holm), and "
            f"{name} is shown to be better than {beaten} of the {counted(rest, 'other loss', 'other losses')}."
        )
    if row["verdict"] == NETWORKS_DIFFER and row["better"] == best:
        limit = row["detectable_folds"]
        seen = f", which would mostly show one of {value(limit, block.metric)}" if _is_possible(limit, block) else ""
        return (
            f"These trained networks differ on new cases ({over_cases}), but the folds do not show that new trainings "
            f"would ({over_folds}{seen})."
        )
    unseen = _unseen(block, row)
    others = _not_told_apart(block, best) - {second}
    more = f" or from {counted(len(others), 'other loss', 'other losses')}" if others else ""
    if row["better"] == second:
        return f"The tests favour {next_} where the mean favours {name} ({over_cases}; {over_folds}): neither is shown to be best."
    return f"The data cannot tell {name} from {next_}{more} ({over_cases}; {over_folds}){unseen}."


def _unseen(block: Block, row: dict[str, Any]) -> str:
    limits = [
        (row["detectable"], f"{block.pairs.unit_name}s"),
        (row["detectable_folds"], "folds"),
    ]
    known = [f"{value(limit, block.metric)} over the {what}" for limit, what in limits if _is_possible(limit, block)]
    if not known:
        return ", and there is too little of it to say what difference would have been seen"
    return f"; the smallest difference that this study would have seen (power 80 %) is about {' and '.join(known)}"


def _is_possible(difference: float, block: Block) -> bool:
    """Could two losses differ by so much? Two fractions differ by 1 at most."""
    return difference > 0 and (decimals(block.metric) != 3 or difference < 1)


def _p(p: float, where_: str) -> str:
    return f"{p_equals(p)} {where_}" if not math.isnan(p) else f"no test {where_}"


def _beaten(block: Block, best: str) -> int:
    rows = block.verdicts.rows
    return int(((rows["verdict"] == LOSSES_DIFFER) & (rows["better"] == best)).sum())


def _not_told_apart(block: Block, best: str) -> set[str]:
    """The complete losses that no test over cases tells from the best."""
    rows: pd.DataFrame = block.pairs.rows
    mine = rows[(rows["loss"] == best) | (rows["other"] == best)]
    alike = mine[~(mine["p_holm"] <= block.verdicts.alpha)]
    return ({*alike["loss"], *alike["other"]} - {best}) & set(block.complete)


def _nothing(block: Block, study: Study) -> tuple[str, ...]:
    runs = [run for run in study.runs if run.dataset == block.dataset.name and run.network == block.network]
    failed = [run for run in runs if run.state == "failed"]
    finished = sum(run.is_finished for run in runs)
    if finished:
        return (
            f"No test case has a {block.metric} for {where(block)}, though {counted(finished, 'run')} finished.",
            "There is nothing to compare.",
        )
    if failed and len(failed) == len(runs):
        return (f"All {counted(len(runs), 'run')} for {where(block)} failed.", f"The first: {failed[0].reason}.")
    return (
        f"No run for {where(block)} has finished yet ({counted(len(failed), 'failure')}).",
        "Nothing can be said before.",
    )
