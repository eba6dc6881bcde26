"""Reports of made-up comparisons, each written once."""

import pytest
from folders import write_folder
from kinds import KINDS

from unifocal.lab.report.page import render
from unifocal.lab.report.reading import read_study
from unifocal.lab.report.writing import build, title, write_report

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
