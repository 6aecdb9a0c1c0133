import pytest

from didgen.captions.attributes import Attributes
from didgen.captions.sentence import clauses_of, join_clauses, write_sentence
from didgen.data.classes import CLASSES


def test_a_full_sentence():
    attributes = Attributes(
        diagnosis="MEL",
        size="large",
        shape="irregular",
        symmetry="asymmetric",
        border="blurred",
        colors=("dark brown", "blue-gray"),
        position="upper left",
        skin_tone="light",
        hair="dense",
        artifacts=("ruler",),
    )
    assert write_sentence(attributes) == (
        "A large asymmetric irregular melanoma, dark brown and blue-gray, blurred border, "
        "in the upper left, on light tone, with dense hair and a ruler."
    )


def test_what_is_unknown_is_left_out():
    assert write_sentence(Attributes()) == "A spot."
    assert write_sentence(Attributes(diagnosis="VASC")) == "An angioma."
    assert write_sentence(Attributes(diagnosis="AKIEC")) == "An actinic keratosis."
    assert write_sentence(Attributes(symmetry="asymmetric")) == "An asymmetric spot."
    assert (
        write_sentence(Attributes(skin_tone="brown", artifacts=("ink", "dark corners")))
        == "A spot, on brown tone, with ink and dark corners."
    )


def test_three_colors_and_three_extras():
    attributes = Attributes(
        diagnosis="NV",
        colors=("tan", "light brown", "black"),
        position="center",
        hair="some",
        artifacts=("ruler", "gel bubbles"),
    )
    assert write_sentence(attributes) == (
        "A melanocytic nevus, tan, light brown and black, in the center, "
        "with some hair, a ruler and gel bubbles."
    )


def test_no_diagnosis_brings_a_reserved_word():
    for code in CLASSES:
        text = write_sentence(Attributes(diagnosis=code)).lower()
        assert "lesion" not in text and "skin" not in text


FEATURES = {
    "network": "atypical",
    "veil": "present",
    "vessels": ("dotted", "linear irregular"),
    "dots_globules": "irregular",
    "streaks": "regular",
    "blotches": "irregular",
    "regression": "white and blue",
    "structures": ("shiny white lines", "ulceration"),
}


def test_dermoscopic_features_follow_what_is_measured():
    measured = Attributes(diagnosis="MEL", size="small", position="top", artifacts=("ink",))
    full = Attributes(**measured.model_dump() | FEATURES)
    start = write_sentence(measured).removesuffix(".")
    assert write_sentence(full) == start + (
        ", atypical pigment network, blue-whitish veil, dotted and linear irregular vessels, "
        "irregular dots and globules, regular streaks, irregular blotches, "
        "white scar-like areas and blue-gray peppering, shiny white lines and ulceration."
    )
    assert write_sentence(full) == join_clauses(clauses_of(full))
    assert join_clauses([]) == ""


def test_what_is_absent_is_not_said():
    words = ("network", "veil", "dots_globules", "streaks", "blotches", "regression")
    assert write_sentence(Attributes(**dict.fromkeys(words, "absent"))) == "A spot."


@pytest.mark.parametrize("name", sorted(FEATURES))
def test_no_feature_brings_a_reserved_word_and_each_is_said(name):
    text = write_sentence(Attributes(**{name: FEATURES[name]})).lower()
    assert "lesion" not in text and "skin" not in text
    assert text.count(",") == 1
