"""Where the data come from: sources, licences and citations, original sizes, areas of the masks."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from didgen.data.manifest import SPLITS
from didgen.data.summary import doubtful_masks
from didgen.report.figures import Chart, split_histograms
from didgen.report.reading import broken, json_file
from didgen.report.tables import Bar, bars

if TYPE_CHECKING:
    import pandas as pd

UNNAMED = "source not named"


def origin(path: Path, frame: "pd.DataFrame") -> tuple[dict[str, Any], list[str]]:
    """What summary.json says of the origin of the manifest's images, and what it does not say.

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
        whole = type(width) is int and type(height) is int
        name = f"{width} \N{MULTIPLICATION SIGN} {height} px" if whole else "other sizes"
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
