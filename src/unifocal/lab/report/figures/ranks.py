"""Ranks: the critical-difference diagram, and how often each loss takes each rank."""

from unifocal.lab.report.analysis import MANY
from unifocal.lab.report.figures.style import (
    ACCENT,
    INK,
    MUTED,
    RULE,
    WIDTH,
    Drawing,
    finish,
    inches,
    new_figure,
    row_height,
    styled,
)
from unifocal.lab.report.labels import clipped
from unifocal.lab.report.numbers import p_equals, percent
from unifocal.lab.statistics.friedman import Friedman
from unifocal.lab.statistics.stability import Stability
from unifocal.lab.words import counted

CROWDED = 10  # losses from which on the scale begins near the best rank, which may be far from 1
MARKS = 6  # steps of the scale that have room for a number
SCALE = 1.6  # inches at least of the scale of ranks, and what lies between it and the names


def critical_difference(result: Friedman, names: dict[str, str], name: str, care: str = "") -> Drawing | None:
    """Demšar's diagram: mean ranks on a line, bars over losses that the critical difference does not part.

    `care` is what a reader must know besides, added to the caption.
    """
    ranks = result.mean_ranks.dropna()
    if len(ranks) < 2:
        return None
    left_out = max(len(ranks) - MANY, 0)
    limited = f" The first {MANY} of {len(ranks)} losses." if left_out else ""
    ranks = ranks.iloc[:MANY]
    bars = [[loss for loss in bar if loss in ranks.index] for bar in result.bars]
    bars = [bar for bar in bars if len(bar) > 1]
    half = (len(ranks) + 1) // 2
    with styled():
        called = [f"{clipped(names[str(loss)], 26)}  {rank:.2f}" for loss, rank in ranks.items()]
        beside = max(map(inches, called)) + 0.1
        width = max(WIDTH, SCALE + 2 * beside)
        figure = new_figure(0.8 + 0.17 * len(bars) + 0.24 * half, width)
        axes = figure.subplots()
        low = int(ranks.min()) if len(ranks) > CROWDED else 1
        high = max(int(-(-ranks.max() // 1)), low + 1)
        span = high - low
        axes.set_axis_off()
        axes.plot([low, high], [0, 0], color=INK, lw=0.9)
        for tick in range(low, high + 1):
            axes.plot([tick, tick], [0, 0.25], color=INK, lw=0.9)
            if (tick - low) % -(-span // MARKS) == 0:
                axes.text(tick, 0.4, str(tick), ha="center", va="bottom")
        difference = result.critical_difference
        top = 1.9
        if 0 < difference <= span:
            axes.plot([low, low + difference], [top, top], color=ACCENT, lw=2.2, solid_capstyle="butt")
            axes.text(low + difference + 0.02 * span, top, f"CD {difference:.2f}", va="center", color=ACCENT)
        depth = 0.55
        for bar in bars:
            ends = ranks[bar[0]], ranks[bar[-1]]
            pad = 0.008 * span
            axes.plot([ends[0] - pad, ends[1] + pad], [-depth, -depth], color=ACCENT, lw=3, solid_capstyle="round")
            depth += 0.6
        for n, (loss, rank) in enumerate(ranks.items()):
            is_left = n < half
            row = n if is_left else len(ranks) - 1 - n
            y = -depth - 0.6 - row
            x = low - 0.06 * span if is_left else high + 0.06 * span
            axes.plot([rank, rank, x], [0, y, y], color=MUTED, lw=0.7)
            name_of = clipped(names[str(loss)], 26)
            text = f"{name_of}  {rank:.2f}" if is_left else f"{rank:.2f}  {name_of}"
            axes.text(x + (-0.02 if is_left else 0.02) * span, y, text, ha="right" if is_left else "left", va="center")
        aside = (0.08 + 1.16 * beside / (width - 2 * beside)) * span
        axes.set_xlim(low - aside, high + aside)
        axes.set_ylim(-depth - half - 0.2, top + 0.6)
        words = ", ".join(f"{names[str(loss)]} {rank:.2f}" for loss, rank in ranks.items())
        alike = "; ".join(" and ".join(names[loss] for loss in bar) for bar in bars) or "none"
        known = f" of {difference:.2f}" if difference == difference else ""
        test = f" Friedman's test: {p_equals(result.p)}." if result.p == result.p else ""
        return finish(
            figure,
            name,
            f"Mean ranks, 1 is best: {words}. Not told apart: {alike}.",
            f"Mean ranks over {counted(result.units, result.unit_name)}, 1 is best. Bars join losses less than the "
            f"critical difference{known} (Nemenyi, α = {result.alpha:g}) apart.{test}{limited}{care}",
        )


def stability(result: Stability, names: dict[str, str], name: str, method: str = "mean") -> Drawing | None:
    """How often each loss takes each rank when cases are drawn again."""
    rows = result.rows[result.rows["method"] == method].sort_values(["rank", "median"], kind="stable")
    frequencies = result.frequencies[result.frequencies["method"] == method]
    if len(rows) < 2 or frequencies.empty:
        return None
    losses = rows["loss"].tolist()[:MANY]
    limited = f" The first {MANY} of {len(rows)} losses." if len(rows) > MANY else ""
    with styled():
        figure = new_figure(row_height(len(losses)) + 0.2)
        axes = figure.subplots()
        ends = rows.set_index("loss")
        for n, loss in enumerate(losses):
            mine = frequencies[frequencies["loss"] == loss]
            axes.plot([ends.loc[loss, "low"], ends.loc[loss, "high"]], [n, n], color=RULE, lw=1.2, zorder=1)
            axes.scatter(mine["rank"], [n] * len(mine), s=170 * mine["share"], color=ACCENT, lw=0, zorder=2)
            axes.plot(ends.loc[loss, "rank"], n, "|", color=INK, ms=11, mew=1.4, zorder=3)
        axes.set_yticks(range(len(losses)), [clipped(names[loss]) for loss in losses])
        axes.set_ylim(len(losses) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        last = max(ends.loc[losses, ["high", "rank"]].max().max(), 2)
        axes.set_xlim(1 - max(0.5, 0.03 * last), last + max(0.5, 0.03 * last))
        axes.locator_params(axis="x", integer=True)
        axes.set_xlabel("rank")
        words = ", ".join(f"{names[loss]} {percent(ends.loc[loss, 'first'])}" for loss in losses)
        return finish(
            figure,
            name,
            f"Share of {result.resamples} bootstraps in which each loss is first: {words}.",
            f"Ranks by mean under {result.resamples} bootstraps of the cases. The area of a dot is how often the loss "
            f"takes that rank, the line holds 95 % of them, the stroke is the rank in the data.{limited}",
        )
