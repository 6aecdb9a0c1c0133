"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with slow tests first, whole runs before others: no core waits for them long."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, "workflow" not in item.path.parts))


@pytest.fixture(scope="session")
def isic_mini_if_there() -> Path | None:
    """Folder with the (reduced) ISIC 2018 training archives, or None."""
    named = os.environ.get("DIDGEN_ISIC2018_MIRROR")
    folder = Path(named) if named else REPOSITORY / "data/isic2018-mini"
    return folder if (folder / "ISIC2018_Task3_Training_GroundTruth.zip").is_file() else None


@pytest.fixture(scope="session")
def isic_mini(isic_mini_if_there: Path | None) -> Path:
    """Folder with the (reduced) ISIC 2018 training archives; the test is skipped without it."""
    if isic_mini_if_there is None:
        pytest.skip("no ISIC 2018 archives; set DIDGEN_ISIC2018_MIRROR to a folder of them")
    return isic_mini_if_there
