"""What was compared on: Table 1, the sizes of the lesions, near-duplicates, folds and their hash."""

import pandas as pd

from unifocal.lab.data.describe import sum_up
from unifocal.lab.data.duplicates import NearDuplicates, join
from unifocal.lab.experiment import Experiment, shares
from unifocal.lab.report.contents.results import slug
from unifocal.lab.report.figures.lesions import histogram
from unifocal.lab.report.figures.style import Drawing
from unifocal.lab.report.parts import Fold, Section, Text, captioned, parts
from unifocal.lab.report.reading import Study
from unifocal.lab.report.sizes import numbered
from unifocal.lab.report.summary import near_duplicate_line
from unifocal.lab.report.tables import Table, make_table
from unifocal.lab.runs import fingerprint
from unifocal.lab.words import counted

PAIRS = 50  # near-duplicates that the page lists


def data(study: Study) -> Section:
    """A sub-section for each data set."""
    sections = [_dataset(name, experiment, study) for name, experiment in study.experiments.items()]
    inner = sections[0].parts if len(sections) == 1 else sections
    return Section("data", "Data and folds", parts(inner))


def _dataset(name: str, experiment: Experiment, study: Study) -> Section:
    near = near_duplicate_line(experiment.dataset, experiment.pairs)
    pairs = near_duplicates_table(name, experiment)
    return Section(
        f"data-{slug(name)}",
        name,
        parts(
            description_table(name, experiment),
            captioned(lesion_sizes(name, experiment, study), name if len(study.datasets) > 1 else ""),
            Text(f"{near[0].upper()}{near[1:]}."),
            Fold(f"Near-duplicates ({counted(len(experiment.pairs), 'pair')})", (pairs,)) if pairs else None,
            folds_table(name, experiment),
        ),
    )


def description_table(name: str, experiment: Experiment) -> Table:
    """The papers' Table 1, as `unifocal describe` prints it."""
    dataset = experiment.dataset
    found = list(experiment.pairs) if dataset.dimension == 2 else []
    lines = sum_up(dataset, NearDuplicates(found, join(found, len(dataset.cases)))).lines()
    for n, (name_of, value) in enumerate(lines):
        lines[n] = (name_of or lines[n - 1][0], value)  # more of the same
    data = pd.DataFrame(lines, columns=["property", "value"])
    return make_table(f"data-{slug(name)}", f"{name}: what it holds.", ["property", name], lines, data, texts=[1])


def lesion_sizes(name: str, experiment: Experiment, study: Study) -> Drawing | None:
    lesions = study.lesions[study.lesions["dataset"] == name]
    if lesions.empty:
        return None
    distinct = numbered(lesions)
    distinct = distinct[~distinct.duplicated(["case", "class", "number"])]
    sizes = {target: distinct[distinct["class"] == target]["size"] for target in experiment.dataset.classes[1:]}
    unit = "px" if experiment.dataset.facts[0].spacing is None else "mm³"
    return histogram(sizes, unit, f"lesion-sizes-{slug(name)}")


def near_duplicates_table(name: str, experiment: Experiment) -> Table | None:
    if not experiment.pairs:
        return None
    cases = experiment.dataset.cases
    table = pd.DataFrame(
        [(cases[pair.i].id, cases[pair.j].id, pair.similarity, pair.identical) for pair in experiment.pairs],
        columns=["case", "other", "similarity", "identical"],
    )
    rows = [
        [row.case, row.other, "identical" if row.identical else f"{row.similarity:.2f}"]
        for row in table.head(PAIRS).itertuples()
    ]
    file = f"near-duplicates-{slug(name)}"
    more = [f"The first {PAIRS} of {len(table)}; {file}.csv has all."] if len(table) > PAIRS else []
    return make_table(
        file,
        f"{name}: near-duplicates, kept in one fold each.",
        ["image", "image", "similarity"],
        rows,
        table,
        texts=[1],
        notes=more,
    )


def folds_table(name: str, experiment: Experiment) -> Table:
    """Who is where, and a hash by which two comparisons can be seen to have the same folds."""
    present = [share > 0 for share in shares(experiment.dataset)]
    records = []
    for number, split in enumerate(experiment.splits):
        records.append(
            {
                "fold": number,
                "train": len(split.train),
                "validation": len(split.validation),
                "test": len(split.test),
                "test with foreground": sum(present[i] for i in split.test),
                "hash": fingerprint(experiment.names(split)),
            }
        )
    table = pd.DataFrame(records)
    rows = [[*(str(value) for value in row[:-1]), row[-1][:12]] for row in table.itertuples(index=False, name=None)]
    whole = fingerprint([experiment.names(split) for split in experiment.splits])
    return make_table(
        f"folds-{slug(name)}",
        f"{name}: folds.",
        list(table.columns),
        rows,
        table,
        texts=[5],
        notes=[
            f"SHA-256 of the cases of each part; of all folds together {whole[:16]}, of images, masks and classes "
            f"{experiment.data[:16]}. The same hash is the same division. folds.json names every case."
        ],
    )
