"""Which loss becomes which: the paper's figure 1, from the identities that the tests check, and what does not hold."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from unifocal import Identity, available, identities
from unifocal.lab.errors import LabError
from unifocal.lab.plots.places import PLACES, WAYS, Way
from unifocal.lab.plots.writing import COLUMN, Plot, in_a_column
from unifocal.lab.report.figures.style import INK, MUTED, PAPER, RULE, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.path import Path

WRONG = "#d55e00"  # of Okabe and Ito's colours; such arrows are dashed, too
SMALL = 5.4  # points, of labels
BOX = (0.8, 0.32)  # inches
STEP = (1.175, 0.64)  # inches from box to box
LEFT, BOTTOM = 0.575, 0.81  # middle of the first box of the lowest row
ROWS = 1 + max(row for _, row in PLACES.values())
HEIGHT = BOTTOM + STEP[1] * (ROWS - 1) + BOX[1] / 2 + 0.24
COLUMNS = ("entropy", "both", "region")
GREEK = {"lam": "λ", "gamma": "γ", "delta": "δ", "alpha": "α", "beta": "β"}
SHORT = {"exponent": "k", "1/2": "½"}
CHANNELS = (2, 4)  # of the images on which every row is verified
Point = tuple[float, float]


def draw_family() -> Plot:
    """Every row of the table that does not follow from others, after all rows have been verified."""
    table = identities()
    verify(table)
    drawn = [row for row in table if not row.follows and row.one != row.other]
    same = {row.one: row.other for row in drawn if row.holds and not row.when}
    arrows = [row for row in drawn if row.when and (row.holds or row.claim)]
    wrong = [row for row in arrows if not row.holds]
    named = {name for row in drawn for name in (row.one, row.other)}
    alone = [name for name in available() if name not in named]
    with in_a_column():
        figure = new_figure(HEIGHT, COLUMN)
        figure.set_layout_engine("none")
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, COLUMN), ylim=(0, HEIGHT))
        axes.axis("off")
        for column, title in enumerate(COLUMNS):
            axes.text(LEFT + STEP[0] * column, HEIGHT - 0.1, title, ha="center", va="center", color=MUTED)
        for row in arrows:
            _arrow(axes, row, f" ✗{wrong.index(row) + 1}" if row in wrong else "")
        for name in PLACES:
            _box(axes, name, [other for other, shown in same.items() if shown == name])
        _legend(axes, alone)
    return Plot(figure, _caption(table, wrong))


def verify(table: Sequence[Identity]) -> None:
    """Compute every row on small random images; a picture that would not be true is not drawn."""
    for channels in CHANNELS:
        z, y = _images(channels)
        for row in table:
            if not row.stands(z, y):
                said = f"within {row.within:g}" if row.holds else "different values"
                raise LabError(
                    f"expected of {row} {said}; got {row.gap(z, y)} on {channels} classes. Nothing was drawn. The "
                    "losses are not those of the table: reinstall unifocal, or mend the row if you changed a loss."
                )


def _images(channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two images of twenty voxels that contain every class, and mostly background, as delta then tells most."""
    random = torch.Generator().manual_seed(channels)
    labels = torch.randint(3 * channels, (2, 20), generator=random)
    labels[labels >= channels] = 0
    labels[:, :channels] = torch.arange(channels)
    return 1.5 * torch.randn(2, channels, 20, generator=random, dtype=torch.float64), labels


def told(row: Identity) -> str:
    """What an arrow says: `λ=1`; `×0.5` and `+c` if it is so up to a factor and a constant."""
    text = _replaced(re.sub(r"(\w+)=None", r"no \1", row.when), GREEK | SHORT)
    if not row.holds:
        return text
    return f"{text}{'' if row.factor == 1 else f' ×{row.factor:.2g}'}{' +c' if row.constant else ''}"


def _replaced(text: str, signs: Mapping[str, str]) -> str:
    for name, sign in signs.items():
        text = text.replace(name, sign)
    return text


def middle(name: str) -> Point:
    """The middle of the box of a loss, in inches."""
    if name not in PLACES:
        raise LabError(
            f"expected a place for every loss that becomes another; got none for {name!r}. Add it to places.py."
        )
    column, row = PLACES[name]
    return LEFT + STEP[0] * column, BOTTOM + STEP[1] * (ROWS - 1 - row)


def _box(axes: "Axes", name: str, synonyms: Sequence[str]) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, y = middle(name)
    shape = FancyBboxPatch(
        (x - BOX[0] / 2, y - BOX[1] / 2), *BOX, boxstyle="round,pad=0,rounding_size=0.05", fc=PAPER, ec=MUTED, lw=0.7
    )
    axes.add_patch(shape)
    axes.text(x, y, "\n".join([*_lines(name), *(f"= {other}" for other in synonyms)]), ha="center", va="center", size=6)


def _lines(name: str) -> Iterator[str]:
    """A long name in two lines."""
    head, hyphen, tail = name.partition("-")
    if len(name) <= 14 or not hyphen:
        yield name
    else:
        yield head + hyphen
        yield tail


