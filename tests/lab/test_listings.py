"""The commands that print what there is by name."""

import pytest
from test_options import run

from unifocal.lab.configuration import settings_from
from unifocal.lab.protocols import PROTOCOLS, load


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


def test_protocols_are_listed(capsys):
    assert run("protocols") == 0
    out = capsys.readouterr().out
    assert all(name in out for name in PROTOCOLS)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_prints_all_that_it_sets(capsys, name):
    assert run("protocols", name) == 0
    out, protocol = capsys.readouterr().out, load(name)
    for key, source in protocol.sources.items():
        if key != "protocol":
            assert source[:40] in out and (key in out)
    for loss in settings_from({"protocol": name}).losses:
        assert loss.label in out
    flat = " ".join(out.split())
    assert all(" ".join(note.split()) in flat for note in protocol.notes)
    assert out.count("nearest") >= sum(source.startswith("nearest") for source in protocol.sources.values())


def test_a_protocol_tells_what_differs_from_the_defaults(capsys):
    assert run("protocols", "a-fl/picai") == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if "learning_rate" in line]
    assert "0.1 " in line and "0.01" in line and "code: main.py" in line


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_as_yaml_reads_back(capsys, tmp_path, name):
    assert run("protocols", name, "--yaml") == 0
    file = tmp_path / "mine.yaml"
    file.write_text(capsys.readouterr().out, encoding="utf-8")
    assert settings_from({}, file) == settings_from({"protocol": name})


def test_a_protocol_that_is_none(capsys):
    assert run("protocols", "a-fl/picay") == 2
    assert "Did you mean 'a-fl/picai'" in capsys.readouterr().err
    assert run("protocols", "--yaml") == 2
    assert "a-fl/picai" in capsys.readouterr().err


def test_networks_are_listed(capsys):
    catalogue = pytest.importorskip("unifocal.lab.networks.catalogue", reason="the networks are not there yet")
    assert run("networks") == 0
    out = capsys.readouterr().out
    assert all(name in out for name in catalogue.NETWORKS)
