"""Comparisons of every kind that a report must be right about."""

import math
from typing import Any

from folders import rule

HUNDRED = ",".join(f"unified-focal:delta={0.3 + 0.01 * i:.2f}:gamma={0.1 * j:.1f}" for i in range(20) for j in range(5))
STRANGE = ["<script>alert(1)</script>", 'a & b "c"', "$x_1^2$ 100%", "\\x{}[]~|`*"]
KINDS: dict[str, dict[str, Any]] = {
    "plain": {"with_images": True},
    "missing": {"ends": {(0, 0): "failed", (1, 1): "waiting"}},
    "all failed": {"ends": {(loss, fold): "failed" for loss in range(3) for fold in range(3)}},
    "not begun": {"ends": {(loss, fold): "waiting" for loss in range(3) for fold in range(3)}},
    "one fold": {"folds": 1, "cases": 12},
    "one case": {"folds": 1, "cases": 1},
    "ties": {"score": lambda loss, seed, case: 0.5},
    "some undefined": {"score": lambda loss, seed, case: math.nan if (loss + case) % 3 == 0 else 0.5 + 0.1 * loss},
    "all undefined": {"score": lambda loss, seed, case: math.nan},
    "one loss": {"losses": "dice"},
    "names": {
        "losses": "dice,hybrid-focal:alpha=[0.25,0.25]:delta=0.7,focal",
        "names": [*STRANGE, *(f"c{n}" for n in range(26))],
        "dataset": "<i>data</i> & co_1",
        "with_images": True,
    },
    "hundred": {"losses": HUNDRED, "score": rule(step=0.002)},
}
