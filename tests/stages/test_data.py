import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from didgen.data.images import read_image, read_mask
from didgen.data.leaks import LeakError
from didgen.data.manifest import ManifestError, check_groups, read_manifest
from didgen.data.sources.records import SourceError
from didgen.settings.data import FOLDER_SOURCES, Config
from didgen.stages.data import run

SPLITS = ("train", "val", "test")


def manifests(folder):
    return pd.concat([read_manifest(folder / f"{split}.csv") for split in SPLITS])


def test_phantoms_are_prepared_whole_and_without_leaks(mini_run):
    frame = manifests(mini_run.root / "data")
    assert len(frame) == 56 and frame["label"].nunique() == 7
    check_groups(frame, "all splits")
    assert (frame["patient_id"] != "").all()
    first = frame.iloc[0]
    assert read_image(mini_run.root / "data" / first["image"]).shape == (128, 128, 3)
    assert read_mask(mini_run.root / "data" / first["mask"], (128, 128)).any()
    summary = json.loads((mini_run.root / "data/summary.json").read_text())
    assert summary["n_images"] == 56 == summary["n_with_mask"]
    assert sum(sum(counts.values()) for counts in summary["splits"].values()) == 56


def own_table(folder, rows):
    rng = np.random.default_rng(0)
    for number in range(rows):
        Image.fromarray(rng.integers(0, 255, (40, 48, 3), np.uint8)).save(folder / f"{number}.png")
        mask = np.zeros((40, 48), np.uint8)
        mask[10:30, 10:40] = 255
        Image.fromarray(mask).save(folder / f"{number}_mask.png")
    frame = pd.DataFrame({"id": [f"i{n}" for n in range(rows)]})
    return frame.assign(
        image=[f"{n}.png" for n in range(rows)],
        mask=[f"{n}_mask.png" for n in range(rows)],
        label=["MEL", "NV"] * (rows // 2),
        patient_id=[f"p{n // 2}" for n in range(rows)],
    )


def prepare_own(folder, frame, **changes):
    frame.to_csv(folder / "own.csv", index=False)
    values = {"source": "table", "table": str(folder / "own.csv"), "classes": ("MEL", "NV"),
              "size": 32, "out": folder / "out"}  # fmt: skip
    run(Config(**{**values, **changes}))


def test_own_images_are_cropped_split_and_counted(tmp_path):
    prepare_own(tmp_path, own_table(tmp_path, 20))
    frame = manifests(tmp_path / "out")
    assert len(frame) == 20
    check_groups(frame, "all")
    mask = read_mask(tmp_path / "out" / frame["mask"].iloc[0], (32, 32))
    # The crop keeps columns 4..44 of 48: 30 of its 40 columns, 20 of its 40 rows are lesion.
    assert mask.mean() == pytest.approx(0.5 * 0.75, abs=0.04)


def test_official_splits_are_kept_and_audited(tmp_path):
    frame = own_table(tmp_path, 6)
    frame["split"] = ["train", "train", "val", "val", "test", "test"]
    prepare_own(tmp_path, frame, splits="official")
    assert manifests(tmp_path / "out")["split"].tolist() == frame["split"].tolist()
    assert leaks(tmp_path / "out")["n_crossing"] == 0
    frame["split"] = ["train", "val", "val", "val", "test", "test"]
    with pytest.raises(ValueError, match=r"1 pairs of related .*: 1 patient \(i0 \(train\)"):
        prepare_own(tmp_path, frame, splits="official", on_leak="error", out=tmp_path / "leaky")
    assert not (tmp_path / "leaky").exists()


def leaks(folder):
    return json.loads((folder / "leaks.json").read_text())


def leaky(tmp_path):
    """Official splits in which i9 of test is a copy of i0 of train, and i5 has a patient in two."""
    frame = own_table(tmp_path, 12).assign(patient_id="")
    frame["split"] = ["train"] * 4 + ["val"] * 4 + ["test"] * 4
    frame.loc[[5, 11], "patient_id"] = "p"
    Image.open(tmp_path / "0.png").save(tmp_path / "9.png")
    return frame


def test_leaks_of_official_splits_are_dropped_from_train_and_val(tmp_path):
    prepare_own(tmp_path, leaky(tmp_path), splits="official")
    told, left = leaks(tmp_path / "out"), manifests(tmp_path / "out")
    assert told["dropped"] == ["i0", "i5"] and told["n_crossing"] == 2 == told["n_pairs"]
    assert [pair["kind"] for pair in told["pairs"]] == ["exact", "patient"]
    assert set(left["id"]) == {f"i{n}" for n in range(12)} - {"i0", "i5"}
    assert not (tmp_path / "out/images/i0.png").exists()
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["left_out"]["related to a later split"] == 2 and summary["n_images"] == 10


def test_leaks_of_official_splits_can_be_kept_or_refused(tmp_path):
    prepare_own(tmp_path, leaky(tmp_path), splits="official", on_leak="warn")
    told = leaks(tmp_path / "out")
    assert told["n_crossing"] == 2 and told["dropped"] == [] and told["policy"] == "warn"
    frame = leaky(tmp_path).assign(patient_id="")
    with pytest.raises(LeakError, match=r"1 pairs of related images .*: 1 exact \(i0 \(train\)"):
        prepare_own(tmp_path, frame, splits="official", on_leak="error", out=tmp_path / "refused")
    assert not list((tmp_path / "refused").glob("*.csv"))


def test_duplicates_never_cross_grouped_splits(tmp_path):
    frame = own_table(tmp_path, 40).assign(patient_id="")
    for n in range(0, 40, 4):
        image = Image.open(tmp_path / f"{n}.png")
        # Smooth, so that a JPEG of it is a near-duplicate, and each its own.
        image = image.resize((24, 20)).resize((96, 80), Image.Resampling.BICUBIC)
        image.save(tmp_path / f"{n}.png")
        image.save(tmp_path / f"{n + 1}.jpg", quality=70)
        frame.loc[n + 1, "image"] = f"{n + 1}.jpg"
        frame.loc[[n, n + 1], "mask"] = ""
    prepare_own(tmp_path, frame, near_duplicates=True)
    left = manifests(tmp_path / "out")
    told = leaks(tmp_path / "out")
    assert told["clusters"] == {"exact": 0, "near": 10} and told["n_conflicting"] == 10
    clusters = left[left["cluster"] != ""].groupby("cluster")["split"]
    assert len(clusters) == 10 and (clusters.nunique() == 1).all()
    assert (clusters.size() == 2).all()


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (["train"] * 4 + ["val"] * 2, r"no image for test: found .*'train': 4.* expected at least"),
        (["train"] * 4 + [""] * 2, r"2 of 6 images have no split \(i4, i5\); the others state tr"),
        (["train"] * 6, r"no image for val and test"),
        (
            ["train"] * 4 + ["dev"] * 2,
            r"unknown splits \['dev'\]: 2 rows \(i4, i5\); use train, val",
        ),
    ],
)
def test_bad_official_splits_are_refused_before_anything_is_written(tmp_path, splits, message):
    frame = own_table(tmp_path, 6).assign(split=splits)
    with pytest.raises(ValueError, match=message):
        prepare_own(tmp_path, frame, splits="official")
    assert not (tmp_path / "out").exists()


