"""From the files of a comparison to the files of its report."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from unifocal.lab.progress import Track, silent
from unifocal.lab.report.figures.style import Drawing
from unifocal.lab.report.parts import Section, every, parts
from unifocal.lab.report.reading import Study, read_study
from unifocal.lab.report.tables import Table, write
from unifocal.lab.storage import write_text, write_with

PAGE = "report.html"
FILES = "report"  # folder of the tables and figures, beside the page


def write_report(folder: Path, track: Track = silent, metric: str = "DSC", live: bool = False) -> Path:
    """Write `report.html` into the output folder of a comparison, and its tables and figures into `report/`.

    It needs nothing but the files there; images and masks, for the pictures, are looked for where they were. With
    `live` the page loads itself anew, and there are neither pictures nor separate files. Returns the page.

    Raises LabError if the folder holds no comparison, or for an unknown metric.
    """
    study = read_study(folder)
    sections = build(study, metric, track, quick=live)
    if not live:
        written = _write_files(sections, study.folder / FILES, track)
        _remove_others(study.folder / FILES, written)
    from unifocal.lab.report.page import render

    page = study.folder / PAGE
    write_text(page, render(title(study), sections, live))
    return page


def follow(folder: Path, metric: str, tell: Callable[[Path, Study], object], every_seconds: float = 10.0) -> Path:
    """Write a live page whenever something has changed, until no run is under way; then the report.

    `tell` is called after each page. KeyboardInterrupt leaves the last page as an ordinary one, without pictures.
    """
    before: object = None
    try:
        while (study := read_study(folder)).is_under_way:
            now = [(run.state, run.epoch) for run in study.runs]
            spent = 0.0
            if now != before:
                started = time.monotonic()
                tell(write_report(folder, metric=metric, live=True), study)
                before, spent = now, time.monotonic() - started
            time.sleep(max(every_seconds, 5 * spent))  # most of the time is left to the training
    except KeyboardInterrupt:
        from unifocal.lab.report.page import render

        study = read_study(folder)
        write_text(study.folder / PAGE, render(title(study), build(study, metric, quick=True)))
        raise
    return write_report(folder, metric=metric)


def title(study: Study) -> str:
    return f"Losses compared on {' and '.join(study.datasets)}"


def build(study: Study, metric: str = "DSC", track: Track = silent, quick: bool = False) -> tuple[Section, ...]:
    """The sections of the report; `quick` leaves out the pictures."""
    from unifocal.lab.report.analysis import analyse
    from unifocal.lab.report.contents import data, methods, overview, results, training
    from unifocal.lab.report.pictures.gallery import pictures

    blocks = analyse(study, metric)
    keys = [(block.dataset.name, block.network, block.target) for block in blocks]
    inner = [
        results.results(block, study, results.slug(" ".join(key)))
        for block, key in track(list(zip(blocks, keys, strict=True)), "drawing")
    ]
    whole = inner[0].parts[1:] if len(inner) == 1 else tuple(inner)  # a single answer stands at the top
    found = parts(
        overview.answers(study, blocks),
        overview.cautions(study, blocks),
        methods.completeness(study, blocks) if quick else None,
        overview.together(blocks),
        Section("results", "Results", whole) if whole else None,
        None if quick else pictures(study, blocks, track),
        training.sweeping(study),
        training.training(study, blocks),
        data.data(study),
        None if quick else methods.completeness(study, blocks),
        methods.methods(study, blocks),
    )
    return tuple(part for part in found if isinstance(part, Section))


def _write_files(sections: Iterable[Section], folder: Path, track: Track) -> set[Path]:
    written: set[Path] = set()
    sections = tuple(sections)
    for table in track(list(every(Table, sections)), "writing tables"):
        written |= set(write(table, folder / "tables"))
    for drawing in every(Drawing, sections):
        for ending, content in drawing.files.items():
            path = folder / "figures" / f"{drawing.name}.{ending}"
            write_with(path, lambda part, content=content: part.write_bytes(content))  # type: ignore[misc]
            written.add(path)
    return written


def _remove_others(folder: Path, written: set[Path]) -> None:
    """Tables and figures of an earlier report that this one does not have."""
    for place in ("tables", "figures"):
        for path in (folder / place).glob("*"):
            if path not in written and path.suffix in (".csv", ".parquet", ".md", ".tex", ".svg", ".pdf"):
                path.unlink()
