"""Volumes in the exact layouts of their authors: small trees made here, and the real ones where they are."""

import csv
import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from volume_files import block, noise, save_volume

from unifocal.lab.data.cases import IGNORE, Dataset, OfficialFold
from unifocal.lab.data.masks import read_mask
from unifocal.lab.data.reading import read_dataset
from unifocal.lab.errors import LabError


def ids(dataset: Dataset) -> list[str]:
    return [case.id for case in dataset.cases]


def truth(dataset: Dataset, number: int = 0):
    """The classes that occur in the truth of a case."""
    return np.unique(read_mask(dataset.cases[number], dataset)).tolist()


class TestBrats:
    SEQUENCES = ("flair", "t1", "t1ce", "t2")

    def case(self, folder: Path, ending=".nii.gz", values=(1, 2, 4), mask=None):
        for n, name in enumerate(self.SEQUENCES):
            save_volume(folder / f"{folder.name}_{name}{ending}", noise(seed=n))
        labels = block(value=0)
        for n, value in enumerate(values):
            labels[n, 0, 0] = value
        save_volume(folder / (mask or f"{folder.name}_seg{ending}"), labels)

    @pytest.mark.parametrize("above", ["", "BraTS2020_TrainingData/"])
    @pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
    def test_2020(self, tmp_path, above, ending):
        root = tmp_path / above / "MICCAI_BraTS2020_TrainingData"
        for n in (1, 2, 355):
            mask = "W39_1998.09.19_Segm.nii" if n == 355 else None
            self.case(root / f"BraTS20_Training_{n:03}", ending, mask=mask)
        self.case(tmp_path / "MICCAI_BraTS2020_ValidationData" / "BraTS20_Validation_001")
        with (root / "name_mapping.csv").open("w", newline="") as file:
            rows = [("Grade", "BraTS_2019_subject_ID", "BraTS_2020_subject_ID")]
            rows += [(g, "x", f"BraTS20_Training_{n:03}") for g, n in (("HGG", 1), ("LGG", 2), ("HGG", 355))]
            csv.writer(file).writerows(rows)
        dataset = read_dataset(tmp_path)
        assert (dataset.layout, dataset.dimension) == ("brats20", 3)
        assert ids(dataset) == [f"BraTS20_Training_{n:03}" for n in (1, 2, 355)]
        assert [case.label for case in dataset.cases] == ["HGG", "LGG", "HGG"]
        assert dataset.sequences == ("t1", "t1ce", "t2", "flair")
        assert [path.name.split("_")[3].split(".")[0] for path in dataset.cases[0].images] == list(dataset.sequences)
        assert dataset.cases[2].masks[0].name == "W39_1998.09.19_Segm.nii"
        assert any("355" in note for note in dataset.notes)

    def test_2018_and_its_labels(self, tmp_path):
        self.case(tmp_path / "training" / "HGG" / "Brats18_CBICA_AAB_1")
        self.case(tmp_path / "training" / "LGG" / "Brats18_TCIA_2_1", values=(1, 2))
        dataset = read_dataset(tmp_path)
        assert dataset.layout == "brats18"
        assert {case.id: case.label for case in dataset.cases} == {
            "Brats18_CBICA_AAB_1": "HGG",
            "Brats18_TCIA_2_1": "LGG",
        }
        assert truth(dataset) == [0, 1, 2, 3] and truth(dataset, 1) == [0, 1, 2]
        # Stored 1 is the core, 2 the oedema, 4 what enhances: the core of the challenge is without the oedema.
        assert dataset.classes == ("background", "necrotic core", "oedema", "enhancing tumour")
        assert dataset.regions == {"whole tumour": (1, 2, 3), "tumour core": (1, 3)}
        assert read_mask(dataset.cases[0], dataset)[2, 0, 0] == 3
        assert dataset.facts[0].voxels == (6 * 5 * 4 - 3, 1, 1, 1)

    def test_the_label_that_does_not_exist_and_a_missing_sequence(self, tmp_path):
        self.case(tmp_path / "BraTS20_Training_001", values=(1, 3, 3, 7))
        self.case(tmp_path / "BraTS20_Training_002")
        (tmp_path / "BraTS20_Training_002" / "BraTS20_Training_002_t1ce.nii.gz").unlink()
        self.case(tmp_path / "BraTS20_Training_003")
        (tmp_path / "BraTS20_Training_003" / "BraTS20_Training_003_seg.nii.gz").unlink()
        with pytest.raises(LabError) as caught:
            read_dataset(tmp_path)
        text = str(caught.value)
        assert "3 problems" in text
        assert "BraTS20_Training_001_seg.nii.gz holds 3 (2 times), 7 (1 times); known labels are 0, 1, 2, 4" in text
        assert "BraTS20_Training_002: sequence missing: t1ce" in text
        assert "BraTS20_Training_003: no mask" in text

    def test_a_sequence_on_another_grid(self, tmp_path):
        self.case(tmp_path / "BraTS20_Training_001")
        path = tmp_path / "BraTS20_Training_001" / "BraTS20_Training_001_flair.nii.gz"
        save_volume(path, noise(), spacing=(1, 1, 2))
        with pytest.raises(LabError, match=r"_flair\.nii\.gz does not fit .*_t1\.nii\.gz: spacings differ"):
            read_dataset(tmp_path)

    @pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.float32, np.float64])
    def test_labels_of_any_type(self, tmp_path, dtype):
        folder = tmp_path / "BraTS20_Training_001"
        self.case(folder)
        labels = block(value=4, dtype=dtype)
        save_volume(folder / f"{folder.name}_seg.nii.gz", labels)
        np.testing.assert_array_equal(read_mask((d := read_dataset(tmp_path)).cases[0], d), labels / 4 * 3)

    @pytest.mark.parametrize("value", [-1, 1.5, np.nan, 70000])
    def test_values_that_are_no_label_whatever_their_type(self, tmp_path, value):
        folder = tmp_path / "BraTS20_Training_001"
        self.case(folder)
        save_volume(folder / f"{folder.name}_seg.nii.gz", block(value=value, dtype=np.float32))
        with pytest.raises(LabError, match=rf"holds {value:g} \(8 times\); known labels are 0, 1, 2, 4"):
            read_dataset(tmp_path)


