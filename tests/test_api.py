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


def test_gray_images_alpha_and_masks_of_numbers_mean_what_is_documented(model) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    gray, clear = photo[..., 0], np.where(disc(), 255, 0).astype(np.uint8)
    white = np.where(disc()[..., None], photo, 255).astype(np.uint8)
    same = [
        (gray, np.stack([gray] * 3, -1)),
        (np.dstack([photo, np.full_like(gray, 255)]), photo),
        (np.dstack([photo, clear]), white),
    ]
    for given, meant in same:
        read = [didgen.read_masks(model, [each]) for each in (given, meant)]
        assert np.array_equal(*read)
    masks = [disc(), disc().astype(float), disc().astype(np.uint8) * 255]
    made = didgen.make_pairs(model, masks, ["A nevus."] * 3, eta=1.0, **QUICK)
    assert all(np.array_equal(pair.request.mask, disc()) for pair in made)


@pytest.fixture
def no_work(monkeypatch) -> None:
    """Any pass through a network fails the test."""

    def run(*arguments, **more):
        pytest.fail("a network ran before the input was refused")

    monkeypatch.setattr(torch.nn.Conv2d, "forward", run)


PHOTO = np.zeros((128, 128, 3), np.uint8)


@pytest.mark.parametrize(
    ("captions", "words"),
    [
        ("A nevus.", "captions: found 'A nevus.'.*expected a list"),
        (None, "captions: found None"),
        ([], "captions: found none, expected at least one"),
        (["A nevus."] * 2 + [float("nan")], r"captions\[2\]: found nan \(float\), expected a text"),
        (["A \ud800."], r"captions\[0\]: found half of a surrogate pair"),
        (["A nevus.", "A nevus.", "A lesion."], "'A lesion.' holds the reserved word"),
    ],
)
def test_captions_that_are_no_list_of_texts_are_refused(model, no_work, captions, words) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        didgen.sample(model, captions, **QUICK)


@pytest.mark.parametrize("seed", [-1, 2**70, 2**63 - 1, 1.5, True, "0", None])
def test_seeds_that_are_none_are_refused(model, no_work, seed) -> None:
    two = ["A nevus."] * 2
    with pytest.raises((TypeError, ValueError), match=f"seed: found {seed!r}"):
        didgen.sample(model, two, seed=seed, **QUICK)
    with pytest.raises((TypeError, ValueError), match=f"seed: found {seed!r}"):
        didgen.make_pairs(model, [disc()] * 2, two, seed=seed, **QUICK)
    with pytest.raises((TypeError, ValueError), match=f"seed: found {seed!r}"):
        didgen.read_masks(model, [PHOTO] * 2, seed=seed)


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        (None, "masks: found None"),
        ([], "masks: found none, expected at least one"),
        ([disc(), None], r"masks\[1\]: found None .*expected an array"),
        (disc(), r"masks\[0\]: found an array of shape \(128,\)"),
        ([disc()] * 3, "found 3 masks and 2 captions, expected as many"),
        ([disc(), disc() * 0.5], r"masks\[1\]: found 2 different values of float64"),
        ([disc(), np.full((128, 128), np.nan)], r"masks\[1\]: found 1 different values"),
        ([disc(), -disc().astype(int)], r"masks\[1\]: found 2 different values of int64"),
        ([disc(), disc()[:64]], r"masks\[1\]: found 128x64 px, expected 128x128"),
        ([disc(), disc() & False], r"masks\[1\]: the mask is empty"),
    ],
)
def test_masks_that_cannot_be_followed_are_named(model, no_work, masks, words) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        didgen.make_pairs(model, masks, ["A nevus."] * 2, **{**QUICK, "batch_size": 1})


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([], "images: found none"),
        (PHOTO, r"images\[0\]: found 3x128 px"),
        ([PHOTO, "photo.png"], r"images\[1\]: found 'photo.png'"),
        ([PHOTO, PHOTO / 255], r"images\[1\]: found float64 of shape"),
        ([PHOTO, PHOTO.astype(np.uint16)], r"images\[1\]: found uint16"),
        ([PHOTO, PHOTO[..., :2]], r"images\[1\]: found uint8 of shape \(128, 128, 2\)"),
        ([PHOTO, PHOTO[:64]], r"images\[1\]: found 128x64 px, expected 128x128 px"),
    ],
)
def test_images_of_another_kind_are_named(model, no_work, images, words) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        didgen.read_masks(model, images, batch_size=1)


