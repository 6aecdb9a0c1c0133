import numpy as np
import pytest
import torch

from didgen.backbone.handle import Backbone
from didgen.methods.didgen import cache as caching
from didgen.methods.didgen.cache import TrainingItem, build_cache
from didgen.runtime.files import write_png

FIXED = ("An image of <lesion> on <skin>.", "")


@pytest.fixture
def items(tmp_path):
    rng = np.random.default_rng(0)
    found = []
    for name, side in (("a", "left"), ("b", "right")):
        write_png(tmp_path / f"{name}.png", rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
        mask = np.zeros((64, 64), bool)
        mask[8:24, :20] = True
        write_png(tmp_path / f"{name}_mask.png", mask)
        prompt = f"An image of <lesion> on <skin>. upper {side}"
        path = tmp_path / f"{name}_mask.png" if name == "a" else None
        found.append(TrainingItem(name, tmp_path / f"{name}.png", path, prompt))
    return found


def test_mirror_images_are_cached_with_masks_and_prompts(fresh, items, tmp_path):
    backbone = fresh()
    cache = build_cache(backbone, items, FIXED, tmp_path / "s", flips=True)
    assert len(cache) == 2 and len(cache.moments) == 4
    assert cache.has_mask.tolist() == [True, False, True, False]
    np.testing.assert_array_equal(cache.masks[2], cache.masks[0][..., ::-1])
    assert cache.masks[0, 0, 2, 0] == 1.0 and cache.masks[0].sum(axis=0).max() == 1.0
    # "upper left" mirrored is "upper right", which the other image already has.
    assert cache.prompt_rows.tolist() == [2, 3, 3, 2]
    from didgen.data.images import read_image

    pixels = torch.from_numpy(read_image(items[0].image).copy()).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        mean, _ = backbone.encode_moments(pixels.flip(-1))
    np.testing.assert_allclose(cache.moments[2, 0], mean[0].numpy(), atol=5e-3)


def test_without_flips_the_first_rows_are_all(fresh, items, tmp_path):
    backbone = fresh()
    plain = build_cache(backbone, items, FIXED, tmp_path / "p", flips=False)
    both = build_cache(backbone, items, FIXED, tmp_path / "f", flips=True)
    assert len(plain.moments) == 2
    np.testing.assert_array_equal(plain.moments, both.moments[:2])
    np.testing.assert_array_equal(plain.masks, both.masks[:2])


def test_a_finished_cache_is_opened_memory_mapped_and_not_written_again(fresh, items, tmp_path):
    backbone = fresh()
    build_cache(backbone, items, FIXED, tmp_path / "s", flips=False)
    (file,) = (tmp_path / "s").rglob("moments.npy")
    before = file.stat().st_mtime_ns
    again = build_cache(backbone, items, FIXED, tmp_path / "s", flips=False)
    assert file.stat().st_mtime_ns == before
    assert isinstance(again.moments, np.memmap) and isinstance(again.embeddings, np.memmap)


def test_all_sizes_are_looked_at_before_anything_is_encoded(fresh, items, tmp_path):
    write_png(items[1].image, np.zeros((64, 60, 3), np.uint8))
    told = r"b.png: found 60x64 px, expected 64x64 .*\(1 of 2 images\); set data.size"
    with pytest.raises(ValueError, match=told):
        build_cache(fresh(), items, FIXED, tmp_path / "s", flips=False)
    assert not list((tmp_path / "s").rglob("*.npy"))


def test_large_images_are_encoded_fewer_at_once(fresh, items, tmp_path, monkeypatch):
    backbone = fresh()
    whole = build_cache(backbone, items, FIXED, tmp_path / "a", flips=False)
    seen, real = [], Backbone.encode_moments

    def encode(self, images):
        seen.append(len(images))
        return real(self, images)

    monkeypatch.setattr(Backbone, "encode_moments", encode)
    monkeypatch.setattr(caching, "PIXELS", 64 * 64)
    parts = build_cache(backbone, items, FIXED, tmp_path / "b", flips=False)
    assert seen == [1, 1]
    np.testing.assert_allclose(parts.moments, whole.moments, atol=1e-2)
