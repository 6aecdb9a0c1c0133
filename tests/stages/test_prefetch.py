"""Weights are brought by the functions that use them, and a missing one is named."""

import json
from pathlib import Path

import pytest

from didgen.settings.prefetch import Settings as PrefetchSettings
from didgen.stages import prefetch


def test_a_list_of_all_models_with_their_sizes(tmp_path: Path, monkeypatch) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"0123456789")
    monkeypatch.setattr("didgen.downstream.weights.published", lambda name: (weights, f"of {name}"))
    gguf = tmp_path / "m.gguf"
    gguf.write_bytes(b"01234")
    config = prefetch.Config(
        networks=["densenet121"],
        captioner="llama_cpp",
        model=str(gguf),
        mmproj=str(gguf),
        out=tmp_path / "out" / "weights.json",
    )
    prefetch.run(config)
    listed = json.loads(config.out.read_text())
    sizes = {model["name"]: model["bytes"] for model in listed["models"]}
    assert sizes["densenet121"] == 10 and sizes[str(gguf)] == 5
    # The small backbone comes with the package.
    assert sizes["tiny"] > 1e6 and listed["bytes"] == sum(sizes.values())


def test_all_that_is_missing_is_named_at_once(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def published(name: str):
        raise OSError("no network")

    monkeypatch.setattr("didgen.downstream.weights.published", published)
    config = prefetch.Config(
        backbone="nobody/nothing", networks=["densenet121"], out=tmp_path / "weights.json"
    )
    with pytest.raises(ValueError, match="2 of 2 models") as caught:
        prefetch.run(config)
    assert "densenet121: no network" in str(caught.value) and "nobody/nothing" in str(caught.value)
    assert not config.out.exists()


def test_networks_of_fidelity_come_with_the_others(tmp_path: Path, monkeypatch) -> None:
    asked = []

    def file_of(name: str) -> Path:
        asked.append(name)
        path = tmp_path / f"{name}.pth"
        path.write_bytes(b"0123")
        return path

    monkeypatch.setattr("didgen.downstream.feature_spaces.published_file", file_of)
    monkeypatch.setattr("didgen.downstream.weights.published", lambda name: (file_of(name), name))
    out = tmp_path / "weights.json"
    prefetch.run(prefetch.Config(spaces=["inception", "dinov2", "lpips"], out=out))
    assert asked == ["inception", "vit_small_patch14_dinov2.lvd142m", "lpips"]
    listed = {model["name"]: model["bytes"] for model in json.loads(out.read_text())["models"]}
    assert set(listed) == {"tiny", *asked} and listed["lpips"] == 4


def test_only_the_captioner_that_runs_brings_models() -> None:
    def names(**keys):
        return [name for name, _ in prefetch.wanted(PrefetchSettings(**keys))]

    assert names(model="x/y/z.gguf") == ["tiny"]
    assert names(captioner="openai", model="gpt") == ["tiny"]
    assert names(captioner="transformers", model="a/b") == ["tiny", "a/b"]
    # The default of the captioner: a model and its projector.
    assert len(names(captioner="llama_cpp")) == 3
