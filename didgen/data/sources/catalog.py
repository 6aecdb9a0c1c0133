"""The facts about public sources: archives with sizes and checksums, licences, citations.

Sizes, counts and licences of ISIC 2018 are those of the challenge's own download page; sizes there
are rounded, so they serve display and free-space checks, never verification. The checksums of
Task 1 are those that torch_em pins; for Task 3 no public one is known.
"""

from dataclasses import dataclass
from typing import Literal

# The challenge's current bucket, then its older one, which most write-ups still cite.
BUCKETS = (
    "https://isic-archive.s3.amazonaws.com/challenges/2018",
    "https://isic-challenge-data.s3.amazonaws.com/2018",
)
PHASES = {"train": "Training", "val": "Validation", "test": "Test"}
TASK1_SOURCE = "ISIC 2018 Task 1"
TASK3_SOURCE = "ISIC 2018 Task 3"
LESION_GROUPS = "ISIC2018_Task3_Training_LesionGroupings.csv"
CC0 = "CC0 1.0"
CC_BY_NC = "CC BY-NC 4.0"


ArchiveTask = Literal["1-2", "1", "3"]
Split = Literal["train", "val", "test"]
Kind = Literal["input", "truth", "lesions"]


@dataclass(frozen=True)
class Provenance:
    """Where images come from, under which licence, and how their authors want to be cited."""

    name: str
    licence: str
    citation: str


@dataclass(frozen=True)
class Archive:
    """One file of a challenge: `about_bytes` is rounded, `files` counts images, masks or tables."""

    name: str
    task: ArchiveTask
    split: Split
    kind: Kind
    about_bytes: int
    files: int
    licence: str
    sha256: str | None = None

    @property
    def urls(self) -> tuple[str, ...]:
        """Where the challenge offers the file, the current address first."""
        return tuple(f"{bucket}/{self.name}" for bucket in BUCKETS)

    @property
    def suffix(self) -> str:
        """What the names of its images, masks or tables end in; licences and the like do not."""
        if self.kind == "input":
            return ".jpg"
        return ".png" if self.task == "1" else ".csv"


def _task1(split: Split, kind: Kind, about_bytes: int, files: int, sha256: str) -> Archive:
    phase = PHASES[split]
    task: ArchiveTask
    task, end = ("1-2", "Input") if kind == "input" else ("1", "GroundTruth")
    name = f"ISIC2018_Task{task}_{phase}_{end}.zip"
    return Archive(name, task, split, kind, about_bytes, files, CC0, sha256)


def _task3(split: Split, kind: Kind, about_bytes: int, files: int) -> Archive:
    end = "Input" if kind == "input" else "GroundTruth"
    name = f"ISIC2018_Task3_{PHASES[split]}_{end}.zip"
    return Archive(name, "3", split, kind, about_bytes, files, CC_BY_NC)


KB, MB, GB = 10**3, 10**6, 10**9
ISIC2018 = (
    _task1("train", "input", 10_400 * MB, 2594,
           "80f98572347a2d7a376227fa9eb2e4f7459d317cb619865b8b9910c81446675f"),
    _task1("train", "truth", 26 * MB, 2594,
           "99f8b2bb3c4d6af483362010715f7e7d5d122d9f6c02cac0e0d15bef77c7604c"),
    _task1("val", "input", 228 * MB, 100,
           "0ea920fcfe512d12a6e620b50b50233c059f67b10146e1479c82be58ff15a797"),
    _task1("val", "truth", 742 * KB, 100,
           "f6911e9c0a64e6d687dd3ca466ca927dd5e82145cb2163b7a1e5b37d7a716285"),
    _task1("test", "input", 2_200 * MB, 1000,
           "e59ae1f69f4ed16f09db2cb1d76c2a828487b63d28f6ab85997f5616869b127d"),
    _task1("test", "truth", 9 * MB, 1000,
           "2e8f6edce454a5bdee52485e39f92bd6eddf357e81f39018d05512175238ef82"),
    _task3("train", "input", 2_600 * MB, 10015),
    _task3("train", "truth", 36 * KB, 1),
    Archive(LESION_GROUPS, "3", "train", "lesions", 481 * KB, 1, CC_BY_NC),
    _task3("val", "input", 51 * MB, 193),
    _task3("val", "truth", 7 * KB, 1),
    _task3("test", "input", 401 * MB, 1512),
    _task3("test", "truth", 11 * KB, 1),
)  # fmt: skip