def test_repeated_ids_are_refused_before_anything_is_written(tmp_path, monkeypatch):
    from didgen.data.sources import own

    frame = own_table(tmp_path, 20)
    monkeypatch.setattr(own, "check_ids", lambda *_: None)
    with pytest.raises(ManifestError, match=r"source table: duplicate ids: 1 \(i3\)"):
        prepare_own(tmp_path, frame.replace({"id": {"i4": "i3"}}))
    assert not (tmp_path / "out").exists()


def test_files_of_an_earlier_run_are_removed(tmp_path):
    frame = own_table(tmp_path, 20)
    prepare_own(tmp_path, frame)
    (tmp_path / "out/notes.txt").touch()
    frame = frame.iloc[2:]
    prepare_own(tmp_path, frame)
    listed = manifests(tmp_path / "out")
    for column in ("image", "mask"):
        found = {f"{column}s/{path.name}" for path in (tmp_path / f"out/{column}s").iterdir()}
        assert found == set(listed[column])
    assert (tmp_path / "out/notes.txt").exists()


def test_a_failure_leaves_the_images_and_manifests_of_an_earlier_run(tmp_path):
    frame = own_table(tmp_path, 20)
    prepare_own(tmp_path, frame)
    (tmp_path / "3.png").write_bytes(b"gone")
    with pytest.raises(SourceError, match="1 of 20 images cannot be used"):
        prepare_own(tmp_path, frame, size=40)
    assert read_image(tmp_path / "out/images/i0.png").shape == (32, 32, 3)
    assert len(manifests(tmp_path / "out")) == 20
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: (d / "3.png").write_bytes(b"gone"), "1 of 20 images cannot be used:\n  i3: "),
        (
            lambda d: Image.new("L", (9, 9), 255).save(d / "4_mask.png"),
            r"i4: .*found a mask of 9x9 pixels, expected 48x40",
        ),
        (
            lambda d: Image.linear_gradient("L").resize((48, 40)).save(d / "5_mask.png"),
            r"i5: .*not binary",
        ),
        (lambda d: Image.new("L", (48, 40)).save(d / "6_mask.png"), r"i6: .*mask is empty"),
    ],
)
def test_bad_files_are_named_and_counted_before_any_manifest(tmp_path, spoil, message):
    frame = own_table(tmp_path, 20)
    spoil(tmp_path)
    with pytest.raises(SourceError, match=message):
        prepare_own(tmp_path, frame)
    assert not list((tmp_path / "out").glob("*.csv"))


