import copy
import functools

import pytest
import torch

from didgen.backbone import sampling
from didgen.backbone.sampling import (
    SCHEDULERS,
    AfterStep,
    Watch,
    guided_output,
    initial_noise,
    keep_products_in_half,
    keep_x0,
    step_timesteps,
)
from didgen.runtime.precision import autocast
from didgen.runtime.reproducible import deterministic_kernels
from didgen.tiny.architecture import MINIATURE, TinyShape, build, build_unet

sample = functools.partial(sampling.sample, guidance_scale=7.5, scheduler="ddim")
PROMPTS = ["a red lesion", "a small melanoma on skin", ""]


def test_noise_depends_on_the_seed_alone():
    noise = initial_noise([5, 6], (4, 8, 8))
    assert torch.equal(noise[1:], initial_noise([6], (4, 8, 8)))
    assert torch.equal(noise[0], torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(5)))


@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
def test_an_image_is_the_same_alone_and_in_a_batch(miniature, scheduler):
    together = sample(miniature, PROMPTS, [1, 2, 3], steps=4, scheduler=scheduler)
    alone = sample(miniature, PROMPTS[1:2], [2], steps=4, scheduler=scheduler)
    assert together.shape == (3, *miniature.latent_shape)
    # Untrained weights under guidance reach values of 20 and more; the error is relative to them.
    assert torch.allclose(together[1:2], alone, atol=1e-5 * float(alone.abs().max()))


def test_two_ddim_steps_follow_the_formula(miniature):
    """x0 = (x - s e) / a, then x' = a' x0 + s' e with the noise levels of the next timestep."""
    found = sample(miniature, ["skin"], [4], steps=2, guidance_scale=1)
    x = initial_noise([4], miniature.latent_shape)
    alphas = miniature.scheduler.alphas_cumprod
    with torch.no_grad():
        embeddings = miniature.embed(["skin"])
        # "leading" spacing with an offset of 1; after the last step comes alpha of timestep 0.
        for t, following in ((501, 1), (1, 0)):
            noise = miniature.predict(x, t, embeddings)
            x0 = (x - (1 - alphas[t]).sqrt() * noise) / alphas[t].sqrt()
            x = alphas[following].sqrt() * x0 + (1 - alphas[following]).sqrt() * noise
    assert torch.allclose(found, x, atol=1e-5)


def test_guidance_moves_from_the_negative_to_the_prompted_output(miniature):
    with torch.no_grad():
        latents = initial_noise([0], miniature.latent_shape)
        with_text, without = miniature.embed(["red"]), miniature.embed([""])
        plain = guided_output(miniature, latents, torch.tensor(9), with_text, 1)
        other = guided_output(miniature, latents, torch.tensor(9), without, 1)
        both = torch.cat([without, with_text])
        found = guided_output(miniature, latents, torch.tensor(9), both, 3.0)
    assert torch.allclose(found, other + 3 * (plain - other), atol=1e-5)


def test_without_guidance_the_unet_runs_once_a_step(miniature):
    batches = []
    handle = miniature.unet.register_forward_pre_hook(
        lambda module, args: batches.append(len(args[0]))
    )
    try:
        sample(miniature, PROMPTS[:2], [1, 2], steps=2, guidance_scale=1)
        sample(miniature, PROMPTS[:2], [1, 2], steps=2, guidance_scale=2)
    finally:
        handle.remove()
    assert batches == [2, 2, 4, 4]


def test_a_guide_may_take_gradients_and_moves_the_latents(miniature):
    calls = []

    def guide(latents, timestep, index, embeddings):
        calls.append((int(timestep), index, tuple(embeddings.shape)))
        with torch.enable_grad():
            latents = latents.detach().requires_grad_(True)
            loss = miniature.predict(latents, timestep, embeddings).square().mean()
            return latents - torch.autograd.grad(loss, latents)[0]

    guided = sample(miniature, PROMPTS[:1], [1], steps=2, guide=guide)
    plain = sample(miniature, PROMPTS[:1], [1], steps=2)
    assert calls == [(501, 0, (1, 77, 16)), (1, 1, (1, 77, 16))]
    assert not torch.allclose(guided, plain)
    assert not guided.requires_grad


