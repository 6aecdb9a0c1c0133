"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def isic_mini() -> Path:
    """Folder with the (reduced) ISIC 2018 training archives; the test is skipped without it."""
    named = os.environ.get("DIDGEN_ISIC2018_MIRROR")
    folder = Path(named) if named else REPOSITORY / "data/isic2018-mini"
    if not (folder / "ISIC2018_Task3_Training_GroundTruth.zip").is_file():
        pytest.skip(
            f"no ISIC 2018 archives in {folder}; set DIDGEN_ISIC2018_MIRROR to a folder of them"
        )
    return folder
