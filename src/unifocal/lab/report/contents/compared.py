"""Losses compared with each other: p-values, pairs, critical differences, ranks."""

import numpy as np
import pandas as pd

from unifocal.lab.report.analysis import ALPHA, MANY, Block
from unifocal.lab.report.figures.matrix import level, matrix
from unifocal.lab.report.figures.ranks import critical_difference, stability
from unifocal.lab.report.numbers import NONE, difference, is_possible, p_value, percent, signed, span, stars
from unifocal.lab.report.parts import Fold, Part, Text, parts
from unifocal.lab.report.tables import Cell, Table, make_table
from unifocal.lab.statistics.friedman import Friedman
from unifocal.lab.statistics.pairwise import Pairwise
from unifocal.lab.statistics.verdict import LOSSES_DIFFER, MEANING

OPPOSED = "‡ The mean favours the other one: ranks and mean disagree, as a few large differences decide the mean."
NO_DIFFERENCE = "“none”: not even 0 against 1 would be seen."
CELLS = 14  # losses up to which the matrix of p-values is a table of numbers
PAIRS = 66  # pairs that the page lists; the files have all


def comparison_parts(block: Block, prefix: str) -> tuple[Part, ...]:
    """Matrix, critical differences, ranks; the pairs and the papers' test on demand."""
    names = dict(block.names)
    is_small = len(block.losses) <= CELLS
    return parts(
        p_table(block, block.pairs, f"p-values-{prefix}") if is_small else p_picture(block, f"p-values-{prefix}"),
        Fold(
            "Every pair: difference, effect, both tests, what could have been seen",
            parts(pairs_table(block, prefix), _meanings()),
        ),
        Fold(
            "The papers' test: unpaired",
            parts(p_table(block, block.unpaired, f"p-values-unpaired-{prefix}", is_papers=True)),
        )
        if is_small
        else None,
        diagram(block.friedman, names, f"critical-difference-{prefix}", _care(block)),
        stability(block.stability, names, f"rank-stability-{prefix}"),
        ranks_table(block, prefix),
    )


def diagram(result: Friedman, names: dict[str, str], name: str, care: str) -> Part | None:
    """Critical differences; of two losses a word on why there are none."""
    if len(result.mean_ranks.dropna()) == 2:
        return Text(
            f"No diagram of mean ranks over {result.unit_name}s: of two losses the test of the pair answers, and "
            "critical differences, which are for three or more, may contradict it."
        )
    return critical_difference(result, names, name, care)


def _care(block: Block) -> str:
    """Why the diagram must be read with care, but for what stands below the table of p-values already."""
    reasons = [reason for reason in block.friedman.reasons if reason not in block.pairs.reasons]
    return block.shortly(" ".join(["", *reasons]))


def _meanings() -> Text:
    return Text(" ".join(f"“{verdict[0].upper()}{verdict[1:]}”: {meaning}." for verdict, meaning in MEANING.items()))


