"""ISIC 2020 challenge (Rotemberg et al. 2021, doi 10.34970/2020-ds01), unpacked in a folder.

The training table under any of its three published names, and the folder of JPEG files. The test
set has no diagnoses and is not read.
"""

from pathlib import Path

from didgen.data.sources.layouts import Layout, published_records
from didgen.data.sources.records import Record

LAYOUT = Layout(
    source="ISIC 2020",
    tables=(
        ("ISIC_2020_Training_GroundTruth_v2.csv", "ISIC_2020_Training_GroundTruth.csv",
         "train.csv"),
    ),
    columns={
        "id": ("image_name",),
        "label": ("diagnosis",),
        "lesion_id": ("lesion_id",),
        "patient_id": ("patient_id",),
        "split": ("split",),
    },
    # BKL of ISIC 2018 is seborrheic keratosis, solar lentigo and lichen-planus-like keratosis. A
    # lentigo that nobody named closer may be melanocytic.
    diagnoses={
        "melanoma": "MEL", "nevus": "NV", "seborrheic keratosis": "BKL", "solar lentigo": "BKL",
        "lichenoid keratosis": "BKL", "lentigo nos": "", "cafe-au-lait macule": "",
        "atypical melanocytic proliferation": "", "unknown": "",
    },
    needed=("id", "label", "patient_id"),
)  # fmt: skip


def isic2020_records(folder: Path | str) -> list[Record]:
    """Records of the images whose diagnosis is known: about a fifth of the training set.

    Raises: `SourceError`, with counts.
    """
    return published_records(folder, LAYOUT)
