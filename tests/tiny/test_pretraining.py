import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from didgen.backbone.handle import Backbone
from didgen.backbone.sampling import sample, step_timesteps
from didgen.data.phantoms import cohort, render, spread_centers
from didgen.settings.pretrain_tiny import Settings
from didgen.tiny.architecture import MINIATURE, build
from didgen.tiny.autoencoder import (
    draw_crops,
    feature_distance,
    jitter_colors,
    refine_decoder,
    tile,
)
from didgen.tiny.diffusion import (
    caption_latents,
    encode_images,
    scaling_factor,
    snr_weights,
    stratified_timesteps,
)
from didgen.tiny.phase import Phase
from didgen.tiny.pretraining import (
    PhantomSet,
    Recipe,
    begin,
    captions_of,
    claim,
    draw_phantoms,
    name_diagnosis,
    pretrain,
    prompt_latents,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Pyramid(torch.nn.Module):
    """Features without weights: the image at two sizes."""

    def forward(self, images):
        return [images, torch.nn.functional.avg_pool2d(images, 2)]


def caption(image, mask, label):
    return (f"A {label.lower()}, left.", f"A {label.lower()}, right.")


def test_timesteps_take_one_from_each_equal_part():
    t = stratified_timesteps(4, 1000, generator())
    assert [int(value) // 250 for value in t] == [0, 1, 2, 3]


def test_min_snr_weights_by_hand():
    # alpha-bar 0.5: SNR 1, below the cap; 10/11: SNR 10, cut to 5.
    alphas = torch.tensor([0.5, 10 / 11])
    t = torch.tensor([0, 1])
    assert torch.allclose(snr_weights(alphas, t, "epsilon"), torch.tensor([1.0, 0.5]))
    assert torch.allclose(snr_weights(alphas, t, "v_prediction"), torch.tensor([1.0, 6 / 11]))


def test_jittered_colors_stay_in_range_and_some_images_stay_as_they_are():
    batch = torch.rand(32, 3, 4, 4, generator=generator()) * 2 - 1
    found = jitter_colors(batch, generator(1))
    assert found.abs().max() <= 1
    same = (found == batch).flatten(1).all(dim=1)
    assert 0 < same.sum() < 32


def test_crops_come_from_the_images_and_repeat_with_the_generator():
    images = np.full((3, 16, 16, 3), 255, np.uint8)
    crops = draw_crops(images, 5, 8, generator())
    assert crops.shape == (5, 3, 8, 8)
    assert crops.max() == 1
    assert torch.equal(crops, draw_crops(images, 5, 8, generator()))


def test_tiles_are_laid_out_row_by_row():
    images = torch.stack([torch.full((3, 2, 2), value) for value in (-1.0, 0.0, 1.0, -1.0)])
    sheet = tile(images, columns=2)
    assert sheet.shape == (4, 4, 3)
    assert sheet[0, 0, 0] == 0
    assert sheet[0, 3, 0] == 128
    assert sheet[3, 0, 0] == 255


def test_drawn_latents_have_unit_variance_after_scaling():
    mean = torch.randn(64, 2, 4, 8, 8, generator=generator()) * 3
    std = torch.full_like(mean, 4.0)
    assert scaling_factor(mean, std) == pytest.approx(1 / 5, rel=0.02)  # sqrt(9 + 16)


def test_mirror_images_get_their_own_latents_and_captions(miniature, tmp_path):
    images = np.zeros((2, 64, 64, 3), np.uint8)
    images[0, :, :32] = 255
    mean, std = encode_images(miniature, images, tmp_path / "latents.pt")
    assert mean.shape == std.shape == (2, 2, 4, 16, 16)
    assert not torch.allclose(mean[0, 0], mean[0, 1])
    assert torch.allclose(mean[1, 0], mean[1, 1])
    captions = np.array([["at the left.", "at the right."], ["red.", "red."]])
    data = caption_latents(miniature, mean, std, captions)
    assert data.ids.shape == (2, 2, 77)
    assert torch.allclose(data.mean, mean.float() * 0.5)
    text = miniature.tokenizer.decode(data.ids[0, 1], skip_special_tokens=True)
    assert text == "an image of lesion on skin . at the right ."


def test_phantoms_are_drawn_once_and_more_can_follow(tmp_path):
    first = draw_phantoms(tmp_path, 7, 32, 5, caption, workers=1, shard=7)
    (kept,) = tmp_path.iterdir()
    written = kept.stat().st_mtime_ns
    more = draw_phantoms(tmp_path, 8, 32, 5, caption, workers=1, shard=7)
    assert kept.stat().st_mtime_ns == written
    assert more.images.shape == (14, 32, 32, 3)
    assert np.array_equal(more.images[:7], first.images)
    assert sorted(first.labels) == sorted(more.labels[7:])
    assert first.captions[0].tolist() == list(caption(None, None, first.labels[0]))


def test_feature_distance_by_hand():
    # Same direction: 0. Right angle: |(1,0) - (0,1)|^2 = 2. Opposite: 4. Mean over the cells.
    wanted = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1).expand(1, 2, 1, 3)
    found = torch.tensor([[5.0, 0.0, -1.0], [0.0, 3.0, 0.0]]).reshape(1, 2, 1, 3)
    assert feature_distance([found], [wanted]).item() == pytest.approx(2.0)
    assert feature_distance([found, wanted], [wanted, wanted]).item() == pytest.approx(2.0)


def test_refining_moves_the_decoder_alone(miniature, tmp_path):
    autoencoder = copy.deepcopy(miniature.vae)
    before = {name: value.clone() for name, value in autoencoder.state_dict().items()}
    images = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), np.uint8)
    refine_decoder(
        autoencoder, Pyramid(), images, images, Phase(2, lr=1e-2, report_to="none"), tmp_path, 0, 2
    )
    moved = {n.split(".")[0] for n, v in autoencoder.state_dict().items() if (v != before[n]).any()}
    assert moved == {"decoder", "post_quant_conv"}
    assert not autoencoder.training
    assert all(p.requires_grad for p in autoencoder.parameters())


