import pandas as pd
import pytest
from pydantic import ValidationError

from didgen.runtime.files import write_csv, write_json
from didgen.stages import export


def exported(run_dir, out, **more):
    config = {"format": "imagefolder", "run_dir": run_dir, "out": out} | more
    export.run(export.Config.model_validate(config))
    return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}


def rows(path):
    return pd.read_csv(path, dtype=str, keep_default_na=False).set_index("id")


def test_by_default_real_images_are_named_and_not_written(run_dir, tmp_path):
    files = exported(run_dir, tmp_path / "out")
    assert not [name for name in files if "001" in name] and "ATTRIBUTION.md" not in files
    assert rows(tmp_path / "out/images.csv").index.tolist() == ["P_0", "P_1", "P_2", "P_image"]
    named = rows(tmp_path / "out/real_ids.csv")
    assert named["split"].to_dict() == {
        "0012": "train", "0013": "train", "0014": "val", "0015": "test",
    }  # fmt: skip
    assert named.loc["0013", "licence"] == "CC BY-NC 4.0" and "lesion_id" not in named


def test_real_images_come_with_licences_and_citations(run_dir, tmp_path):
    files = exported(run_dir, tmp_path / "out", real=True)
    text = (tmp_path / "out/ATTRIBUTION.md").read_text()
    assert "HAM10000" in text and "CC BY-NC 4.0" in text and "CC0 1.0" in text
    assert "a clinic" in text and "real_ids.csv" not in files
    table = rows(tmp_path / "out/images.csv")
    assert table["licence"].to_dict()["0012"] == "CC0 1.0" and table.loc["P_0", "seed"] == "7"


def test_the_set_of_a_method_and_where_its_masks_come_from(run_dir, tmp_path):
    # Its images hold parts of real photographs, whose licences go with them.
    with pytest.raises(ValueError, match="parts of real photographs, expected real: true"):
        exported(run_dir, tmp_path / "warp", set="warp")
    exported(run_dir, tmp_path / "warp", set="warp", real=True)
    table = rows(tmp_path / "warp/images.csv")
    own = table.loc[table["origin"] == "synthetic", "mask_source"]
    assert own.to_dict() == {"W_0": "exact", "W_1": "exact", "W_2": "exact", "W_image": ""}
    assert (tmp_path / "warp/ATTRIBUTION.md").exists()
    exported(run_dir, tmp_path / "own")
    assert rows(tmp_path / "own/images.csv").loc["P_0", "mask_source"] == "read"
    made = run_dir / "augment"
    (made / "conditions/P_0.png").write_bytes((made / "masks/P_0.png").read_bytes())
    exported(run_dir, tmp_path / "own")
    assert rows(tmp_path / "own/images.csv").loc["P_0", "mask_source"] == "condition"


def change(run_dir, **values):
    path = run_dir / "augment/metadata.csv"
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    for column, value in values.items():
        frame.loc[0, column] = value
    write_csv(path, frame)


@pytest.mark.parametrize(
    "values",
    [
        {"id": "../P_0"},
        {"file_name": "../../data/images/0012.png"},
        {"condition": "/etc/passwd"},
        {"id": "0012"},
        {"lesion_id": "L0014"},
        {"split": "test"},
    ],
)
def test_a_set_that_cannot_be_trusted_is_refused(run_dir, tmp_path, values):
    change(run_dir, **values)
    with pytest.raises(ValueError):
        exported(run_dir, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_lesions_are_numbered_anew_and_pairs_have_no_label(run_dir, tmp_path):
    change(run_dir, set="pairs", label="MEL", lesion_id="MUELLER_1")
    exported(run_dir, tmp_path / "out", real=True)
    table = rows(tmp_path / "out/images.csv")
    assert "MUELLER" not in (tmp_path / "out/images.csv").read_text()
    assert table.loc["P_0", "label"] == "" and table.loc["0012", "label"] == "MEL"
    assert table["lesion_id"].nunique() == len(table)


def test_another_file_than_the_table_says_is_not_exported(run_dir, tmp_path):
    for change_it in ("copy", "link"):
        path = run_dir / "augment/images/P_0.png"
        path.unlink()
        real = run_dir / "data/images/0012.png"
        path.symlink_to(real) if change_it == "link" else path.write_bytes(real.read_bytes())
        message = {"copy": "another file than its table's sha256", "link": "found a link to"}
        with pytest.raises(ValueError, match=message[change_it]):
            exported(run_dir, tmp_path / "out")


def test_an_own_source_is_no_published_one_whatever_its_name(run_dir, tmp_path):
    for split in ("train", "val", "test"):
        path = run_dir / f"data/{split}.csv"
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        write_csv(path, frame.assign(source="<img src=x>PH2`"))
    write_json(run_dir / "data/config.json", {"source": "folder"})
    exported(run_dir, tmp_path / "out", real=True)
    text = (tmp_path / "out/ATTRIBUTION.md").read_text()
    assert "## &lt;img src=x&gt;PH2\n" in text
    assert "not known; ask the owner" in text and "Mendon" not in text


def test_relatives_that_the_run_accepts_are_exported_with_a_warning(run_dir, tmp_path, caplog):
    for split in ("train", "val"):
        path = run_dir / f"data/{split}.csv"
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        frame.loc[0, "lesion_id"] = "both"
        write_csv(path, frame.assign(leak=["accepted"] + [""] * (len(frame) - 1)))
    exported(run_dir, tmp_path / "out")
    assert "2 images have relatives in another split" in caplog.text


@pytest.mark.parametrize("format", ["imagefolder", "nnunet", "coco", "yolo"])
@pytest.mark.parametrize("place", ["images", "masks"])
def test_a_link_to_another_file_is_not_exported(run_dir, tmp_path, format, place):
    (tmp_path / "netrc").write_text("password hunter2")
    link = run_dir / f"augment/{place}/P_0.png"
    link.unlink()
    link.symlink_to(tmp_path / "netrc")
    with pytest.raises(ValueError, match="found a link to"):
        exported(run_dir, tmp_path / "out", format=format)
    assert not (tmp_path / "out").exists()


def test_the_run_itself_is_not_replaced(run_dir):
    with pytest.raises(ValueError, match="which export reads"):
        exported(run_dir, run_dir)


@pytest.mark.parametrize(
    "values",
    [
        {"set": "../other"},
        {"format": "isic_task3"},
        {"format": "isic_task3", "arm": "../original"},
        {"format": "coco", "arm": "original"},
    ],
)
def test_settings_that_cannot_work_are_refused(values, tmp_path):
    with pytest.raises(ValidationError):
        export.Config.model_validate(
            {"format": "coco", "run_dir": tmp_path, "out": tmp_path} | values
        )