def _arrow(axes: "Axes", row: Identity, mark: str) -> None:
    from matplotlib.patches import FancyArrowPatch

    way = WAYS.get((row.one, row.other, row.holds), Way())
    points, spot, turned = _straight(row, way) if way.lane is None else _by_lane(row, way, way.lane)
    colour = INK if row.holds else WRONG
    axes.add_patch(
        FancyArrowPatch(
            path=_rounded(points), arrowstyle="-|>", mutation_scale=5, lw=0.8, color=colour, joinstyle="round",
            linestyle="-" if row.holds else (0, (3, 1.6)), shrinkA=0, shrinkB=0,
        )
    )  # fmt: skip
    paper: dict[str, Any] = {"fc": PAPER, "ec": "none", "boxstyle": "square,pad=0.12"}
    axes.text(
        *spot, _in_lines(told(row), row, way) + mark, ha="center", va="center", color=colour, size=SMALL,
        linespacing=1.1, rotation=90 if turned else 0, bbox=paper, zorder=3,
    )  # fmt: skip


def _in_lines(text: str, row: Identity, way: Way) -> str:
    """Between boxes side by side there is little room."""
    beside = way.lane is None and PLACES[row.one][1] == PLACES[row.other][1]
    return text.replace(", ", "\n").replace(" +", "\n+") if beside else text


def _straight(row: Identity, way: Way) -> tuple[list[Point], Point, bool]:
    """From side to side of boxes in a row or a column, shifted; else from middle to middle."""
    (x1, y1), (x2, y2) = middle(row.one), middle(row.other)
    if x1 == x2:
        half = BOX[1] / 2 if y2 > y1 else -BOX[1] / 2
        x = x1 + way.shift
        return [(x, y1 + half), (x, y2 - half)], (x, (y1 + y2) / 2), False
    half = BOX[0] / 2 if x2 > x1 else -BOX[0] / 2
    start, end = (x1 + half, y1 + way.shift), (x2 - half, y2 + way.shift)
    lines = 1 + told(row).count(", ") + bool(row.constant)
    lift = (0.06 + 0.042 * (lines - 1)) * (-1 if way.shift < 0 else 1)
    return [start, end], ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + lift), False


def _by_lane(row: Identity, way: Way, lane: float) -> tuple[list[Point], Point, bool]:
    """Out of the side of a box, along a vertical lane, and into the same side of the other."""
    (x1, y1), (x2, y2) = middle(row.one), middle(row.other)
    half = BOX[0] / 2 if lane > x1 else -BOX[0] / 2
    top, end = y1 - way.shift, y2 + way.shift
    points = [(x1 + half, top), (lane, top), (lane, end), (x2 + half, end)]
    return points, (lane, top + way.at * (end - top)), True


def _rounded(points: Sequence[Point], radius: float = 0.05) -> "Path":
    """A path along the points, its corners rounded."""
    from matplotlib.path import Path

    vertices, codes = [points[0]], [Path.MOVETO]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        vertices += [_towards(corner, before, radius), corner, _towards(corner, after, radius)]
        codes += [Path.LINETO, Path.CURVE3, Path.CURVE3]
    return Path([*vertices, points[-1]], [*codes, Path.LINETO])


def _towards(point: Point, other: Point, length: float) -> Point:
    """The point at this length from `point` on the way to `other`, or `other` if it is nearer."""
    dx, dy = other[0] - point[0], other[1] - point[1]
    part = min(1.0, length / max(abs(dx), abs(dy)))
    return point[0] + part * dx, point[1] + part * dy


def _legend(axes: "Axes", alone: Sequence[str]) -> None:
    """Below the boxes: what the two arrows mean, and the losses that have none."""
    for y, colour, dashes, text in (
        (0.42, INK, "-", "becomes, with these parameters (+c: up to a constant)"),
        (0.27, WRONG, (0, (3, 1.6)), "is said to become, and does not ✗"),
    ):
        axes.annotate(
            "", (0.42, y), (0.12, y),
            arrowprops={"arrowstyle": "-|>", "mutation_scale": 5, "lw": 0.8, "color": colour, "linestyle": dashes},
        )  # fmt: skip
        axes.text(0.48, y, text, va="center", size=SMALL + 0.3)
    axes.text(0.12, 0.12, f"by themselves: {', '.join(alone)}", va="center", size=SMALL + 0.3)
    axes.plot([0.12, COLUMN - 0.12], [0.52, 0.52], color=RULE, lw=0.5)


def _caption(table: Sequence[Identity], wrong: Sequence[Identity]) -> str:
    """What was verified, and why each wrong arrow is."""
    holds = sum(row.holds for row in table)
    reasons = "; ".join(f"✗{n} ({row.claim}) {_replaced(row.why, GREEK)}" for n, row in enumerate(wrong, 1))
    return (
        "Which loss becomes which. λ weighs the entropy part (lam), k is the exponent of focal Tversky. Verified while "
        f"it was drawn: {holds} identities hold, in value and gradient, and {len(table) - holds} do not. "
        f"Not so: {reasons}."
    )
