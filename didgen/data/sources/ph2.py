"""PH2 (Mendonca et al. 2013), unpacked in a folder.

`PH2_dataset.txt`, a table drawn with bars, and `PH2 Dataset images/IMD003/` with
`IMD003_Dermoscopic_Image/IMD003.bmp` and `IMD003_lesion/IMD003_lesion.bmp` for every image.
"""

from pathlib import Path

import pandas as pd

from didgen.data.sources.layouts import Layout, missing_table, published_records
from didgen.data.sources.listing import Listing
from didgen.data.sources.records import Record, SourceError

LAYOUT = Layout(
    source="PH2",
    tables=(("PH2_dataset.txt",),),
    columns={"id": ("Name",), "label": ("Clinical Diagnosis",)},
    # Common nevus, atypical nevus, melanoma.
    diagnoses={"0": "NV", "1": "NV", "2": "MEL"},
    mask_ending="_lesion",
)


def ph2_records(folder: Path | str) -> list[Record]:
    """Records of PH2, each with its mask. Common and atypical nevi are NV. The set names neither
    lesions nor patients.

    Raises: `SourceError`, with counts.
    """
    return published_records(folder, LAYOUT, _read)


def _read(listing: Listing, layout: Layout) -> pd.DataFrame:
    path = listing.table(*layout.tables[0])
    if path is None:
        message = missing_table(listing, layout, layout.tables[0])
        if listing.table("PH2_dataset.xlsx"):
            message += "; PH2_dataset.xlsx is not read, its twin PH2_dataset.txt is"
        raise SourceError(message)
    # Its legend, under the table, is not in UTF-8 in every copy; the table itself is ASCII.
    lines = path.read_text(encoding="latin-1").splitlines()
    rows = [[cell.strip() for cell in line.split("||")] for line in lines if line.startswith("||")]
    names = [ours for ours, (theirs,) in layout.columns.items() if rows and theirs in rows[0]]
    if len(names) < len(layout.columns):
        raise SourceError(
            f"{path}: no line of column names; found {lines[:1]}, expected || Name || ... || "
            "Clinical Diagnosis || ...; restore the file as it was published"
        )
    at = {ours: rows[0].index(theirs) for ours, (theirs,) in layout.columns.items()}
    short = [row for row in rows[1:] if len(row) <= max(at.values()) or not row[at["id"]]]
    if short or len(rows) == 1:
        raise SourceError(
            f"{path}: {len(short)} of {len(rows) - 1} rows have no name or no diagnosis; restore "
            "the file as it was published"
        )
    frame = pd.DataFrame([{ours: row[k] for ours, k in at.items()} for row in rows[1:]])
    return frame.assign(lesion_id="", patient_id="", split="")
