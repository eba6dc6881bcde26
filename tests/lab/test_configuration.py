"""Settings from layers: which layer wins, what a mistake says, and that a written file reads back."""

import pytest
from other_values import BESIDE, OTHERS

from unifocal.lab.configuration import as_yaml, parse_pairs, settings_from
from unifocal.lab.errors import LabError
from unifocal.lab.protocols import PROTOCOLS, load
from unifocal.lab.settings import Settings, make_settings

KITS = "generalised-focal/kits19"


@pytest.fixture
def write(tmp_path):
    def write_(text):
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_


def test_each_layer_lies_over_the_one_before(write):
    file = write(f"protocol: {KITS}\nepochs: 7\nbatch-size: 3\n")
    settings = settings_from({"epochs": "5"}, file, {"momentum": "0.5", "folds": "4", "workers": "2"})
    assert settings.epochs == 5  # the command line, over the file's 7 and the protocol's 100
    assert settings.batch_size == 3  # the file, over the protocol's 2
    assert settings.spacing == (3.22, 1.62, 1.62)  # the protocol
    assert (settings.momentum, settings.folds) == (0.99, 5)  # the protocol, over the command's own
    assert settings.workers == 2  # the command's own
    assert settings.patience == 10  # the default
    assert settings.protocol == KITS


def test_without_a_word_they_are_the_defaults():
    assert settings_from({}) == Settings()


def test_an_unknown_protocol_is_told_with_all_other_mistakes(write):
    file = write("epochs: 3\nbatch_size: 0\nprotocol: generalised-focal/kits18\nlr: abc\n")
    with pytest.raises(LabError) as caught:
        settings_from({"folds": "1"}, file)
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    for part in (
        f"{file}, line 2: batch_size: ",
        f"{file}, line 3: protocol: expected a protocol: ",
        "got 'generalised-focal/kits18'. Did you mean 'generalised-focal/kits19'?",
        f"{file}, line 4: lr: there is no such setting",
        "--folds: expected ",
    ):
        assert part in str(caught.value)


def test_the_command_line_chooses_the_protocol(write):
    file = write(f"protocol: {KITS}\nfolds: 3\n")
    chosen = settings_from({"protocol": "generalised-focal/bus2017"}, file)
    assert (chosen.size, chosen.spacing, chosen.folds) == ((128,), None, 3)
    assert settings_from({"protocol": "none"}, file) == make_settings(folds=3)


def test_a_training_takes_the_loss_that_the_paper_proposes():
    given = {"protocol": KITS}
    assert [loss.name for loss in settings_from(given, proposed=True).losses] == ["generalised-focal"]
    assert len(settings_from(given).losses) == 7
    chosen = settings_from(given | {"losses": "dice,focal"}, proposed=True)
    assert [loss.name for loss in chosen.losses] == ["dice", "focal"]


def test_values_may_be_written_in_several_ways(write):
    text = """
    losses: [dice, tversky:delta=0.3]
    networks: unet:width=8
    seed: 1, 2
    patch: [8, 16, 16]
    clip: -79, 304
    precision: 32
    augment: no
    weight_decay: 1e-5
    size: none
    format: busi
    exclude: ["a, b", c]
    """
    settings = settings_from({}, write(text))
    assert [loss.label for loss in settings.losses] == ["dice", "tversky:delta=0.3"]
    assert settings.losses[1].arguments == {"delta": 0.3}
    assert settings.networks[0].arguments == {"width": 8}
    assert (settings.seeds, settings.patch, settings.clip) == ((1, 2), (8, 16, 16), (-79.0, 304.0))
    assert (settings.precision, settings.augment, settings.weight_decay) == ("32", False, 1e-5)
    assert (settings.size, settings.layout, settings.exclude) == (None, "busi", ("a, b", "c"))


