import hashlib
import os
import re
import signal
import subprocess
import sys
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from didgen.data.classes import CLASSES
from didgen.data.images import read_image, read_mask
from didgen.data.preparation import PreparationPlan, as_table, prepare_images, prepare_one
from didgen.data.sources.phantom import phantom_records
from didgen.data.sources.records import FilePixels, Record, SourceError


def record(name, image, mask=None, label="NV"):
    return Record(name, label, "L", "P", "own", "train", FilePixels(image, mask))


def plan(out, size, fit="crop", hair_removal=False, fingerprints=True):
    return PreparationPlan(out, size, fit, hair_removal, fingerprints)


def disk(height, width):
    """A dark disk on light skin in the middle, and its mask."""
    y, x = np.mgrid[:height, :width]
    inside = np.hypot(y - height / 2, x - width / 2) < min(height, width) / 4
    image = np.where(inside[..., None], (90, 50, 30), (220, 180, 160)).astype(np.uint8)
    return image, inside


@pytest.fixture
def pair(tmp_path):
    image, inside = disk(480, 640)
    Image.fromarray(image).save(tmp_path / "a.jpg", quality=95)
    Image.fromarray(inside).save(tmp_path / "a_mask.png")
    return tmp_path / "a.jpg", tmp_path / "a_mask.png"


@pytest.mark.parametrize(
    ("fit", "area"), [("crop", np.pi / 16), ("pad", np.pi * 9 / 256), ("squash", np.pi * 3 / 64)]
)
def test_image_and_mask_are_fitted_alike_and_told(pair, tmp_path, fit, area):
    done = prepare_one(record("a", *pair), plan(tmp_path / "out", 64, fit))
    image = read_image(tmp_path / "out" / done.row["image"])
    mask = read_mask(tmp_path / "out" / done.row["mask"], (64, 64))
    # The disk is dark wherever the mask says so, but for the rim that the filter blends.
    dark = image[..., 0] < 155
    if fit == "pad":
        dark &= image[..., 0] > 45
    assert (dark != mask).mean() < 0.02
    assert mask.mean() == pytest.approx(area, abs=0.01)
    assert done.mask_area == pytest.approx(mask.mean(), abs=1e-6)
    assert done.shape == (480, 640)
    assert (done.row["original_width"], done.row["original_height"]) == (640, 480)
    written = (tmp_path / "out" / done.row["image"]).read_bytes()
    assert done.row["sha256"] == hashlib.sha256(written).hexdigest()


def test_a_jpeg_decoded_at_a_fraction_looks_as_one_decoded_whole(tmp_path):
    y, x = np.mgrid[:1000, :1400] / 90.0
    waves = 128 + 50 * np.sin(x) * np.cos(y)
    Image.fromarray(np.dstack([waves] * 3).astype(np.uint8)).save(tmp_path / "w.jpg", quality=95)
    Image.open(tmp_path / "w.jpg").save(tmp_path / "w.png")
    images = [FilePixels(tmp_path / f"w.{kind}").load(128, "crop")[0] for kind in ("jpg", "png")]
    assert FilePixels(tmp_path / "w.jpg").read(128).image.shape[0] < 1000
    assert np.abs(images[0].astype(int) - images[1]).mean() < 1.0


