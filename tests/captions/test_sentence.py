from didgen.captions.attributes import Attributes
from didgen.captions.sentence import write_sentence
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
