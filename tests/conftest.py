"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def isic_mini() -> Path:
    """Folder with the (reduced) ISIC 2018 training archives; the test is skipped without it."""
    named = os.environ.get("DIDGEN_ISIC2018_MIRROR")
    candidates = [Path(named)] if named else [REPOSITORY.parent / "shared/data/isic2018-mini"]
    for folder in candidates:
        if (folder / "ISIC2018_Task3_Training_GroundTruth.zip").is_file():
            return folder
    pytest.skip("no ISIC 2018 archives; set DIDGEN_ISIC2018_MIRROR to a folder that holds them")
