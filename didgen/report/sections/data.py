"""The data: images by split, class and skin tone, their origin, their leaks, and some of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from didgen.data.classes import CLASSES
from didgen.data.manifest import SPLITS, read_manifest
from didgen.data.summary import doubtful_masks
from didgen.report.figures import Chart, split_histograms
from didgen.report.numbers import digits, listed, plural, whole
from didgen.report.page import Options, Section
from didgen.report.pictures import embed, mask_outline
from didgen.report.reading import broken, finite, json_file, text_table
from didgen.report.sections.samples import drawn
from didgen.report.tables import Bar, Cell, Row, Table, bars, count_table

if TYPE_CHECKING:
    import pandas as pd

MASK_ONLY = "mask only, no label"
UNNAMED = "source not named"
# A class may come from many sources; of each class and split, one image each of so many is shown.
PER_CELL = 2
SHEET_SIDE = 128
RELATIONS = {
    "exact": "exact duplicate",
    "near": "near-duplicate",
    "lesion": "same lesion",
    "patient": "same patient",
}
CROSSING = "in two splits"
POLICIES = {
    "drop": "one of the related images is left out (on_leak: drop)",
    "error": "the preparation stops (on_leak: error)",
    "warn": "they stay where they are, with a warning (on_leak: warn)",
}
# From light to dark, with the angles in degrees that bound each group.
TONES = {
    "very light": "ITA above 55°",
    "light": "41° to 55°",
    "intermediate": "28° to 41°",
    "tan": "10° to 28°",
    "brown": "\N{MINUS SIGN}30° to 10°",
    "dark": "\N{MINUS SIGN}30° or below",
}
UNKNOWN_TONE = "not measurable"
TONES_NOTE = (
    "Measured in the skin around each lesion. Photographs are not calibrated, so the angle tells "
    "of light and camera too: a group is no skin type of a person."
)


def section(run_dir: Path, options: Options) -> Section:
    """Read the three manifests, the summary, the leaks and the captions."""
    import pandas as pd

    data = run_dir / "data"
    paths = {split: data / f"{split}.csv" for split in SPLITS}
    frames = {s: read_manifest(p, check_files=False) for s, p in paths.items() if p.is_file()}
    if not frames:
        return Section("data", "Data", None, ("No data were prepared in this run.",))
    missing = [f"There is no {split} split in this run." for split in SPLITS if split not in frames]
    frame = pd.concat(frames.values(), ignore_index=True)
    origin, lacks = _origin(data / "summary.json", frame)
    external = _external(run_dir / "external_data" / "summary.json")
    missing += lacks
    leaks = _leaks(data, frame)
    if leaks["search"] is None:
        missing.append("Whether duplicates were looked for was not recorded in this run.")
    skin = tones(run_dir / "caption" / "captions.csv", frame)
    if skin is None:
        missing.append("Skin tones were not recorded in this run.")
    # The tables of classes and of skin tones show these.
    shown = {"diagnosis"} if skin is None else {"diagnosis", "skin_tone"}
    captions = _captions(run_dir / "caption" / "statistics.json", shown)
    if captions is None:
        missing.append("No captions were counted in this run, so attributes are not shown.")
    sizes = {
        f"{w} \N{MULTIPLICATION SIGN} {h} px"
        for w, h in zip(frame["width"], frame["height"], strict=True)
    }
    content = {
        "classes": count_table("Images by class and split", "class", _by_class(frame)),
        "groups": _groups(frame),
        "origin": origin,
        "external": external,
        "leaks": leaks,
        "skin": skin,
        "sheet": _sheet(data, frame, options),
        "masks": int((frame["mask"] != "").sum()),
        "total": len(frame),
        "sizes": listed(sorted(sizes)),
        "left_out": _left_out(data / "summary.json"),
        "captions": captions,
    }
    return Section("data", "Data", content, tuple(missing))


def _external(path: Path) -> Table | None:
    """The external test sets: what they hold, what was left out, and on which terms."""
    sets = json_file(path)
    if not sets:
        return None
    rows = []
    for name, own in sets.items():
        try:
            licences = [
                f"{each['licence'] or 'licence not recorded'} {each['citation']}".strip()
                for each in own["sources"]
            ]
            left = [f"{count} {why}" for why, count in own["left_out"].items() if count]
        except (AttributeError, LookupError, TypeError) as error:
            raise broken(path, f"{own!r} of {name}", "an external set as it is written") from error
        numbers = (_count(path, own, key) for key in ("n_images", "n_with_label", "n_with_mask"))
        cells = (*(Cell(value=number, places=0) for number in numbers),)
        rows.append(
            Row(str(name), (*cells, Cell(text=listed(left)), Cell(text="; ".join(licences))))
        )
    columns = ("images", "with a diagnosis", "with a mask", "left out", "licence and citation")
    note = "Nothing is trained on these; the verdict says how the networks do on them."
    return Table("External test sets", "set", columns, tuple(rows), note)


def _by_class(frame: "pd.DataFrame") -> dict[str, dict[str, int]]:
    splits = [split for split in SPLITS if (frame["split"] == split).any()]
    counts = {}
    for code in [*CLASSES, ""]:
        rows = frame[frame["label"] == code]
        if len(rows):
            name = f"{CLASSES[code].name} ({code})" if code else MASK_ONLY
            counts[name] = {split: int((rows["split"] == split).sum()) for split in splits}
    return counts


def _groups(frame: "pd.DataFrame") -> Any:
    counts = {}
    for column, noun in (("lesion_id", "lesions"), ("patient_id", "patients")):
        known = frame[frame[column] != ""]
        if len(known):
            counts[noun] = {
                split: int(known.loc[known["split"] == split, column].nunique())
                for split in SPLITS
                if (frame["split"] == split).any()
            }
    caption = "Distinct lesions and patients by split"
    return count_table(caption, "of the images", counts, total_row=False) if counts else None


def _left_out(path: Path) -> list[str]:
    summary = json_file(path) or {}
    left_out = summary.get("left_out", {})
    if not isinstance(left_out, dict):
        raise broken(path, f"{left_out!r} under 'left_out'", "counts by reason")
    return [f"{plural(int(n), 'image')} ({reason})" for reason, n in left_out.items() if n]


def _sheet(folder: Path, frame: "pd.DataFrame", options: Options) -> list[dict[str, Any]]:
    """At most `PER_CELL` images of every class and split, of different sources, drawn by hash.

    `folder` holds the images of the manifest `frame`. No images where `options` asks for no
    samples. Raises: BrokenResult if an image or mask cannot be read.
    """
    cells = min(PER_CELL, options.samples_per_class)
    chosen = []
    for code in [*CLASSES, ""]:
        for split in SPLITS:
            rows = frame[(frame["label"] == code) & (frame["split"] == split)]
            firsts = [drawn(list(group["id"]), 1)[0] for _, group in rows.groupby("source")]
            chosen += [(split, identifier) for identifier in drawn(firsts, cells)]
    by_id = frame.set_index("id")
    return [_tile(folder, by_id.loc[name], split, name, options) for split, name in chosen]


def _tile(folder: Path, row: Any, split: str, name: str, options: Options) -> dict[str, Any]:
    diagnosis = CLASSES[row["label"]].name if row["label"] else "No label"
    source = row["source"] or UNNAMED
    outlined = "with the outline of its mask" if row["mask"] else "without a mask"
    alt = f"{diagnosis}, {split} split, {source}, {outlined}"
    side = min(SHEET_SIDE, options.picture_side)
    return {
        "id": name,
        "code": row["label"] or "no label",
        "split": split,
        "source": source,
        "picture": embed(folder / row["image"], alt, side, options.picture_quality),
        "outline": mask_outline(folder / row["mask"]) if row["mask"] else None,
    }


def _origin(path: Path, frame: "pd.DataFrame") -> tuple[dict[str, Any], list[str]]:
    """What summary.json says of the images' origin, and what it lacks.

    Raises: BrokenResult where the file says it in another form.
    """
    summary = json_file(path) or {}
    missing = []
    if "sources" not in summary:
        missing.append("Licences and citations of the sources were not recorded in this run.")
    sizes = _sizes(path, summary)
    if not sizes:
        missing.append("The original sizes of the images were not recorded in this run.")
    areas = _areas(path, summary)
    if areas is None and (frame["mask"] != "").any():
        missing.append("The areas of the masks were not recorded in this run.")
    return {"sources": _sources(path, summary, frame), "sizes": sizes, "areas": areas}, missing


def _sources(path: Path, summary: dict[str, Any], frame: "pd.DataFrame") -> list[dict[str, Any]]:
    """One source a row, counted in the manifest; licence and citation are "" where not recorded."""
    recorded = summary.get("sources", [])
    if not isinstance(recorded, list) or not all(
        isinstance(one, dict) and isinstance(one.get("name"), str) for one in recorded
    ):
        raise broken(path, "something else under 'sources'", "a list of objects with a name")
    by_name = {one["name"]: one for one in recorded}
    return [
        {
            "name": name or UNNAMED,
            "n": int(n),
            "licence": str(by_name.get(name, {}).get("licence") or ""),
            "citation": str(by_name.get(name, {}).get("citation") or ""),
        }
        for name, n in frame["source"].value_counts().items()
    ]


def _sizes(path: Path, summary: dict[str, Any]) -> tuple[Bar, ...]:
    """How many photographs had which size, as bars; all sizes beyond the listed ones are one."""
    counts: dict[str, int] = {}
    recorded = summary.get("original_sizes", [])
    for one in recorded if isinstance(recorded, list) else [recorded]:
        given = [one.get(key) for key in ("width", "height", "n")] if isinstance(one, dict) else []
        width, height, n = given or (None, None, None)
        if type(n) is not int or n < 0 or type(width) is not type(height):
            raise broken(path, f"{one!r} under 'original_sizes'", "objects of width, height and n")
        known = type(width) is int and type(height) is int
        name = f"{width} \N{MULTIPLICATION SIGN} {height} px" if known else "other sizes"
        counts[name] = counts.get(name, 0) + n
    return bars(counts)


def _areas(path: Path, summary: dict[str, Any]) -> Chart | None:
    recorded = summary.get("mask_area", {})
    if not isinstance(recorded, dict) or not all(map(_are_fractions, recorded.values())):
        raise broken(path, "something else under 'mask_area'", "numbers in [0, 1] for each split")
    groups = {split: recorded[split] for split in SPLITS if recorded.get(split)}
    if not groups:
        return None
    title = "Area of the masks by split"
    note = "Bars: share of the split's images that have a mask. Dashed: the median."
    doubt = doubtful_masks(area for values in groups.values() for area in values)
    if doubt:
        note += f" Check the masks: {doubt}."
    return split_histograms("mask-areas", title, groups, "share of the image", note=note)


def _are_fractions(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
        for value in values
    )


def _leaks(folder: Path, frame: "pd.DataFrame") -> dict[str, Any]:
    """What leaks.json records (None where there is none), and what the manifest itself shows.

    `folder` is the run's data folder. Raises: BrokenResult for a leaks.json of another form.
    """
    path = folder / "leaks.json"
    record = json_file(path)
    search = None if record is None else _search(path, record, frame)
    return {"check": _check(frame), "search": search}


def _check(frame: "pd.DataFrame") -> str:
    """One sentence on what stands in two splits of the prepared data."""
    parts = []
    for column, noun in (
        ("sha256", "identical file"),
        ("lesion_id", "lesion"),
        ("patient_id", "patient"),
    ):
        known = frame[frame[column] != ""]
        if known.empty:
            parts.append(f"{noun}s are not known")
            continue
        crossing = int((known.groupby(column)["split"].nunique() > 1).sum())
        parts.append(f"{plural(crossing, noun) if crossing else f'no {noun}'} in two splits")
    return f"In the prepared data: {listed(parts)}."


def _search(path: Path, record: dict[str, Any], frame: "pd.DataFrame") -> dict[str, Any]:
    dropped = record.get("dropped", [])
    if not isinstance(dropped, list) or not all(isinstance(name, str) for name in dropped):
        raise broken(path, "something else under 'dropped'", "a list of ids")
    place = dict(zip(frame["id"], frame["split"], strict=True))
    pairs = record.get("pairs")
    if not isinstance(pairs, list) or not all(isinstance(pair, dict) for pair in pairs):
        raise broken(path, "something else under 'pairs'", "a list of objects")
    pairs = [_pair(path, pair, place, set(dropped)) for pair in pairs]
    pairs.sort(key=lambda pair: (pair["outcome"] != CROSSING, list(RELATIONS).index(pair["kind"])))
    n_pairs = _count(path, record, "n_pairs") if "n_pairs" in record else len(pairs)
    policy = str(record.get("policy") or "")
    left = sum(pair["outcome"] == CROSSING for pair in pairs)
    images, groups = _count(path, record, "n_images"), _count(path, record, "n_groups")
    return {
        "facts": f"{plural(images, 'image')} in {plural(groups, 'group')} of related images",
        "finder": str(record.get("finder") or ""),
        "policy": POLICIES.get(policy, policy),
        "done": _done(path, record, len(dropped), left),
        "left": left,
        "table": _relations(path, record, pairs, n_pairs) if n_pairs else None,
        "pairs": pairs,
        "n_pairs": n_pairs,
        "dropped": dropped,
    }


def _pair(
    path: Path, pair: dict[str, Any], place: dict[str, str], dropped: set[str]
) -> dict[str, Any]:
    """A pair for the table, with where its two images stand in the end."""
    words = {key: pair.get(key) for key in ("a", "b", "kind")}
    if not all(isinstance(word, str) for word in words.values()) or words["kind"] not in RELATIONS:
        expected = f"ids under a and b, one of {', '.join(RELATIONS)} under kind"
        raise broken(path, f"the pair {words}", expected)
    a, b = words["a"], words["b"]
    if a in dropped or b in dropped:
        outcome = "both left out" if {a, b} <= dropped else f"{a if a in dropped else b} left out"
    elif a not in place or b not in place:
        outcome = "not both in this run"
    else:
        outcome = f"both in {place[a]}" if place[a] == place[b] else CROSSING
    return words | {
        "relation": RELATIONS[words["kind"]],
        "distance": None if pair.get("distance") is None else finite(path, pair, "distance"),
        "split_a": str(pair.get("split_a") or ""),
        "split_b": str(pair.get("split_b") or ""),
        "outcome": outcome,
    }


def _count(path: Path, owner: dict[str, Any], key: str) -> int:
    value = owner.get(key)
    if type(value) is not int or value < 0:
        raise broken(path, f"{value!r} under '{key}'", "a count")
    return value


def _done(path: Path, record: dict[str, Any], n_dropped: int, left: int) -> str:
    """What stood across the splits and what became of it, in a sentence or two."""
    crossing = _count(path, record, "n_crossing")
    if crossing == 0:
        return "No two related images stood in two splits."
    summary = f"{plural(crossing, 'pair')} of related images stood in two splits before. "
    if n_dropped:
        were = "was" if n_dropped == 1 else "were"
        summary += f"{plural(n_dropped, 'image')} {were} left out because of it. "
    if left:
        return summary + (
            f"{plural(left, 'pair')} of those listed still {'stands' if left == 1 else 'stand'} in "
            "two splits: scores on the held-out splits may look better than they are."
        )
    return summary + "None of the pairs listed stands in two splits any more."


def _relations(
    path: Path, record: dict[str, Any], pairs: list[dict[str, Any]], n_pairs: int
) -> Table:
    """Pairs by kind: all that were found, those listed, those that stood in two splits."""
    clusters = record.get("clusters", {})
    if not isinstance(clusters, dict):
        raise broken(path, f"{clusters!r} under 'clusters'", "counts by kind")
    rows = []
    for kind, name in RELATIONS.items():
        named = [pair for pair in pairs if pair["kind"] == kind]
        crossed = [pair for pair in named if pair["split_a"] != pair["split_b"]]
        every = _count(path, clusters, kind) if kind in clusters else None
        if named or every:
            cells = (every, len(named), len(crossed))
            rows.append(Row(name, tuple(Cell(value=cell, places=0) for cell in cells)))
    note = "The last two columns count the pairs listed."
    if len(pairs) < n_pairs:
        note = (
            f"The last two columns count the {plural(len(pairs), 'pair')} listed, "
            f"of {whole(n_pairs)}."
        )
    columns = ("all pairs", "listed", "in two splits before")
    return Table("Pairs of related images", "relation", columns, tuple(rows), note)


def tones(path: Path, frame: "pd.DataFrame") -> Table | None:
    """Images by ITA group and split; None where captions.csv is absent or has no skin tones.

    `frame` is the manifest. Raises: BrokenResult if the file is not CSV or has no ids.
    """
    table = text_table(path, ("id",))
    if table is None or "skin_tone" not in table:
        return None
    split = dict(zip(frame["id"], frame["split"], strict=True))
    measured = [
        (tone, split[name])
        for name, tone in zip(table["id"], table["skin_tone"], strict=True)
        if name in split
    ]
    if not measured:
        return None
    strange = sorted({tone for tone, _ in measured} - set(TONES) - {""})
    splits = [name for name in SPLITS if any(place == name for _, place in measured)]
    counts = {}
    for tone in [*TONES, *strange, ""]:
        row = {name: measured.count((tone, name)) for name in splits}
        # A known group without images stays: that it is empty is what the table shows.
        if tone in TONES or any(row.values()):
            counts[_heading(tone)] = row
    caption = "Images by skin tone and split"
    plain = count_table(caption, "group by typology angle (ITA)", counts)
    rows = tuple(_with_share(row, len(measured)) for row in plain.rows)
    return Table(caption, plain.corner, (*plain.columns, "share"), rows, TONES_NOTE)


def _heading(tone: str) -> str:
    if tone == "":
        return UNKNOWN_TONE
    return f"{tone} ({TONES[tone]})" if tone in TONES else tone


def _with_share(row: Row, total: int) -> Row:
    share = 100 * (row.cells[-1].value or 0) / total
    text = f"{digits(share, 1)}\N{NARROW NO-BREAK SPACE}%"
    return Row(row.heading, (*row.cells, Cell(text=text)), row.kind)


def _captions(path: Path, elsewhere: set[str]) -> dict[str, Any] | None:
    """What statistics.json says of the captions: one line of facts, the words of all other fields.

    `elsewhere`: fields that are shown by other tables.
    """
    statistics = json_file(path)
    if statistics is None:
        return None
    values = statistics.get("values")
    if not isinstance(values, dict) or not all(map(_is_counts, values.values())):
        raise broken(path, "something else under 'values'", "counts of words for each field")
    facts = [
        plural(statistics[key], noun)
        for key, noun in (("count", "caption"), ("distinct_captions", "distinct sentence"))
        if key in statistics
    ]
    tokens = statistics.get("tokens")
    if isinstance(tokens, dict):
        facts.append(f"at most {tokens.get('max_tokens')} of {tokens.get('limit')} tokens")
        facts.append(f"{tokens.get('trimmed')} trimmed to fit")
    writers = statistics.get("captioner")
    if _is_counts(writers) and len(writers) > 1:
        facts.append("by " + listed([f"{name}: {count}" for name, count in writers.items()]))
    sources = statistics.get("mask_source")
    if _is_counts(sources):
        facts.append("masks: " + listed([f"{count} {name}" for name, count in sources.items()]))
    shown = [
        {"name": name.replace("_", " "), "bars": bars(counts)}
        for name, counts in values.items()
        if set(counts) - {"not stated"} and name not in elsewhere
    ]
    return {"facts": "; ".join(facts), "fields": shown}


def _is_counts(value: Any) -> TypeGuard[dict[str, int]]:
    return isinstance(value, dict) and all(type(count) is int for count in value.values())
