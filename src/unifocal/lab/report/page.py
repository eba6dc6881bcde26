"""The page: parts laid into the template, tables and figures numbered in the order in which they stand."""

from collections.abc import Sequence
from importlib.resources import files

from unifocal.lab.report.figures.style import Drawing
from unifocal.lab.report.parts import Gallery, Section, every
from unifocal.lab.report.tables import Table

REFRESH = 15  # seconds between two looks of a live page


def render(title: str, sections: Sequence[Section], live: bool = False) -> str:
    """One HTML document that needs nothing besides itself; with `live` it loads itself anew."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("unifocal.lab.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    numbers = {id(table): n for n, table in enumerate(every(Table, sections), start=1)}
    pictures = (part for part in every(object, sections) if isinstance(part, Drawing | Gallery))
    numbers |= {id(picture): n for n, picture in enumerate(pictures, start=1)}
    style = files("unifocal.lab.report").joinpath("templates/style.css").read_text(encoding="utf-8")
    text = environment.get_template("page.html").render(
        title=title,
        sections=sections,
        numbers=numbers,
        number_of=lambda part: numbers[id(part)],
        style=style,
        live=live,
        refresh=REFRESH,
    )
    return text