class TestKits19:
    def write(self, root: Path, numbers, images=True):
        labels = block((7, 5, 5), 1)
        labels[1, 1, 1] = 2
        for n in numbers:
            place: dict[str, Any] = {"spacing": (3.0, 0.8, 0.8)}
            save_volume(root / f"case_{n:05}" / "segmentation.nii.gz", labels, **place)
            if images:
                save_volume(root / f"case_{n:05}" / "imaging.nii.gz", noise((7, 5, 5)), **place)

    def test_the_papers_exclusions_and_the_slices_first(self, tmp_path):
        self.write(tmp_path / "data", (14, 15, 23, 24, 37, 68, 125, 133))
        save_volume(tmp_path / "data" / "case_00210" / "imaging.nii.gz", noise((7, 5, 5)))
        (tmp_path / "data" / "kits.json").write_text("[]")
        dataset = read_dataset(tmp_path)
        assert (dataset.layout, ids(dataset)) == ("kits19", ["case_00014", "case_00024"])
        assert dataset.classes == ("background", "kidney", "tumour")
        assert dataset.facts[0].shape == (7, 5, 5) and dataset.facts[0].spacing == pytest.approx((3, 0.8, 0.8))
        assert dataset.facts[0].voxels == (7 * 5 * 5 - 8, 7, 1)
        notes = " ".join(dataset.notes)
        assert "case_00015, case_00023, case_00037, case_00068, case_00125, case_00133" in notes
        assert "no segmentation, left aside: case_00210" in notes

    def test_labels_alone(self, tmp_path):
        self.write(tmp_path, (0, 1), images=False)
        dataset = read_dataset(tmp_path)
        assert [case.images for case in dataset.cases] == [(), ()]
        assert any("labels alone" in note for note in dataset.notes)


