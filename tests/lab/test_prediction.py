"""Masks for new images: volumes however they lie, and what is said of images that will not do."""

import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from test_workflows import write_volumes
from tiny import make_tiny, read_data, run
from volume_files import noise, save_volume

from unifocal.lab.comparison import plan_all, plan_runs
from unifocal.lab.data.reading import read_dataset
from unifocal.lab.data.unlabelled import list_images
from unifocal.lab.errors import LabError
from unifocal.lab.experiment import plan
from unifocal.lab.prediction import Model, axes_seen, find_model, predict
from unifocal.lab.preparation import read_prediction, write_prediction
from unifocal.lab.progress import Watcher
from unifocal.lab.storage import write_json
from unifocal.lab.training.execute import build_network


def begin(run, experiment):
    """A run's folder as training would have left it, with the weights that it would have begun with."""
    folder, weights = experiment.run_folder(run.name), build_network(run, experiment).state_dict()
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": {f"network.{name}": value for name, value in weights.items()}}, folder / "weights.ckpt")
    write_json(folder / "result.json", {"status": "finished"})


def untrained(dataset, folder, **changes):
    """A model as training would have left it."""
    settings = make_tiny("dice", division="whole", **changes)
    experiment = plan(dataset, settings, folder)
    [run] = experiment.runs(settings)
    begin(run, experiment)
    return Model(experiment, (run,))


def compared(out, *datasets):
    """The output folder of a comparison as the grid would have left it."""
    settings = make_tiny("dice,focal")
    for outcome in plan_runs(plan_all(datasets, settings, out, Watcher()), settings, out):
        begin(outcome.run, outcome.experiment)
    return out


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """A model of volumes whose axes are RAS and have different spacings and patches."""
    folder = tmp_path_factory.mktemp("volumes")
    data = read_dataset(write_volumes(folder / "data", 4))
    return untrained(data, folder / "out", size=None, patch="16,16,32", spacing="1.5,1,1.2")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    return untrained(read_data(folder / "data", 4), folder / "out")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    return compared(folder / "out", read_data(folder / "one", 8))


@pytest.fixture
def comparison(finished, tmp_path):
    """Of two losses on two folds, to be damaged."""
    return shutil.copytree(finished, tmp_path / "comparison")


def told(model, images, out, **arguments):
    with pytest.raises(LabError) as caught:
        predict(model, images, out, **arguments)
    return str(caught.value)


def orientation(axes):
    return nib.orientations.axcodes2ornt(axes)


@pytest.mark.parametrize("axes", ["LPS", "SAR", "PIL"])
def test_the_mask_of_a_volume_does_not_depend_on_how_it_lies(volumes, tmp_path, axes):
    straight = nib.nifti1.load(volumes.experiment.dataset.cases[0].image)
    lying = straight.as_reoriented(nib.orientations.ornt_transform(orientation("RAS"), orientation(axes)))
    for name, image in (("straight", straight), ("lying", lying)):
        (tmp_path / name).mkdir()
        nib.loadsave.save(image, tmp_path / name / "a.nii.gz")
        predict(volumes, tmp_path / name, tmp_path / f"{name}-masks")
    expected, mask = (nib.nifti1.load(tmp_path / f"{name}-masks/a.nii.gz") for name in ("straight", "lying"))
    assert len(np.unique(expected.dataobj)) > 1
    assert mask.shape == lying.shape and np.array_equal(mask.affine, lying.affine)
    assert "".join(nib.orientations.aff2axcodes(mask.affine)) == axes
    back = mask.as_reoriented(nib.orientations.ornt_transform(orientation(axes), orientation("RAS")))
    np.testing.assert_array_equal(back.dataobj, expected.dataobj)


def test_a_volume_is_turned_only_if_none_of_those_trained_on_lay_so(volumes):
    trained = volumes.experiment.dataset
    facts = [replace(trained.facts[0], axes=axes) for axes in ("LPS", "RAS", "RAS")]
    mixed = replace(trained, facts=tuple(facts))
    assert [axes_seen(axes, mixed) for axes in ("LPS", "RAS", "SAR")] == ["LPS", "RAS", "RAS"]


def test_every_broken_volume_is_told_before_the_first_is_predicted(volumes, tmp_path):
    paths = [save_volume(tmp_path / "new" / f"{name}.nii.gz", noise((12, 16, 16))) for name in "abc"]
    for path in paths[1:]:
        path.write_bytes(path.read_bytes()[:200])
    message = told(volumes, tmp_path / "new", tmp_path / "masks")
    assert "2 problems" in message and "b.nii.gz is damaged" in message and "c.nii.gz is damaged" in message
    assert not (tmp_path / "masks").exists()


def test_volumes_of_colours_and_complex_numbers_are_told_before_the_first_is_predicted(volumes, tmp_path):
    save_volume(tmp_path / "new/a.nii.gz", noise((12, 16, 16)))
    save_volume(tmp_path / "new/b.nii.gz", np.zeros((12, 16, 16), [("R", "u1"), ("G", "u1"), ("B", "u1")]))
    save_volume(tmp_path / "new/c.nii.gz", np.zeros((12, 16, 16), np.complex64))
    message = told(volumes, tmp_path / "new", tmp_path / "masks")
    assert "2 problems" in message and "b.nii.gz holds colours" in message and "c.nii.gz holds complex" in message
    assert not (tmp_path / "masks").exists()


