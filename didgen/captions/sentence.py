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
REGRESSION_PHRASES = {
    "white": "white scar-like areas",
    "blue": "blue-gray peppering",
    "white and blue": "white scar-like areas and blue-gray peppering",
}
# Attributes of one word, and what their word stands before.
REGULARITY_NOUNS = {
    "dots_globules": "dots and globules",
    "streaks": "streaks",
    "blotches": "blotches",
}


def write_sentence(attributes: Attributes) -> str:
    """A compact sentence, e.g. "A small round melanoma, dark brown, sharp border, at the top."

    It never says "lesion" or "skin": these words belong to the placeholder tokens of the prefix.
    """
    return join_clauses(clauses_of(attributes))


def join_clauses(clauses: Sequence[str]) -> str:
    """Clauses as one sentence; none of them: an empty text."""
    return ", ".join(clauses) + "." if clauses else ""


def clauses_of(attributes: Attributes) -> list[str]:
    """The sentence's clauses in order of importance: the subject first, the least one last.

    First what can be measured, then the dermoscopic features: the major criteria of the 7-point
    checklist, its minor ones, all other structures. What is absent or not known is not said.
    """
    return [*_measured_clauses(attributes), *_dermoscopic_clauses(attributes)]


def _measured_clauses(attributes: Attributes) -> list[str]:
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
    return clauses


def _dermoscopic_clauses(attributes: Attributes) -> list[str]:
    clauses = []
    if _seen(attributes.network):
        clauses.append(f"{attributes.network} pigment network")
    if _seen(attributes.veil):
        clauses.append("blue-whitish veil")
    if attributes.vessels:
        clauses.append(f"{_join(attributes.vessels)} vessels")
    for name, noun in REGULARITY_NOUNS.items():
        if _seen(word := getattr(attributes, name)):
            clauses.append(f"{word} {noun}")
    if attributes.regression and _seen(attributes.regression):
        clauses.append(REGRESSION_PHRASES[attributes.regression])
    if attributes.structures:
        clauses.append(_join(attributes.structures))
    return clauses


def _seen(word: str | None) -> bool:
    return word is not None and word != "absent"


def _subject(attributes: Attributes) -> str:
    code = attributes.diagnosis
    noun = CLASSES[code].phrase if code else UNLABELLED
    adjectives = (attributes.size, attributes.symmetry, attributes.shape)
    words = " ".join([word for word in adjectives if word] + [noun])
    return ("An " if words[0] in "aeiou" else "A ") + words


def _join(words: Sequence[str]) -> str:
    """One word, "one and two" or "one, two and three"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