def p_table(block: Block, result: Pairwise, name: str, is_papers: bool = False) -> Table:
    """p by Holm, losses by losses, shaded by which is better and starred as the papers' Tables 2 and 4."""
    p = result.matrix("p_holm")
    better = {
        frozenset(pair): winner for *pair, winner in result.rows[["loss", "other", "better"]].itertuples(index=False)
    }
    agreed = {
        frozenset((row.loss, row.other)) for row in block.verdicts.rows.itertuples() if row.verdict == LOSSES_DIFFER
    }
    opposed = {frozenset(pair) for pair in result.rows.loc[_opposed(result), ["loss", "other"]].itertuples(index=False)}
    losses = [loss for loss in block.losses if loss in p.index]
    rows = []
    for loss in losses:
        cells = [Cell(block.names[loss])]
        for other in losses:
            number, pair = p.loc[loss, other], frozenset((loss, other))
            winner = better.get(pair, "")
            sign = 0 if not winner or loss == other else 1 if winner == loss else -1
            marks = ("†" if not is_papers and pair in agreed else "") + ("‡" if pair in opposed else "")
            cells.append(_p_cell(number, sign, marks) if loss != other else Cell(""))
        rows.append(cells)
    legend = (
        "The row's loss against the column's: ↑ it is better, ↓ worse, at p ≤ 0.05. * p ≤ 0.05, ** p ≤ 0.01, "
        "*** p ≤ 0.001, by Holm over all pairs."
    )
    over_folds = (
        f" † the {block.retraining.test} agrees, so that the difference holds for new trainings, too; without it, it "
        "holds for these networks on new cases."
    )
    pairs = result.rows.drop(columns="reasons")
    return make_table(
        name,
        f"p-values of all pairs of losses, {block.called}, over {result.unit_name}s. {result.test}.",
        ["", *(block.names[loss] for loss in losses)],
        rows,
        pairs,
        notes=[
            legend + ("" if is_papers else over_folds),
            *([OPPOSED] if opposed else []),
            *map(block.shortly, result.reasons),
        ],
    )


def _opposed(result: Pairwise) -> "pd.Series[bool]":
    """The pairs that the test tells apart by ranks though the mean favours the other loss."""
    rows = result.rows
    return (rows["p_holm"] <= ALPHA) & (rows["effect"] * rows["standardised"] < 0)


def _p_cell(p: float, sign: int, marks: str) -> Cell:
    if np.isnan(p):
        return Cell(NONE)
    steps = level(p, sign)
    arrow = "↑ " if steps > 0 else "↓ " if steps < 0 else ""
    tone = f"{'better' if steps > 0 else 'worse'}-{abs(steps)}" if steps else ""
    return Cell(f"{arrow}{p_value(p)} {stars(p) if steps else ''}{marks}".strip(), tone=tone)


def p_picture(block: Block, name: str) -> Part:
    """The matrix of many losses, best first."""
    rows = block.pairs.rows
    place = {loss: n for n, loss in enumerate(block.ranked)}
    levels = np.full((len(place),) * 2, np.nan)
    for loss, other, better, p in zip(rows["loss"], rows["other"], rows["better"], rows["p_holm"], strict=True):
        if p == p and loss in place and other in place:
            sign = 0 if not better else 1 if better == loss else -1
            levels[place[loss], place[other]] = level(p, sign)
            levels[place[other], place[loss]] = -level(p, sign)
    return matrix(pd.DataFrame(levels, index=list(place), columns=list(place)), dict(block.names), name)


def pairs_table(block: Block, prefix: str) -> Table:
    """Each pair: how far apart, how sure, and what could have been seen."""
    pair = ["loss", "other"]
    limits = [column for column in block.power.rows if column.startswith("detectable")]
    data = block.pairs.rows.merge(block.verdicts.rows[[*pair, "p_folds", "verdict"]], on=pair)
    data = data.merge(block.power.rows[[*pair, *limits]], on=pair)
    data["reasons"] = data["reasons"].map(" ".join)
    data["opposed"] = _opposed(block.pairs).to_numpy()
    order = data["p_holm"].fillna(2).argsort(kind="stable")
    shown = data.iloc[order[:PAIRS]] if len(data) > PAIRS else data
    metric = block.metric
    rows = [
        [
            f"{block.names[row.loss]} – {block.names[row.other]}",
            str(row.units),
            difference(row.difference, metric) + ("‡" if row.opposed else ""),
            span(row.low, row.high, metric, difference),
            signed(row.effect),
            f"{row.wins} / {row.ties} / {row.defeats}",
            p_value(row.p_holm),
            p_value(row.p_folds),
            row.verdict,
            _seen(row.detectable_holm, metric),
            _seen(row.detectable_folds_holm, metric),
        ]
        for row in shown.itertuples()
    ]
    name = f"pairs-{prefix}"
    left = [f"The {PAIRS} pairs of the lowest p of {len(data)}; {name}.csv has all."] if len(data) > PAIRS else []
    return make_table(
        name,
        f"Every pair of losses, {block.called}: the first minus the second, paired over {block.pairs.unit_name}s.",
        [
            "pair",
            f"{block.pairs.unit_name}s",
            "difference",
            "95 % interval",
            "effect",
            "better / equal / worse",
            "p, cases",
            "p, folds",
            "verdict",
            "seen, cases",
            "seen, folds",
        ],
        rows,
        data,
        texts=[8],
        notes=[
            f"Effect: {block.pairs.effect}, positive where the first is better. p by Holm. “Seen”: the smallest "
            f"difference found with probability {percent(block.power.power)}, at the first step of Holm's correction. "
            "Over folds, validation cases count as training cases.",
            *([NO_DIFFERENCE] if any(cell == "none" for row in rows for cell in row[-2:]) else []),
            *([OPPOSED] if shown["opposed"].any() else []),
            *left,
        ],
    )