def needed_archives(official: bool) -> tuple[Archive, ...]:
    """The archives of ISIC 2018 that a run reads: all with official splits, else the training's."""
    return tuple(archive for archive in ISIC2018 if official or archive.split == "train")


_HAM = (
    "Tschandl P, Rosendahl C, Kittler H. The HAM10000 dataset, a large collection of multi-source "
    "dermatoscopic images of common pigmented skin lesions. Scientific Data 5:180161 (2018). "
    "doi:10.1038/sdata.2018.161"
)
_ISIC2018 = (
    "Codella N, Rotemberg V, Tschandl P, et al. Skin Lesion Analysis Toward Melanoma Detection "
    "2018: A Challenge Hosted by the International Skin Imaging Collaboration (ISIC). "
    "arXiv:1902.03368 (2019)"
)
_ISIC2017 = (
    "Codella NCF, Gutman D, Celebi ME, et al. Skin Lesion Analysis Toward Melanoma Detection: A "
    "Challenge at the 2017 International Symposium on Biomedical Imaging (ISBI), Hosted by the "
    "International Skin Imaging Collaboration (ISIC). arXiv:1710.05006 (2017)"
)
_BCN = (
    "Hern\N{LATIN SMALL LETTER A WITH ACUTE}ndez-P\N{LATIN SMALL LETTER E WITH ACUTE}rez C, "
    "Combalia M, Podlipnik S, et al. BCN20000: Dermoscopic Lesions in the Wild. Scientific Data "
    "11:641 (2024). doi:10.1038/s41597-024-03387-w"
)
_PROVENANCES = (
    Provenance(TASK1_SOURCE, CC0, _ISIC2018),
    Provenance(TASK3_SOURCE, CC_BY_NC, f"{_ISIC2018}; {_HAM}"),
    Provenance("HAM10000", CC_BY_NC, _HAM),
    Provenance("ISIC 2019", CC_BY_NC, f"{_HAM}; {_ISIC2017}; {_BCN}"),
    Provenance(
        "ISIC 2020",
        CC_BY_NC,
        "Rotemberg V, Kurtansky N, Betz-Stablein B, et al. A patient-centric dataset of images and "
        "metadata for identifying melanomas using clinical context. Scientific Data 8:34 (2021). "
        "doi:10.1038/s41597-021-00815-z. Data: doi:10.34970/2020-ds01",
    ),
    Provenance(
        "PH2",
        "no public licence: for research and benchmarking, under the terms given at download",
        "Mendon\N{LATIN SMALL LETTER C WITH CEDILLA}a T, Ferreira PM, Marques JS, Marcal ARS, "
        "Rozeira J. PH2 - A dermoscopic image database for research and benchmarking. EMBC 2013: "
        "5437-5440. doi:10.1109/EMBC.2013.6610779",
    ),
    Provenance("BCN20000", f"{CC_BY_NC} as part of ISIC 2019; other copies: see theirs", _BCN),
    Provenance(
        "PAD-UFES-20",
        "CC BY 4.0",
        "Pacheco AGC, Lima GR, Salom\N{LATIN SMALL LETTER A WITH TILDE}o AS, et al. PAD-UFES-20: a "
        "skin lesion dataset composed of patient data and clinical images collected from "
        "smartphones. Data in Brief 32:106221 (2020). doi:10.1016/j.dib.2020.106221",
    ),
    Provenance("phantom", "MIT", "DiDGen, built-in procedural phantoms; see CITATION.cff"),
)


def provenance(source: str) -> Provenance | None:
    """Licence and citation of a `Record.source`; None for images that are the user's own."""
    return next((entry for entry in _PROVENANCES if entry.name == source), None)
