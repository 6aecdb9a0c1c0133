import json
import shutil

import pytest
import torch

from didgen.backbone.folder import BackboneError
from didgen.backbone.handle import Backbone, PromptTooLong, TokenNotFound
from didgen.tiny.architecture import MINIATURE, build


def images(count=2, size=64):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_sizes_follow_from_the_configs(miniature):
    assert miniature.latent_size == 16
    assert miniature.image_size == 64
    assert miniature.latent_shape == (4, 16, 16)
    assert miniature.prediction_type == "epsilon"
    assert miniature.prompt_limit == 77


def test_a_saved_folder_opens_with_the_same_outputs(miniature, saved):
    opened = Backbone.load(saved)
    assert opened.checksum() == miniature.checksum()
    text = ["an image of lesion on skin."]
    with torch.no_grad():
        expected, found = miniature.embed(text), opened.embed(text)
        assert torch.equal(expected, found)
        latents = miniature.encode(images(1))
        assert torch.equal(latents, opened.encode(images(1)))
        predicted = miniature.predict(latents, 500, expected)
        # Not equal bit for bit: kernels sum in an order that depends on memory alignment.
        assert torch.allclose(predicted, opened.predict(latents, 500, found), atol=1e-6)
    assert not opened.unet.training
    assert not any(p.requires_grad for module in opened.modules() for p in module.parameters())


def test_a_saved_folder_does_not_say_where_it_was_opened_from(saved, tmp_path):
    Backbone.load(saved).save(tmp_path / "again")
    assert all(str(saved) not in path.read_text() for path in (tmp_path / "again").rglob("*.json"))


def test_a_saved_folder_opens_as_a_diffusers_pipeline(miniature, saved):
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(saved)
    assert pipeline.tokenizer("lesion on skin").input_ids == (
        miniature.tokenizer("lesion on skin").input_ids
    )
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline("a lesion", num_inference_steps=1, output_type="np").images
    assert drawn.shape == (1, 64, 64, 3)
    names = {file.suffix for file in saved.rglob("*") if file.is_file()}
    assert names <= {".json", ".txt", ".safetensors"}


def test_half_precision_folders_open_in_the_wanted_type(miniature, saved, tmp_path):
    Backbone.load(saved, dtype=torch.float16).save(tmp_path / "half")
    opened = Backbone.load(tmp_path / "half", dtype=torch.float32)
    kinds = {p.dtype for module in opened.modules() for p in module.parameters()}
    assert kinds == {torch.float32}


def test_latents_are_scaled_on_the_way_in_and_out(miniature):
    with torch.no_grad():
        raw = miniature.vae.encode(images()).latent_dist
        mean, std = miniature.encode_moments(images())
        assert torch.allclose(mean, raw.mean * 0.5)
        assert torch.allclose(std, raw.std * 0.5)
        assert torch.equal(miniature.encode(images()), mean)
        expected = miniature.vae.decode(raw.mean).sample.clamp(-1, 1)
        assert torch.allclose(miniature.decode(mean), expected, atol=1e-6)


def test_a_shift_factor_is_taken_off_and_put_back():
    backbone = build(MINIATURE, scaling_factor=2.0)
    backbone.vae.register_to_config(shift_factor=0.25)
    with torch.no_grad():
        raw = backbone.vae.encode(images()).latent_dist.mean
        assert torch.allclose(backbone.encode(images()), (raw - 0.25) * 2.0)
        expected = backbone.vae.decode(raw).sample.clamp(-1, 1)
        assert torch.allclose(backbone.decode((raw - 0.25) * 2.0), expected, atol=1e-5)


def test_draws_differ_from_the_mean_and_repeat_with_the_seed(miniature):
    with torch.no_grad():
        first = miniature.encode(images(), torch.Generator().manual_seed(3))
        second = miniature.encode(images(), torch.Generator().manual_seed(3))
        assert torch.equal(first, second)
        assert not torch.allclose(first, miniature.encode(images()))


def fixed_schedule(prediction_type, cumulative=0.64):
    """A backbone whose signal is sqrt(0.64) = 0.8 and noise 0.6 at every timestep."""
    backbone = build(MINIATURE, prediction_type=prediction_type)
    backbone.scheduler.alphas_cumprod = torch.full((1000,), cumulative)
    return backbone


def test_epsilon_algebra_by_hand():
    backbone = fixed_schedule("epsilon")
    x0, noise = torch.full((1, 4, 2, 2), 2.0), torch.full((1, 4, 2, 2), -1.0)
    noisy = backbone.add_noise(x0, noise, 10)
    assert torch.allclose(noisy, torch.full_like(noisy, 0.8 * 2 - 0.6))
    assert torch.equal(backbone.training_target(x0, noise, 10), noise)
    assert torch.allclose(backbone.to_x0(noise, noisy, 10), x0)


