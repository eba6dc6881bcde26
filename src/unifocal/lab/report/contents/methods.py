"""How it was done: runs and their ends, settings, losses, versions, and how the numbers were made."""

import platform
from collections.abc import Mapping
from importlib.metadata import version

import pandas as pd

from unifocal.lab.choices import LossChoice
from unifocal.lab.configuration import settings_from
from unifocal.lab.errors import LabError
from unifocal.lab.metrics import EMPTY_RULE
from unifocal.lab.report.analysis import Block
from unifocal.lab.report.numbers import NONE, called
from unifocal.lab.report.parts import Bullets, Code, Fold, Section, Text, parts
from unifocal.lab.report.reading import PlannedRun, Study
from unifocal.lab.report.summary import command_of
from unifocal.lab.report.tables import Cell, Table, make_table
from unifocal.lab.report.tuned import search_so_far
from unifocal.lab.settings import SECTIONS, text_of
from unifocal.lab.words import counted

TONES = {"finished": "", "failed": "bad", "running": "", "waiting": ""}


def completeness(study: Study, blocks: list[Block]) -> Section:
    """A table of all runs, and why some failed; what was undefined."""
    failed = [run for run in study.runs if run.state == "failed"]
    reasons = make_table(
        "failures",
        "Runs that failed.",
        ["run", "reason"],
        [[_called(run, study), run.reason or "unknown"] for run in failed],
        texts=[1],
    )
    return Section(
        "completeness",
        "Runs",
        parts(
            Text(sentence(study)),
            runs_table(study, blocks[0].names),
            reasons if failed else None,
            undefined_table(study, blocks),
        ),
    )


def sentence(study: Study) -> str:
    """`20 of 21 runs finished, 1 failed.`; of a search that has not ended, how far it is."""
    count = {state: sum(run.state == state for run in study.runs) for state in TONES}
    told = [f"{count['finished']} of {counted(len(study.runs), 'run')} finished"]
    told += [f"{count['failed']} failed"] * bool(count["failed"])
    told += [f"{count['running']} running"] * bool(count["running"])
    told += [f"{count['waiting']} not begun"] * bool(count["waiting"])
    left = f"; {study.time_left}" if study.time_left else ""
    if so_far := search_so_far(study):
        return f"{so_far}; of the losses at their defaults, which this page compares, {', '.join(told)}{left}."
    to_come = f"; still to come: {study.to_come}" if study.to_come else ""
    return f"{', '.join(told)}{to_come}{left}."


def _called(run: PlannedRun, study: Study) -> str:
    return f"{run.dataset}, {run.title}" if len(study.experiments) > 1 and run.dataset not in run.title else run.title


def runs_table(study: Study, names: Mapping[str, str]) -> Table:
    """A row for each loss, a column for each fold and seed."""
    columns = list(dict.fromkeys((run.fold, run.seed) for run in study.runs))
    by_row: dict[tuple[str, str, str], dict[tuple[int, int], PlannedRun]] = {}
    for run in study.runs:
        by_row.setdefault((run.dataset, run.network, run.loss), {})[run.fold, run.seed] = run
    several = len({key[:2] for key in by_row}) > 1
    rows = []
    for (dataset, network, loss), runs in by_row.items():
        name = f"{dataset}, {network}, {names[loss]}" if several else names[loss]
        rows.append([Cell(name), *(_state(runs.get(column)) for column in columns)])
    many_seeds = len(study.settings.seeds) > 1
    data = pd.DataFrame(
        [(*run.key, run.state, run.epoch, run.epochs, run.reason or "") for run in study.runs],
        columns=["dataset", "network", "loss", "fold", "seed", "state", "epoch", "epochs", "reason"],
    )
    return make_table(
        "runs",
        "Every run that was asked for.",
        ["loss", *(f"fold {fold}" + (f", seed {seed}" if many_seeds else "") for fold, seed in columns)],
        rows,
        data,
        texts=list(range(1, len(columns) + 1)),
    )


def _state(run: PlannedRun | None) -> Cell:
    if run is None:
        return Cell(NONE)
    if run.state == "finished":
        return Cell("done")
    if run.state == "running":
        return Cell(f"epoch {run.epoch} of {run.epochs}")
    if run.state == "failed":
        return Cell("failed", tone="bad")
    return Cell(f"stopped at {run.epoch}" if run.epoch else "missing", tone="none")


def undefined_table(study: Study, blocks: list[Block]) -> Table | None:
    """Values that say nothing, by metric; left out of every mean."""
    rows = [
        block.summary[block.summary["undefined"] > 0].assign(block=block.title or block.target)
        for block in blocks
        if len(block.summary)
    ]
    table = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()
    if table.empty:
        return None
    names = blocks[0].names
    wide = table.pivot_table(index=["block", "loss"], columns="metric", values="undefined", sort=False)
    several = len(blocks) > 1
    cells = [
        [
            f"{block}, {names[loss]}" if several else names[loss],
            *(f"{number:.0f}" if number == number else "0" for number in row),
        ]
        for (block, loss), row in zip(wide.index, wide.to_numpy(), strict=True)
    ]
    most = int(table["values"].max())
    each = "case and seed" if len(study.settings.seeds) > 1 else "case"
    return make_table(
        "undefined",
        f"Undefined values, of at most {most} for each loss and metric, one for each {each}; they are left out of the "
        "means.",
        ["loss", *(called(str(metric)) for metric in wide.columns)],
        cells,
        table[["block", "loss", "metric", "undefined", "values"]],
    )