def test_a_photograph_that_padding_would_swell_is_named(pair, tmp_path, monkeypatch):
    # Read it is, with its 307 200 px; a square of its longer side has 409 600.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200_000)
    monkeypatch.setattr("didgen.data.sources.records.enough_for", lambda _: 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        fault = prepare_one(record("a", *pair), plan(tmp_path / "out", 64, "pad"))
        assert "640x480 pixels, too many to be made square by 'pad'" in fault
        assert fault.startswith("a: ") and "data.fit: crop or squash" in fault
        assert prepare_one(record("a", *pair), plan(tmp_path / "out", 64, "crop")).row["mask"]


def test_hair_removal_changes_only_what_it_is_asked_for(tmp_path):
    image = np.full((128, 128, 3), 200, np.uint8)
    image[60:62, 5:120] = 40
    Image.fromarray(image).save(tmp_path / "h.png")
    plain, clean = (
        prepare_one(record("h", tmp_path / "h.png"), plan(tmp_path / name, 64, hair_removal=on))
        for name, on in (("plain", False), ("clean", True))
    )
    assert read_image(tmp_path / "plain" / plain.row["image"]).min() < 100
    assert read_image(tmp_path / "clean" / clean.row["image"]).min() > 190
    # Duplicates are sought in the photograph as it was.
    assert plain.digest == clean.digest


def content(folder: Path):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_one_worker_and_two_write_the_same_bytes_in_the_same_order(tmp_path, monkeypatch):
    monkeypatch.setattr("didgen.data.preparation.WORTH_A_PROCESS", 1)
    records = phantom_records(56, tuple(CLASSES), 3)[:20]
    tables, digests = [], []
    for workers in (1, 2):
        own = plan(tmp_path / str(workers), 32, fingerprints=False)
        done = prepare_images(records, own, workers)
        tables.append(as_table(done))
        digests.append([item.digest for item in done])
    assert tables[0].equals(tables[1]) and digests[0] == digests[1]
    assert tables[0]["id"].tolist() == [r.id for r in records]
    one, two = content(tmp_path / "1"), content(tmp_path / "2")
    assert one == two and len(one) == 40


def test_fingerprints_do_not_depend_on_the_number_of_workers(tmp_path, monkeypatch):
    monkeypatch.setattr("didgen.data.preparation.WORTH_A_PROCESS", 1)
    records = phantom_records(56, tuple(CLASSES), 3)[:10]
    one, two = (
        [item.fingerprint for item in prepare_images(records, plan(tmp_path, 64), workers)]
        for workers in (1, 2)
    )
    for a, b in zip(one, two, strict=True):
        assert (a.digest, a.contrast) == (b.digest, b.contrast) and len(a.points) > 5
        for name in ("hashes", "points", "descriptors"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@dataclass(frozen=True)
class Deadly(FilePixels):
    """A photograph that ends the process that reads it, as a system without memory does."""

    def read(self, size):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_told_in_words(tmp_path, pair, monkeypatch):
    monkeypatch.setattr("didgen.data.preparation.WORTH_A_PROCESS", 1)
    records = [record(f"i{n:02d}", *pair) for n in range(40)]
    records[20] = replace(records[20], pixels=Deadly(*pair))
    with pytest.raises(ChildProcessError) as caught:
        prepare_images(records, plan(tmp_path / "out", 32, fingerprints=False), 2)
    message = str(caught.value)
    # The lot of eight in which it died, or one before it that was not yet taken.
    assert re.search(r"killed after (0|8|16) of 40 images, at or soon after i(00|08|16);", message)
    assert "give the job more, use fewer than 2 workers (--workers; --cores of the" in message
    # Nothing half written is left under a final name.
    for path in (tmp_path / "out").glob("*/[!.]*.png"):
        Image.open(path).load()


def test_workers_load_only_what_they_need():
    code = "import sys, didgen.data.preparation; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "PIL.Image" in loaded
    assert not loaded & {"torch", "pandas", "scipy", "skimage", "cv2", "imagehash", "pydantic"}


def test_all_unusable_images_are_told_in_one_error(tmp_path, pair):
    records = [record("good", *pair)]
    for n in range(25):
        (tmp_path / f"bad{n}.jpg").write_bytes(b"no picture")
        records.append(record(f"bad{n}", tmp_path / f"bad{n}.jpg"))
    with pytest.raises(SourceError) as caught:
        prepare_images(records, plan(tmp_path / "out", 32), 1)
    message = str(caught.value)
    assert message.startswith("25 of 26 images cannot be used:\n  bad0: ")
    assert message.count("\n  bad") == 20 and message.endswith("and 5 more")
