"""Attention Refocusing: each branch of its losses by hand, its schedule, and its moves."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from didgen.attention.recorder import AttentionRecorder
from didgen.methods.attention_refocusing import (
    RefocusingGuide,
    bounding_boxes,
    box_loss,
    largest,
    leaving,
    mask_loss,
    plan_of,
    word_maps,
)
from didgen.settings.attention_refocusing import Settings
from didgen.settings.methods import check_trains
from didgen.tiny.architecture import MINIATURE, build
from tests.methods import conditioned
from tests.methods.conditioned import POSITIONS, inputs

LEFT = torch.tensor([[True, False], [True, False]])[None, None]


opened = partial(conditioned.opened, "attention_refocusing")


def guide_of(backbone, batch=1, **changes):
    masks = conditioned.disks(batch)
    return RefocusingGuide(backbone.unet, masks, POSITIONS, Settings(**changes))


def losses_of(backbone, guide, latents, timestep, embeddings, step_index=0):
    with (
        torch.no_grad(),
        AttentionRecorder(
            backbone.unet, cross={"resolution": 16}, self_={"resolution": 16}
        ) as recorder,
    ):
        recorder.run(latents, timestep, embeddings)
        return guide.losses(recorder, step_index)


def test_the_schedule_is_the_authors():
    found = {i: plan_of(i) for i in range(50)}
    moves = {i: plan.moves for i, plan in found.items() if plan}
    assert moves == {
        **dict.fromkeys((0, 1), 2),
        **dict.fromkeys((2, 3, 4), 6),
        **dict.fromkeys((5, 6, 7, 8, 9), 3),
        **dict.fromkeys((10, 15, 20, 25, 30, 35), 2),
    }
    # As the sheet adds them up: 2*2 + 3*6 + 5*3 + 2*2 + 4*2.
    assert sum(moves.values()) == 49
    scales = {i: 40 * plan.share for i, plan in found.items() if plan}
    assert [scales[i] for i in (0, 4, 5, 10, 15, 20, 35)] == [40, 40, 30, 30, 30, 10, 10]
    assert [i for i, plan in found.items() if plan and plan.by_loss] == list(range(10))


@pytest.mark.parametrize(
    ("inside", "step", "expected"),
    [
        (0.05, 0, 5.7),
        (0.05, 20, 5.7),
        (0.15, 0, 0.85),
        (0.15, 20, 0.85),
        (0.3, 14, 0.7),
        (0.3, 15, 0.0),
        (0.3, 20, 0.0),
    ],
)
def test_a_token_missing_from_its_box(inside, step, expected):
    maps = torch.tensor([[[[inside, 0.0], [0.0, 0.0]]]])
    assert float(box_loss(maps, LEFT, step)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("outside", "step", "expected"),
    [(0.2, 20, 0.8), (0.12, 20, 0.12), (0.05, 14, 0.05), (0.05, 20, 0.0), (0.2, 0, 0.8)],
)
def test_a_token_in_the_other_box(outside, step, expected):
    maps = torch.tensor([[[[1.0, outside], [0.0, 0.0]]]])
    assert float(box_loss(maps, LEFT, step)) == pytest.approx(expected)


def test_the_box_loss_is_the_mean_over_tokens_and_an_empty_box_adds_nothing():
    maps = torch.tensor([[[[0.05, 0.0], [0.0, 0.0]], [[0.0, 0.15], [0.0, 0.0]]]])
    regions = torch.cat([LEFT, ~LEFT], dim=1)
    assert float(box_loss(maps, regions, 20)) == pytest.approx((5.7 + 0.85) / 2)
    none = torch.zeros(1, 1, 2, 2, dtype=torch.bool)
    assert float(box_loss(torch.zeros(1, 1, 2, 2), none, 20)) == 0.0
    assert largest(maps, none.expand(1, 2, 2, 2), empty=1.0).tolist() == [[1.0, 1.0]]


def test_the_mask_loss_by_hand():
    maps = torch.tensor([[[[0.6, 0.2], [0.4, 0.0]]]])
    # 1 - mean(0.6, 0.4) + mean(0.2, 0).
    assert float(mask_loss(maps, LEFT.float())) == pytest.approx(0.6)
    both = torch.cat([LEFT, ~LEFT], dim=1).float()
    assert float(mask_loss(both, both)) == 0.0
    assert float(mask_loss(1 - both, both)) == 2.0


def test_uniform_attention_leaves_a_region_by_the_share_of_what_is_outside():
    region = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    region[..., :3] = True
    matrix = torch.full((16, 16), 1 / 16)
    outside = (matrix @ (~region).float().flatten()).view(1, 1, 4, 4)
    assert float(leaving(outside, region)) == pytest.approx(0.25)


def test_words_share_every_pixel():
    maps = word_maps(torch.rand(1, 5, 2, 2) / 10)
    torch.testing.assert_close(maps.sum(1), torch.ones(1, 2, 2))
    two = word_maps(torch.tensor([0.02, 0.01]).view(1, 2, 1, 1))
    assert float(two[0, 0]) == pytest.approx(1 / (1 + math.exp(-1)))


def test_boxes_bound_their_masks():
    masks = torch.zeros(2, 1, 6, 6)
    masks[0, 0, 1, 2] = masks[0, 0, 3, 4] = 1
    masks[1, 0, 5, 0] = 1
    boxes = bounding_boxes(masks)
    expected = torch.zeros(6, 6)
    expected[1:4, 2:5] = 1
    assert torch.equal(boxes[0, 0], expected) and torch.equal(boxes[1], masks[1])
    assert not bounding_boxes(torch.zeros(1, 1, 4, 4)).any()


@pytest.mark.parametrize("variant", ["mask", "box"])
def test_losses_follow_from_the_explicit_maps(backbone, variant):
    latents, timestep, embeddings = inputs(backbone)
    guide = guide_of(backbone, variant=variant)
    found, inside = losses_of(backbone, guide, latents, timestep, embeddings, 3)
    with (
        torch.no_grad(),
        AttentionRecorder(
            backbone.unet, cross={"resolution": 16}, self_={"resolution": 16}
        ) as recorder,
    ):
        recorder.run(latents, timestep, embeddings)
        length = embeddings.shape[1]
        words = (100 * recorder.cross_maps(range(1, length - 1))).softmax(1)[:, [3, 5]]
        matrix = recorder.apply_self_attention(torch.eye(256)[None])[0]
    # The authors' kernel: 1-D weights 0.212, 0.576, 0.212, edges reflected.
    weights = torch.tensor([0.2119, 0.5761, 0.2119])
    kernel = (weights[:, None] * weights).expand(2, 1, 3, 3)
    padded = torch.nn.functional.pad(words, (1, 1, 1, 1), mode="reflect")
    maps = torch.nn.functional.conv2d(padded, kernel, groups=2)
    lesion = torch.from_numpy(conditioned.disk()).float()
    if variant == "box":
        lesion = bounding_boxes(lesion[None, None])[0, 0]
    lesion = lesion.view(16, 8, 16, 8).mean((1, 3))
    masks = torch.stack([lesion, 1 - lesion])[None]
    regions = torch.stack([lesion > 0.5, lesion <= 0.5])[None]
    spread = sum(matrix[m][:, ~m].sum(1).mean() for m in regions[0].flatten(1)) / 2
    cross = mask_loss(maps, masks) if variant == "mask" else box_loss(maps, regions, 3)
    expected = cross + spread
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    best = [float(maps[0, k][regions[0, k]].max()) for k in range(2)]
    assert float(inside) == pytest.approx(min(best), rel=1e-3)


def test_a_move_is_the_gradient_of_the_scaled_loss(backbone, monkeypatch):
    latents, timestep, embeddings = inputs(backbone)
    guide = guide_of(backbone, loss_scale=2.0)
    z = latents.clone().requires_grad_()
    with AttentionRecorder(
        backbone.unet, cross={"resolution": 16}, self_={"resolution": 16}
    ) as recorder:
        recorder.run(z, timestep, embeddings)
        loss, _ = guide.losses(recorder, 20)
    (gradient,) = torch.autograd.grad(loss.sum(), z)
    found, total, _ = guide._gradient(latents, timestep, 20, embeddings, 0.5)
    torch.testing.assert_close(found, 0.5 * gradient, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(total, 0.5 * loss.detach())
    monkeypatch.setattr(guide, "_gradient", lambda *_: (found, total, torch.ones(1)))
    assert torch.equal(guide(latents, timestep, 20, embeddings), latents - found)


@pytest.mark.parametrize("variant", ["mask", "box"])
def test_moves_are_gradient_steps_that_lower_the_loss(backbone, variant):
    latents, timestep, embeddings = inputs(backbone, 2)
    guide = guide_of(backbone, 2, variant=variant, loss_scale=4.0)
    before, _ = losses_of(backbone, guide, latents, timestep, embeddings)
    moved = guide(latents, timestep, 2, embeddings)
    after, _ = losses_of(backbone, guide, moved, timestep, embeddings)
    assert bool((after < before).all()) and not moved.requires_grad
    assert bool((guide.moves >= 1).all()) and bool((guide.moves <= 6).all())


def test_images_that_are_placed_are_moved_once_and_left_alone(backbone, monkeypatch):
    latents, timestep, embeddings = inputs(backbone, 2)
    guide = guide_of(backbone, 2)
    gradient = torch.ones_like(latents)
    loss, placed = torch.full((2,), 5.0), torch.tensor([0.3, 0.1])
    monkeypatch.setattr(guide, "_gradient", lambda *_: (gradient, loss, placed))
    moved = guide(latents, timestep, 2, embeddings)
    torch.testing.assert_close(moved[0], latents[0] - 1)
    torch.testing.assert_close(moved[1], latents[1] - 6)
    assert guide.moves.tolist() == [1, 6]
    # A small loss ends early steps, and no later one.
    loss = torch.full((2,), 0.05)
    for step, count in ((2, 1), (10, 2)):
        guide.moves.zero_()
        guide(latents, timestep, step, embeddings)
        assert guide.moves.tolist() == [1, count]


def test_no_move_outside_the_schedule_or_without_a_scale(backbone):
    latents, timestep, embeddings = inputs(backbone)
    guide = guide_of(backbone)
    for step in (11, 14, 36, 40, 49):
        assert guide(latents, timestep, step, embeddings) is latents
    assert guide_of(backbone, loss_scale=0)(latents, timestep, 0, embeddings) is latents


def test_an_image_that_cannot_be_moved_is_noted_and_the_others_go_on(backbone):
    latents, timestep, embeddings = inputs(backbone, 2)
    clean = guide_of(backbone, 2)(latents, timestep, 0, embeddings)
    broken = latents.clone()
    broken[0, 0, 0, 0] = math.nan
    guide = guide_of(backbone, 2)
    moved = guide(broken, timestep, 0, embeddings)
    assert [case.image for case in guide.diverged] == [0]
    assert torch.equal(moved[0].isnan(), broken[0].isnan())
    torch.testing.assert_close(moved[1], clean[1])


def test_a_sample_does_not_depend_on_its_neighbours(folder):
    synthesizer = opened(folder, {"loss_scale": 4.0}, steps=2)
    one, two, three = (conditioned.request(seed) for seed in range(3))
    (first, second), (other, again) = (
        synthesizer.synthesize(pair) for pair in ([one, two], [three, one])
    )
    assert np.array_equal(first.image, again.image)
    assert not np.array_equal(first.image, second.image)
    assert not np.array_equal(first.image, other.image)
    assert np.array_equal(first.mask, one.mask) and first.scores == {"retries": 0}


def test_the_variants_and_the_mask_that_is_read_differ(folder):
    request = conditioned.request(0)
    quick = {"steps": 2}
    asked, box, plain, read = (
        opened(folder, own, **quick).synthesize([request])[0]
        for own in (
            {},
            {"variant": "box"},
            {"loss_scale": 0},
            {"label": "read"},
        )
    )
    images = [asked.image, box.image, plain.image]
    assert len({image.tobytes() for image in images}) == 3
    assert np.array_equal(asked.image, read.image)
    assert not np.array_equal(read.mask, request.mask) and "contrast" in read.scores


@pytest.mark.parametrize("own", [{"variant": "polygon"}, {"loss_scale": -1}, {"label": "drawn"}])
def test_bad_settings_are_refused(tmp_path, own):
    with pytest.raises(ValueError, match=next(iter(own))):
        conditioned.config("attention_refocusing", tmp_path, own)


def test_a_backbone_that_was_not_fine_tuned_is_refused(tmp_path):
    build(MINIATURE, seed=0).save(tmp_path / "backbone")
    request = conditioned.request(0)
    small = type(request)("P0", "MEL", "", 0, request.mask[::2, ::2])
    with pytest.raises(ValueError, match="<skin>' does not occur"):
        opened(tmp_path).synthesize([small])


def test_it_has_no_training():
    with pytest.raises(ValueError, match="not at all"):
        check_trains("attention_refocusing")
