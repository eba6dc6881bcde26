"""What stands first: the answer, warnings, and what all blocks say together."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from unifocal.lab.metrics.surfaces import TOLERANCE
from unifocal.lab.report.analysis import ALPHA, Block
from unifocal.lab.report.answer import answer
from unifocal.lab.report.contents.compared import diagram
from unifocal.lab.report.contents.methods import sentence
from unifocal.lab.report.contents.results import best_of, published
from unifocal.lab.report.numbers import interval, notes_on
from unifocal.lab.report.parts import Bullets, Fold, Part, Section, Text, parts
from unifocal.lab.report.reading import Study
from unifocal.lab.report.tables import Cell, Table, make_table
from unifocal.lab.report.tuned import tuned
from unifocal.lab.report.warnings import warnings
from unifocal.lab.statistics.datasets import over_datasets
from unifocal.lab.statistics.friedman import friedman
from unifocal.lab.words import counted


def answers(study: Study, blocks: Sequence[Block]) -> Section:
    """What tuning recommends, then two sentences for each block; the first is large where all is of one thing."""
    before = tuned(study)
    found: list[Part] = [Text(text, is_lead=n == 0) for n, text in enumerate(before)]
    for block in blocks:
        first, *rest = answer(block, study)
        found += (
            [Text(first, is_lead=not before), *map(Text, rest)]
            if len(blocks) == 1
            else [Text(" ".join([first, *rest]))]
        )
    return Section("answer", "Answer", (*found, Text(facts(study, blocks)), reading(study)))


def reading(study: Study) -> Fold:
    """The metrics of the first tables in words; docs/metrics.md has all of them."""
    length = {"px" if dataset.facts[0].spacing is None else "mm" for dataset in study.datasets.values()}
    unit = " or ".join(sorted(length))
    return Fold(
        "How to read this",
        (
            Bullets(
                (
                    "DSC (Dice) and IoU: the overlap of prediction and truth, 0 for none and 1 for the same. For "
                    "masks P and T, DSC = 2 |P ∩ T| / (|P| + |T|), and IoU = |P ∩ T| / |P ∪ T|.",
                    "Precision: the part of the prediction that is right. Recall: the part of the truth that is found.",
                    f"HD95: the distance in {unit} within which 95 % of either surface lie from the other; lower is "
                    "better, and it is undefined where either mask is empty.",
                    f"NSD: the share of both surfaces that lies within {TOLERANCE:g} {unit} of the other.",
                    "A lesion is a connected region of the truth. It is found if the prediction covers one "
                    f"{'pixel' if unit == 'px' else 'voxel'} of it at least; a predicted one is false if it touches no "
                    "true one.",
                    "Each metric is measured case by case, then averaged over the test cases of a fold, then over "
                    "folds; ± is half of the 95 % interval over folds.",
                )
            ),
        ),
    )


def facts(study: Study, blocks: Sequence[Block]) -> str:
    """The size of the study in a line."""
    cases = sum(len(dataset.cases) for dataset in study.datasets.values())
    folds = {len(experiment.splits) for experiment in study.experiments.values()}
    told = [
        counted(len(study.losses), "loss", "losses"),
        counted(len(study.networks), "network"),
        *([counted(len(study.datasets), "data set")] if len(study.datasets) > 1 else []),
        counted(cases, "case"),
        " or ".join(counted(n, "fold") for n in sorted(folds)),
        counted(len(study.settings.seeds), "seed"),
        counted(study.settings.epochs, "epoch"),
    ]
    protocol = f" Protocol {study.protocol.name} ({study.protocol.source})." if study.protocol else ""
    return f"{', '.join(told)}. {sentence(study)}{protocol}{_on_paper(study, blocks)}"


def _on_paper(study: Study, blocks: Sequence[Block]) -> str:
    """Why no value of a protocol's paper stands beside the results."""
    if study.protocol is None or any(published(block, study) for block in blocks):
        return ""
    which = "are of other networks or classes" if study.protocol.results else "are not on file"
    return f" The results of its paper {which}, so none stand beside these."


def cautions(study: Study, blocks: list[Block]) -> Section | None:
    found = warnings(study, blocks)
    return Section("cautions", "Read with care", (Bullets(tuple(found)),)) if found else None


def together(blocks: Sequence[Block]) -> Section | None:
    """All blocks in one table, and losses over data sets where there are several."""
    if len(blocks) < 2:
        return None
    return Section("together", "Overview", parts(together_table(blocks), *_over_datasets(blocks)))


def together_table(blocks: Sequence[Block]) -> Table:
    """A row for each loss, a column for each block, the best of each in bold."""
    metric, losses, names = blocks[0].metric, blocks[0].losses, blocks[0].names
    rows, data = [], []
    best = [best_of(block, metric) for block in blocks]
    for loss in losses:
        row = [Cell(names[loss])]
        for block, winners in zip(blocks, best, strict=True):
            table = block.means(metric)
            mean, half = table.loc[loss, ["mean", "half_width"]] if loss in table.index else (np.nan, np.nan)
            row.append(Cell(interval(mean, half, metric), loss in winners))
            data.append((loss, block.dataset.name, block.network, block.target, metric, mean, half, loss in winners))
        rows.append(row)
    columns = ["loss", "dataset", "network", "class", "metric", "mean", "half_width", "best"]
    return make_table(
        "together",
        f"{blocks[0].called} of every loss on all that it was tried on: mean ± 95 % interval over folds.",
        ["loss", *(block.title for block in blocks)],
        rows,
        pd.DataFrame(data, columns=columns),
        notes=notes_on((row[5], row[6], metric) for row in data),
    )


def _over_datasets(blocks: Sequence[Block]) -> list[Part | None]:
    """Data sets as the units, one class and network of each: the losses compared on new data sets."""
    first: dict[str, Block] = {}
    for block in blocks:
        if block.scores is not None:
            first.setdefault(block.dataset.name, block)
    if len(first) < 2:
        return []
    scores = over_datasets({name: block.scores for name, block in first.items() if block.scores is not None})
    result = friedman(scores, ALPHA)
    which = "; ".join(f"{name}: {block.target}, {block.network}" for name, block in first.items())
    return [
        diagram(
            result,
            dict(blocks[0].names),
            "critical-difference-data-sets",
            " ".join([f" Data sets are the units, by one class and network each ({which}).", *result.reasons]),
        ),
    ]