def test_the_mask_of_a_turned_picture_lies_on_what_is_displayed(pictures, tmp_path):
    stored = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "new").mkdir()
    stored.save(tmp_path / "new/tagged.png", exif=exif)
    stored.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "new/turned.png")
    predict(pictures, tmp_path / "new", tmp_path / "masks")
    with Image.open(tmp_path / "masks/tagged.png") as mask:
        assert mask.size == (40, 60) and not mask.getexif()
    tagged, turned = (read_prediction(tmp_path / "masks", name) for name in ("tagged", "turned"))
    assert len(np.unique(tagged)) > 1
    np.testing.assert_array_equal(tagged, turned)


def test_what_is_wrong_inside_volumes_is_told_when_the_others_are_done(volumes, tmp_path):
    for name in "abc":
        values = noise((12, 16, 16)).astype(np.float32)
        values[0, 0, 0] = {"a": np.nan, "b": np.inf, "c": 0}[name]
        save_volume(tmp_path / "new" / f"{name}.nii.gz", values)
    message = told(volumes, tmp_path / "new", tmp_path / "masks")
    assert "2 problems" in message and "1 of 3" in message
    assert f"a: expected finite voxels; {tmp_path / 'new/a.nii.gz'}" in message and "b: expected finite" in message
    assert [path.name for path in (tmp_path / "masks").glob("*.nii.gz")] == ["c.nii.gz"]


def cut(whole):
    return whole[: len(whole) // 2]


def with_a_hole(whole):
    middle = len(whole) // 2
    return whole[:middle] + bytes(8) + whole[middle + 8 :]


@pytest.mark.parametrize(
    ("ending", "damage"),
    [
        *((ending, cut) for ending in (".nii.gz", ".mha", ".nrrd", ".png")),
        *((ending, with_a_hole) for ending in (".nii.gz", ".png")),  # ITK reads over it
    ],
)
def test_a_damaged_mask_is_made_again_and_a_corrected_one_stays(volumes, pictures, tmp_path, ending, damage):
    images, out = tmp_path / "new", tmp_path / "masks"
    if ending == ".png":
        images.mkdir()
        for name in "ab":
            Image.fromarray(np.arange(2400, dtype=np.uint8).reshape(40, 60)).save(images / f"{name}.png")
    else:
        for name in "ab":
            save_volume(images / f"{name}{ending}", noise((12, 16, 16)))
    model = pictures if ending == ".png" else volumes
    damaged, corrected = predict(model, images, out)
    whole = damaged.read_bytes()
    damaged.write_bytes(damage(whole))
    write_prediction(out, "b", read_prediction(out, "b")[::-1], like=images / f"b{ending}")
    kept = corrected.read_bytes()
    assert predict(model, images, out) == [damaged, corrected]
    assert damaged.read_bytes() == whole and corrected.read_bytes() == kept


@pytest.mark.parametrize(
    ("inside", "says"),
    [
        (None, ["holds nothing", "Name the folder in which the {kind} lie"]),
        ("notes.txt", ["holds notes.txt", "Name the folder in which the {kind} lie"]),
        ("other", ["holds {other}: a.", "a model that was trained on {other}"]),
        ("a data set of the other", ["holds {other}: images/", "a model that was trained on {other}"]),
    ],
)
@pytest.mark.parametrize(("kind", "other"), [("pictures", "volumes"), ("volumes", "pictures")])
def test_a_folder_without_images_for_the_model(request, tmp_path, kind, other, inside, says):
    model, folder = request.getfixturevalue(kind), tmp_path / "new"
    folder.mkdir()
    if inside == "other" and other == "pictures":
        Image.new("L", (8, 8)).save(folder / "a.png")
    elif inside == "other":
        save_volume(folder / "a.nii.gz", noise())
    elif inside == "notes.txt":
        (folder / inside).touch()
    elif inside:
        folder = request.getfixturevalue(other).experiment.dataset.root
    message = told(model, folder, tmp_path / "masks")
    assert message.startswith(f"expected {kind} (") and f"trained on {kind}" in message
    for part in says:
        assert part.format(kind=kind, other=other) in message, message


def test_images_that_are_no_folder(pictures, tmp_path):
    (tmp_path / "a.png").touch()
    assert "is a file: name its folder" in told(pictures, tmp_path / "a.png", tmp_path / "masks")
    assert "does not exist" in told(pictures, tmp_path / "nowhere", tmp_path / "masks")


def test_a_layout_that_was_named_and_is_not_there(pictures, tmp_path):
    (tmp_path / "new").mkdir()
    assert "layouts busi" in told(pictures, tmp_path / "new", tmp_path / "masks", layout="busi")


def test_masks_beside_images_are_left_out_and_so_is_what_the_network_cannot_see(pictures, volumes, tmp_path):
    for name in ("a", "a_mask", "a_mask_1", "b_Segmentation", "c", "c_label"):
        Image.new("L", (8, 8)).save(save_volume(tmp_path / f"{name}.nii.gz", noise()).parent / f"{name}.png")
    for model, ending, other in ((pictures, ".png", "volume"), (volumes, ".nii.gz", "picture")):
        dataset = list_images(tmp_path, model.experiment.dataset)
        assert [case.id for case in dataset.cases] == ["a", "b_Segmentation", "c"]
        masks, others = dataset.notes
        names = ", ".join(f"{name}{ending}" for name in ("a_mask", "a_mask_1", "c_label"))
        assert masks == f"3 masks beside images left out: {names}"
        assert others.startswith(f"6 {other}s left out: a.")


def test_masks_beside_images_of_several_sequences_are_left_out(volumes, tmp_path):
    like = replace(volumes.experiment.dataset, sequences=("T2W", "seg"))
    for name in ("a_0000", "a_0001", "a_label", "b_t2w", "b_seg", "b_mask"):
        save_volume(tmp_path / f"{name}.nii.gz", noise())
    dataset = list_images(tmp_path, like)
    assert [len(case.images) for case in dataset.cases] == [2, 2]
    assert dataset.notes == ("2 masks beside images left out: a_label.nii.gz, b_mask.nii.gz",)


def run_folder(comparison, loss="dice", fold=0):
    [folder] = comparison.glob(f"runs/unet-{loss}-fold{fold}-*")
    return folder


def refused(*arguments, **named):
    with pytest.raises(LabError) as caught:
        find_model(*arguments, **named)
    return str(caught.value)


def without_weights(folder):
    (folder / "weights.ckpt").unlink()


def without_everything(folder):
    shutil.rmtree(folder)


def failed(folder):
    (folder / "result.json").unlink()
    write_json(folder / "failure.json", {"reason": "out of memory"})


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (without_weights, "has no weights.ckpt"),
        (without_everything, "is waiting"),
        (failed, "failed (out of memory)"),
    ],
)
def test_runs_that_are_missing_are_told_with_the_reason(comparison, tmp_path, capsys, damage, why):
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    Image.new("L", (40, 32)).save(images / "a.png")
    damage(run_folder(comparison, fold=1))
    assert run("predict", comparison, images, "--loss", "dice", "--out", masks, "--device", "cpu") == 0
    assert f"only 1 of 2 runs can be used: dice, fold 1 {why}\n" in capsys.readouterr().err
    damage(run_folder(comparison))
    message = refused(comparison, loss="dice")
    assert f"none: dice, fold 0 {why}; dice, fold 1 {why}. The command" in message and "unet, dice" in message
    assert find_model(comparison, loss="focal").warning == ""