SHORT = Recipe(
    Settings(images=7, vae_steps=5, decoder_steps=2, text_steps=2, unet_steps=2, workers=1),
    batch_size=2,
    text_batch_size=4,
    shape=MINIATURE,
    shard=7,
)


def changed(recipe: Recipe, **settings) -> Recipe:
    return replace(recipe, settings=recipe.settings.model_copy(update=settings))


def test_a_miniature_pretraining_gives_a_folder_that_opens_in_fp32(tmp_path):
    from diffusers import StableDiffusionPipeline

    pretrain(SHORT, caption, Pyramid(), tmp_path / "out", tmp_path / "work", {"seed": 0})
    names = {path.name for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert {
        "config.json",
        "autoencoder.csv",
        "decoder.csv",
        "text.csv",
        "denoiser.csv",
        "model_index.json",
    } <= names
    backbone = Backbone.load(tmp_path / "out")
    assert backbone.vae.config.scaling_factor != 1
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "out")
    assert pipeline.unet.dtype == pipeline.text_encoder.dtype == torch.float32
    assert (tmp_path / "work" / "samples_000002.png").exists()
    before = backbone.checksum()
    pretrain(SHORT, caption, Pyramid(), tmp_path / "out", tmp_path / "work", {"seed": 0})
    assert Backbone.load(tmp_path / "out").checksum() == before
    other = changed(SHORT, prompts="shuffled")
    with pytest.raises(ValueError, match="prompts attributes instead of shuffled"):
        pretrain(other, caption, Pyramid(), tmp_path / "out", tmp_path / "work", {"seed": 0})


@pytest.mark.parametrize(
    "state", ["denoiser/step-0000001/state.json", "latents.safetensors", "export/model_index.json"]
)
def test_files_of_an_unknown_recipe_are_neither_gone_on_with_nor_replaced(tmp_path, state):
    (tmp_path / state).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / state).touch()
    with pytest.raises(ValueError, match=f"found 1 files, such as .*{state}, but no recipe.json"):
        pretrain(SHORT, caption, Pyramid(), tmp_path / "out", tmp_path, {})
    assert not (tmp_path / "recipe.json").exists() and (tmp_path / state).exists()
    (tmp_path / "recipe.json").write_text("[]")
    with pytest.raises(ValueError, match="another recipe"):
        pretrain(SHORT, caption, Pyramid(), tmp_path / "out", tmp_path, {})


