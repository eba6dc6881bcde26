"""One slice of a case as SVG tiles: the image is there once; every tile cuts its part out and draws contours on it."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unifocal.lab.pictures import PREDICTION, TRUTH, View, window
from unifocal.lab.report.numbers import percent
from unifocal.lab.report.parts import Gallery, Tile
from unifocal.lab.report.pictures.choice import Mask, Shown

LARGEST = 420  # px of a shown image's longer side
CLASSES = ("#d55e00", "#56b4e9", "#f0e442", "#009e73", "#cc79a7", "#0072b2", "#e69f00")  # Okabe and Ito's


@dataclass(frozen=True)
class Slice:
    """A picture, or one slice of a volume, on a square grid no finer than needed."""

    image: NDArray[np.uint8]
    truth: Mask
    predictions: Mapping[str, Mask]
    where: str

    @property
    def marked(self) -> list[Mask]:
        return [self.truth, *self.predictions.values()]


def cut(shown: Shown, view: View) -> Slice:
    """The slice that `view` shows."""
    image = view.cut(shown.image)
    low, high = np.percentile(image, (0.5, 99.5))
    grey = np.clip((image - low) / max(float(high - low), 1e-9) * 255, 0, 255).astype(np.uint8)
    size = _size(grey.shape, _in_plane(shown.spacing, view))

    def fitted(mask: Mask) -> Mask:
        return np.asarray(Image.fromarray(view.cut(mask)).resize(size, Image.Resampling.NEAREST))

    smooth = Image.fromarray(grey).resize(size, Image.Resampling.LANCZOS)
    predictions = {loss: fitted(mask) for loss, mask in shown.predictions.items() if mask.shape == shown.truth.shape}
    return Slice(np.asarray(smooth), fitted(shown.truth), predictions, view.where)


def _in_plane(spacing: Sequence[float] | None, view: View) -> tuple[float, float]:
    """Of rows and of columns of a slice as `View.cut` lays it out."""
    if spacing is None or view.axis is None:
        return 1.0, 1.0
    first, second = (spacing[n] for n in range(3) if n != view.axis)
    return second, first


def _size(shape: tuple[int, ...], spacing: tuple[float, float]) -> tuple[int, int]:
    """(width, height) with square pixels, no larger than `LARGEST`."""
    height, width = (n * step / min(spacing) for n, step in zip(shape, spacing, strict=True))
    scale = min(1.0, LARGEST / max(height, width))
    return max(round(width * scale), 1), max(round(height * scale), 1)


def colours(classes: int) -> list[tuple[str, str]]:
    """(truth, prediction) of each class but the background: apart where there is one class, else the class's own."""
    if classes == 1:
        return [(TRUTH, PREDICTION)]
    return [(CLASSES[n % len(CLASSES)],) * 2 for n in range(classes)]


def tiles(
    part: Slice, name: str, caption: str, classes: int, losses: Sequence[tuple[str, str]], note_on: Callable[[str], str]
) -> Gallery:
    """The whole image with the frame of what the other tiles enlarge, then a tile for each (loss, short name).

    `note_on` tells of the prediction of a loss.

    The frame holds the truth; where there is none, all predictions. The first tile shows what is predicted outside.
    """
    height, width = part.truth.shape
    top, bottom, left, right = window([part.truth] if part.truth.any() else part.marked, margin=0.5)
    paint = colours(classes)
    truth = "".join(
        f'<path d="{outline(part.truth == n)}" fill="{colour}" fill-opacity="0.38" fill-rule="evenodd"/>'
        for n, (colour, _) in enumerate(paint, start=1)
    )
    lines = {
        loss: "".join(
            f'<path d="{outline(mask == n)}" fill="none" stroke="{colour}" vector-effect="non-scaling-stroke"/>'
            for n, (_, colour) in enumerate(paint, start=1)
        )
        for loss, mask in part.predictions.items()
    }
    ids = {loss: f"{name}-prediction{n}" for n, loss in enumerate(lines)}
    defs = (
        f'<image id="{name}-image" width="{width}" height="{height}" preserveAspectRatio="none" '
        f'href="{_jpeg(part.image)}"/><g id="{name}-truth">{truth}</g>'
        + "".join(f'<g id="{ids[loss]}">{paths}</g>' for loss, paths in lines.items())
    )
    under = f'<use href="#{name}-image"/><use href="#{name}-truth"/>'
    frame = (
        f'<rect x="{left}" y="{top}" width="{right - left}" height="{bottom - top}" fill="none" stroke="#fff" '
        'stroke-dasharray="4 3" vector-effect="non-scaling-stroke"/>'
    )
    every = "".join(f'<use href="#{id_}" stroke-width="0.7"/>' for id_ in ids.values())
    note = "truth filled, all predictions"
    whole = Tile(_svg(0, 0, width, height, under + every + frame), "whole image", note, f"The whole image{part.where}")
    found = [whole]
    for loss, short in losses:
        if loss not in part.predictions:
            found.append(Tile("", short, "no prediction", f"{short}: no prediction"))
            continue
        mask = part.predictions[loss]
        note = note_on(loss)
        inside = float((mask[top:bottom, left:right] > 0).sum() / max(int((mask > 0).sum()), 1))
        note += ", nothing here" if not mask.any() else f", {percent(1 - inside)} outside" if inside < 0.995 else ""
        svg = _svg(left, top, right - left, bottom - top, f'{under}<use href="#{ids[loss]}" stroke-width="1.8"/>')
        found.append(Tile(svg, short, note, f"{short}: {note}"))
    return Gallery(name, caption, defs, tuple(found))


def outline(mask: NDArray[np.bool_]) -> str:
    """The border of a region as an SVG path, half-way between the pixels; empty for an empty one."""
    if not mask.any():
        return ""
    from contourpy import contour_generator

    padded = np.pad(mask, 1).astype(np.float32)
    lines = contour_generator(z=padded).lines(0.5)
    return "".join(_path(np.asarray(line)[:, :2] - 0.5) for line in lines)  # -1 for the padding, +0.5 for the centres


def _path(points: NDArray[np.float64]) -> str:
    """A closed line; points on a straight line between their neighbours are left out."""
    points = points[:-1]
    before, after = points - np.roll(points, 1, 0), np.roll(points, -1, 0) - points
    bent = np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]) > 1e-6
    kept = points[bent] if bent.sum() > 2 else points
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in kept.round(2)) + "Z"


def _jpeg(image: NDArray[np.uint8]) -> str:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def _svg(x: float, y: float, width: float, height: float, inner: str) -> str:
    return f'<svg viewBox="{x} {y} {width} {height}" focusable="false" aria-hidden="true">{inner}</svg>'
