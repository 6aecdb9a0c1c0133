"""A miniature backbone with random weights: real components, a fraction of a second a call."""

import pytest

from didgen.backbone.handle import Backbone
from didgen.tiny.architecture import MINIATURE, build


@pytest.fixture(scope="session")
def miniature() -> Backbone:
    """Read only: tests that change a part build their own."""
    return build(MINIATURE, seed=0, scaling_factor=0.5)


@pytest.fixture(scope="session")
def saved(miniature, tmp_path_factory):
    """The miniature as a folder on disk."""
    folder = tmp_path_factory.mktemp("backbone") / "miniature"
    miniature.save(folder)
    return folder
