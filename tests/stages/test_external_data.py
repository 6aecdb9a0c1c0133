import json
import shutil

import pandas as pd
import pytest

from didgen.data.manifest import read_manifest
from didgen.data.sources.records import SourceError
from didgen.settings.data import Config
from tests.data.published_layouts import ph2
from tests.stages.clinic_images import prepare, write_clinic


@pytest.fixture
def clinic(tmp_path):
    folder = tmp_path / "clinic"
    folder.mkdir()
    return folder, write_clinic(folder)


def external(out, name="ph2"):
    return read_manifest(out / f"out/external/{name}/test.csv")


def test_a_published_set_is_prepared_beside_and_changes_no_split(clinic, tmp_path):
    folder, frame = clinic
    without = prepare(folder, frame)
    shutil.rmtree(folder / "out")
    ph2(tmp_path / "ph2", times=2)
    with_it = prepare(folder, frame, external=({"source": "ph2", "folder": str(tmp_path / "ph2")},))
    pd.testing.assert_frame_equal(without, with_it)
    own = external(folder)
    assert own["id"].tolist() == [f"IMD{k:03d}" for k in range(6)]
    assert own["label"].tolist() == ["NV", "NV", "MEL"] * 2
    assert set(own["split"]) == {"test"} and set(own["width"]) == {32}
    summary = json.loads((folder / "out/summary.json").read_text())["external"]["ph2"]
    assert (summary["n_images"], summary["n_with_mask"]) == (6, 6)
    assert summary["left_out"] == {
        "other classes": 0, "related to training or validation images": 0
    }  # fmt: skip


def test_copies_of_training_and_validation_images_are_left_out_and_those_of_test_images_stay(
    clinic, tmp_path
):
    folder, frame = clinic
    split = prepare(folder, frame)["split"]
    shutil.rmtree(folder / "out")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for row in frame.itertuples():
        shutil.copy(folder / row.image, elsewhere)
        shutil.copy(folder / row.mask, elsewhere)
    copies = frame.assign(id=[f"copy_{name}" for name in frame["id"]], patient_id="")
    copies.to_csv(elsewhere / "table.csv", index=False)
    own = {"source": "table", "name": "copies", "table": str(elsewhere / "table.csv")}
    prepare(folder, frame, external=(own,))
    expected = [f"copy_{name}" for name, part in sorted(split.items()) if part == "test"]
    assert external(folder, "copies")["id"].tolist() == expected
    assert sorted(p.stem for p in (folder / "out/external/copies/images").iterdir()) == expected


def test_nothing_left_is_an_error_and_leaves_no_output(clinic):
    folder, frame = clinic
    split = prepare(folder, frame)["split"]
    shutil.rmtree(folder / "out")
    learned = frame[frame["id"].map(split) != "test"]
    learned.to_csv(folder / "again.csv", index=False)
    own = {"source": "table", "table": str(folder / "again.csv")}
    with pytest.raises(SourceError, match="all .* related to training or validation images"):
        prepare(folder, frame, external=(own,))
    assert not (folder / "out").exists()


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
def test_what_cannot_be_read_is_refused_with_the_configuration(external, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        Config(external=external, out=tmp_path)
