import json
import shutil

import pandas as pd
import pytest

from didgen.data.manifest import read_manifest, write_manifest
from didgen.data.sources.records import SourceError
from didgen.settings.data import Settings
from didgen.settings.external_data import Config
from didgen.stages.external_data import run
from tests.data.published_layouts import ph2
from tests.stages.clinic_images import prepare, write_clinic


@pytest.fixture
def clinic(tmp_path):
    """The run's own images, prepared; where they lie, and their table with splits."""
    folder = tmp_path / "clinic"
    folder.mkdir()
    frame = write_clinic(folder)
    return folder, frame.set_index("id").assign(split=prepare(folder, frame)["split"])


def prepare_sets(folder, *sets, **changes):
    values = {"source": "table", "table": str(folder / "own.csv"), "classes": ("MEL", "NV"),
              "size": 32, "near_duplicates": False, "external": sets, "out": folder / "external",
              "train": folder / "out/train.csv", "val": folder / "out/val.csv"}  # fmt: skip
    run(Config(**values | changes))
    return json.loads((folder / "external/summary.json").read_text())


def test_a_published_set_is_prepared_as_the_run_s_own_images(clinic, tmp_path):
    folder, _ = clinic
    ph2(tmp_path / "ph2", times=2)
    summary = prepare_sets(folder, {"source": "ph2", "folder": str(tmp_path / "ph2")})["ph2"]
    own = read_manifest(folder / "external/ph2/test.csv")
    assert own["id"].tolist() == [f"IMD{k:03d}" for k in range(6)]
    assert own["label"].tolist() == ["NV", "NV", "MEL"] * 2
    assert set(own["split"]) == {"test"} and set(own["width"]) == {32}
    assert (summary["n_images"], summary["n_with_mask"]) == (6, 6)
    assert summary["tasks"] == ["classification", "segmentation"]
    assert set(summary["left_out"].values()) == {0}


def copied(folder, frame, elsewhere):
    """The clinic's images under other names and without ids of lesions and patients."""
    elsewhere.mkdir()
    for row in frame.itertuples():
        shutil.copy(folder / row.image, elsewhere)
        shutil.copy(folder / row.mask, elsewhere)
    copies = frame.reset_index()[["id", "image", "mask", "label"]]
    copies.assign(id="copy_" + copies["id"]).to_csv(elsewhere / "copies.csv", index=False)
    return {"source": "table", "name": "copies", "table": str(elsewhere / "copies.csv")}


def test_copies_of_learned_images_are_left_out_and_those_of_test_images_stay(clinic, tmp_path):
    folder, frame = clinic
    summary = prepare_sets(folder, copied(folder, frame, tmp_path / "elsewhere"))["copies"]
    expected = [f"copy_{name}" for name in frame.index[frame["split"] == "test"]]
    place = folder / "external/copies"
    assert read_manifest(place / "test.csv")["id"].tolist() == expected
    assert sorted(path.stem for path in (place / "images").iterdir()) == expected
    assert summary["left_out"]["related to images that networks learn from"] == 24 - len(expected)
    assert summary["related_by"] == {"id": 0, "lesion": 0, "patient": 0, "look": 24 - len(expected)}


def test_a_patient_of_a_learned_image_that_another_set_relates_is_left_out(clinic, tmp_path):
    folder, frame = clinic
    first = copied(folder, frame[frame["split"] != "val"], tmp_path / "elsewhere")
    table = pd.read_csv(first["table"]).assign(patient_id="")
    table.loc[0, "patient_id"] = "P1"
    assert frame.loc[table.loc[0, "id"].removeprefix("copy_"), "split"] == "train"
    table.to_csv(first["table"], index=False)
    other = tmp_path / "other"
    other.mkdir()
    names = write_clinic(other).assign(id=[f"n{k}" for k in range(24)])
    names.assign(patient_id=["P1"] * 2 + [""] * 22).to_csv(other / "own.csv", index=False)
    second = {"source": "table", "name": "second", "table": str(other / "own.csv")}
    prepare_sets(folder, first, second)
    kept = read_manifest(folder / "external/second/test.csv")["id"]
    assert sorted(kept) == sorted(f"n{k}" for k in range(2, 24))


def test_what_a_synthetic_set_from_elsewhere_copies_or_was_made_from_is_left_out(clinic, tmp_path):
    folder, frame = clinic
    own = copied(folder, frame[frame["split"] == "test"], tmp_path / "elsewhere")
    names = pd.read_csv(own["table"])["id"].tolist()
    made = tmp_path / "made"
    (made / "images").mkdir(parents=True)
    rows = read_manifest(folder / "out/test.csv").iloc[:1].assign(id="made_0", image="images/a.png")
    # The photograph of the first itself, under another name; it says to be made from the second.
    shutil.copy(tmp_path / "elsewhere" / frame.loc[names[0][5:], "image"], made / "images/a.png")
    rows = rows.assign(mask="", split="train", parent_ids=f"{names[1]};other")
    write_manifest(rows, made / "metadata.csv")
    prepare_sets(folder, own, sets=(made / "metadata.csv",))
    kept = read_manifest(folder / "external/copies/test.csv")["id"]
    assert kept.tolist() == names[2:]


def test_a_relation_through_an_image_of_another_class_counts(clinic, tmp_path):
    folder, frame = clinic
    own = copied(folder, frame[frame["split"] != "val"], tmp_path / "elsewhere")
    table = pd.read_csv(own["table"]).assign(patient_id="")
    split = table["id"].str.removeprefix("copy_").map(frame["split"])
    learned, tested = (table.index[split == name][0] for name in ("train", "test"))
    # A patient has a copy of a training image, called by a class that the run leaves out.
    table.loc[learned, "label"] = "DF"
    table.loc[[learned, tested], "patient_id"] = "P1"
    table.to_csv(own["table"], index=False)
    prepare_sets(folder, own)
    kept = read_manifest(folder / "external/copies/test.csv")["id"].tolist()
    assert table.loc[tested, "id"] not in kept
    assert len(kept) == (split == "test").sum() - 1


def test_nothing_left_is_an_error_and_leaves_no_output(clinic, tmp_path):
    folder, frame = clinic
    learned = copied(folder, frame[frame["split"] != "test"], tmp_path / "elsewhere")
    with pytest.raises(SourceError, match="copies: 1. of 1. images are related .* rename them"):
        prepare_sets(folder, learned)
    assert not (folder / "external").exists()


def test_the_set_s_own_folder_is_no_place_for_the_output(clinic, tmp_path):
    folder, _ = clinic
    ph2(tmp_path / "ph2")
    own = {"source": "ph2", "folder": str(tmp_path / "ph2")}
    with pytest.raises(ValueError, match="choose another folder"):
        prepare_sets(folder, own, out=tmp_path / "ph2/out")


@pytest.mark.parametrize(
    ("external", "message"),
    [
        ([{"source": "ph2"}], "source ph2 needs `folder`"),
        ([{"source": "table", "table": "a.csv"}] * 2, "expected different ones; set `name`"),
        ([{"source": "ph2", "folder": "a", "table": "b.csv"}], "source ph2 does not read it"),
        ([{"source": "ph2", "folder": "a", "name": "../up"}], "pattern"),
        ([{"source": "phantoms"}], "Input should be"),
        ([{"folder": "a"}], "Field required"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_configuration(external, message):
    with pytest.raises(ValueError, match=message):
        Settings(external=external)
