"""The procedural generator: determinism, truth, cohorts."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from didgen.data.phantoms import PHANTOM_CLASSES, PhantomSpec, cohort, render, spread_centers
from didgen.data.phantoms.canvas import COLORS, Pose, lab_to_srgb, stroke_coverage, typology_angle
from didgen.data.phantoms.cohort import class_counts
from didgen.data.phantoms.outline import Outline, draw_outline
from didgen.data.phantoms.photograph import draw_hair, draw_patient


def spec(label: str = "NV", number: int = 0, **changes: int) -> PhantomSpec:
    base = PhantomSpec(f"PH_{number:07d}", label, "P", "L", 11 + number, 22 + number, 33 + number)
    return replace(base, **changes)


@pytest.mark.parametrize("label", PHANTOM_CLASSES)
def test_same_spec_same_pixels(label):
    first, again = render(spec(label), 64), render(spec(label), 64)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.mask, again.mask)
    assert first.truth == again.truth
    assert not np.array_equal(first.image, render(spec(label, photo_seed=99), 64).image)


def test_global_random_state_plays_no_part():
    np.random.seed(0)
    state = np.random.get_state()[1].copy()
    first = render(spec(), 48)
    assert np.array_equal(state, np.random.get_state()[1])
    np.random.seed(1)
    assert np.array_equal(first.image, render(spec(), 48).image)


@pytest.mark.parametrize("label", PHANTOM_CLASSES)
def test_sizes_show_the_same_scene(label):
    for number in range(3):
        small, large = render(spec(label, number), 64), render(spec(label, number), 128)
        share = large.mask.reshape(64, 2, 64, 2).mean((1, 3))
        down = share >= 0.5
        iou = (small.mask & down).sum() / (small.mask | down).sum()
        assert iou > 0.9
        shrunk = large.image.reshape(64, 2, 64, 2, 3).mean((1, 3))
        assert np.abs(shrunk - small.image).mean() < 6
        assert small.truth.shape == large.truth.shape
        assert small.truth.artifacts == large.truth.artifacts
        assert small.truth.ita == pytest.approx(large.truth.ita, abs=2)


def test_image_and_mask_match_their_truth():
    for s in cohort(28, seed=5):
        p = render(s, 64)
        assert p.image.shape == (64, 64, 3) and p.image.dtype == np.uint8
        assert p.mask.shape == (64, 64) and p.mask.dtype == bool
        assert 0.02 < p.mask.mean() < 0.6
        assert p.truth.area_share == pytest.approx(p.mask.mean())
        rows, columns = np.nonzero(p.mask)
        assert p.truth.center[0] == pytest.approx((columns.mean() + 0.5) / 64)
        assert p.truth.center[1] == pytest.approx((rows.mean() + 0.5) / 64)
        assert p.truth.colors and set(p.truth.colors) <= set(COLORS)
        assert p.truth.shape in ("round", "oval", "irregular")
        assert p.label == s.label


def test_lesion_differs_from_the_skin_around_it():
    for label in PHANTOM_CLASSES:
        for number in range(4):
            p = render(spec(label, number), 64)
            image = p.image.astype(float)
            inside, outside = (np.median(image[m], axis=0) for m in (p.mask, ~p.mask))
            assert np.abs(inside - outside).max() > 10, (label, number)


def test_skin_tones_span_the_typology_range():
    angles = [render(s, 32).truth.ita for s in cohort(90, seed=2)]
    assert min(angles) < -25 and max(angles) > 52
    # Chardon's classes from very light to dark are all there.
    assert len(set(np.digitize(angles, [-30, 10, 28, 41, 55]))) == 6


def test_truth_angle_is_that_of_the_picture():
    from skimage.color import rgb2lab

    plain = [s for s in cohort(60, seed=4) if draw_patient(s.patient_seed).hair == "none"]
    for s in plain[:15]:
        p = render(s, 64)
        if p.truth.artifacts:
            continue
        lab = rgb2lab(p.image)[~p.mask]
        measured = typology_angle(np.median(lab[:, 0]), np.median(lab[:, 2]))
        assert measured == pytest.approx(p.truth.ita, abs=4)


@pytest.mark.parametrize("artifact", ["ruler", "ink", "gel bubbles", "dark corners"])
def test_each_named_artifact_is_drawn(artifact, monkeypatch):
    module = "didgen.data.phantoms.photograph.choose_artifacts"
    for number in range(8):
        monkeypatch.setattr(module, lambda rng: ())
        without = render(spec("DF", number), 64)
        monkeypatch.setattr(module, lambda rng: (artifact,))
        with_it = render(spec("DF", number), 64)
        assert without.truth.artifacts == () and with_it.truth.artifacts == (artifact,)
        change = np.abs(with_it.image.astype(int) - without.image).max(axis=2)
        assert (change > 20).sum() >= 8
        assert np.array_equal(with_it.mask, without.mask)
        if artifact == "ink":
            r, g, b = (with_it.image[change > 40].astype(int).mean(0)).tolist()
            assert b > g and r > g


def test_hair_word_is_what_is_drawn():
    share = defaultdict(list)
    for seed in range(60):
        patient = draw_patient(seed)
        cover = draw_hair(patient, np.random.default_rng(seed), 64)
        share[patient.hair].append(0.0 if cover is None else float((cover > 0.3).mean()))
    assert set(share) == {"none", "some", "dense"}
    assert max(share["none"]) == 0 < min(share["some"])
    assert np.mean(share["some"]) < min(share["dense"])


def test_photographs_of_one_lesion_share_it_and_differ_in_pose():
    first, second = (render(spec("MEL", photo_seed=s), 64) for s in (1, 2))
    assert first.truth.shape == second.truth.shape
    assert first.truth.hair == second.truth.hair
    assert first.truth.ita == pytest.approx(second.truth.ita, abs=12)
    assert set(first.truth.colors[:2]) & set(second.truth.colors[:2])
    assert first.truth.center != second.truth.center


def test_cohort_ids_patients_lesions_and_photographs():
    specs = cohort(300, seed=1)
    assert [s.id for s in specs[:2]] == ["PH_0000000", "PH_0000001"]
    assert len(specs) == 300 == len({s.id for s in specs}) == len({s.photo_seed for s in specs})
    lesions, patients = defaultdict(list), defaultdict(set)
    for s in specs:
        lesions[s.lesion_id].append(s)
        patients[s.patient_id].add(s.lesion_id)
    for photos in lesions.values():
        assert 1 <= len(photos) <= 3
        assert len({(p.label, p.patient_id, p.patient_seed, p.lesion_seed) for p in photos}) == 1
    assert set(map(len, lesions.values())) == {1, 2, 3}
    assert set(map(len, patients.values())) == {1, 2, 3, 4}
    assert len({s.patient_seed for s in specs}) == len(patients)
    assert specs == cohort(300, seed=1) and specs != cohort(300, seed=2)


@pytest.mark.parametrize("n", [1, 6, 7, 8, 50])
def test_cohort_is_exact_and_shows_every_class(n):
    counts = Counter(s.label for s in cohort(n, seed=0))
    assert sum(counts.values()) == n
    assert max(counts.values()) - min(counts.values()) <= 1
    assert len(counts) == min(n, 7)


def test_class_counts_follow_the_weights_by_largest_remainder():
    # 10 images at 5:3:2.6 of 10.6 are 4.717, 2.830, 2.453: the two largest remainders gain one.
    assert class_counts(10, ("NV", "MEL", "DF"), {"NV": 5, "MEL": 3, "DF": 2.6}) == {
        "NV": 5,
        "MEL": 3,
        "DF": 2,
    }
    assert class_counts(3, ("NV", "MEL", "DF"), {"NV": 98, "MEL": 1, "DF": 1}) == {
        "NV": 1,
        "MEL": 1,
        "DF": 1,
    }
    assert class_counts(9, ("NV", "MEL"), {"NV": 1, "MEL": 0}) == {"NV": 9, "MEL": 0}


def test_prefix_and_class_selection():
    specs = cohort(5, classes=("DF",), prefix="DEMO", seed=0)
    assert {s.label for s in specs} == {"DF"}
    assert specs[0].id == "DEMO_0000000" and specs[0].patient_id.startswith("DEMO_")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: render(spec("SCC"), size=128), "SCC.*MEL, NV"),
        (lambda: render(spec(), 31), "31.*at least 32"),
        (lambda: render(spec(), 64.0), "64.0.*whole number"),
        (lambda: cohort(0, seed=0), "n_images is 0"),
        (lambda: cohort(7, classes=("NV", "XX"), seed=0), "XX"),
        (lambda: cohort(7, classes=(), seed=0), "at least one"),
        (lambda: cohort(7, classes=("NV", "NV"), seed=0), "each once"),
        (lambda: cohort(7, weights={"NV": 1.0}, seed=0), "one weight for each class"),
        (lambda: cohort(7, classes=("NV",), weights={"NV": -1.0}, seed=0), "not all zero"),
    ],
)
def test_bad_input_says_what_is_wrong(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_known_colors():
    # White, mid gray and the sRGB red primary in CIELAB under D65.
    lab = np.array([[100, 0, 0], [53.585, 0, 0], [53.241, 80.092, 67.203]], dtype=np.float32)
    expected = np.array([[255, 255, 255], [128, 128, 128], [255, 0, 0]])
    assert np.abs(lab_to_srgb(lab) * 255 - expected).max() < 1.0
    assert typology_angle(65.0, 15.0) == pytest.approx(45.0)
    assert typology_angle(35.0, 15.0) == pytest.approx(-45.0)


def test_outline_of_a_circle_and_an_ellipse():
    circle = Outline(np.full(720, 0.25))
    assert circle.area == pytest.approx(np.pi / 16)
    assert circle.shape() == "round"
    assert circle.asymmetry() == pytest.approx(0.0, abs=1e-6)
    depth = circle.signed_distance(np.float32([[0.0, 0.2, 0.3]]), np.zeros((1, 3), np.float32))
    assert depth[0] == pytest.approx([0.25, 0.05, -0.05], abs=1e-6)
    ellipse = draw_outline(np.random.default_rng(0), 0.2, 1.6, 0.0, 0.0)
    assert ellipse.area == pytest.approx(0.2)
    assert ellipse.shape() == "oval" and ellipse.asymmetry() < 0.01


def test_pose_goes_there_and_back():
    pose = Pose(0.4, 0.6, 1.1, 0.7)
    u, v = pose.to_lesion(*pose.to_image(np.float32([0.1, -0.2]), np.float32([0.05, 0.3])))
    assert u == pytest.approx([0.1, -0.2], abs=1e-6)
    assert v == pytest.approx([0.05, 0.3], abs=1e-6)


def test_stroke_covers_its_width_and_window():
    x, y = np.linspace(0, 1, 300), np.full(300, 0.5)
    cover = stroke_coverage(x, y, np.full(300, 4 / 64), 64)
    # Four pixels wide over rows 30..33, nothing beyond the soft rim.
    assert cover[30:34].min() > 0.9 and cover[:29].max() == 0 and cover[35:].max() == 0
    part = stroke_coverage(x, y, np.full(300, 4 / 64), 64, window=(20, 40, 10, 30))
    assert part == pytest.approx(cover[20:40, 10:30], abs=1e-4)
    sums = [stroke_coverage(x, y, np.full(300, w / 64), 64).sum() for w in (0.25, 0.5, 1.0, 3.0)]
    assert all(a < b for a, b in pairwise(sums))


def test_a_given_center_moves_the_lesion_and_nothing_else():
    spec = cohort(1, seed=3)[0]
    drawn = {x: render(spec, 64, (x, 0.3)) for x in (0.3, 0.7)}
    for x, phantom in drawn.items():
        assert phantom.truth.center == pytest.approx((x, 0.3), abs=0.06)
    shift = drawn[0.7].truth.center[0] - drawn[0.3].truth.center[0]
    assert shift == pytest.approx(0.4, abs=0.02)
    neither = ~drawn[0.3].mask & ~drawn[0.7].mask
    corner = neither[48:, 28:36]
    assert corner.all()
    difference = drawn[0.3].image.astype(int) - drawn[0.7].image.astype(int)
    assert np.abs(difference[48:, 28:36]).max() <= 3
    with pytest.raises(ValueError, match=r"center is \(1.2, 0.5\): expected .* within 0..1"):
        render(spec, 64, (1.2, 0.5))


def test_spread_centers_fill_a_grid_evenly():
    points = np.array(spread_centers(90, seed=2))
    cells = (points * 3).astype(int)
    _, counts = np.unique(cells[:, 1] * 3 + cells[:, 0], return_counts=True)
    assert counts.tolist() == [10] * 9
    assert points.min() >= 0.15
    assert points.max() <= 0.85
    assert spread_centers(90, seed=2) == [tuple(p) for p in points.tolist()]
    assert spread_centers(90, seed=3) != spread_centers(90, seed=2)
