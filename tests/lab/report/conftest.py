"""Reports of made-up comparisons, each written once."""

import math

import pytest
from folders import rule, write_folder

from unifocal.lab.report.page import render
from unifocal.lab.report.reading import read_study
from unifocal.lab.report.writing import build, title, write_report

HUNDRED = ",".join(f"unified-focal:delta={0.3 + 0.01 * i:.2f}:gamma={0.1 * j:.1f}" for i in range(20) for j in range(5))
STRANGE = ["<script>alert(1)</script>", 'a & b "c"', "$x_1^2$ 100%", "\\x{}[]~|`*"]
KINDS = {
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
        "losses": "dice,hybrid-focal:alpha=[0.25,0.25]:delta=0.7",
        "names": [*STRANGE, *(f"c{n}" for n in range(26))],
        "dataset": "<i>data</i> & co_1",
        "with_images": True,
    },
    "hundred": {"losses": HUNDRED, "score": rule(step=0.002)},
}


WITH_FILES = ("plain", "missing", "names")  # the others have the page alone


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory):
    """The folder of a comparison by kind, with its report."""
    found = {}

    def make(kind):
        if kind not in found:
            out = found[kind] = write_folder(tmp_path_factory.mktemp("comparison") / "out", **KINDS[kind])
            if kind in WITH_FILES:
                write_report(out)
            else:
                study = read_study(out)
                (out / "report.html").write_text(render(title(study), build(study)), encoding="utf-8")
        return found[kind]

    return make