def test_training_goes_on_from_a_folder_and_keeps_its_autoencoder(tmp_path):
    start = tmp_path / "start"
    build(MINIATURE, seed=3, prediction_type="v_prediction").save(start)
    recipe = replace(SHORT, start=start)
    pretrain(recipe, caption, Pyramid(), tmp_path / "out", tmp_path / "work", {})
    begun, made = Backbone.load(start), Backbone.load(tmp_path / "out")
    for name, value in begun.vae.state_dict().items():
        assert torch.equal(made.vae.state_dict()[name], value.half().float()), name
    moved = [
        not torch.equal(made.unet.state_dict()[name], value.half().float())
        for name, value in begun.unet.state_dict().items()
    ]
    assert any(moved)
    assert not (tmp_path / "work" / "autoencoder").exists()
    # Phases that a start spares are no part of the recipe; others are.
    claim(tmp_path / "work", changed(recipe, vae_steps=9))
    with pytest.raises(ValueError, match="text_steps"):
        claim(tmp_path / "work", changed(recipe, text_steps=9))
    for part in ("unet", "vae"):
        assert str(start) not in (tmp_path / "out" / part / "config.json").read_text()
    with pytest.raises(ValueError, match="no tiny backbone of 64 px"):
        begin(replace(recipe, start=Path("tiny")))
    build(MINIATURE, seed=3, prediction_type="epsilon").save(start)
    with pytest.raises(ValueError, match="predicts epsilon, expected v_prediction"):
        begin(recipe)


def test_the_control_reads_nothing_but_the_diagnosis(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (4, 64, 64, 3), np.uint8)
    labels = np.array(["MEL", "NV", "MEL", "NV"])
    words = np.array([["A large one.", "A small one."]] * 2 + [["A tan one.", "A dense one."]] * 2)
    phantoms = PhantomSet(images, images[..., 0] > 127, labels, words)

    def prompts(said: str) -> torch.Tensor:
        (tmp_path / said).mkdir()
        recipe = changed(SHORT, prompts=said)
        return prompt_latents(build(MINIATURE), phantoms, recipe, tmp_path / said).prompts

    control, full = prompts("diagnosis"), prompts("attributes")
    assert torch.equal(control[0, 0], control[0, 1])
    assert torch.equal(control[0], control[2]) and torch.equal(control[1], control[3])
    assert not torch.equal(control[0], control[1])
    assert not torch.equal(full[0, 0], full[0, 1]) and not torch.equal(full[0], full[2])


def test_shuffled_captions_stay_in_their_class():
    labels = np.array(["MEL", "NV"] * 50)
    words = np.array([[f"{code} {n}, left", f"{code} {n}, right"] for n, code in enumerate(labels)])
    phantoms = PhantomSet(np.zeros((100, 8, 8, 3), np.uint8), np.zeros((100, 8, 8)), labels, words)
    found = captions_of(phantoms, "shuffled", 0)
    assert sorted(found[:, 0]) == sorted(words[:, 0])
    assert [line.split()[0] for line in found[:, 0]] == labels.tolist()
    assert [line.replace("left", "right") for line in found[:, 0]] == found[:, 1].tolist()
    assert (found[:, 0] == words[:, 0]).mean() < 0.1
    assert (captions_of(phantoms, "shuffled", 0) == found).all()
    assert (captions_of(phantoms, "attributes", 0) == words).all()


def test_the_control_names_the_diagnosis_alone():
    assert name_diagnosis("MEL") == "A melanoma."
    assert name_diagnosis("AKIEC") == "An actinic keratosis."


def test_every_second_phantom_lies_anywhere(tmp_path):
    drawn = draw_phantoms(tmp_path, 4, 32, 5, caption, workers=1, shard=4)
    specs, centers = cohort(4, seed=50_000), spread_centers(4, 50_000)
    for k, (spec, center) in enumerate(zip(specs, centers, strict=True)):
        wanted = render(spec, 32, center if k in (1, 3) else None)
        assert np.array_equal(drawn.images[k], wanted.image)


def test_v_prediction_begins_from_pure_noise_and_epsilon_does_not():
    v, epsilon = (build(MINIATURE, prediction_type=kind) for kind in ("v_prediction", "epsilon"))
    assert v.scheduler.alphas_cumprod[-1] == 0
    assert epsilon.scheduler.alphas_cumprod[-1] == pytest.approx(0.00466, rel=0.01)
    noise = torch.randn(1, 4, 16, 16, generator=generator())
    assert torch.equal(v.add_noise(torch.ones_like(noise), noise, 999), noise)
    for scheduler in ("ddim", "dpm++"):
        assert step_timesteps(v, scheduler, 10)[0] == 999
        made = sample(v, ["a lesion"], [0], 10, guidance_scale=7.5, scheduler=scheduler)
        assert made.isfinite().all()
        assert made.abs().max() < 20
