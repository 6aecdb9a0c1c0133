"""Feature spaces: sizes, names, what weights are asked for, and that a batch changes nothing."""

from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from didgen.downstream.feature_spaces import (
    DINOV2,
    PUBLISHED,
    Lite0Features,
    open_lpips,
    open_space,
    published_file,
)
from didgen.downstream.weights import WeightsError, lite0_state


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(0, 256, (3, 3, 96, 96), generator=torch.Generator().manual_seed(0)).to(
        torch.uint8
    )


def test_lite0_gives_one_vector_an_image_whatever_the_batch(images):
    space = open_space("efficientnet-lite0")
    together = space.embed(images)
    assert together.shape == (3, space.dims) == (3, 1280)
    alone = torch.cat([space.embed(images[k : k + 1]) for k in range(3)])
    assert torch.allclose(together, alone, atol=1e-4)
    assert "FID" not in space.distance
    assert "ImageNet" in space.weights


def test_inception_takes_a_safetensors_file_and_nothing_else(images, tmp_path, monkeypatch):
    import torch_fidelity.feature_extractor_inceptionv3 as inception

    # Random weights of the right shapes: those that the network has before it loads any.
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda *args, **more: None)
    monkeypatch.setattr(inception, "load_state_dict_from_url", lambda *args, **more: {})
    state = inception.FeatureExtractorInceptionV3("random", ["2048"]).state_dict()
    monkeypatch.undo()
    path = tmp_path / "inception.safetensors"
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    space = open_space("inception", str(path))
    assert (space.distance, space.kernel, space.side) == ("FID", "KID", 299)
    assert space.embed(images[:1]).shape == (1, space.dims) == (1, 2048)
    assert "inception.safetensors" in space.weights
    save_file({"fc.bias": torch.zeros(1008)}, path)
    with pytest.raises(WeightsError, match="do not fit"):
        open_space("inception", str(path))
    with pytest.raises(WeightsError, match="pickle"):
        open_space("inception", str(tmp_path / "weights.pth"))


@pytest.mark.slow
def test_dinov2_takes_timms_file(tmp_path):
    path = tmp_path / "dinov2.safetensors"
    save_file(timm.create_model(DINOV2, pretrained=False).state_dict(), path)
    space = open_space("dinov2", str(path))
    assert (space.distance, space.kernel) == (
        "Fréchet distance (DINOv2)",
        "kernel distance (DINOv2)",
    )
    images = torch.randint(0, 256, (2, 3, space.side, space.side)).to(torch.uint8)
    found = space.embed(images)
    assert found.shape == (2, space.dims) == (2, 384) and found.isfinite().all()
    assert torch.allclose(space.embed(images[1:]), found[1:], atol=1e-4)


def alexnet(path: Path) -> dict[str, torch.Tensor]:
    """AlexNet's feature layers with weights by formula, written to a safetensors file."""
    state = {}
    for name, value in torchvision.models.alexnet(weights=None).state_dict().items():
        if name.startswith("features"):
            noise = torch.sin(torch.arange(value.numel(), dtype=torch.float64) * 12.9898)
            noise = (noise * 43758.5453) % 1 - 0.5
            gain = 2 * (6 / value[0].numel()) ** 0.5 if value.ndim > 1 else 0.1
            state[name] = (noise * gain).reshape(value.shape).float()
    save_file(state, path)
    return state


def test_lpips_is_that_of_its_authors(images, tmp_path):
    state = alexnet(tmp_path / "alexnet.safetensors")
    distance = open_lpips(str(tmp_path / "alexnet.safetensors"))
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    a = torch.stack([(x / 5).sin(), (y / 7).cos(), ((x + y) / 9).sin()])[None]
    b = torch.stack([(x / 6).sin(), (y / 8).cos(), ((x - y) / 4).sin()])[None]
    # The value of the package lpips 0.1.4 with the same weights.
    assert distance(a, b).item() == pytest.approx(0.11963801, rel=1e-5)
    a = images.float() / 127.5 - 1
    assert distance(a, a).flatten().tolist() == [0, 0, 0]
    assert (distance(a, a.flip(0))[[0, 2]] > 0).all()
    loaded = distance.net.state_dict()["slice2.3.weight"]
    assert torch.equal(loaded, state["features.3.weight"])
    save_file({"features.0.weight": state["features.0.weight"]}, tmp_path / "part.safetensors")
    with pytest.raises(WeightsError, match="no features.0.bias"):
        open_lpips(str(tmp_path / "part.safetensors"))


def test_unknown_spaces_and_missing_weights_are_refused():
    with pytest.raises(ValueError, match="found the feature space 'vgg'"):
        open_space("vgg")
    for name in ("inception", "dinov2"):
        with pytest.raises(WeightsError, match=f"{name}: found no weights"):
            open_space(name)


def test_published_weights_come_from_the_cache_or_are_fetched_into_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def fetch(url, place, sha256_starts, progress):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    with pytest.raises(WeightsError, match="alexnet.*no network.*put the file into"):
        published_file("lpips")
    path = tmp_path / "hub" / "checkpoints" / PUBLISHED["lpips"][0].rpartition("/")[2]
    path.write_bytes(b"weights")
    assert published_file("lpips") == path


def test_features_are_the_first_stages_of_the_imagenet_network():
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    found = Lite0Features()(images)
    assert [tuple(m.shape[2:]) for m in found] == [(32, 32), (16, 16), (8, 8)]
    model = timm.create_model("efficientnet_lite0", num_classes=0).eval()
    model.load_state_dict(lite0_state())
    with torch.no_grad():
        pixels = (images + 1) * 127.5
        stem = model.bn1(model.conv_stem((pixels - 127) / 128))
        assert torch.allclose(found[0], model.blocks[0](stem), atol=1e-3)


def test_training_mode_does_not_reach_them():
    features = Lite0Features().train()
    assert not any(module.training for module in features.body.modules())
    assert not any(p.requires_grad for p in features.parameters())
