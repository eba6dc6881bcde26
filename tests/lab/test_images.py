"""Every way of storing grey values and masks is read as what it shows."""

import numpy as np
import pytest
from PIL import Image

from unifocal.lab.data.cases import Case, Dataset
from unifocal.lab.data.images import check_picture, read_image, read_mask_values, read_picture
from unifocal.lab.data.masks import read_mask
from unifocal.lab.errors import LabError

GREY = np.array([[0, 50, 255], [7, 128, 200]], np.uint8)
TRUTH = np.array([[0, 0, 1], [1, 0, 1]], np.uint8)


@pytest.fixture
def grey_of(tmp_path):
    def read(picture: Image.Image, name="x.png", **options) -> np.ndarray:
        picture.save(tmp_path / name, **options)
        return read_image(Case("x", (tmp_path / name,), ()))

    return read


@pytest.fixture
def truth_of(tmp_path):
    def read(*pictures: Image.Image, classes=("background", "lesion"), ending="png", **options) -> np.ndarray:
        paths = tuple(tmp_path / f"m{n}.{ending}" for n in range(len(pictures)))
        for path, picture in zip(paths, pictures, strict=True):
            picture.save(path, **options)
        case = Case("x", paths[:1], paths)
        values = {n: n for n in range(len(classes))} if len(classes) > 2 else None
        return read_mask(case, Dataset("d", "plain", tmp_path, (case,), classes, values))

    return read


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("name", ["x.png", "x.bmp", "x.tif"])
def test_grey_values_are_exact(grey_of, mode, name):
    image = grey_of(Image.fromarray(GREY).convert(mode), name)
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, GREY)  # (H, W), not transposed


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_dropped_not_blended(grey_of, mode):
    picture = Image.fromarray(GREY).convert(mode)
    picture.putalpha(Image.fromarray(np.array([[0, 9, 255], [0, 0, 1]], np.uint8)))
    np.testing.assert_array_equal(grey_of(picture), GREY)


def test_colours_are_kept_in_order(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (2, 3, 3), np.uint8)
    path = tmp_path / "x.png"
    for mode in ("RGB", "RGBA"):
        Image.fromarray(rgb).convert(mode).save(path)
        np.testing.assert_array_equal(read_picture(path, colour=True), rgb.transpose(2, 0, 1))
    palette = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.save(path)
    np.testing.assert_array_equal(read_picture(path, colour=True)[:, 0], [[10, 200], [20, 100], [30, 50]])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_in_colour_is_three_times_the_grey(tmp_path, dtype):
    Image.fromarray(GREY.astype(dtype) * (1 if dtype == np.uint8 else 250)).save(tmp_path / "x.png")
    grey = read_picture(tmp_path / "x.png")
    assert grey.shape == (1, 2, 3) and grey.dtype == np.float32
    np.testing.assert_array_equal(read_picture(tmp_path / "x.png", colour=True), np.repeat(grey, 3, 0))


def test_palette_is_looked_up(grey_of):
    picture = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    picture.putpalette([0, 0, 0, 200, 200, 200, 255, 0, 0])
    np.testing.assert_array_equal(grey_of(picture), [[0, 200], [76, 200]])
    np.testing.assert_array_equal(grey_of(picture, transparency=b"\x00\x80\xff"), [[0, 200], [76, 200]])


def test_bilevel_image(grey_of):
    np.testing.assert_array_equal(grey_of(Image.fromarray(TRUTH * 255).convert("1")), TRUTH * 255)


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_sixteen_bits_do_not_wrap(grey_of, name):
    deep = np.array([[0, 255, 256], [40000, 65535, 1]], np.uint16)
    np.testing.assert_array_equal(grey_of(Image.fromarray(deep), name), deep)


def test_float_images_and_their_nan(grey_of):
    np.testing.assert_array_equal(grey_of(Image.fromarray(np.array([[-1.5, 2]], np.float32)), "x.tif"), [[-1.5, 2]])
    with pytest.raises(LabError, match="NaN"):
        grey_of(Image.fromarray(np.array([[np.nan, 2]], np.float32)), "x.tif")


