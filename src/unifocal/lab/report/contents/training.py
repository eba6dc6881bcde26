"""How the networks were trained: learning curves, cost, the sweep of a loss's parameters, or the search for them."""

import statistics
from collections.abc import Sequence

import pandas as pd

from unifocal.lab.grid.status import duration
from unifocal.lab.report.analysis import Block
from unifocal.lab.report.contents.results import slug
from unifocal.lab.report.figures.curves import learning, sweep
from unifocal.lab.report.figures.trials import landscape
from unifocal.lab.report.labels import short_names
from unifocal.lab.report.numbers import NONE, interval, notes_on, value
from unifocal.lab.report.parts import Bullets, Code, Part, Section, Text, captioned, parts
from unifocal.lab.report.reading import PlannedRun, Study
from unifocal.lab.report.tables import Cell, Table, make_table
from unifocal.lab.words import counted

METRIC = "DSC"  # that `tune` chooses by


def training(study: Study, blocks: Sequence[Block]) -> Section | None:
    """Curves and cost of each data set and network."""
    places = list(dict.fromkeys((run.dataset, run.network) for run in study.runs))
    found = parts(*(_place(study, blocks, *place, is_only=len(places) == 1) for place in places))
    return Section("training", "Training and cost", found) if found else None


def _place(study: Study, blocks: Sequence[Block], dataset: str, network: str, is_only: bool) -> tuple[Part, ...]:
    block = next(b for b in blocks if (b.dataset.name, b.network) == (dataset, network))
    runs = [run for run in study.runs if (run.dataset, run.network) == (dataset, network)]
    order = [*block.ranked, *(loss for loss in study.losses if loss not in block.ranked)]
    histories = {loss: [run.history for run in runs if run.loss == loss] for loss in order}
    name = slug(f"{dataset} {network}")
    title = "" if is_only else f"{dataset}, {network}"
    return parts(
        captioned(learning(histories, block.names, f"learning-{name}"), title),
        cost_table(runs, block, f"cost-{name}", title),
    )


def cost_table(runs: Sequence[PlannedRun], block: Block, name: str, title: str) -> Table | None:
    """Time and memory of each loss over its finished runs."""
    data = pd.DataFrame(
        [
            {
                "loss": run.loss,
                "fold": run.fold,
                "seed": run.seed,
                **{key: run.result.get(key) for key in ("seconds_per_epoch", "seconds", "epochs", "best_epoch")},
                **{key: run.result.get(key) for key in ("gpu_bytes", "parameters", "device", "threads")},
            }
            for run in runs
            if run.result
        ]
    )
    if data.empty:
        return None
    on_gpu = data["gpu_bytes"].notna().any()
    means = data.groupby("loss")["seconds_per_epoch"].median()
    fastest = means.min()
    rows: list[list[Cell | str]] = []
    for loss in block.losses:
        mine = data[data["loss"] == loss]
        if mine.empty:
            rows.append([block.names[loss], *[NONE] * (6 if on_gpu else 5)])
            continue
        pace = means[loss]
        memory = mine["gpu_bytes"].max()
        rows.append(
            [
                block.names[loss],
                str(len(mine)),
                duration(pace),
                f"{pace / fastest:.2f} ×" if fastest else NONE,
                duration(mine["seconds"].sum()),
                f"{mine['best_epoch'].median() + 1:g} of {mine['epochs'].median():g}",
                *([f"{memory / 2**20:.0f} MiB" if memory == memory else NONE] if on_gpu else []),
            ]
        )
    parameters = statistics.median(data["parameters"].dropna()) if data["parameters"].notna().any() else None
    of = f", {title}" if title else ""
    size = (
        f" The network has {parameters:,.0f} parameters.".replace(",", "\N{NARROW NO-BREAK SPACE}")
        if parameters
        else ""
    )
    return make_table(
        name,
        f"Cost of training{of}.",
        [
            "loss",
            "runs",
            "an epoch",
            "to the fastest",
            "all runs together",
            "best epoch",
            *(["GPU memory, peak"] if on_gpu else []),
        ],
        rows,
        data,
        notes=[
            "Medians over finished runs, but for “all runs together”, which is their sum; times hold the machine's "
            f"other work, too.{size}" + ("" if on_gpu else " Memory is measured on GPUs only.")
        ],
    )


