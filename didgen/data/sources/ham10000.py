"""HAM10000 (Tschandl et al. 2018, doi 10.7910/DVN/DBW86T), unpacked in a folder.

`HAM10000_metadata` with the columns lesion_id, image_id, dx; `HAM10000_images_part_1` and `_2` with
`ISIC_*.jpg`; where fetched, `HAM10000_segmentations_lesion_tschandl` with
`ISIC_*_segmentation.png`.
"""

from pathlib import Path

from didgen.data.sources.layouts import Layout, published_records
from didgen.data.sources.records import Record

LAYOUT = Layout(
    source="HAM10000",
    tables=(
        ("HAM10000_metadata", "HAM10000_metadata.csv", "HAM10000_metadata.tab",
         "HAM10000_metadata.tsv", "HAM10000_metadata.txt"),
    ),
    columns={
        "id": ("image_id",),
        "label": ("dx",),
        "lesion_id": ("lesion_id",),
        "patient_id": ("patient_id",),
        "split": ("split",),
    },
    diagnoses={
        "akiec": "AKIEC", "bcc": "BCC", "bkl": "BKL", "df": "DF", "mel": "MEL", "nv": "NV",
        "vasc": "VASC",
    },
    needed=("id", "label", "lesion_id"),
)  # fmt: skip


def ham10000_records(folder: Path | str) -> list[Record]:
    """Records of HAM10000; masks where the segmentations were fetched too.

    Raises: `SourceError`, with counts.
    """
    return published_records(folder, LAYOUT)
