"""The data: images by split, class and skin tone, their origin, their leaks, and some of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from didgen.data.classes import CLASSES
from didgen.data.manifest import SPLITS, read_manifest
from didgen.report.numbers import listed, plural
from didgen.report.page import Options, Section
from didgen.report.reading import broken, json_file
from didgen.report.sections import data_leaks, data_origin, data_sheet, data_skin
from didgen.report.tables import bars, count_table

if TYPE_CHECKING:
    import pandas as pd

MASK_ONLY = "mask only, no label"


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
    origin, lacks = data_origin.origin(data / "summary.json", frame)
    missing += lacks
    leaks = data_leaks.leaks(data, frame)
    if leaks["search"] is None:
        missing.append("Whether duplicates were looked for was not recorded in this run.")
    skin = data_skin.tones(run_dir / "captions" / "captions.csv", frame)
    if skin is None:
        missing.append("Skin tones were not recorded in this run.")
    # The tables of classes and of skin tones have told these.
    told = {"diagnosis"} if skin is None else {"diagnosis", "skin_tone"}
    captions = _captions(run_dir / "captions" / "statistics.json", told)
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
        "leaks": leaks,
        "skin": skin,
        "sheet": data_sheet.sheet(data, frame, options),
        "masks": int((frame["mask"] != "").sum()),
        "total": len(frame),
        "sizes": listed(sorted(sizes)),
        "left_out": _left_out(data / "summary.json"),
        "captions": captions,
    }
    return Section("data", "Data", content, tuple(missing))


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


def _captions(path: Path, told: set[str]) -> dict[str, Any] | None:
    """What statistics.json says of the captions: one line of facts, the words of all other fields.

    `told`: fields that are shown elsewhere.
    """
    statistics = json_file(path)
    if statistics is None:
        return None
    values = statistics.get("values")
    if not isinstance(values, dict) or not all(map(_is_counts, values.values())):
        raise broken(path, "something else under 'values'", "counts of words for each field")
    facts = [plural(statistics[key], noun) for key, noun in _COUNTED if key in statistics]
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
        if set(counts) - {"not stated"} and name not in told
    ]
    return {"facts": "; ".join(facts), "fields": shown}


_COUNTED = (("count", "caption"), ("distinct_captions", "distinct sentence"))


def _is_counts(value: Any) -> bool:
    return isinstance(value, dict) and all(type(count) is int for count in value.values())
