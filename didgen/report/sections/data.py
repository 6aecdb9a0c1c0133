"""The data: how many images of what, in which split, and what the captions found in them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from didgen.data.classes import CLASSES
from didgen.data.manifest import SPLITS, read_manifest
from didgen.report.numbers import listed, plural
from didgen.report.page import Options, Section
from didgen.report.reading import broken, json_file
from didgen.report.tables import bars, count_table

if TYPE_CHECKING:
    import pandas as pd

MASK_ONLY = "mask only, no label"


def section(run_dir: Path, options: Options) -> Section:
    """Read the three manifests, the summary and the captions' statistics."""
    import pandas as pd

    paths = {split: run_dir / "data" / f"{split}.csv" for split in SPLITS}
    frames = {s: read_manifest(p, check_files=False) for s, p in paths.items() if p.is_file()}
    if not frames:
        return Section("data", "Data", None, ("No data were prepared in this run.",))
    missing = [f"There is no {split} split in this run." for split in SPLITS if split not in frames]
    frame = pd.concat(frames.values(), ignore_index=True)
    captions = _captions(run_dir / "captions" / "statistics.json")
    if captions is None:
        missing.append("No captions were counted in this run, so attributes are not shown.")
    sizes = {
        f"{w} \N{MULTIPLICATION SIGN} {h} px"
        for w, h in zip(frame["width"], frame["height"], strict=True)
    }
    content = {
        "classes": count_table("Images by class and split", "class", _by_class(frame)),
        "groups": _groups(frame),
        "leak": _leak(frame),
        "sources": [
            plural(int(n), "image") + f" from {name or 'a source not named'}"
            for name, n in frame["source"].value_counts().items()
        ],
        "masks": int((frame["mask"] != "").sum()),
        "total": len(frame),
        "sizes": listed(sorted(sizes)),
        "left_out": _left_out(run_dir / "data" / "summary.json"),
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


def _leak(frame: "pd.DataFrame") -> str:
    """One sentence on whether a lesion or a patient stands in two splits."""
    told = []
    for column, noun in (("lesion_id", "lesion"), ("patient_id", "patient")):
        known = frame[frame[column] != ""]
        if known.empty:
            told.append(f"{noun}s are not known")
            continue
        crossing = int((known.groupby(column)["split"].nunique() > 1).sum())
        told.append(f"{plural(crossing, noun) if crossing else f'no {noun}'} in two splits")
    return f"Leakage: {listed(told)}."


def _left_out(path: Path) -> list[str]:
    summary = json_file(path) or {}
    left_out = summary.get("left_out", {})
    if not isinstance(left_out, dict):
        raise broken(path, f"{left_out!r} under 'left_out'", "counts by reason")
    return [f"{plural(int(n), 'image')} ({reason})" for reason, n in left_out.items() if n]


def _captions(path: Path) -> dict[str, Any] | None:
    """What statistics.json says of the captions: one line of facts, one distribution a field."""
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
    sources = statistics.get("mask_source")
    if _is_counts(sources):
        facts.append("masks: " + listed([f"{count} {name}" for name, count in sources.items()]))
    shown = [
        {"name": name.replace("_", " "), "bars": bars(counts)}
        for name, counts in values.items()
        if counts and name != "diagnosis"  # the table of classes has told these
    ]
    return {"facts": "; ".join(facts), "fields": shown}


_COUNTED = (("count", "caption"), ("distinct_captions", "distinct sentence"))


def _is_counts(value: Any) -> bool:
    return isinstance(value, dict) and all(type(count) is int for count in value.values())
