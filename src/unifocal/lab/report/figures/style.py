"""Size, fonts and colours of the figures, and how one becomes SVG or PDF.

Figures have one accent colour (Okabe and Ito's blue) besides ink and greys. In the page these are the page's own, so
that figures follow light, dark and print; what is told by colour is told by shape or place as well.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

INK, MUTED, RULE, ACCENT, PAPER = "#1c1d21", "#5d5f67", "#d3d5da", "#0072b2", "#fefefe"
IN_PAGE = {
    INK: "currentColor",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    ACCENT: "var(--accent)",
    PAPER: "var(--paper)",
}
WIDTH = 5.0  # inches: across a phone, text is still large enough
TABLES = 12.8  # px: the size of text in the page's tables
READABLE = 5.7  # points that the smallest text keeps where a figure shrinks
SETTINGS: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a $ in a name is a $
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "figure.labelsize": 9,
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text
    "pdf.fonttype": 42,
}


@dataclass(frozen=True)
class Drawing:
    """A figure as it is written.

    Attributes:
        name: of its files.
        alt: what it shows, in words, for those who do not see it.
        caption: what a reader must know; the first sentence is its title.
        file: an SVG file.
        svg: the same with the page's colours and without ids of its own, to be set into HTML.
        width: in px, at which its text has the size of the tables'.
        least: width in px below which its text would be too small to read.
    """

    name: str
    alt: str
    caption: str
    file: bytes
    svg: str
    width: int
    least: int
    figure: "Figure" = field(repr=False)

    kind = "drawing"

    @property
    def pdf(self) -> bytes:
        """A PDF file; made when asked for, as its fonts take most of the time."""
        return saved(self.figure, "pdf", self.name)


@contextmanager
def styled() -> Iterator[None]:
    """Context: figures made here have the report's style."""
    from matplotlib import rc_context

    with rc_context(SETTINGS):  # type: ignore[arg-type]
        yield


def new_figure(
    height: float, width: float = WIDTH, layout: Literal["constrained", "compressed"] = "constrained"
) -> "Figure":
    """An empty figure, in inches; `compressed` is for axes whose scales are equal."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasSVG(figure)
    return figure


def finish(figure: "Figure", name: str, alt: str, caption: str) -> Drawing:
    """Write a figure as SVG, and keep it for the PDF."""
    file = saved(figure, "svg", name)
    figure.set_layout_engine("none")  # the places are found
    width = round(TABLES * figure.get_figwidth() / SETTINGS["font.size"] * 72)
    smallest = min(float(text.get_fontsize()) for text in texts(figure))
    least = round(width * min(1, READABLE / smallest))
    return Drawing(name, alt, caption, file, for_page(file.decode(), name), width, least, figure)


def texts(figure: "Figure") -> "list[Text]":
    """Every text of a figure that is seen."""
    from matplotlib.text import Text

    return [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_visible() and text.get_text()]


def saved(figure: "Figure", ending: str, name: str) -> bytes:
    """A figure as the content of a file, `svg` or `pdf`; the same figure under the same name gives the same bytes."""
    from matplotlib import rc_context

    stream, date = io.BytesIO(), {"svg": "Date", "pdf": "CreationDate"}[ending]
    with styled(), rc_context({"svg.hashsalt": name}):
        figure.savefig(stream, format=ending, transparent=True, metadata={date: None})
    return stream.getvalue()


def for_page(svg: str, name: str) -> str:
    """An SVG file as part of an HTML page: no header, no ids but those that are used, the page's colours and font."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", svg, flags=re.S)
    used = set(re.findall(r'(?:xlink:href="|url\()#([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", svg)
    svg = re.sub(r'(xlink:href="|url\()#', rf"\g<1>#{name}-", svg)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    for colour, variable in IN_PAGE.items():
        svg = svg.replace(colour, variable)
    head, body = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]+"', head)
    assert box is not None
    return (
        f'<svg {box[0]} xmlns:xlink="http://www.w3.org/1999/xlink" focusable="false" aria-hidden="true">{_spare(body)}'
    )


def _spare(svg: str) -> str:
    """Without line breaks and with what matplotlib repeats on every element left out."""
    svg = svg.replace("stroke-linecap: butt", "").replace("stroke-linejoin: miter", "")
    svg = re.sub(r'style="[; ]*"', "", svg)
    return re.sub(r"\s*\n\s*", "\n", svg)


def interval(
    axes: "Axes",
    place: float,
    ends: tuple[float, float],
    bounds: tuple[float, float],
    upright: bool = False,
    **look: Any,
) -> bool:
    """Draw an interval as far as `bounds` go, with an arrow where it goes on; does it?"""
    low, high = max(ends[0], bounds[0]), min(ends[1], bounds[1])
    turn = 1 if upright else -1
    axes.plot(*([place, place], [low, high])[::turn], **look)
    marks = [(low, ends[0] < low, "v" if upright else "<"), (high, ends[1] > high, "^" if upright else ">")]
    for end, is_cut, mark in marks:
        if is_cut:
            axes.plot(*([place], [end])[::turn], mark, ms=4 + 2.5 * look["lw"], mew=0, zorder=4, clip_on=False, **look)
    return any(is_cut for _, is_cut, _ in marks)


def rows_axes(axes: "Axes", names: list[str], label: str) -> None:
    """One row for each name, the first on top, with lines to follow by eye."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y")
    axes.set_xlabel(label)


def inches(text: str) -> float:
    """Width of a line of text."""
    from matplotlib.textpath import TextPath

    return float(TextPath((0, 0), text, SETTINGS["font.size"]).get_extents().width) / 72


def row_height(rows: int) -> float:
    """Height in inches of a figure with so many rows."""
    return 0.75 + 0.23 * max(rows, 2)
