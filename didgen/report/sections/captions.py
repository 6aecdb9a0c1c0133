"""Captions: how varied they are, and whether a model's claims agree with what is measured."""

from pathlib import Path
from typing import Any

from didgen.data.manifest import read_manifest, resolve
from didgen.report.page import Options, Section
from didgen.report.pictures import embed
from didgen.report.reading import broken, finite, json_file, text_table
from didgen.report.tables import Cell, Row, Table

TITLE = "Captions"
# Of diversity in statistics.json: words and decimals.
FIGURES = {
    "distinct_captions": ("distinct sentences", 0),
    "vocabulary": ("different words", 0),
    "mean_words": ("words a caption, mean", 1),
    "distinct_1": ("distinct-1", 4),
    "distinct_2": ("distinct-2", 4),
    "distinct_3": ("distinct-3", 4),
    "self_bleu": ("self-BLEU", 3),
}
# Scores of an attribute: key, heading.
SCORES = {"kappa": "kappa", "weighted_kappa": "kappa, weighted", "agreement": "equal words"}


def section(run_dir: Path, options: Options) -> Section:
    """Read caption/statistics.json and caption/audit.json.

    Raises: BrokenResult or ManifestError if one of them, or a table they need, is damaged.
    """
    folder = run_dir / "caption"
    statistics_path, audit_path = folder / "statistics.json", folder / "audit.json"
    statistics, audit = json_file(statistics_path), json_file(audit_path)
    missing = []
    diversity = _diversity(statistics_path, statistics or {})
    if diversity is None:
        missing.append("How varied the captions are was not measured in this run.")
    audited = None
    if audit is None or not audit.get("count"):
        missing.append(
            "No language model described the images of this run, so there are no claims to audit: "
            "all attributes were measured."
        )
    else:
        audited = _audit(audit_path, audit)
        shown, lost = _examples(run_dir, audit_path, audit, options)
        audited["examples"] = shown
        if lost:
            missing.append(f"{lost} images that the audit names are not in this run.")
    if diversity is None and audited is None:
        return Section("captions", TITLE, None, tuple(missing))
    return Section("captions", TITLE, {"diversity": diversity, "audit": audited}, tuple(missing))


def _diversity(path: Path, statistics: dict[str, Any]) -> Table | None:
    diversity = statistics.get("diversity")
    if diversity is None:
        return None
    if not isinstance(diversity, dict):
        raise broken(path, f"{diversity!r} under 'diversity'", "an object")
    rows = [
        Row(words, (Cell(value=finite(path, diversity, key), places=places),))
        for key, (words, places) in FIGURES.items()
        if key in diversity
    ]
    tokens = statistics.get("tokens")
    if isinstance(tokens, dict) and "truncation_rate" in tokens:
        for key, words, places in (
            ("max_tokens", "tokens of a prompt, at most", 0),
            ("asked_again", "captions asked for again", 0),
            ("truncation_rate", "share of captions that lost clauses", 3),
        ):
            rows.append(Row(words, (Cell(value=finite(path, tokens, key), places=places),)))
    note = (
        "distinct-n: different n-grams over all of them. Self-BLEU: how much of each caption "
        "stands in the others too; it grows with their number."
    )
    return Table("Variety of the captions", "figure", ("value",), tuple(rows), note)


def _audit(path: Path, audit: dict[str, Any]) -> dict[str, Any]:
    """The table of agreement, one row an attribute, and who made the claims."""
    attributes = audit.get("attributes")
    if not isinstance(attributes, dict) or not all(
        isinstance(one, dict) for one in attributes.values()
    ):
        raise broken(path, "something else under 'attributes'", "an object for each attribute")
    rows = []
    for name, one in attributes.items():
        scores = tuple(_score(path, one, key) for key in SCORES)
        counts = tuple(Cell(value=finite(path, one, k), places=0) for k in ("n", "unclaimed"))
        rows.append(Row(name.replace("_", " "), (*scores, *counts, Cell(text=_mistakes(one)))))
    columns = (*SCORES.values(), "images", "not stated", "most often, measured as claimed")
    note = "Kappa: 1 is full agreement, 0 what chance would give. Weighted: near misses cost less."
    table = Table("Claims and measurement", "attribute", columns, tuple(rows), note)
    return {
        "table": table,
        "count": int(finite(path, audit, "count")),
        "captioner": str(audit.get("captioner", "")),
    }


def _score(path: Path, one: dict[str, Any], key: str) -> Cell:
    # Null where kappa is not defined; only ordinal attributes have a weighted one.
    return Cell() if one.get(key) is None else Cell(value=finite(path, one, key))


def _mistakes(one: dict[str, Any]) -> str:
    """The commonest confusions in words; "" without any."""
    return "; ".join(f"{true} as {said}: {n}" for true, said, n in one.get("confusions", []))


def _examples(
    run_dir: Path, path: Path, audit: dict[str, Any], options: Options
) -> tuple[list[dict[str, Any]], int]:
    """The images with most contradictions, claims and measurements side by side; how many lack."""
    files = _files(run_dir)
    table = text_table(run_dir / "caption" / "captions.csv", ("id", "caption"))
    captions = {} if table is None else dict(zip(table["id"], table["caption"], strict=True))
    examples = audit.get("examples", [])
    if not isinstance(examples, list) or not all(
        isinstance(one, dict) and isinstance(one.get("wrong"), dict) for one in examples
    ):
        raise broken(path, "something else under 'examples'", "objects with 'id' and 'wrong'")
    shown = []
    for one in examples:
        name = str(one.get("id"))
        if name not in files:
            continue
        caption = captions.get(name, "")
        picture = embed(
            files[name], caption or "no caption", options.picture_side, options.picture_quality
        )
        wrong = [
            {"name": key.replace("_", " "), "claimed": pair[0], "measured": pair[1]}
            for key, pair in one["wrong"].items()
        ]
        shown.append({"id": name, "caption": caption, "picture": picture, "wrong": wrong})
    return shown, len(examples) - len(shown)


def _files(run_dir: Path) -> dict[str, Path]:
    """The image file of every id in the run's splits."""
    files: dict[str, Path] = {}
    for split in ("train", "val", "test"):
        path = run_dir / "data" / f"{split}.csv"
        if path.is_file():
            frame = read_manifest(path, check_files=False)
            images = resolve(path, frame["image"])
            files |= {
                name: Path(file) for name, file in zip(frame["id"], images, strict=True) if file
            }
    return files