def test_limits_say_what_they_left_out_and_absent_classes_are_refused(tmp_path):
    frame = own_table(tmp_path, 20)
    prepare_own(tmp_path, frame, max_per_class=8)
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["n_images"] == 16 and summary["left_out"]["over max_per_class"] == 4
    with pytest.raises(SourceError, match=r"asks for \['DF'\]"):
        prepare_own(tmp_path, frame, classes=("MEL", "DF"))


def test_both_tasks_need_something_to_judge_on(tmp_path):
    frame = own_table(tmp_path, 20).assign(mask="")
    with pytest.raises(ValueError, match=r"found labels \['MEL', 'NV'\] and 0 masks"):
        prepare_own(tmp_path, frame)
    assert not (tmp_path / "out").exists()


def test_the_summary_tells_sources_sizes_and_mask_areas(tmp_path):
    prepare_own(tmp_path, own_table(tmp_path, 20))
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["sources"] == [{"name": "own", "licence": "", "citation": "", "n": 20}]
    assert summary["original_sizes"] == [{"width": 48, "height": 40, "n": 20}]
    areas = summary["mask_area"]
    counts = {split: sum(n.values()) for split, n in summary["splits"].items()}
    assert {split: len(values) for split, values in areas.items()} == counts
    assert all(0 < value < 1 for values in areas.values() for value in values)


def test_importers_and_settings_name_the_same_sources():
    from didgen.data.sources.published import LAYOUTS

    assert set(LAYOUTS) | {"folder"} == set(FOLDER_SOURCES)
    for source in FOLDER_SOURCES:
        with pytest.raises(ValueError, match=f"source {source} needs `folder`"):
            Config(source=source, out="x")


def test_a_folder_of_classes_is_prepared(tmp_path):
    frame = own_table(tmp_path, 20)
    for row in frame.itertuples():
        target = tmp_path / "photographs" / {"MEL": "melanoma", "NV": "NV"}[row.label]
        target.mkdir(parents=True, exist_ok=True)
        (tmp_path / row.image).rename(target / f"{row.id}.png")
        (tmp_path / row.mask).rename(target / f"{row.id}_mask.png")
    run(
        Config(
            source="folder",
            folder=str(tmp_path / "photographs"),
            labels={"melanoma": "MEL"},
            classes=("MEL", "NV"),
            size=32,
            out=tmp_path / "out",
        )
    )
    assert manifests(tmp_path / "out")["label"].value_counts().to_dict() == {"MEL": 10, "NV": 10}


def test_a_folder_of_someone_elses_images_is_refused_and_left_alone(tmp_path):
    theirs = tmp_path / "images" / "holiday.png"
    theirs.parent.mkdir()
    theirs.write_bytes(b"mine")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="found files, but no .didgen.json of `didgen data`"):
        run(Config(phantoms=56, size=32, out=tmp_path))
    assert theirs.read_bytes() == b"mine"
