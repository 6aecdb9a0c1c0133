"""BCN20000 (Hernandez-Perez et al. 2024), unpacked in a folder.

The authors' copy: `bcn_20k_train.csv` (bcn_filename, diagnosis, lesion_id, split) and the folder of
its images. The ISIC archive's copy: `bcn20000_metadata_*.csv` (isic_id, diagnosis_3, lesion_id).
"""

from pathlib import Path

from didgen.data.sources.layouts import Layout, published_records
from didgen.data.sources.records import Record

LAYOUT = Layout(
    source="BCN20000",
    tables=(
        ("bcn_20k_train.csv", "bcn20000_metadata*.csv", "bcn20000*.csv", "metadata.csv"),
        ("bcn_20k_test.csv",),
    ),
    columns={
        "id": ("bcn_filename", "isic_id"),
        "label": ("diagnosis", "diagnosis_3"),
        "lesion_id": ("lesion_id",),
        "patient_id": ("patient_id",),
        "split": ("split",),
    },
    diagnoses={
        "mel": "MEL", "nv": "NV", "bcc": "BCC", "ak": "AKIEC", "bkl": "BKL", "df": "DF",
        "vasc": "VASC", "scc": "", "ood": "", "unk": "", "scar": "",
        # The ISIC archive writes diagnoses out.
        "nevus": "NV", "melanoma, nos": "MEL", "melanoma": "MEL", "melanoma metastasis": "",
        "basal cell carcinoma": "BCC", "solar or actinic keratosis": "AKIEC",
        "actinic keratosis": "AKIEC", "seborrheic keratosis": "BKL", "solar lentigo": "BKL",
        "dermatofibroma": "DF", "vascular lesion": "VASC", "squamous cell carcinoma": "",
        "squamous cell carcinoma, nos": "",
    },
    needed=("id", "label", "lesion_id"),
)  # fmt: skip


def bcn20000_records(folder: Path | str) -> list[Record]:
    """Records of BCN20000; its test images, published without diagnosis, are left out, counted.

    Raises: `SourceError`, with counts.
    """
    return published_records(folder, LAYOUT)