def _seen(limit: float, metric: str) -> str:
    """The smallest difference that a test sees; of shares one that is possible."""
    return "none" if limit > 0 and not is_possible(limit, metric) else difference(limit, metric)


def _two_mean_ranks(block: Block) -> list[str]:
    """Where groups are the units of the diagram, and cases those of the table."""
    unit = block.friedman.unit_name
    if unit == "case":
        return []
    return [
        f"The mean rank is over cases here and over {unit}s in the diagram of mean ranks, where each {unit} counts "
        "once: the two may differ."
    ]


def ranks_table(block: Block, prefix: str) -> Table:
    """Ranks by four methods, and how often each loss is first under the bootstrap."""
    observed = block.rankings.matrix()
    bootstrap = block.stability.rows.pivot(index="loss", columns="method", values=["low", "high", "first"])
    rows = []
    methods = list(observed.columns)
    for loss in observed.index:
        cells: list[Cell | str] = [block.names[loss]]
        for method in methods:
            rank = observed.loc[loss, method]
            text = f"{rank:.0f}" if rank == rank else NONE
            if ("low", method) in bootstrap and (low := bootstrap.loc[loss, ("low", method)]) == low:
                text += f" ({low:.0f} to {bootstrap.loc[loss, ('high', method)]:.0f})"
            cells.append(Cell(text, bool(rank == 1)))
        first = bootstrap.loc[loss, ("first", "mean")]
        rows.append([*cells, percent(first) if first == first else NONE])
    data = block.rankings.rows.merge(
        block.stability.rows.drop(columns="rank"), on=["method", "loss"], how="left", suffixes=("", "_bootstrap")
    )
    tau = block.stability.kendall.set_index("method")["mean"].get("mean", np.nan)
    agreement = block.rankings.agreement.to_numpy()[np.triu_indices(len(methods), 1)]
    lowest = np.nanmin(agreement) if np.isfinite(agreement).any() else np.nan
    notes = [
        "Rank, and in brackets the range of 95 % of the bootstraps of the cases. Ties share the lowest rank. First, by "
        "mean: in how many of the bootstraps, alone or with others.",
        *_two_mean_ranks(block),
    ]
    if tau == tau:
        notes.append(f"Kendall's τ between the ranking by mean and those of the bootstraps is {tau:.2f} in the mean.")
    if lowest == lowest:
        notes.append(f"The two methods that agree least have τ = {lowest:.2f}.")
    unstable = [reason for reason in block.stability.reasons if reason not in block.pairs.reasons]
    limited = [f"Of more than {MANY} losses the ranks by test are not bootstrapped."] if len(observed) > MANY else []
    return make_table(
        f"ranks-{prefix}",
        f"Ranks of the losses by {block.called} over cases, by four methods that need not agree.",
        ["loss", *(f"by {method}" for method in methods), "first, by mean"],
        rows,
        data,
        notes=[*notes, *map(block.shortly, dict.fromkeys([*block.rankings.reasons, *unstable])), *limited],
    )
