"""Skin tones of the data: groups of the individual typology angle (ITA) by split."""

from pathlib import Path
from typing import TYPE_CHECKING

from didgen.data.manifest import SPLITS
from didgen.report.numbers import digits
from didgen.report.reading import text_table
from didgen.report.tables import Cell, Row, Table, count_table

if TYPE_CHECKING:
    import pandas as pd

# From light to dark, with the angles in degrees that bound each group.
GROUPS = {
    "very light": "ITA above 55°",
    "light": "41° to 55°",
    "intermediate": "28° to 41°",
    "tan": "10° to 28°",
    "brown": "\N{MINUS SIGN}30° to 10°",
    "dark": "\N{MINUS SIGN}30° or below",
}
UNKNOWN = "not measurable"
NOTE = (
    "Measured in the skin around each lesion. Photographs are not calibrated, so the angle tells "
    "of light and camera too: a group is no skin type of a person."
)


def tones(path: Path, frame: "pd.DataFrame") -> Table | None:
    """Images by ITA group and split; None where captions.csv is absent or tells no skin tones.

    `frame` is the manifest. Raises: BrokenResult if the file is not CSV or has no ids.
    """
    table = text_table(path, ("id",))
    if table is None or "skin_tone" not in table:
        return None
    split = dict(zip(frame["id"], frame["split"], strict=True))
    found = [
        (tone, split[name])
        for name, tone in zip(table["id"], table["skin_tone"], strict=True)
        if name in split
    ]
    if not found:
        return None
    strange = sorted({tone for tone, _ in found} - set(GROUPS) - {""})
    splits = [name for name in SPLITS if any(place == name for _, place in found)]
    counts = {}
    for tone in [*GROUPS, *strange, ""]:
        row = {name: found.count((tone, name)) for name in splits}
        # A known group without images stays: that it is empty is what the table is there to tell.
        if tone in GROUPS or any(row.values()):
            counts[_heading(tone)] = row
    caption = "Images by skin tone and split"
    plain = count_table(caption, "group by typology angle (ITA)", counts)
    rows = tuple(_with_share(row, len(found)) for row in plain.rows)
    return Table(caption, plain.corner, (*plain.columns, "share"), rows, NOTE)


def _heading(tone: str) -> str:
    if tone == "":
        return UNKNOWN
    return f"{tone} ({GROUPS[tone]})" if tone in GROUPS else tone


def _with_share(row: Row, total: int) -> Row:
    share = 100 * (row.cells[-1].value or 0) / total
    told = f"{digits(share, 1)}\N{NARROW NO-BREAK SPACE}%"
    return Row(row.heading, (*row.cells, Cell(text=told)), row.kind)