def test_pictures_with_nan_are_told_all_at_once_before_anything_starts(tmp_path):
    from unifocal.lab.data.reading import read_dataset

    for n in range(3):
        for part in ("images", "masks"):
            (tmp_path / part).mkdir(exist_ok=True)
        pixels = np.full((4, 5), np.inf if n else 1.0, np.float32)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{n}.tif")
        Image.fromarray(np.eye(4, 5, dtype=np.uint8)).save(tmp_path / "masks" / f"{n}.png")
    with pytest.raises(LabError, match=r"2 problems(?s:.)*1.tif holds NaN or infinity(?s:.)*2.tif holds NaN"):
        read_dataset(tmp_path)


def test_unequal_channels_give_luminance(grey_of):
    red, blue = Image.new("RGB", (1, 1), (255, 0, 0)), Image.new("RGB", (1, 1), (0, 0, 255))
    assert (grey_of(red).item(), grey_of(blue).item()) == (76, 29)


DISPLAYED = {  # by the tag: where the first row and the first column of what is stored are shown
    2: lambda stored: stored[:, ::-1],  # top, right
    3: lambda stored: stored[::-1, ::-1],  # bottom, right
    4: lambda stored: stored[::-1],  # bottom, left
    5: lambda stored: stored.T,  # left, top
    6: lambda stored: stored.T[:, ::-1],  # right, top
    7: lambda stored: stored.T[::-1, ::-1],  # right, bottom
    8: lambda stored: stored.T[::-1],  # left, bottom
}


def oriented(tag: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = tag
    return exif


@pytest.mark.parametrize("tag", DISPLAYED)
@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.tif", "packed.tif"])
@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_pictures_and_masks_are_read_as_displayed(tmp_path, tag, name, mode):
    shown = np.kron(TRUTH, np.ones((8, 8), np.uint8)) * 255
    options = {"compression": "tiff_lzw"} if name == "packed.tif" else {}
    path = tmp_path / name
    Image.fromarray(shown).convert(mode).save(path, exif=oriented(tag), **options)
    expected = DISPLAYED[tag](shown) > 127
    assert check_picture(path) == expected.shape
    np.testing.assert_array_equal(read_picture(path)[0] > 127, expected)
    values = read_mask_values(path)
    np.testing.assert_array_equal(values > values.max() / 2, expected)


def test_an_orientation_behind_the_pixels_of_a_png(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "x.png", exif=oriented(6))
    whole = (tmp_path / "x.png").read_bytes()
    start = whole.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(whole[start : start + 4], "big")
    (tmp_path / "x.png").write_bytes(whole[:start] + whole[end:-12] + whole[start:end] + whole[-12:])
    assert check_picture(tmp_path / "x.png") == (3, 2)
    np.testing.assert_array_equal(read_picture(tmp_path / "x.png")[0], GREY.T[:, ::-1])


def test_a_photograph_with_a_preview_of_itself_is_one_picture(tmp_path):
    path = tmp_path / "x.jpg"
    shown = Image.fromarray(np.kron(TRUTH, np.ones((8, 8), np.uint8)) * 255)
    shown.save(path, format="MPO", save_all=True, append_images=[shown.resize((8, 8))])
    with Image.open(path) as stored:
        assert stored.format == "MPO"
    assert check_picture(path) == (shown.height, shown.width)
    np.testing.assert_array_equal(read_picture(path)[0] > 127, np.asarray(shown) > 127)


def test_exif_that_cannot_be_read_turns_nothing(grey_of, tmp_path):
    np.testing.assert_array_equal(grey_of(Image.fromarray(GREY), exif=b"Exif\0\0no TIFF header"), GREY)
    assert check_picture(tmp_path / "x.png") == GREY.shape


def test_a_file_damaged_after_its_header(tmp_path, grey_of):
    grey_of(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)), "x.jpg")
    path = tmp_path / "x.jpg"
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(LabError, match=r"x\.jpg is damaged"):
        read_image(Case("x", (path,), ()))
    with pytest.raises(LabError, match="is gone"):
        read_image(Case("x", (tmp_path / "none.png",), ()))


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "LA", "RGBA"])
@pytest.mark.parametrize("alpha", [0, 255])
def test_mask_modes_and_alpha(truth_of, mode, alpha):
    picture = Image.fromarray(TRUTH * 255).convert(mode)
    if mode in ("LA", "RGBA"):
        picture.putalpha(alpha)
    mask = truth_of(picture)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, TRUTH)


