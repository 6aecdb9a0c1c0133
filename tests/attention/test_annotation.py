from dataclasses import dataclass

import numpy as np
import pytest
import torch
from skimage.filters import threshold_otsu

from didgen.attention.annotation import (
    annotate,
    annotate_latents,
    clean_mask,
    mask_from_map,
    otsu,
    sharpen,
)
from didgen.attention.recorder import AttentionRecorder
from didgen.settings.annotation import AnnotationSettings, Cleaning

DEFAULT = AnnotationSettings()


@dataclass
class Explicit:
    """A recorder of a self-attention map that is written out, (B, N, N)."""

    matrix: torch.Tensor
    self_grid: tuple[int, int]

    def apply_self_attention(self, v):
        return self.matrix @ v if v.ndim == 3 else (self.matrix @ v.unsqueeze(-1)).squeeze(-1)


def disk(size=64, radius=15, center=(30, 34)):
    y, x = np.mgrid[:size, :size]
    return (y - center[0]) ** 2 + (x - center[1]) ** 2 <= radius**2


def test_equation_7_by_hand():
    # A_S (1, 0) = (.75, .5); A_S again: (.75 .75 + .25 .5, .5 .75 + .5 .5) = (.6875, .625).
    recorder = Explicit(torch.tensor([[[0.75, 0.25], [0.5, 0.5]]]), (1, 2))
    cross = torch.tensor([[[1.0, 0.0]]])
    torch.testing.assert_close(sharpen(recorder, cross, AnnotationSettings(tau=0)), cross)
    for tau, expected in ((1, [0.75, 0.5]), (2, [0.6875, 0.625])):
        found = sharpen(recorder, cross, AnnotationSettings(tau=tau))
        torch.testing.assert_close(found, torch.tensor([[expected]]))


def test_the_elementwise_power_by_hand():
    # Entries over the largest, 0.75, squared: (1, 1/9; 4/9, 4/9); applied to (1, 0.5).
    recorder = Explicit(torch.tensor([[[0.75, 0.25], [0.5, 0.5]]]), (1, 2))
    settings = AnnotationSettings(tau=2, power="elementwise")
    found = sharpen(recorder, torch.tensor([[[1.0, 0.5]]]), settings)
    torch.testing.assert_close(found, torch.tensor([[[1 + 0.5 / 9, 6 / 9]]]))


def test_the_elementwise_power_of_a_recorded_map_does_not_vanish(unet, inputs):
    latents, timestep, embeddings = inputs(2)
    read = (unet, latents, timestep, embeddings, [4, 6], 64)
    found = annotate_latents(*read, AnnotationSettings(tau=12, power="elementwise"))
    assert not bool(found.failed.any())
    assert not torch.allclose(found.maps, annotate_latents(*read, AnnotationSettings(tau=12)).maps)


def test_equation_7_uses_the_matrix_power():
    matrix = torch.rand(2, 16, 16, dtype=torch.float64).softmax(-1)
    cross = torch.rand(2, 4, 4, dtype=torch.float64)
    expected = torch.linalg.matrix_power(matrix, 4) @ cross.flatten(1).unsqueeze(-1)
    torch.testing.assert_close(
        sharpen(Explicit(matrix, (4, 4)), cross, DEFAULT), expected.view(2, 4, 4)
    )


def test_disconnected_regions_keep_their_own_mean():
    blocks = torch.block_diag(torch.full((8, 8), 1 / 8), torch.full((8, 8), 1 / 8))[None]
    cross = torch.rand(1, 4, 4)
    sharp = sharpen(Explicit(blocks, (4, 4)), cross, DEFAULT)
    torch.testing.assert_close(sharp[0, :2], cross[0, :2].mean().expand(2, 4))
    torch.testing.assert_close(sharp[0, 2:], cross[0, 2:].mean().expand(2, 4))


def test_otsu_separates_two_levels():
    maps = torch.full((2, 8, 8), 0.1)
    maps[0, :, 4:] = 0.9
    maps[1, :3] = 0.4
    thresholds, contrast = otsu(maps)
    assert 0.1 < float(thresholds[0]) < 0.9
    assert float(thresholds[0]) == pytest.approx(0.5, abs=0.01)
    assert 0.1 < float(thresholds[1]) < 0.4
    torch.testing.assert_close(contrast, torch.ones(2))


def test_otsu_agrees_with_scikit_image():
    generator = np.random.default_rng(0)
    for share in (0.2, 0.5):
        low = generator.normal(0.3, 0.08, 5000)
        high = generator.normal(0.7, 0.08, int(5000 * share / (1 - share)))
        values = np.clip(np.concatenate([low, high]), 0, 1)
        thresholds, contrast = otsu(torch.from_numpy(values)[None, None])
        assert float(thresholds) == pytest.approx(threshold_otsu(values), abs=0.01)
        assert 0.6 < float(contrast) < 1.0


def test_bimodal_map_gives_the_right_mask():
    lesion = disk()
    noise = np.random.default_rng(0).normal(0, 0.03, lesion.shape)
    maps = torch.from_numpy((0.012 + 0.006 * lesion + 0.006 * noise).astype("float32"))[None]
    found = mask_from_map(maps, (64, 64), AnnotationSettings(closing_fraction=0.0))
    assert np.array_equal(found.masks[0].numpy(), lesion)
    assert not bool(found.failed) and float(found.contrast) > 0.95