class TestPicai:
    STUDIES = ("10000_1000000", "10001_1000001", "10001_1000002")

    def write(self, root: Path, studies=STUDIES, labels="picai_labels") -> Path:
        for n, study in enumerate(studies):
            patient = study.split("_")[0]
            for sequence, spacing in (("t2w", 0.5), ("adc", 2.0), ("hbv", 2.0), ("sag", 1.0)):
                path = root / "images" / patient / f"{study}_{sequence}.mha"
                save_volume(path, noise((6, 5, 4), n), spacing=(spacing, spacing, 3.0))
            expert = root / labels / "csPCa_lesion_delineations" / "human_expert" / "resampled"
            values = block(value=n + 2 if n else 0, dtype=np.uint16)
            save_volume(expert / f"{study}.nii.gz", values, spacing=(0.5, 0.5, 3.0))
        sheet = root / labels / "clinical_information" / "marksheet.csv"
        sheet.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"{s.replace('_', ',')},{'YES' if n else 'NO'}" for n, s in enumerate(studies)]
        sheet.write_text("\n".join(["patient_id,study_id,case_csPCa", *lines]))
        return root

    def test_three_sequences_on_their_own_grids_and_t2w_first(self, tmp_path):
        dataset = read_dataset(self.write(tmp_path))
        assert (dataset.layout, ids(dataset)) == ("picai", list(self.STUDIES))
        assert dataset.sequences == ("t2w", "adc", "hbv") and not dataset.aligned
        assert [path.name for path in dataset.cases[0].images] == [
            f"10000_1000000_{sequence}.mha" for sequence in dataset.sequences
        ]
        assert [case.group for case in dataset.cases] == ["10000", "10001", "10001"]
        assert [case.label for case in dataset.cases] == ["no csPCa", "csPCa", "csPCa"]
        assert [truth(dataset, n) for n in range(3)] == [[0], [0, 1], [0, 1]]  # any ISUP grade is cancer
        assert not dataset.splits

    def test_the_official_folds(self, tmp_path):
        root = self.write(tmp_path)
        folds = [{"train": [*self.STUDIES[:1], "elsewhere"], "val": list(self.STUDIES[1:])}]
        (root / "splits.json").write_text(json.dumps(folds))
        assert read_dataset(root).splits == (OfficialFold(self.STUDIES[:1], self.STUDIES[1:]),)
        other = tmp_path / "other.json"
        other.write_text(json.dumps([{"train": list(self.STUDIES[:2]), "val": []}]))
        with pytest.raises(LabError, match=r"other\.json, fold 0: names no part for 10001_1000002"):
            read_dataset(root, splits_file=other)
        other.write_text('{"train": []}')
        with pytest.raises(LabError, match="expected a list of folds"):
            read_dataset(root, splits_file=other)

    def test_a_study_without_a_mask_is_left_aside_and_one_without_a_sequence_is_not(self, tmp_path):
        root = self.write(tmp_path)
        (root / "picai_labels/csPCa_lesion_delineations/human_expert/resampled/10000_1000000.nii.gz").unlink()
        assert any("left aside: 10000_1000000" in note for note in read_dataset(root).notes)
        (root / "images/10001/10001_1000002_adc.mha").unlink()
        with pytest.raises(LabError, match="10001_1000002: sequence missing: adc"):
            read_dataset(root)

    def test_a_mask_on_another_grid_than_t2w(self, tmp_path):
        root = self.write(tmp_path)
        expert = root / "picai_labels/csPCa_lesion_delineations/human_expert/resampled"
        save_volume(expert / "10000_1000000.nii.gz", block(value=0), spacing=(2, 2, 3))
        with pytest.raises(
            LabError, match=r"10000_1000000: resampled/10000_1000000.nii.gz does not fit .*_t2w.mha: spac"
        ):
            read_dataset(root)

    @pytest.mark.slow
    def test_the_real_labels(self, shared):
        dataset = read_dataset(shared / "data" / "picai_labels")
        assert len(dataset.cases) == 223
        positive = [fact for fact in dataset.facts if fact.voxels[1]]
        assert len(positive) == 172
        percent = [100 * fact.voxels[1] / sum(fact.voxels) for fact in positive]
        assert np.mean(percent) == pytest.approx(0.087, abs=5e-4)  # its README


