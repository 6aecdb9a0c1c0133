"""The data section: origin, leaks, skin tones and sample sheet, as recorded or as not recorded."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from didgen.captions.attributes import ITA_ABOVE, SkinTone
from didgen.report.page import render
from didgen.report.reading import BrokenResult
from didgen.report.sections import data, verdict
from didgen.report.sections.data import TONES, tones
from didgen.settings.report import Settings

FEW = Settings(samples_per_class=1)


def _html(run_dir: Path) -> str:
    return render("demo", [part.section(run_dir, FEW) for part in (verdict, data)])


def _text(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html[html.index('id="data"') :]).split())


def _change(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_origin_and_leaks_are_those_of_the_files(finished_run: Path) -> None:
    section = data.section(finished_run, Settings())
    assert section.missing == ()
    origin, leaks = section.content["origin"], section.content["leaks"]
    told = {"name": "phantoms", "n": 14, "licence": "CC0-1.0", "citation": ""}
    assert origin["sources"] == [told]
    assert [(bar.name, bar.count) for bar in origin["sizes"]] == [
        ("600 × 450 px", 13), ("other sizes", 1),
    ]  # fmt: skip
    assert "train: 8 values" in origin["areas"].svg and "median" in origin["areas"].svg
    assert "no identical file in two splits, no lesion" in leaks["check"]
    search = leaks["search"]
    assert search["left"] == 0 and search["dropped"] == ["PH_MEL_train_900"]
    assert search["done"].startswith("1 pair of related images stood in two splits before. 1 image")
    outcomes = {pair["kind"]: pair["outcome"] for pair in search["pairs"]}
    assert outcomes == {
        "exact": "PH_MEL_train_900 left out", "near": "both in train", "lesion": "both in test",
    }  # fmt: skip
    rows = {row.heading: [cell.value for cell in row.cells] for row in search["table"].rows}
    assert rows == {
        "exact duplicate": [1, 1, 1], "near-duplicate": [1, 1, 0], "same lesion": [None, 1, 0],
    }  # fmt: skip


def test_what_an_older_run_did_not_record_is_said(own_run: Path) -> None:
    (own_run / "data" / "leaks.json").unlink()
    (own_run / "data" / "summary.json").write_text("{}")
    captions = own_run / "caption" / "captions.csv"
    pd.read_csv(captions).drop(columns="skin_tone").to_csv(captions, index=False)
    text = _text(_html(own_run))
    for words in (
        "Licences and citations of the sources were not recorded in this run.",
        "The original sizes of the images were not recorded in this run.",
        "The areas of the masks were not recorded in this run.",
        "Whether duplicates were looked for was not recorded in this run.",
        "Skin tones were not recorded in this run.",
        "licence not recorded",
        "no lesion in two splits",
        "Skin tone",  # then told as one of the captions' words
    ):
        assert words in text
    assert "Pairs of related images" not in text


def test_related_images_that_stay_in_two_splits_are_a_caution(own_run: Path) -> None:
    pair = {"a": "PH_NV_train_000", "b": "PH_NV_test_000", "kind": "near", "distance": 0.02}
    pair |= {"split_a": "train", "split_b": "test"}
    path = own_run / "data" / "leaks.json"
    _change(path, policy="warn", pairs=[pair], n_pairs=712, n_crossing=31, dropped=[])
    html = _html(own_run)
    text = _text(html)
    assert '<p class="caution">31 pairs' in html and '<td class="bad">in two splits</td>' in html
    assert "1 pair of those listed still stands in two splits" in text
    assert "count the 1 pair listed, of 712" in text
    assert "1 of 712 pairs by name" in text
    _change(path, pairs=[], n_pairs=0, n_crossing=0, clusters={"exact": 0, "near": 0})
    html = _html(own_run)
    assert "No two related images stood in two splits." in _text(html)
    assert "caution" not in html[html.index('id="data"') :] and "by name</summary>" not in html


def test_one_photograph_under_two_names_in_two_splits_is_seen(own_run: Path) -> None:
    frame = pd.read_csv(own_run / "data" / "train.csv")
    for split in ("val", "test"):
        other = pd.read_csv(own_run / "data" / f"{split}.csv")
        other.loc[0, "sha256"] = frame.loc[0, "sha256"]
        other.to_csv(own_run / "data" / f"{split}.csv", index=False)
    assert "1 identical file in two splits" in data.section(own_run, FEW).content["leaks"]["check"]


def test_all_that_was_recorded_is_escaped(own_run: Path, hostile: str) -> None:
    folder = own_run / "data"
    source = {"name": hostile, "licence": hostile, "citation": hostile, "n": 8}
    _change(folder / "summary.json", sources=[source])
    pair = {"a": hostile, "b": hostile + "b", "kind": "near", "distance": None}
    pair |= {"split_a": hostile, "split_b": hostile}
    _change(folder / "leaks.json", policy=hostile, finder=hostile, pairs=[pair], dropped=[hostile])
    captions = own_run / "caption" / "captions.csv"
    pd.read_csv(captions).assign(skin_tone=hostile).to_csv(captions, index=False)
    frame = pd.read_csv(folder / "train.csv").assign(source=hostile)
    frame.to_csv(folder / "train.csv", index=False)
    html = _html(own_run)
    assert not re.search(r"<(script|img src=x|svg onload)", html)
    assert html.count("alert(2)") >= 12 and "{{7*7}}" in html


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("summary.json", {"sources": ["ISIC"]}, "'sources'"),
        ("summary.json", {"original_sizes": [{"width": 600, "n": 3}]}, "'original_sizes'"),
        ("summary.json", {"original_sizes": 600}, "'original_sizes'"),
        ("summary.json", {"mask_area": {"train": [0.2, 1.4]}}, "'mask_area'"),
        ("summary.json", {"mask_area": [0.2]}, "'mask_area'"),
        ("leaks.json", {"pairs": None}, "'pairs'"),
        ("leaks.json", {"pairs": [{"a": "1", "b": "2", "kind": "twin"}]}, "exact, near, lesion"),
        ("leaks.json", {"pairs": [{"a": 1, "b": "2", "kind": "near"}]}, "ids under a and b"),
        ("leaks.json", {"dropped": [3]}, "'dropped'"),
        ("leaks.json", {"n_groups": -1}, "'n_groups'"),
        ("leaks.json", {"n_crossing": "many"}, "'n_crossing'"),
        ("leaks.json", {"clusters": {"near": 1.5}}, "'near'"),
        ("leaks.json", {"clusters": 3}, "'clusters'"),
    ],
)
def test_what_is_recorded_in_another_form_is_an_error(
    own_run: Path, name: str, changes: dict, words: str
) -> None:
    _change(own_run / "data" / name, **changes)
    with pytest.raises(BrokenResult, match=re.escape(words)) as caught:
        data.section(own_run, FEW)
    assert name in str(caught.value) and "run the stage" in str(caught.value)


def test_skin_tones_are_counted_by_split(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": list("abcd"), "split": ["train", "train", "test", "test"]})
    path = tmp_path / "captions.csv"
    assert tones(path, frame) is None
    path.write_text("id,skin_tone\na,light\nb,dark\nc,light\nd,\nnot ours,tan\n")
    table = tones(path, frame)
    rows = {row.heading: [cell.value for cell in row.cells[:-1]] for row in table.rows}
    assert table.columns == ("train", "test", "all", "share")
    assert rows["light (41° to 55°)"] == [1, 1, 2] and rows["tan (10° to 28°)"] == [0, 0, 0]
    assert rows["not measurable"] == [0, 1, 1] and rows["all"] == [2, 2, 4]
    shares = [row.cells[-1].text.replace("\u202f", " ") for row in table.rows]
    assert shares == ["0.0 %", "50.0 %", "0.0 %", "0.0 %", "0.0 %", "25.0 %", "25.0 %", "100.0 %"]


def test_skin_tones_are_the_captions_groups() -> None:
    assert tuple(TONES) == SkinTone.__args__
    bounds = [re.findall(r"-?\d+", words.replace("−", "-")) for words in TONES.values()]
    lower = [float(numbers[0]) for numbers in bounds[:-1]]
    assert lower == [angle for _, angle in ITA_ABOVE]


def test_sheet_shows_every_class_and_split_and_prefers_other_sources(own_run: Path) -> None:
    tiles = data.section(own_run, Settings()).content["sheet"]
    assert [(tile["code"], tile["split"]) for tile in tiles] == [
        (code, split) for code in ("MEL", "NV") for split in ("train", "val", "test")
    ]
    assert all(tile["outline"].path and "outline" in tile["picture"].alt for tile in tiles)
    path = own_run / "data" / "train.csv"
    frame = pd.read_csv(path, keep_default_na=False)
    frame.loc[frame.index[0], ["source", "mask"]] = ["clinic", ""]
    frame.to_csv(path, index=False)
    tiles = data.section(own_run, Settings()).content["sheet"]
    assert {tile["source"] for tile in tiles[:2]} == {"clinic", "phantoms"}
    clinic = next(tile for tile in tiles if tile["source"] == "clinic")
    assert clinic["outline"] is None and "without a mask" in clinic["picture"].alt
    assert data.section(own_run, Settings(samples_per_class=0)).content["sheet"] == []


def test_external_test_sets_are_listed_with_what_was_left_out(own_run):
    own = {
        "n_images": 180, "n_with_label": 170, "n_with_mask": 160,
        "left_out": {"other classes": 0, "related to images that networks learn from": 20},
        "sources": [{"name": "PH2", "licence": "for <research>", "citation": "Mendonca", "n": 180}],
    }  # fmt: skip
    path = own_run / "external_data" / "summary.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"ph2": own}))
    (row,) = data.section(own_run, Settings()).content["external"].rows
    assert row.heading == "ph2"
    assert [cell.value for cell in row.cells[:3]] == [180, 170, 160]
    assert row.cells[3].text == "20 related to images that networks learn from"
    assert row.cells[4].text == "for <research> Mendonca"
    path.write_text(json.dumps({"ph2": {"n_images": 180}}))
    with pytest.raises(BrokenResult, match="an external set as it is written"):
        data.section(own_run, Settings())
