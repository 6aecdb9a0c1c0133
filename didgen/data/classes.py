"""The seven diagnoses of ISIC 2018 Task 3 and the words captions use for them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DiagnosisClass:
    """A diagnosis: its ISIC code, its full name and the phrase that stands for it in a caption.

    A phrase never contains the words "lesion" or "skin": those belong to the placeholder tokens.
    """

    code: str
    name: str
    phrase: str


CLASSES: dict[str, DiagnosisClass] = {
    item.code: item
    for item in (
        DiagnosisClass("MEL", "Melanoma", "melanoma"),
        DiagnosisClass("NV", "Melanocytic nevus", "melanocytic nevus"),
        DiagnosisClass("BCC", "Basal cell carcinoma", "basal cell carcinoma"),
        DiagnosisClass("AKIEC", "Actinic keratosis / Bowen's disease", "actinic keratosis"),
        DiagnosisClass("BKL", "Benign keratosis", "benign keratosis"),
        DiagnosisClass("DF", "Dermatofibroma", "dermatofibroma"),
        DiagnosisClass("VASC", "Vascular lesion", "angioma"),
    )
}


def diagnosis_caption(code: str) -> str:
    """The caption that says the diagnosis and nothing else; "" where there is none."""
    if not code:
        return ""
    phrase = CLASSES[code].phrase
    return f"{'An' if phrase[0] in 'aeiou' else 'A'} {phrase}."
