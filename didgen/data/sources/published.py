"""The published data sets that are read from a folder: what each calls its files and diagnoses."""

import pandas as pd

from didgen.data.sources.layouts import Layout, missing_table
from didgen.data.sources.listing import Listing
from didgen.data.sources.records import SourceError
from didgen.data.sources.tables import one_hot, pick_columns, read_table, refuse

HAM10000 = Layout(
    # Tschandl et al. 2018, doi 10.7910/DVN/DBW86T.
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

ISIC2020 = Layout(
    # Rotemberg et al. 2021, doi 10.34970/2020-ds01. The test set has no diagnoses and is not read.
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

BCN20000 = Layout(
    # Hernandez-Perez et al. 2024; the authors' copy (bcn_filename) or the ISIC archive's (isic_id).
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

PAD_UFES_20 = Layout(
    # Pacheco et al. 2020, doi 10.17632/zr7vgbcyr2.
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


def read_isic2019(listing: Listing, layout: Layout) -> pd.DataFrame:
    """The training set, and the test set where its ground truth is there too.

    Of each the ground truth (one column of 0 and 1 per diagnosis) and the metadata (lesion_id,
    where they have it).
    """
    parts = [_isic2019_phase(listing, layout, "Training", "train")]
    if listing.table("ISIC_2019_Test_GroundTruth.csv"):
        parts.append(_isic2019_phase(listing, layout, "Test", "test"))
    return pd.concat(parts)


def _isic2019_phase(listing: Listing, layout: Layout, phase: str, split: str) -> pd.DataFrame:
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
    codes = tuple(code.upper() for code in layout.diagnoses)
    frame = pd.DataFrame({"id": names, "label": one_hot(truth, codes, paths[0]), "split": split})
    return frame.merge(more, on="id", how="left").set_axis(frame.index)


ISIC2019 = Layout(
    source="ISIC 2019",
    tables=(("ISIC_2019_Training_GroundTruth.csv",), ("ISIC_2019_Training_Metadata.csv",)),
    columns={"id": ("image",), "lesion_id": ("lesion_id",), "patient_id": ("patient_id",)},
    # AKIEC is actinic keratosis or Bowen's disease: AK is a part of it, SCC is not.
    diagnoses={
        "mel": "MEL", "nv": "NV", "bcc": "BCC", "ak": "AKIEC", "bkl": "BKL", "df": "DF",
        "vasc": "VASC", "scc": "", "unk": "",
    },
    optional_ending="_downsampled",
    read=read_isic2019,
)  # fmt: skip


def read_ph2(listing: Listing, layout: Layout) -> pd.DataFrame:
    """`PH2_dataset.txt`, a table drawn with bars. It names neither lesions nor patients."""
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


PH2 = Layout(
    # Mendonca et al. 2013.
    source="PH2",
    tables=(("PH2_dataset.txt",),),
    columns={"id": ("Name",), "label": ("Clinical Diagnosis",)},
    # Common nevus, atypical nevus, melanoma.
    diagnoses={"0": "NV", "1": "NV", "2": "MEL"},
    mask_ending="_lesion",
    read=read_ph2,
)

LAYOUTS: dict[str, Layout] = {
    "ham10000": HAM10000,
    "isic2019": ISIC2019,
    "isic2020": ISIC2020,
    "ph2": PH2,
    "bcn20000": BCN20000,
    "pad-ufes-20": PAD_UFES_20,
}