@pytest.mark.parametrize(
    ("text", "given", "parts"),
    [
        ("folds: 3\nepoch: 3\n", {}, ["mine.yaml, line 2: epoch", "Did you mean 'epochs'"]),
        ("folds: 3\nepochs: 0\n", {}, ["mine.yaml, line 2: epochs", "got '0'"]),
        ("losses: [dice, dice]\n", {}, ["mine.yaml, line 1: losses", "got dice twice"]),
        ("losses: [dice, focal:gamma]\n", {}, ["mine.yaml, line 1: losses", "name:argument=value"]),
        ("protocol: generalised-focal/kits\n", {}, ["mine.yaml, line 1", "Did you mean 'generalised-focal/kits19'"]),
        ("seed: 1\nseeds: 2\n", {}, ["line 2: 'seeds' is the same setting as in", "line 1"]),
        ("", {"batch_size": "x"}, ["--batch-size: expected a whole", "got 'x'"]),
        ("", {"patch_overlp": "1"}, ["--patch-overlp: there is no such setting", "Did you mean 'patch_overlap'"]),
        ("", {"protocol": "kits19"}, ["--protocol: expected a protocol", "'kits19'"]),
        ("clip: -79, 304\n", {"clip_percentiles": "1,99"}, ["clip from", "line 1", "--clip-percentiles"]),
        ("", {"protocol": KITS, "size": "64"}, ["size from --size", f"spacing from protocol {KITS}"]),
        (
            "clip: 3, 4\nfolds: 1\n",
            {"clip_percentiles": "1,99"},
            ["line 2: folds", "clip and clip_percentiles"],
        ),
        ("folds: 1\nwidth: -1\n", {"epochs": "no"}, ["line 1: folds", "line 2: width", "--epochs: expected "]),
    ],
)
def test_a_mistake_names_its_layer(write, text, given, parts):
    with pytest.raises(LabError) as caught:
        settings_from(given, write(text))
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_pairs():
    assert parse_pairs(["epochs=3", "batch-size = 4", "slurm=partition=gpu,time=60", "seed=1"]) == {
        "epochs": "3",
        "batch_size": "4",
        "slurm": "partition=gpu,time=60",
        "seeds": "1",
    }
    for pairs in (["epochs"], ["=3"], ["epochs=1", "epochs=2"], ["seed=1", "seeds=2"]):
        with pytest.raises(LabError):
            parse_pairs(pairs)


def test_every_setting_has_another_value_here():
    assert list(OTHERS) == list(Settings.model_fields)


@pytest.mark.parametrize("name", OTHERS)
def test_every_setting_is_reached_by_yaml_and_by_set_and_is_written_back(write, name):
    # The losses above are no good without a protocol: a name and a value alone, over the defaults.
    beside = BESIDE.get(name, {})
    given = settings_from({name: OTHERS[name]} | beside)
    assert getattr(given, name) != getattr(Settings(), name)
    assert settings_from(parse_pairs([f"{name}={OTHERS[name]}"]) | beside) == given
    quoted = OTHERS[name].replace('"', "")
    assert settings_from(beside, write(f'{name}: "{quoted}"\n')) == given
    assert settings_from({}, write(as_yaml(given, {}))) == given


def test_all_at_once_are_written_back(write):
    together = {key: value for key, value in OTHERS.items() if key not in ("spacing", "clip_percentiles", "address")}
    given = settings_from(together)
    assert settings_from({}, write(as_yaml(given, {}))) == given


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_is_written_back(write, name):
    settings = settings_from({"protocol": name})
    text = as_yaml(settings, load(name).sources)
    assert settings_from({}, write(text)) == settings
    # Without the protocol's name the file alone is enough.
    alone = "\n".join(line for line in text.splitlines() if not line.startswith("protocol:"))
    assert settings_from({}, write(alone)) == settings.model_copy(update={"protocol": None})


def test_the_defaults_are_written_as_comments_alone(write):
    text = as_yaml(Settings(), {})
    assert all(line.startswith("#") or not line for line in text.splitlines())
    assert "# batch_size: 8  # Images or patches in a step." in text
    # Whoever takes the comment signs away sets the same.
    uncommented = "\n".join(line.removeprefix("# ") for line in text.splitlines() if ": " in line)
    assert settings_from({}, write(uncommented)) == Settings()
