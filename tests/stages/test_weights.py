"""Weights are brought by the functions that use them, and a missing one is named."""

import json
from pathlib import Path

import pytest

from didgen.settings.weights import Settings as WeightsSettings
from didgen.stages import weights


def test_a_list_of_all_models_with_their_sizes(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"0123456789")
    monkeypatch.setattr(weights, "published", lambda name: (file, f"of {name}"))
    gguf = tmp_path / "m.gguf"
    gguf.write_bytes(b"01234")
    config = weights.Config(
        classify={"model": "densenet121", "weights": "hub"},
        caption={"captioner": "llama_cpp", "model": str(gguf), "mmproj": str(gguf)},
        out=tmp_path / "out" / "weights.json",
    )
    weights.run(config)
    listed = json.loads(config.out.read_text())
    sizes = {model["name"]: model["bytes"] for model in listed["models"]}
    assert sizes["densenet121"] == 10 and sizes[str(gguf)] == 5
    # The small backbone comes with the package.
    assert sizes["tiny"] > 1e6 and listed["bytes"] == sum(sizes.values())


def test_all_that_is_missing_is_named_at_once(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def published(name: str):
        raise OSError("no network")

    monkeypatch.setattr(weights, "published", published)
    config = weights.Config(
        finetune={"backbone": "nobody/nothing"},
        classify={"model": "densenet121", "weights": "hub"},
        out=tmp_path / "weights.json",
    )
    with pytest.raises(ValueError, match="2 of 2 models") as caught:
        weights.run(config)
    assert "densenet121: no network" in str(caught.value) and "nobody/nothing" in str(caught.value)
    assert not config.out.exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone/model", "there is no folder"),
        ("./gone", "there is no folder gone"),
        ("empty", "has no model_index.json"),
        ("gone.safetensors", "there is no file"),
        ("none.safetensors", "found nothing in none.safetensors, expected the files of a model"),
    ],
)
def test_a_backbone_that_is_not_there_is_named(tmp_path, monkeypatch, name, message) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    (tmp_path / "none.safetensors").touch()
    name = str(tmp_path / name) if name == "gone/model" else name
    config = weights.Config(finetune={"backbone": name}, out=tmp_path / "weights.json")
    with pytest.raises(ValueError, match=f"1 of 1 models cannot be had:\n  {name}: .*{message}"):
        weights.run(config)
    assert not config.out.exists()


def test_of_a_backbone_that_makes_nothing_the_tokenizer_is_enough(tmp_path: Path) -> None:
    folder = tmp_path / "finetune"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "tokenizer" / "vocab.json").write_text("{}")
    given = {"finetune": {"backbone": str(folder)}, "out": tmp_path / "weights.json"}
    with pytest.raises(ValueError, match="1 of 1 models"):
        weights.run(weights.Config(**given))
    weights.run(weights.Config(**given, tokenizer_only=True))
    assert given["out"].is_file()


def test_networks_of_fidelity_come_with_the_others(tmp_path: Path, monkeypatch) -> None:
    asked = []

    def file_of(name: str) -> Path:
        asked.append(name)
        path = tmp_path / f"{name}.pth"
        path.write_bytes(b"0123")
        return path

    monkeypatch.setattr(weights, "published_file", file_of)
    monkeypatch.setattr(weights, "published", lambda name: (file_of(name), name))
    out = tmp_path / "weights.json"
    hub = {f"{name}_weights": "hub" for name in ("inception", "dinov2", "lpips")}
    weights.run(weights.Config(fidelity={"spaces": ["inception", "dinov2"], **hub}, out=out))
    assert asked == ["inception", "vit_small_patch14_dinov2.lvd142m", "lpips"]
    listed = {model["name"]: model["bytes"] for model in json.loads(out.read_text())["models"]}
    assert set(listed) == {"tiny", *asked} and listed["lpips"] == 4


def names(**sections) -> list[str]:
    """The weights that sections name, without the backbone, which comes with the package."""
    first, *others = [name for name, _ in weights.wanted(WeightsSettings(**sections))]
    assert first == "tiny"
    return others


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ({"model": "x/y/z.gguf"}, []),
        ({"captioner": "openai", "model": "gpt"}, []),
        ({"captioner": "transformers", "model": "a/b"}, ["a/b"]),
    ],
)
def test_only_the_captioner_that_runs_brings_models(caption: dict, expected: list[str]) -> None:
    assert names(caption=caption) == expected


def test_a_default_model_has_its_projector() -> None:
    assert len(names(caption={"captioner": "llama_cpp"})) == 2


@pytest.mark.parametrize(
    ("segment", "expected"),
    [
        ({"encoder": "resnet34", "weights": "hub"}, ["resnet34"]),
        ({"encoder": "resnet34", "weights": "hub", "pretrained": False}, []),
        ({"encoder": "resnet34", "weights": "resnet34.safetensors"}, []),
        ({"encoder": "resnet34"}, []),
        # These two have an encoder of their own, one of them an unpublished one.
        ({"model": "xbound-former", "encoder": "resnet34", "weights": "hub"}, ["pvt_v2_b2"]),
        ({"model": "dcsau-net", "encoder": "resnet34", "weights": "hub"}, []),
    ],
)
def test_the_part_of_a_segmenter_that_is_published(segment: dict, expected: list[str]) -> None:
    assert names(segment=segment) == expected


def test_a_network_of_two_stages_is_fetched_once() -> None:
    hub = {"weights": "hub"}
    both = {"classify": {"model": "resnet34", **hub}, "segment": {"encoder": "resnet34", **hub}}
    assert names(**both) == ["resnet34"]


@pytest.mark.parametrize(
    ("fidelity", "expected"),
    [
        # A file is there; a space that is not compared needs nothing.
        ({"spaces": ["inception"], "inception_weights": "i.safetensors"}, []),
        ({"dinov2_weights": "hub"}, []),
        ({"lpips_weights": "hub"}, ["lpips"]),
    ],
)
def test_networks_of_fidelity_are_fetched_where_they_are_used(
    fidelity: dict, expected: list[str]
) -> None:
    assert names(fidelity=fidelity) == expected


def test_the_perceptual_loss_of_a_method_brings_its_network() -> None:
    assert names(methods={"pix2pixhd": {"preset": "paper"}}) == ["vgg19"]
    for others in ({}, {"vgg_weights": "vgg19.safetensors"}):
        assert names(methods={"pix2pixhd": others, "sl_stylegan": {}}) == []