def test_a_guide_that_changes_nothing_changes_nothing(miniature):
    same = sample(miniature, PROMPTS, [1, 2, 3], steps=2, guide=lambda latents, *_: latents)
    assert torch.equal(same, sample(miniature, PROMPTS, [1, 2, 3], steps=2))


def test_each_step_is_reported(miniature):
    seen = []
    found = sample(
        miniature, PROMPTS[:1], [1], 3, on_step=lambda *step: seen.append((*step[:2], step[2]))
    )
    assert [step[:2] for step in seen] == [(1, 3), (2, 3), (3, 3)]
    assert torch.equal(seen[-1][2], found)


def test_the_result_can_join_a_graph(miniature):
    latents = sample(miniature, PROMPTS[:1], [1], steps=1)
    latents.requires_grad_(True)
    latents.square().sum().backward()
    assert torch.allclose(latents.grad, 2 * latents.detach())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": [1]}, "3 prompts and 1 seeds"),
        ({"prompts": [], "seeds": []}, "at least one"),
        ({"steps": 0}, "steps is 0"),
        ({"scheduler": "euler"}, "ddim or dpm"),
    ],
)
def test_bad_requests_are_refused(miniature, change, message):
    request = {"prompts": PROMPTS, "seeds": [1, 2, 3], "steps": 2} | change
    with pytest.raises(ValueError, match=message):
        sample(miniature, **request)


def test_an_output_that_is_handed_over_is_not_made_again(miniature):
    batches = []

    def guide(latents, timestep, index, embeddings):
        return latents, miniature.predict(latents, timestep, embeddings)

    handle = miniature.unet.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    try:
        found = sample(miniature, PROMPTS[:2], [1, 2], steps=2, guide=guide)
    finally:
        handle.remove()
    assert batches == [2, 2, 2, 2]
    plain = sample(miniature, PROMPTS[:2], [1, 2], steps=2)
    assert torch.allclose(found, plain, atol=1e-5 * float(plain.abs().max()))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_prediction_is_carried_over_with_its_clean_latents(prediction_type):
    backbone = build(MINIATURE, prediction_type=prediction_type)
    latents, shift, output = torch.randn(3, 2, *backbone.latent_shape)
    carried = keep_x0(backbone, output, shift, torch.tensor(400))
    expected = backbone.to_x0(output, latents, 400)
    found = backbone.to_x0(carried, latents + shift, 400)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_steps_start_at_the_solvers_timesteps(miniature):
    seen = []
    sample(miniature, ["skin"], [1], steps=3, guide=lambda z, t, *_: (seen.append(int(t)), z)[1])
    assert seen == step_timesteps(miniature, "ddim", 3)


def test_a_broken_image_is_noted_and_does_not_touch_the_others(miniature):
    scale = 4.0

    def spoil(value):
        def guide(latents, timestep, index, embeddings):
            if index != 1:
                return latents
            changed = latents.clone()
            changed[1] = value
            return changed

        return guide

    sound = sample(miniature, PROMPTS, [1, 2, 3], steps=3, guidance_scale=scale)
    for value, told in ((float("nan"), "not finite at step 1"), (1e6, "exploded at step 1")):
        watch = Watch()
        found = sample(
            miniature, PROMPTS, [1, 2, 3], 3, guidance_scale=scale, guide=spoil(value), watch=watch
        )
        (case,) = watch.diverged
        assert (case.image, case.step_index) == (1, 1) and told in str(case)
        assert torch.equal(found[0], sound[0]) and torch.equal(found[2], sound[2])
        assert bool(torch.isfinite(found).all())


