"""The galleries of every data set and network, or a word on why there are none."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from unifocal.lab.errors import LabError
from unifocal.lab.experiment import Experiment
from unifocal.lab.pictures import View, draw_rows
from unifocal.lab.progress import Track
from unifocal.lab.report.analysis import Block
from unifocal.lab.report.contents.results import slug
from unifocal.lab.report.parts import Fold, Gallery, Part, Section, Sheet, Text, Tile, captioned, parts
from unifocal.lab.report.pictures.choice import Shown, choose, read
from unifocal.lab.report.pictures.surfaces import bounding_box, surface
from unifocal.lab.report.pictures.tiles import colours, cut, tiles
from unifocal.lab.report.reading import Study

LOSSES = 12  # shown of each case
TRUTH_SURFACE = "#b9c0cc"


def pictures(study: Study, blocks: Sequence[Block], track: Track) -> Section | None:
    """A sub-section for each data set and network that has finished runs."""
    places = list(dict.fromkeys((block.dataset.name, block.network) for block in blocks))
    found = []
    for dataset, network in places:
        block = next(b for b in blocks if (b.dataset.name, b.network) == (dataset, network))
        inner = _place(study, study.experiments[dataset], block, track)
        if inner:
            title = ", ".join([dataset, *([network] if len(study.networks) > 1 else [])])
            section = Section(f"pictures-{slug(dataset + ' ' + network)}", title, inner)
            found.append(captioned(section, title if len(places) > 1 else ""))
    if not found:
        return None
    inner = found[0].parts if len(found) == 1 else tuple(found)
    return Section("pictures", "Pictures", parts(inner))


def _place(study: Study, experiment: Experiment, block: Block, track: Track) -> tuple[Part, ...]:
    chosen = choose(study, experiment, block.network)
    if not chosen:
        return ()
    best = set(list(block.ranked or study.losses)[:LOSSES])
    losses = [loss for loss in study.losses if loss in best]
    place = slug(f"{experiment.dataset.name} {block.network}")
    found: list[Part] = [Text(_legend(experiment, len(losses), len(study.losses), len(study.settings.seeds)))]
    rows = []
    for number, (why, case) in enumerate(track(chosen, f"pictures of {experiment.dataset.name}")):
        try:
            shown = read(study, experiment, block.network, why, case, losses)
        except (LabError, OSError) as error:
            return (Text(_lost(error)),)
        found += _case(shown, block, losses, f"picture-{place}-{number}")
        rows.append(_row(shown, block))
    names = [block.names[loss] for loss in losses]
    return (*found, Sheet(f"pictures-{place}", partial(draw_rows, rows, names)))


def _lost(error: Exception) -> str:
    return (
        "No pictures: the images, masks or predictions are not where the comparison found them, or damaged "
        f"({str(error).removesuffix('.')}). Predictions are made anew if cases.csv of their run is removed and the "
        "command repeated."
    )


def _row(shown: Shown, block: Block) -> tuple[Any, ...]:
    """A case on the sheet of all: the picture, or the slice with most foreground."""
    part = cut(shown, View.of(shown.truth, shown.spacing))
    scores = {block.names[loss]: (mask, shown.note(loss)) for loss, mask in part.predictions.items()}
    return f"{shown.why}\n{shown.case}{part.where}", part.image, part.truth, scores


def _legend(experiment: Experiment, shown: int, of: int, seeds: int) -> str:
    names = experiment.dataset.classes[1:]
    classes = "" if len(names) == 1 else f" Classes by colour: {_named(names)}."
    is_volume = experiment.dataset.dimension == 3
    here = "in this slice" if is_volume else "in this picture"
    whole = ", and of the whole volume, not of the slice" if is_volume else ""
    several = ""
    if len(names) > 1:
        several = f" The DSC below a tile is the mean over the classes{whole}."
    elif is_volume:
        several = " The DSC below a tile is of the whole volume, not of the slice."
    limited = f" The best {shown} of {of} losses." if shown < of else ""
    over = "losses and seeds; a line and its DSC are of one seed" if seeds > 1 else "losses"
    return (
        "The truth is filled, a prediction is a line. The first tile is the whole image with all predictions, and the "
        "dashed frame, around the truth, is what the others enlarge. Cases are chosen by their DSC, averaged over "
        f"{over}; those that show no {' or '.join(names)} are left out of best, median and worst. “5 % outside” below "
        f"a tile: 5 % of that prediction lie outside its frame; “nothing here”: it marks nothing {here}."
        f"{several}{classes}{limited}"
    )


def _named(names: Sequence[str]) -> str:
    words = ("vermilion", "sky blue", "yellow", "green", "purple", "blue", "orange")
    return ", ".join(f"{name} {words[n % len(words)]}" for n, name in enumerate(names))


def _case(shown: Shown, block: Block, losses: Sequence[str], name: str) -> Iterable[Part]:
    """The picture of a case; of a volume two slices and its surface."""
    named = [(loss, block.names[loss]) for loss in losses]
    classes = len(block.dataset.classes) - 1
    caption = f"{shown.why[0].upper()}{shown.why[1:]}: {shown.case}"
    if shown.truth.ndim == 2:
        yield tiles(cut(shown, View(None, 0)), name, caption, classes, named, shown.note)
        return
    for number, (view, what) in enumerate(_views(shown)):
        label = f"{caption}, slice {view.index} with {what}"
        yield tiles(cut(shown, view), f"{name}-{number}", label, classes, named, shown.note)
    seen = _surfaces(shown, named, classes, name, f"{caption}, surfaces in three dimensions")
    if seen:
        yield Fold(f"Surface of {shown.case}", (seen,))


def _views(shown: Shown) -> list[tuple[View, str]]:
    """The slice with most foreground, and the one with most errors, if that is another."""
    most = View.of(shown.truth, shown.spacing)
    others = tuple(n for n in range(3) if n != most.axis)
    errors = sum((mask != shown.truth).sum(others) for mask in shown.predictions.values())
    views = [(most, "most foreground")]
    if np.ndim(errors) and (worst := int(np.argmax(errors))) != most.index:
        views.append((View(most.axis, worst), "most errors"))
    return views


def _surfaces(shown: Shown, losses: Sequence[tuple[str, str]], classes: int, name: str, caption: str) -> Gallery | None:
    box = bounding_box([shown.truth, *shown.predictions.values()])
    if box is None or shown.spacing is None:
        return None
    paint = [pair[1] for pair in colours(classes)]
    plain = [TRUTH_SURFACE] if classes == 1 else paint
    found = [_seen(surface(shown.truth, box, shown.spacing, plain), "truth", "")]
    for loss, short in losses:
        mask = shown.predictions.get(loss)
        if mask is not None and mask.any():
            found.append(_seen(surface(mask, box, shown.spacing, paint), short, shown.note(loss)))
    return Gallery(f"{name}-surface", caption, "", tuple(found))


def _seen(address: str, title: str, note: str) -> Tile:
    image = f'<image width="1" height="1" href="{address}"/>'
    svg = f'<svg viewBox="0 0 1 1" focusable="false" aria-hidden="true">{image}</svg>'
    return Tile(svg, title, note, f"Surface of {title}")
