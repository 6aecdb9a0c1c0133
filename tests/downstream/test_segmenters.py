"""Segmenters by name: each gives one logit a pixel, and unknown ones are refused."""

import json
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import save_file

from didgen.downstream import segmenters
from didgen.downstream.networks.xbound_former import XBoundOutput
from didgen.downstream.saved import SavedNetworkError
from didgen.downstream.segmenters import (
    SegmenterCard,
    build_segmenter,
    load_segmenter,
    save_segmenter,
)
from didgen.downstream.training import seeded
from didgen.downstream.weights import WeightsError

DECODER = (32, 16, 16, 8, 8)


@pytest.mark.parametrize(
    ("model", "encoder", "title"),
    [
        ("unet", "resnet10t", "U-Net over resnet10t"),
        ("unet++", "efficientnet_lite0", "U-Net++ over efficientnet_lite0"),
        ("deeplabv3+", "efficientnet_lite0", "DeepLabV3+ over efficientnet_lite0"),
        ("segformer", "mit_b0", "SegFormer over mit_b0"),
        ("dcsau-net", "", "DCSAU-Net"),
        ("xbound-former", "", "XBound-Former"),
    ],
)
def test_each_gives_one_logit_a_pixel(model, encoder, title):
    built = build_segmenter(encoder, 64, DECODER, model=model, pretrained=True, weights=None)
    assert built.name == title
    assert ("ImageNet" in built.weights) == (encoder == "efficientnet_lite0")
    with torch.inference_mode():
        assert built.model.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 1, 64, 64)


def test_the_loss_of_xbound_former_serves_training_and_evaluation():
    loss = build_segmenter(
        "", 64, DECODER, model="xbound-former", pretrained=True, weights=None
    ).loss
    logits, masks = torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32)
    masks[:, :, 8:16] = 1
    training = loss(XBoundOutput([logits] * 4, [[torch.zeros(1, 1, 4, 4)]]), masks)
    assert torch.isfinite(training) and torch.isfinite(loss(logits, masks))


def test_wrong_requests_are_named():
    with pytest.raises(ValueError, match="found segmenter 'unet3', expected one of unet"):
        build_segmenter("resnet10t", 64, DECODER, model="unet3", pretrained=True, weights=None)
    with pytest.raises(ValueError, match="no model 'mit_b9'"):
        build_segmenter("mit_b9", 64, DECODER, pretrained=True, model="unet", weights=None)
    with pytest.raises(ValueError, match="multiple of 32"):
        build_segmenter("", 100, DECODER, model="xbound-former", pretrained=True, weights=None)
    with pytest.raises(WeightsError, match="no pretrained weights"):
        build_segmenter("", 64, DECODER, model="dcsau-net", weights="hub", pretrained=True)


CHANNELS = (16, 8, 8, 8, 8)
CARD = SegmenterCard("efficientnet_lite0", CHANNELS, 32, "original", 3, 40, 0.75)


def test_weights_and_card_come_back(tmp_path):
    with seeded(0):
        model = build_segmenter(
            CARD.encoder, 32, CHANNELS, pretrained=False, model="unet", weights=None
        ).model.eval()
    save_segmenter(tmp_path / "a.safetensors", model, CARD)
    loaded, card = load_segmenter(tmp_path / "a.safetensors")
    assert card == CARD and not loaded.training
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert (model(images) == loaded(images)).all()
    assert not any(p.requires_grad for p in loaded.parameters())


def test_other_files_are_refused(tmp_path):
    with pytest.raises(SavedNetworkError, match="run the segment stage first"):
        load_segmenter(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"{}")
    with pytest.raises(SavedNetworkError, match="no readable safetensors"):
        load_segmenter(tmp_path / "bad.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(SavedNetworkError, match="do not say how they were trained"):
        load_segmenter(tmp_path / "other.safetensors")


@pytest.mark.parametrize("card", ["", "[]", "{", "{}", "null", "[" * 100_000, '{"encoder": "x"}'])
def test_a_card_that_is_none_is_named(tmp_path, card):
    save_file({"a": torch.zeros(1)}, tmp_path / "s.safetensors", {segmenters.CARD: card})
    with pytest.raises(SavedNetworkError, match="s.safetensors: what it says of its network"):
        load_segmenter(tmp_path / "s.safetensors")


def test_weights_of_another_network_than_the_card_says_are_named(tmp_path):
    metadata = {segmenters.CARD: json.dumps(asdict(CARD))}
    save_file({"a": torch.zeros(1)}, tmp_path / "s.safetensors", metadata)
    with pytest.raises(SavedNetworkError, match="s.safetensors: what it says of its network"):
        load_segmenter(tmp_path / "s.safetensors")
