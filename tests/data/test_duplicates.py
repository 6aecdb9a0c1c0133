import io
import itertools
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance

from didgen.data.duplicates import (
    DuplicateRule,
    Pair,
    cluster_names,
    exact_pairs,
    find_duplicates,
)
from didgen.data.fingerprints import MAX_POINTS, fingerprint
from didgen.data.images import pixel_digest
from didgen.data.phantoms import cohort, render
from didgen.data.sources.isic2018 import isic2018_records


def saved_as_jpeg(image, quality):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


CHANGES = {
    "saved as JPEG": lambda image: saved_as_jpeg(image, 40),
    "at half its size": lambda image: image.resize((96, 96), Image.Resampling.LANCZOS),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "on its side": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "cut": lambda image: image.crop((18, 10, 180, 172)).resize((192, 192)),
    "turned and cut": lambda image: image.rotate(25, Image.Resampling.BICUBIC).crop(
        (28, 28, 164, 164)
    ),
}


@pytest.fixture(scope="module")
def specs():
    return cohort(28, seed=31)


@pytest.fixture(scope="module")
def photographs(specs):
    """Phantoms of 14 different lesions, two of each class."""
    first = {spec.lesion_id: spec for spec in reversed(specs)}
    return [Image.fromarray(render(spec, 192).image) for spec in list(first.values())[:14]]


@pytest.fixture(scope="module")
def prints(photographs):
    return [fingerprint(np.asarray(image)) for image in photographs]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_and_nothing_else(photographs, prints, change):
    chosen = [0, 5, 9]
    copies = [fingerprint(np.asarray(CHANGES[change](photographs[k]))) for k in chosen]
    found = find_duplicates([*prints, *copies])
    expected = {(k, len(prints) + n) for n, k in enumerate(chosen)}
    assert {(pair.a, pair.b) for pair in found} == expected
    assert all(pair.kind == "near" and 0 <= pair.distance < 1 for pair in found)


def test_equal_pixels_are_exact_copies(prints):
    found = find_duplicates([*prints, prints[3], prints[3]])
    assert found == [
        Pair(3, 14, "exact", 0.0),
        Pair(3, 15, "exact", 0.0),
        Pair(14, 15, "exact", 0.0),
    ]
    assert find_duplicates(prints) == []


def test_the_order_of_the_images_does_not_matter(photographs, prints):
    copy = fingerprint(np.asarray(CHANGES["cut"](photographs[2])))
    one = find_duplicates([*prints, copy])
    other = find_duplicates([copy, *prints])
    assert [(p.a, p.b) for p in one] == [(2, 14)]
    assert [(p.a, p.b) for p in other] == [(0, 3)]
    assert other[0].distance == pytest.approx(one[0].distance, abs=0.1)


def test_flat_and_empty_images_are_no_near_duplicates():
    flat = [fingerprint(np.full((64, 64, 3), value, np.uint8)) for value in (0, 90, 200)]
    assert all(len(item.points) == 0 for item in flat)
    assert find_duplicates(flat) == []
    assert find_duplicates([]) == [] == find_duplicates(flat[:1])


def test_a_strip_takes_no_more_memory_than_a_photograph():
    rng = np.random.default_rng(0)
    strips = [rng.integers(0, 256, (2, 20_000, 3)).astype(np.uint8) for _ in range(2)]
    tracemalloc.start()
    try:
        found = [fingerprint(strip) for strip in (*strips, strips[0])]
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()
    assert find_duplicates(found) == [Pair(0, 2, "exact", 0.0)]


def test_a_fingerprint_is_small_and_depends_on_the_pixels_alone(photographs):
    image = np.asarray(photographs[0])
    one, again = fingerprint(image), fingerprint(image.copy())
    assert one.digest == again.digest == pixel_digest(image)
    np.testing.assert_array_equal(one.descriptors, again.descriptors)
    assert one.hashes.shape == (8, 4) and len(one.points) <= MAX_POINTS
    # The same bytes in another shape are another image.
    assert pixel_digest(image.reshape(96, 384, 3)) != one.digest


def test_clusters_join_what_is_linked_through_others():
    pairs = [Pair(0, 2, "near", 0.1), Pair(2, 4, "exact", 0.0)]
    assert cluster_names(pairs, list("abcde")) == ["a", "", "a", "", "a"]
    assert cluster_names([], ["a"]) == [""] and cluster_names([], []) == []
    assert exact_pairs([b"x", b"y", b"x", b"x"]) == [
        Pair(0, 2, "exact", 0.0),
        Pair(0, 3, "exact", 0.0),
    ]


def test_the_finder_names_its_thresholds():
    assert "at most 20 of them" in DuplicateRule(bits=20).sentence()


@pytest.mark.slow
def test_hidden_lesions_of_real_photographs_are_found(isic_mini):
    records = [r for r in isic2018_records(isic_mini, official=False) if r.lesion_id]
    lesions = pd.Series([record.lesion_id for record in records])
    repeated = lesions[lesions.duplicated(keep=False)]
    chosen = repeated.index[:300].union(lesions.index[:300])
    prints = [fingerprint(records[k].pixels.read(128).image) for k in chosen]
    names = lesions[chosen].tolist()
    same = {p for p in itertools.combinations(range(len(names)), 2) if names[p[0]] == names[p[1]]}
    found = {(pair.a, pair.b) for pair in find_duplicates(prints)}
    recall, precision = len(found & same) / len(same), len(found & same) / len(found)
    print(f"{len(names)} photographs, {len(same)} pairs of one lesion: recall {recall:.3f}, "
          f"precision {precision:.3f}")  # fmt: skip
    assert recall > 0.65 and precision > 0.9
