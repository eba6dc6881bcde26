"""The results of one block: means, comparisons, cases, sizes."""

import re

import numpy as np
import pandas as pd

from unifocal.lab.choices import LossChoice
from unifocal.lab.configuration import settings_from
from unifocal.lab.metrics import LOWER_IS_BETTER, MAIN, METRICS
from unifocal.lab.report.analysis import Block
from unifocal.lab.report.contents.compared import comparison_parts
from unifocal.lab.report.figures.by_size import by_size
from unifocal.lab.report.figures.means import cases, means
from unifocal.lab.report.figures.scatter import precision_recall
from unifocal.lab.report.numbers import NONE, called, heading, interval, notes_on, percent, size, span, value
from unifocal.lab.report.parts import Fold, Part, Section, Text, parts
from unifocal.lab.report.reading import Study
from unifocal.lab.report.sizes import FAVOURED
from unifocal.lab.report.tables import Cell, Table, make_table
from unifocal.lab.settings import changed, text_of
from unifocal.lab.statistics.intervals import fold_means, over_seeds

FIRST = (*MAIN, "HD95", "NSD")  # metrics of the main table; the others have a table of their own


def slug(text: str) -> str:
    """A text as part of a file name and of an address."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


def results(block: Block, study: Study, prefix: str) -> Section:
    """All that is told of a block; `prefix` begins the names of its files."""
    title = block.title or f"{block.target} of {block.dataset.name}"
    id_ = f"results-{prefix}"
    if block.scores is None:
        return Section(id_, title, (Text("Nothing yet."),))
    single = len(block.scores.losses) < 2
    return Section(
        id_,
        title,
        parts(
            main_table(block, study, prefix),
            alarms_table(block, prefix),
            means(block, over_seeds(fold_means(block.cases)), f"means-{prefix}"),
            None if single else comparison_parts(block, prefix),
            cases(block, f"cases-{prefix}"),
            precision_recall(block, f"precision-recall-{prefix}"),
            by_size(block, f"sizes-{prefix}"),
            Fold("More tables: other metrics, intervals over cases, sizes", _more(block, prefix)),
        ),
    )


def _more(block: Block, prefix: str) -> tuple[Part, ...]:
    return parts(
        metrics_table(block, [metric for metric in METRICS if metric not in FIRST], f"lesions-and-volume-{prefix}"),
        cases_table(block, prefix),
        sizes_table(block, prefix),
    )


def main_table(block: Block, study: Study, prefix: str) -> Table | None:
    """The chosen metric first, then the others; the paper's values beside ours where a protocol has them."""
    metrics = [block.metric, *(metric for metric in FIRST if metric != block.metric)]
    return metrics_table(block, metrics, f"main-{prefix}", published(block, study), _changes(study))


def metrics_table(
    block: Block,
    metrics: list[str],
    name: str,
    published: dict[tuple[str, str], float] | None = None,
    others: tuple[str, ...] = (),
) -> Table | None:
    """Mean and half-width of each metric by loss, the best complete loss of each in bold.

    `published` are the paper's values by loss and metric, `others` notes on them.
    """
    published = published or {}
    metrics = [metric for metric in metrics if (block.summary["metric"] == metric).any()]
    if not metrics:
        return None
    of_metric = {metric: block.means(metric) for metric in metrics}
    best = {metric: best_of(block, metric) for metric in metrics}
    papers = [metric for metric in metrics if any(key[1] == metric for key in published)]
    is_whole = len(block.finished) == len(block.losses)
    columns = ["loss"]
    for metric in metrics:
        columns += [heading(metric, block.spacing), *([f"paper's {called(metric)}"] if metric in papers else [])]
    rows, data = [], []
    intervals: list[tuple[float, float, str]] = []
    for loss in block.losses:
        row = [Cell(block.names[loss])]
        for metric in metrics:
            found = of_metric[metric]
            mean, half = found.loc[loss, ["mean", "half_width"]] if loss in found.index else (np.nan, np.nan)
            is_best = loss in best[metric]
            row.append(Cell(interval(mean, half, metric), is_best))
            intervals.append((mean, half, metric))
            paper = published.get((loss, metric), np.nan)
            if metric in papers:
                row.append(Cell(value(paper, metric)))
            counts = found.loc[loss, ["folds", "images", "values", "undefined"]] if loss in found.index else (0,) * 4
            data.append((loss, metric, mean, half, *map(int, counts), is_best, paper))
        rows.append([*row, *([] if is_whole else [Cell(f"{block.done[loss]} of {block.planned}")])])
    notes = [
        "Mean over folds of each fold's mean over cases, ± half of its 95 % t-interval; the best of a column is bold, "
        "among the losses with a result of every case."
    ]
    lacking = {metric: found for metric in metrics if (found := block.lacking.get(metric))}
    if lacking:
        told = "; ".join(
            f"{called(metric)}: {', '.join(f'{block.names[loss]} {n}' for loss, n in found.items())}"
            for metric, found in lacking.items()
        )
        notes.append(f"Results that are not there, by loss, each of which has no best place: {told}.")
    notes += notes_on(intervals)
    uneven = [metric for metric in metrics if not block.is_even(metric)]
    if uneven:
        notes.append(
            "Undefined on more cases for some losses than for others, so without a best: "
            f"{', '.join(map(called, uneven))}."
        )
    if papers:
        notes += ["The paper's values are from its own data, folds and networks.", *others]
    labels = ["loss", "metric", "mean", "half_width", "folds", "cases", "values", "undefined", "best", "paper"]
    return make_table(
        name,
        f"Results on {block.title or block.target}: mean ± half of the 95 % interval over folds.",
        [*columns, *([] if is_whole else ["runs"])],
        rows,
        pd.DataFrame(data, columns=labels),
        notes=notes,
    )