def test_sampling_ends_when_every_image_is_broken(miniature):
    steps = []
    watch = Watch(max_rms=1e-6)
    sample(miniature, PROMPTS, [1, 2, 3], 4, on_step=lambda *s: steps.append(s), watch=watch)
    assert [case.image for case in watch.diverged] == [0, 1, 2] and not steps


def test_a_watch_changes_nothing_that_is_sound(miniature):
    watch = Watch(max_rms=1e9)
    found = sample(miniature, PROMPTS, [1, 2, 3], 2, watch=watch)
    assert torch.equal(found, sample(miniature, PROMPTS, [1, 2, 3], 2))
    assert not watch.diverged
    with pytest.raises(ValueError, match="expected a positive number"):
        Watch(max_rms=0.0)


def test_latents_are_never_clipped_like_pixels():
    """A configuration of another solver says nothing of it; the default of this one would."""
    from diffusers import DPMSolverMultistepScheduler

    config = DPMSolverMultistepScheduler().config
    assert "clip_sample" not in config
    assert SCHEDULERS["ddim"](config).config.clip_sample is False


def test_a_guide_is_held_to_kernels_that_repeat_and_let_go_where_there_are_none(miniature, caplog):
    """`put_` has none, on a processor either."""
    seen = []

    def guide(latents, timestep, index, embeddings):
        strict = not torch.is_deterministic_algorithms_warn_only_enabled()
        seen.append((index, strict))
        if index == 1:
            torch.zeros(3).put_(torch.tensor([0]), torch.ones(1))
        return latents

    plain = sample(miniature, PROMPTS[:1], [1], steps=4)
    with deterministic_kernels("cuda"):
        found = sample(miniature, PROMPTS[:1], [1], steps=4, guide=guide)
    assert seen == [(0, True), (1, True), (1, False), (2, False), (3, False)]
    assert caplog.text.count("will not repeat to the last bit") == 1
    torch.testing.assert_close(found, plain)


def test_output_and_gradient_are_the_same_to_the_bit_with_weights_in_half() -> None:
    torch.manual_seed(0)
    unet = build_unet(TinyShape()).eval().requires_grad_(False)
    held = copy.deepcopy(unet)
    keep_products_in_half(held)
    latents = torch.randn(2, unet.config.in_channels, 16, 16)
    embeddings = torch.randn(2, 77, unet.config.cross_attention_dim)
    found = []
    for each in (unet, held):
        z = latents.clone().requires_grad_()
        with autocast("cpu", "bfloat16"):
            output = each(z, 500, encoder_hidden_states=embeddings).sample
        (gradient,) = torch.autograd.grad(output.float().square().sum(), z)
        found.append((output.detach(), gradient))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_half_the_memory_and_the_same_number_type_for_latents() -> None:
    unet = build_unet(TinyShape())
    before = sum(p.numel() * p.element_size() for p in unet.parameters())
    keep_products_in_half(unet)
    after = sum(p.numel() * p.element_size() for p in unet.parameters())
    assert after < 0.55 * before
    assert next(unet.parameters()).dtype == torch.float32
    norms = [m for m in unet.modules() if isinstance(m, torch.nn.LayerNorm | torch.nn.GroupNorm)]
    assert norms and {m.weight.dtype for m in norms} == {torch.float32}


@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
def test_a_move_after_the_step_comes_on_top_of_what_the_scheduler_makes(miniature, scheduler):
    """The guide's output is the prompted one; its shift is added to the unguided next latents."""
    options = {"steps": 1, "scheduler": scheduler}
    plain = sample(miniature, PROMPTS[:1], [1], **options)
    shift = torch.full((1, *miniature.latent_shape), 0.25)

    def guide(latents, timestep, index, embeddings):
        return AfterStep(shift, miniature.predict(latents, timestep, embeddings))

    moved = sample(miniature, PROMPTS[:1], [1], guide=guide, **options)
    # Untrained weights reach large values; the error is relative to them.
    assert torch.allclose(moved, plain + shift, atol=1e-5 * float(plain.abs().max()))
