"""Whose splits are used, what crosses them, and what later stages make of that."""

import json
import logging

import pytest
from PIL import Image

from didgen.data.manifest import SPLITS
from didgen.downstream.datasets import DatasetError, check_apart, usable_rows
from didgen.settings.data import Settings
from tests.stages.clinic_images import prepare as write_and_prepare
from tests.stages.clinic_images import write_clinic


def own(folder, count, splits=""):
    return write_clinic(folder, count, lesion_id="", split=splits)


def prepare(folder, frame, **changes):
    """The rows of all splits, and the summary."""
    return write_and_prepare(folder, frame, **changes), told(folder / "out", "summary.json")


def told(folder, name):
    return json.loads((folder / name).read_text())


STATED = ["train"] * 8 + ["val"] * 4 + ["test"] * 4


def test_a_stated_split_is_kept_unless_new_ones_are_asked_for(tmp_path, caplog):
    frame = own(tmp_path, 16, STATED)
    with caplog.at_level(logging.INFO):
        found, summary = prepare(tmp_path, frame)
    assert found["split"].to_dict() == dict(zip(frame["id"], STATED, strict=True))
    assert summary["split_rule"]["used"] == "official"
    assert summary["split_rule"]["requested"] == "auto" == Settings().splits
    assert "the source states train 8, val 4, test 4" in caplog.text
    with caplog.at_level(logging.INFO):
        found, summary = prepare(tmp_path, frame, splits="grouped")
    assert found["split"].to_dict() != dict(zip(frame["id"], STATED, strict=True))
    assert "the source's own (train 8, val 4, test 4) are not used" in caplog.text
    assert summary["split_rule"]["shares"]["test"] == {"requested": 0.25, "actual": 0.25}


def test_a_split_without_val_gets_it_from_train(tmp_path):
    frame = own(tmp_path, 24, ["train"] * 18 + ["test"] * 6)
    frame["patient_id"] = [f"p{k // 2}" for k in range(24)]
    found, summary = prepare(tmp_path, frame, val_fraction=0.3)
    assert set(found.index[found["split"] == "test"]) == set(frame["id"][18:])
    assert (found["split"] == "val").sum() in (4, 6)
    assert (found.groupby("patient_id")["split"].nunique() == 1).all()
    assert summary["split_rule"]["val_from_train"]


LEAKY = ["train", "train", "val", "val", "test", "test"] * 4


def leaky(tmp_path):
    """Patient p and lesion L stand in train and test, i05 of test is a copy of i00 of train."""
    frame = own(tmp_path, 24, LEAKY)
    frame.loc[[1, 4], "patient_id"] = "p"
    frame.loc[[6, 10], "lesion_id"] = "L"
    Image.open(tmp_path / "0.png").save(tmp_path / "5.png")
    return frame


@pytest.mark.parametrize("policy", ["drop", "warn"])
@pytest.mark.parametrize("need", ["label", "mask"])
def test_later_stages_accept_what_the_policy_left(tmp_path, caplog, policy, need):
    found, _ = prepare(tmp_path, leaky(tmp_path), on_leak=policy)
    assert len(found) == (24 if policy == "warn" else 21)
    frames = {name: usable_rows(tmp_path / f"out/{name}.csv", need)[0] for name in SPLITS}
    with caplog.at_level(logging.WARNING):
        check_apart(frames["train"], {k: frames[k] for k in ("val", "test")}, None)
    said = [line for line in caplog.messages if "accepted by data.on_leak: warn" in line]
    assert said == (
        [
            "lesion_id in both train and test: 1, accepted by data.on_leak: warn",
            "patient_id in both train and test: 1, accepted by data.on_leak: warn",
        ]
        if policy == "warn"
        else []
    )
    leaks = told(tmp_path / "out", "leaks.json")
    assert leaks["policy"] == policy and leaks["n_crossing"] == 3


def test_what_was_not_accepted_is_still_refused(tmp_path):
    prepare(tmp_path, leaky(tmp_path), on_leak="warn")
    frames = {name: usable_rows(tmp_path / f"out/{name}.csv", "label")[0] for name in SPLITS}
    for name, row in (("train", 4), ("test", 5)):
        frames[name].loc[row, "patient_id"] = "q"
    with pytest.raises(DatasetError, match=r"patient_id in both train and test: 1 \(q\)"):
        check_apart(frames["train"], {k: frames[k] for k in ("val", "test")}, None)


@pytest.mark.parametrize("seed", range(4))
def test_images_that_a_left_out_one_relates_stay_together(tmp_path, seed):
    frame = own(tmp_path, 40)
    # i38 is the same photograph as i00 and of the patient of i01; its class is not asked for. So
    # i00 and i01 are related, and only i38 tells.
    Image.open(tmp_path / "0.png").save(tmp_path / "38.png")
    frame.loc[[1, 38], "patient_id"] = "p"
    frame.loc[38, "label"] = "DF"
    found, summary = prepare(tmp_path, frame, seed=seed)
    assert "i38" not in found.index and summary["left_out"]["other classes"] == 1
    assert found.loc["i00", "split"] == found.loc["i01", "split"]
    leaks = told(tmp_path / "out", "leaks.json")
    assert leaks["n_images"] == 39 and leaks["n_compared"] == 40 and leaks["n_groups"] == 38


def test_left_out_images_may_be_followed_by_their_ids_alone(tmp_path):
    frame = own(tmp_path, 24)
    frame.loc[[1, 20], "patient_id"] = "p"
    frame.loc[[2, 20], "lesion_id"] = "L"
    frame.loc[20, "label"] = "DF"
    (tmp_path / "20.png").write_bytes(b"never read")
    found, _ = prepare(tmp_path, frame, compare_left_out=False)
    assert found.loc["i01", "split"] == found.loc["i02", "split"]
    leaks = told(tmp_path / "out", "leaks.json")
    assert leaks["n_compared"] == 23 and leaks["n_groups"] == 22


def test_left_out_images_that_cannot_be_read_are_counted(tmp_path, caplog):
    frame = own(tmp_path, 24)
    frame.loc[20, "label"] = "DF"
    (tmp_path / "20.png").write_bytes(b"gone")
    found, _ = prepare(tmp_path, frame)
    assert len(found) == 23
    assert "1 of 1 images that are left out cannot be read" in caplog.text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source": "ham10000", "folder": "x", "labels": {"nv": "NV"}},
         "labels: found .*, but source ham10000 does not read it, only table, folder; remove"),
        ({"source": "ph2", "folder": "x", "columns": {"id": "n"}}, "columns: .*source ph2 does no"),
        ({"source": "folder", "folder": "x", "columns": {"id": "n"}}, "columns: .*, only table;"),
        ({"source": "table", "table": "x", "folder": "y"}, "folder: found 'y', but source table"),
        ({"source": "isic2018", "table": "x"}, "table: found 'x', but source isic2018 does not"),
        ({"mirror": "x"}, "mirror: found 'x', but source phantoms does not read it"),
        ({"source": "isic2018", "phantoms": 99}, "phantoms: found 99, but source isic2018"),
        ({"source": "isic2018", "splits": "official", "test_fraction": 0.1},
         "test_fraction: found 0.1, but splits: official keeps the test set"),
        ({"tasks": ()}, "tasks"),
        ({"tasks": ("segmentation", "segmentation")}, "tasks repeat"),
        ({"tasks": ("detection",)}, "'classification' or 'segmentation'"),
    ],
)  # fmt: skip
def test_keys_without_effect_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Settings(**values)
    # Written out, defaults are no choice of the user's.
    Settings(**Settings().model_dump())
    Settings(**Settings(source="table", table="x").model_dump())
