"""ISIC 2019 challenge, unpacked in a folder.

`ISIC_2019_Training_GroundTruth.csv` (one column of 0 and 1 a diagnosis),
`ISIC_2019_Training_Metadata.csv` (lesion_id) and `ISIC_2019_Training_Input/`; where fetched, the
same of `Test`, whose metadata name no lesions.
"""

from pathlib import Path

import pandas as pd

from didgen.data.sources.layouts import Layout, missing_table, published_records
from didgen.data.sources.listing import Listing
from didgen.data.sources.records import Record, SourceError
from didgen.data.sources.tables import one_hot, pick_columns, read_table, refuse

CODES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
LAYOUT = Layout(
    source="ISIC 2019",
    tables=(("ISIC_2019_Training_GroundTruth.csv",), ("ISIC_2019_Training_Metadata.csv",)),
    columns={"id": ("image",), "lesion_id": ("lesion_id",), "patient_id": ("patient_id",)},
    # AKIEC is actinic keratosis or Bowen's disease: AK is a part of it, SCC is not.
    diagnoses={
        "mel": "MEL", "nv": "NV", "bcc": "BCC", "ak": "AKIEC", "bkl": "BKL", "df": "DF",
        "vasc": "VASC", "scc": "", "unk": "",
    },
    optional_ending="_downsampled",
)  # fmt: skip


def isic2019_records(folder: Path | str) -> list[Record]:
    """Records of the training set, and of the test set where its ground truth is there too.

    SCC and UNK are left out, counted. Raises: `SourceError`, with counts.
    """
    return published_records(folder, LAYOUT, _read)


def _read(listing: Listing, layout: Layout) -> pd.DataFrame:
    parts = [_phase(listing, layout, "Training", "train")]
    if listing.table("ISIC_2019_Test_GroundTruth.csv"):
        parts.append(_phase(listing, layout, "Test", "test"))
    return pd.concat(parts)


def _phase(listing: Listing, layout: Layout, phase: str, split: str) -> pd.DataFrame:
    paths = []
    for kind in ("GroundTruth", "Metadata"):
        name = f"ISIC_2019_{phase}_{kind}.csv"
        path = listing.table(name)
        if path is None:
            raise SourceError(missing_table(listing, layout, (name,)))
        paths.append(path)
    truth = read_table(paths[0])
    needed = ("id", "lesion_id") if split == "train" else ("id",)
    more = pick_columns(read_table(paths[1]), layout.columns, needed, paths[1])
    names = pick_columns(truth, {"id": layout.columns["id"]}, ("id",), paths[0])["id"]
    refuse(
        more.loc[more["id"].duplicated(), "id"], f"{paths[1]}: duplicate images", "fetch it again"
    )
    refuse(
        names[~names.isin(more["id"])],
        f"{paths[0]}: images that {paths[1].name} lacks",
        "fetch both files again",
    )
    frame = pd.DataFrame({"id": names, "label": one_hot(truth, CODES, paths[0]), "split": split})
    return frame.merge(more, on="id", how="left").set_axis(frame.index)