@pytest.mark.parametrize("timestep", [-1, 1.5, 1000, 5000, True, "3", None])
def test_timesteps_that_do_not_exist_are_refused(model, no_work, timestep) -> None:
    with pytest.raises((TypeError, ValueError), match=f"timestep: found {timestep!r}"):
        didgen.read_masks(model, [PHOTO], timestep=timestep)


def test_captions_of_images_are_as_many(model, no_work) -> None:
    with pytest.raises(ValueError, match="found 1 images and 2 captions"):
        didgen.read_masks(model, [PHOTO], ["A nevus."] * 2)
    with pytest.raises(TypeError, match="captions: found 'A'"):
        didgen.read_masks(model, [PHOTO], "A")


MAPS = torch.rand(1, 2, 16, 16)


@pytest.mark.parametrize(
    ("maps", "masks", "words"),
    [
        (MAPS, MAPS * float("nan"), "masks: found values from nan to nan, expected 0 to 1"),
        (MAPS, MAPS.round() * 255, "masks: found values from 0.0 to 255.0"),
        (MAPS, -MAPS, "masks: found values from -"),
        (MAPS, None, "masks: found None"),
        (MAPS.numpy(), MAPS, "maps: found a ndarray, expected a tensor"),
        (MAPS[:0], MAPS[:0], r"maps: found shape \(0, 2, 16, 16\)"),
        (MAPS, MAPS[:, :1], "should both be"),
    ],
)
def test_masks_that_are_no_regions_have_no_loss(maps, masks, words) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        didgen.region_loss(maps, masks)


@pytest.mark.parametrize("device", ["banana", "cuda:99", "meta", -1, ""])
def test_a_device_that_is_not_there_is_named_before_weights_are_read(tmp_path, device) -> None:
    with pytest.raises(ValueError, match=f"device: found {device!r}"):
        didgen.load(tmp_path, device)


@pytest.mark.parametrize("address", ["https://me:SECRET@host/x", Path("https://host/x?k=SECRET")])
def test_an_address_of_a_backbone_is_not_repeated(address) -> None:
    with pytest.raises(ValueError, match="found an address.*expected a diffusers folder") as caught:
        didgen.load(address)
    assert "SECRET" not in str(caught.value)


def test_what_is_no_backbone_is_named() -> None:
    with pytest.raises(TypeError, match="folder: found None"):
        didgen.load(None)
    for call in (didgen.sample, didgen.read_masks):
        with pytest.raises(TypeError, match="backbone: found 'results/demo'"):
            call("results/demo", [PHOTO])


@pytest.mark.parametrize("tokens", ["<lesion>", [], [""], ["<lesion>", None]])
def test_tokens_that_are_no_list_of_words_are_refused(pipe, tokens) -> None:
    with (
        pytest.raises((TypeError, ValueError), match="tokens: found"),
        didgen.record_attention(pipe, tokens=tokens),
    ):
        pass
    assert not pipe.unet._forward_hooks and not pipe.text_encoder._forward_pre_hooks


def test_a_pipeline_of_another_kind_is_refused() -> None:
    with (
        pytest.raises(TypeError, match="without unet, tokenizer, text_encoder"),
        didgen.record_attention("results/demo", tokens=["<lesion>"]),
    ):
        pass


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
    (tmp_path / "results/demo/finetune").symlink_to(folder)
    photo = np.where(disc()[..., None], (90, 50, 40), (220, 180, 160)).astype(np.uint8)
    write_png(tmp_path / "photo.png", photo)
    write_png(tmp_path / "layout.png", disc())
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code, names)
    assert names["images"][0].image.shape == (128, 128, 3)
    assert names["masks"].shape == (1, 128, 128)
