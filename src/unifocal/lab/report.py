"""Words and tables for people: the terminal's table and `summary.md`. It formats what `statistics` computed."""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from unifocal.lab.data.cases import Dataset
from unifocal.lab.data.duplicates import Pair
from unifocal.lab.metrics import EMPTY_RULE, METRICS
from unifocal.lab.outcome import Comparison
from unifocal.lab.settings import Settings
from unifocal.lab.statistics.intervals import summarise
from unifocal.lab.storage import read_json, write_text

SHOWN = 20  # near-duplicate pairs listed


def near_duplicate_line(dataset: Dataset, pairs: Sequence[Pair]) -> str:
    """One line about near-duplicates, pixel-identical ones by name."""
    if not pairs:
        return "no near-duplicates found"
    identical = [pair for pair in pairs if pair.identical]
    line = f"{len(pairs)} pair{'s' * (len(pairs) > 1)} of near-duplicates found, kept in one fold each"
    if not identical:
        return f"{line}; none pixel-identical"
    names = ", ".join(f"{dataset.cases[pair.i].id} = {dataset.cases[pair.j].id}" for pair in identical[:SHOWN])
    more = ", ..." if len(identical) > SHOWN else ""
    return f"{line}; pixel-identical: {names}{more}"


def terminal_tables(comparison: Comparison) -> list[Table]:
    """One table per foreground class, the best of each column in bold."""
    tables = []
    for name, rows in _by_class(comparison):
        table = Table(title=f"{comparison.dataset.name}, {name}: mean ± 95 % interval over folds", box=box.SIMPLE_HEAD)
        complete = all(folds == str(comparison.settings.folds) for _, _, folds in rows)
        widest = max(len(label) for label, _, _ in rows)
        table.add_column("loss", overflow="fold", min_width=min(widest, 22 if complete else 14))
        for metric in METRICS:
            table.add_column(metric, justify="right", no_wrap=True)
        if not complete:
            table.add_column("folds", justify="right")
        for label, cells, folds in rows:
            # The half-width takes a line of its own, so that all columns fit into 80 characters.
            texts = [Text(text.replace(" ±", "\n±"), style="bold" if best else "") for text, best in cells]
            table.add_row(Text(label), *texts, *([] if complete else [Text(folds)]))
        tables.append(table)
    return tables


def write_summary(comparison: Comparison) -> None:
    """Write `summary.md`: what was compared, how, the result, what failed, and how to do it again."""
    dataset, settings = comparison.dataset, comparison.settings
    sections = [
        f"# Losses compared on {dataset.name}",
        f"{len(dataset.cases)} cases ({dataset.layout} layout), {settings.folds} folds, "
        f"{len(settings.losses)} losses, {settings.epochs} epochs, seed {settings.seed}.",
    ]
    for name, rows in _by_class(comparison):
        sections += [f"## Result: {name}", _markdown_table(rows)]
    sections += [
        "Mean over folds of each fold's mean over images, ± half the 95 % t-interval over the fold means; the best "
        "of a column is bold, among the losses that finished every fold. With few folds the interval is wide and may "
        "leave [0, 1]. Every number can be computed again from `results.csv`.",
        f"![Truth and predictions on the best, the median and the worst image]({comparison.picture_file.name})"
        if comparison.picture_file.exists()
        else "",
        "## Empty masks",
        EMPTY_RULE,
        _undefined(comparison),
        "## Failed runs",
        "\n".join(
            f"- {o.run.loss.label}, fold {o.run.fold}: {o.failure} (`{o.folder.name}/failure.json`)"
            for o in comparison.failures
        )
        or "None.",
        "## Near-duplicates",
        _near_duplicates(dataset, comparison.pairs),
        "## Settings",
        _settings(settings),
        "## Versions",
        _versions(comparison),
        "## Do it again",
        f"```\n{command(dataset, settings, comparison.out)}\n```",
    ]
    write_text(comparison.summary_file, "\n\n".join(section for section in sections if section) + "\n")


