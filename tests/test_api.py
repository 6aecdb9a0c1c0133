"""The Python interface: each function on a miniature backbone, and the code of the README."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import didgen
from didgen import api
from didgen.attention.layers import AttentionRecordingError
from didgen.backbone.handle import Backbone
from didgen.backbone.placeholder import add_placeholder_tokens
from didgen.runtime.files import write_png
from didgen.tiny.architecture import MINIATURE, build

QUICK = {"steps": 2, "batch_size": 2, "precision": "float32"}
PROMPT = "An image of <lesion> on <skin>."
README = Path(__file__).parents[1] / "README.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    built = build(replace(MINIATURE, image_size=128), seed=0, scaling_factor=0.5)
    add_placeholder_tokens(built.tokenizer, built.text_encoder)
    place = tmp_path_factory.mktemp("api") / "backbone"
    built.save(place)
    return place


@pytest.fixture
def model(folder) -> Backbone:
    return didgen.load(folder, "cpu")


@pytest.fixture(scope="module")
def pipe(folder):
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def disc() -> np.ndarray:
    rows, columns = np.mgrid[:128, :128]
    return (rows - 60) ** 2 + (columns - 50) ** 2 < 30**2


def test_only_what_is_promised_is_there() -> None:
    assert set(api.__all__) == didgen._API
    with pytest.raises(AttributeError, match="paint"):
        didgen.paint  # noqa: B018


def test_samples_depend_on_caption_and_seed_alone(model) -> None:
    captions = ["A melanoma.", "A nevus.", "A melanoma."]
    made = didgen.sample(model, captions, seed=3, **QUICK)
    assert [each.image.shape for each in made] == [(128, 128, 3)] * 3
    again = didgen.sample(model, captions[2:], seed=5, **QUICK)
    assert np.abs(again[0].image.astype(int) - made[2].image).max() <= 1


def test_a_pair_has_an_image_and_a_mask(model) -> None:
    (pair,) = didgen.make_pairs(model, [disc()], ["A nevus."], eta=1.0, **QUICK)
    assert pair.image.shape == (128, 128, 3)
    assert pair.mask.shape == (128, 128) and pair.mask.dtype == bool


def test_masks_are_read_out_of_any_image(model) -> None:
    images = [np.full((128, 128, 3), value, np.uint8) for value in (90, 160, 200)]
    masks = didgen.read_masks(model, images, batch_size=2)
    assert masks.shape == (3, 128, 128) and masks.dtype == bool
    assert np.array_equal(masks, didgen.read_masks(model, images, batch_size=2))


def test_region_loss_is_zero_for_maps_that_are_the_masks() -> None:
    mask = torch.zeros(1, 2, 16, 16)
    mask[:, 0, 4:8], mask[:, 1, 8:] = 1, 1
    assert didgen.region_loss(mask, mask).item() == pytest.approx(0, abs=1e-6)
    assert didgen.region_loss(mask, mask.flip(1)).item() > 0.1


def test_settings_that_do_not_exist_are_refused(model) -> None:
    with pytest.raises(ValueError, match="colour"):
        didgen.sample(model, ["A nevus."], colour="red")


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_a_pipelines_attention_is_that_of_the_recorder(pipe, folder, scale) -> None:
    """One step: the maps of the only pass, of the guided half, against the recorder by hand."""
    options = {"num_inference_steps": 1, "guidance_scale": scale, "output_type": "np"}
    prompts = [PROMPT, f"{PROMPT} A large nevus."]

    def call():
        return pipe(prompts, generator=torch.Generator().manual_seed(0), **options).images

    seen = []
    with pytest.MonkeyPatch.context() as patch:
        forward = pipe.unet.forward

        def keep(sample, timestep, encoder_hidden_states, **rest):
            seen.append((sample, timestep, encoder_hidden_states))
            return forward(sample, timestep, encoder_hidden_states, **rest)

        patch.setattr(pipe.unet, "forward", keep)
        plain = call()
    with didgen.record_attention(pipe, tokens=["<lesion>", "<skin>"]) as maps:
        recorded = call()
    assert np.array_equal(plain, recorded)
    assert not pipe.unet._forward_hooks and not pipe.text_encoder._forward_pre_hooks
    ((latents, time, text),) = seen
    wanted = {"resolution": 16, "positions": [4, 6]}
    with torch.inference_mode(), didgen.AttentionRecorder(pipe.unet, cross=wanted) as recorder:
        recorder.run(latents[-2:], time, text[-2:])
        expected = recorder.cross_maps()
    assert list(maps) == ["<lesion>", "<skin>"]
    for number, word in enumerate(maps):
        assert maps[word].shape == (2, 16, 16)
        torch.testing.assert_close(maps[word], expected[:, number], rtol=1e-4, atol=1e-7)


def test_images_per_prompt_and_later_calls_are_recorded_too(pipe) -> None:
    options = {"num_inference_steps": 2, "num_images_per_prompt": 2, "output_type": "np"}
    with didgen.record_attention(pipe, tokens=["<lesion>"]) as maps:
        for _ in range(2):
            pipe(PROMPT, **options)
    assert maps["<lesion>"].shape == (2, 16, 16)
    assert torch.isfinite(maps["<lesion>"]).all()


def test_a_prompt_without_the_word_is_refused_and_hooks_go(pipe) -> None:
    with (
        pytest.raises(AttentionRecordingError, match="lacks"),
        didgen.record_attention(pipe, tokens=["<lesion>"]),
    ):
        pipe("A plain wall.", num_inference_steps=1)
    assert not pipe.unet._forward_hooks and not pipe.text_encoder._forward_pre_hooks


def test_maps_before_any_image_are_refused(pipe) -> None:
    with (
        didgen.record_attention(pipe, tokens=["<lesion>"]) as maps,
        pytest.raises(AttentionRecordingError, match="call the pipeline first"),
    ):
        maps["<lesion>"]


def test_the_code_of_the_readme_runs(folder, tmp_path, monkeypatch) -> None:
    (code,) = re.findall(r"```python\n(import didgen.*?)```", README.read_text(), flags=re.S)
    (tmp_path / "results/demo").mkdir(parents=True)
    (tmp_path / "results/demo/backbone").symlink_to(folder)
    photo = np.where(disc()[..., None], (90, 50, 40), (220, 180, 160)).astype(np.uint8)
    write_png(tmp_path / "photo.png", photo)
    write_png(tmp_path / "layout.png", disc())
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code, names)
    assert names["images"][0].image.shape == (128, 128, 3)
    assert names["masks"].shape == (1, 128, 128)
