from dataclasses import replace

import numpy as np
import pytest
import torch

from didgen.backbone.placeholder import add_placeholder_tokens
from didgen.backbone.sampling import Divergence, step_timesteps
from didgen.methods.didgen import sampler
from didgen.methods.didgen.layouts import LayoutError
from didgen.methods.didgen.sampler import DidgenSynthesizer, retry_seed
from didgen.methods.protocol import Request
from didgen.settings.images import Settings as ImageSettings
from didgen.settings.pairs import Settings as PairSettings
from didgen.tiny.architecture import MINIATURE, build

PROMPT = "An image of <lesion> on <skin>."
QUICK = {"steps": 2, "precision": "float32"}


def synthesizer_of(backbone, max_rms=1e6, **changes):
    return DidgenSynthesizer(backbone, PairSettings(**QUICK | changes), max_rms)


@pytest.fixture(scope="module")
def backbone():
    built = build(replace(MINIATURE, image_size=128), seed=0, scaling_factor=0.5)
    add_placeholder_tokens(built.tokenizer, built.text_encoder)
    for module in built.modules():
        module.requires_grad_(False)
    return built


def request(seed, mask=True):
    y, x = np.mgrid[:128, :128]
    layout = (y - 60) ** 2 + (x - 50 - 5 * seed) ** 2 < 30**2
    return Request(f"P{seed}", "MEL", "", seed, layout if mask else None)


def break_seeds(monkeypatch, broken):
    """Let the images of these seeds diverge, and tell of the seeds that were sampled."""
    real, asked = sampler.sample, []

    def sample(backbone, prompts, seeds, **options):
        asked.append(list(seeds))
        latents = real(backbone, prompts, seeds, **options)
        for image, seed in enumerate(seeds):
            if seed in broken:
                options["watch"].diverged.append(Divergence(image, 1, float("nan")))
        return latents

    monkeypatch.setattr(sampler, "sample", sample)
    return asked


def same(a, b):
    return np.array_equal(a.image, b.image) and np.array_equal(a.mask, b.mask)


def test_a_diverged_image_is_made_again_with_a_seed_of_its_own(backbone, monkeypatch):
    synthesizer = synthesizer_of(backbone)
    requests = [request(0), request(1), request(2)]
    sound = synthesizer.synthesize(requests)
    others = [retry_seed(seed, 1) for seed in range(3)]
    retried = [replace(request(i), seed=seed) for i, seed in enumerate(others)]
    expected = synthesizer.synthesize(retried)[1]
    asked = break_seeds(monkeypatch, {1})
    found = synthesizer.synthesize(requests)
    assert asked == [[0, 1, 2], others]
    assert same(found[0], sound[0]) and same(found[2], sound[2])
    assert same(found[1], expected) and found[1].request is requests[1]
    assert [made.scores["retries"] for made in found] == [0, 1, 0]
    assert "diverged" not in found[1].failure


def test_a_retry_does_not_depend_on_what_else_broke(backbone, monkeypatch):
    synthesizer = synthesizer_of(backbone)
    requests = [request(0), request(1), request(2)]
    break_seeds(monkeypatch, {1})
    alone = synthesizer.synthesize(requests)[1]
    monkeypatch.undo()
    break_seeds(monkeypatch, {0, 1, 2})
    assert same(synthesizer.synthesize(requests)[1], alone)


def test_an_image_that_always_diverges_is_a_failure(backbone, monkeypatch, caplog):
    asked = break_seeds(monkeypatch, {retry_seed(1, attempt) for attempt in range(3)})
    found = synthesizer_of(backbone).synthesize([request(0), request(1)])
    assert len(asked) == 3
    assert found[1].failure == "diverged: latents are not finite at step 1"
    assert found[1].scores["retries"] == 2 and "P1: diverged" in caplog.text
    assert "diverged" not in found[0].failure
    none = synthesizer_of(backbone, retries=0).synthesize([request(0), request(1)])
    assert len(asked) == 4 and none[1].scores["retries"] == 0


def test_exploding_guidance_is_found_and_retried(backbone):
    settings = {"steps": 4, "eta": 1e6, "retries": 1}
    made = synthesizer_of(backbone, max_rms=20.0, **settings).synthesize([request(0)])
    assert made[0].failure.startswith("diverged: latents") and made[0].scores["retries"] == 1