def test_small_map_gives_a_mask_of_image_size():
    small = disk(32, 8, (15.5, 15.5))
    found = mask_from_map(torch.from_numpy(small).float()[None], (128, 128), DEFAULT)
    expected = disk(128, 33, (63.5, 63.5))
    overlap = (found.masks[0].numpy() & expected).sum() / (found.masks[0].numpy() | expected).sum()
    assert found.masks.shape == found.maps.shape == (1, 128, 128)
    assert found.masks.dtype == torch.bool and overlap > 0.93


def test_mask_does_not_see_scale_or_offset_or_the_other_images():
    maps = torch.rand(3, 8, 8)
    found = mask_from_map(maps, (32, 32), DEFAULT)
    scaled = mask_from_map(maps * 0.001 + 0.01, (32, 32), DEFAULT)
    assert float((found.masks != scaled.masks).float().mean()) < 0.01
    alone = mask_from_map(maps[1:2], (32, 32), DEFAULT)
    assert torch.equal(found.masks[1:2], alone.masks)


def test_constant_and_broken_maps_fail_without_a_mask():
    maps = torch.full((3, 8, 8), 0.013)
    maps[1, 0, 0] = float("nan")
    maps[2, 2:5, 2:5] = 0.5
    found = mask_from_map(maps, (32, 32), DEFAULT)
    assert found.failed.tolist() == [True, True, False]
    assert not bool(found.masks[:2].any()) and bool(found.masks[2].any())
    assert found.contrast[:2].tolist() == [0.0, 0.0]


def test_closing_fills_a_small_gap_and_only_adds():
    mask = disk(128, 30, (60, 60))
    holed = mask.copy()
    holed[60, 55:66] = False
    closing = Cleaning(closing_fraction=1 / 64, fill_holes=False, keep_largest=False)
    closed = clean_mask(holed, closing)
    assert np.array_equal(closed, mask)
    assert bool((clean_mask(mask, closing) >= mask).all())


def test_closing_leaves_the_edge_of_the_image_alone():
    mask = np.zeros((128, 128), bool)
    mask[:40, :50] = True
    assert np.array_equal(clean_mask(mask, DEFAULT), mask)


def test_holes_and_stray_pieces():
    mask = disk(64, 20, (30, 30)) & ~disk(64, 8, (30, 30))
    mask[60:63, 60:63] = True
    keep = Cleaning(closing_fraction=0.0, fill_holes=False, keep_largest=False)
    assert np.array_equal(clean_mask(mask, keep), mask)
    assert np.array_equal(clean_mask(mask, DEFAULT), disk(64, 20, (30, 30)))
    assert not clean_mask(np.zeros((8, 8), bool), DEFAULT).any()


def test_annotation_of_latents_is_the_recorded_one(unet, inputs):
    latents, timestep, embeddings = inputs(2)
    found = annotate_latents(unet, latents, timestep, embeddings, [4, 6], 256, DEFAULT)
    assert found.masks.shape == (2, 256, 256)
    with (
        torch.no_grad(),
        AttentionRecorder(
            unet, cross={"resolution": 16, "positions": [4, 6]}, self_={"resolution": 32}
        ) as recorder,
    ):
        unet(latents, timestep, embeddings)
        other = annotate(recorder, (256, 256), DEFAULT)
    assert torch.equal(found.masks, other.masks)


def test_maps_of_several_passes_are_averaged(unet, inputs):
    latents, timestep, embeddings = inputs(2)
    once = annotate_latents(unet, latents, timestep, embeddings, [4, 6], 64, DEFAULT)
    twice = annotate_latents(unet, [latents] * 2, [timestep] * 2, embeddings, [4, 6], 64, DEFAULT)
    torch.testing.assert_close(twice.maps, once.maps)
    other = -latents
    both = annotate_latents(unet, [latents, other], [timestep, 20], embeddings, [4, 6], 64, DEFAULT)
    assert not torch.allclose(both.maps, once.maps)
    with pytest.raises(ValueError, match="shorter"):
        annotate_latents(unet, [latents, other], [timestep], embeddings, [4, 6], 64, DEFAULT)


def test_only_small_holes_and_only_small_pieces():
    mask = disk(64, 24, (32, 32)) & ~disk(64, 8, (32, 32)) & ~disk(64, 2, (32, 48))
    mask[1:4, 1:4] = mask[58:62, 57:63] = True
    rules = Cleaning(
        closing_fraction=0.0, fill_holes=True, keep_largest=False, max_hole=0.01, min_piece=0.004
    )
    expected = disk(64, 24, (32, 32)) & ~disk(64, 8, (32, 32))
    expected[58:62, 57:63] = True
    assert np.array_equal(clean_mask(mask, rules), expected)
    none = Cleaning(closing_fraction=0.0, fill_holes=False, keep_largest=True, min_piece=0.9)
    assert not clean_mask(mask, none).any()


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        (Cleaning, {"closing_fraction": -0.1}),
        (Cleaning, {"max_hole": 2.0}),
        (AnnotationSettings, {"tau": -1}),
        (AnnotationSettings, {"last_steps": 0}),
        (AnnotationSettings, {"upsampling": "nearest"}),
    ],
)
def test_bad_settings_are_refused(settings, change):
    with pytest.raises(ValueError, match="tau|last_steps|upsampling|closing_fraction|max_hole"):
        settings(**change)