@pytest.mark.parametrize("value", [1, 2, 128, 255])
def test_any_single_positive_value_marks(truth_of, value):
    np.testing.assert_array_equal(truth_of(Image.fromarray(TRUTH * np.uint8(value))), TRUTH)


def test_palette_masks(truth_of):
    picture = Image.fromarray(TRUTH, "P")
    picture.putpalette([0, 0, 0, 128, 0, 0])
    np.testing.assert_array_equal(truth_of(picture), TRUTH)
    picture.putpalette([255, 255, 255, 0, 0, 0])  # white first: the greys count, not the indices
    np.testing.assert_array_equal(truth_of(picture), 1 - TRUTH)
    three = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    three.putpalette([0, 0, 0, 0, 0, 255, 255, 0, 0])
    np.testing.assert_array_equal(truth_of(three, classes=("background", "class 1", "class 2")), [[0, 1, 2]])


def test_soft_edges_are_cut_at_half(truth_of):
    np.testing.assert_array_equal(
        truth_of(Image.fromarray(np.array([[0, 3, 99, 100, 200]], np.uint8))), [[0, 0, 0, 1, 1]]
    )
    disc = np.hypot(*np.mgrid[-32:32, -32:32]) < 20
    jpeg = truth_of(Image.fromarray(disc), ending="png")
    np.testing.assert_array_equal(jpeg, disc)
    assert (truth_of(Image.fromarray(disc).convert("L"), ending="jpg", quality=50) != disc).mean() < 0.005
    assert not truth_of(Image.new("L", (64, 64)), ending="jpg").any()


def test_several_masks_are_united(truth_of):
    one, two = (Image.fromarray(np.array(m, np.uint8)) for m in ([[255, 0, 0, 0]], [[0, 0, 1, 0]]))
    np.testing.assert_array_equal(truth_of(one, two), [[1, 0, 1, 0]])
    classes = ("background", "class 1", "class 2")
    one, two = (Image.fromarray(np.array(m, np.uint8)) for m in ([[1, 2, 0]], [[2, 1, 0]]))
    np.testing.assert_array_equal(truth_of(one, two, classes=classes), [[2, 2, 0]])


def test_masks_that_cannot_be_united_or_named(truth_of):
    with pytest.raises(LabError, match="one size"):
        truth_of(Image.new("L", (2, 3)), Image.new("L", (3, 2)))
    with pytest.raises(LabError, match=r"holds 5 .*known labels are 0, 1, 2"):
        truth_of(Image.fromarray(np.array([[5]], np.uint8)), classes=("background", "class 1", "class 2"))


def test_real_busi_quirks(shared):
    """RGBA first mask, several masks and all-black RGB masks of the real folder, by its own list of percentages."""
    from unifocal.lab.data.reading import read_dataset

    folder = shared / "data" / "busi"
    dataset = read_dataset(folder)
    listed = {
        line.split(",")[0].split("/")[1][:-4]: float(line.split(",")[4])
        for line in (folder / "groups.csv").read_text().splitlines()[1:]
    }
    checked = [c for c in dataset.cases if len(c.masks) > 1 or c.label == "normal" or c.id == "benign (1)"]
    for case in checked:
        mask = read_mask(case, dataset)
        assert mask.shape == read_image(case).shape
        assert 100 * mask.mean() == pytest.approx(listed[case.id], abs=6e-5), case.id
