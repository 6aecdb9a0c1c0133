"""Pairs of real lesions on other skin: exact masks, true labels, no relatives, errors."""

import numpy as np
import pandas as pd
import pytest

from didgen.methods import warp
from didgen.methods.conditions import Warp
from didgen.methods.protocol import Request
from didgen.metrics.segmentation import iou
from didgen.runtime.files import sha256_file, write_png
from didgen.settings.train import Config

SIZE = 96
ROWS, COLUMNS = np.mgrid[:SIZE, :SIZE]


def disc(row: float = 48, column: float = 48, radius: float = 16) -> np.ndarray:
    return (ROWS - row) ** 2 + (COLUMNS - column) ** 2 < radius**2


def photograph(mask: np.ndarray, lesion: tuple, skin: tuple) -> np.ndarray:
    grain = np.random.default_rng(int(mask.sum())).normal(0, 2, (SIZE, SIZE, 1))
    plain = np.where(mask[..., None], np.array(lesion, float), np.array(skin, float))
    return (plain + grain).clip(0, 255).astype(np.uint8)


# id: label, patient, mask, colours of lesion and skin.
CASES = {
    "a": ("MEL", "p1", disc(), (60, 30, 20), (230, 190, 170)),
    "b": ("NV", "p2", disc(40, 52, 12), (120, 70, 40), (200, 150, 120)),
    "c": ("NV", "p3", disc(50, 44, 20), (150, 90, 60), (240, 210, 200)),
    "cut": ("NV", "p4", disc(0, 48, 20), (110, 60, 30), (180, 130, 110)),
    "again": ("MEL", "p1", disc(46, 50, 17), (62, 32, 22), (228, 188, 168)),
}


def images(folder, cases=CASES):
    rows = []
    for name, (label, patient, mask, lesion, skin) in cases.items():
        write_png(folder / f"images/{name}.png", photograph(mask, lesion, skin))
        write_png(folder / f"masks/{name}.png", mask)
        known = {"id": name, "label": label, "lesion_id": name, "patient_id": patient}
        files = {part: folder / f"{part}s/{name}.png" for part in ("image", "mask")}
        rows.append({**known, **files, "sha256": sha256_file(files["image"])})
    return pd.DataFrame(rows)


def trained(folder, cases=CASES):
    config = Config(
        method="warp",
        train=folder / "train.csv",
        captions=folder / "captions.csv",
        out=folder / "warp",
        state=folder / "state",
    )
    warp.train(images(folder, cases), config)
    return warp.load(folder / "warp", None, "cpu")


@pytest.fixture(scope="module")
def synthesizer(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("warp"))


def request(name: str = "PAIR_0", label: str = "MEL", parent: str = "a", seed: int = 1) -> Request:
    return Request(name, label, "", seed, parent_ids=(parent,))


def test_the_mask_is_where_the_lesion_lies(synthesizer):
    for seed in range(10):
        (sample,) = synthesizer.synthesize([request(seed=seed)])
        assert sample.image.shape == (SIZE, SIZE, 3) and sample.image.dtype == np.uint8
        # The donor's lesion is far darker than the skin around it.
        light = sample.image.astype(int).sum(2)
        dark = light < np.median(light) - 120
        assert iou(dark, sample.mask) > 0.85
        assert not sample.failure


def test_a_lesion_goes_to_another_patient(synthesizer):
    for seed in range(20):
        (sample,) = synthesizer.synthesize([request(seed=seed)])
        assert sample.further_parents and {*sample.further_parents} <= {"b", "c", "cut"}


def test_skin_far_from_both_lesions_is_the_hosts(synthesizer):
    (sample,) = synthesizer.synthesize([request(seed=3)])
    (host,) = sample.further_parents
    _, _, mask, lesion, skin = CASES[host]
    changed = (sample.image != photograph(mask, lesion, skin)).any(2)
    # Blending works within the rectangle around the patch.
    near = warp.with_margin(mask)
    near[
        tuple(slice(axis.min(), axis.max() + 1) for axis in warp.with_margin(sample.mask).nonzero())
    ] = True
    assert changed.any() and not (changed & ~near).any()


def test_a_pair_depends_on_its_own_request_alone(synthesizer):
    one, other = request("x", seed=5), request("y", "NV", "b", seed=6)
    together = synthesizer.synthesize([one, other])
    apart = [synthesizer.synthesize([each])[0] for each in (other, one)][::-1]
    for left, right in zip(together, apart, strict=True):
        assert np.array_equal(left.image, right.image) and np.array_equal(left.mask, right.mask)
    assert not np.array_equal(together[0].image, together[1].image)


def test_a_lesion_that_its_image_cuts_is_never_moved(synthesizer):
    for seed in range(10):
        (sample,) = synthesizer.synthesize([request(label="NV", parent="cut", seed=seed)])
        assert len(sample.further_parents) == 2 and sample.mask.mean() < 0.25
        donors = {"b", "c"} & {*sample.further_parents}
        assert donors


def test_blending_an_image_with_itself_changes_nothing():
    _, _, mask, lesion, skin = CASES["c"]
    image = photograph(mask, lesion, skin)
    assert np.abs(warp.blend(image, mask, image).astype(int) - image).max() <= 2


def test_warped_lesions_keep_their_mask():
    _, _, mask, lesion, skin = CASES["a"]
    image = photograph(mask, lesion, skin)
    for seed in range(10):
        warped, moved = warp.warp_lesion(image, mask, np.random.default_rng(seed), Warp())
        near = warp.with_margin(moved)
        assert iou((warped.astype(int).sum(2) < 350) & near, moved) > 0.95


def test_unknown_labels_are_refused_before_anything_is_made(synthesizer):
    with pytest.raises(ValueError, match="VASC"):
        synthesizer.check([request(), request(label="VASC")])


@pytest.mark.parametrize(
    ("kept", "message"),
    [(("a", "cut"), r"\['NV'\] lack it"), (("a", "again"), "another patient"), (("cut",), "lack")],
)
def test_too_few_lesions_are_refused(tmp_path, kept, message):
    with pytest.raises(ValueError, match=message):
        trained(tmp_path, {name: CASES[name] for name in kept})
    assert not (tmp_path / "warp").exists()


def test_a_missing_image_is_refused(tmp_path):
    trained(tmp_path)
    (tmp_path / "masks/b.png").unlink()
    with pytest.raises(ValueError, match=r"1 files are gone, such as .*b\.png"):
        warp.load(tmp_path / "warp", None, "cpu")


@pytest.mark.parametrize("text", ["[]", "{}", "3", "null", "[", '[{"image": 1}]', "[1, 2]"])
def test_a_list_of_lesions_that_is_none_is_named(tmp_path, text):
    trained(tmp_path)
    (tmp_path / "warp/lesions.json").write_text(text)
    with pytest.raises(ValueError, match=r"lesions\.json: no list of lesions"):
        warp.load(tmp_path / "warp", None, "cpu")
