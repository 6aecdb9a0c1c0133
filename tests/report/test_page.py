"""The page: self-contained, escaped, accessible, true to its numbers, honest about gaps."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from didgen.data.manifest import ManifestError
from didgen.report.page import build, render
from didgen.report.reading import BrokenResult
from didgen.report.sections import attention, verdict
from didgen.settings.report import Config, Settings
from didgen.stages.report import run

VOID = {"meta", "img", "br", "path", "line", "rect", "circle", "polyline"}


class Reader(HTMLParser):
    """Collects elements and text; refuses elements that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        """The attributes of every element with one of the tags."""
        return [attributes for tag, attributes in self.elements if tag in tags]

    @property
    def text(self) -> str:
        """The words of the page with single spaces."""
        return " ".join("".join(self.words).split())


@pytest.fixture(scope="module")
def html(page: str) -> Reader:
    return Reader(page)


def test_page_needs_nothing_from_outside(page: str, html: Reader) -> None:
    for _, attributes in html.elements:
        for name in ("src", "href", "data", "srcset", "poster", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:image/jpeg;base64,")), value
    assert not html.all("script", "link", "iframe", "object", "embed", "form")
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style and "@import" not in style
    assert "default-src 'none'" in page


def test_captions_and_names_are_escaped(page: str, html: Reader, hostile: str) -> None:
    assert hostile in html.text
    assert any(hostile in (image["alt"] or "") for image in html.all("img"))
    assert "<script" not in page
    assert not [a for _, a in html.elements if any(name.startswith("on") for name in a)]
    assert "49" not in [word.strip() for word in html.words]  # {{7*7}} stays as it is


def test_placeholder_tokens_are_shown_as_text(page: str, html: Reader) -> None:
    assert "&lt;lesion&gt;" in page and "<lesion>" in html.text and "<skin>" in html.text
    assert not html.all("lesion", "skin")


def test_hostile_ids_and_verdicts_are_escaped(own_run: Path, hostile: str) -> None:
    verdict = json.loads((own_run / "verdict.json").read_text())
    for key in ("sentence", "test", "metric"):
        verdict["tasks"]["classification"][key] = hostile
    verdict["tasks"][hostile] = verdict["tasks"]["segmentation"]
    (own_run / "verdict.json").write_text(json.dumps(verdict))
    # A manifest refuses ids with a slash.
    word = hostile.replace("/", "")
    for shard in (own_run / "images").iterdir():
        table = pd.read_csv(shard / "metadata.csv")
        table.loc[:, "id"] = [f"{i}{shard.name}{word}" for i in range(len(table))]
        table.to_csv(shard / "metadata.csv", index=False)
    (own_run / "maps" / "config.json").write_text(json.dumps({hostile: [hostile]}))
    page = build(own_run, Settings())
    reader = Reader(page)
    assert "<script" not in page and not [a for _, a in reader.elements if "onerror" in a]
    assert reader.text.count("alert(2)") > 10


def test_every_image_has_words_and_a_size(html: Reader) -> None:
    images = html.all("img")
    # Two classes in three splits; two classes, real and synthetic; pairs; panels.
    assert len(images) == 2 * 3 + 2 * 8 + 4 + 4
    for image in images:
        assert image["alt"] and int(image["width"]) > 0 and int(image["height"]) > 0


def test_every_drawing_has_words(html: Reader) -> None:
    for drawing in html.all("svg"):
        named = drawing.get("aria-labelledby") or drawing.get("aria-label")
        assert drawing.get("aria-hidden") == "true" or (drawing["role"] == "img" and named)
    ids = [attributes["id"] for _, attributes in html.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = [a[n] for _, a in html.elements for n in ("aria-labelledby",) if n in a]
    assert {name for names in used for name in names.split()} <= set(ids)


def test_structure_for_keyboard_and_screen_reader(html: Reader) -> None:
    levels = [int(tag[1]) for tag, _ in html.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(later <= earlier + 1 for earlier, later in zip(levels, levels[1:], strict=False))
    assert all(len(html.all(tag)) == 1 for tag in ("main", "nav", "header", "footer", "h1"))
    assert html.all("html")[0]["lang"] == "en"
    ids = {attributes.get("id") for _, attributes in html.elements}
    links = [a["href"] for a in html.all("a")]
    assert links[0] == "#main" and {link[1:] for link in links} <= ids
    assert len(html.all("table")) == len(html.all("caption"))
    assert all(cell.get("scope") in ("row", "col") for cell in html.all("th"))
    for attributes in html.all("div"):
        if attributes.get("class") == "scroll":
            assert attributes["tabindex"] == "0" and attributes["aria-label"]


def _luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_both_themes_have_contrast(page: str, theme: str) -> None:
    light, dark = re.search(
        r":root \{(.*?)\}\s*@media screen and \(prefers-color-scheme: dark\) \{(.*?)\}", page, re.S
    ).groups()
    colors = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", light))
    if theme == "dark":
        colors |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", dark))
    for ground in ("paper", "card", "tint"):
        for ink in ("ink", "soft", "link", "good", "bad", "even"):
            bright, dim = sorted((_luminance(colors[ground]), _luminance(colors[ink])))[::-1]
            assert (bright + 0.05) / (dim + 0.05) >= 4.5, (ground, ink)
        for series in range(6):
            bright, dim = sorted((_luminance(colors[ground]), _luminance(colors[f"s{series}"])))[
                ::-1
            ]
            assert (bright + 0.05) / (dim + 0.05) >= 3, (ground, series)


def test_page_is_made_for_phones_and_print(page: str) -> None:
    assert 'content="width=device-width, initial-scale=1"' in page and "@media print" in page


def test_numbers_are_those_of_the_files(finished_run: Path, html: Reader) -> None:
    shown = {float(data["value"]) for data in html.all("data")}
    verdict = json.loads((finished_run / "verdict.json").read_text())
    for task in verdict["tasks"].values():
        wanted = {task["difference"], task["p"], *task["interval"], *task["other_tests"].values()}
        for arm in task["arms"].values():
            wanted |= {arm["mean"], arm["sd"], *arm["per_seed"]}
        assert wanted <= shown
        assert task["sentence"] in html.text
    maps = json.loads((finished_run / "maps" / "maps.json").read_text())
    assert {maps["lesion_iou_mean"], maps["lesion_iou_std"], maps["annotated_iou_mean"]} <= shown
    for shard in ("1-of-2", "2-of-2"):
        rows = pd.read_csv(finished_run / "pairs" / shard / "metadata.csv")
        assert set(rows["layout_iou"]) <= shown
    recalls = [
        json.loads((finished_run / f"classify/original/seed{s}/metrics.json").read_text())
        for s in range(3)
    ]
    mean = sum(each["test"]["per_class"]["MEL"]["recall"] for each in recalls) / 3
    assert any(abs(mean - value) < 1e-12 for value in shown)
    assert f"{mean:.3f}" in html.text
    assert "F1, macro" in html.text and "61 of 77 tokens" in html.text


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("helps", "Classification: synthetic images help."),
        ("hurts", "Classification: synthetic images hurt."),
        ("equivalent", "Classification: synthetic images make no difference worth having."),
        ("inconclusive", "Classification: not enough data to tell."),
    ],
)
def test_every_verdict_is_told_in_the_same_form(
    own_run: Path, html: Reader, verdict: str, words: str
) -> None:
    path = own_run / "verdict.json"
    found = json.loads(path.read_text())
    found["tasks"]["classification"]["verdict"] = verdict
    path.write_text(json.dumps(found))
    reader = Reader(build(own_run, Settings()))
    assert words in reader.text
    assert len(reader.elements) == len(html.elements)


def test_an_empty_run_says_what_it_lacks(tmp_path: Path) -> None:
    text = Reader(build(tmp_path, Settings())).text
    for words in (
        "No verdict was reached in this run",
        "No data were prepared in this run.",
        "No class-conditional images were made in this run.",
        "No pairs were made in this run.",
        "No attention maps were recorded in this run.",
        "The backbone was not fine-tuned in this run",
        "No model was tested on classification in this run.",
        "No model was tested on segmentation in this run.",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ("verdict.json", "No verdict was reached in this run"),
        ("data", "No data were prepared"),
        ("data/val.csv", "There is no val split in this run."),
        ("caption", "No captions were counted"),
        ("images", "There is no images/1-of-2/metadata.csv in this run."),
        ("pairs", "There is no pairs/1-of-2/metadata.csv in this run."),
        ("augment", "What lies in pairs/ was not gathered into the augmented set"),
        ("maps", "No attention maps were recorded"),
        ("finetune", "The backbone was not fine-tuned"),
        ("segment", "No model was tested on segmentation"),
        ("classify/original/seed1/metrics.json", "arm original, seed 1: no metrics.json"),
    ],
)
def test_a_missing_part_is_said_and_the_rest_stays(own_run: Path, gone: str, words: str) -> None:
    path = own_run / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    reader = Reader(build(own_run, Settings()))
    assert words in reader.text
    assert len(reader.all("section")) == 10


