"""From the files of a comparison to the files of its report."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from unifocal.lab.progress import Track, silent
from unifocal.lab.report.figures.style import Drawing, saved
from unifocal.lab.report.labels import shared
from unifocal.lab.report.parts import Section, Sheet, captioned, every, parts
from unifocal.lab.report.reading import Study, read_study
from unifocal.lab.report.tables import Table, write
from unifocal.lab.storage import write_text, write_with

PAGE = "report.html"
FILES = "report"  # folder of the tables and figures, beside the page
PAUSE = 10.0  # seconds at least between two looks at runs under way
LEISURE = 10.0  # and as many times as long as the last page took: the machine is the training's
MOMENT = 2.0  # seconds in which the next run begins


def write_report(folder: Path, track: Track = silent, metric: str = "DSC") -> Path:
    """Write `report.html` into the output folder of a comparison, and its tables and figures into `report/`.

    It needs nothing but the files there; images and masks, for the pictures, are looked for where they were. Returns
    the page. Raises LabError if the folder holds no comparison, or for an unknown metric.
    """
    study = read_study(folder)
    sections = build(study, metric, track)
    written = _write_files(sections, study.folder / FILES, track)
    _remove_others(study.folder / FILES, written)
    return _write_page(study, sections)


def follow(folder: Path, metric: str, tell: Callable[[Path, Study], object], begins: bool = False) -> Path:
    """Write a page that loads itself anew whenever something has changed, until no run is under way; then the report.

    `begins`: it has been planned just now, and the first run is yet to begin. `tell` is called after each page.
    KeyboardInterrupt passes, and leaves an ordinary page.
    """
    seen: object = None
    try:
        while (study := read_study(folder)).is_under_way or begins or _goes_on(folder):
            begins = begins and study.states == {"waiting"}
            now = [(run.state, run.epoch) for run in study.runs] + [(t.state, t.epoch) for t in study.trials]
            spent = 0.0
            if now != seen:
                started = time.monotonic()
                tell(_write_page(study, build(study, metric, quick=True), live=True), study)
                seen, spent = now, time.monotonic() - started
            time.sleep(max(PAUSE, LEISURE * spent))
    except KeyboardInterrupt:
        study = read_study(folder)
        _write_page(study, build(study, metric, quick=True))
        raise
    return write_report(folder, metric=metric)


def _goes_on(folder: Path) -> bool:
    """Does a run begin within a moment? One may have ended just now."""
    time.sleep(MOMENT)
    return read_study(folder).is_under_way


def _write_page(study: Study, sections: Sequence[Section], live: bool = False) -> Path:
    from unifocal.lab.report.page import render

    page = study.folder / PAGE
    write_text(page, render(title(study), sections, live))
    return page


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
        captioned(results.results(block, study, results.slug(" ".join(key))), block.title)
        for block, key in track(list(zip(blocks, keys, strict=True)), "drawing")
    ]
    whole = inner[0].parts if len(inner) == 1 else tuple(inner)
    named = shared(study.losses)
    which = partial(captioned, end=f" All losses here are {named}." if named else "")
    runs = methods.completeness(study, blocks)
    found = parts(
        overview.answers(study, blocks),
        overview.cautions(study, blocks),
        training.searching(study),
        which(runs) if quick else None,
        which(overview.together(blocks)),
        which(Section("results", "Results", whole)) if whole else None,
        None if quick else which(pictures(study, blocks, track)),
        training.sweeping(study),
        which(training.training(study, blocks)),
        data.data(study),
        None if quick else which(runs),
        methods.methods(study, blocks),
    )
    return tuple(part for part in found if isinstance(part, Section))


def _write_files(sections: Sequence[Section], folder: Path, track: Track) -> set[Path]:
    written: set[Path] = set()
    for table in every(Table, sections):
        written |= set(write(table, folder / "tables"))
    figures: list[Drawing | Sheet] = [*every(Drawing, sections), *every(Sheet, sections)]
    for figure in track(figures, "writing figures"):
        for ending, content in _contents(figure):
            path = folder / "figures" / f"{figure.name}.{ending}"
            write_with(path, partial(_fill, content=content))
            written.add(path)
    return written


def _contents(figure: Drawing | Sheet) -> list[tuple[str, bytes]]:
    """What a figure's files hold, by their endings."""
    if isinstance(figure, Drawing):
        return [("svg", figure.file), ("pdf", figure.pdf)]
    drawn = figure.draw()
    return [(ending, saved(drawn, ending, figure.name)) for ending in ("svg", "pdf")]


def _fill(part: Path, content: bytes) -> None:
    part.write_bytes(content)


def _remove_others(folder: Path, written: set[Path]) -> None:
    """Tables and figures of an earlier report that this one does not have."""
    for place in ("tables", "figures"):
        for path in (folder / place).glob("*"):
            if path not in written and path.suffix in (".csv", ".parquet", ".md", ".tex", ".svg", ".pdf"):
                path.unlink()
