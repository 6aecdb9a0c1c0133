import math

import pytest
import torch

from didgen.attention.guidance import Guide, guided_steps, layout_losses, step_size
from didgen.attention.recorder import AttentionRecorder
from didgen.settings.guidance import LayoutGuidance

POSITIONS = [4, 6]


def plain(**changes):
    """Guidance at each step, with the mean in both terms."""
    usual = {"self_normalization": "mean", "guide_every": 1, "reuse_prediction": False}
    return LayoutGuidance(**usual | changes)


def disks(batch=2, size=64):
    """Disks of different radii left of the center, (batch, 1, size, size)."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    radii = torch.linspace(0.15, 0.35, batch) * size
    distance = ((y - size / 2) ** 2 + (x - size / 3) ** 2).sqrt()
    return (distance[None, None] <= radii.view(-1, 1, 1, 1)).float()


def losses_of(unet, latents, timestep, embeddings, masks):
    with (
        torch.no_grad(),
        AttentionRecorder(
            unet, cross={"resolution": 16, "positions": POSITIONS}, self_={"resolution": 32}
        ) as recorder,
    ):
        recorder.run(latents, timestep, embeddings)
        return layout_losses(recorder, masks, plain())


def test_equation_6_is_one_gradient_step(new_unet, inputs):
    unet = new_unet().double()
    latents, timestep, embeddings = inputs(2, torch.float64)
    masks = disks()
    guide = Guide(unet, masks, POSITIONS, 10, plain(eta=3.0))
    moved = guide(latents, timestep, 0, embeddings)
    z = latents.clone().requires_grad_()
    with AttentionRecorder(
        unet, cross={"resolution": 16, "positions": POSITIONS}, self_={"resolution": 32}
    ) as recorder:
        unet(z, timestep, embeddings)
        cross_loss, self_loss = layout_losses(recorder, masks, plain())
    (gradient,) = torch.autograd.grad((cross_loss + self_loss).sum(), z)
    assert float(gradient.abs().max()) > 0
    torch.testing.assert_close(moved, latents - 3.0 * gradient)
    assert not moved.requires_grad
    (step,) = guide.history
    torch.testing.assert_close(step.cross_loss, cross_loss.detach())
    torch.testing.assert_close(step.gradient_rms, gradient.square().mean((1, 2, 3)).sqrt())


def test_self_loss_is_equation_5_of_the_explicit_map(new_unet, inputs):
    unet = new_unet().double()
    latents, timestep, embeddings = inputs(1, torch.float64)
    masks = disks(1).double()
    with (
        torch.no_grad(),
        AttentionRecorder(
            unet, cross={"resolution": 16, "positions": POSITIONS}, self_={"resolution": 32}
        ) as recorder,
    ):
        unet(latents, timestep, embeddings)
        _, loss = layout_losses(recorder, masks, plain(self_normalization="sum"))
        matrix = recorder.apply_self_attention(torch.eye(1024, dtype=torch.float64)[None])[0]
    lesion = (masks[0, 0].view(32, 2, 32, 2).mean((1, 3)) > 0.5).flatten()
    expected = sum(matrix[m][:, ~m].sum() / (~m).sum() for m in (lesion, ~lesion))
    torch.testing.assert_close(loss, 0.5 * expected[None])


def test_the_lesion_alone_is_the_released_form_of_equation_5(new_unet, inputs):
    unet = new_unet().double()
    latents, timestep, embeddings = inputs(1, torch.float64)
    masks = disks(1).double()
    with (
        torch.no_grad(),
        AttentionRecorder(unet, self_={"resolution": 32}) as recorder,
    ):
        unet(latents, timestep, embeddings)
        released = plain(self_regions="lesion", self_normalization="sum", cross_weight=0)
        _, loss = layout_losses(recorder, masks, released)
        matrix = recorder.apply_self_attention(torch.eye(1024, dtype=torch.float64)[None])[0]
    lesion = (masks[0, 0].view(32, 2, 32, 2).mean((1, 3)) > 0.5).flatten()
    torch.testing.assert_close(loss, (matrix[lesion][:, ~lesion].sum() / (~lesion).sum())[None])


def test_smoothing_can_be_left_out(new_unet, inputs):
    latents, timestep, embeddings = inputs(1)
    losses = []
    for sigma in (0.0, 0.5, 0.7):
        guide = Guide(new_unet(), disks(1), POSITIONS, 10, plain(smoothing_sigma=sigma))
        guide(latents, timestep, 0, embeddings)
        losses.append(float(guide.history[0].cross_loss))
    assert len(set(losses)) == 3


def test_a_batch_moves_as_its_images_alone(new_unet, inputs):
    unet = new_unet().double()
    latents, timestep, embeddings = inputs(8, torch.float64)
    masks = disks(8)
    together = Guide(unet, masks, POSITIONS, 10, plain())(latents, timestep, 0, embeddings)
    alone = [
        Guide(unet, masks[i : i + 1], POSITIONS, 10, plain())(
            latents[i : i + 1], timestep, 0, embeddings[i : i + 1]
        )
        for i in range(8)
    ]
    torch.testing.assert_close(together, torch.cat(alone))


def test_full_pass_and_early_exit_agree(unet, inputs):
    latents, timestep, embeddings = inputs(2)
    results = [
        Guide(unet, disks(), POSITIONS, 10, plain(), early_exit=early)(
            latents, timestep, 0, embeddings
        )
        for early in (False, True)
    ]
    assert torch.equal(*results)


def test_guidance_lowers_both_losses(unet, inputs):
    latents, timestep, embeddings = inputs(2)
    masks = disks()
    before = sum(losses_of(unet, latents, timestep, embeddings, masks))
    guide = Guide(unet, masks, POSITIONS, 16, plain(eta=20.0))
    for step in range(8):
        latents = guide(latents, timestep, step, embeddings)
    after = sum(losses_of(unet, latents, timestep, embeddings, masks))
    assert bool((after < before).all())
    assert len(guide.history) == 8 and not guide.diverged


def test_no_update_and_no_pass_after_the_guided_range(unet, inputs, count_hooks):
    latents, timestep, embeddings = inputs(1)
    guide = Guide(unet, disks(1), POSITIONS, 10, plain())
    passes = []
    handle = unet.conv_in.register_forward_hook(lambda *_: passes.append(1))
    before = count_hooks(unet)
    assert guide(latents, timestep, 5, embeddings) is latents
    assert guide(latents, timestep, 9, embeddings) is latents
    assert not passes
    assert guide(latents, timestep, 4, embeddings) is not latents
    assert len(passes) == 1 and count_hooks(unet) == before
    handle.remove()


def test_guides_inside_no_grad_and_inference_mode(unet, inputs):
    latents, timestep, embeddings = inputs(1)
    expected = Guide(unet, disks(1), POSITIONS, 10, plain())(latents, timestep, 0, embeddings)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            moved = Guide(unet, disks(1), POSITIONS, 10, plain())(
                latents + 0, timestep, 0, embeddings + 0
            )
        assert torch.equal(moved, expected)


def test_no_gradient_reaches_the_weights(new_unet, inputs):
    unet = new_unet().requires_grad_(True)
    latents, timestep, embeddings = inputs(1)
    Guide(unet, disks(1), POSITIONS, 10, plain())(latents, timestep, 0, embeddings)
    assert all(p.grad is None for p in unet.parameters())


def test_a_diverging_image_does_not_take_the_others_along(unet, inputs):
    latents, timestep, embeddings = inputs(2)
    clean = Guide(unet, disks(), POSITIONS, 10, plain())(latents, timestep, 0, embeddings)
    broken = latents.clone()
    broken[0, 0, 0, 0] = math.nan
    guide = Guide(unet, disks(), POSITIONS, 10, plain())
    for step in range(2):
        moved = guide(broken, timestep, step, embeddings)
    torch.testing.assert_close(moved[1], clean[1])
    assert torch.equal(moved[0].isnan(), broken[0].isnan())
    (case,) = guide.diverged
    assert (case.image, case.step_index, case.timestep) == (0, 0, 500)


def test_an_empty_mask_gives_a_finite_update(unet, inputs):
    latents, timestep, embeddings = inputs(2)
    masks = torch.zeros(2, 1, 64, 64)
    masks[1] = 1.0
    guide = Guide(unet, masks, POSITIONS, 10, plain())
    assert bool(torch.isfinite(guide(latents, timestep, 0, embeddings)).all())
    assert not guide.diverged


def test_a_term_of_weight_zero_is_left_out(unet, inputs):
    latents, timestep, embeddings = inputs(1)
    for weights, zero in (((1.0, 0.0), "self_loss"), ((0.0, 1.0), "cross_loss")):
        settings = plain(cross_weight=weights[0], self_weight=weights[1])
        guide = Guide(unet, disks(1), POSITIONS, 10, settings)
        assert not torch.equal(guide(latents, timestep, 0, embeddings), latents)
        assert float(getattr(guide.history[0], zero)) == 0.0


def test_half_precision_follows_single_precision(new_unet, inputs):
    """On the average of images: how bfloat16 rounds, and so a single image, varies by processor."""
    latents, timestep, embeddings = inputs(8)
    settings = plain(eta=20.0)
    full = Guide(new_unet(), disks(8), POSITIONS, 10, settings)(latents, timestep, 0, embeddings)
    half = Guide(new_unet().bfloat16(), disks(8), POSITIONS, 10, settings)
    moved = half(latents.bfloat16(), timestep, 0, embeddings.bfloat16())
    assert moved.dtype == torch.bfloat16
    a, b = (full - latents).flatten(1), (moved.float() - latents).flatten(1)
    assert float(torch.nn.functional.cosine_similarity(a, b).mean()) > 0.7


def test_schedules_by_hand():
    constant = plain()
    assert [step_size(constant, i, 50) for i in (0, 24)] == [20.0, 20.0]
    released = plain(schedule="sqrt-linear")
    assert step_size(released, 0, 50) == 20.0
    assert step_size(released, 24, 50) == pytest.approx(17.436, abs=1e-3)
    assert guided_steps(constant, 50) == 25
    assert guided_steps(plain(guided_fraction=0.0), 50) == 0
    assert guided_steps(plain(guided_fraction=1.0), 7) == 7


@pytest.mark.parametrize(
    "settings",
    [
        {"guided_fraction": 1.5},
        {"eta": -1.0},
        {"eta": math.nan},
        {"schedule": "cosine"},
        {"reading": "ratio"},
        {"self_normalization": "median"},
        {"cross_normalization": "median"},
        {"guide_every": 0},
        {"guide_layers": "up"},
        {"cross_weight": 0.0, "self_weight": 0.0},
    ],
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValueError, match="|".join(settings)):
        LayoutGuidance(**settings)


def test_bad_masks_and_positions_are_refused(unet, inputs):
    with pytest.raises(ValueError, match="divide 8-bit masks by 255"):
        Guide(unet, 255 * disks(1), POSITIONS, 10, plain())
    with pytest.raises(ValueError, match=r"\(images, 1, H, W\)"):
        Guide(unet, disks(1)[0], POSITIONS, 10, plain())
    with pytest.raises(ValueError, match="a lesion and a skin one"):
        Guide(unet, disks(1), [4], 10, plain())
    latents, timestep, embeddings = inputs(2)
    with pytest.raises(ValueError, match="2 latents meet 1 masks"):
        Guide(unet, disks(1), POSITIONS, 10, plain())(latents, timestep, 0, embeddings)


@pytest.mark.parametrize("layers", ["down", "to-coarse"])
@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0)])
def test_both_terms_reach_the_latents_from_fewer_layers(unet, inputs, layers, weights):
    latents, timestep, embeddings = inputs(1)
    settings = plain(guide_layers=layers, cross_weight=weights[0], self_weight=weights[1])
    guide = Guide(unet, disks(1), POSITIONS, 10, settings)
    moved = guide(latents, timestep, 0, embeddings)
    assert float(guide.history[0].gradient_rms) > 0
    assert float((moved - latents).abs().amax()) > 0
    whole = Guide(unet, disks(1), POSITIONS, 10, plain())(latents, timestep, 0, embeddings)
    assert not torch.equal(moved, whole)


def test_every_kth_step_of_the_range_is_guided(unet, inputs):
    latents, timestep, embeddings = inputs(1)
    settings = plain(guide_every=3, guided_fraction=0.8)
    guide = Guide(unet, disks(1), POSITIONS, 10, settings)
    same = [guide(latents, timestep, step, embeddings) is latents for step in range(10)]
    assert [step for step in range(10) if not same[step]] == [0, 3, 6]


def test_the_prediction_of_the_guided_pass_is_handed_on(unet, inputs):
    latents, timestep, embeddings = inputs(2)
    expected = Guide(unet, disks(), POSITIONS, 10, plain())(latents, timestep, 0, embeddings)
    settings = plain(reuse_prediction=True)
    guide = Guide(unet, disks(), POSITIONS, 10, settings)
    moved, output = guide(latents, timestep, 0, embeddings)
    torch.testing.assert_close(moved, expected)
    with torch.no_grad():
        prediction = unet(latents, timestep, embeddings).sample
    torch.testing.assert_close(output, prediction)
    assert not output.requires_grad
    assert guide(latents, timestep, 9, embeddings) is latents


def test_sums_and_means_of_the_cross_term_differ_by_the_pixels(unet, inputs):
    latents, timestep, embeddings = inputs(1)
    found = {}
    for normalization in ("mean", "sum"):
        settings = plain(cross_normalization=normalization, self_weight=0.0)
        guide = Guide(unet, disks(1), POSITIONS, 10, settings)
        guide(latents, timestep, 0, embeddings)
        found[normalization] = guide.history[0].cross_loss
    torch.testing.assert_close(found["sum"], found["mean"] * 16 * 16)
