"""YAML as texts with lines and comments; what is no settings file is told with its line."""

import pytest

from unifocal.lab.documents import read_document
from unifocal.lab.errors import LabError

TEXT = """\
# a heading, 1: 2
epochs: 20  # from the paper
augment: no
spacing: [3.22, 1.62]   # in mm
losses:  # two
  - dice
  - focal:alpha=[0.25,0.75]:gamma=2
title: 'a # b'  # c
nothing:
block: >-
  one
  two
inner:
  a: 1  # deep
"""


def write(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_scalar_is_a_text_with_line_and_comment(tmp_path):
    found = read_document(write(tmp_path, TEXT))
    assert {key: entry.value for key, entry in found.items()} == {
        "epochs": "20",
        "augment": "no",
        "spacing": ["3.22", "1.62"],
        "losses": ["dice", "focal:alpha=[0.25,0.75]:gamma=2"],
        "title": "a # b",
        "nothing": "",
        "block": "one two",
        "inner": {"a": "1"},
    }
    comments = {key: entry.comment for key, entry in found.items() if entry.comment}
    assert comments == {"epochs": "from the paper", "spacing": "in mm", "losses": "two", "title": "c"}
    assert [entry.line for entry in found.values()] == [2, 3, 4, 5, 8, 9, 10, 13]
    assert (found["inner"].entries["a"].line, found["inner"].entries["a"].comment) == (14, "deep")


def test_an_empty_file_holds_nothing(tmp_path):
    assert read_document(write(tmp_path, "# only a comment\n")) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: 1\nfolds: 2\nepochs: 3\n", "line 3: 'epochs' stands on line 1"),
        ("epochs: 1\nfolds: [2\n", "line 3: this is not YAML"),
        ("- epochs\n", "lines of `name: value`"),
        ("epochs 1", "lines of `name: value`"),
    ],
)
def test_what_is_no_settings_file(tmp_path, text, message):
    with pytest.raises(LabError, match=message) as caught:
        read_document(write(tmp_path, text))
    assert "mine.yaml" in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(LabError, match=r"missing\.yaml cannot be read"):
        read_document(tmp_path / "missing.yaml")
    with pytest.raises(LabError, match="cannot be read"):
        read_document(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("grösse: 1".encode("latin-1"))
    with pytest.raises(LabError, match="UTF-8"):
        read_document(tmp_path / "latin.yaml")
