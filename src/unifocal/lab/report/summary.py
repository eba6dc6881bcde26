"""Words and tables for people: the terminal's table and `summary.md`. It formats what `statistics` computed."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from unifocal.lab.configuration import settings_from
from unifocal.lab.data.cases import Dataset
from unifocal.lab.data.duplicates import Pair
from unifocal.lab.experiment import Experiment
from unifocal.lab.metrics import EMPTY_RULE, MAIN
from unifocal.lab.outcome import Comparison
from unifocal.lab.pictures import PICTURE
from unifocal.lab.results import CANDIDATE
from unifocal.lab.settings import SECTIONS, Settings, changed, text_of
from unifocal.lab.statistics.intervals import summarise
from unifocal.lab.storage import read_json, write_text
from unifocal.lab.words import counted

ROUNDING = ("device", "devices", "threads", "deterministic")  # of the machine's settings, what numbers may depend on
SHOWN = 20  # near-duplicate pairs listed


def near_duplicate_line(dataset: Dataset, pairs: Sequence[Pair]) -> str:
    """One line about near-duplicates, pixel-identical ones by name."""
    if not pairs:
        return "no near-duplicates found"
    identical = [pair for pair in pairs if pair.identical]
    line = f"{counted(len(pairs), 'pair')} of near-duplicates found, kept in one fold each"
    if not identical:
        return f"{line}; none pixel-identical"
    names = ", ".join(f"{dataset.cases[pair.i].id} = {dataset.cases[pair.j].id}" for pair in identical[:SHOWN])
    more = ", ..." if len(identical) > SHOWN else ""
    return f"{line}; pixel-identical: {names}{more}"


def terminal_tables(comparison: Comparison) -> list[Table]:
    """One table for each data set and foreground class, the best of each column in bold."""
    tables = []
    for experiment, name, rows in _blocks(comparison):
        table = Table(title=f"{experiment.dataset.name}, {name}: mean ± 95 % interval over folds", box=box.SIMPLE_HEAD)
        complete = all(row.done == row.planned for row in rows)
        widest = max(len(row.label) for row in rows)
        table.add_column("loss", overflow="fold", min_width=min(widest, 14 if complete else 11))
        for metric in MAIN:
            table.add_column(metric, justify="right", no_wrap=True)
        if not complete:
            table.add_column("runs", justify="right", no_wrap=True)
        for row in rows:
            # The half-width takes a line of its own, so that all columns fit into 80 characters.
            texts = [Text(text.replace(" ±", "\n±"), style="bold" if best else "") for text, best in row.cells]
            table.add_row(Text(row.label), *texts, *([] if complete else [Text(row.runs)]))
        tables.append(table)
    return tables


def write_summary(comparison: Comparison) -> None:
    """Write `summary.md`: what was compared, how, the result, what failed, and how to do it again."""
    settings, experiments = comparison.settings, comparison.experiments
    names = " and ".join(e.dataset.name for e in experiments)
    sections = [f"# Losses compared on {names}"]
    sections += [
        f"{e.dataset.name}: {counted(len(e.dataset.cases), 'case')} ({e.dataset.layout} layout), "
        f"{counted(len(e.splits), 'fold')}."
        for e in experiments
    ]
    sections.append(
        f"{counted(len(settings.losses), 'loss', 'losses')}, {counted(len(settings.networks), 'network')}, "
        f"{counted(len(settings.seeds), 'seed')}, {counted(settings.epochs, 'epoch')}."
    )
    for experiment, name, rows in _blocks(comparison):
        heading = name if len(experiments) == 1 else f"{experiment.dataset.name}, {name}"
        sections += [f"## Result: {heading}", _markdown_table(rows)]
    sections.append(
        "Mean over folds of each fold's mean over images, ± half the 95 % t-interval over the fold means; the best "
        "of a column is bold, among those that finished every run. With few folds the interval is wide and may "
        "leave [0, 1]; then the part within is the 95 % interval. Every number can be computed again from "
        "`results.csv`."
    )
    for experiment in experiments:
        picture = (experiment.folder / PICTURE).relative_to(comparison.out)
        if (comparison.out / picture).exists():
            sections.append(f"![Truth and predictions on the best, the median and the worst image]({picture})")
    sections += [
        "## Empty masks",
        EMPTY_RULE,
        _undefined(comparison),
        "## Failed runs",
        "\n".join(f"- {o.run.title}: {o.failure} (`{o.folder.name}/failure.json`)" for o in comparison.failures)
        or "None.",
        "## Near-duplicates",
        *(_near_duplicates(e.dataset, e.pairs) for e in experiments),
        "## Settings",
        _settings(settings),
        "## Versions",
        _versions(comparison),
        "## Do it again",
        f"```\n{command(comparison)}\n```",
    ]
    write_text(comparison.out / "summary.md", "\n\n".join(section for section in sections if section) + "\n")


def command(comparison: Comparison) -> str:
    """The command that gives this comparison."""
    return command_of(comparison.settings, [e.dataset.root for e in comparison.experiments], comparison.out)


def command_of(settings: Settings, roots: Sequence[Path], out: Path, tune: Sequence[str] = ()) -> str:
    """The command that compares on the data in `roots`: every setting that is not the default, or the protocol's.

    `tune` makes it one that tunes: its words in place of the losses.
    """
    words = ["unifocal", "tune" if tune else "compare", *map(str, roots)]
    if settings.protocol:
        words += ["--protocol", settings.protocol]
    words += tune or ["--losses", ",".join(loss.label for loss in settings.losses)]
    base = settings_from({"protocol": settings.protocol}) if settings.protocol else Settings()
    for key, value in changed(settings, base).items():
        if key not in ("losses", "protocol"):
            option = key.replace("_", "-")
            words += (
                [f"--{option}" if value else f"--no-{option}"]
                if isinstance(value, bool)
                else [f"--{option}", text_of(value)]
            )
    return shlex.join([*words, "--out", str(out)])


@dataclass(frozen=True)
class Line:
    """A row of a table: how it is called, (text, is best) for each metric, and how many runs it stands on."""

    label: str
    cells: list[tuple[str, bool]]
    done: int
    planned: int

    @property
    def runs(self) -> str:
        return str(self.done) if self.done == self.planned else f"{self.done} of {self.planned}"


def _blocks(comparison: Comparison) -> list[tuple[Experiment, str, list[Line]]]:
    """For each data set and foreground class, a line for each network and loss."""
    settings = comparison.settings
    summary = summarise(comparison.cases).set_index([*CANDIDATE, "class", "metric"])
    candidates = [(network.label, loss.label) for network in settings.networks for loss in settings.losses]
    blocks = []
    for experiment in comparison.experiments:
        planned = len(experiment.splits) * len(settings.seeds)
        done = {
            key: sum(
                o.failure is None and o.experiment is experiment and (o.run.network.label, o.run.loss.label) == key
                for o in comparison.outcomes
            )
            for key in candidates
        }
        for name in experiment.dataset.classes[1:]:
            found = {
                (key, metric): summary.loc[place]
                for key in candidates
                for metric in MAIN
                if (place := (experiment.dataset.name, *key, name, metric)) in summary.index
            }
            whole = [key for key in candidates if done[key] == planned]
            best = {metric: _best([found[key, metric] for key in whole if (key, metric) in found]) for metric in MAIN}
            lines = []
            for key in candidates:
                cells = []
                for metric in MAIN:
                    row = found.get((key, metric))
                    mean = math.nan if row is None else float(row["mean"])
                    half = math.nan if row is None else float(row["half_width"])
                    is_best = len(candidates) > 1 and key in whole and f"{mean:.3f}" == f"{best[metric]:.3f}"
                    cells.append((_interval(mean, half), is_best))
                network, loss = key
                label = loss if len(settings.networks) == 1 else f"{network}, {loss}"
                lines.append(Line(label, cells, done[key], planned))
            blocks.append((experiment, name, lines))
    return blocks


def _best(rows: "Sequence[pd.Series[Any]]") -> float:
    """The highest mean; none where some are of fewer cases than others."""
    is_even = len({(row["values"], row["undefined"]) for row in rows}) == 1
    return max(float(row["mean"]) for row in rows) if is_even else math.nan


def _interval(mean: float, half_width: float) -> str:
    if math.isnan(mean):
        return "–"
    return f"{mean:.3f}" if math.isnan(half_width) else f"{mean:.3f} ± {half_width:.3f}"


def _markdown_table(rows: Sequence[Line]) -> str:
    lines = ["| loss | " + " | ".join(MAIN) + " | runs |", "|---|" + "---:|" * (len(MAIN) + 1)]
    for row in rows:
        texts = [f"**{text}**" if best else text for text, best in row.cells]
        lines.append(f"| {row.label} | " + " | ".join(texts) + f" | {row.runs} |")
    return "\n".join(lines)


def _undefined(comparison: Comparison) -> str:
    summary = summarise(comparison.cases)
    rows = summary[summary["undefined"] > 0]
    if rows.empty:
        return "No value was undefined."
    lines = ["| data | network | loss | class | metric | undefined | of |", "|---|---|---|---|---|---:|---:|"]
    for row in rows.to_dict("records"):
        cells = (row[key] for key in ("dataset", "network", "loss", "class", "metric", "undefined", "values"))
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _near_duplicates(dataset: Dataset, pairs: Sequence[Pair]) -> str:
    line = near_duplicate_line(dataset, pairs)
    lines = [f"{line[0].upper()}{line[1:]}."]
    if pairs:
        lines += ["", "| image | image | similarity |", "|---|---|---:|"]
    for pair in pairs[:SHOWN]:
        similarity = "identical" if pair.identical else f"{pair.similarity:.2f}"
        lines.append(f"| {dataset.cases[pair.i].id} | {dataset.cases[pair.j].id} | {similarity} |")
    if len(pairs) > SHOWN:
        lines += ["", f"... and {len(pairs) - SHOWN} more, in `folds.json`."]
    return "\n".join(lines)


def _settings(settings: Settings) -> str:
    """All that the numbers depend on; the defaults, too."""
    lines = ["| setting | value |", "|---|---|"]
    for section in SECTIONS:
        values = settings.section(section)
        if section == "Machine":
            values = {key: value for key, value in values.items() if key in ROUNDING}
        lines += [f"| {key} | {text_of(value)} |" for key, value in values.items() if value not in (None, [], "")]
    return "\n".join(lines)


def _versions(comparison: Comparison) -> str:
    """What the runs themselves were trained with, which need not be what is installed now."""
    seen: dict[str, set[str]] = {}
    for outcome in comparison.outcomes:
        if outcome.failure is None:
            result = read_json(outcome.folder / "result.json")
            machine = {"device": result["device"], "threads": result.get("threads", "unknown")}
            for name, version in {**result["versions"], **machine}.items():
                seen.setdefault(name, set()).add(str(version))
    if not seen:
        return "No run finished."
    return ", ".join(f"{name} {' and '.join(sorted(found))}" for name, found in seen.items()) + "."