def methods(study: Study, blocks: list[Block]) -> Section:
    """Settings, losses, versions, and what every number is."""
    return Section(
        "methods",
        "Methods",
        parts(
            Section("losses", "Losses", parts(losses_table(study, blocks))),
            Section(
                "numbers",
                "How the numbers were made",
                parts(Bullets(_numbers(study, blocks)), Fold("Empty masks", _empty())),
            ),
            Section(
                "settings",
                "Settings, versions, hardware",
                parts(
                    Fold("All settings", parts(settings_table(study))),
                    versions_table(study),
                    Text("Done by:"),
                    Code(
                        command_of(study.settings, [d.root for d in study.datasets.values()], study.folder, study.tune)
                    ),
                ),
            ),
        ),
    )


def losses_table(study: Study, blocks: list[Block]) -> Table:
    names = blocks[0].names
    rows = [[names[label], label, _as_built(label)] for label in study.losses]
    caption = "Losses: their names in this report, as they were asked for, and with all parameters."
    return make_table("losses", caption, ["here", "asked for", "with all parameters"], rows, texts=[1, 2])


def _as_built(label: str) -> str:
    """A loss with its defaults; of one that this version does not know, nothing."""
    try:
        return repr(LossChoice.parse(label).build()).replace("None", "none")  # as the command line has it
    except LabError:
        return NONE


def _numbers(study: Study, blocks: list[Block]) -> tuple[str, ...]:
    block = next((block for block in blocks if block.scores is not None), None)
    unit = block.pairs.unit_name if block else "case"
    seeds = (
        "The mean of a fold is that of its seeds' means over the cases; in tests, ranks and bootstraps the mean over "
        "its seeds stands for a case. Seeds are no further folds or cases. "
        if len(study.settings.seeds) > 1
        else ""
    )
    return (
        "Every metric is measured case by case on the grid of the original image; a result is the mean over folds of "
        f"each fold's mean over its test cases. {seeds}Each case is tested once, by networks that never saw it.",
        "± is half of the 95 % t-interval over fold means: the spread of training and test cases together. Training "
        "sets overlap, which makes it a little too narrow.",
        f"Two losses are compared over {unit}s by Wilcoxon's signed-rank test (paired; zeros by Pratt; exact up to "
        "50), and over folds by the corrected resampled t-test (Nadeau and Bengio 2003); both by Holm over all pairs. "
        "The first answers for new cases, the second for new trainings. A loss is called better only where both "
        "reject.",
        "Critical differences are Nemenyi's after Friedman's test (Demšar 2006). Ranks are drawn again by bootstraps "
        "of whole groups (Wiesenfarth et al. 2021).",
        "The test cases chose nothing: epochs are chosen by validation cases of the training part.",
    )


def _empty() -> tuple[Bullets, Text]:
    rules, rest = EMPTY_RULE.rsplit("\n\n", 1)
    return Bullets(tuple(line.removeprefix("- ") for line in rules.splitlines())), Text(rest)


def settings_table(study: Study) -> Table:
    """All that the numbers depend on, with the source of what a protocol sets and what was given in its place."""
    sources = dict(study.protocol.sources) if study.protocol else {}
    if study.protocol:
        set_by_it = settings_from({"protocol": study.protocol.name})
        for key, source in sources.items():
            if (own := getattr(set_by_it, key)) != getattr(study.settings, key):
                sources[key] = f"given in place of {text_of(own)} ({source})"
    rows = []
    for section in SECTIONS:
        if section == "Machine":
            continue
        for key, value in study.settings.section(section).items():
            if value not in (None, [], ""):
                rows.append([key, text_of(value), *([sources.get(key, "")] if sources else [])])
    columns = ["setting", "value", *(["source"] if sources else [])]
    return make_table("settings", "Settings that the numbers depend on.", columns, rows, texts=[1, 2])


def versions_table(study: Study) -> Table | None:
    """What the finished runs were trained with, which need not be what is installed now."""
    seen: dict[tuple[str, ...], int] = {}
    for run in study.runs:
        if run.result:
            versions = [f"{name} {number}" for name, number in run.result.get("versions", {}).items()]
            of_run = (str(run.result.get(name, NONE)) for name in ("device", "processor", "threads"))
            key = (*of_run, ", ".join(versions))
            seen[key] = seen.get(key, 0) + 1
    if not seen:
        return None
    seeds = ", ".join(map(str, study.settings.seeds))
    here = f"Tests and intervals of this page: Python {platform.python_version()}, SciPy {version('scipy')}."
    return make_table(
        "versions",
        "Hardware and versions of the finished runs.",
        ["device", "processor", "CPU threads", "versions", "runs"],
        [[*key, str(number)] for key, number in seen.items()],
        texts=[1, 3],
        notes=[
            f"Seeds of weights, order and augmentation: {seeds}; of the folds: {study.settings.split_seed}.",
            here,
        ],
    )
