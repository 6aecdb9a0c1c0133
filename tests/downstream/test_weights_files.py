"""Weights from a file or from the hub: they arrive, foreign ones and pickles are refused."""

import hashlib
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from didgen.downstream import weights as weights_module
from didgen.downstream.classifiers import (
    FROM_SCRATCH,
    ClassifierCard,
    build_classifier,
    load_classifier,
    save_classifier,
)
from didgen.downstream.segmenters import (
    SegmenterCard,
    build_segmenter,
    load_segmenter,
    save_segmenter,
)
from didgen.downstream.weights import WeightsError, standardize

DECODER = (16, 16, 8, 8, 8)
NAME = "resnet10t"


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """Weights of a small network of 1000 classes, as timm would publish them."""
    path = tmp_path_factory.mktemp("weights") / f"{NAME}.safetensors"
    save_file(timm.create_model(NAME, pretrained=False).state_dict(), path)
    return path


def test_a_file_fills_all_but_the_last_layer(published):
    built = build_classifier(NAME, 3, 64, weights=str(published), pretrained=True)
    own, given = built.model.state_dict(), load_file(published)
    body = [key for key in given if not key.startswith("fc.")]
    assert len(body) > 20 and all(torch.equal(own[key], given[key]) for key in body)
    assert own["fc.weight"].shape[0] == 3
    digest = hashlib.sha256(published.read_bytes()).hexdigest()[:12]
    told = f"file {NAME}.safetensors, SHA-256 {digest}; last layer from scratch"
    assert built.describe()["weights"] == told
    assert built.describe()["input"] == "ImageNet mean and deviation"


def test_a_saved_classifier_sees_images_as_it_did(published, tmp_path):
    built = build_classifier(NAME, 2, 64, weights=str(published), pretrained=True)
    card = ClassifierCard(
        name=NAME, classes=("MEL", "NV"), image_size=None, shape=(48, 64), weights=built.weights,
        standardized=built.standardized, precision="bfloat16",
    )  # fmt: skip
    save_classifier(tmp_path / "a.safetensors", built.model, card)
    loaded, told = load_classifier(tmp_path / "a.safetensors", "classify")
    images = torch.rand(1, 3, 48, 64) * 2 - 1
    assert told == card and loaded.describe() == built.describe() and not loaded.model.training
    with torch.inference_mode():
        assert torch.equal(built.model.eval()(images), loaded.model(images))


def test_a_transformer_fits_its_positions_to_the_size(tmp_path):
    name = "vit_tiny_patch16_224"
    save_file(timm.create_model(name, pretrained=False).state_dict(), tmp_path / "vit.safetensors")
    built = build_classifier(
        name, 3, 64, weights=str(tmp_path / "vit.safetensors"), pretrained=True
    )
    given = load_file(tmp_path / "vit.safetensors")
    assert torch.equal(
        built.model.state_dict()["blocks.3.mlp.fc1.weight"], given["blocks.3.mlp.fc1.weight"]
    )
    assert built.model.pos_embed.shape[1] == 1 + 4 * 4


def test_a_file_fills_an_encoder_and_a_saved_segmenter_comes_back(published, tmp_path):
    built = build_segmenter(
        NAME, 64, DECODER, weights=str(published), pretrained=True, model="unet"
    )
    given = load_file(published)
    own = built.model.encoder.state_dict()
    assert all(torch.equal(own[key], given[key.removeprefix("model.")]) for key in own)
    card = SegmenterCard(NAME, DECODER, 64, "original", 0, 8, 0.5, standardized=built.standardized)
    save_segmenter(tmp_path / "a.safetensors", built.model, card)
    loaded, told = load_segmenter(tmp_path / "a.safetensors")
    images = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        assert told.standardized and torch.equal(built.model.eval()(images), loaded(images))


def test_images_are_seen_as_the_weights_saw_them():
    identity = torch.nn.Identity()
    standardize(identity, NAME)
    config = timm.get_pretrained_cfg(NAME)
    pixels = torch.tensor([0.0, 100.0, 255.0]).view(1, 3, 1, 1)
    found = identity((pixels - 127) / 128).flatten()
    expected = (pixels.flatten() / 255 - torch.tensor(config.mean)) / torch.tensor(config.std)
    assert torch.allclose(found, expected, atol=1e-6)


def test_the_weights_of_another_network_are_refused(published):
    with pytest.raises(WeightsError, match="the first is .*expected the weights of resnet18"):
        build_classifier("resnet18", 3, 64, weights=str(published), pretrained=True)
    with pytest.raises(WeightsError, match="expected the weights of resnet18"):
        build_segmenter(
            "resnet18", 64, DECODER, weights=str(published), pretrained=True, model="unet"
        )


@pytest.mark.parametrize("ending", [".pth", ".pt", ".bin", ".ckpt"])
def test_a_pickle_is_refused_with_the_way_to_convert_it(tmp_path, ending):
    torch.save({"a": torch.zeros(1)}, tmp_path / f"a{ending}")
    with pytest.raises(WeightsError, match=r"pickle.*safetensors.*weights_only=True"):
        build_classifier(NAME, 3, 64, weights=str(tmp_path / f"a{ending}"), pretrained=True)


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(WeightsError, match="no such file"):
        build_classifier(NAME, 3, 64, weights=str(tmp_path / "none.safetensors"), pretrained=True)
    (tmp_path / "bad.safetensors").write_bytes(b"{}")
    with pytest.raises(WeightsError, match="no readable safetensors"):
        build_classifier(NAME, 3, 64, weights=str(tmp_path / "bad.safetensors"), pretrained=True)


@pytest.mark.parametrize(
    ("build", "given"),
    [
        (build_classifier, {"n_classes": 3}),
        (build_segmenter, {"decoder_channels": DECODER, "model": "unet"}),
    ],
)
def test_weights_that_are_not_finite_are_named(published, tmp_path, build, given):
    tensors = load_file(published)
    tensors["layer1.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    save_file(tensors, tmp_path / "nan.safetensors")
    weights = str(tmp_path / "nan.safetensors")
    with pytest.raises(WeightsError, match="1 of its tensors hold NaN.*layer1.0.conv1.weight"):
        build(NAME, image_size=64, pretrained=True, weights=weights, **given)


def test_the_hub_is_asked_and_its_answer_said(published, monkeypatch):
    monkeypatch.setattr(weights_module, "published", lambda name: (published, f"timm/{name} (hub)"))
    built = build_classifier(NAME, 3, 64, weights="hub", pretrained=True)
    assert built.weights == f"timm/{NAME} (hub); last layer from scratch"


def test_an_unreachable_hub_means_from_scratch_and_that_is_said(monkeypatch, caplog):
    def unreachable(name: str) -> tuple[Path, str]:
        raise ConnectionError("no network")

    monkeypatch.setattr(weights_module, "published", unreachable)
    built = build_classifier(NAME, 3, 64, weights="hub", pretrained=True)
    assert built.weights == FROM_SCRATCH and not built.standardized
    assert "no weights from the hub (no network); it starts from scratch" in caplog.text


def test_nothing_is_asked_for_when_nothing_is_wanted(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert build_classifier(NAME, 3, 64, pretrained=True, weights=None).weights == FROM_SCRATCH
    assert build_classifier(NAME, 3, 64, pretrained=False, weights="hub").weights == FROM_SCRATCH