class TestAdaptiveFocal:
    def write(self, root: Path) -> Path:
        for part, patients in (("Train", ("10005", "10012_1")), ("Valid", ("10019",))):
            for patient in patients:
                for sequence in ("adc", "t2w", "hbv"):
                    save_volume(root / f"{part}Image" / f"{patient}_{sequence}.nii.gz", noise())
                save_volume(root / f"{part}Label" / f"{patient}_gt.nii.gz", block(value=3))
        return root

    def test_its_parts(self, tmp_path):
        dataset = read_dataset(self.write(tmp_path / "data"))
        assert (dataset.layout, dataset.sequences) == ("a-fl", ("t2w", "adc", "hbv"))
        assert {case.id: case.part for case in dataset.cases} == {
            "10005": "train",
            "10012_1": "train",
            "10019": "validation",
        }
        assert dataset.cases[1].group == "10012"
        assert truth(dataset) == [0, 1]

    def test_what_is_missing(self, tmp_path):
        root = self.write(tmp_path)
        (root / "TrainImage/10005_adc.nii.gz").unlink()
        (root / "ValidLabel/10019_gt.nii.gz").unlink()
        with pytest.raises(LabError) as caught:
            read_dataset(root)
        assert "train: patient 10005: sequence missing: adc" in str(caught.value)
        assert "validation: patient 10019 has no label" in str(caught.value)


def write_json(folder: Path, **content) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(content))


class TestDecathlon:
    def write(self, root: Path, cases=("a", "b"), listed=None, channels=2) -> Path:
        for name in cases:
            save_volume(root / "imagesTr" / f"{name}.nii.gz", noise((6, 5, 4, channels)))
            save_volume(root / "labelsTr" / f"{name}.nii.gz", block(value=2))
        entries = [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in listed or cases]
        labels = {"0": "background", "2": "tumour", "1": "liver"}
        write_json(root, modality={"1": "T2", "0": "FLAIR"}, labels=labels, training=entries, test=[])
        return root

    def test_channels_of_one_file_and_labels_by_number(self, tmp_path):
        dataset = read_dataset(self.write(tmp_path / "Task99_Liver"))
        assert (dataset.layout, ids(dataset)) == ("decathlon", ["a", "b"])
        assert dataset.sequences == ("FLAIR", "T2") and len(dataset.cases[0].images) == 1
        assert dataset.classes == ("background", "liver", "tumour") and truth(dataset) == [0, 2]

    def test_what_the_list_promises_must_be_there(self, tmp_path):
        with pytest.raises(LabError, match=r"c: listed in dataset\.json and not there"):
            read_dataset(self.write(tmp_path, listed=("a", "c")))

    def test_a_wrong_number_of_channels(self, tmp_path):
        with pytest.raises(LabError, match=r"a: 3 sequences in imagesTr/a\.nii\.gz; expected FLAIR, T2"):
            read_dataset(self.write(tmp_path, channels=3))

    def test_a_list_that_cannot_be_read(self, tmp_path):
        (self.write(tmp_path) / "dataset.json").write_text('{"modality": {"0": "MRI"}, "training": [,]}')
        with pytest.raises(LabError, match=r"expected JSON; .*dataset\.json"):
            read_dataset(tmp_path)
        write_json(tmp_path, modality={"0": "MRI"}, training=[], label={})
        with pytest.raises(LabError, match=r"lacks labels\. Did you mean 'label'"):
            read_dataset(tmp_path)
        write_json(tmp_path, modality={"0": "MRI"}, training=["a"], labels={"0": "background"})
        with pytest.raises(LabError, match=r"expected a dataset\.json with \"modality\""):
            read_dataset(tmp_path)

    def test_nnunet_version_1_has_a_file_for_each_channel(self, tmp_path):
        for name in ("imagesTr/a_0000", "imagesTr/a_0001", "labelsTr/a"):
            save_volume(tmp_path / f"{name}.nii.gz", block())
        entry = {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}
        labels = {"0": "background", "1": "lesion"}
        write_json(tmp_path, modality={"0": "T2", "1": "ADC"}, labels=labels, training=[entry])
        assert [path.name for path in read_dataset(tmp_path).cases[0].images] == ["a_0000.nii.gz", "a_0001.nii.gz"]

    def test_the_real_hippocampus(self, shared):
        dataset = read_dataset(shared / "data" / "msd_hippocampus")
        assert (dataset.layout, len(dataset.cases), dataset.sequences) == ("decathlon", 195, ("MRI",))
        percent = np.array([100 * np.divide(fact.voxels, sum(fact.voxels)) for fact in dataset.facts])
        assert percent.mean(0)[1:] == pytest.approx([2.74, 2.52], abs=0.005)  # its README
        assert (percent[:, 1:] > 0).all()

    def test_the_real_brain_tumour_has_four_sequences_in_one_file(self, shared):
        dataset = read_dataset(shared / "data" / "msd_brain_tumour_crop")
        assert dataset.sequences == ("FLAIR", "T1w", "t1gd", "T2w") and len(dataset.cases) == 1
        percent = 100 * np.divide(dataset.facts[0].voxels, sum(dataset.facts[0].voxels))
        assert percent[1:] == pytest.approx([10.45, 3.04, 4.40], abs=0.005)


