"""One sentence from attributes; the clauses stand in order of importance, the least one last."""

from collections.abc import Sequence

from didgen.captions.attributes import Attributes
from didgen.data.classes import CLASSES

UNLABELLED = "spot"
PLACES = {
    "upper left": "in the upper left",
    "top": "at the top",
    "upper right": "in the upper right",
    "left": "at the left",
    "center": "in the center",
    "right": "at the right",
    "lower left": "in the lower left",
    "bottom": "at the bottom",
    "lower right": "in the lower right",
}
ARTIFACT_PHRASES = {
    "ruler": "a ruler",
    "ink": "ink",
    "gel bubbles": "gel bubbles",
    "dark corners": "dark corners",
}


def write_sentence(attributes: Attributes) -> str:
    """A compact sentence, e.g. "A small round melanoma, dark brown, sharp border, at the top."

    It never says "lesion" or "skin": these words belong to the placeholder tokens of the prefix.
    """
    clauses = [_subject(attributes)]
    if attributes.colors:
        clauses.append(_join(attributes.colors))
    if attributes.border:
        clauses.append(f"{attributes.border} border")
    if attributes.position:
        clauses.append(PLACES[attributes.position])
    if attributes.skin_tone:
        clauses.append(f"on {attributes.skin_tone} tone")
    extras = [] if attributes.hair == "none" else [f"{attributes.hair} hair"]
    extras += [ARTIFACT_PHRASES[artifact] for artifact in attributes.artifacts]
    if extras:
        clauses.append("with " + _join(extras))
    return ", ".join(clauses) + "."


def _subject(attributes: Attributes) -> str:
    code = attributes.diagnosis
    noun = CLASSES[code].phrase if code else UNLABELLED
    adjectives = (attributes.size, attributes.symmetry, attributes.shape)
    words = " ".join([word for word in adjectives if word] + [noun])
    return ("An " if words[0] in "aeiou" else "A ") + words


def _join(words: Sequence[str]) -> str:
    """One word, "one and two" or "one, two and three"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