def test_a_backbone_of_an_earlier_run_is_not_of_one_without(own_run: Path) -> None:
    """Its folder and its maps may lie there still."""
    assert "Fine-tuning of the backbone" in Reader(build(own_run, Settings())).text
    for shard in ("1-of-2", "2-of-2"):
        folder = own_run / "methods" / "warp" / "pairs" / shard
        shutil.copytree(own_run / "pairs" / shard, folder)
        frame = pd.read_csv(folder / "metadata.csv").drop(columns=["condition", "layout_iou"])
        frame.assign(method="warp", area=0.25).to_csv(folder / "metadata.csv", index=False)
    shards = [f"methods/warp/pairs/{shard}" for shard in ("1-of-2", "2-of-2")]
    path = own_run / "methods" / "warp" / "augment" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"pairs": shards}))
    path = own_run / "verdict" / "config.json"
    named = {"segment_arms": ["original", "warp"], "classify_arms": [], "treatment": "warp"}
    path.write_text(json.dumps(json.loads(path.read_text()) | named))
    text = Reader(build(own_run, Settings())).text
    assert "Nothing in this run is made with a fine-tuned backbone." in text
    assert "No attention maps were recorded in this run." in text
    assert "Fine-tuning of the backbone" not in text and "Fine-tuned backbone" not in text
    assert "Area of the lesion, as a share of the image: mean 0.250" in text