def test_v_prediction_algebra_by_hand():
    backbone = fixed_schedule("v_prediction")
    x0, noise = torch.full((1, 4, 2, 2), 2.0), torch.full((1, 4, 2, 2), -1.0)
    noisy = backbone.add_noise(x0, noise, 10)
    v = backbone.training_target(x0, noise, 10)
    assert torch.allclose(v, torch.full_like(v, 0.8 * -1 - 0.6 * 2))
    assert torch.allclose(backbone.to_x0(v, noisy, 10), x0, atol=1e-6)


def test_each_image_may_have_its_own_timestep(miniature):
    x0, noise = torch.ones(2, 4, 2, 2), torch.zeros(2, 4, 2, 2)
    noisy = miniature.add_noise(x0, noise, torch.tensor([0, 999]))
    expected = miniature.scheduler.alphas_cumprod[[0, 999]].sqrt()
    assert torch.allclose(noisy[:, 0, 0, 0], expected)


def test_embeddings_fill_the_prompt_limit(miniature):
    with torch.no_grad():
        assert miniature.embed(["", "a lesion"]).shape == (2, 77, 16)


def test_a_prompt_of_77_tokens_is_read_and_one_of_78_is_refused(miniature):
    with torch.no_grad():
        miniature.embed(["red " * 75])
    with pytest.raises(PromptTooLong, match="78 tokens"):
        miniature.embed(["a lesion", "red " * 76])


def test_token_positions_count_from_the_start_token(miniature):
    assert miniature.token_positions("An image of lesion on skin.", "lesion") == [4]
    assert miniature.token_positions("An image of lesion on skin.", "skin") == [6]
    assert miniature.token_positions("red, light red and pink", "red") == [1, 4]


def test_a_word_in_pieces_gives_the_positions_of_all(miniature):
    count = len(miniature.tokenizer("quux", add_special_tokens=False).input_ids)
    assert count > 1
    assert miniature.token_positions("red quux", "quux") == list(range(2, 2 + count))


@pytest.mark.parametrize("token", ["melanoma", "kin", ""])
def test_absent_tokens_are_reported(miniature, token):
    with pytest.raises(TokenNotFound, match="does not occur"):
        miniature.token_positions("lesion on skin", token)


def test_positions_in_a_prompt_that_is_too_long_are_refused(miniature):
    with pytest.raises(PromptTooLong):
        miniature.token_positions("red " * 80 + "skin", "skin")


@pytest.mark.parametrize("part", ["vae", "text_encoder", "unet"])
def test_the_checksum_sees_one_changed_weight(saved, part):
    opened = Backbone.load(saved)
    before = opened.checksum()
    with torch.no_grad():
        next(getattr(opened, part).parameters()).view(-1)[0] += 1e-3
    assert opened.checksum() != before


def test_images_of_another_size_stay_so_in_the_saved_folder(saved, tmp_path):
    opened = Backbone.load(saved)
    opened.set_image_size(128)
    assert (opened.image_size, opened.latent_shape) == (128, (4, 32, 32))
    opened.save(tmp_path / "larger")
    assert Backbone.load(tmp_path / "larger").image_size == 128


@pytest.mark.parametrize("side", [130, 2])
def test_an_image_size_that_does_not_divide_is_refused(side):
    with pytest.raises(BackboneError, match=f"is {side} px, expected a multiple of 4"):
        build(MINIATURE).set_image_size(side)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(BackboneError, match="there is no folder"):
        Backbone.load(tmp_path / "nowhere")


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "weights.ckpt").touch()
    with pytest.raises(BackboneError, match="model_index.json"):
        Backbone.load(tmp_path)


def test_missing_parts_are_named(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "tokenizer")
    shutil.rmtree(tmp_path / "copy" / "vae")
    with pytest.raises(BackboneError, match="lacks vae, tokenizer"):
        Backbone.load(tmp_path / "copy")


def test_pickled_weights_are_not_opened(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "copy")
    weights = tmp_path / "copy" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(BackboneError, match="convert them to safetensors"):
        Backbone.load(tmp_path / "copy")


def test_unknown_prediction_types_and_inpainting_models_are_refused(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "copy")
    path = tmp_path / "copy" / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "prediction_type": "sample"}))
    with pytest.raises(BackboneError, match="'sample'"):
        Backbone.load(tmp_path / "copy")
    backbone = build(MINIATURE)
    backbone.unet.register_to_config(in_channels=9)
    with pytest.raises(BackboneError, match="inpainting"):
        Backbone(**vars(backbone))


def test_only_fp16_files_are_read_as_that_variant(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "copy")
    for file in list((tmp_path / "copy").rglob("*.safetensors")):
        file.rename(file.with_name(file.stem + ".fp16.safetensors"))
    assert Backbone.load(tmp_path / "copy").checksum() == Backbone.load(saved).checksum()


def test_stable_diffusion_21_has_its_known_size():
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=64,
            block_out_channels=(320, 640, 1280, 1280),
            attention_head_dim=(5, 10, 20, 20),
            cross_attention_dim=1024,
            use_linear_projection=True,
        )
    assert sum(p.numel() for p in unet.parameters()) == 865_910_724
