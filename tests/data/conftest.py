"""Fixtures of the tests of data."""

from collections.abc import Iterator

import pytest

from tests.data.mirror_files import FILES
from tests.data.mirror_server import MirrorServer


@pytest.fixture
def server() -> Iterator[MirrorServer]:
    """A mirror on loopback with three small files."""
    with MirrorServer(FILES) as running:
        yield running