def test_sets_without_rows_and_failures_are_said(own_run: Path) -> None:
    for shard in ("1-of-2", "2-of-2"):
        path = own_run / "pairs" / shard / "metadata.csv"
        path.write_text(path.read_text().splitlines()[0] + "\n")
        failed = f"id,seed,failure\nSYN_{shard},1,non-finite\n"
        (own_run / "images" / shard / "failed.csv").write_text(failed)
    (own_run / "maps" / "maps.json").write_text(
        '{"resolution": 16, "n": 0, "images": [], "note": "no held-out image has a mask"}'
    )
    text = Reader(build(own_run, Settings())).text
    assert "No pairs were made in this run." in text
    assert "2 of 10 samples failed" in text
    assert "no held-out image has a mask" in text


def _attention(run_dir: Path) -> str:
    parts = [part.section(run_dir, Settings(panels=1)) for part in (verdict, attention)]
    return Reader(render("demo", parts)).text


def test_maps_say_what_they_were_asked_with(own_run: Path, html: Reader) -> None:
    assert "An image of <lesion> on <skin>., which names nothing about the image" in html.text
    path = own_run / "maps" / "maps.json"
    maps = json.loads(path.read_text()) | {"prompt": "each image's caption"}
    path.write_text(json.dumps(maps))
    text = _attention(own_run)
    assert "names nothing" not in text and "may name the place and size" in text
    for ious in maps["images"]:
        del ious["annotated_iou"]
    del maps["prompt"], maps["annotated_iou_mean"]
    path.write_text(json.dumps(maps))
    assert "annotated mask 0." not in _attention(own_run)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("verdict.json", "{", "JSON"),
        ("verdict.json", '{"tasks": {}}', "one object per task"),
        ("maps/maps.json", '{"images": [{"lesion_iou": NaN}]}', "NaN"),
        ("classify/original/seed0/metrics.json", "[]", "a JSON object"),
        ("classify/original/seed0/metrics.json", "{}", "'test'"),
        ("classify/original/seed0/curves.csv", "step,val_score\n1,much\n", "'much'"),
        ("finetune/training.csv", "", "CSV"),
        ("pairs/1-of-2/conditions/PAIR_00000.png", "no image", "as a mask"),
        ("images/1-of-2/images/SYN_NV_00000.png", "no image", "as an image"),
    ],
)
def test_a_broken_file_is_an_error(own_run: Path, name: str, content: str, words: str) -> None:
    (own_run / name).write_text(content)
    with pytest.raises(BrokenResult, match=re.escape(words)) as caught:
        build(own_run, Settings())
    assert Path(name).name in str(caught.value)
    assert "run the stage that writes it again" in str(caught.value)


def test_a_broken_manifest_is_an_error(own_run: Path) -> None:
    (own_run / "data" / "train.csv").write_text("id,image\n1,a.png\n")
    with pytest.raises(ManifestError, match="missing columns"):
        build(own_run, Settings())


def test_no_run_is_an_error_and_writes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "report" / "index.html"
    with pytest.raises(NotADirectoryError, match="results/<run>"):
        run(Config(run_dir=tmp_path / "none", out=out))
    assert not out.parent.exists()


def test_settings_bound_the_pictures(own_run: Path) -> None:
    few = Settings(samples_per_class=1, pairs=2, panels=0)
    reader = Reader(build(own_run, few))
    assert len(reader.all("img")) == 2 * 3 + 2 * 2 + 2
    none = Reader(build(own_run, Settings(samples_per_class=0, pairs=0, panels=0)))
    assert none.all("img") == []


def test_the_page_is_the_same_every_time_and_small(finished_run: Path, page: str) -> None:
    assert build(finished_run, Settings()) == page
    assert len(page.encode()) < 300_000
    config = json.loads((finished_run / "report" / "config.json").read_text())
    assert config["samples_per_class"] == 6


def test_paths_of_the_machine_are_not_told(finished_run: Path, html: Reader) -> None:
    assert str(finished_run.resolve().parent) not in html.text
    assert "demo/maps" in html.text