def test_images_from_text_are_watched_too(backbone, monkeypatch):
    break_seeds(monkeypatch, {0})
    requests = [request(0, mask=False), request(1, mask=False)]
    made = DidgenSynthesizer(backbone, ImageSettings(**QUICK), 1e6).synthesize(requests)
    assert [m.scores for m in made] == [{"retries": 1}, {"retries": 0}]
    assert [m.failure for m in made] == ["", ""] and made[0].mask is None


@pytest.mark.parametrize(
    "change",
    [
        {"reuse_prediction": True},
        {"guide_layers": "down", "reuse_prediction": True, "guide_every": 2},
        {"last_steps": 2, "upsampling": "guided-filter"},
        {"reading": "foreground-background", "schedule": "sqrt-linear"},
    ],
)
def test_every_option_makes_pairs_that_do_not_meet(backbone, change):
    synthesizer = synthesizer_of(backbone, steps=4, **change)
    together = synthesizer.synthesize([request(0), request(1)])
    swapped = synthesizer.synthesize([request(1), request(0)])
    assert all(made.image.shape == (128, 128, 3) for made in together)
    for first, second in zip(together, reversed(swapped), strict=True):
        assert np.abs(first.image.astype(int) - second.image.astype(int)).max() <= 1


@pytest.mark.parametrize("last_steps", [1, 2])
def test_the_mask_is_read_at_the_true_last_step(backbone, monkeypatch, last_steps):
    """Of four steps: the finished latents at timestep 0, and those at which the last one starts."""
    made, read = [], []
    real_sample, real_read = sampler.sample, sampler.annotate_latents

    def sample(*given, **options):
        trail = options["on_step"]
        options["on_step"] = lambda *step: (made.append(step[2].clone()), trail(*step))
        return real_sample(*given, **options)

    def annotate(unet, latents, timesteps, *given, **options):
        read.extend(zip(timesteps, latents, strict=True))
        return real_read(unet, latents, timesteps, *given, **options)

    monkeypatch.setattr(sampler, "sample", sample)
    monkeypatch.setattr(sampler, "annotate_latents", annotate)
    synthesizer_of(backbone, steps=4, last_steps=last_steps).synthesize([request(0)])
    last = step_timesteps(backbone, "ddim", 4)[-1]
    expected = [(last, made[2]), (0, made[3])][-last_steps:]
    assert [timestep for timestep, _ in read] == [timestep for timestep, _ in expected]
    for (_, found), (_, wanted) in zip(read, expected, strict=True):
        assert torch.equal(found, wanted)


def test_masks_are_checked_before_anything_is_sampled(backbone, monkeypatch):
    asked = break_seeds(monkeypatch, set())
    synthesizer = synthesizer_of(backbone)
    empty = replace(request(1), mask=np.zeros((128, 128), bool))
    with pytest.raises(LayoutError, match="condition mask of P1: the mask is empty"):
        synthesizer.synthesize([request(0), empty])
    with pytest.raises(ValueError, match="mixes requests"):
        synthesizer.synthesize([request(0), request(1, mask=False)])
    assert not asked


@pytest.mark.parametrize(
    "change",
    [
        {"retries": -1},
        {"steps": 4, "last_steps": 5},
        {"schedule": "cosine"},
        {"guide_layers": "up"},
        {"upsampling": "nearest"},
        {"max_hole": 2.0},
    ],
)
def test_bad_settings_are_refused(change):
    with pytest.raises(ValueError, match="|".join(change)):
        PairSettings(**change)


def test_masks_need_the_settings_of_pairs(backbone):
    synthesizer = DidgenSynthesizer(backbone, ImageSettings(**QUICK))
    with pytest.raises(ValueError, match="need the settings of pairs, found those of images"):
        synthesizer.synthesize([request(0)])


def test_the_weights_are_frozen(backbone):
    backbone.unet.requires_grad_(True)
    synthesizer_of(backbone).synthesize([request(0)])
    assert not any(p.requires_grad or p.grad is not None for p in backbone.unet.parameters())
    assert torch.is_grad_enabled()