def command(dataset: Dataset, settings: Settings, out: Path) -> str:
    """The command that gives this comparison, every option written out."""
    words = ["unifocal", "compare", str(dataset.root)]
    words += ["--losses", ",".join(loss.label for loss in settings.losses)]
    for key, value in settings.model_dump(mode="json", exclude={"losses", "augment"}).items():
        if value is not None:
            words += [f"--{key.replace('_', '-')}", str(value)]
    words += ["--augment" if settings.augment else "--no-augment", "--out", str(out)]
    return shlex.join(words)


Rows = list[tuple[str, list[tuple[str, bool]], str]]  # label, (text, is best) per metric, folds


def _by_class(comparison: Comparison) -> list[tuple[str, Rows]]:
    folds = comparison.settings.folds
    summary = summarise(comparison.table).set_index(["class", "loss", "metric"])
    result = []
    for name in comparison.dataset.classes[1:]:
        several = len(comparison.settings.losses) > 1
        best = {metric: _best(summary, name, metric, folds) if several else math.nan for metric in METRICS}
        rows: Rows = []
        for loss in comparison.settings.losses:
            failed = sum(o.run.loss == loss for o in comparison.failures)
            done = f"{folds - failed} of {folds}" if failed else str(folds)
            cells = []
            for metric in METRICS:
                key = (name, loss.label, metric)
                if key not in summary.index:
                    cells.append(("–", False))
                    continue
                row = summary.loc[key]
                text = _interval(float(row["mean"]), float(row["half_width"]))
                cells.append((text, not failed and float(row["mean"]) == best[metric]))
            rows.append((loss.label, cells, done))
        result.append((name, rows))
    return result


def _best(summary: pd.DataFrame, name: str, metric: str, folds: int) -> float:
    if name not in summary.index.get_level_values("class"):
        return math.nan
    rows = summary.xs((name, metric), level=("class", "metric"))
    return float(rows.loc[rows["folds"] == folds, "mean"].max())


def _interval(mean: float, half_width: float) -> str:
    if math.isnan(mean):
        return "–"
    return f"{mean:.3f}" if math.isnan(half_width) else f"{mean:.3f} ± {half_width:.3f}"


def _markdown_table(rows: Rows) -> str:
    lines = ["| loss | " + " | ".join(METRICS) + " | folds |", "|---|" + "---:|" * (len(METRICS) + 1)]
    for label, cells, folds in rows:
        texts = [f"**{text}**" if best else text for text, best in cells]
        lines.append(f"| {label} | " + " | ".join(texts) + f" | {folds} |")
    return "\n".join(lines)


def _undefined(comparison: Comparison) -> str:
    summary = summarise(comparison.table)
    rows = summary[summary["undefined"] > 0]
    if rows.empty:
        return "No value was undefined."
    lines = ["| loss | class | metric | undefined | of |", "|---|---|---|---:|---:|"]
    for row in rows.itertuples(index=False):
        lines.append(f"| {row.loss} | {row[1]} | {row.metric} | {row.undefined} | {row.images} |")
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
    values = settings.model_dump(mode="json", exclude={"losses"})
    lines = ["| setting | value |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in values.items() if value is not None]
    lines += [
        "| optimiser | SGD, Nesterov momentum 0.99, learning rate × (1 − epoch / epochs)^0.9 |",
        "| best model | lowest validation loss |",
        "| network | original 2D U-Net, instance normalisation |",
    ]
    return "\n".join(lines)


def _versions(comparison: Comparison) -> str:
    """What the runs themselves were trained with, which need not be what is installed now."""
    seen: dict[str, set[str]] = {}
    for outcome in comparison.outcomes:
        if outcome.failure is None:
            result = read_json(outcome.folder / "result.json")
            for name, version in {**result["versions"], "device": result["device"]}.items():
                seen.setdefault(name, set()).add(str(version))
    if not seen:
        return "No run finished."
    return ", ".join(f"{name} {' and '.join(sorted(found))}" for name, found in seen.items()) + "."