class TestNnunet:
    LABELS: ClassVar = {"background": 0, "tumour": 1, "cyst": 2}

    def write(self, root: Path, ending=".nii.gz", labels=None, value=2, **more) -> Path:
        for name in ("case_a", "case_b"):
            for channel in (0, 1):
                save_volume(root / "imagesTr" / f"{name}_{channel:04}{ending}", noise())
            save_volume(root / "labelsTr" / f"{name}{ending}", block(value=value))
        channels = {"0": "T2", "1": "ADC"}
        write_json(root, channel_names=channels, labels=labels or self.LABELS, file_ending=ending, **more)
        return root

    @pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
    def test_a_file_for_each_channel_and_labels_by_name(self, tmp_path, ending):
        dataset = read_dataset(self.write(tmp_path / "Dataset001_X", ending, numTraining=2))
        assert (dataset.layout, ids(dataset)) == ("nnunet", ["case_a", "case_b"])
        assert dataset.sequences == ("T2", "ADC") and dataset.classes == ("background", "tumour", "cyst")
        assert [path.name for path in dataset.cases[1].images] == [f"case_b_000{n}{ending}" for n in (0, 1)]
        assert truth(dataset) == [0, 2]

    def test_regions_and_voxels_to_ignore(self, tmp_path):
        labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4}
        dataset = read_dataset(self.write(tmp_path, labels=labels, value=4, regions_class_order=[1, 2, 3]))
        assert dataset.classes == ("background", "label 1", "label 2", "enhancing")
        assert dataset.regions == {"whole": (1, 2, 3), "core": (2, 3)}
        assert truth(dataset) == [0, IGNORE]
        assert dataset.facts[0].ignored == 8 and sum(dataset.facts[0].voxels) == 6 * 5 * 4 - 8

    @pytest.mark.parametrize("place", ["raw", "beside", "environment"])
    def test_its_folds(self, tmp_path, place, monkeypatch):
        monkeypatch.delenv("nnUNet_preprocessed", raising=False)
        root = self.write(tmp_path / "nnUNet_raw" / "Dataset001_X")
        folder = {"raw": root, "beside": tmp_path / "nnUNet_preprocessed" / root.name, "environment": tmp_path / "e"}
        if place == "environment":
            monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "e"))
            folder["environment"] = tmp_path / "e" / root.name
        folder[place].mkdir(parents=True, exist_ok=True)
        folds = [{"train": ["case_a"], "val": ["case_b"]}, {"train": ["case_b"], "val": ["case_a"]}]
        (folder[place] / "splits_final.json").write_text(json.dumps(folds))
        dataset = read_dataset(root)
        assert [fold.validation for fold in dataset.splits] == [("case_b",), ("case_a",)]

    def test_files_listed_one_by_one(self, tmp_path):
        root = self.write(tmp_path)
        entry = {
            "images": ["imagesTr/case_b_0000.nii.gz", "imagesTr/case_b_0001.nii.gz"],
            "label": "labelsTr/case_b.nii.gz",
        }
        self.write(tmp_path, dataset={"b": entry})
        assert ids(read_dataset(root)) == ["b"]
        self.write(tmp_path, dataset={"b": entry | {"label": "labelsTr/gone.nii.gz"}})
        with pytest.raises(LabError, match=r"not there: .*gone\.nii\.gz"):
            read_dataset(root)
        self.write(tmp_path, dataset=["b"])
        with pytest.raises(LabError, match=r'expected a dataset\.json with "channel_names"'):
            read_dataset(root)

    def test_what_does_not_fit_is_told_at_once(self, tmp_path):
        root = self.write(tmp_path)
        (root / "imagesTr" / "case_a_0001.nii.gz").unlink()
        save_volume(root / "labelsTr" / "case_b.nii.gz", block(value=3), origin=(0, 0, 1))
        save_volume(root / "imagesTr" / "lost_0000.nii.gz", noise())
        with pytest.raises(LabError) as caught:
            read_dataset(root)
        text = str(caught.value)
        assert "3 problems" in text
        assert "case_a: sequence missing: _0001 (ADC)" in text
        assert "image without mask: imagesTr/lost" in text
        assert "case_b: labelsTr/case_b.nii.gz does not fit imagesTr/case_b_0000.nii.gz: origins differ" in text

    def test_pictures(self, tmp_path):
        from PIL import Image

        for name, pixels in (("imagesTr/a_0000", noise((5, 6, 3))), ("labelsTr/a", block((5, 6), at=(2, 3)))):
            (tmp_path / name).parent.mkdir()
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{name}.png")
        colours = {"0": "R", "1": "G", "2": "B"}
        write_json(tmp_path, channel_names=colours, labels={"background": 0, "road": 1}, file_ending=".png")
        dataset = read_dataset(tmp_path)
        assert dataset.dimension == 2 and dataset.sequences == ("image",)
        assert dataset.classes == ("background", "road") and dataset.facts[0].voxels == (29, 1)


