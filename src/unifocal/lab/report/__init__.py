"""What becomes of a comparison for people: the terminal's tables, `summary.md`, and the report.

summary             the terminal's tables and `summary.md`, from a comparison in memory
reading             the files of a comparison  ->  one `Study`
analysis, sizes     its statistics: a `Block` for each class of each data set on each network
answer, warnings    what may be said, and what may not
contents, figures   tables and figures, `pictures` of cases
page, tables        how they are written
writing             these in order: `write_report`

The names are imported when first used: colours and labels of a figure then need no tables and statistics.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unifocal.lab.pictures import PICTURE
    from unifocal.lab.report.summary import command, near_duplicate_line, terminal_tables, write_summary
    from unifocal.lab.report.writing import PAGE, write_report

__all__ = ["PAGE", "PICTURE", "command", "near_duplicate_line", "terminal_tables", "write_report", "write_summary"]

_WRITING = "unifocal.lab.report.writing"
_ELSEWHERE = {"PICTURE": "unifocal.lab.pictures", "PAGE": _WRITING, "write_report": _WRITING}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_ELSEWHERE.get(name, "unifocal.lab.report.summary")), name)