def best_of(block: Block, metric: str) -> set[str]:
    """The complete losses with the best mean as written, if there is something to be better than, on cases as many."""
    means = block.means(metric)["mean"].reindex(block.complete_in(metric)).dropna()
    if len(means) < 2 or not block.is_even(metric):
        return set()
    written = means.map(lambda mean: value(mean, metric))
    is_best = written == written[means.idxmin() if metric in LOWER_IS_BETTER else means.idxmax()]
    return set() if is_best.all() else set(means.index[is_best])


def published(block: Block, study: Study) -> dict[tuple[str, str], float]:
    """The paper's values of this block by loss and metric."""
    if study.protocol is None:
        return {}
    return {
        (LossChoice.parse(result.loss).label, result.metric): result.value
        for result in study.protocol.results
        if (result.network, result.target) == (block.network, block.target)
    }


def _changes(study: Study) -> tuple[str, ...]:
    """What was done otherwise than the protocol says, in a sentence."""
    if study.protocol is None:
        return ()
    own = settings_from({"protocol": study.protocol.name})
    machine = own.section("Machine")
    others = [
        f"{key} {text_of(value)} in place of {text_of(getattr(own, key))}"
        for key, value in changed(study.settings, own).items()
        if key not in machine
    ]
    return (f"Here these settings are not the protocol's: {'; '.join(others)}.",) if others else ()


def cases_table(block: Block, prefix: str) -> Table:
    """Means over cases with bootstrap intervals, and the spread between seeds where there are several."""
    table = block.over_cases.merge(block.seeds[["loss", "seeds", "sd"]], on="loss")
    several = (table["seeds"] > 1).any()
    unit = block.pairs.unit_name
    rows = [
        [
            block.names[row.loss],
            str(row.cases),
            value(row.mean, block.metric),
            span(row.low, row.high, block.metric),
            *([value(row.sd, block.metric)] if several else []),
        ]
        for row in table.itertuples()
    ]
    reasons = dict.fromkeys(reason for reasons in table["reasons"] for reason in reasons)
    return make_table(
        f"over-cases-{prefix}",
        f"{block.called} over cases: these trained networks on other cases of the same kind.",
        ["loss", "cases", "mean", "95 % interval", *(["sd between seeds"] if several else [])],
        rows,
        table.drop(columns="reasons"),
        notes=[
            f"BCa bootstrap (Efron 1987) of {unit}s, 2000 resamples. It does not hold the luck of training, as the "
            "interval over folds does.",
            *reasons,
        ],
    )


def alarms_table(block: Block, prefix: str) -> Table | None:
    """Cases that show nothing to find, apart from the others; none where there are none."""
    table = block.alarms
    if table.empty:
        return None
    several = block.cases["seed"].nunique() > 1
    rows = [
        [
            block.names[loss],
            str(int(row["cases"])),
            percent(row["share"]),
            *(value(row[metric], metric) for metric in FAVOURED),
        ]
        for loss, row in table.reindex([loss for loss in block.losses if loss in table.index]).iterrows()
    ]
    return make_table(
        f"alarms-{prefix}",
        f"Cases without {block.target}, in how many the networks find some, and the means over all other cases.",
        ["loss", "cases without", "with a false alarm", *FAVOURED],
        rows,
        table.reset_index(),
        notes=[
            "Without foreground each of these is 1 if nothing is found and 0 otherwise, so the means over all cases "
            "favour the loss that finds less; those over the others do not.",
            *(["Each case counts by the mean over its seeds."] if several else []),
        ],
    )


def sizes_table(block: Block, prefix: str) -> Table | None:
    """The thirds of the figure of sizes, as numbers."""
    groups = [("cases", block.case_thirds, block.metric), ("lesions", block.lesion_thirds, "lesion recall")]
    thirds = [(what, third, metric) for what, found, metric in groups for third in found]
    if not thirds:
        return None
    unit = "px" if block.spacing is None else "mm³"
    columns = [f"{what}, {third.name}" for what, third, _ in thirds]
    rows: list[list[str]] = [
        ["size [" + unit + "]", *(f"{size(third.smallest)} to {size(third.largest)}" for _, third, _ in thirds)],
        ["number", *(str(third.number) for _, third, _ in thirds)],
    ]
    data = []
    means = [third.rows.set_index("loss")["mean"] for _, third, _ in thirds]
    for loss in block.losses:
        found = [float(mean.get(loss, np.nan)) for mean in means]
        rows.append(
            [block.names[loss], *(value(mean, metric) for mean, (_, _, metric) in zip(found, thirds, strict=True))]
        )
    for what, third, metric in thirds:
        part = third.rows[["loss", "mean", "low", "high"]]
        data.append(
            part.assign(of=what, third=third.name, metric=metric, smallest=third.smallest, largest=third.largest)
        )
    return make_table(
        f"sizes-{prefix}",
        f"Results by size: {block.called} of cases by thirds of their foreground, and the share of lesions found by "
        "thirds of their size.",
        ["loss", *columns],
        rows,
        pd.concat(data, ignore_index=True),
        notes=[f"{NONE}: no value."] if any(NONE in row for row in rows) else [],
    )
