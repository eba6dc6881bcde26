"""How numbers are written, the same in every table and sentence."""

import math
from collections.abc import Sequence

from unifocal.lab.metrics import SIGNED, UNITS, unit

NONE = "–"
MINUS = "−"
STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))


def is_share(metric: str) -> bool:
    """Does it lie between 0 and 1?"""
    return UNITS[metric] == "fraction" and metric not in SIGNED


def value(number: float, metric: str) -> str:
    """A value of a metric, `–` where there is none."""
    digits = 3 if UNITS[metric] == "fraction" else 2
    return NONE if math.isnan(number) else f"{number:.{digits}f}".replace("-", MINUS)


def interval(mean: float, half: float, metric: str) -> str:
    """`0.713 ± 0.021`, or the mean alone where there is no interval."""
    return value(mean, metric) if math.isnan(half) else f"{value(mean, metric)} ± {value(half, metric)}"


def signed(number: float) -> str:
    """An effect, with its sign."""
    return NONE if math.isnan(number) else f"{number:+.2f}".replace("-", MINUS)


def size(number: float) -> str:
    """Of a lesion, to three digits."""
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def span(low: float, high: float, metric: str) -> str:
    return NONE if math.isnan(low) or math.isnan(high) else f"{value(low, metric)} to {value(high, metric)}"


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


def heading(metric: str, spacing: Sequence[float] | None) -> str:
    """A metric as the heading of a column, with its unit if it has one."""
    name = unit(metric, spacing)
    return metric if name in ("fraction", "count") else f"{metric} [{name}]"


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"