def sweeping(study: Study) -> Section | None:
    """What `tune` has tried."""
    table = study.sweep
    if table.empty:
        return None
    names = short_names(list(dict.fromkeys(table["loss"])))
    rows = [
        [
            Cell(f"{row.parameter} = {row.value}", bool(row.chosen)),
            Cell(interval(row.validation, row.validation_half_width, METRIC), bool(row.chosen)),
            Cell(interval(row.test, row.test_half_width, METRIC), bool(row.chosen)),
            Cell("chosen" if row.chosen else ""),
        ]
        for row in table.itertuples()
    ]
    last = table[table["chosen"]]["loss"].iloc[-1] if table["chosen"].any() else ""
    drawing = sweep(table, METRIC, "sweep")
    return Section(
        "sweep",
        "Sweep of the loss's parameters",
        parts(
            Text(
                f"{counted(len(table), 'value')} tried in {counted(table['stage'].nunique(), 'stage')}; each stage "
                f"fixes its parameter before the next. The outcome is {last or 'not yet known'}. What the rest of this "
                "page compares are the losses of the last stage, on the test cases."
            ),
            Bullets(tuple(study.recommended["told"])) if study.recommended else None,
            _confirming(study.recommended.get("confirm")),
            drawing,
            make_table(
                "sweep",
                f"Sweep: {METRIC} of each value tried, mean ± 95 % interval over folds.",
                ["value", "validation", "test", ""],
                rows,
                table.assign(short=table["loss"].map(names)),
                texts=[3],
                notes=[
                    "Chosen by the validation cases of all folds together, as in the papers. A case that is tested on "
                    "in one fold may choose in another, so the test means of what was chosen are a little too good; "
                    "other cases, or other folds and seeds, would confirm it.",
                    *notes_on(
                        (mean, half, METRIC)
                        for part in ("validation", "test")
                        for mean, half in zip(table[part], table[f"{part}_half_width"], strict=True)
                    ),
                ],
            ),
        ),
    )


def searching(study: Study) -> Section | None:
    """What `tune --search` has found."""
    table = study.search
    if table.empty:
        return None
    rows, winners = [], table[table["chosen"]]
    for fold, of_fold in winners.groupby("fold"):
        row = of_fold.iloc[0]
        validation, test = (value(row[part], METRIC) for part in ("validation", "test"))
        rows.append([str(fold), row["loss"], str(row["trial"]), validation, test])
    states = ", ".join(f"{number} {state}" for state, number in table["state"].value_counts().items())
    return Section(
        "search",
        "Search for a loss",
        parts(
            Text(
                f"{counted(len(table), 'trial')} on {counted(table['fold'].nunique(), 'fold')} ({states}). On each "
                "fold the validation cases alone chose. What the rest of this page compares are the losses of the "
                "search at their defaults."
            ),
            Bullets(tuple(study.outcome["told"])) if study.outcome else None,
            _confirming(study.outcome.get("confirm")),
            landscape(table, study.outcome["candidate"], study.outcome["logarithmic"], METRIC, "search")
            if study.outcome
            else None,
            make_table(
                "search",
                f"Search: the loss chosen on each fold, and its {METRIC}.",
                ["fold", "chosen", "trial", "validation", "test"],
                rows,
                table,
                texts=[1],
                notes=["The test cases chose nothing; on them the chosen loss is trained again, from another seed."],
            ),
        ),
    )


def _confirming(command: str | None) -> tuple[Part, ...]:
    told = "What would confirm it on other folds, from other seeds; cases that are new altogether would prove more:"
    return (Text(told), Code(command)) if command else ()
