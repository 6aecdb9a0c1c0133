"""A segmenter on disk: the same network comes back, and nothing else is taken for one."""

import pytest
import torch
from safetensors.torch import save_file

from didgen.downstream.saved import (
    SavedSegmenterError,
    SegmenterCard,
    load_segmenter,
    save_segmenter,
)
from didgen.downstream.segmenters import build_segmenter
from didgen.downstream.training import seeded

CHANNELS = (16, 8, 8, 8, 8)
CARD = SegmenterCard("efficientnet_lite0", CHANNELS, 32, "original", 3, 40, 0.75)


def test_weights_and_card_come_back(tmp_path):
    with seeded(0):
        model = build_segmenter(CARD.encoder, 32, CHANNELS, pretrained=False).model.eval()
    save_segmenter(tmp_path / "a.safetensors", model, CARD)
    loaded, card = load_segmenter(tmp_path / "a.safetensors")
    assert card == CARD and not loaded.training
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert (model(images) == loaded(images)).all()
    assert not any(p.requires_grad for p in loaded.parameters())


def test_other_files_are_refused(tmp_path):
    with pytest.raises(SavedSegmenterError, match="run the segment stage first"):
        load_segmenter(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"{}")
    with pytest.raises(SavedSegmenterError, match="no readable safetensors"):
        load_segmenter(tmp_path / "bad.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(SavedSegmenterError, match="do not say how they were trained"):
        load_segmenter(tmp_path / "other.safetensors")