class TestPlain:
    @pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mha", ".nrrd"])
    @pytest.mark.parametrize(
        ("values", "classes"),
        [((1, 1), ("background", "lesion")), ((255, 0), ("background", "lesion")), ((1, 2), 3)],
    )
    def test_volumes(self, tmp_path, ending, values, classes):
        for name, value in zip("ab", values, strict=True):
            save_volume(tmp_path / "images" / f"{name}{ending}", noise())
            save_volume(tmp_path / "labels" / f"{name}_seg{ending}", block(value=value))
        dataset = read_dataset(tmp_path)
        assert (dataset.layout, dataset.dimension, ids(dataset)) == ("plain", 3, ["a", "b"])
        assert dataset.classes == classes or len(dataset.classes) == classes
        expected = values[1] if classes == 3 else int(values[1] > 0)
        assert truth(dataset, 1) == sorted({0, expected})

    def test_several_masks_are_united(self, tmp_path):
        save_volume(tmp_path / "images" / "a.nii", noise())
        for n, at in enumerate([(0, 0, 0), (5, 4, 3)]):
            save_volume(tmp_path / "masks" / f"a_mask_{n}.nii", block(at=at))
        dataset = read_dataset(tmp_path)
        assert dataset.facts[0].voxels == (6 * 5 * 4 - 2, 2)

    @pytest.mark.parametrize("values", [(1, 16), (1, -1), (0.25, 0.5), (np.nan, 1), range(1, 31)])
    def test_values_that_mean_nothing_are_refused(self, tmp_path, values):
        """Thirty structures, say: read as one soft lesion they would be a wrong truth."""
        save_volume(tmp_path / "images" / "a.nii", noise())
        labels = block(value=0, dtype=np.float32)
        labels.flat[: len(values)] = values
        save_volume(tmp_path / "labels" / "a.nii", labels)
        with pytest.raises(LabError, match=r"labels/a.nii holds .*: expected one value for the lesion, or class"):
            read_dataset(tmp_path)

    def test_a_link_that_leads_nowhere(self, tmp_path):
        save_volume(tmp_path / "images" / "a.nii.gz", noise())
        (tmp_path / "labels").mkdir()
        (tmp_path / "labels" / "a.nii.gz").symlink_to(tmp_path / "annex")
        with pytest.raises(LabError, match=r"a\.nii\.gz is gone"):
            read_dataset(tmp_path)

    def test_pictures_and_volumes_do_not_mix(self, tmp_path):
        from PIL import Image

        save_volume(tmp_path / "images" / "a.nii", noise())
        (tmp_path / "masks").mkdir()
        Image.fromarray(block((6, 5), at=(0, 0))).save(tmp_path / "masks" / "a.png")
        with pytest.raises(LabError, match="pictures and volumes in one set"):
            read_dataset(tmp_path)

    def test_everything_that_is_wrong_is_told_at_once(self, tmp_path):
        for name in ("good", "cut", "shifted", "long", "strange"):
            save_volume(tmp_path / "images" / f"{name}.nii.gz", noise((20, 20, 20)))
            save_volume(tmp_path / "masks" / f"{name}.nii.gz", block((20, 20, 20)))
        cut = tmp_path / "images" / "cut.nii.gz"
        cut.write_bytes(cut.read_bytes()[:-2000])
        save_volume(tmp_path / "masks" / "shifted.nii.gz", block((20, 20, 20)), origin=(0, 3, 0))
        save_volume(tmp_path / "masks" / "long.nii.gz", block((20, 20, 21)))
        (tmp_path / "masks" / "strange.nii.gz").write_bytes(b"what?")
        with pytest.raises(LabError) as caught:
            read_dataset(tmp_path)
        text = str(caught.value)
        assert "4 problems" in text and "good" not in text
        for part in (
            "cut.nii.gz is damaged",
            "shifted: masks/shifted.nii.gz does not fit images/shifted.nii.gz: origins differ",
            "long: masks/long.nii.gz does not fit images/long.nii.gz: shapes differ",
            "strange.nii.gz is damaged",
        ):
            assert part in text

    def test_spacings_and_axes_that_differ_are_notes(self, tmp_path):
        for name, place in (
            ("a", {}),
            ("b", {"spacing": (1, 1, 2.5)}),
            ("c", {"directions": (-1, 1, 1)}),
        ):
            save_volume(tmp_path / "images" / f"{name}.nii", noise(), **place)
            save_volume(tmp_path / "masks" / f"{name}.nii", block(), **place)
        notes = read_dataset(tmp_path).notes
        assert notes == (
            "2 different spacings; the most common, 1 x 1 x 1 mm, in 2 of 3 cases.",
            "axes point differently: RAS in 2 cases, LAS in 1 case.",
        )


def test_a_folder_of_many_sets_needs_a_choice(shared):
    with pytest.raises(LabError, match=r"picai in .*busi in .*Name the folder") as caught:
        read_dataset(shared / "data")
    assert "kits19 in" in str(caught.value) and "plain in" not in str(caught.value)


def test_real_ms_lesions(shared):
    root = shared / "data" / "ms_lesions_ljubljana"
    with (root / "foreground.csv").open() as file:
        listed = {row["patient"]: row for row in csv.DictReader(file)}
    for folder, column in (
        (root, "lesion_percent_MNI_volume"),
        (root / "cross_sectional/coregistered_resampled", "lesion_percent_FLAIR_volume"),
    ):
        dataset = read_dataset(folder)
        assert (dataset.layout, len(dataset.cases)) == ("ms-ljubljana", 23)
        for case, fact in zip(dataset.cases, dataset.facts, strict=True):
            percent = 100 * fact.voxels[1] / sum(fact.voxels)
            assert percent == pytest.approx(float(listed[case.id][column]), abs=6e-6), case.id
    whole = [case.id for case in read_dataset(root).cases if case.images]
    assert whole == ["patient07", "patient19"]
