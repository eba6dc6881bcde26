"""The page of a folder that `tune` has made: what is recommended stands first, and how far a search has come."""

import json

import pytest
from folders import write_folder

from unifocal.lab.report.analysis import analyse
from unifocal.lab.report.contents.methods import sentence
from unifocal.lab.report.contents.overview import answers
from unifocal.lab.report.figures.style import Drawing
from unifocal.lab.report.parts import Text, every
from unifocal.lab.report.reading import read_study
from unifocal.lab.report.tables import Table
from unifocal.lab.report.tuned import tuned
from unifocal.lab.report.warnings import warnings
from unifocal.lab.report.writing import build

STAGE = "unified-focal:delta=0.8:gamma=0.1,unified-focal:delta=0.8:gamma=0.5"


def swept(tmp_path, **changes):
    out = write_folder(tmp_path, STAGE, lambda loss, seed, case: 0.5 + 0.1 * loss + 0.001 * case, cases=9)
    record = json.loads((out / "experiment.json").read_text())
    record["tune"] = ["--losses", "unified-focal", "--sweep", "gamma=0.1,0.5"]
    (out / "experiment.json").write_text(json.dumps(record | changes))
    return out


def searched(tmp_path, *states, to_come="", **ends):
    """The losses at their defaults, and trials in these states."""
    out = write_folder(tmp_path, "dice,focal", cases=6, **ends)
    record = json.loads((out / "experiment.json").read_text())
    for n, state in enumerate(states):
        name = f"search-0123abcd-fold0-trial{n:03d}"
        record["runs"].append({**record["runs"][0], "name": name, "loss": None, "part": "trial"})
        (out / "runs" / name).mkdir()
        if state != "waiting":
            (out / "runs" / name / "result.json").write_text(json.dumps({"status": state}))
    record |= {"tune": ["--search", "dice,focal:gamma=0..5", "--trials", "9"], "to_come": to_come}
    (out / "experiment.json").write_text(json.dumps(record))
    return out


def told(out):
    study = read_study(out)
    return [part.text for part in every(Text, answers(study, analyse(study, "DSC")).parts)]


def test_a_sweep_recommends_what_its_validation_cases_chose(tmp_path):
    out = swept(tmp_path)
    outcome: dict[str, object] = {"recommended": "unified-focal:delta=0.8:gamma=0.1", "told": [], "confirm": None}
    (out / "tuning.json").write_text(json.dumps(outcome))
    first, second, third, *_ = told(out)
    assert first == "The sweep recommends unified-focal with delta=0.8, gamma=0.1, chosen by the validation cases."
    assert second == "It was not chosen by the test cases, on which the losses of its last stage compare as follows:"
    assert third.startswith("unified-focal with gamma=0.5 has the highest mean DSC")


def test_a_sweep_that_goes_on_recommends_nothing(tmp_path):
    study = read_study(swept(tmp_path, to_come="stage 2 of 2"))
    assert tuned(study)[0] == "The sweep has not ended: nothing is recommended yet."
    assert sentence(study) == "6 of 6 runs finished; still to come: stage 2 of 2."


def test_captions_say_the_loss_where_names_are_parameters_alone(tmp_path):
    sections = build(read_study(swept(tmp_path)), quick=True)
    [main] = [table for table in every(Table, sections) if table.name.startswith("main")]
    assert main.rows[0][0].text == "gamma=0.1"
    assert main.caption.endswith("over folds. All losses here are unified-focal with delta=0.8.")
    [curves] = [drawing for drawing in every(Drawing, sections) if drawing.name.startswith("learning")]
    assert curves.caption.endswith("All losses here are unified-focal with delta=0.8.")


@pytest.mark.parametrize(
    ("states", "to_come", "so_far"),
    [
        (("finished", "waiting", "waiting"), "what won, once more", "has stopped: 7 of its 9 trials have ended"),
        (("finished", "pruned"), "what won, once more", "is under way: 8 of its 8 trials have ended"),
        (("finished", "waiting"), "", "has stopped: 7 of its 8 trainings have ended"),
    ],
)
def test_a_search_that_has_not_ended(tmp_path, states, to_come, so_far):
    out = searched(tmp_path, *states, to_come=to_come)
    study = read_study(out)
    first, second, *_ = told(out)
    assert first == f"The search {so_far}."
    assert second == "Nothing is recommended yet. So far, the losses at their defaults on the test cases:"
    assert sentence(study).startswith(
        f"The search {so_far}; of the losses at their defaults, which this page compares, "
    )
    assert f"The search {so_far}. This page compares" in " ".join(warnings(study, analyse(study, "DSC")))


def test_a_search_that_has_ended(tmp_path):
    out = searched(tmp_path, "finished", "pruned")
    outcome: dict[str, object] = {"recommended": "focal:gamma=1.5", "told": [], "confirm": None}
    outcome |= {"candidate": "focal", "logarithmic": []}
    (out / "search.json").write_text(json.dumps(outcome))
    first, second, *_ = told(out)
    assert first == "The search recommends focal with gamma=1.5, made of what won on each fold by its validation cases."
    assert second == "It was not chosen by the test cases, on which the losses at their defaults compare as follows:"
    assert sentence(read_study(out)) == "6 of 6 runs finished."


def test_a_comparison_has_no_word_of_tuning(tmp_path):
    assert tuned(read_study(write_folder(tmp_path, cases=6))) == ()


def test_captions_name_the_data_set_where_there_are_several(tmp_path):
    write_folder(tmp_path, "dice,focal", cases=9, dataset="first", place="first")
    out = write_folder(tmp_path, "dice,focal", cases=9, dataset="second", place="second")
    found = build(read_study(out), quick=True)
    parts: list[Table | Drawing] = [*every(Table, found), *every(Drawing, found)]
    mine = [part for part in parts if "second" in part.name]
    assert len(mine) > 12 and all("second" in part.caption for part in mine)
