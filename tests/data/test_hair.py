import numpy as np
import pytest

from didgen.data.hair import fill, find_hair, remove_hair
from didgen.data.phantoms import cohort, photograph, render


@pytest.fixture(scope="module")
def twins():
    """Hairy phantoms, and the same scenes without their hair."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        for spec in cohort(60, seed=5):
            hairy = render(spec, 192)
            if hairy.truth.hair == "none":
                continue
            patch.setattr(photograph, "draw_hair", lambda *_: None)
            found.append((hairy.image, render(spec, 192).image))
            patch.undo()
            if len(found) == 8:
                break
    return found


def error(image, truth):
    return float(np.abs(image.astype(float) - truth).mean())


def test_removal_brings_every_photograph_much_nearer_to_its_hairless_twin(twins):
    before = np.array([error(hairy, bald) for hairy, bald in twins])
    after = np.array([error(remove_hair(hairy), bald) for hairy, bald in twins])
    assert (after < 0.7 * before).all(), after / before
    assert after.mean() < 0.4 * before.mean()


def test_a_hairless_photograph_stays_nearly_as_it_is(twins):
    assert np.mean([error(remove_hair(bald), bald) for _, bald in twins]) < 0.5
    assert np.mean([find_hair(bald).mean() for _, bald in twins]) < 0.03


def test_pixels_that_are_no_hair_keep_their_values(twins):
    hairy, _ = twins[0]
    kept = ~find_hair(hairy)
    np.testing.assert_array_equal(remove_hair(hairy)[kept], hairy[kept])


def drawn_line(shape=(150, 200)):
    image = np.full((*shape, 3), 200, np.uint8)
    image[70:72, 10:190] = 40
    return image


def test_a_line_goes_and_a_dot_and_a_broad_band_stay():
    image = drawn_line()
    assert np.abs(remove_hair(image).astype(int) - 200).max() <= 2
    for part in (np.s_[60:68, 60:68], np.s_[40:80, :]):
        image = np.full((150, 200, 3), 200, np.uint8)
        image[part] = 40
        np.testing.assert_array_equal(remove_hair(image), image)


def test_hair_is_found_at_any_size():
    big = np.kron(drawn_line(), np.ones((6, 6, 1), np.uint8))
    assert find_hair(big)[6 * 70 : 6 * 72, 200:1000].all()
    assert remove_hair(big).shape == big.shape


def test_flat_images_pass_and_wrong_ones_are_refused():
    flat = np.full((64, 64, 3), 9, np.uint8)
    np.testing.assert_array_equal(remove_hair(flat), flat)
    for wrong in (flat[..., 0], flat.astype(float)):
        with pytest.raises(ValueError, match=r"expected uint8 \(H, W, 3\)"):
            remove_hair(wrong)


def test_holes_far_from_everything_take_the_nearest_color():
    image = np.zeros((20, 60, 3), np.uint8)
    image[:, :5] = 100
    holes = np.ones((20, 60), bool)
    holes[:, :5] = False
    assert (fill(image, holes, 1.0) == 100).all()
    assert (fill(image, np.ones((20, 60), bool), 1.0) == image).all()
