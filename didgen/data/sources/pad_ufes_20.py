"""PAD-UFES-20 (Pacheco et al. 2020, doi 10.17632/zr7vgbcyr2), unpacked in a folder.

`metadata.csv` (patient_id, lesion_id, diagnostic, img_id) and `images/imgs_part_1` to `_3`.
"""

from pathlib import Path

from didgen.data.sources.layouts import Layout, published_records
from didgen.data.sources.records import Record

LAYOUT = Layout(
    source="PAD-UFES-20",
    tables=(("metadata.csv",),),
    columns={
        "id": ("img_id",),
        "label": ("diagnostic",),
        "lesion_id": ("lesion_id",),
        "patient_id": ("patient_id",),
        "split": ("split",),
    },
    # Its SCC holds Bowen's disease, which would be AKIEC, without telling which images they are.
    diagnoses={
        "ack": "AKIEC", "bcc": "BCC", "mel": "MEL", "nev": "NV", "sek": "BKL", "scc": "",
        "bod": "AKIEC",
    },
    note="clinical photographs taken with smartphones, not dermoscopic images: keep them apart "
    "from dermoscopic sets, or expect models to tell the sets apart",
    needed=("id", "label", "patient_id", "lesion_id"),
)  # fmt: skip


def pad_ufes_20_records(folder: Path | str) -> list[Record]:
    """Records of PAD-UFES-20: clinical photographs, not dermoscopic images.

    Raises: `SourceError`, with counts.
    """
    return published_records(folder, LAYOUT)