def test_masks_of_fewer_runs_are_not_gone_on_with(comparison, tmp_path):
    images, whole = tmp_path / "images", find_model(comparison, loss="dice")
    images.mkdir()
    Image.new("L", (40, 32)).save(images / "a.png")
    part = replace(whole, runs=whole.runs[:1])
    for first, then, says in (
        (part, whole, "those of 1 of its 2 runs"),
        (whole, part, "those of 2 runs, of which 1"),
        (whole, find_model(comparison, loss="focal"), "those of another (unet, dice, 2 runs)"),
    ):
        predict(first, images, tmp_path / "masks")
        assert says in told(then, images, tmp_path / "masks")
        shutil.rmtree(tmp_path / "masks")


def test_a_run_that_has_lost_its_weights_says_so(comparison):
    without_weights(run_folder(comparison))
    assert refused(run_folder(comparison)).endswith("has no weights.ckpt.")


@pytest.mark.parametrize("content", ["null", "[]", "3", '{"runs": null}', '{"runs": [null]}', "{}"])
def test_json_of_another_kind_is_told_like_a_damaged_one(comparison, pictures, tmp_path, content):
    (comparison / "experiment.json").write_text(content)
    assert "experiment.json" in refused(comparison) and "Remove it and repeat" in refused(comparison)
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/prediction.json").write_text(content)
    message = told(pictures, pictures.experiment.dataset.root, tmp_path / "masks")
    assert "prediction.json" in message and "Remove it and repeat" in message


@pytest.mark.parametrize("name", ["folds.json", "dataset.json", "run.json"])
def test_a_file_that_is_missing_is_told_with_the_way_to_have_it_again(comparison, name):
    path = (run_folder(comparison) if name == "run.json" else comparison) / name
    path.unlink()
    message = refused(comparison, loss="dice")
    assert f"{path} is missing. Repeat the command that made this folder, which writes it anew" in message


def test_of_a_comparison_over_several_data_sets_the_folder_of_one_is_asked_for(tmp_path):
    out = compared(tmp_path / "out", *(read_data(tmp_path / name, n) for name, n in (("one", 8), ("two", 9))))
    assert refused(out).endswith(f"holds 2. Name one of them: {out}/one, {out}/two.")
    without_weights(run_folder(out / "two"))
    model = find_model(out / "two", loss="dice")
    assert model.warning == "only 1 of 2 runs can be used: two, dice, fold 0 has no weights.ckpt"
    assert model.experiment.dataset.name == "two"
