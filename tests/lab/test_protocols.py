"""The papers' numbers, written down here by hand, against what the protocols set."""

from pathlib import Path

import pytest
import torch

import unifocal
from unifocal.lab import protocols
from unifocal.lab.configuration import settings_from
from unifocal.lab.errors import LabError
from unifocal.lab.protocols import PROTOCOLS, load
from unifocal.lab.settings import make_settings

V2_LOSSES = ["focal", "dice", "tversky", "focal-tversky", "combo", "hybrid-focal", "generalised-focal"]


def settings_of(name):
    return settings_from({"protocol": name})


def classes_of(name):
    return 3 if "kits19" in name else 2


def test_the_names():
    assert set(PROTOCOLS) == {
        "mixed-focal/kits19",
        "mixed-focal/brats20",
        "generalised-focal/bus2017",
        "generalised-focal/brats20",
        "generalised-focal/kits19",
        "generalised-focal/bus2017/sota",
        "generalised-focal/brats20/sota",
        "generalised-focal/kits19/sota",
        "generalised-focal/tuning",
        "a-fl/picai",
        "a-fl/brats18",
    }


@pytest.mark.parametrize("name", PROTOCOLS)
def test_it_loads_checks_and_says_where_each_number_comes_from(name):
    protocol, settings = load(name), settings_of(name)
    assert settings.protocol == name
    assert protocol.title and protocol.source and protocol.notes
    for key, source in protocol.sources.items():
        if key != "protocol":
            assert source.split(": ")[0] in ("paper", "code", "nearest"), f"{key}: {source}"
    labels = {loss.label for loss in settings.losses}
    assert {result.loss for result in protocol.results} <= labels
    assert {result.network for result in protocol.results} <= {network.label for network in settings.networks}
    assert all(0 < result.value < 1 for result in protocol.results)
    assert protocol.proposes in labels
    # Every key of every file is read by someone.
    known = {"title", "source", "based_on", "notes", "proposes", "settings", "sweep", "results"}
    assert all(set(document) <= known for document in protocols._lineage(name))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_loss_can_be_built_and_fits_the_classes(name):
    classes = classes_of(name)
    logits = torch.randn(2, classes, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(32).reshape(2, 4, 4) % classes
    for loss in (*settings_of(name).losses, *make_settings(losses=load(name).proposes).losses):
        assert torch.isfinite(loss.build()(logits, labels))


def test_networks_exist():
    catalogue = pytest.importorskip("unifocal.lab.networks.catalogue", reason="the networks are not there yet")
    for name in PROTOCOLS:
        for network in settings_of(name).networks:
            assert network.name in catalogue.NETWORKS


V2 = [name for name in PROTOCOLS if name.startswith("generalised-focal")]


@pytest.mark.parametrize("name", V2)
def test_training_of_v2(name):
    """arXiv 2102.04525v2, III: SGD, Nesterov momentum 0.99, 0.01 (1 - epoch / epochs)^0.9, five folds, 80 / 20."""
    settings = settings_of(name)
    assert (settings.optimiser, settings.momentum, settings.learning_rate) == ("sgd", 0.99, 0.01)
    assert (settings.schedule, settings.folds, settings.validation, settings.keep) == ("poly", 5, 0.2, "best")
    assert settings.intensity == "z-score-01" and settings.augment
    assert [network.label for network in settings.networks] == ["unet"]


def test_v2_compares_seven_losses_with_its_parameters():
    for data in ("bus2017", "brats20", "kits19"):
        settings = settings_of(f"generalised-focal/{data}")
        assert (settings.epochs, settings.deep_supervision) == (100, "none")
        assert [loss.name for loss in settings.losses] == V2_LOSSES
        by_name = {loss.name: loss.arguments for loss in settings.losses}
        factor = [0.25] * classes_of(data)
        assert by_name == {
            "focal": {"alpha": factor, "gamma": 2},  # alpha 0.25, gamma 2
            "dice": {},
            "tversky": {"delta": 0.7},  # alpha 0.3, beta 0.7
            "focal-tversky": {"delta": 0.7, "exponent": 0.75},  # gamma 4/3, exponent 1 / gamma
            "combo": {"alpha": 0.5, "beta": 0.5},
            "hybrid-focal": {"alpha": factor, "gamma": 2, "delta": 0.7, "exponent": 0.75, "lam": 0.5},
            "generalised-focal": {"delta": 0.6, "gamma": 0.2, "lam": 0.5},  # the optimum of Table 2
        }


def test_the_papers_scalar_alpha_is_one_factor_for_all_classes():
    logits, labels = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(64) % 2
    labels = labels.reshape(1, 8, 8)
    [focal] = [loss for loss in settings_of("generalised-focal/bus2017").losses if loss.name == "focal"]
    plain = unifocal.FocalLoss(gamma=2, alpha=None)(logits, labels)
    torch.testing.assert_close(focal.build()(logits, labels), plain / 4)


def test_data_of_v2():
    """Section III: 128 x 128; 96^3 with overlap 48; spacing, HU and 80 x 160 x 160 with overlap 40 x 80 x 80."""
    bus, brats, kits = (settings_of(f"generalised-focal/{data}") for data in ("bus2017", "brats20", "kits19"))
    assert bus.size == (128,) and bus.patch is None and bus.spacing is None
    assert brats.patch == (96, 96, 96) and brats.patch_overlap * 96 == 48
    assert (brats.sequences, brats.target, brats.require_target) == (("t1ce",), ("enhancing tumour",), True)
    assert kits.patch == (80, 160, 160) and [kits.patch_overlap * n for n in kits.patch] == [40, 80, 80]
    assert kits.clip == (-79, 304) and kits.spacing == (3.22, 1.62, 1.62)
    assert kits.target is None  # kidney and tumour


@pytest.mark.parametrize(("data", "value"), [("bus2017", 0.948), ("brats20", 0.800), ("kits19", 0.758)])
def test_state_of_the_art(data, value):
    """1000 epochs, deep supervision by eq. (22), the paper's own loss; DSC of the abstract (v3)."""
    settings, basis = settings_of(f"generalised-focal/{data}/sota"), settings_of(f"generalised-focal/{data}")
    assert (settings.epochs, settings.deep_supervision) == (1000, "papers")
    assert [loss.name for loss in settings.losses] == ["generalised-focal"]
    same = set(type(settings).model_fields) - {"protocol", "epochs", "deep_supervision", "losses"}
    assert all(getattr(settings, name) == getattr(basis, name) for name in same)
    [result] = load(f"generalised-focal/{data}/sota").results
    assert (result.metric, result.value) == ("DSC", value)


def test_the_sweep_of_table_2_has_9_10_and_11_cells():
    protocol = load("generalised-focal/tuning")
    assert {parameter: len(values) for parameter, values in protocol.sweep.items()} == {
        "delta": 9,
        "gamma": 10,
        "lam": 11,
    }
    assert list(protocol.sweep) == ["delta", "gamma", "lam"]
    delta, gamma, lam = ([float(value) for value in values] for values in protocol.sweep.values())
    assert delta == pytest.approx([n / 10 for n in range(1, 10)])
    assert gamma == pytest.approx([n / 10 for n in range(10)])  # 1 would leave no exponent
    assert lam == pytest.approx([n / 10 for n in range(11)])
    [base] = settings_of(protocol.name).losses
    assert base.arguments["gamma"] == 0 and base.arguments["lam"] == 0.5  # while delta is tuned
    for parameter, values in protocol.sweep.items():
        for value in values:
            unifocal.build(base.name, **{**base.arguments, parameter: float(value)})
    assert protocol.sweep_text.startswith("delta=0.1,0.2,") and protocol.sweep_text.count(";") == 2


def test_v1_compares_seven_losses_on_kits19_and_the_best_three_on_brats20():
    """v1's README names them; alpha 0.25, gamma 2, delta 0.7 and gamma of the cosine 1 are its text's and code's."""
    kits, brats = settings_of("mixed-focal/kits19"), settings_of("mixed-focal/brats20")
    assert {loss.name for loss in kits.losses} == {
        "focal", "dice", "tversky", "cosine-tversky", "focal-tversky", "combo", "mixed-focal",
    }  # fmt: skip
    assert {loss.name for loss in brats.losses} == {"focal-tversky", "combo", "mixed-focal"}
    mixed = kits.losses[-1].arguments
    assert mixed == {"alpha": [0.25] * 3, "gamma": 2, "delta": 0.7, "exponent": 0.75, "lam": 0.5}
    assert kits.losses[3].arguments == {"delta": 0.7, "gamma": 1}
    assert (kits.patch, brats.patch, brats.sequences) == ((80, 160, 160), (96, 96, 96), ("t1ce",))


@pytest.mark.parametrize("name", ["a-fl/picai", "a-fl/brats18"])
def test_training_of_a_fl(name):
    """main.py of rakibuliuict/AFL-CIBM: SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-5), 200 epochs."""
    settings = settings_of(name)
    assert (settings.optimiser, settings.learning_rate, settings.momentum) == ("sgd", 0.1, 0.9)
    assert (settings.weight_decay, settings.batch_size, settings.epochs) == (1e-5, 1, 200)
    assert settings.schedule == "constant"
    assert {loss.name for loss in settings.losses} == {
        "tversky", "cross-entropy", "jaccard", "dice", "dice-ce", "dice-focal", "focal", "adaptive-focal",
    }  # fmt: skip
    assert settings.losses[-1].arguments == {"order": "original"}


def test_data_of_a_fl():
    """train_augment.py: Resized (160, 128, 24); Spacingd 1 mm, RandSpatialCropd [224, 224, 144]."""
    picai, brats = settings_of("a-fl/picai"), settings_of("a-fl/brats18")
    assert picai.size == (160, 128, 24) and picai.patch is None
    assert brats.spacing == (1, 1, 1) and brats.patch == (224, 224, 144) and brats.target == ("whole tumour",)


def test_results_of_a_fl():
    """Two rows of the README's first table."""
    numbers = {(r.loss, r.metric): r.value for r in load("a-fl/picai").results}
    assert numbers["dice-ce", "IoU"] == 0.670 and numbers["adaptive-focal:order=original", "DSC"] == 0.769
    numbers = {(r.loss, r.metric): r.value for r in load("a-fl/brats18").results}
    assert numbers["tversky:activation=sigmoid:delta=0.5", "recall"] == 0.5221
    assert numbers["adaptive-focal:order=original", "specificity"] == 0.955


def test_a_name_that_is_none_tells_the_nearest():
    with pytest.raises(LabError, match="Did you mean 'mixed-focal/kits19'"):
        load("mixed-focal/kits18")
    with pytest.raises(LabError, match="Did you mean 'a-fl/picai'"):
        make_settings(protocol="a-fl/pica")


def test_the_files_are_part_of_the_package():
    """Package data is named by pattern in pyproject.toml; a file of another kind would not be installed."""
    folder = Path(protocols.__file__).parent
    others = [path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc", ".yaml")]
    assert not others
    config = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert '"lab/protocols/**/*.yaml"' in config
