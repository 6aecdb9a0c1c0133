"""ZestGuide: its maps and losses by hand, its steps, and samples that do not meet."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from didgen.backbone.sampling import AfterStep, sample
from didgen.methods import zestguide
from didgen.methods.zestguide import (
    ZestGuide,
    ZestRecorder,
    cross_entropy,
    enlarge,
    segment_loss,
    segment_maps,
    unit_step,
)
from didgen.settings.methods import check_trains
from didgen.settings.zestguide import Settings
from didgen.tiny.architecture import MINIATURE, build
from tests.methods import conditioned
from tests.methods.conditioned import POSITIONS, PROMPT, inputs

opened = partial(conditioned.opened, "zestguide")


def guide_of(backbone, batch=1, steps=4, **changes):
    masks, alphas = conditioned.disks(batch), backbone.scheduler.alphas_cumprod
    return ZestGuide(backbone.unet, masks, POSITIONS, steps, Settings(**changes), alphas)


def test_the_layers_are_those_of_the_authors():
    """Cross-attention at 16x16 down and up, at 32x32 up alone; not in the middle."""
    unet = conditioned.backbone().unet
    names = list(ZestRecorder(unet).layers_for((32, 32)))
    assert names == [
        "down_blocks.1.attentions.0.transformer_blocks.0.attn2",
        *(f"up_blocks.1.attentions.{n}.transformer_blocks.0.attn2" for n in range(2)),
        *(f"up_blocks.2.attentions.{n}.transformer_blocks.0.attn2" for n in range(2)),
    ]


def test_maps_are_the_softmax_of_enlarged_scores(backbone):
    latents, timestep, embeddings = inputs(backbone, 2)
    with torch.no_grad(), ZestRecorder(backbone.unet) as recorder:
        recorder.run(latents, timestep, embeddings)
    captures = recorder.captures("cross")
    maps = segment_maps(captures, POSITIONS)
    expected, heads = 0.0, 0
    for capture in captures:
        query, key = capture.by_head()
        scores = (query @ key.mT * capture.scale).unflatten(2, capture.layer.grid)
        scores = scores.permute(0, 1, 4, 2, 3).flatten(0, 1)
        large = F.interpolate(scores, size=(32, 32), mode="bilinear", antialias=True)
        weights = large.softmax(1).unflatten(0, (2, -1))
        expected = expected + weights[:, :, POSITIONS].sum(1)
        heads += capture.layer.heads
    torch.testing.assert_close(maps, expected / heads, atol=1e-6, rtol=1e-4)
    everything = segment_maps(captures, list(range(embeddings.shape[1])))
    torch.testing.assert_close(everything.sum(1), torch.ones(2, 32, 32))


def test_enlarging_is_bilinear():
    values = torch.randn(2, 3, 12, 5)
    grid, larger = (3, 4), (6, 8)
    image = values.unflatten(2, grid).permute(0, 1, 4, 2, 3).flatten(0, 1)
    expected = F.interpolate(image, size=larger, mode="bilinear").unflatten(0, (2, 3))
    found = enlarge(values, grid, larger).unflatten(2, larger).permute(0, 1, 4, 2, 3)
    torch.testing.assert_close(found, expected)
    assert enlarge(values, grid, grid) is values


def test_losses_by_hand():
    value = torch.full((1, 1, 2, 2), 0.25)
    half = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])
    expected = -(0.5 * math.log(0.25) + 0.5 * math.log(0.75))
    assert float(cross_entropy(value, half, 0.0)) == pytest.approx(expected, abs=2e-3)
    # s is 0.25 everywhere, and s / max s is 1, kept at 0.999 as the mask is at 0.999 and 0.001.
    clipped = -(0.999 * math.log(0.999) + 0.001 * math.log(0.001))
    missed = -(0.001 * math.log(0.999) + 0.999 * math.log(0.001))
    total = float(segment_loss(value / 10, half))
    assert total == pytest.approx(expected + (clipped + missed) / 2, abs=4e-3)


def test_maps_that_are_the_masks_cost_nearly_nothing():
    masks = torch.zeros(1, 2, 8, 8)
    masks[:, 0, 2:5, 2:5] = 1
    masks[:, 1] = 1 - masks[:, 0]
    assert float(segment_loss(masks.clamp(1e-3, 1 - 1e-3) / 10, masks)) < 0.04
    assert float(segment_loss((1 - masks) / 10, masks)) > 10


def test_no_gradient_where_map_and_mask_are_quiet():
    maps = torch.tensor([[[[0.0005, 0.05], [0.0009, 0.002]]]], requires_grad=True)
    masks = torch.tensor([[[[0.0, 1.0], [0.5, 0.0]]]])
    # The last of these is louder than 0.01 as s, and quiet (0.04) as s / max s.
    (gradient,) = torch.autograd.grad(segment_loss(maps, masks).sum(), maps)
    assert gradient[0, 0, 0, 0] == 0
    assert (gradient[0, 0] != 0).tolist() == [[False, True], [True, True]]
    (first,) = torch.autograd.grad(cross_entropy(10 * maps, masks, 0.01).sum(), maps)
    assert (first[0, 0] != 0).tolist() == [[False, True], [True, True]]
    (second,) = torch.autograd.grad(cross_entropy(maps / 0.05, masks, 0.1).sum(), maps)
    assert second[0, 0, 1, 1] == 0 and second[0, 0, 1, 0] != 0


def test_the_largest_move_is_the_step_size_and_the_share_of_noise(backbone):
    latents, timestep, embeddings = inputs(backbone, 2)
    answer = guide_of(backbone, 2, step_size=0.3)(latents, timestep, 0, embeddings)
    assert isinstance(answer, AfterStep)
    noise = float(1 - backbone.scheduler.alphas_cumprod[500]) ** 0.5
    largest = answer.shift.abs().amax((1, 2, 3))
    torch.testing.assert_close(largest, torch.full((2,), 0.3 * noise))
    with torch.no_grad():
        prediction = backbone.predict(latents, timestep, embeddings)
    torch.testing.assert_close(answer.output, prediction)
    assert torch.equal(unit_step(torch.zeros(1, 1, 2, 2)), torch.zeros(1, 1, 2, 2))


def test_the_move_is_against_the_gradient(backbone):
    latents, timestep, embeddings = inputs(backbone)
    guide = guide_of(backbone)
    z = latents.clone().requires_grad_()
    with ZestRecorder(backbone.unet) as recorder:
        recorder.run(z, timestep, embeddings)
        maps = segment_maps(recorder.captures("cross"), POSITIONS)
    lesion = torch.from_numpy(conditioned.disk()).float().view(32, 4, 32, 4).mean((1, 3))
    loss = segment_loss(maps, torch.stack([lesion, 1 - lesion])[None])
    (gradient,) = torch.autograd.grad(loss.sum(), z)
    noise = float(1 - backbone.scheduler.alphas_cumprod[500]) ** 0.5
    expected = -0.3 * noise * gradient / gradient.abs().max()
    found = guide(latents, timestep, 0, embeddings).shift
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_the_move_goes_down_the_loss(backbone):
    latents, timestep, embeddings = inputs(backbone)
    guide = guide_of(backbone, step_size=0.02, guided_fraction=1.0)
    losses, real = [], guide._loss

    def watched(recorder):
        losses.append(float(real(recorder).detach()))
        return real(recorder)

    guide._loss = watched
    for _ in range(6):
        latents = latents + guide(latents, timestep, 0, embeddings).shift
    assert losses[-1] < losses[0]


def test_no_move_after_the_guided_range_or_without_a_step_size(backbone):
    latents, timestep, embeddings = inputs(backbone)
    guide = guide_of(backbone, steps=4, guided_fraction=0.5)
    assert isinstance(guide(latents, timestep, 1, embeddings), AfterStep)
    assert guide(latents, timestep, 2, embeddings) is latents
    assert guide_of(backbone, step_size=0)(latents, timestep, 0, embeddings) is latents


def test_an_image_that_cannot_be_moved_is_noted_and_the_others_go_on(backbone):
    latents, timestep, embeddings = inputs(backbone, 2)
    clean = guide_of(backbone, 2)(latents, timestep, 0, embeddings).shift
    broken = latents.clone()
    broken[0, 0, 0, 0] = math.nan
    guide = guide_of(backbone, 2)
    shift = guide(broken, timestep, 0, embeddings).shift
    assert [case.image for case in guide.diverged] == [0] and not shift[0].any()
    torch.testing.assert_close(shift[1], clean[1])
    with pytest.raises(ValueError, match="2 latents meet 1 masks"):
        guide_of(backbone)(latents, timestep, 0, embeddings)


def test_the_move_is_added_after_the_schedulers_step(backbone):
    """Of one step: what it gives unguided, and the shift that was computed before it."""
    options = {"steps": 1, "guidance_scale": 2.0, "scheduler": "ddim"}
    plain = sample(backbone, [PROMPT], [3], **options)
    answers = []
    guide = guide_of(backbone, steps=1, guided_fraction=1.0)

    def watched(*given):
        answers.append(guide(*given))
        return answers[-1]

    moved = sample(backbone, [PROMPT], [3], guide=watched, **options)
    torch.testing.assert_close(moved, plain + answers[0].shift)


def test_a_sample_does_not_depend_on_its_neighbours(folder):
    synthesizer = opened(folder)
    one, two, three = (conditioned.request(seed) for seed in range(3))
    synthesizer.check([one, two, three])
    (first, second), (other, again) = (
        synthesizer.synthesize(pair) for pair in ([one, two], [three, one])
    )
    assert np.array_equal(first.image, again.image)
    assert not np.array_equal(first.image, second.image)
    assert not np.array_equal(first.image, other.image)
    assert np.array_equal(first.mask, one.mask) and first.scores == {"retries": 0}
    assert not first.failure and first.image.shape == (128, 128, 3)


def test_the_mask_can_be_read_in_the_image(folder):
    request = conditioned.request(0)
    (asked,) = opened(folder).synthesize([request])
    (read,) = opened(folder, {"label": "read"}).synthesize([request])
    assert np.array_equal(asked.image, read.image)
    assert not np.array_equal(read.mask, request.mask) and "contrast" in read.scores


def test_guidance_changes_images(folder):
    request = conditioned.request(0)
    images = [opened(folder, own).synthesize([request])[0].image for own in ({}, {"step_size": 0})]
    assert not np.array_equal(*images)


def test_requests_without_a_mask_are_refused(folder):
    synthesizer = opened(folder)
    plain = conditioned.request(1, mask=False)
    with pytest.raises(ValueError, match="found no mask in 1 requests, such as P1"):
        synthesizer.check([conditioned.request(0), plain])
    with pytest.raises(ValueError, match="P1: found no mask"):
        synthesizer.synthesize([plain])


def test_a_backbone_that_was_not_fine_tuned_is_refused(tmp_path):
    build(MINIATURE, seed=0).save(tmp_path / "backbone")
    request = conditioned.request(0)
    small = type(request)("P0", "MEL", "", 0, request.mask[::2, ::2])
    with pytest.raises(ValueError, match="<skin>' does not occur"):
        opened(tmp_path).synthesize([small])


@pytest.mark.parametrize("own", [{"step_size": -1}, {"guided_fraction": 2}, {"label": "drawn"}])
def test_bad_settings_are_refused(tmp_path, own):
    with pytest.raises(ValueError, match=next(iter(own))):
        conditioned.config("zestguide", tmp_path, own)


def test_it_has_no_training_and_needs_both_resolutions():
    with pytest.raises(ValueError, match="not at all"):
        check_trains("zestguide")
    with pytest.raises(ValueError, match="resolution 32"):
        zestguide.ZestRecorder(build(MINIATURE, seed=0).unet).layers_for((16, 16))
