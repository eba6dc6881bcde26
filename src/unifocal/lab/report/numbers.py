"""How numbers are written, the same in every table and sentence."""

import math
from collections.abc import Callable, Iterable, Sequence

from unifocal.lab.metrics import SIGNED, UNITS, unit
from unifocal.lab.statistics.pairwise import DIGITS

NONE = "–"
MINUS = "−"
BEYOND = (
    "Where ± reaches beyond what is possible, below 0 or of shares above 1, the part that is possible is the 95 % "
    "interval."
)
STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))


def _digits(metric: str) -> int:
    return 3 if UNITS[metric] == "fraction" else 2


def _written(number: float, digits: int) -> str:
    """Without a sign of 0."""
    return f"{round(number, digits) + 0.0:.{digits}f}".replace("-", MINUS)


def is_share(metric: str) -> bool:
    """Does it lie between 0 and 1?"""
    return UNITS[metric] == "fraction" and metric not in SIGNED


def value(number: float, metric: str) -> str:
    """A value of a metric, `–` where there is none."""
    return NONE if math.isnan(number) else _written(number, _digits(metric))


def difference(number: float, metric: str) -> str:
    """A difference of two values: a small one with as many digits as its first that is not 0."""
    if math.isnan(number):
        return NONE
    digits = _digits(metric)
    if round(number, digits) == 0 and round(number, DIGITS) != 0:
        digits = math.ceil(-math.log10(abs(number)))
    return _written(number, digits)


def interval(mean: float, half: float, metric: str) -> str:
    """`0.713 ± 0.021`, or the mean alone where there is no interval."""
    return value(mean, metric) if math.isnan(half) else f"{value(mean, metric)} ± {value(half, metric)}"


def signed(number: float) -> str:
    """An effect, with its sign."""
    return NONE if math.isnan(number) else f"{number:+.2f}".replace("-", MINUS)


def size(number: float) -> str:
    """Of a lesion, to three digits."""
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def span(low: float, high: float, metric: str, write: Callable[[float, str], str] = value) -> str:
    return NONE if math.isnan(low) or math.isnan(high) else f"{write(low, metric)} to {write(high, metric)}"


def p_value(p: float) -> str:
    """`0.034`, `< 0.001`."""
    if math.isnan(p):
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def p_equals(p: float) -> str:
    """`p = 0.034`, for a sentence."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def stars(p: float) -> str:
    """As in the papers: * p ≤ 0.05, ** p ≤ 0.01, *** p ≤ 0.001."""
    return next((text for limit, text in STARS if p <= limit), "")


def is_possible(apart: float, metric: str) -> bool:
    """Could two means differ by so much? Two shares differ by 1 at most."""
    return apart > 0 and (not is_share(metric) or apart < 1)


def bounds(metric: str) -> tuple[float, float]:
    """What a mean of a metric may be: of one with a sign the size counts."""
    return 0.0, 1.0 if is_share(metric) else math.inf


def mean_span(mean: float, half: float, metric: str) -> str:
    """The interval of a mean, as far as it is possible."""
    low, high = bounds(metric)
    return span(max(mean - half, low), min(mean + half, high), metric)


def notes_on(intervals: Iterable[tuple[float, float, str]]) -> list[str]:
    """A note below (mean, half-width, metric) if any of these reaches beyond what is possible."""
    beyond = any(mean - half < bounds(metric)[0] or mean + half > bounds(metric)[1] for mean, half, metric in intervals)
    return [BEYOND] if beyond else []


def called(metric: str) -> str:
    """A metric in words: of one with a sign the size counts."""
    return f"absolute {metric}" if metric in SIGNED else metric


def heading(metric: str, spacing: Sequence[float] | None) -> str:
    """A metric as the heading of a column, with its unit if it has one."""
    name = unit(metric, spacing)
    return called(metric) if name in ("fraction", "count") else f"{called(metric)} [{name}]"


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"
