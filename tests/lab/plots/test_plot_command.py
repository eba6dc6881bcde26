"""`unifocal plot` from the command line."""

import pytest
from tiny import run


@pytest.mark.parametrize(
    ("arguments", "name", "words"),
    [
        (["curves", "--losses", "dice,focal:gamma=1"], "a.pdf", ["Losses over", "50 % of them are lesion"]),
        (["curves", "--gamma", "0.1,0.5", "--delta", "0.4,0.6", "--share", "0.01"], "b.svg", ["1 % of them"]),
        (["gradient", "--losses", "unified-focal"], "new/c.PNG", ["Gradients over"]),
        (["family"], "d.png", ["Which loss becomes which", "identities hold"]),
    ],
)
def test_a_figure_is_written_and_its_caption_printed(tmp_path, capsys, arguments, name, words):
    out = tmp_path / name
    assert run("plot", *arguments, "--out", out) == 0
    printed = capsys.readouterr().out
    assert f"figure: {out}" in printed and all(word in " ".join(printed.split()) for word in words)
    assert out.read_bytes().startswith({".svg": b"<?xml", ".pdf": b"%PDF", ".png": b"\x89PNG"}[out.suffix.lower()])
    assert out.stat().st_size > 5000 and [path.name for path in out.parent.iterdir()] == [out.name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["curves", "--losses", "dcie"], "Did you mean 'dice'"),
        (["curves", "--losses", "dice", "--gamma", "0.5"], "'dice' has none"),
        (["gradient", "--share", "1.5"], "--share: expected a number from"),
        (["family", "--out", "x.jpg"], "ends in .svg, .pdf, .png; got 'x.jpg'"),
        (["curves", "--out", "figures"], "ends in .svg, .pdf, .png; got 'figures'"),
        (["family", "--gamma", "0.5"], "--gamma"),
        (["graph"], "graph"),
    ],
)
def test_mistakes_end_with_their_text_and_code_2(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert run("plot", *arguments) == 2
    err = capsys.readouterr().err
    assert message in " ".join(err.split()) and "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_without_a_figure_the_help_names_them(capsys):
    run("plot")
    printed = capsys.readouterr()
    assert all(name in printed.out + printed.err for name in ("curves", "gradient", "family"))


def test_the_output_folder_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert run("plot", "curves", "--out", tmp_path / "file/x.svg") == 2
    assert "file" in capsys.readouterr().err
