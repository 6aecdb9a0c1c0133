import pytest
import torch

from didgen.attention.annotation import mask_from_map
from didgen.attention.refinement import box_mean, guided_filter, upsample_along_edges
from didgen.settings.annotation import AnnotationSettings


def disk(size, radius, center):
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return (y - center[0]) ** 2 + (x - center[1]) ** 2 <= radius**2


def naive_mean(x, radius):
    out = torch.empty_like(x)
    for i in range(x.shape[-2]):
        for j in range(x.shape[-1]):
            rows = slice(max(0, i - radius), i + radius + 1)
            columns = slice(max(0, j - radius), j + radius + 1)
            out[..., i, j] = x[..., rows, columns].mean((-2, -1))
    return out


@pytest.mark.parametrize("radius", [1, 2, 9])
def test_box_mean_equals_the_loop_at_the_edges_too(radius):
    x = torch.rand(2, 3, 7, 5, dtype=torch.float64)
    torch.testing.assert_close(box_mean(x, radius), naive_mean(x, radius))


def test_a_guide_without_edges_blurs_twice():
    maps = torch.rand(1, 8, 8, dtype=torch.float64)
    found = guided_filter(torch.full((1, 3, 8, 8), 0.4), maps, 2, 1e-4)
    twice = box_mean(box_mean(maps[:, None], 2), 2)[:, 0]
    torch.testing.assert_close(found, twice)


def test_a_map_that_is_linear_in_the_guide_is_kept():
    guide = torch.rand(2, 3, 12, 10, dtype=torch.float64)
    maps = 0.3 * guide[:, 0] - 0.2 * guide[:, 2] + 0.5
    torch.testing.assert_close(guided_filter(guide, maps, 3, 1e-10), maps)


def test_one_dimension_by_hand():
    """Windows {0,1}, {0,1,2}, {1,2}; the guide is a step: slopes 0, then cov / (var + eps)."""
    guide = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).view(1, 1, 1, 3)
    maps = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64).view(1, 1, 3)
    slopes = [0.0, (1 / 3 - 0.5 / 3) / (2 / 9 + 1), (0.5 - 0.375) / (0.25 + 1)]
    offsets = [0.25, 0.5 - slopes[1] / 3, 0.75 - slopes[2] / 2]
    expected = [
        sum(slopes[:2]) / 2 * 0 + sum(offsets[:2]) / 2,
        sum(offsets) / 3,
        sum(slopes[1:]) / 2 + sum(offsets[1:]) / 2,
    ]
    found = guided_filter(guide, maps, 1, 1.0)
    torch.testing.assert_close(found.flatten(), torch.tensor(expected, dtype=torch.float64))


def test_the_outline_moves_to_the_images_edge():
    """A map on 32x32 that is off by a cell; the photograph shows where the lesion ends."""
    lesion = disk(256, 61, (128, 121))
    image = torch.where(lesion, -0.5, 0.4).expand(1, 3, -1, -1)
    image = image + 0.03 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    small = torch.nn.functional.avg_pool2d(lesion[None, None].float().roll(5, -1), 8)[0]
    small = box_mean(small[None], 1)[0]
    scores = []
    for upsampling in ("bicubic", "guided-filter"):
        settings = AnnotationSettings(upsampling=upsampling, closing_fraction=0.0)
        mask = mask_from_map(small, (256, 256), images=image, settings=settings).masks[0]
        scores.append(float((mask & lesion).sum() / (mask | lesion).sum()))
    assert scores[0] < 0.93 < 0.97 < scores[1]


def test_an_image_does_not_see_the_others():
    maps, images = torch.rand(3, 8, 8), torch.rand(3, 3, 64, 64) * 2 - 1
    together = upsample_along_edges(maps, images, 1 / 32, 1e-3)
    torch.testing.assert_close(
        together[1:2], upsample_along_edges(maps[1:2], images[1:2], 1 / 32, 1e-3)
    )
    assert together.shape == (3, 64, 64) and together.dtype == torch.float32
    assert bool((together.amax((1, 2)) <= maps.amax((1, 2))).all())


def test_bad_inputs_are_refused():
    maps, guide = torch.rand(1, 8, 8), torch.rand(1, 3, 8, 8)
    with pytest.raises(ValueError, match="enlarge the maps first"):
        guided_filter(torch.rand(1, 3, 16, 16), maps, 1, 1e-3)
    for radius, epsilon in ((0, 1e-3), (1, 0.0)):
        with pytest.raises(ValueError, match="expected at least 1, and above 0"):
            guided_filter(guide, maps, radius, epsilon)
    settings = AnnotationSettings(upsampling="guided-filter")
    for images in (None, torch.rand(1, 3, 16, 16)):
        with pytest.raises(ValueError, match=r"the guided filter needs images .*1, 3, 32, 32"):
            mask_from_map(maps, (32, 32), images=images, settings=settings)


def test_a_broken_image_breaks_no_mask_but_its_own():
    maps, images = torch.rand(2, 8, 8), torch.rand(2, 3, 32, 32)
    settings = AnnotationSettings(upsampling="guided-filter")
    sound = mask_from_map(maps, (32, 32), images=images, settings=settings)
    images[0, :, 3] = float("nan")
    found = mask_from_map(maps, (32, 32), images=images, settings=settings)
    assert torch.equal(found.masks[1], sound.masks[1])
