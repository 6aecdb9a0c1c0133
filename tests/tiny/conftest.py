"""The miniature backbone, as in the tests of backbones."""

from tests.backbone.conftest import miniature, saved

__all__ = ["miniature", "saved"]
